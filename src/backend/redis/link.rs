//! One connection to the server that holds our keys, found and checked.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, FromRedisValue, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, RedisResult, ServerErrorKind, Value, aio::MultiplexedConnection,
    io::tcp::TcpSettings,
};

use super::{
    super::{BackendError, BackendErrorKind, Durability},
    RedisOptions,
    address::{Credentials, Host, Way},
    place::Place,
    script,
    settings::{self, Unfit},
};

/// One connection. What goes over it is answered in order.
pub(super) struct Link {
    connection: MultiplexedConnection,
    keys: Vec<String>,
    /// The server, for people.
    pub(super) server: String,
    /// The id of the store: drawn by whoever created it.
    pub(super) store: String,
    /// Which life of which store: another one begins with a fail-over, and with a restart of the server.
    pub(super) incarnation: String,
    /// The last place in the log when the connection was made.
    pub(super) head: Place,
    pub(super) durability: Durability,
}

/// The version of the keys and of what they hold.
const LAYOUT: &str = "1";

/// How long to look for the server, to wait for one connection, and for an answer. Together they are shorter than
/// the time after which a silent feed counts as lost.
pub(super) const OPEN: Duration = Duration::from_secs(4);
const CONNECT: Duration = Duration::from_millis(1500);
const ANSWER: Duration = Duration::from_secs(3);
/// How long to wait for replicas.
const REPLICATE: Duration = Duration::from_secs(2);
/// How often a Cluster may send us on.
const MOVES: usize = 3;

impl Link {
    /// Connects to the store with this id, or, without one, to any and creates it where there is none.
    pub(super) async fn open(options: &RedisOptions, store: Option<&str>) -> Result<Self, BackendError> {
        let open = AssertUnwindSafe(Self::open_now(options, store));
        match tokio::time::timeout(OPEN, open.catch_unwind()).await {
            Ok(Ok(link)) => link,
            // rustls panics where the program builds in several cryptographies and has chosen none.
            Ok(Err(_)) => Err(unfit(
                options,
                "setting up the connection failed; a program with several rustls providers must install one",
            )),
            Err(_) => Err(unavailable(options, &format!("no answer within {OPEN:?}"))),
        }
    }

    async fn open_now(options: &RedisOptions, store: Option<&str>) -> Result<Self, BackendError> {
        let failed = |error| failed(options, "connecting to", error);
        let keys = script::keys(&options.namespace);
        let (mut connection, server) = find(options, &keys[0]).await?;
        let info: String = redis::cmd("INFO").query_async(&mut connection).await.map_err(failed)?;
        let durability = judge(options, &mut connection, &info, &server).await?;
        let store = match store {
            Some(store) => store.to_owned(),
            None => create(options, &mut connection, &keys).await?,
        };
        let mut link =
            Self { connection, keys, server, store, incarnation: String::new(), head: Place::default(), durability };
        let head = link.run(script::PUBLISH, &[]).await.map_err(failed)?;
        (link.incarnation, link.head) = read_head(&link.store, head).map_err(failed)?;
        Ok(link)
    }

    /// Runs a script. Dropping the future does not keep it from running.
    pub(super) async fn run(&self, script: &str, arguments: &[&[u8]]) -> RedisResult<Value> {
        self.eval(script, arguments).query_async(&mut self.connection.clone()).await
    }

    /// Runs a script that writes, and then waits for this many replicas to have what it wrote. Returns how many had.
    pub(super) async fn run_and_wait(
        &self,
        script: &str,
        arguments: &[&[u8]],
        replicas: usize,
    ) -> RedisResult<(Value, usize)> {
        // In one piece: over another connection it would wait for nothing.
        let mut both = redis::pipe();
        both.add_command(self.eval(script, arguments));
        both.cmd("WAIT").arg(replicas).arg(REPLICATE.as_millis() as u64);
        both.query_async(&mut self.connection.clone()).await
    }

    fn eval(&self, script: &str, arguments: &[&[u8]]) -> Cmd {
        // With its text each time: that is shorter than most batches, and no server ever has to be taught it again.
        let mut command = redis::cmd("EVAL");
        command.arg(script).arg(self.keys.len()).arg(&self.keys).arg(&self.store).arg(arguments);
        command
    }

