//! Runs every door that the configuration opens, until a signal ends it.

use std::{
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};
use tracing::Instrument as _;

use crate::{
    admin::{self, Access, AdminListener},
    config::{self, Config, ConfigError, Fault},
    door::{ExtAuthz, ForwardAuth, MainListener, Spoe},
    engine::{Engine, EngineError},
    listen::{self, Shared},
    tls::Acceptor,
};

/// Why the daemon does not run.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// The configuration cannot be used.
    Config(ConfigError),
    /// The engine did not start.
    Engine(EngineError),
    /// A listener could not be opened, or signals not be listened for.
    Io(io::Error),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Engine(error) => error.fmt(f),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ServeError {}

impl From<io::Error> for ServeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What the daemon is told by.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the one that ends it.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    engine: Arc<Engine>,
    file: PathBuf,
    shared: Shared,
}

impl Daemon {
    /// Starts what the file says.
    ///
    /// # Errors
    ///
    /// Where the configuration cannot be used, the store cannot be reached, or an address is taken.
    pub async fn start(file: PathBuf) -> Result<Self, ServeError> {
        let config = config::load(&file).map_err(ServeError::Config)?;
        let engine = Engine::start(config.clone()).await.map_err(|error| explained(error, &file))?;
        let daemon = Self { engine, file, shared: Shared::default() };
        if let Err(error) = daemon.open(&config).await {
            // An orderly end, though it has hardly begun.
            daemon.stop().await;
            return Err(error);
        }
        Ok(daemon)
    }

