//! The doors of the control thread: the Unix socket, open to the server's own user only, and the metrics over TCP.

use super::api::{self, state::State};
use crate::config::Config;
use axum::{Router, extract::connect_info::Connected, routing::get, serve::IncomingStream};
use std::{
    fs::{self, Permissions},
    io,
    os::unix::{fs::PermissionsExt, net::UnixStream as StdUnixStream},
    path::Path,
    sync::Arc,
};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
};

/// Who is at the other end of the control socket, as the kernel says.
#[derive(Clone, Copy, Debug)]
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
            let _ = axum::serve(listener, router).with_graceful_shutdown(is_closed(closed)).await;
        });
    }
    Ok(())
}

async fn is_closed(mut closed: watch::Receiver<bool>) {
    let _ = closed.wait_for(|closed| *closed).await;
}

/// Binds the socket with mode 0600 from its first moment; one that a dead server left is removed.
fn open(path: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    if path.exists() {
        if StdUnixStream::connect(path).is_ok() {
            let text = "another server answers there; stop it, or choose another path with [control] socket =";
            return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
        }
        fs::remove_file(path)?;
    }
    // Bound under a name that nobody knows, and given its own only when nobody else may open it.
    let hidden = path.with_extension(format!("{}.new", std::process::id()));
    let _ = fs::remove_file(&hidden);
    let listener = UnixListener::bind(&hidden)?;
    fs::set_permissions(&hidden, Permissions::from_mode(0o600))?;
    fs::rename(&hidden, path)?;
    Ok(listener)
}
