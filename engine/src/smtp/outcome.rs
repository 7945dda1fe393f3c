//! What came of a letter.
//!
//! One [`LetterOutcome`] per delivery connection, refilled for each letter. It must never say `NeverSeen` when a byte of
//! MAIL FROM may have left, nor anything but `InDoubt` when the server may have the whole message and has not answered.

use super::reply::{Enhanced, Reply};

/// How far a letter got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Connecting, greeting, EHLO, STARTTLS.
    Hello,
    /// MAIL FROM.
    Mail,
    /// RCPT TO.
    Rcpt,
    /// DATA, before its 354.
    Data,
    /// Content, before its end was written.
    Content,
    /// The final dot or the last chunk is written, its reply is awaited.
    Final,
}

/// What happened to a letter, or to one recipient of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The server has taken it: 2xx.
    Delivered,
    /// The server (or the machine, then the reply is local) said no: 4xx or 5xx.
    Refused,
    /// The connection ended after the whole message was written and before its reply.
    InDoubt,
    /// The connection ended after MAIL FROM was written and before the whole message was: surely not taken.
    Broken,
    /// The connection ended before a byte of MAIL FROM was written.
    NeverSeen,
}

/// What came of one letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterOutcome {
    /// [`super::letter::Letter::id`].
    pub letter: u32,
    /// For all recipients without a refusal of their own.
    pub verdict: Verdict,
    /// MAIL FROM was written, at least in part: a warm-up charge stays spent.
    pub seen: bool,
    /// Where it was decided.
    pub stage: Stage,
    /// The reply that decided it, local where there was none.
    pub reply: Reply,
    /// Per recipient in the order offered: its own refusal, if that is what decided it.
    pub refusals: Vec<Option<Reply>>,
}

impl Default for LetterOutcome {
    fn default() -> Self {
        Self {
            letter: 0,
            verdict: Verdict::NeverSeen,
            seen: false,
            stage: Stage::Hello,
            reply: Reply::default(),
            refusals: Vec::new(),
        }
    }
}

impl LetterOutcome {
    /// What came of recipient `index`, and the reply that decided it.
    #[must_use]
    pub fn recipient(&self, index: usize) -> (Verdict, &Reply) {
        match self.refusals.get(index) {
            Some(Some(refusal)) => (Verdict::Refused, refusal),
            _ => (self.verdict, &self.reply),
        }
    }
}

/// Why a connection is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// We said QUIT.
    #[error("closed after QUIT")]
    Quit,
    /// The server refused the session: greeting, EHLO or HELO.
    #[error("the server refused the session: {0}")]
    Refused(Reply),
    /// The server ends the session: 421.
    #[error("the server closed the session: {0}")]
    Shutdown(Reply),
    /// TLS is required and the server does not offer or do it.
    #[error("the server does not offer STARTTLS, which is required for it")]
    TlsRequired,
    /// Plaintext came behind the 220 to STARTTLS: a broken server, or somebody in between. None of it was believed.
    #[error("plaintext came after the reply to STARTTLS")]
    Injected,
    /// The server does not speak SMTP.
    #[error("the server broke the protocol: {0}")]
    Misbehaved(&'static str),
    /// The connection broke.
    #[error("connection lost: {0}")]
    Lost(String),
    /// No answer in time.
    #[error("the server did not answer in time")]
    TimedOut,
    /// Content was not what the caller had promised; not the server's fault.
    #[error("content cannot be sent: {0}")]
    BadContent(&'static str),
}

impl Why {
    /// The reply that a letter gets which this end has cut short.
    pub(super) fn reply(&self) -> Reply {
        match self {
            Self::Refused(reply) | Self::Shutdown(reply) => reply.clone(),
            Self::Misbehaved(_) => Reply::local(451, Enhanced(4, 5, 0), self.to_string()),
            Self::Injected => Reply::local(451, Enhanced(4, 7, 0), self.to_string()),
            Self::TlsRequired => Reply::local(451, Enhanced(4, 7, 10), self.to_string()),
            Self::BadContent(_) => {
                Reply::local(451, Enhanced(4, 3, 0), "the connection was given up for another letter")
            }
            Self::Quit | Self::Lost(_) | Self::TimedOut => Reply::local(451, Enhanced(4, 4, 2), self.to_string()),
        }
    }
}
