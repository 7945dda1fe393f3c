//! Accepting client connections: one listening socket a shard and address (SO_REUSEPORT), bounded in all and per client.
//! *One per shard and address.*

use crate::{
    config::{Auth, Config, ListenerConfig},
    memory,
    receive::session,
    shard::Shard,
    smtp::server::ServerPolicy,
    tls::stream::Stream,
};
use futures_lite::FutureExt;
use glommio::net::{TcpListener, TcpStream};
use rustc_hash::FxHashMap;
use std::{
    cell::{Cell, RefCell},
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

/// After an error of accept (no descriptor left, most likely): the backlog holds clients meanwhile.
const PAUSE: Duration = Duration::from_millis(100);
/// Said to a client that is one too many.
const BUSY: &str = "421 4.7.0 Too many concurrent SMTP connections\r\n";

/// Said to a client for whose connection there is no memory.
const SHORT: &str = "421 4.3.1 Insufficient system memory, try again later\r\n";

/// See the module.
pub(crate) struct Listener {
    /// Its place in the configuration.
    pub(crate) index: usize,
    policy: Arc<ServerPolicy>,
    /// For clients that may submit with credentials only.
    strangers: Arc<ServerPolicy>,
    config: ListenerConfig,
    socket: TcpListener,
    connections: Cell<u32>,
    clients: RefCell<FxHashMap<IpAddr, u32>>,
}

impl Listener {
    /// Binds; several shards bind the same address.
    ///
    /// # Errors
    /// As the system says.
    pub(crate) fn bind(index: usize, config: &Config, address: SocketAddr) -> io::Result<Rc<Self>> {
        let socket = TcpListener::bind(address).map_err(io::Error::from)?;
        let listener = config.listeners[index].clone();
        let policy = ServerPolicy {
            hostname: config.hostname.clone(),
            max_size: listener.max_size,
            max_recipients: listener.max_recipients,
            starttls: listener.tls.as_ref().is_some_and(|tls| !tls.implicit),
            auth: listener.auth != Auth::Off,
            auth_required: listener.auth == Auth::Required,
            auth_in_clear: address.ip().is_loopback(),
            smtputf8: listener.smtputf8,
            command_timeout: listener.idle_timeout,
            ..ServerPolicy::default()
        };
        let strangers = Arc::new(ServerPolicy { auth_required: true, ..policy.clone() });
        Ok(Rc::new(Self {
            index,
            strangers,
            policy: Arc::new(policy),
            config: listener,
            socket,
            connections: Cell::new(0),
            clients: RefCell::default(),
        }))
    }

    /// TLS before the first byte of SMTP.
    pub(crate) fn implicit_tls(&self) -> bool {
        self.config.tls.as_ref().is_some_and(|tls| tls.implicit)
    }

    /// Account of clients that give no credentials.
    pub(crate) fn account(&self) -> &Arc<str> {
        &self.config.account
    }

    /// What this client may do.
    pub(crate) fn policy(&self, client: IpAddr) -> Arc<ServerPolicy> {
        Arc::clone(if self.config.allows(client) { &self.policy } else { &self.strangers })
    }

    /// May this client submit mail, with or without credentials?
    pub(crate) fn takes(&self, client: IpAddr) -> bool {
        self.config.auth != Auth::Off || self.config.allows(client)
    }

    /// Takes connections until the shard stops.
    pub(crate) async fn run(self: Rc<Self>, shard: Rc<Shard>) {
        shard.is_loaded().await;
        while !shard.stopping.get() {
            let stop = async {
                shard.ending.wait().await;
                None
            };
            match stop.or(async { Some(self.socket.accept().await) }).await {
                Some(Ok(tcp)) => self.admit(&shard, tcp),
                Some(Err(error)) => {
                    shard.note_error(&format!("accept on {}: {error}", self.config.address));
                    glommio::timer::sleep(PAUSE).await;
                }
                None => {}
            }
        }
    }

    fn admit(self: &Rc<Self>, shard: &Rc<Shard>, tcp: TcpStream) {
        let Ok(peer) = tcp.peer_addr() else { return };
        let ip = peer.ip().to_canonical();
        let of_client = self.clients.borrow().get(&ip).copied().unwrap_or(0);
        let crowded = self.connections.get() >= shard.share(self.config.max_connections)
            || of_client >= self.config.max_connections_per_ip;
        if crowded {
            shard.stats.borrow_mut().sessions_refused += 1;
            glommio::spawn_local(session::refuse(tcp, BUSY)).detach();
            return;
        }
        if !memory::takes_connection(shard) {
            shard.stats.borrow_mut().sessions_refused += 1;
            glommio::spawn_local(session::refuse(tcp, SHORT)).detach();
            return;
        }
        // Replies are written whole; waiting for more would only delay the client.
        let _ = tcp.set_nodelay(true);
        *self.clients.borrow_mut().entry(ip).or_default() += 1;
        self.connections.set(self.connections.get() + 1);
        shard.stats.borrow_mut().sessions += 1;
        let (listener, shard) = (Rc::clone(self), Rc::clone(shard));
        glommio::spawn_local(async move {
            session::run(&shard, &listener, Stream::plain(tcp), peer).await;
            shard.stats.borrow_mut().sessions -= 1;
            listener.leave(ip);
        })
        .detach();
    }

    fn leave(&self, ip: IpAddr) {
        self.connections.set(self.connections.get() - 1);
        let mut clients = self.clients.borrow_mut();
        if let Some(count) = clients.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&ip);
            }
        }
    }
}
