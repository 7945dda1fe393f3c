//! Receiver models: how a sink behaves towards the mail it is given, as plain data that a TOML file can hold.
//!
//! A model is a set of habits that combine; an empty model accepts everything at once. What is asked before a
//! recipient is known (greeting, EHLO, MAIL, number of connections) follows the model of the listener; what is asked
//! of a recipient follows the model of its domain. No I/O, no clock, no randomness here.

use std::collections::HashMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a set of models cannot be used.
#[derive(Debug, Error)]
pub enum ModelError {
    /// The file is no TOML, or has a key nobody knows; the text names line and key.
    #[error("receiver models: {0}")]
    Syntax(#[from] toml::de::Error),
    /// A domain, a listener or the default names a model that is not declared.
    #[error("{place} names the receiver model {model:?}, which is not declared; declare it in a [[model]] table")]
    Unknown {
        /// Where the name stands.
        place: String,
        /// The name.
        model: String,
    },
    /// Two models with one name.
    #[error("the receiver model {0:?} is declared twice; rename one")]
    Twice(String),
    /// A reply that SMTP would not understand.
    #[error("receiver model {model:?}: the reply {reply:?} must start with a code from 400 to 599")]
    Reply {
        /// The model it stands in.
        model: String,
        /// The text.
        reply: String,
    },
    /// A ratio outside 0 to 1.
    #[error("receiver model {model:?}: the ratio {ratio} must be between 0 and 1")]
    Ratio {
        /// The model it stands in.
        model: String,
        /// The value.
        ratio: f64,
    },
}

/// A point of the SMTP dialogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The greeting.
    Connect,
    /// EHLO or HELO.
    Ehlo,
    /// MAIL FROM.
    Mail,
    /// RCPT TO.
    Rcpt,
    /// DATA, or the first BDAT.
    Data,
    /// The final dot, or the last BDAT chunk.
    Dot,
}

/// Time a receiver takes, in milliseconds each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Latency {
    /// Before the greeting.
    pub greeting_ms: u64,
    /// Before every other reply.
    pub reply_ms: u64,
    /// Before the reply to the final dot, on top of `reply_ms`.
    pub dot_ms: u64,
}

/// Every reply takes longer than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tarpit {
    /// Added to the delay with each command, in milliseconds.
    pub step_ms: u64,
    /// Longest delay, in milliseconds.
    pub max_ms: u64,
}

/// The first try of (client IP, sender, recipient) is put off with 451 4.7.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Greylist {
    /// A try is welcome once this much time has passed since the first one, in milliseconds.
    pub retry_after_ms: u64,
}

/// A share of what is asked at a stage is refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// Where.
    pub at: Stage,
    /// How often, 0 to 1.
    pub ratio: f64,
    /// The reply. `{ip}` becomes the client's address, a line feed starts another line of a multi-line reply.
    pub reply: String,
}

/// Recipients a source IP may have accepted in a window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Recipients in a window.
    pub recipients: u32,
    /// Length of the window, in milliseconds.
    pub window_ms: u64,
    /// What is said beyond (`{ip}` as in [`Failure::reply`]).
    #[serde(default = "RateLimit::default_reply")]
    pub reply: String,
}

impl RateLimit {
    fn default_reply() -> String {
        "451 4.7.28 Rate limit for {ip} exceeded, slow down".into()
    }
}

/// A source IP may grow only from what it was seen to send: its best day so far, times `growth`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reputation {
    /// Length of a "day", in milliseconds (tests compress it).
    pub day_ms: u64,
    /// Recipients an unknown IP may send on its first day.
    pub first_day: u32,
    /// Allowed growth over the best earlier day, for example 2.0.
    pub growth: f64,
    /// What is said beyond (`{ip}` as in [`Failure::reply`]).
    #[serde(default = "Reputation::default_reply")]
    pub reply: String,
}

impl Reputation {
    fn default_reply() -> String {
        "451 4.7.650 The mail server [{ip}] has been temporarily rate limited due to IP reputation".into()
    }
}

