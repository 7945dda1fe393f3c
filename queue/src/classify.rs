//! What a reply means: delivered, to be tried again, or refused for good, and in which of the classes of events.
//!
//! The rules are data (`data/bounces.toml`): enhanced code first, then basic code, then text. Each rule has the replies
//! that it is for, and a test checks each of them.

use serde::Deserialize;
use std::str::FromStr;
use thiserror::Error;

/// What becomes of a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The host has taken it.
    Delivered,
    /// Try again later.
    Deferred(DelayType),
    /// Refused for good.
    Bounced(BounceType, BounceSubType),
}

macro_rules! names {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, serde::Serialize)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// The name on the wire.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)* }
            }
        }

        impl FromStr for $name {
            type Err = ();

            fn from_str(name: &str) -> Result<Self, ()> {
                match name { $(stringify!($variant) => Ok(Self::$variant),)* _ => Err(()) }
            }
        }
    };
}

names! {
    /// `delayType` of an event.
    DelayType {
        /// Our own fault.
        InternalFailure,
        /// A 4xx in the dialogue.
        General,
        /// The mailbox is full.
        MailboxFull,
        /// Unsolicited mail from the account.
        SpamDetected,
        /// The remote server has a fault.
        RecipientServerError,
        /// The leased IP is blocked or throttled.
        IPFailure,
        /// Connection, TLS or time-out.
        TransientCommunicationFailure,
        /// Nothing fits.
        Undetermined,
        /// Our own decision.
        SendingDeferral,
    }
}

names! {
    /// `bounceType` of an event.
    BounceType {
        /// The address is at fault, now and later.
        Permanent,
        /// May succeed later, or from elsewhere; no reason to suppress the address.
        Transient,
        /// Nothing fits.
        Undetermined,
    }
}

names! {
    /// `bounceSubType` of an event.
    BounceSubType {
        /// No more is known.
        General,
        /// There is no such mailbox.
        NoEmail,
        /// On the host's suppression list.
        Suppressed,
        /// On the account's suppression list.
        OnAccountSuppressionList,
        /// The mailbox is full.
        MailboxFull,
        /// Too large for the receiver.
        MessageTooLarge,
        /// The content is not wanted.
        ContentRejected,
        /// An attachment is not wanted.
        AttachmentRejected,
        /// Nothing fits.
        Undetermined,
    }
}

/// A reply, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// What becomes of the recipient.
    pub verdict: Verdict,
    /// The codes say that the address is bad: a suppression list may take it.
    pub suppress: bool,
    /// It is about the connection or the leased IP: leave the whole site alone for a while.
    pub site_wide: bool,
}

/// The rules cannot be read.
#[derive(Debug, Error)]
#[error("bounce rules: {0}")]
pub struct RulesError(String);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// Basic codes, `x` for any digit.
    #[serde(default)]
    code: Vec<String>,
    /// Enhanced codes, `x` for any number.
    #[serde(default)]
    enhanced: Vec<String>,
    /// One of these must be in the text (lower case).
    #[serde(default)]
    text: Vec<String>,
    #[serde(default)]
    delay: Option<DelayType>,
    #[serde(default)]
    bounce: Option<(BounceType, BounceSubType)>,
    #[serde(default)]
    suppress: bool,
    #[serde(default)]
    site_wide: bool,
    /// Replies that must meet this rule first.
    #[serde(default)]
    #[cfg_attr(not(test), expect(dead_code, reason = "data for the test that checks each rule"))]
    examples: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Rules {
    rule: Vec<Rule>,
}

/// The rules, ready to use. One per shard.
#[derive(Debug)]
pub struct Classifier {
    rules: Vec<Rule>,
}

impl Classifier {
    /// The rules that come with the engine.
    ///
    /// # Errors
    /// [`RulesError`]; a test keeps that from happening.
    pub fn built_in() -> Result<Self, RulesError> {
        Self::from_toml(include_str!("../data/bounces.toml"))
    }

    /// Rules from a file of the same shape.
    ///
    /// # Errors
    /// [`RulesError`] names the line.
    pub fn from_toml(text: &str) -> Result<Self, RulesError> {
        let rules: Rules = toml::from_str(text).map_err(|error| RulesError(error.to_string()))?;
        Ok(Self { rules: rules.rule })
    }

    /// Understands a reply.
    #[must_use]
    pub fn classify(&self, code: u16, enhanced: Option<(u8, u16, u16)>, text: &str) -> Class {
        if (200..300).contains(&code) {
            return Class { verdict: Verdict::Delivered, suppress: false, site_wide: false };
        }
        let text = text.to_ascii_lowercase();
        let permanent = (500..600).contains(&code);
        for rule in &self.rules {
            if rule.fits(code, enhanced, &text) {
                return rule.class(permanent);
            }
        }
        let verdict = if permanent {
            Verdict::Bounced(BounceType::Undetermined, BounceSubType::Undetermined)
        } else {
            Verdict::Deferred(DelayType::General)
        };
        Class { verdict, suppress: false, site_wide: false }
    }
}

