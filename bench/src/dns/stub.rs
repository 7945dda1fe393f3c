//! A stub resolver of a few lines, blocking, for the worker threads that check signatures.
//!
//! It must never be called on a reactor thread: it waits for answers.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use thiserror::Error;

/// How long one try waits for its answer.
const TRY_TIMEOUT: Duration = Duration::from_secs(2);
/// Tries over UDP before giving up.
const TRIES: usize = 3;

/// Why a question was not answered.
#[derive(Debug, Error)]
pub enum StubError {
    /// The name cannot be asked for.
    #[error("{name:?} is no DNS name")]
    Name {
        /// The name as given.
        name: String,
    },
    /// No usable answer from the server.
    #[error("no answer from DNS server {server}: {source}")]
    Network {
        /// The server asked.
        server: SocketAddr,
        /// What the socket said.
        source: io::Error,
    },
    /// The name does not exist, or has no record of the type.
    #[error("{name} has no {kind} record ({code})")]
    NoRecord {
        /// The name asked for.
        name: String,
        /// The type asked for.
        kind: RecordType,
        /// The server's response code.
        code: ResponseCode,
    },
}

/// Asks `server` for the TXT records of `name`: each record's strings joined, as DKIM reads them (RFC 6376 section
/// 3.6.2.2).
///
/// # Errors
/// [`StubError`], as its variants say.
pub fn txt(server: SocketAddr, name: &str) -> Result<Vec<Vec<u8>>, StubError> {
    let reply = ask(server, name, RecordType::TXT)?;
    let texts: Vec<_> = reply
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::TXT(txt) => Some(txt.txt_data.iter().flat_map(|part| part.iter().copied()).collect()),
            _ => None,
        })
        .collect();
    if texts.is_empty() {
        return Err(StubError::NoRecord {
            name: name.into(),
            kind: RecordType::TXT,
            code: reply.metadata.response_code,
        });
    }
    Ok(texts)
}

/// Asks `server` one question over UDP, and again over TCP where the answer is truncated.
///
/// # Errors
/// [`StubError`], as its variants say. A negative answer is no error here: it is in the message.
pub fn ask(server: SocketAddr, name: &str, kind: RecordType) -> Result<Message, StubError> {
    let mut asked = Name::from_str_relaxed(name).map_err(|_| StubError::Name { name: name.into() })?;
    asked.set_fqdn(true);
    let mut query = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(asked, kind));
    let network = |source| StubError::Network { server, source };
    let bytes = query.to_vec().map_err(|why| network(io::Error::other(why)))?;
    let id = query.metadata.id;
    let reply = ask_udp(server, &bytes, id).map_err(network)?;
    if reply.metadata.truncation {
        return ask_tcp(server, &bytes, id).map_err(network);
    }
    Ok(reply)
}

fn ask_udp(server: SocketAddr, query: &[u8], id: u16) -> io::Result<Message> {
    let local: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(local)?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(TRY_TIMEOUT))?;
    let mut buffer = [0; 4096];
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    for _ in 0..TRIES {
        socket.send(query)?;
        match socket.recv(&mut buffer) {
            Ok(len) => match decode(&buffer[..len], id) {
                Ok(reply) => return Ok(reply),
                Err(why) => last = why,
            },
            Err(why) => last = why,
        }
    }
    Err(last)
}

fn ask_tcp(server: SocketAddr, query: &[u8], id: u16) -> io::Result<Message> {
    let mut stream = TcpStream::connect_timeout(&server, TRY_TIMEOUT)?;
    stream.set_read_timeout(Some(TRY_TIMEOUT))?;
    let len = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes(), query].concat())?;
    let mut len = [0; 2];
    stream.read_exact(&mut len)?;
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut bytes)?;
    decode(&bytes, id)
}

fn decode(bytes: &[u8], id: u16) -> io::Result<Message> {
    let reply = Message::from_vec(bytes).map_err(io::Error::other)?;
    if reply.metadata.id == id && reply.metadata.message_type == MessageType::Response {
        Ok(reply)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "the answer belongs to another question"))
    }
}