/// How STARTTLS goes (RFC 3207).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Starttls {
    /// Not offered.
    None,
    /// Offered where the sink has a certificate.
    #[default]
    Offered,
    /// Offered; MAIL without it gets 530 5.7.0.
    Required,
    /// Offered; after the 220 comes no TLS but rubbish, then the connection closes.
    BrokenHandshake,
    /// Offered; plaintext replies ride behind the 220, as an attacker would inject them.
    InjectedPlaintext,
    /// Offered, and refused with 454 4.7.0 when asked for.
    Refused,
}

/// What a misbehaving receiver does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// Takes the connection and never says a word.
    Silent,
    /// Closes instead of replying; after the final dot the message is not taken, which the sender cannot know.
    Drop,
    /// Takes the message, then closes instead of replying to the final dot: a retry makes a second copy.
    TakeAndDrop,
    /// Closes when the first bytes of the content have come.
    DropMidData,
    /// Replies with what is no SMTP.
    MalformedReply,
    /// Replies with a multi-line reply that never ends.
    EndlessReply,
    /// Replies with 421 and closes.
    Shutdown,
}

/// When and how a receiver misbehaves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What happens.
    pub kind: FaultKind,
    /// Where; [`FaultKind::Silent`] knows only the greeting, [`FaultKind::DropMidData`] only the content.
    pub at: Stage,
    /// How often, 0 to 1.
    #[serde(default = "one")]
    pub ratio: f64,
    /// Only the first so many times; always, where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
}

fn one() -> f64 {
    1.0
}

/// The extensions a receiver offers in its EHLO reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Extensions {
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// CHUNKING (RFC 3030).
    pub chunking: bool,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// ENHANCEDSTATUSCODES (RFC 2034).
    pub enhanced_status_codes: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// SIZE (RFC 1870) in bytes; 0 offers none.
    pub size: u64,
    /// AUTH PLAIN (RFC 4954); any credentials are welcome.
    pub auth: bool,
    /// False: EHLO is not understood at all, only HELO.
    pub ehlo: bool,
}

impl Default for Extensions {
    fn default() -> Self {
        Self {
            pipelining: true,
            chunking: true,
            eight_bit_mime: true,
            enhanced_status_codes: true,
            smtputf8: true,
            dsn: false,
            size: 50 << 20,
            auth: false,
            ehlo: true,
        }
    }
}

/// One receiver model. `Model::named("accept")` takes everything at once; set fields to make it harder.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Model {
    /// Its name, unique among the models of a sink.
    pub name: String,
    /// Time its replies take.
    pub latency: Latency,
    /// Replies that get slower and slower.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tarpit: Option<Tarpit>,
    /// Greylisting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub greylist: Option<Greylist>,
    /// Messages taken on a connection; the next MAIL gets 421 4.7.0 and the connection closes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close_after: Option<u32>,
    /// Concurrent connections of a source IP; the next one gets 421 4.7.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_per_ip: Option<u32>,
    /// Recipients of a transaction; further ones get 452 4.5.3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipients_per_transaction: Option<u32>,
    /// Speed at which it reads, in bytes a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Local parts that get 550 5.1.1; `*` stands for anything.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown_users: Vec<String>,
    /// Refusals by chance.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failure>,
    /// Rate limit of a source IP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Volume allowed by history.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reputation: Option<Reputation>,
    /// STARTTLS.
    pub starttls: Starttls,
    /// Misbehaviour.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
    /// Extensions offered.
    pub extensions: Extensions,
}

impl Model {
    /// A model that accepts everything at once.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    fn check(&self) -> Result<(), ModelError> {
        let ratios =
            self.failures.iter().map(|failure| failure.ratio).chain(self.faults.iter().map(|fault| fault.ratio));
        for ratio in ratios {
            if !(0.0..=1.0).contains(&ratio) {
                return Err(ModelError::Ratio { model: self.name.clone(), ratio });
            }
        }
        let replies = self.failures.iter().map(|failure| &failure.reply);
        let replies = replies.chain(self.rate_limit.as_ref().map(|limit| &limit.reply));
        for reply in replies.chain(self.reputation.as_ref().map(|reputation| &reputation.reply)) {
            let code = reply.get(..3).and_then(|code| code.parse::<u16>().ok());
            if !code.is_some_and(|code| (400..600).contains(&code)) {
                return Err(ModelError::Reply { model: self.name.clone(), reply: reply.clone() });
            }
        }
        Ok(())
    }
}

