//! The doors of the control thread: the Unix socket, open to the server's own user only, and the metrics over TCP.

use super::api::{self, state::State};
use crate::config::Config;
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
    net::{TcpListener, UnixListener},
    sync::{Semaphore, watch},
};

/// Connections to the metrics at a time; more wait to be accepted.
const METRICS_CONNECTIONS: usize = 16;
/// Time for a request for the metrics and its answer.
const METRICS_TIME: Duration = Duration::from_secs(10);
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

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        match stream.io().peer_cred() {
            Ok(peer) => Self { uid: Some(peer.uid()), pid: peer.pid() },
            Err(_) => Self { uid: None, pid: None },
        }
    }
}

/// Opens both, and serves them until `closed`.
///
/// # Errors
/// One line: which cannot be opened, and what to do.
pub(super) async fn serve(config: &Config, state: &Arc<State>, closed: watch::Receiver<bool>) -> Result<(), String> {
    let path = &config.control.socket;
    let listener = open(path).map_err(|error| format!("control socket {}: {error}", path.display()))?;
    let service = api::router(Arc::clone(state)).into_make_service_with_connect_info::<Peer>();
    let until = closed.clone();
    tokio::spawn(async move {
        let _ = axum::serve(listener, service).with_graceful_shutdown(is_closed(until)).await;
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

/// Binds the socket with mode 0600 from its first moment; one that a dead server left is removed, and nothing else.
fn open(path: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    remove_stale(path)?;
    // Bound where nobody else may look, and given its name only when nobody else may open it.
    let hidden = path.with_extension(format!("{}.new", std::process::id()));
    let _ = fs::remove_dir_all(&hidden);
    fs::DirBuilder::new().mode(0o700).create(&hidden)?;
    let bound = bind(&hidden.join("s"), path);
    let _ = fs::remove_dir_all(&hidden);
    bound
}

fn bind(hidden: &Path, path: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(hidden)?;
    fs::set_permissions(hidden, Permissions::from_mode(0o600))?;
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
        let _listener = open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        StdUnixStream::connect(&path).unwrap();
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing else is left there");
    }

    #[tokio::test]
    async fn what_is_alive_or_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let living = StdUnixListener::bind(&path).unwrap();
        assert!(open(&path).unwrap_err().to_string().contains("another server answers"));
        drop(living);
        let file = directory.path().join("precious");
        fs::write(&file, "data").unwrap();
        assert!(open(&file).unwrap_err().to_string().contains("no socket"));
        assert_eq!(fs::read_to_string(&file).unwrap(), "data");
    }
}
