//! The thread behind [`super::DnsServer`]: sockets, delayed answers, TCP framing.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use mio::net::{TcpListener, TcpStream, UdpSocket};
use mio::{Events, Interest, Poll, Token, Waker};

use super::zone::Fault;
use super::{Shared, lock};

const UDP: Token = Token(0);
const TCP: Token = Token(1);
const WAKE: Token = Token(2);
const FIRST_STREAM: usize = 3;

/// Open TCP connections kept at most; further ones are closed at once.
const STREAMS_MAX: usize = 256;

/// UDP payload without EDNS (RFC 1035 section 4.2.1).
const UDP_PAYLOAD: u16 = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Udp(SocketAddr),
    Stream(usize),
}

#[derive(Debug)]
struct Stream {
    socket: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

/// Owns the sockets; one per test DNS, lives on its own thread.
pub(super) struct Server {
    poll: Poll,
    udp: UdpSocket,
    tcp: TcpListener,
    waker: Arc<Waker>,
    shared: Arc<Mutex<Shared>>,
    streams: HashMap<usize, Stream>,
    next_stream: usize,
    delayed: BinaryHeap<Reverse<(Instant, Way, Vec<u8>)>>,
}

impl Server {
    pub(super) fn new(
        udp: std::net::UdpSocket,
        tcp: std::net::TcpListener,
        shared: Arc<Mutex<Shared>>,
    ) -> io::Result<Self> {
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        let (mut udp, mut tcp) = (UdpSocket::from_std(udp), TcpListener::from_std(tcp));
        let poll = Poll::new()?;
        poll.registry().register(&mut udp, UDP, Interest::READABLE)?;
        poll.registry().register(&mut tcp, TCP, Interest::READABLE)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        Ok(Self {
            poll,
            udp,
            tcp,
            waker,
            shared,
            streams: HashMap::new(),
            next_stream: FIRST_STREAM,
            delayed: BinaryHeap::new(),
        })
    }

    pub(super) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(256);
        while !lock(&self.shared).stop {
            let wait = self.delayed.peek().map(|Reverse((at, ..))| at.saturating_duration_since(Instant::now()));
            match self.poll.poll(&mut events, wait) {
                Ok(()) => {}
                Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            }
            for event in &events {
                match event.token() {
                    UDP => self.read_udp(),
                    TCP => self.accept(),
                    WAKE => {}
                    Token(id) => self.serve_stream(id),
                }
            }
            self.send_due();
        }
    }

    fn read_udp(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok((len, peer)) = self.udp.recv_from(&mut buffer) {
            self.answer(&buffer[..len], Way::Udp(peer));
        }
    }

    fn accept(&mut self) {
        while let Ok((mut socket, _)) = self.tcp.accept() {
            let id = self.next_stream;
            if self.streams.len() >= STREAMS_MAX {
                continue;
            }
            let interest = Interest::READABLE | Interest::WRITABLE;
            if self.poll.registry().register(&mut socket, Token(id), interest).is_ok() {
                self.next_stream += 1;
                self.streams.insert(id, Stream { socket, input: Vec::new(), output: Vec::new() });
                self.serve_stream(id);
            }
        }
    }

    fn serve_stream(&mut self, id: usize) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let mut buffer = [0; 4096];
        let mut open = true;
        loop {
            match stream.socket.read(&mut buffer) {
                Ok(0) => {
                    open = false;
                    break;
                }
                Ok(len) => stream.input.extend_from_slice(&buffer[..len]),
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => break,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    open = false;
                    break;
                }
            }
        }
        let mut questions = Vec::new();
        while let Some(len) = stream.input.first_chunk::<2>().map(|len| usize::from(u16::from_be_bytes(*len)))
            && stream.input.len() >= len + 2
        {
            questions.push(stream.input[2..len + 2].to_vec());
            stream.input.drain(..len + 2);
        }
        for question in questions {
            self.answer(&question, Way::Stream(id));
        }
        if !open {
            self.streams.remove(&id);
            return;
        }
        self.flush(id);
    }

    fn answer(&mut self, question: &[u8], way: Way) {
        let Some((bytes, delay)) = self.reply_to(question, matches!(way, Way::Udp(_))) else { return };
        if delay.is_zero() {
            self.send(way, &bytes);
        } else {
            self.delayed.push(Reverse((Instant::now() + delay, way, bytes)));
        }
    }

    /// Encodes the answer to one question; `None` for what gets no answer at all.
    fn reply_to(&self, question: &[u8], is_udp: bool) -> Option<(Vec<u8>, Duration)> {
        let query = Message::from_vec(question).ok()?;
        if query.metadata.message_type != MessageType::Query {
            return None;
        }
        let mut reply = Message::new(query.metadata.id, MessageType::Response, query.metadata.op_code);
        reply.metadata.recursion_desired = query.metadata.recursion_desired;
        reply.metadata.recursion_available = true;
        reply.metadata.authoritative = true;
        let Some(asked) = query.queries.first().filter(|_| query.metadata.op_code == OpCode::Query) else {
            reply.metadata.response_code = ResponseCode::NotImp;
            return Some((reply.to_vec().ok()?, Duration::ZERO));
        };
        let found = {
            let mut shared = lock(&self.shared);
            shared.queries += 1;
            shared.tcp_queries += u64::from(!is_udp);
            let name = asked.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
            *shared.by_question.entry((name, asked.query_type())).or_default() += 1;
            shared.zone.lookup(asked.name(), asked.query_type())
        };
        if found.fault == Fault::Timeout {
            return None;
        }
        reply.metadata.response_code = found.code;
        reply.add_query(asked.clone());
        if query.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(1232);
            reply.set_edns(edns);
        }
        let mut truncated = reply.clone();
        truncated.metadata.truncation = true;
        reply.add_answers(found.records);
        reply.add_authorities(found.soa);
        let mut bytes = reply.to_vec().ok()?;
        let room = query.edns.as_ref().map_or(UDP_PAYLOAD, |_| query.max_payload());
        if is_udp && (found.truncated || bytes.len() > usize::from(room)) {
            bytes = truncated.to_vec().ok()?;
        }
        Some((bytes, found.delay))
    }

    fn send(&mut self, way: Way, bytes: &[u8]) {
        match way {
            Way::Udp(peer) => {
                let _ = self.udp.send_to(bytes, peer);
            }
            Way::Stream(id) => {
                if let (Some(stream), Ok(len)) = (self.streams.get_mut(&id), u16::try_from(bytes.len())) {
                    stream.output.extend_from_slice(&len.to_be_bytes());
                    stream.output.extend_from_slice(bytes);
                    self.flush(id);
                }
            }
        }
    }

    fn flush(&mut self, id: usize) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        while !stream.output.is_empty() {
            match stream.socket.write(&stream.output) {
                Ok(len) => {
                    stream.output.drain(..len);
                }
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.streams.remove(&id);
                    return;
                }
            }
        }
    }

    fn send_due(&mut self) {
        let now = Instant::now();
        while let Some(Reverse((at, ..))) = self.delayed.peek()
            && *at <= now
            && let Some(Reverse((_, way, bytes))) = self.delayed.pop()
        {
            self.send(way, &bytes);
        }
    }
}
