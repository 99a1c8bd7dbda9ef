//! The conformance suite, run for every backend of this crate.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/neighbour.rs"]
#[allow(unreachable_pub, missing_docs)]
mod neighbour;

use std::path::PathBuf;

use sqlx::{ConnectOptions, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use tower_revocation::backend::{
    Memory, Sqlite,
    conformance::{Harness, Network, Skipped},
};

mod memory {
    use super::*;

    struct InMemory(Memory);

    impl Harness for InMemory {
        type Backend = Memory;

        async fn open(&self) -> Memory {
            self.0.clone()
        }

        async fn open_afar(&self) -> Result<(Memory, Box<dyn Network>), Skipped> {
            Err(Skipped::because("the store is in this process: there is no network"))
        }
    }

    tower_revocation::conformance_tests!(async || InMemory(Memory::new()));
}

mod sqlite {
    use super::*;

    async fn fresh() -> InFile {
        InFile { directory: directory(), namespace: "default" }
    }

    tower_revocation::conformance_tests!(fresh);
}

/// Two fleets in one file do not see each other.
mod sqlite_namespace {
    use super::*;

    async fn fresh() -> InFile {
        let harness = InFile { directory: directory(), namespace: "ours" };
        let theirs = Sqlite::open(harness.path()).await.unwrap().namespace("theirs");
        neighbour::settle(&theirs).await;
        harness
    }

    tower_revocation::conformance_tests!(fresh);
}

struct InFile {
    directory: TempDir,
    namespace: &'static str,
}

impl InFile {
    fn path(&self) -> PathBuf {
        self.directory.path().join("revocations.db")
    }
}

impl Harness for InFile {
    type Backend = Sqlite;

    async fn open(&self) -> Sqlite {
        Sqlite::open(self.path()).await.unwrap().namespace(self.namespace)
    }

    async fn open_afar(&self) -> Result<(Sqlite, Box<dyn Network>), Skipped> {
        Err(Skipped::because("the store is a file: there is no network"))
    }

    async fn plant(&self, record: &[u8]) -> bool {
        let mut connection = SqliteConnectOptions::new().filename(self.path()).connect().await.unwrap();
        sqlx::query("INSERT INTO changes (namespace, key, retain_until, record) VALUES (?, x'00', 9, ?)")
            .bind(self.namespace)
            .bind(record)
            .execute(&mut connection)
            .await
            .unwrap();
        true
    }
}

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}
