use std::sync::Arc;

use super::{Backend, BackendError, BackendErrorKind, File, Lazy, Memory};

/// Opens the backend that a URL names, with its defaults:
///
/// | URL | backend | feature |
/// | --- | --- | --- |
/// | `memory:` | [`Memory`], a new one each time | |
/// | `file:///` and a path | [`File`], which is read-only | |
/// | `sqlite://` and a path | `Sqlite` | `sqlite` |
/// | `postgres://`, `postgresql://` | `Postgres` | `postgres` |
/// | `redis://`, `rediss://`, `redis+sentinel://`, `redis+cluster://` and their kin | `Redis` | `redis` |
/// | `nats://`, `tls://` | `Nats` | `nats` |
///
/// # Errors
///
/// Where the URL names none of these, or one whose feature is off, and as each backend's `connect`. There is no other
/// backend to fall back to.
pub async fn connect(url: &str) -> Result<Arc<dyn Backend>, BackendError> {
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme).to_ascii_lowercase();
    match scheme.as_str() {
        "memory" if url.len() == "memory:".len() => Ok(Arc::new(Memory::new())),
        "file" => Ok(Arc::new(File::connect(url).await?)),
        #[cfg(feature = "sqlite")]
        "sqlite" => Ok(Arc::new(super::Sqlite::connect(url).await?)),
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => Ok(Arc::new(super::Postgres::connect(url).await?)),
        #[cfg(feature = "redis")]
        scheme if scheme.starts_with("redis") => Ok(Arc::new(super::Redis::connect(url).await?)),
        #[cfg(feature = "nats")]
        "nats" | "tls" => Ok(Arc::new(super::Nats::connect(url).await?)),
        scheme => {
            // The rest may hold a password.
            let what = format!(
                "opening a backend by its URL: {scheme:?} is none of memory, file, sqlite, postgres, redis and nats, or its \
                 feature is off in this build"
            );
            Err(BackendError::new(BackendErrorKind::Settings, what))
        }
    }
}

/// The same for a store that may be away: then it is connected to once it is there (see [`Lazy`]). For nodes that can start
/// from a copy ([`SyncConfig::keep_copy`](crate::sync::SyncConfig::keep_copy)).
///
/// # Errors
///
/// As [`connect`], but for a store that is only [away](BackendErrorKind::Unavailable).
pub async fn connect_lazily(url: &str) -> Result<Arc<dyn Backend>, BackendError> {
    let url: Arc<str> = url.into();
    let connect = move || {
        let url = Arc::clone(&url);
        async move { connect(&url).await }
    };
    Ok(Arc::new(Lazy::connect(connect).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn f11_what_is_not_known_is_an_error_and_not_memory() {
        assert!(connect("memory:").await.is_ok());
        for url in ["", "memory", "memory:x", "reddis://:secret@host", "file:x", "sqlite:x", "mysql://u:secret@h/d"] {
            let error = connect(url).await.err().map(|error| error.to_string());
            assert!(error.as_ref().is_some_and(|error| !error.contains("secret")), "{url}: {error:?}");
            let lazily = connect_lazily(url).await.err().map(|error| error.to_string());
            assert_eq!(lazily, error, "{url}: a bad URL does not wait for a store");
        }
    }
}
