//! Opening a line: leased IP → mail host, greeting, EHLO, STARTTLS, until letters may be offered.

use crate::{
    clock,
    deliver::{
        connect,
        sites::{Candidate, Site},
    },
    shard::Shard,
    smtp::{
        client::{Act, Client, ClientPolicy, Tls},
        outcome::Why,
        patience::Patience,
        reply::Reply,
    },
    tls::stream::Stream,
};
use mailrail_queue::policy::TlsMode;
use rustls::pki_types::ServerName;
use std::{io, net::IpAddr, sync::Arc, time::Duration};

/// A connection on which letters may be offered.
pub(crate) struct Open {
    pub(crate) stream: Stream,
    pub(crate) client: Client,
    pub(crate) host: Candidate,
    /// From the first SYN to the end of EHLO.
    pub(crate) took: Duration,
}

/// Why a site could not be reached from a leased IP.
#[derive(Debug)]
pub(crate) struct Unreachable {
    /// One line: the last host tried and what it said.
    pub(crate) text: String,
    /// What its last server replied, if that was what turned us away.
    pub(crate) reply: Option<Reply>,
}

/// Tries the hosts of a site in order; the first that lets letters be offered is it.
pub(crate) async fn open(
    shard: &Shard,
    lease: IpAddr,
    helo: &Arc<str>,
    site: &Site,
    tls: TlsMode,
    seed: u64,
) -> Result<Open, Unreachable> {
    let candidates = site.candidates(lease, seed, shard.limits.hosts_per_attempt);
    let (mut last, mut reply) = (None, None);
    for host in candidates {
        let begun = clock::mono();
        let mut tls = tls;
        loop {
            shard.stats.borrow_mut().connects += 1;
            match attempt(shard, lease, helo, &host, tls).await {
                Ok((stream, client)) => {
                    return Ok(Open { stream, client, host, took: clock::mono().since(begun) });
                }
                // A broken handshake must not hold up mail that may go in the clear (RFC 7435).
                Err(Failure::Handshake(_) | Failure::Session(Why::Injected)) if tls == TlsMode::Opportunistic => {
                    tls = TlsMode::None
                }
                Err(failure) => {
                    shard.stats.borrow_mut().connect_failures += 1;
                    last = Some(format!("{} [{}]: {}", host.name, host.address, failure.text()));
                    reply = failure.reply();
                    break;
                }
            }
        }
    }
    let text = last.unwrap_or_else(|| format!("no host of {} has an address that {lease} can reach", site.domain));
    Err(Unreachable { text, reply })
}

enum Failure {
    Io(io::Error),
    Handshake(io::Error),
    Session(Why),
}

impl Failure {
    /// What the server said, if it said no.
    fn reply(self) -> Option<Reply> {
        match self {
            Self::Session(Why::Refused(reply) | Why::Shutdown(reply)) => Some(reply),
            _ => None,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::TimedOut => "time-out".into(),
            Self::Io(error) => error.to_string(),
            Self::Handshake(error) => format!("TLS: {error}"),
            Self::Session(why) => why.to_string(),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

async fn attempt(
    shard: &Shard,
    lease: IpAddr,
    helo: &Arc<str>,
    host: &Candidate,
    tls: TlsMode,
) -> Result<(Stream, Client), Failure> {
    let mut stream = Stream::plain(connect::start(lease, host.address)?);
    let mode = match tls {
        TlsMode::None => Tls::Never,
        TlsMode::Opportunistic => Tls::Opportunistic,
        TlsMode::Required => Tls::Required,
    };
    let mut client = Client::new(ClientPolicy::new(Arc::clone(helo), mode));
    let mut out = Vec::new();
    // The first read covers the TCP handshake too, which has a limit of its own.
    stream.set_read_timeout(shard.config.delivery.connect_timeout)?;
    let (mut connected, mut patience) = (false, Patience::default());
    loop {
        let act = client.step();
        if connected && act == Act::Read {
            let left = patience.left(client.replies(), clock::mono(), client.timeout());
            let Some(left) = left else {
                client.timed_out();
                continue;
            };
            stream.set_read_timeout(left)?;
        }
        match act {
            Act::Read => match stream.read(client.space()).await {
                Ok(0) => client.lost("closed by the server"),
                Ok(n) => {
                    connected = true;
                    client.filled(n);
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut && !connected && stream.peer().is_ok() => {
                    // Connected, but slow to greet.
                    connected = true;
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut && connected => client.timed_out(),
                Err(error) => return Err(error.into()),
            },
            Act::Write => {
                out.clear();
                client.take_out(&mut out);
                stream.set_write_timeout(client.timeout())?;
                stream.write_all(&out).await?;
            }
            Act::StartTls => {
                let config = if tls == TlsMode::Required { &shard.trust.required } else { &shard.trust.opportunistic };
                let name = server_name(host).map_err(Failure::Handshake)?;
                stream.connect_tls(Arc::clone(config), name).await.map_err(Failure::Handshake)?;
                client.tls_started();
            }
            Act::Ready => return Ok((stream, client)),
            Act::Closed(why) => return Err(Failure::Session(why)),
            // No letter was offered, so there is none to tell of.
            Act::Content { .. } | Act::Outcome => {}
        }
    }
}

fn server_name(host: &Candidate) -> io::Result<ServerName<'static>> {
    ServerName::try_from(host.name.to_string()).or_else(|_| Ok(ServerName::IpAddress(host.address.ip().into())))
}
