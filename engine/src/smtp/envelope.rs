//! What a transaction says about a message besides its content.
//!
//! One [`Envelope`] per client connection, refilled for each transaction; its strings are kept for the next one. It must
//! never hold a string with CR, LF, NUL or any other control character.

use serde::{Deserialize, Serialize};

/// NOTIFY of RFC 3461 section 4.1, as bits. No bit: not given, which means failures (and delays, if the host sends those).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Notify(u8);

impl Notify {
    /// The parameter was not given.
    pub const DEFAULT: Self = Self(0);
    /// `SUCCESS`.
    pub const SUCCESS: Self = Self(1);
    /// `FAILURE`.
    pub const FAILURE: Self = Self(2);
    /// `DELAY`.
    pub const DELAY: Self = Self(4);
    /// `NEVER`: no notification at all; never with another bit.
    pub const NEVER: Self = Self(8);

    /// The bits, for storage.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// From stored bits; none if they are not a value of NOTIFY.
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<Self> {
        (bits <= 8).then_some(Self(bits))
    }

    /// Whether all bits of `other` are set.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Parses the value of `NOTIFY=`; none if it is not one.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        if value.eq_ignore_ascii_case("NEVER") {
            return Some(Self::NEVER);
        }
        value.split(',').try_fold(Self::DEFAULT, |sum, word| {
            let bit = [("SUCCESS", Self::SUCCESS), ("FAILURE", Self::FAILURE), ("DELAY", Self::DELAY)]
                .iter()
                .find(|(name, _)| word.eq_ignore_ascii_case(name))?
                .1;
            Some(sum.with(bit))
        })
    }

    /// Appends the value of `NOTIFY=`; nothing for [`Self::DEFAULT`].
    pub fn write(self, out: &mut Vec<u8>) {
        let names: [(Self, &[u8]); 4] = [
            (Self::NEVER, b"NEVER"),
            (Self::SUCCESS, b"SUCCESS"),
            (Self::FAILURE, b"FAILURE"),
            (Self::DELAY, b"DELAY"),
        ];
        let mut first = true;
        for (_, name) in names.iter().filter(|(bit, _)| self.contains(*bit)) {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            out.extend_from_slice(name);
        }
    }
}

/// RET of RFC 3461 section 4.3: how much of the message a DSN gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Ret {
    /// The whole message.
    Full,
    /// Its header section.
    Headers,
}

/// BODY of RFC 6152.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Body {
    /// `7BIT`, or not given.
    #[default]
    SevenBit,
    /// `8BITMIME`.
    EightBit,
}

/// One RCPT TO.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// `local@domain`, domain in A-labels or an address literal, case as given.
    pub address: String,
    /// When to notify the sender.
    pub notify: Notify,
    /// ORCPT as given: `type;xtext` (RFC 3461 section 4.2), still encoded.
    pub orcpt: Option<String>,
}

/// MAIL FROM and its recipients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// `local@domain`, or "" for the null reverse-path.
    pub sender: String,
    /// In the order given; none twice removed.
    pub recipients: Vec<Recipient>,
    /// RET, if given.
    pub ret: Option<Ret>,
    /// ENVID as given, still xtext (RFC 3461 section 4.4).
    pub env_id: Option<String>,
    /// BODY.
    pub body: Body,
    /// SMTPUTF8 was given (RFC 6531).
    pub smtputf8: bool,
    /// SIZE, if given, in octets (RFC 1870).
    pub declared_size: Option<u64>,
    spare: Vec<Recipient>,
}

impl Envelope {
    /// Forgets the transaction and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.sender.clear();
        self.spare.append(&mut self.recipients);
        self.ret = None;
        self.env_id = None;
        self.body = Body::SevenBit;
        self.smtputf8 = false;
        self.declared_size = None;
    }

    /// Adds a recipient, in memory of an earlier one where there is some.
    pub(crate) fn push(&mut self, parts: [&str; 3], notify: Notify, orcpt: Option<&str>) {
        let mut recipient = self.spare.pop().unwrap_or_default();
        recipient.address.clear();
        parts.iter().for_each(|part| recipient.address.push_str(part));
        recipient.notify = notify;
        recipient.orcpt = orcpt.map(str::to_owned);
        self.recipients.push(recipient);
    }
}
