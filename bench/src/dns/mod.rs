//! Authoritative test DNS on a free loopback port, UDP and TCP, in a thread of its own.
//!
//! It stands in for the world's DNS in tests, demo and load runs: MX sets, null MX, NXDOMAIN, SERVFAIL, silence,
//! delays and truncation, all of it changeable while it runs. It must never leave loopback and never forward a
//! question. Control-side code: it may lock and allocate.

mod server;
pub mod stub;
#[cfg(test)]
mod tests;
mod zone;

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use hickory_proto::rr::RecordType;

pub use zone::{Fault, Zone};

/// Attempts to find a port that is free for both UDP and TCP.
const PORT_ATTEMPTS: usize = 64;

/// State shared by the server thread and its handle.
#[derive(Debug, Default)]
struct Shared {
    zone: Zone,
    queries: u64,
    tcp_queries: u64,
    by_question: HashMap<(String, RecordType), u64>,
    stop: bool,
}

/// A running test DNS. Dropping it stops it.
#[derive(Debug)]
pub struct DnsServer {
    addr: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    waker: Arc<mio::Waker>,
    thread: Option<JoinHandle<()>>,
}

impl DnsServer {
    /// Starts a server for `zone` on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// What the system says where no port can be bound or no thread started.
    pub fn start(zone: Zone) -> io::Result<Self> {
        Self::start_at(zone, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// Starts a server for `zone` at `addr`; port 0 takes one that is free for both UDP and TCP.
    ///
    /// # Errors
    /// What the system says where the address cannot be bound or no thread started.
    pub fn start_at(zone: Zone, addr: SocketAddr) -> io::Result<Self> {
        let (udp, tcp) = bind(addr)?;
        let addr = udp.local_addr()?;
        let shared = Arc::new(Mutex::new(Shared { zone, ..Shared::default() }));
        let server = server::Server::new(udp, tcp, Arc::clone(&shared))?;
        let waker = server.waker();
        let thread = std::thread::Builder::new().name("bench-dns".into()).spawn(move || server.run())?;
        Ok(Self { addr, shared, waker, thread: Some(thread) })
    }

    /// Where it listens, the same port for UDP and TCP.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Changes the zone while the server runs; the next question sees the change.
    pub fn update(&self, change: impl FnOnce(&mut Zone)) {
        change(&mut lock(&self.shared).zone);
    }

    /// Puts another zone in place of the present one.
    pub fn replace(&self, zone: Zone) {
        lock(&self.shared).zone = zone;
    }

    /// Questions answered (or left unanswered on purpose) so far.
    #[must_use]
    pub fn queries(&self) -> u64 {
        lock(&self.shared).queries
    }

    /// Questions that came over TCP.
    #[must_use]
    pub fn tcp_queries(&self) -> u64 {
        lock(&self.shared).tcp_queries
    }

    /// Questions for one name and type.
    #[must_use]
    pub fn queries_for(&self, name: &str, kind: RecordType) -> u64 {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        lock(&self.shared).by_question.get(&(name, kind)).copied().unwrap_or(0)
    }

    /// Stops the server and waits for its thread.
    pub fn stop(mut self) {
        self.shut_down();
    }

    fn shut_down(&mut self) {
        lock(&self.shared).stop = true;
        // A failing waker leaves the thread asleep; joining it would hang the caller, so it is left to the process.
        if self.waker.wake().is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.shut_down();
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bind(addr: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..PORT_ATTEMPTS {
        let udp = UdpSocket::bind(addr)?;
        match TcpListener::bind(udp.local_addr()?) {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(why) if addr.port() != 0 => return Err(why),
            Err(why) => last = why,
        }
    }
    Err(last)
}
