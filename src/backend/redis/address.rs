use std::fmt;

use zeroize::Zeroizing;

use super::super::{BackendError, BackendErrorKind};

/// Where the servers are, from a URL. Shown without user and password.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) tls: bool,
    pub(super) credentials: Credentials,
    pub(super) way: Way,
    pub(super) hosts: Vec<Host>,
    pub(super) db: i64,
}

/// How to find the server that holds our keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It is the host.
    Direct,
    /// The hosts are Sentinels that know it under this name.
    Sentinel(String),
    /// The hosts are nodes of a Cluster, and each tells which node it is.
    Cluster,
}

#[derive(Clone, Default)]
pub(super) struct Credentials {
    pub(super) user: Option<String>,
    pub(super) password: Option<Zeroizing<String>>,
}

pub(super) type Host = (String, u16);

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

impl Address {
    /// Reads a URL. Errors never repeat it: it may hold a password.
    pub(super) fn parse(url: &str) -> Result<Self, BackendError> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| unfit("it has no scheme"))?;
        let (tls, kind) = match scheme {
            "redis" => (false, "direct"),
            "rediss" => (true, "direct"),
            "redis+sentinel" => (false, "sentinel"),
            "rediss+sentinel" => (true, "sentinel"),
            "redis+cluster" => (false, "cluster"),
            "rediss+cluster" => (true, "cluster"),
            _ => return Err(unfit("its scheme is another one")),
        };
        if rest.contains(['?', '#']) {
            return Err(unfit("it has parameters, and there are none; use the methods of RedisOptions"));
        }
        let (authority, path) = rest.split_once('/').map_or((rest, None), |(authority, path)| (authority, Some(path)));
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (Credentials::parse(credentials)?, hosts),
            None => (Credentials::default(), authority),
        };
        let port = if kind == "sentinel" { SENTINEL_PORT } else { PORT };
        let hosts = hosts.split(',').map(|host| parse_host(host, port)).collect::<Result<Vec<_>, _>>()?;
        let (way, db) = match kind {
            "sentinel" => {
                let path = path.unwrap_or_default();
                let (name, db) = path.split_once('/').map_or((path, None), |(name, db)| (name, Some(db)));
                if name.is_empty() {
                    return Err(unfit("it lacks the name of the master that the Sentinels watch"));
                }
                (Way::Sentinel(decode(name)?), db)
            }
            "cluster" => (Way::Cluster, path),
            _ if hosts.len() > 1 => return Err(unfit("several hosts need redis+sentinel:// or redis+cluster://")),
            _ => (Way::Direct, path),
        };
        let db = match db {
            None | Some("") => 0,
            Some(db) => db
                .parse()
                .ok()
                .filter(|db| (0..=65_535).contains(db))
                .ok_or_else(|| unfit("its database is no number"))?,
        };
        if way == Way::Cluster && db != 0 {
            return Err(unfit("a Cluster has database 0 only"));
        }
        Ok(Self { tls, credentials, way, hosts, db })
    }
}

impl Credentials {
    fn parse(text: &str) -> Result<Self, BackendError> {
        let (user, password) = text.split_once(':').map_or((text, None), |(user, password)| (user, Some(password)));
        let user = Some(decode(user)?).filter(|user| !user.is_empty());
        let password = password.map(decode).transpose()?.map(Zeroizing::new);
        if password.is_none() {
            return Err(unfit("a user without a password; write user:password@ or :password@"));
        }
        Ok(Self { user, password })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "rediss" } else { "redis" })?;
        f.write_str(match self.way {
            Way::Direct => "://",
            Way::Sentinel(_) => "+sentinel://",
            Way::Cluster => "+cluster://",
        })?;
        for (n, (host, port)) in self.hosts.iter().enumerate() {
            write!(f, "{}{host}:{port}", if n > 0 { "," } else { "" })?;
        }
        if let Way::Sentinel(name) = &self.way {
            write!(f, "/{name}")?;
        }
        write!(f, "/{}", self.db)
    }
}

fn parse_host(text: &str, port: u16) -> Result<Host, BackendError> {
    // An IPv6 address stands in brackets.
    let (host, rest) = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':').or(rest.is_empty().then_some(""))),
        None => text.split_once(':').map_or((text, Some("")), |(host, port)| (host, Some(port))),
    };
    let port = match rest {
        Some("") if !text.ends_with(':') => Some(port),
        rest => rest.and_then(|port| port.parse().ok()),
    };
    match port {
        Some(port) if !host.is_empty() => Ok((host.to_owned(), port)),
        _ => Err(unfit("one of its hosts cannot be read; it must be host or host:port")),
    }
}

/// Undoes percent-encoding.
fn decode(text: &str) -> Result<String, BackendError> {
    let wrong = || unfit("its percent-encoding is wrong");
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(2).ok_or_else(wrong)?;
        if !code.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        bytes.push(u8::from_str_radix(code, 16).map_err(|_| wrong())?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

fn unfit(why: &str) -> BackendError {
    let what = format!(
        "reading the URL of a Redis server: {why}. It must look like redis://user:password@host:6379/0, rediss:// for TLS, \
         redis+sentinel://host:26379,host:26379/name or redis+cluster://host:6379,host:6379"
    );
    BackendError::new(BackendErrorKind::Settings, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_shown_without_secrets() {
        for (url, shown) in [
            ("redis://localhost", "redis://localhost:6379/0"),
            ("redis://a:b%40%2f@[::1]:7/3", "redis://::1:7/3"),
            ("rediss://:b@host", "rediss://host:6379/0"),
            ("redis+sentinel://u:p@a,b:5/main/2", "redis+sentinel://a:26379,b:5/main/2"),
            ("rediss+cluster://a,b", "rediss+cluster://a:6379,b:6379/0"),
        ] {
            assert_eq!(Address::parse(url).map(|address| address.to_string()).unwrap(), shown, "{url}");
        }
        let address = Address::parse("redis://us%3Aer:p%40ss:word@host").unwrap();
        assert_eq!(address.credentials.user.as_deref(), Some("us:er"));
        assert_eq!(**address.credentials.password.as_ref().unwrap(), "p@ss:word");
    }

    #[test]
    fn other_urls_are_refused_without_being_repeated() {
        for url in [
            "",
            "host",
            "postgres://u:s3cret@host",
            "redis://u:s3cret@",
            "redis://u:s3cret@host:port",
            "redis://u:s3cret@host:",
            "redis://u:s3cret@host/one",
            "redis://u:s3cret@host/-1",
            "redis://u:s3cret@host?protocol=3",
            "redis://u:s3cret@host/0#insecure",
            "redis://u:s3cret@a,b",
            "redis://s3cret@host",
            "redis://u:s3cret%4@host",
            "redis://u:s3cret%+4@host",
            "redis://u:s3cret@[::1:6379",
            "redis+sentinel://u:s3cret@a,b",
            "redis+cluster://u:s3cret@a/1",
            "redis+unix:///tmp/s3cret",
        ] {
            let error = Address::parse(url).map(|address| address.to_string()).unwrap_err();
            assert_eq!(error.kind(), BackendErrorKind::Settings, "{url}");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
    }
}
