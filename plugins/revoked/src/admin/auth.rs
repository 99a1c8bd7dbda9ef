//! Who may ask what.

use std::{
    collections::HashMap,
    fs,
    io::{self, Write as _},
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::{HeaderMap, StatusCode, Uri, header};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::{answer::Problem, is_loopback, route::Need};
use crate::{
    config::{Admin, Config, Fault},
    parts,
};

/// The file with the token where the configuration names none.
const TOKEN_FILE: &str = "admin.token";
/// What proxies add to the requests of others.
const PASSED_ON: [&str; 5] = ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"];
/// How many wrong tokens an address may show in a [`WINDOW`].
const FAILURES: u32 = 10;
/// How long wrong tokens are held against an address.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// How many addresses are told apart.
const ADDRESSES: usize = 4096;

/// Judges requests by where they come from and the token that they show.
#[derive(Debug)]
pub struct Access {
    /// The SHA-256 of the token. `None`: nobody can have it.
    token: Option<[u8; 32]>,
    /// The names that a loopback listener goes by; `None`: others may reach it, by names that it cannot know.
    names: Option<Vec<String>>,
    failures: Failures,
}

/// The file with the token.
pub fn token_path(config: &Config, section: &Admin) -> PathBuf {
    config.path(section.token_file.as_deref().unwrap_or(Path::new(TOKEN_FILE)))
}

impl Access {
    /// What the configuration says, for a listener at `address`. Where it names no token, one is made, unless it is there.
    ///
    /// # Errors
    ///
    /// Where the token cannot be read, or others than this machine could ask without one.
    pub fn new(config: &Config, section: &Admin, address: SocketAddr) -> Result<Self, Fault> {
        let token = match Self::check(config, section)? {
            Some(token) => Some(token),
            None => made(&token_path(config, section)),
        };
        let names = is_loopback(section.listen).then(|| names(address));
        Ok(Self { token: token.map(|token| digest(&token)), names, failures: Failures::default() })
    }

    /// The token that the configuration names, if any.
    ///
    /// # Errors
    ///
    /// As [`Access::new`].
    pub fn check(config: &Config, section: &Admin) -> Result<Option<Zeroizing<Vec<u8>>>, Fault> {
        let Some(path) = &section.token_file else {
            if is_loopback(section.listen) {
                return Ok(None);
            }
            let what = "can be reached from elsewhere, so admin.token_file is needed; or listen on 127.0.0.1";
            return Err(Fault::new("admin.listen", what));
        };
        let token = parts::secret_in(config, path, "admin.token_file")?;
        if !token.iter().all(u8::is_ascii_graphic) {
            let what = format!("{}: the token must be one line of visible ASCII", config.path(path).display());
            return Err(Fault::new("admin.token_file", what));
        }
        Ok(Some(token))
    }

    /// How many wrong tokens were shown since the start.
    pub fn failed(&self) -> u64 {
        self.failures.all.load(Ordering::Relaxed)
    }

    pub(super) fn admit(
        &self,
        need: Need,
        peer: Option<SocketAddr>,
        headers: &HeaderMap,
        uri: &Uri,
    ) -> Result<(), Problem> {
        self.judge_names(headers, uri)?;
        let address = peer.map(|peer| peer.ip().to_canonical());
        match shown(headers)? {
            Some(shown) => {
                if self.failures.too_many(address) {
                    let what = "too many wrong tokens from this address; wait a minute";
                    return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_failures", what));
                }
                let right = self.token.is_some_and(|token| token.ct_eq(&digest(shown)).into());
                if right {
                    return Ok(());
                }
                self.failures.add(address);
                tracing::warn!(peer = ?address, "a wrong admin token");
                Err(Problem::new(StatusCode::UNAUTHORIZED, "invalid_token", "the token is wrong"))
            }
            None if need == Need::Read && self.is_local(address, headers) => Ok(()),
            None => {
                let what = "this needs the admin token: send it as \"Authorization: Bearer\"";
                Err(Problem::new(StatusCode::UNAUTHORIZED, "token_required", what))
            }
        }
    }

    /// Whether it comes from this machine itself, as far as anybody says.
    fn is_local(&self, address: Option<IpAddr>, headers: &HeaderMap) -> bool {
        let passed_on = PASSED_ON.iter().any(|name| headers.contains_key(*name));
        self.names.is_some() && address.is_some_and(|ip| ip.is_loopback()) && !passed_on
    }

    /// A page in a browser on this machine may ask under a name of its own that points here.
    pub(super) fn judge_names(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), Problem> {
        let refused = |header: &str| {
            let what = format!("the {header} of the request is not this listener's own");
            Err(Problem::new(StatusCode::FORBIDDEN, "foreign_request", what))
        };
        let mut hosts: Vec<&[u8]> = headers.get_all(header::HOST).iter().map(|host| host.as_bytes()).collect();
        hosts.extend(uri.authority().map(|authority| authority.as_str().as_bytes()));
        let own = |host: &[u8]| {
            let names = self.names.as_ref();
            names.is_none_or(|names| names.iter().any(|name| name.as_bytes().eq_ignore_ascii_case(host)))
        };
        let Some(first) = hosts.first() else { return refused("Host") };
        if !hosts.iter().all(|host| own(host) && host.eq_ignore_ascii_case(first)) {
            return refused("Host");
        }
        for origin in headers.get_all(header::ORIGIN) {
            let origin = origin.as_bytes();
            let same = [&b"http://"[..], b"https://"].iter().any(|scheme| {
                origin.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
                    && origin[scheme.len()..].eq_ignore_ascii_case(first)
            });
            if !same {
                return refused("Origin");
            }
        }
        Ok(())
    }
}

/// The token of a request.
fn shown(headers: &HeaderMap) -> Result<Option<&[u8]>, Problem> {
    let malformed =
        || Problem::new(StatusCode::BAD_REQUEST, "invalid_request", "send one Bearer token, and nothing else");
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let (scheme, rest) = value.as_bytes().split_at_checked(b"Bearer ".len()).ok_or_else(malformed)?;
    if values.next().is_some() || !scheme.eq_ignore_ascii_case(b"Bearer ") {
        return Err(malformed());
    }
    Ok(Some(rest.trim_ascii()))
}

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// What requests to a loopback listener call it.
fn names(address: SocketAddr) -> Vec<String> {
    let port = address.port();
    let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned(), "[::1]".to_owned()];
    let mut names: Vec<_> = hosts.iter().map(|host| format!("{host}:{port}")).collect();
    names.push(address.to_string());
    if port == 80 {
        names.extend(hosts);
    }
    names
}