    /// Waits for entries of the log after `place`; returns none where none came.
    pub(super) async fn wait(&self, place: Place, limit: Duration, count: usize) -> RedisResult<Value> {
        let mut command = redis::cmd("XREAD");
        // 0 would be for ever.
        command.arg("COUNT").arg(count).arg("BLOCK").arg((limit.as_millis() as u64).max(1));
        command.arg("STREAMS").arg(self.log()).arg(place.to_string());
        command.query_async(&mut self.connection.clone()).await
    }

    /// The key of the log.
    pub(super) fn log(&self) -> &str {
        &self.keys[1]
    }
}

/// Finds the server that holds this key.
async fn find(options: &RedisOptions, key: &str) -> Result<(MultiplexedConnection, String), BackendError> {
    let hosts = &options.address.hosts;
    let mut last = None;
    for host in hosts {
        let found = match &options.address.way {
            Way::Direct => connect(options, host, &options.address.credentials, options.address.db).await,
            Way::Sentinel(name) => match ask_sentinel(options, host, name).await {
                Ok(Some(host)) => connect(options, &host, &options.address.credentials, options.address.db).await,
                Ok(None) => {
                    last = Some(unfit(
                        options,
                        &format!("the Sentinel {}:{} watches no master of this name", host.0, host.1),
                    ));
                    continue;
                }
                Err(error) => Err(error),
            },
            Way::Cluster => follow_moves(options, host, key).await,
        };
        match found {
            Ok(found) => return Ok(found),
            Err(error) => last = Some(failed(options, "connecting to", error)),
        }
    }
    Err(last.unwrap_or_else(|| unfit(options, "the URL names no host")))
}

async fn ask_sentinel(options: &RedisOptions, sentinel: &Host, name: &str) -> RedisResult<Option<Host>> {
    let (mut connection, _) = connect(options, sentinel, &options.sentinel, 0).await?;
    redis::cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(name).query_async(&mut connection).await
}

async fn follow_moves(options: &RedisOptions, seed: &Host, key: &str) -> RedisResult<(MultiplexedConnection, String)> {
    let mut host = seed.clone();
    for _ in 0..MOVES {
        let (mut connection, server) = connect(options, &host, &options.address.credentials, 0).await?;
        match redis::cmd("HGET").arg(key).arg("store").query_async::<Value>(&mut connection).await {
            Ok(_) => return Ok((connection, server)),
            Err(error) => match error.redirect_node() {
                // Without a name it is another port of the same host.
                Some((address, _)) => {
                    host = read_address(address, &host.0).ok_or_else(|| unexpected("MOVED to nowhere"))?
                }
                None => return Err(error),
            },
        }
    }
    Err(unexpected("the nodes of the Cluster send us round in circles"))
}

fn read_address(address: &str, same: &str) -> Option<Host> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some((if host.is_empty() { same } else { host }.to_owned(), port.parse().ok()?))
}

async fn connect(
    options: &RedisOptions,
    (host, port): &Host,
    credentials: &Credentials,
    db: i64,
) -> RedisResult<(MultiplexedConnection, String)> {
    let host = host.clone();
    let server = format!("{host}:{port}");
    let address = if options.address.tls {
        ConnectionAddr::TcpTls { host, port: *port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host, *port)
    };
    let mut login = RedisConnectionInfo::default().set_db(db).set_skip_set_lib_name();
    if let Some(user) = &credentials.user {
        login = login.set_username(user);
    }
    if let Some(password) = &credentials.password {
        login = login.set_password(password.as_str());
    }
    let tcp = TcpSettings::default().set_nodelay(true);
    let info = address.into_connection_info()?.set_redis_settings(login).set_tcp_settings(tcp);
    let client = match options.address.tls {
        true => Client::build_with_tls(info, options.certificates())?,
        false => Client::open(info)?,
    };
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(Some(ANSWER));
    Ok((client.get_multiplexed_async_connection_with_config(&config).await?, server))
}

