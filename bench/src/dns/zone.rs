//! What the test DNS answers: names, their records, and how a name misbehaves.
//!
//! Plain data and a pure lookup; no sockets, no clock. Must never guess: a name nobody declared is NXDOMAIN.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, PTR, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// Longest CNAME chain that is followed; RFC 1034 section 3.6.2 wants chains short.
const CNAME_CHAIN_MAX: usize = 8;

/// How a name answers instead of giving its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    /// It answers.
    #[default]
    None,
    /// SERVFAIL (RFC 1035 section 4.1.1).
    Servfail,
    /// REFUSED (RFC 1035 section 4.1.1).
    Refused,
    /// No answer at all: the asker runs into its timeout.
    Timeout,
}

#[derive(Debug, Clone, Default)]
struct Entry {
    records: Vec<(RecordType, RData)>,
    fault: Fault,
    delay: Duration,
    truncated: bool,
}

/// The records of all names the test DNS is authoritative for. Names are case-insensitive; a trailing dot is optional;
/// `*.example.com` answers for every name below `example.com` that has no entry of its own (RFC 4592).
///
/// # Panics
/// The builder methods panic on a name that no DNS could hold: such a zone is a mistake in the test itself.
#[derive(Debug, Clone)]
pub struct Zone {
    names: HashMap<String, Entry>,
    ttl: u32,
}

/// What [`Zone::lookup`] found.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: ResponseCode,
    pub(super) records: Vec<Record>,
    /// SOA of the answer's authority section, where there is nothing else to say (RFC 2308).
    pub(super) soa: Option<Record>,
    pub(super) fault: Fault,
    pub(super) delay: Duration,
    pub(super) truncated: bool,
}

impl Default for Zone {
    fn default() -> Self {
        Self { names: HashMap::new(), ttl: 60 }
    }
}

impl Zone {
    /// An empty zone: everything is NXDOMAIN.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the time to live of every answer, negative ones included, in seconds (60 unless told).
    #[must_use]
    pub fn ttl(mut self, seconds: u32) -> Self {
        self.ttl = seconds;
        self
    }

    /// Adds an MX record.
    #[must_use]
    pub fn mx(mut self, name: &str, preference: u16, exchange: &str) -> Self {
        self.add(name, RData::MX(MX::new(preference, parse(exchange))));
        self
    }

    /// Declares that the domain takes no mail (RFC 7505).
    #[must_use]
    pub fn null_mx(mut self, name: &str) -> Self {
        self.add(name, RData::MX(MX::new(0, Name::root())));
        self
    }

    /// Adds an IPv4 address.
    #[must_use]
    pub fn a(mut self, name: &str, address: Ipv4Addr) -> Self {
        self.add(name, RData::A(A(address)));
        self
    }

    /// Adds an IPv6 address.
    #[must_use]
    pub fn aaaa(mut self, name: &str, address: Ipv6Addr) -> Self {
        self.add(name, RData::AAAA(AAAA(address)));
        self
    }