/// The token in a file that is made where it is missing. `None` where neither works: nobody may change anything then.
fn made(path: &Path) -> Option<Zeroizing<Vec<u8>>> {
    let token = match fs::read(path).map(Zeroizing::new) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => write_new(path),
        read => read,
    };
    match token {
        Ok(token) if !token.trim_ascii().is_empty() => {
            if fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o077 != 0) {
                tracing::warn!(file = %path.display(), "others can read the admin token; `chmod 600` it");
            }
            tracing::info!(file = %path.display(), "the admin token is there");
            Some(Zeroizing::new(token.trim_ascii().to_vec()))
        }
        read => {
            let why = read.err().map_or_else(|| "it is empty".to_owned(), |error| error.to_string());
            tracing::warn!(
                file = %path.display(), why,
                "there is no admin token, so nothing can be changed through the admin API; name one in admin.token_file"
            );
            None
        }
    }
}

fn write_new(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let random = parts::new_key()?;
    let mut token = Zeroizing::new(Vec::with_capacity(2 * random.len() + 1));
    for byte in random.iter() {
        write!(token, "{byte:02x}")?;
    }
    token.push(b'\n');
    parts::write_new_secret(path, &token)?;
    Ok(token)
}

/// Who has shown wrong tokens of late.
#[derive(Debug, Default)]
struct Failures {
    all: AtomicU64,
    by_address: Mutex<HashMap<Option<IpAddr>, (Instant, u32)>>,
}

impl Failures {
    fn too_many(&self, address: Option<IpAddr>) -> bool {
        let failures = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let here = [prefix(address), None];
        here.iter()
            .any(|key| failures.get(key).is_some_and(|(since, count)| since.elapsed() < WINDOW && *count >= FAILURES))
    }

    fn add(&self, address: Option<IpAddr>) {
        self.all.fetch_add(1, Ordering::Relaxed);
        let mut failures = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= ADDRESSES {
            failures.retain(|_, (since, _)| since.elapsed() < WINDOW);
        }
        // Once there are too many to tell apart, they count together.
        let key = prefix(address);
        let key = if failures.len() < ADDRESSES || failures.contains_key(&key) { key } else { None };
        let (since, count) = failures.entry(key).or_insert((Instant::now(), 0));
        if since.elapsed() >= WINDOW {
            (*since, *count) = (Instant::now(), 0);
        }
        *count += 1;
    }
}

/// Who has one address of a /64 has all of them.
fn prefix(address: Option<IpAddr>) -> Option<IpAddr> {
    match address? {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            Some(IpAddr::from([a, b, c, d, 0, 0, 0, 0]))
        }
        ip => Some(ip),
    }
}
