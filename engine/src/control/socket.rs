//! The doors of the control thread: the Unix socket, and the metrics over TCP.
//!
//! The socket is for root, the server's own user and those whom the configuration names. Who is at its other end says the
//! kernel (SO_PEERCRED), for each connection, before a request of it is looked at.

use super::api::{self, state::State};
use crate::config::{Config, ControlConfig};
use axum::{Router, extract::connect_info::Connected, routing::get, serve::IncomingStream};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use std::{
    fs::{self, Permissions},
    io,
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, PermissionsExt},
        net::UnixStream as StdUnixStream,
    },
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixListener, UnixStream, unix::SocketAddr},
    sync::{Semaphore, watch},
};

/// Connections to the metrics at a time; more wait to be accepted.
const METRICS_CONNECTIONS: usize = 16;
/// Time for a request for the metrics and its answer.
const METRICS_TIME: Duration = Duration::from_secs(10);
/// Of the socket, to users who may not use it: so many at a time are told so, each for so long.
const REFUSALS: usize = 8;
const REFUSAL_TIME: Duration = Duration::from_secs(1);
/// When no connection can be accepted, for want of files say, wait so long.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// Who is at the other end of the control socket, as the kernel says.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Peer {
    uid: Option<u32>,
    pid: Option<i32>,
}

impl Peer {
    /// For the audit.
    pub(super) fn who(self) -> String {
        match (self.uid, self.pid) {
            (Some(uid), Some(pid)) => format!("uid {uid}, pid {pid}"),
            (Some(uid), None) => format!("uid {uid}"),
            (None, _) => "unknown".into(),
        }
    }
}

impl Connected<IncomingStream<'_, Door>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        match stream.io().peer_cred() {
            Ok(peer) => Self { uid: Some(peer.uid()), pid: peer.pid() },
            Err(_) => Self { uid: None, pid: None },
        }
    }
}

/// Who may come in.
#[derive(Clone, Debug)]
struct Allowed {
    uids: Vec<u32>,
    gids: Vec<u32>,
}

impl Allowed {
    fn new(control: &ControlConfig) -> Self {
        let own = rustix::process::geteuid().as_raw();
        let uids = control.allow_uids.iter().copied().chain([0, own]).collect();
        Self { uids, gids: control.allow_gids.clone() }
    }

    /// Mode of the socket: others reach it only where some of them may.
    fn mode(control: &ControlConfig) -> u32 {
        if control.allow_uids.is_empty() && control.allow_gids.is_empty() { 0o600 } else { 0o666 }
    }

    fn admits(&self, uid: u32, gid: u32) -> bool {
        self.uids.contains(&uid) || self.gids.contains(&gid)
    }
}

/// The socket, with a look at each who knocks.
struct Door {
    listener: UnixListener,
    allowed: Allowed,
    /// Places for those who are told that they may not; more are just closed.
    refusals: Arc<Semaphore>,
}

