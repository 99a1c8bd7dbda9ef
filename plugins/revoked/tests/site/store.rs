//! A Redis of the test's own, so that a store can be lost.

use std::{net::SocketAddr, process::Command};

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::{daemon::Process, eventually};

pub struct Store {
    process: Process,
    address: SocketAddr,
    _folder: TempDir,
}

impl Store {
    pub async fn start() -> Self {
        let (folder, address) = (tempfile::tempdir().unwrap(), free_address());
        let mut command = Command::new("redis-server");
        let (port, path) = (address.port().to_string(), folder.path().display().to_string());
        let arguments = ["--bind", "127.0.0.1", "--port", &port, "--dir", &path, "--save", "", "--appendonly", "yes"];
        command.args(arguments).args(["--appendfsync", "always"]);
        let process = Process::spawn("redis-server", &mut command);
        eventually("the store answers", async || TcpStream::connect(address).await.is_ok()).await;
        Self { process, address, _folder: folder }
    }

    /// The settings of a daemon on it.
    pub fn settings(&self, node: &str, then: &str) -> String {
        format!(
            "\n[backend]\nurl = \"redis://{}\"\nnode = \"{node}\"\n\n[staleness]\nafter = \"2s\"\nthen = \"{then}\"\n",
            self.address
        )
    }

    /// From now on nobody answers.
    pub async fn lose(&mut self) {
        self.process.signal("KILL");
        self.process.ended().await;
    }
}

/// An address that nobody listens on now.
pub fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