    /// Adds a TXT record, split into strings of at most 255 bytes (RFC 1035 section 3.3.14).
    #[must_use]
    pub fn txt(mut self, name: &str, text: &str) -> Self {
        let mut strings = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let mut at = rest.len().min(255);
            while !rest.is_char_boundary(at) {
                at -= 1;
            }
            let (head, tail) = rest.split_at(at);
            strings.push(head.to_owned());
            rest = tail;
        }
        self.add(name, RData::TXT(TXT::new(strings)));
        self
    }

    /// Makes an address point at a name, under its name in `in-addr.arpa` or `ip6.arpa`.
    #[must_use]
    pub fn ptr(mut self, address: IpAddr, target: &str) -> Self {
        let name = Name::from(address).to_ascii();
        self.add(&name, RData::PTR(PTR(parse(target))));
        self
    }

    /// Makes the name an alias.
    #[must_use]
    pub fn cname(mut self, name: &str, target: &str) -> Self {
        self.add(name, RData::CNAME(CNAME(parse(target))));
        self
    }

    /// Makes every question for the name end in SERVFAIL.
    #[must_use]
    pub fn servfail(mut self, name: &str) -> Self {
        self.entry(name).fault = Fault::Servfail;
        self
    }

    /// Makes every question for the name end in REFUSED.
    #[must_use]
    pub fn refused(mut self, name: &str) -> Self {
        self.entry(name).fault = Fault::Refused;
        self
    }

    /// Makes every question for the name go unanswered.
    #[must_use]
    pub fn timeout(mut self, name: &str) -> Self {
        self.entry(name).fault = Fault::Timeout;
        self
    }

    /// Answers for the name only after `delay`.
    #[must_use]
    pub fn delay(mut self, name: &str, delay: Duration) -> Self {
        self.entry(name).delay = delay;
        self
    }

    /// Answers for the name over UDP are empty and truncated: the asker must come back over TCP (RFC 7766).
    #[must_use]
    pub fn truncated(mut self, name: &str) -> Self {
        self.entry(name).truncated = true;
        self
    }

    /// Forgets everything about the name, faults included.
    pub fn remove(&mut self, name: &str) {
        self.names.remove(&key(name));
    }

    /// Sets or clears the fault of a name, for changes while the server runs.
    pub fn set_fault(&mut self, name: &str, fault: Fault) {
        self.entry(name).fault = fault;
    }

    fn entry(&mut self, name: &str) -> &mut Entry {
        self.names.entry(key(name)).or_default()
    }

    fn add(&mut self, name: &str, data: RData) {
        let _ = parse(name);
        self.entry(name).records.push((data.record_type(), data));
    }

    fn find(&self, name: &str) -> Option<&Entry> {
        if let Some(entry) = self.names.get(name) {
            return Some(entry);
        }
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(entry) = self.names.get(&format!("*.{parent}")) {
                return Some(entry);
            }
            rest = parent;
        }
        None
    }

    /// True where the name has no records but something lives below it: NODATA, not NXDOMAIN (RFC 8020).
    fn is_empty_non_terminal(&self, name: &str) -> bool {
        let suffix = format!(".{name}");
        self.names.keys().any(|other| other.ends_with(&suffix))
    }

    /// Answers one question, following aliases inside the zone.
    pub(super) fn lookup(&self, question: &Name, kind: RecordType) -> Answer {
        let mut answer = Answer {
            code: ResponseCode::NoError,
            records: Vec::new(),
            soa: None,
            fault: Fault::None,
            delay: Duration::ZERO,
            truncated: false,
        };
        let mut owner = question.clone();
        for _ in 0..CNAME_CHAIN_MAX {
            let name = key(&owner.to_ascii());
            let Some(entry) = self.find(&name) else {
                if !self.is_empty_non_terminal(&name) {
                    answer.code = ResponseCode::NXDomain;
                }
                break;
            };
            answer.delay += entry.delay;
            answer.truncated |= entry.truncated;
            answer.fault = entry.fault;
            if entry.fault != Fault::None {
                break;
            }
            let found = entry.records.iter().filter(|(have, _)| *have == kind || kind == RecordType::ANY);
            answer.records.extend(found.map(|(_, data)| Record::from_rdata(owner.clone(), self.ttl, data.clone())));
            let alias = entry.records.iter().find_map(|(_, data)| match data {
                RData::CNAME(target) if kind != RecordType::CNAME && kind != RecordType::ANY => Some(target.0.clone()),
                _ => None,
            });
            let Some(target) = alias else { break };
            answer.records.push(Record::from_rdata(owner, self.ttl, RData::CNAME(CNAME(target.clone()))));
            owner = target;
        }
        match answer.fault {
            Fault::None => {}
            Fault::Servfail | Fault::Timeout => answer.code = ResponseCode::ServFail,
            Fault::Refused => answer.code = ResponseCode::Refused,
        }
        if answer.fault == Fault::None && !answer.records.iter().any(|record| record.record_type() == kind) {
            answer.soa = Some(self.soa());
        }
        answer
    }

    fn soa(&self) -> Record {
        let root = Name::root();
        let soa = SOA::new(root.clone(), root.clone(), 1, 3600, 600, 86_400, self.ttl);
        Record::from_rdata(root, self.ttl, RData::SOA(soa))
    }
}

fn key(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

fn parse(name: &str) -> Name {
    let mut parsed = Name::from_str_relaxed(name).unwrap_or_else(|why| panic!("{name:?} is no DNS name: {why}"));
    parsed.set_fqdn(true);
    parsed
}
