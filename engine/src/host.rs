//! The server as a whole: start, signals, privileges, stop. *One per process.*
//!
//! Order of a start: privileges confined, limits raised, addresses bound, privileges dropped, spools read, control thread and shards running,
//! and only then is the caller told that it serves. Order of a stop: nothing new is accepted, what is in flight ends or is
//! given back, spools are synced, events are kept, threads end.

use crate::{
    clock,
    config::Config,
    control,
    life::{self, Birth},
    limits::Limits,
    link::{self, ControlLink},
    memory::Ceiling,
    mesh,
    privileges::{self, PrivilegeError},
    sandbox,
    tls::certs::{self, CertError, Trust},
};
use mailrail_spool::OpenError;
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, mpsc as std_mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};
use thiserror::Error;
use tokio::sync::mpsc;

/// How to run, besides the configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// React to SIGTERM, SIGINT and SIGHUP in [`Host::wait`].
    pub signals: bool,
    /// How long deliveries in flight may go on at a stop.
    pub grace: Duration,
    /// Forbid the whole process what a server never does, as [`sandbox`] says. Not for a program that does other things too.
    pub sandbox: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { signals: true, grace: Duration::from_secs(20), sandbox: false }
    }
}

/// Why the server cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said, and what to do.
        reason: String,
    },
    /// A certificate, key or CA file.
    #[error(transparent)]
    Certificate(#[from] CertError),
    /// Limits or user.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// A spool.
    #[error(transparent)]
    Spool(#[from] OpenError),
    /// The control thread.
    #[error("control thread: {0}")]
    Control(String),
    /// A shard.
    #[error("shard {shard}: {reason}")]
    Shard {
        /// Which.
        shard: u16,
        /// Why.
        reason: String,
    },
    /// The data directory.
    #[error("data_dir {path}: {reason}", path = path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
}

impl StartError {
    /// Is it for the author of the configuration to mend?
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Certificate(_) | Self::Privilege(_))
    }
}

/// Reads every file that the configuration names, as a start would.
///
/// # Errors
/// [`StartError::Certificate`] names the file and what is wrong with it.
pub fn check_files(config: &Config) -> Result<(), StartError> {
    Trust::load(config.delivery.ca_file.as_deref())?;
    load_certificates(config)?;
    Ok(())
}

/// Why a running server ended other than by being asked to.
#[derive(Debug, Error)]
pub enum HostError {
    /// A shard ended.
    #[error("shard {shard} ended: {reason}")]
    Shard {
        /// Which.
        shard: u16,
        /// Why.
        reason: String,
    },
    /// The control thread ended.
    #[error("control thread ended: {0}")]
    Control(String),
    /// Signals cannot be awaited.
    #[error("signals: {0}")]
    Signals(io::Error),
}

/// A running server.
pub struct Host {
    listeners: Vec<SocketAddr>,
    socket: PathBuf,
    control: control::Handle,
    shards: Vec<(u16, JoinHandle<Result<(), String>>)>,
}

impl Host {
    /// Starts the server; returns when it serves. Blocks.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub fn start(config: Config, options: Options) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let limits = Limits::default();
        privileges::confine();
        privileges::raise_limits(config.shards)?;
        let trust = Trust::load(config.delivery.ca_file.as_deref())?;
        let certificates = load_certificates(&config)?;
        make_data_dir(&config.data_dir)?;
        let (control_link, shard_links) = link::link(config.shards);
        let (ports, reserved) = reserve(&config)?;
        let (peers, requests): (Vec<_>, Vec<_>) = (0..config.shards).map(|_| mpsc::channel(mesh::REQUESTS)).unzip();
        let ceiling = Ceiling::new(config.memory, config.shards);
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let (bound_tx, bound) = std_mpsc::channel();
        let (mut shards, mut go) = (Vec::new(), Vec::new());
        for (link, requests) in shard_links.into_iter().zip(requests) {
            let (go_tx, go_rx) = std_mpsc::channel();
            let number = link.shard;
            let birth = Birth {
                config: Arc::clone(&config),
                limits: limits.clone(),
                ceiling: Arc::clone(&ceiling),
                trust: trust.clone(),
                certificates: certificates.clone(),
                addresses: ports.clone(),
                link,
                peers: peers.clone(),
                requests,
                core: (usize::from(config.shards) <= cores).then_some(usize::from(number)),
                seed: seed(),
                bound: bound_tx.clone(),
                go: go_rx,
            };
            shards.push((number, life::spawn(birth).map_err(|e| shard_error(number, &e.to_string()))?));
            go.push(go_tx);
        }
        drop((bound_tx, peers));
        // First all sockets, then the privileges, then the first file.
        await_all(&bound, config.shards)?;
        drop(reserved);
        if let Some(user) = &config.user {
            privileges::drop_to(user, &[&config.data_dir])?;
        }
        if options.sandbox
            && let Err(error) = sandbox::enter()
        {
            tracing::warn!("{error}; this host does not confine the server");
        }
        for sender in &go {
            let _ = sender.send(());
        }
        await_all(&bound, config.shards)?;
        let control = Self::start_control(&config, control_link, ports.clone(), &options)?;
        Ok(Self { listeners: ports, socket: config.control.socket.clone(), control, shards })
    }

    fn start_control(
        config: &Arc<Config>,
        link: ControlLink,
        listeners: Vec<SocketAddr>,
        options: &Options,
    ) -> Result<control::Handle, StartError> {
        let reload = {
            let config = Arc::clone(config);
            move || load_certificates(&config).map_err(|error| error.to_string())
        };
        let Options { signals, grace, .. } = *options;
        let options = control::Options { signals, listeners, grace, reload: Box::new(reload) };
        control::start(Arc::clone(config), link, options).map_err(StartError::Control)
    }

    /// Addresses it listens on, in the order of the configuration, with the ports really bound.
    #[must_use]
    pub fn listeners(&self) -> &[SocketAddr] {
        &self.listeners
    }

    /// Path of the control socket.
    #[must_use]
    pub fn control_socket(&self) -> &Path {
        &self.socket
    }

    /// Serves until it is told to stop by a signal or ends by a fault.
    ///
    /// # Errors
    /// [`HostError`] when it did not end because it was asked to.
    pub fn wait(mut self) -> Result<(), HostError> {
        let outcome = self.control.wait();
        let ended = self.end();
        outcome.map_err(HostError::Control).and(ended)
    }

    /// Stops it; returns when all is synced and all threads have ended.
    ///
    /// # Errors
    /// [`HostError`] when a thread ended by a fault.
    pub fn stop(mut self) -> Result<(), HostError> {
        self.control.stop();
        let outcome = self.control.wait();
        let ended = self.end();
        outcome.map_err(HostError::Control).and(ended)
    }

    fn end(&mut self) -> Result<(), HostError> {
        let mut first = Ok(());
        for (shard, handle) in self.shards.drain(..) {
            let reason = match handle.join() {
                Ok(Ok(())) => continue,
                Ok(Err(reason)) => reason,
                Err(_) => "it panicked".into(),
            };
            first = first.and(Err(HostError::Shard { shard, reason }));
        }
        first
    }
}

