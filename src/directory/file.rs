use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use futures_util::future::{self, BoxFuture, FutureExt};

use super::{Directory, DirectoryError, User};

/// Users from a TOML file:
///
/// ```toml
/// [[user]]
/// issuer = "https://issuer.example.com/"
/// sub = "248289761001"
/// attributes = { uid = "alice", mail = "alice@example.com" }
/// ```
///
/// "First" is the order of the file. It knows no sessions. Values are compared byte for byte, `email` and `mail`
/// (one attribute under two names) without case.
#[derive(Debug)]
pub struct FileDirectory {
    path: PathBuf,
    users: ArcSwap<Vec<Entry>>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, rename = "user")]
    users: Vec<Entry>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    issuer: String,
    sub: String,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
}

impl FileDirectory {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// Where it cannot be read, or is not such a file.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, DirectoryError> {
        let path = path.into();
        let users = ArcSwap::from_pointee(read(&path)?);
        Ok(Self { path, users })
    }

    /// Reads the file again.
    ///
    /// # Errors
    ///
    /// As [`FileDirectory::open`]; the users known before stay.
    pub fn reload(&self) -> Result<(), DirectoryError> {
        self.users.store(Arc::new(read(&self.path)?));
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<Entry>, DirectoryError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| DirectoryError::new(format!("reading the users in {}", path.display())).because(error))?;
    let file: File = toml::from_str(&text)
        .map_err(|error| DirectoryError::new(format!("reading the users in {}", path.display())).because(error))?;
    Ok(file.users)
}

impl Entry {
    fn has(&self, attribute: &str, value: &str) -> bool {
        match attribute {
            "sub" => self.sub == value,
            "email" | "mail" => ["email", "mail"]
                .iter()
                .any(|name| self.attributes.get(*name).is_some_and(|held| held.eq_ignore_ascii_case(value))),
            _ => self.attributes.get(attribute).is_some_and(|held| held == value),
        }
    }
}

impl Directory for FileDirectory {
    fn find_users<'a>(
        &'a self,
        attribute: &'a str,
        value: &'a str,
        issuers: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<User>, DirectoryError>> {
        let users = self.users.load();
        let found = users.iter().filter(|user| issuers.contains(&user.issuer) && user.has(attribute, value));
        future::ready(Ok(found.map(|user| User::new(&user.issuer, &user.sub)).collect())).boxed()
    }

    fn sessions_of<'a>(&'a self, _: &'a User) -> BoxFuture<'a, Result<Vec<String>, DirectoryError>> {
        future::ready(Ok(Vec::new())).boxed()
    }

    fn session_of_token<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<Option<String>, DirectoryError>> {
        future::ready(Ok(None)).boxed()
    }
}
