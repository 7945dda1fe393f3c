//! DKIM verification of what a sink receives (RFC 6376), off the reactor: worker threads behind a queue that is bounded
//! in bytes. A full queue makes the reactor wait, so that nothing goes unverified.
//!
//! The keys come from a table, or from the TXT records of one DNS server; nothing else is ever asked.

use std::borrow::Borrow;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::Instant;

use hickory_proto::op::ResponseCode;
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::resolver::ToFqdn;
use mail_auth::common::verify::{DomainKey, VerifySignature};
use mail_auth::hickory_resolver::config::{ResolverConfig, ResolverOpts};
use mail_auth::{
    AuthenticatedMessage, DkimResult, DnsError, Error as AuthError, MessageAuthenticator, Parameters, ResolverCache,
    Txt,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::dns::stub::{self, StubError};

/// Content bytes that may wait for a worker.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// Failures whose reasons are kept.
const REASONS_MAX: usize = 32;

/// Where public keys come from.
#[derive(Debug, Clone)]
pub enum DkimKeys {
    /// A table: `selector._domainkey.domain` to the TXT record's text.
    Table(HashMap<String, String>),
    /// The DNS server at this address. Keys found are kept; what was not found is asked for again.
    Dns(SocketAddr),
}

/// Why a verifier cannot be set up.
#[derive(Debug, Error)]
#[error("cannot set up DKIM verification: {0}")]
pub struct DkimError(String);

/// What became of one signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// `d=`; empty where the signature cannot be read.
    pub domain: String,
    /// `s=`.
    pub selector: String,
    /// Passed, or why not.
    pub result: Result<(), String>,
}

/// Counters of a verifier.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DkimCounts {
    /// Messages with at least one signature, all of which passed.
    pub messages_passed: u64,
    /// Messages with a signature that did not pass.
    pub messages_failed: u64,
    /// Messages without any signature.
    pub messages_unsigned: u64,
    /// Signatures passed.
    pub signatures_passed: u64,
    /// Signatures not passed.
    pub signatures_failed: u64,
    /// Messages not looked at yet; 0 once the sink has stopped.
    pub waiting: u64,
    /// Reasons of the first failures.
    pub reasons: Vec<String>,
}

/// The caches of record types that DKIM never asks for.
struct Nothing;

impl<K, V> ResolverCache<K, V> for Nothing {
    fn get<Q: Hash + Eq + ?Sized>(&self, _: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        None
    }

    fn remove<Q: Hash + Eq + ?Sized>(&self, _: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        None
    }

    fn insert(&self, _: K, _: V, _: Instant) {}
}

/// Checks signatures on the calling thread; cheap to clone.
#[derive(Clone)]
pub struct Verifier {
    authenticator: MessageAuthenticator,
    keys: Arc<Keys>,
}

struct Keys {
    known: Mutex<HashMap<String, Txt>>,
    dns: Option<SocketAddr>,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("dns", &self.keys.dns).finish_non_exhaustive()
    }
}

impl Verifier {
    /// A verifier with these keys.
    ///
    /// # Errors
    /// [`DkimError`] where a key of the table is no DKIM record, or mail-auth cannot be set up.
    pub fn new(keys: &DkimKeys) -> Result<Self, DkimError> {
        // It has no name server: every question is answered by `KeysAtHand`.
        let config = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
        let authenticator = MessageAuthenticator::new(config, ResolverOpts::default());
        let authenticator = authenticator.map_err(|why| DkimError(why.to_string()))?;
        let (mut known, mut dns) = (HashMap::new(), None);
        match keys {
            DkimKeys::Dns(server) => dns = Some(*server),
            DkimKeys::Table(table) => {
                for (name, text) in table {
                    let key = DomainKey::parse(text.as_bytes()).map_err(|why| DkimError(format!("{name}: {why}")))?;
                    known.insert(name.trim_end_matches('.').to_ascii_lowercase(), Txt::DomainKey(Arc::new(key)));
                }
            }
        }
        Ok(Self { authenticator, keys: Arc::new(Keys { known: Mutex::new(known), dns }) })
    }

    /// Checks all DKIM signatures of a message (RFC 5322 text with CRLF). An unsigned message has no verdicts. Waits
    /// for DNS where keys come from there.
    #[must_use]
    pub fn verify(&self, message: &[u8]) -> Vec<Verdict> {
        let unreadable =
            |why: &str| Verdict { domain: String::new(), selector: String::new(), result: Err(why.to_owned()) };
        let Some(parsed) = AuthenticatedMessage::parse(message) else {
            return vec![unreadable("the message has no header section")];
        };
        let at_hand = parsed.dkim_headers.iter().map(|header| {
            let name = header.header.domain_key().to_fqdn().into_owned().into_boxed_str();
            let key = self.keys.find(&name);
            (name, key)
        });
        let at_hand = KeysAtHand(at_hand.collect());
        let parameters = Parameters::new(&parsed)
            .with_txt_cache(&at_hand)
            .with_mx_cache(&Nothing)
            .with_ptr_cache(&Nothing)
            .with_ipv4_cache(&Nothing)
            .with_ipv6_cache(&Nothing);
        let outputs = pin!(self.authenticator.verify_dkim::<_, Nothing, Nothing, Nothing, Nothing>(parameters));
        let Poll::Ready(outputs) = outputs.poll(&mut Context::from_waker(Waker::noop())) else {
            return vec![unreadable("a key was asked for that is not at hand")];
        };
        let verdict = |output: &mail_auth::DkimOutput<'_>| {
            let signature = output.signature();
            Verdict {
                domain: signature.map(|signature| signature.d.to_string()).unwrap_or_default(),
                selector: signature.map(|signature| signature.s.to_string()).unwrap_or_default(),
                result: match output.result() {
                    DkimResult::Pass => Ok(()),
                    DkimResult::Neutral(why)
                    | DkimResult::Fail(why)
                    | DkimResult::PermError(why)
                    | DkimResult::TempError(why) => Err(why.to_string()),
                    DkimResult::None => Err("no result".into()),
                },
            }
        };
        outputs.iter().map(verdict).collect()
    }
}