/// Not guessable, so that nobody can foresee message ids or steer the choice of hosts.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    // Fails only without a random source in the kernel; then the clock and the process have to do.
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => clock::wall().0.rotate_left(20) ^ u64::from(std::process::id()),
    }
}

fn shard_error(shard: u16, reason: &str) -> StartError {
    StartError::Shard { shard, reason: reason.into() }
}

/// Waits for one word of each shard.
fn await_all(from: &std_mpsc::Receiver<Result<(), StartError>>, shards: u16) -> Result<(), StartError> {
    for _ in 0..shards {
        from.recv().map_err(|_| shard_error(0, "it ended before it was ready"))??;
    }
    Ok(())
}

fn make_data_dir(path: &Path) -> Result<(), StartError> {
    std::fs::create_dir_all(path).map_err(|error| StartError::DataDir {
        path: path.into(),
        reason: format!("{error}; make it, or choose another with data_dir ="),
    })
}

fn load_certificates(config: &Config) -> Result<Vec<Option<Arc<rustls::ServerConfig>>>, CertError> {
    let load = |tls: &crate::config::ListenerTls| certs::server(&tls.cert, &tls.key);
    config.listeners.iter().map(|listener| listener.tls.as_ref().map(load).transpose()).collect()
}

/// How long an address that is in use is waited for: after SIGKILL the kernel takes a moment to let go of what a ring held,
/// and a restart should not fail for that.
const ADDRESS_WAIT: Duration = Duration::from_secs(5);
/// A listener on this host answers at once.
const CONNECT_WAIT: Duration = Duration::from_millis(200);

/// Finds out the port of each listener and holds it, so that all shards bind the same one.
fn reserve(config: &Config) -> Result<(Vec<SocketAddr>, Vec<TcpListener>), StartError> {
    let mut addresses = Vec::new();
    let mut held = Vec::new();
    for listener in &config.listeners {
        let address = listener.address;
        let error = |error: io::Error| StartError::Listen { address, reason: listen_advice(&error) };
        if address.port() == 0 {
            let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)
                .map_err(error)?;
            socket.set_reuse_port(true).map_err(error)?;
            socket.bind(&address.into()).map_err(error)?;
            let socket: TcpListener = socket.into();
            addresses.push(socket.local_addr().map_err(error)?);
            held.push(socket);
        } else {
            await_free(address).map_err(error)?;
            addresses.push(address);
        }
    }
    Ok((addresses, held))
}

/// Returns when nobody listens on `address`: another process, also one that is still dying, would be given part of our
/// connections if it shared the port. Asked by connecting: connections that an earlier server left behind are no listener,
/// but would keep a socket that does not share its port from being bound for a minute.
fn await_free(address: SocketAddr) -> io::Result<()> {
    let mut asked = address;
    if address.ip().is_unspecified() {
        asked.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    let until = clock::mono().plus(ADDRESS_WAIT);
    while TcpStream::connect_timeout(&asked, CONNECT_WAIT).is_ok() {
        if clock::mono() >= until {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

pub(crate) fn listen_advice(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("{error}; another process listens there, stop it or choose another address")
        }
        io::ErrorKind::PermissionDenied => {
            format!("{error}; ports below 1024 need root (with user =) or CAP_NET_BIND_SERVICE")
        }
        io::ErrorKind::AddrNotAvailable => format!("{error}; the host does not have this address"),
        _ => error.to_string(),
    }
}