/// The model of a recipient domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainModel {
    /// A domain, or `*.domain` for all below it.
    pub domain: String,
    /// Name of the model.
    pub model: String,
}

/// The address of a listener and, where it is one receiver's host, that receiver's model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// Name of the model; the default model where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// A set of models and who has which: the content of a models file.
///
/// ```toml
/// default = "accept"
///
/// [[model]]
/// name = "grey"
/// greylist = { retry_after_ms = 500 }
///
/// [[domain]]
/// domain = "grey.test"
/// model = "grey"
/// ```
///
/// `accept`, `gmail`, `outlook` and `yahoo` are known without being declared.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Models {
    /// Name of the model of every domain and listener without one; `accept` where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// The models.
    #[serde(rename = "model", skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<Model>,
    /// Models by recipient domain.
    #[serde(rename = "domain", skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<DomainModel>,
    /// Listeners, for a sink that is started from a file.
    #[serde(rename = "listener", skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<Listener>,
}

impl Models {
    /// Reads a models file and checks it.
    ///
    /// # Errors
    /// [`ModelError`], as its variants say.
    pub fn from_toml(text: &str) -> Result<Self, ModelError> {
        let models: Self = toml::from_str(text)?;
        models.clone().table()?;
        Ok(models)
    }

    /// Adds a model for a recipient domain.
    #[must_use]
    pub fn domain(mut self, domain: &str, model: Model) -> Self {
        self.domains.push(DomainModel { domain: domain.into(), model: model.name.clone() });
        if !self.models.contains(&model) {
            self.models.push(model);
        }
        self
    }

    /// Makes a model the one of every domain and listener without their own.
    #[must_use]
    pub fn otherwise(mut self, model: Model) -> Self {
        self.default = Some(model.name.clone());
        if !self.models.contains(&model) {
            self.models.push(model);
        }
        self
    }

    pub(crate) fn table(self) -> Result<Table, ModelError> {
        let mut models = self.models;
        let mut index = HashMap::new();
        for known in ["accept", "gmail", "outlook", "yahoo"] {
            if !models.iter().any(|model| model.name == known) {
                models.push(Model::provider(known).unwrap_or_else(|| Model::named(known)));
            }
        }
        for (at, model) in models.iter().enumerate() {
            model.check()?;
            if index.insert(model.name.clone(), at).is_some() {
                return Err(ModelError::Twice(model.name.clone()));
            }
        }
        let named = |place: &str, model: &str| {
            index.get(model).copied().ok_or_else(|| ModelError::Unknown { place: place.into(), model: model.into() })
        };
        let default = named("default", self.default.as_deref().unwrap_or("accept"))?;
        let mut domains = HashMap::new();
        for entry in &self.domains {
            let model = named(&format!("domain {:?}", entry.domain), &entry.model)?;
            domains.insert(entry.domain.to_ascii_lowercase().into_bytes().into_boxed_slice(), model);
        }
        for listener in &self.listeners {
            if let Some(model) = &listener.model {
                named(&format!("listener {}", listener.address), model)?;
            }
        }
        Ok(Table { models, index, domains, default })
    }
}

/// Models with their names resolved; one per sink, shared by its threads, never changed.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) models: Vec<Model>,
    index: HashMap<String, usize>,
    domains: HashMap<Box<[u8]>, usize>,
    pub(crate) default: usize,
}

impl Table {
    pub(crate) fn by_name(&self, place: &str, name: &str) -> Result<usize, ModelError> {
        let unknown = || ModelError::Unknown { place: place.into(), model: name.into() };
        self.index.get(name).copied().ok_or_else(unknown)
    }

    /// The model of a domain given in lower case.
    pub(crate) fn by_domain(&self, domain: &[u8]) -> Option<usize> {
        if self.domains.is_empty() {
            return None;
        }
        if let Some(model) = self.domains.get(domain) {
            return Some(*model);
        }
        let mut rest = domain;
        while let Some(dot) = memchr::memchr(b'.', rest) {
            let wildcard = [b"*", &rest[dot..]].concat();
            if let Some(model) = self.domains.get(wildcard.as_slice()) {
                return Some(*model);
            }
            rest = &rest[dot + 1..];
        }
        None
    }
}