    /// Starts what the file says, and runs until SIGTERM or SIGINT, then ends in an orderly way; SIGHUP reads the file anew.
    ///
    /// # Errors
    ///
    /// As [`Daemon::start`].
    pub async fn run(file: PathBuf) -> Result<(), ServeError> {
        // From the first moment on: a store may take its time to answer, and SIGHUP would end who does not listen for it.
        let mut signals = Signals::new()?;
        let daemon = tokio::select! {
            daemon = Self::start(file) => daemon?,
            () = signals.end() => return Ok(()),
        };
        let Signals { hangup, terminate, interrupt } = &mut signals;
        loop {
            tokio::select! {
                _ = hangup.recv() => daemon.reload().await,
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
        }
        daemon.stop().await;
        Ok(())
    }

    async fn open(&self, config: &Config) -> Result<(), ServeError> {
        let fault = |fault: Fault| explained(EngineError::Config(fault), &self.file);
        let Self { engine, shared, .. } = self;
        let connections = config.max_connections;

        let acceptor = config.tls.as_ref().map(|section| Acceptor::new(config, section)).transpose().map_err(fault)?;
        let main = MainListener::new(Arc::clone(engine)).map_err(fault)?;
        let listener = listening(config.listen, "listen", "main listener").await?;
        let answer = move |request| {
            let main = main.clone();
            async move { main.answer(request).await }.instrument(at("proxy"))
        };
        tokio::spawn(listen::serve(listener, acceptor, shared.with(connections), answer));

        if let Some(section) = &config.forward_auth {
            let door = ForwardAuth::new(Arc::clone(engine), &section.identity_headers).map_err(fault)?;
            let listener = listening(section.listen, "forward_auth.listen", "forward-auth").await?;
            let answer = move |request| {
                let door = door.clone();
                async move { door.answer(request).await }.instrument(at("forward_auth"))
            };
            tokio::spawn(listen::serve(listener, None, shared.with(connections), answer));
        }
        if let Some(section) = &config.ext_authz {
            let door = ExtAuthz::new(Arc::clone(engine), section).map_err(fault)?;
            let listener = listening(section.listen, "ext_authz.listen", "ext_authz").await?;
            let answer = move |request| {
                let door = door.clone();
                async move { door.answer(request).await }.instrument(at("ext_authz"))
            };
            tokio::spawn(listen::serve(listener, None, shared.with(connections), answer));
        }
        if let Some(section) = &config.spoe {
            let listener = listening(section.listen, "spoe.listen", "SPOE").await?;
            tokio::spawn(Spoe::new(Arc::clone(engine)).serve(listener, shared.with(connections)));
        }
        if let Some(section) = &config.admin {
            let listener = listening(section.listen, "admin.listen", "admin").await?;
            let access = Access::new(config, section, listener.local_addr()?).map_err(fault)?;
            let admin = AdminListener::new(Arc::clone(engine), access, shared.stop.clone());
            let answer = move |request| {
                let admin = admin.clone();
                async move { admin.answer(request).await }
            };
            tokio::spawn(listen::serve(listener, None, shared.with(admin::CONNECTIONS), answer));
        }
        Ok(())
    }

    /// Whether the file could be used; nothing is opened for it.
    ///
    /// # Errors
    ///
    /// Where it could not.
    pub async fn check(file: &Path) -> Result<(), ServeError> {
        let config = config::load(file).map_err(ServeError::Config)?;
        Self::check_read(config, file).await
    }

    async fn check_read(config: Config, file: &Path) -> Result<(), ServeError> {
        let fault = |fault: Fault| explained(EngineError::Config(fault), file);
        if let Some(section) = &config.admin {
            Access::check(&config, section).map_err(fault)?;
        }
        if let Some(section) = &config.tls {
            Acceptor::new(&config, section).map_err(fault)?;
        }
        let engine = Engine::dry(config.clone()).await.map_err(|error| explained(error, file))?;
        let doors = Self::check_doors(&engine, &config);
        engine.revocations().shutdown().await;
        doors.map_err(fault)
    }

    fn check_doors(engine: &Arc<Engine>, config: &Config) -> Result<(), Fault> {
        MainListener::new(Arc::clone(engine))?;
        if let Some(section) = &config.forward_auth {
            ForwardAuth::new(Arc::clone(engine), &section.identity_headers)?;
        }
        if let Some(section) = &config.ext_authz {
            ExtAuthz::new(Arc::clone(engine), section)?;
        }
        Ok(())
    }

    /// What decides.
    pub const fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    async fn reload(&self) {
        let file = self.file.clone();
        let read = tokio::task::spawn_blocking(move || config::load(&file)).await;
        let reloaded = match read {
            Ok(Ok(config)) => self.take_over(config).await,
            Ok(Err(error)) => Err(ServeError::Config(error)),
            Err(error) => Err(ServeError::Io(io::Error::other(error))),
        };
        match reloaded {
            Ok(stays) if stays.is_empty() => {
                tracing::info!(file = %self.file.display(), "the configuration was read anew")
            }
            Ok(stays) => tracing::warn!(
                file = %self.file.display(),
                sections = stays.join(", "),
                "the configuration was read anew; these sections count from the next start on"
            ),
            Err(error) => tracing::error!(%error, "the configuration was refused; the running one stays"),
        }
    }

    /// Refuses what no daemon could start with, in sections that count from the next start on too.
    async fn take_over(&self, config: Config) -> Result<Vec<&'static str>, ServeError> {
        Self::check_read(config.clone(), &self.file).await?;
        self.engine.reload(config).await.map_err(|error| explained(error, &self.file))
    }

    async fn stop(self) {
        tracing::info!("shutting down");
        let limit = self.engine.config().shutdown_timeout.0;
        self.shared.stop.cancel();
        self.shared.tasks.close();
        if timeout(limit, self.shared.tasks.wait()).await.is_err() {
            tracing::warn!(?limit, "connections were still open after the time limit");
        }
        self.engine.revocations().shutdown().await;
    }
}

/// What the log says of a request besides.
fn at(door: &'static str) -> tracing::Span {
    tracing::debug_span!("request", revocation.door = door)
}

/// A listener, told of in the log: what asked for port 0 is found there.
async fn listening(address: SocketAddr, key: &str, name: &str) -> io::Result<TcpListener> {
    let listener = listen::bind(address, key).await?;
    tracing::info!(address = %listener.local_addr()?, "{name}");
    Ok(listener)
}

/// The error with the line of the key that it is about.
fn explained(error: EngineError, file: &Path) -> ServeError {
    match error {
        EngineError::Config(fault) => ServeError::Config(config::at(file, fault)),
        error => ServeError::Engine(error),
    }
}