impl Rule {
    fn fits(&self, code: u16, enhanced: Option<(u8, u16, u16)>, text: &str) -> bool {
        let by_code = self.code.is_empty() || self.code.iter().any(|pattern| code_fits(pattern, code));
        let by_enhanced = self.enhanced.is_empty()
            || enhanced.is_some_and(|enhanced| self.enhanced.iter().any(|pattern| enhanced_fits(pattern, enhanced)));
        let by_text = self.text.is_empty() || self.text.iter().any(|word| text.contains(word.as_str()));
        by_code && by_enhanced && by_text
    }

    fn class(&self, permanent: bool) -> Class {
        let verdict = if permanent {
            let (kind, sub) = self.bounce.unwrap_or((BounceType::Undetermined, BounceSubType::Undetermined));
            Verdict::Bounced(kind, sub)
        } else {
            Verdict::Deferred(self.delay.unwrap_or(DelayType::General))
        };
        Class { verdict, suppress: self.suppress && permanent, site_wide: self.site_wide }
    }
}

pub(crate) fn code_fits(pattern: &str, code: u16) -> bool {
    let digits = [code / 100 % 10, code / 10 % 10, code % 10];
    pattern.len() == 3
        && pattern.bytes().zip(digits).all(|(p, digit)| p == b'x' || u16::from(p.wrapping_sub(b'0')) == digit)
}

pub(crate) fn enhanced_fits(pattern: &str, enhanced: (u8, u16, u16)) -> bool {
    let (class, subject, detail) = enhanced;
    let mut parts = pattern.split('.');
    [u16::from(class), subject, detail]
        .into_iter()
        .all(|number| parts.next().is_some_and(|part| part == "x" || part.parse() == Ok(number)))
}

/// The enhanced code at the start of a reply's text (RFC 2034).
#[must_use]
pub fn enhanced_of(text: &str) -> Option<(u8, u16, u16)> {
    let word = text.split_ascii_whitespace().next()?;
    let mut parts = word.split('.');
    let (class, subject, detail) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || !matches!(class, "2" | "4" | "5") {
        return None;
    }
    Some((class.parse().ok()?, subject.parse().ok()?, detail.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class_of(rules: &Classifier, reply: &str) -> Class {
        let (code, text) = reply.split_once(' ').unwrap();
        rules.classify(code.parse().unwrap(), enhanced_of(text), text)
    }

    #[test]
    fn each_rule_is_met_by_its_own_examples_first() {
        let rules = Classifier::built_in().unwrap();
        for (number, rule) in rules.rules.iter().enumerate() {
            assert!(!rule.examples.is_empty(), "rule {number} has no example");
            for example in &rule.examples {
                let (code, text) = example.split_once(' ').unwrap();
                let code = code.parse().unwrap();
                let lower = text.to_ascii_lowercase();
                let first = rules.rules.iter().position(|rule| rule.fits(code, enhanced_of(text), &lower));
                assert_eq!(first, Some(number), "{example}");
            }
        }
    }

    #[test]
    fn the_table_of_events_holds() {
        use {BounceSubType as S, BounceType as T};
        let rules = Classifier::built_in().unwrap();
        for (reply, kind, sub, suppress) in [
            ("550 5.1.1 user unknown", T::Permanent, S::NoEmail, true),
            ("550 5.1.10 recipient not found", T::Permanent, S::General, true),
            ("550 no such user here", T::Permanent, S::NoEmail, true),
            ("550 rejected", T::Permanent, S::General, false),
            ("552 5.2.2 over quota", T::Transient, S::MailboxFull, false),
            ("552 5.3.4 message too big", T::Transient, S::MessageTooLarge, false),
            ("554 5.7.1 Service unavailable; client host blocked using a list", T::Transient, S::General, false),
            ("550 5.7.1 message rejected as spam", T::Transient, S::ContentRejected, false),
            ("552 5.7.0 this message was blocked because its attachment", T::Transient, S::AttachmentRejected, false),
            ("554 something else", T::Undetermined, S::Undetermined, false),
        ] {
            let class = class_of(&rules, reply);
            assert_eq!((class.verdict, class.suppress), (Verdict::Bounced(kind, sub), suppress), "{reply}");
        }
        for (reply, delay, site_wide) in [
            ("421 4.7.0 try again later", DelayType::IPFailure, true),
            ("451 4.7.1 greylisted", DelayType::General, false),
            ("452 4.2.2 mailbox full", DelayType::MailboxFull, false),
            ("451 4.3.0 temporary server error", DelayType::RecipientServerError, false),
            ("450 busy", DelayType::General, false),
        ] {
            let class = class_of(&rules, reply);
            assert_eq!((class.verdict, class.site_wide), (Verdict::Deferred(delay), site_wide), "{reply}");
        }
    }

    #[test]
    fn a_2xx_is_delivered_whatever_its_text_says() {
        let rules = Classifier::built_in().unwrap();
        assert_eq!(class_of(&rules, "250 user unknown but fine").verdict, Verdict::Delivered);
    }
}
