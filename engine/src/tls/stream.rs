//! A TCP connection, plain or with TLS, on a shard. *One per connection.*
//!
//! The TLS machine (rustls) does no I/O: this file moves its bytes over a glommio socket. Plain connections pay nothing
//! for it. Nothing here knows SMTP.

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::TcpStream;
use rustls::{ClientConnection, ServerConnection, pki_types::ServerName};
use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    ops::Range,
    sync::Arc,
    time::Duration,
};

/// Largest piece handed to or taken from the socket at once while TLS is on: one TLS record and its overhead.
const RECORD: usize = 16 * 1024 + 512;

/// TLS version and cipher suite of a connection, as event records name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsInfo {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// IANA name of the cipher suite.
    pub cipher: &'static str,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Stream {
    tcp: TcpStream,
    tls: Option<Box<Tls>>,
}

#[derive(Debug)]
struct Tls {
    machine: rustls::Connection,
    incoming: Box<[u8]>,
    /// What of `incoming` the machine has not taken yet: it takes no more while plain text waits to be read.
    pending: Range<usize>,
    outgoing: Vec<u8>,
}

impl Stream {
    pub(crate) fn plain(tcp: TcpStream) -> Self {
        Self { tcp, tls: None }
    }

    /// Bounds each following read; an elapsed one is `ErrorKind::TimedOut`.
    pub(crate) fn set_read_timeout(&self, limit: Duration) -> io::Result<()> {
        self.tcp.set_read_timeout(Some(limit)).map_err(io::Error::from)
    }

    /// Bounds each following wait for room in the socket's send buffer.
    pub(crate) fn set_write_timeout(&self, limit: Duration) -> io::Result<()> {
        self.tcp.set_write_timeout(Some(limit)).map_err(io::Error::from)
    }

    pub(crate) fn peer(&self) -> io::Result<SocketAddr> {
        self.tcp.peer_addr().map_err(io::Error::from)
    }

    /// What was negotiated, if TLS is on.
    pub(crate) fn tls_info(&self) -> Option<TlsInfo> {
        let machine = &self.tls.as_ref()?.machine;
        let version = match machine.protocol_version()? {
            rustls::ProtocolVersion::TLSv1_3 => "TLSv1.3",
            rustls::ProtocolVersion::TLSv1_2 => "TLSv1.2",
            other => other.as_str()?,
        };
        let cipher = machine.negotiated_cipher_suite()?.suite().as_str()?;
        Some(TlsInfo { version, cipher: cipher.strip_prefix("TLS13_").map_or(cipher, |_| tls13_name(cipher)) })
    }

    /// Server side of a handshake. Bytes that were read before it must have been thrown away by the caller.
    pub(crate) async fn accept_tls(&mut self, config: Arc<rustls::ServerConfig>) -> io::Result<()> {
        let machine = ServerConnection::new(config).map_err(io::Error::other)?;
        self.handshake(machine.into()).await
    }

    /// Client side of a handshake.
    pub(crate) async fn connect_tls(
        &mut self,
        config: Arc<rustls::ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<()> {
        let machine = ClientConnection::new(config, name).map_err(io::Error::other)?;
        self.handshake(machine.into()).await
    }

    async fn handshake(&mut self, machine: rustls::Connection) -> io::Result<()> {
        let mut tls = Box::new(Tls {
            machine,
            incoming: vec![0; RECORD].into_boxed_slice(),
            pending: 0..0,
            outgoing: Vec::with_capacity(RECORD),
        });
        loop {
            tls.flush(&mut self.tcp).await?;
            if !tls.machine.is_handshaking() {
                break;
            }
            if !tls.fill(&mut self.tcp).await? {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed during the TLS handshake"));
            }
        }
        self.tls = Some(tls);
        Ok(())
    }

    /// Reads what there is, at most `into.len()` bytes; 0 means that the peer closed.
    pub(crate) async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.tcp.read(into).await };
        loop {
            match tls.machine.reader().read(into) {
                Ok(n) => return Ok(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Closed without close_notify: SMTP has its own end marks, so that is no more than a close.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                Err(error) => return Err(error),
            }
            if !tls.fill(&mut self.tcp).await? {
                return Ok(0);
            }
            tls.flush(&mut self.tcp).await?;
        }
    }

    /// Writes all of `from`.
    pub(crate) async fn write_all(&mut self, from: &[u8]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return self.tcp.write_all(from).await };
        for piece in from.chunks(RECORD) {
            tls.machine.writer().write_all(piece)?;
            tls.flush(&mut self.tcp).await?;
        }
        Ok(())
    }

    /// Says goodbye; errors do not matter any more.
    pub(crate) async fn close(mut self) {
        if let Some(tls) = &mut self.tls {
            tls.machine.send_close_notify();
            let _ = tls.flush(&mut self.tcp).await;
        }
        let _ = self.tcp.close().await;
    }
}

impl Tls {
    /// Sends all that the machine has to say.
    async fn flush(&mut self, tcp: &mut TcpStream) -> io::Result<()> {
        while self.machine.wants_write() {
            self.outgoing.clear();
            while self.machine.wants_write() && self.outgoing.len() < 4 * RECORD {
                self.machine.write_tls(&mut self.outgoing)?;
            }
            tcp.write_all(&self.outgoing).await?;
        }
        Ok(())
    }

    /// Feeds the machine once, from what is left or from the socket; false when the peer closed.
    async fn fill(&mut self, tcp: &mut TcpStream) -> io::Result<bool> {
        if self.pending.is_empty() {
            let n = tcp.read(&mut self.incoming).await?;
            if n == 0 {
                return Ok(false);
            }
            self.pending = 0..n;
        }
        let mut rest = &self.incoming[self.pending.clone()];
        let taken = self.machine.read_tls(&mut rest)?;
        self.pending.start += taken;
        if let Err(error) = self.machine.process_new_packets() {
            // The alert tells the peer what was wrong; then the connection is over.
            let _ = self.flush(tcp).await;
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(true)
    }
}

/// rustls prefixes TLS 1.3 suites with `TLS13_`; IANA names them `TLS_…`.
fn tls13_name(suite: &'static str) -> &'static str {
    match suite {
        "TLS13_AES_128_GCM_SHA256" => "TLS_AES_128_GCM_SHA256",
        "TLS13_AES_256_GCM_SHA384" => "TLS_AES_256_GCM_SHA384",
        "TLS13_CHACHA20_POLY1305_SHA256" => "TLS_CHACHA20_POLY1305_SHA256",
        other => other,
    }
}
