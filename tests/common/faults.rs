//! A TCP proxy that injects faults between a node and its store.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tower_revocation::backend::conformance::{Network, Way};

/// What happens to the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// They pass.
    #[default]
    None,
    /// Connections are closed, new ones too.
    Cut,
    /// Connections stay open, and nothing passes either way: a cable pulled out.
    Silence,
    /// They pass this much later.
    Delay(Duration),
    /// What nodes send arrives, the answers do not.
    AnswersLost,
}

/// The way to a server. Faults can change at any time and hold for open connections too.
pub struct Proxy {
    address: SocketAddr,
    server: Arc<AtomicU16>,
    fault: Arc<watch::Sender<Fault>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// A way to 127.0.0.1 at this port.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let fault = Arc::new(watch::Sender::new(Fault::None));
        let mut tasks = JoinSet::new();
        let server = Arc::new(AtomicU16::new(port));
        let (leads_to, faults) = (Arc::clone(&server), Arc::clone(&fault));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                while connections.try_join_next().is_some() {}
                if *faults.borrow() != Fault::Cut {
                    connections.spawn(connection(stream, leads_to.load(SeqCst), faults.subscribe()));
                }
            }
        });
        Self { address, server, fault, _tasks: tasks }
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Where new connections lead from now on: an address that moves to another server.
    pub fn lead_to(&self, port: u16) {
        self.server.store(port, SeqCst);
    }

    /// From now on.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

impl Network for Proxy {
    fn set(&self, way: Way) {
        Self::set(
            self,
            match way {
                Way::Open => Fault::None,
                Way::Cut => Fault::Cut,
                Way::Silent => Fault::Silence,
                Way::Slow(by) => Fault::Delay(by),
            },
        );
    }
}

async fn connection(node: TcpStream, port: u16, mut fault: watch::Receiver<Fault>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    node.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let ((from_node, to_node), (from_server, to_server)) = (node.into_split(), server.into_split());
    let there = pump(from_node, to_server, fault.clone(), false);
    let back = pump(from_server, to_node, fault.clone(), true);
    tokio::select! {
        () = there => {}
        () = back => {}
        _ = fault.wait_for(|fault| *fault == Fault::Cut) => {}
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut fault: watch::Receiver<Fault>,
    answers: bool,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return };
        let now = *fault.borrow();
        match now {
            Fault::Delay(by) => tokio::time::sleep(by).await,
            Fault::AnswersLost if answers => continue,
            // TCP would send it again: it arrives once the cable is back.
            Fault::Silence if fault.wait_for(|fault| *fault != Fault::Silence).await.is_err() => return,
            _ => {}
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