impl Keys {
    fn find(&self, name: &str) -> Txt {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if let Some(known) = lock(&self.known).get(&name) {
            return known.clone();
        }
        let Some(server) = self.dns else { return not_found() };
        // The lock is not held while the network is asked; two workers may ask for the same key once each.
        let texts = match stub::txt(server, &name) {
            Ok(texts) => texts,
            Err(StubError::NoRecord { .. }) => return not_found(),
            Err(why) => return Txt::Error(AuthError::Dns(DnsError::Resolver(why.to_string()))),
        };
        match texts.iter().find_map(|text| DomainKey::parse(text).ok()) {
            Some(key) => {
                let key = Txt::DomainKey(Arc::new(key));
                lock(&self.known).insert(name, key.clone());
                key
            }
            None => Txt::Error(AuthError::Dns(DnsError::InvalidRecordType)),
        }
    }
}

fn not_found() -> Txt {
    Txt::Error(AuthError::Dns(DnsError::RecordNotFound(ResponseCode::NXDomain)))
}

/// Stands where mail-auth has its cache: it holds all keys of one message and has an answer to everything, so that
/// mail-auth never asks a resolver.
struct KeysAtHand(HashMap<Box<str>, Txt>);

impl ResolverCache<Box<str>, Txt> for KeysAtHand {
    fn get<Q: Hash + Eq + ?Sized>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
    {
        Some(self.0.get(name).cloned().unwrap_or_else(not_found))
    }

    fn remove<Q: Hash + Eq + ?Sized>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
    {
        None
    }

    fn insert(&self, _: Box<str>, _: Txt, _: Instant) {}
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Taken by a worker, verdict not counted yet.
    in_work: u64,
    closed: bool,
    counts: DkimCounts,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    emptied: Condvar,
}

/// The worker threads of a sink.
#[derive(Debug)]
pub(super) struct Workers {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Workers {
    pub(super) fn start(verifier: &Verifier, threads: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let start = |number| {
            let (shared, verifier) = (Arc::clone(&shared), verifier.clone());
            let name = format!("bench-dkim-{number}");
            std::thread::Builder::new().name(name).spawn(move || shared.work(&verifier))
        };
        let threads = (0..threads.max(1)).map(start).collect::<io::Result<_>>()?;
        Ok(Self { shared, threads: Mutex::new(threads) })
    }

    /// Hands a message over; waits while the queue is full.
    pub(super) fn submit(&self, message: Vec<u8>) {
        let mut queue = lock(&self.shared.queue);
        while queue.bytes > 0 && queue.bytes + message.len() > WAITING_BYTES_MAX {
            queue = self.shared.emptied.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.bytes += message.len();
        queue.messages.push_back(message);
        drop(queue);
        self.shared.filled.notify_one();
    }

    pub(super) fn counts(&self) -> DkimCounts {
        let queue = lock(&self.shared.queue);
        DkimCounts { waiting: queue.messages.len() as u64 + queue.in_work, ..queue.counts.clone() }
    }

    /// Lets the workers finish what is queued, and ends them.
    pub(super) fn finish(&self) {
        lock(&self.shared.queue).closed = true;
        self.shared.filled.notify_all();
        for thread in lock(&self.threads).drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Shared {
    fn work(&self, verifier: &Verifier) {
        let mut queue = lock(&self.queue);
        loop {
            let Some(message) = queue.messages.pop_front() else {
                if queue.closed {
                    return;
                }
                queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            queue.bytes -= message.len();
            queue.in_work += 1;
            drop(queue);
            self.emptied.notify_all();
            let verdicts = verifier.verify(&message);
            queue = lock(&self.queue);
            queue.in_work -= 1;
            queue.counts.add(&verdicts);
        }
    }
}

impl DkimCounts {
    fn add(&mut self, verdicts: &[Verdict]) {
        let failed = verdicts.iter().filter(|verdict| verdict.result.is_err()).count() as u64;
        self.signatures_failed += failed;
        self.signatures_passed += verdicts.len() as u64 - failed;
        match (verdicts.is_empty(), failed) {
            (true, _) => self.messages_unsigned += 1,
            (false, 0) => self.messages_passed += 1,
            (false, _) => self.messages_failed += 1,
        }
        for verdict in verdicts {
            if let Err(why) = &verdict.result
                && self.reasons.len() < REASONS_MAX
            {
                self.reasons.push(format!("d={} s={}: {why}", verdict.domain, verdict.selector));
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