impl axum::serve::Listener for Door {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (UnixStream, SocketAddr) {
        loop {
            let (stream, address) = axum::serve::Listener::accept(&mut self.listener).await;
            match stream.peer_cred() {
                Ok(peer) if self.allowed.admits(peer.uid(), peer.gid()) => return (stream, address),
                Ok(peer) => {
                    tracing::warn!(uid = peer.uid(), gid = peer.gid(), pid = peer.pid(), "control socket: not allowed");
                    if let Ok(place) = Arc::clone(&self.refusals).try_acquire_owned() {
                        tokio::spawn(async move {
                            let _ = tokio::time::timeout(REFUSAL_TIME, refuse(stream)).await;
                            drop(place);
                        });
                    }
                }
                Err(error) => tracing::warn!("control socket: who it is cannot be told: {error}"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Says no to the request, once some of it is there, and takes the rest: otherwise the connection shows as broken, not as
/// refused.
async fn refuse(mut stream: UnixStream) {
    let asked = stream.read(&mut [0; 4096]).await;
    if asked.is_ok() && stream.write_all(FORBIDDEN).await.and(stream.shutdown().await).is_ok() {
        while matches!(stream.read(&mut [0; 4096]).await, Ok(1..)) {}
    }
}

/// The answer to those who may not come in.
const FORBIDDEN: &[u8] = b"HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-type: application/json\r\n\
    content-length: 93\r\n\r\n\
    {\"message\":\"this user may not use the control socket; name its uid in [control] allow_uids\"}\n";

/// Opens both, and serves them until `closed`.
///
/// # Errors
/// One line: which cannot be opened, and what to do.
pub(super) async fn serve(config: &Config, state: &Arc<State>, closed: watch::Receiver<bool>) -> Result<(), String> {
    let path = &config.control.socket;
    let mode = Allowed::mode(&config.control);
    let listener = open(path, mode).map_err(|error| format!("control socket {}: {error}", path.display()))?;
    let refusals = Arc::new(Semaphore::new(REFUSALS));
    let door = Door { listener, allowed: Allowed::new(&config.control), refusals };
    let service = api::router(Arc::clone(state)).into_make_service_with_connect_info::<Peer>();
    let until = closed.clone();
    tokio::spawn(async move {
        let _ = axum::serve(door, service).with_graceful_shutdown(is_closed(until)).await;
    });
    if let Some(address) = config.control.metrics {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| format!("[control] metrics {address}: {}", crate::host::listen_advice(&error)))?;
        let router = Router::new().route("/metrics", get(super::metrics::get)).with_state(Arc::clone(state));
        tokio::spawn(async move {
            tokio::select! {
                () = serve_metrics(listener, router) => {}
                () = is_closed(closed) => {}
            }
        });
    }
    Ok(())
}

/// One request a connection, and only so many of both: whoever reaches this port gets numbers, and no way to use up the
/// files that mail needs.
async fn serve_metrics(listener: TcpListener, router: Router) {
    let places = Arc::new(Semaphore::new(METRICS_CONNECTIONS));
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!("metrics: {error}");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let mut http = http1::Builder::new();
            let connection = http.keep_alive(false).serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(METRICS_TIME, connection).await;
            drop(place);
        });
    }
}

async fn is_closed(mut closed: watch::Receiver<bool>) {
    let _ = closed.wait_for(|closed| *closed).await;
}

/// Binds the socket with this mode from its first moment; one that a dead server left is removed, and nothing else.
fn open(path: &Path, mode: u32) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    remove_stale(path)?;
    // Bound where nobody else may look, and given its name only when nobody else may open it.
    let hidden = path.with_extension(format!("{}.new", std::process::id()));
    let _ = fs::remove_dir_all(&hidden);
    fs::DirBuilder::new().mode(0o700).create(&hidden)?;
    let bound = bind(&hidden.join("s"), path, mode);
    let _ = fs::remove_dir_all(&hidden);
    bound
}

fn bind(hidden: &Path, path: &Path, mode: u32) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(hidden)?;
    fs::set_permissions(hidden, Permissions::from_mode(mode))?;
    fs::rename(hidden, path)?;
    Ok(listener)
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let taken = |text: &str| Err(io::Error::new(io::ErrorKind::AddrInUse, text.to_owned()));
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            return taken(
                "something that is no socket is there; remove it, or choose another path with [control] socket =",
            );
        }
        Ok(_) => {}
    }
    match StdUnixStream::connect(path) {
        // Only this says that nobody listens.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(_) => taken("another server answers there; stop it, or choose another path with [control] socket ="),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener as StdUnixListener;

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_ours_is_for_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/control.sock");
        fs::create_dir(path.parent().unwrap()).unwrap();
        drop(StdUnixListener::bind(&path).unwrap());
        let _listener = open(&path, 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        StdUnixStream::connect(&path).unwrap();
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing else is left there");
    }

    #[test]
    fn only_root_the_own_user_and_those_named_are_let_in() {
        let mut control =
            ControlConfig { socket: "s".into(), metrics: None, allow_uids: Vec::new(), allow_gids: Vec::new() };
        let own = rustix::process::geteuid().as_raw();
        let stranger = own + 4711;
        assert_eq!(Allowed::mode(&control), 0o600);
        let allowed = Allowed::new(&control);
        assert!(allowed.admits(0, 5) && allowed.admits(own, 5) && !allowed.admits(stranger, 5));
        control.allow_uids.push(stranger);
        control.allow_gids.push(77);
        let allowed = Allowed::new(&control);
        assert!(allowed.admits(stranger, 5) && allowed.admits(stranger + 1, 77) && !allowed.admits(stranger + 1, 5));
        assert_eq!(Allowed::mode(&control), 0o666);
    }

    #[test]
    fn the_refusal_says_how_long_it_is() {
        let text = std::str::from_utf8(FORBIDDEN).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}, but it is {}", body.len());
    }

    #[tokio::test]
    async fn what_is_alive_or_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let living = StdUnixListener::bind(&path).unwrap();
        assert!(open(&path, 0o600).unwrap_err().to_string().contains("another server answers"));
        drop(living);
        let file = directory.path().join("precious");
        fs::write(&file, "data").unwrap();
        assert!(open(&file, 0o600).unwrap_err().to_string().contains("no socket"));
        assert_eq!(fs::read_to_string(&file).unwrap(), "data");
    }
}