/// Checks how the server is set up.
async fn judge(
    options: &RedisOptions,
    connection: &mut MultiplexedConnection,
    info: &str,
    server: &str,
) -> Result<Durability, BackendError> {
    let asked = redis::cmd("CONFIG").arg("GET").arg("appendfsync").query_async::<Vec<String>>(connection).await;
    // Many may not ask: then it counts as the weaker one.
    let appendfsync = asked.unwrap_or_default().pop();
    settings::check(info, appendfsync.as_deref(), options.without_persistence).map_err(|why| match why {
        Unfit::Setting(why) => unfit(options, &format!("the server {server} is not fit: {why}")),
        Unfit::Replica if options.address.way == Way::Direct => {
            unfit(options, &format!("the server {server} is a read-only replica; name its master, or its Sentinels"))
        }
        Unfit::Replica => unavailable(options, &format!("{server} is a replica still; a fail-over is under way")),
    })
}

/// The id of the store, which is created where there is none.
async fn create(
    options: &RedisOptions,
    connection: &mut MultiplexedConnection,
    keys: &[String],
) -> Result<String, BackendError> {
    let ours = format!("{:016x}", crate::random::u64());
    let mut command = redis::cmd("EVAL");
    command.arg(script::CREATE).arg(keys.len()).arg(keys).arg(ours).arg(LAYOUT);
    let created = command.query_async(connection).await;
    let (store, layout): (String, String) = created.map_err(|error| failed(options, "creating the keys in", error))?;
    if layout != LAYOUT {
        let why = format!(
            "a newer version wrote its keys (layout {layout}, this program knows {LAYOUT}); upgrade this program"
        );
        return Err(unfit(options, &why));
    }
    Ok(store)
}

/// Turns an answer into what it should be.
pub(super) fn read<T: FromRedisValue>(value: Value) -> RedisResult<T> {
    Ok(redis::from_redis_value(value)?)
}

/// Reads what the scripts say about where a store is: its incarnation, and the last place in its log.
pub(super) fn read_head(store: &str, head: Value) -> RedisResult<(String, Place)> {
    let (life, place): (String, String) = read(head)?;
    let place = place.parse().map_err(|()| unexpected("the log has no last place"))?;
    Ok((format!("{store}:{life}"), place))
}

/// An answer that is not what was asked for.
pub(super) fn unexpected(what: &'static str) -> RedisError {
    (ErrorKind::UnexpectedReturnType, what).into()
}

pub(super) fn failed(options: &RedisOptions, doing: &str, error: RedisError) -> BackendError {
    use BackendErrorKind::{Corrupt, Settings, Unavailable};
    let text = error.to_string();
    let (kind, advice) = match error.code() {
        _ if error.kind() == ErrorKind::AuthenticationFailed => (Settings, "check user and password"),
        Some("WRONGPASS" | "NOAUTH") => (Settings, "check user and password"),
        Some("GONE") => (Corrupt, "it was emptied or replaced; restore it from a backup, or restart every node"),
        Some("MOVED" | "CROSSSLOT") if options.address.way == Way::Direct => {
            (Settings, "it is a node of a Cluster; write redis+cluster://")
        }
        Some("OOM") => (Unavailable, "its memory is full; raise maxmemory"),
        Some("MISCONF") => (Unavailable, "it cannot write to its disk; free some space"),
        Some("WRONGTYPE") => (Settings, "another program uses the keys; choose another namespace"),
        _ if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm)
            || text.contains("user executing the script") =>
        {
            (Settings, "its ACL must allow the commands and keys that the documentation lists")
        }
        _ if error.is_timeout() => (Unavailable, "it did not answer in time"),
        _ if error.kind() == ErrorKind::InvalidClientConfig => (Settings, "check the certificates"),
        _ => (Unavailable, "check that it runs and can be reached"),
    };
    BackendError::new(kind, format!("{doing} {}, namespace {}: {advice}", options.address, options.namespace))
        .because(error)
}

/// Another try may work.
pub(super) fn unavailable(options: &RedisOptions, why: &str) -> BackendError {
    problem(options, BackendErrorKind::Unavailable, why)
}

/// Nothing will work before something was changed.
pub(super) fn unfit(options: &RedisOptions, why: &str) -> BackendError {
    problem(options, BackendErrorKind::Settings, why)
}

fn problem(options: &RedisOptions, kind: BackendErrorKind, why: &str) -> BackendError {
    BackendError::new(kind, format!("connecting to {}, namespace {}: {why}", options.address, options.namespace))
}