/// Whether `text` matches `pattern`, in which `*` stands for any run of bytes; ASCII case does not matter.
pub(crate) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            retry = Some((p, t));
            p += 1;
        } else if p < pattern.len() && pattern[p].eq_ignore_ascii_case(&text[t]) {
            p += 1;
            t += 1;
        } else if let Some((star, from)) = retry {
            retry = Some((star, from + 1));
            p = star + 1;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("unknown*", "Unknown-7", true),
            ("*", "", true),
            ("a*b*c", "aXbYbc", true),
            ("a*b", "ac", false),
            ("exact", "exact", true),
            ("exact", "exactly", false),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn file_round_trip_and_lookup() {
        let text = r#"
            default = "accept"
            [[model]]
            name = "grey"
            greylist = { retry_after_ms = 500 }
            latency = { reply_ms = 3 }
            failures = [{ at = "rcpt", ratio = 0.5, reply = "450 4.2.1 busy" }]
            faults = [{ kind = "drop", at = "dot", times = 1 }]
            extensions = { chunking = false }
            [[domain]]
            domain = "grey.test"
            model = "grey"
            [[domain]]
            domain = "*.mail.test"
            model = "gmail"
        "#;
        let models = Models::from_toml(text).unwrap();
        assert_eq!(Models::from_toml(&toml::to_string(&models).unwrap()).unwrap(), models);
        let table = models.table().unwrap();
        assert_eq!(table.models[table.by_domain(b"grey.test").unwrap()].name, "grey");
        assert_eq!(table.models[table.by_domain(b"a.b.mail.test").unwrap()].name, "gmail");
        assert_eq!(table.by_domain(b"mail.test"), None);
        assert!(!table.models[0].extensions.chunking && table.models[0].extensions.pipelining);
    }

    #[test]
    fn the_file_of_examples_says_everything_that_can_be_said() {
        let text = include_str!("../receivers.toml");
        let models = Models::from_toml(text).unwrap();
        assert!(models.models.iter().all(|model| models.domains.iter().any(|domain| domain.model == model.name)
            || models.listeners.iter().any(|listener| listener.model.as_ref() == Some(&model.name))));
        let full = Model {
            tarpit: Some(Tarpit { step_ms: 0, max_ms: 0 }),
            greylist: Some(Greylist { retry_after_ms: 0 }),
            close_after: Some(0),
            connections_per_ip: Some(0),
            recipients_per_transaction: Some(0),
            bytes_per_second: Some(0),
            unknown_users: vec![String::new()],
            failures: vec![Failure { at: Stage::Dot, ratio: 0.0, reply: String::new() }],
            rate_limit: Some(RateLimit { recipients: 0, window_ms: 0, reply: String::new() }),
            reputation: Some(Reputation { day_ms: 0, first_day: 0, growth: 0.0, reply: String::new() }),
            faults: vec![Fault { kind: FaultKind::Drop, at: Stage::Dot, ratio: 0.0, times: Some(0) }],
            ..Model::named("full")
        };
        let all = toml::Table::try_from(&full).unwrap();
        for key in all.keys() {
            assert!(
                text.contains(&format!("{key} ")) || text.contains(&format!("{key}  ")),
                "{key} is not in the examples"
            );
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("default = \"nobody\"", "\"nobody\""),
            ("colour = 1", "colour"),
            ("[[model]]\nname = \"a\"\n[[model]]\nname = \"a\"", "twice"),
            ("[[model]]\nname = \"a\"\nfailures = [{ at = \"mail\", ratio = 2.0, reply = \"450 x\" }]", "ratio 2"),
            ("[[model]]\nname = \"a\"\nfailures = [{ at = \"mail\", ratio = 1.0, reply = \"hello\" }]", "hello"),
        ] {
            let why = Models::from_toml(text).unwrap_err().to_string();
            assert!(why.contains(part), "{why}");
        }
    }
}
