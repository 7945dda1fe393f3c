//! One non-blocking TCP connection with or without TLS, for load generator and sink alike. Moves bytes, decides nothing.
//! One per connection.

use std::io::{self, Read, Write};

use mio::net::TcpStream;
use rustls::Connection as Tls;

/// A socket, what is known of its readiness (edge-triggered), and TLS where started.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) socket: TcpStream,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The peer has closed its side: reads go on until they return 0.
    pub(crate) peer_closed: bool,
    tls: Option<Box<Tls>>,
}

/// What [`Wire::decrypt`] came upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decrypted {
    /// Bytes, perhaps none.
    Bytes,
    /// The end of the handshake, with the protocol version; bytes perhaps.
    Established(&'static str),
}

impl Wire {
    pub(crate) fn new(socket: TcpStream) -> Self {
        Self { socket, readable: false, writable: true, peer_closed: false, tls: None }
    }

    /// Takes in what an event says.
    pub(crate) fn note(&mut self, event: &mio::event::Event) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable() || event.is_error();
        self.peer_closed |= event.is_read_closed() || event.is_error();
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Everything from here on is TLS.
    pub(crate) fn start_tls(&mut self, mut tls: Tls) {
        tls.set_buffer_limit(None);
        self.tls = Some(Box::new(tls));
    }

    /// Reads raw bytes; a socket that has nothing is `None`, the end is `Some(0)`.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match self.socket.read(into) {
                Ok(len) => {
                    // A short read has emptied the socket; the next edge says when there is more.
                    if len < into.len() && !self.peer_closed {
                        self.readable = false;
                    }
                    return Ok(Some(len));
                }
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(None);
                }
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => return Err(why),
            }
        }
    }

    /// Puts the plaintext of raw bytes behind `plain`.
    pub(crate) fn decrypt(&mut self, mut raw: &[u8], plain: &mut Vec<u8>) -> io::Result<Decrypted> {
        let Some(tls) = &mut self.tls else { return Err(io::ErrorKind::InvalidInput.into()) };
        let mut found = Decrypted::Bytes;
        while !raw.is_empty() {
            tls.read_tls(&mut raw)?;
            let was_handshaking = tls.is_handshaking();
            let state = match tls.process_new_packets() {
                Ok(state) => state,
                Err(why) => {
                    // The alert goes out where it can.
                    let _ = tls.write_tls(&mut self.socket);
                    return Err(io::Error::other(why));
                }
            };
            if was_handshaking && !tls.is_handshaking() {
                let version = tls.protocol_version().and_then(|version| version.as_str());
                found = Decrypted::Established(version.unwrap_or("TLS"));
            }
            let start = plain.len();
            plain.resize(start + state.plaintext_bytes_to_read(), 0);
            tls.reader().read_exact(&mut plain[start..])?;
        }
        Ok(found)
    }

    /// Writes as much of `out` as goes, and takes it off. An error means that the connection is gone.
    pub(crate) fn flush(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            let mut sent = 0;
            while self.writable && sent < out.len() {
                sent += settle(self.socket.write(&out[sent..]), &mut self.writable)?;
            }
            if sent == out.len() {
                out.clear();
            } else {
                out.drain(..sent);
            }
            return Ok(());
        };
        if !out.is_empty() && !tls.is_handshaking() {
            tls.writer().write_all(out)?;
            out.clear();
        }
        while self.writable && tls.wants_write() {
            settle(tls.write_tls(&mut self.socket), &mut self.writable)?;
        }
        Ok(())
    }
}

/// Bytes written; a full socket is no error.
fn settle(written: io::Result<usize>, writable: &mut bool) -> io::Result<usize> {
    match written {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        Ok(len) => Ok(len),
        Err(why) if why.kind() == io::ErrorKind::WouldBlock => {
            *writable = false;
            Ok(0)
        }
        Err(why) if why.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(why) => Err(why),
    }
}
