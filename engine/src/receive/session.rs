//! One client session: moves bytes between its socket and the SMTP machine, and gives each message to the flow. *One per
//! client connection.*
//!
//! Decides nothing: what is a command, what a refusal, is the machine's; what is accepted is the flow's.

use crate::{
    clock,
    flow::{self, Inbound},
    memory::{self, Weight},
    receive::listener::Listener,
    shard::Shard,
    smtp::{
        patience::Patience,
        reply::Reply,
        server::{FinalReply, Server, Step},
    },
    tls::stream::Stream,
};
use futures_lite::{AsyncWriteExt, FutureExt};
use glommio::net::TcpStream;
use std::{io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

/// A client that takes longer than this to take a reply is not reading (RFC 5321 section 4.5.3.2 sets no server time).
const WRITE_TIMEOUT: Duration = Duration::from_secs(120);
/// How much longer each wrong password waits for its answer.
const GUESSED: Duration = Duration::from_secs(1);

/// Serves one client to its end. Errors of its socket end it and concern nobody else.
pub(crate) async fn run(shard: &Rc<Shard>, listener: &Listener, mut stream: Stream, peer: SocketAddr) {
    let certificate = shard.certificates.borrow().get(listener.index).cloned().flatten();
    if listener.implicit_tls() {
        let Some(config) = certificate else { return };
        let _ = stream.set_read_timeout(Duration::from_secs(60));
        if let Err(error) = stream.accept_tls(config).await {
            tracing::debug!(%peer, %error, "TLS handshake failed");
            return;
        }
    }
    let mut session = Session {
        shard,
        listener,
        server: Server::new(listener.policy(peer.ip().to_canonical()), stream.tls_info().is_some()),
        inbound: Inbound::new(peer.ip().to_canonical(), stream.tls_info(), Arc::clone(listener.account())),
        stream,
        weight: Weight::new(shard),
    };
    if let Err(error) = session.talk(peer).await {
        tracing::debug!(%peer, %error, "session ended");
    }
    shard.returning.back(&mut session.inbound.away);
    session.inbound.give_up(shard).await;
    session.stream.close().await;
}

/// Tells a client that is one too many so, without waiting for it.
pub(crate) async fn refuse(mut tcp: TcpStream, line: &'static str) {
    let _ = tcp.set_write_timeout(Some(Duration::from_secs(5)));
    let _ = tcp.write_all(line.as_bytes()).await;
    let _ = tcp.close().await;
}

struct Session<'a> {
    shard: &'a Rc<Shard>,
    listener: &'a Listener,
    server: Server,
    inbound: Inbound,
    stream: Stream,
    weight: Weight<'a>,
}

impl Session<'_> {
    async fn talk(&mut self, peer: SocketAddr) -> io::Result<()> {
        self.stream.set_write_timeout(WRITE_TIMEOUT)?;
        if self.listener.takes(peer.ip().to_canonical()) {
            self.server.greet();
        } else {
            return self
                .stream
                .write_all(b"554 5.7.1 Relaying denied: this host takes mail from its own network only\r\n")
                .await;
        }
        let mut patience = Patience::default();
        loop {
            match self.server.step() {
                Step::Read => {
                    self.flush().await?;
                    self.weigh();
                    match patience.left(self.server.had(), clock::mono(), self.server.timeout()) {
                        None => self.server.timed_out(),
                        Some(left) => {
                            self.stream.set_read_timeout(left)?;
                            if !self.read().await? {
                                return Ok(());
                            }
                        }
                    }
                }
                Step::Flush => self.flush().await?,
                Step::ContentFull => {
                    flow::keep_piece(self.shard, &mut self.inbound, &self.server).await;
                    self.server.content_taken();
                }
                Step::Discard => self.inbound.give_up(self.shard).await,
                Step::Message => self.message().await,
                Step::Authenticate => self.authenticate().await?,
                Step::StartTls => self.start_tls().await?,
                Step::Close(_) => return self.flush().await,
            }
        }
    }

    /// Says what it holds before it waits for more.
    fn weigh(&mut self) {
        if self.server.is_short() {
            self.server.trim();
        }
        self.weight.set(self.server.held(), self.server.tls(), self.server.in_transaction());
    }

    async fn message(&mut self) {
        match flow::receive(self.shard, &mut self.inbound, &self.server).await {
            Ok(accepted) => self.server.finish(FinalReply::Accepted { id: accepted.text() }),
            Err(refusal) => self.refuse(&refusal),
        }
        self.inbound.reset();
    }

    fn refuse(&mut self, refusal: &Reply) {
        self.shard.stats.borrow_mut().refused += 1;
        self.server.finish(FinalReply::Refused(refusal));
    }

    /// False when the client is gone.
    async fn read(&mut self) -> io::Result<bool> {
        if self.shard.stopping.get() && !self.server.in_content() {
            self.server.shutting_down();
            return Ok(true);
        }
        let stop = async {
            self.shard.ending.wait().await;
            None
        };
        let read = stop.or(async { Some(self.stream.read(self.server.space()).await) }).await;
        match read.unwrap_or(Err(io::ErrorKind::Interrupted.into())) {
            Ok(0) => Ok(false),
            Ok(n) => {
                self.server.filled(n);
                // What came may begin another transaction.
                self.server.set_short(!memory::takes_transaction(self.shard));
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                self.server.timed_out();
                Ok(true)
            }
            // The shard is to stop: a message that is coming in may end, anything else is told so.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error),
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        let out = self.server.out();
        if !out.is_empty() {
            self.stream.write_all(out).await?;
            out.clear();
        }
        Ok(())
    }

    /// Checks credentials. Who gives wrong ones waits for the answer, the longer the more often.
    async fn authenticate(&mut self) -> io::Result<()> {
        let given = self.server.credentials();
        let account = given.and_then(|(user, password)| self.shard.policy().credentials.check(&user, &password));
        match account {
            Some(account) => {
                self.inbound.account = account;
                self.server.authenticated(true);
            }
            None => {
                self.shard.stats.borrow_mut().auth_failures += 1;
                self.flush().await?;
                let stop = self.shard.ending.wait();
                stop.or(async { glommio::timer::sleep(GUESSED * (self.server.auth_failures() + 1)).await }).await;
                self.server.authenticated(false);
            }
        }
        Ok(())
    }

    async fn start_tls(&mut self) -> io::Result<()> {
        self.flush().await?;
        let config = self.shard.certificates.borrow().get(self.listener.index).cloned().flatten();
        let Some(config) = config else { return Err(io::Error::other("the listener has lost its certificate")) };
        self.stream.accept_tls(config).await?;
        self.inbound.tls = self.stream.tls_info();
        self.inbound.account = Arc::clone(self.listener.account());
        self.server.tls_started();
        Ok(())
    }
}
