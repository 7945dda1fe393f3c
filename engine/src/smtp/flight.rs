//! A letter between MAIL FROM and its outcome: which replies have come and what they decide.
//!
//! One per letter in flight, on one delivery connection. Replies come in the order of the commands, so the first letter in
//! flight is always the one spoken of. Must keep the rules of [`super::outcome`].

use super::{
    outcome::{LetterOutcome, Stage, Verdict, Why},
    reply::Reply,
};

/// Where the content of a letter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Not to be written yet, or never.
    Closed,
    /// To be written by the caller.
    Open,
    /// Written, end and all.
    Done,
}

/// What has to follow a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing.
    Next,
    /// The lone dot that ends a message for nobody (RFC 2920 section 3.1).
    LoneDot,
    /// The outcome is complete and no reply to this letter is to come.
    Finished,
    /// The reply cannot be.
    Misbehaved(&'static str),
}

#[derive(Debug)]
pub(super) struct Flight {
    pub(super) outcome: LetterOutcome,
    /// Place of the first octet of MAIL FROM in what is sent on this connection.
    pub(super) mail_at: Option<u64>,
    /// Place after the last octet of the content's end.
    pub(super) end_at: Option<u64>,
    /// Octets of content.
    pub(super) size: u64,
    /// Octets of content that the caller has not appended yet.
    pub(super) left: u64,
    /// By BDAT.
    pub(super) chunk: bool,
    pub(super) content: Content,
    pub(super) decided: bool,
    pub(super) mail_accepted: bool,
    answered: usize,
    accepted: usize,
    final_seen: bool,
}

impl Flight {
    pub(super) fn new(outcome: LetterOutcome, size: u64) -> Self {
        Self {
            outcome,
            mail_at: None,
            end_at: None,
            size,
            left: size,
            chunk: false,
            content: Content::Closed,
            decided: false,
            mail_accepted: false,
            answered: 0,
            accepted: 0,
            final_seen: false,
        }
    }

    /// Settles the letter, if nothing has before. The reply is moved out.
    pub(super) fn decide(&mut self, verdict: Verdict, stage: Stage, reply: &mut Reply) {
        if !std::mem::replace(&mut self.decided, true) {
            self.outcome.verdict = verdict;
            self.outcome.stage = stage;
            std::mem::swap(&mut self.outcome.reply, reply);
        }
    }

    pub(super) fn mail(&mut self, reply: &mut Reply) -> Turn {
        if reply.is_intermediate() {
            return Turn::Misbehaved("3xx to MAIL FROM");
        }
        self.mail_accepted = reply.is_positive();
        if !self.mail_accepted {
            self.decide(Verdict::Refused, Stage::Mail, reply);
        }
        Turn::Next
    }

    pub(super) fn rcpt(&mut self, reply: &mut Reply) -> Turn {
        if reply.is_intermediate() {
            return Turn::Misbehaved("3xx to RCPT TO");
        }
        let index = self.answered;
        self.answered += 1;
        if self.decided {
            return Turn::Next;
        }
        if reply.is_positive() {
            self.accepted += 1;
        } else {
            self.outcome.refusals[index] = Some(reply.clone());
        }
        if self.nobody() {
            self.decide(Verdict::Refused, Stage::Rcpt, reply);
        }
        Turn::Next
    }

    pub(super) fn data(&mut self, reply: &mut Reply) -> Turn {
        match reply.code / 100 {
            3 if self.decided => Turn::LoneDot,
            3 => {
                self.content = Content::Open;
                Turn::Next
            }
            2 => Turn::Misbehaved("2xx to DATA"),
            _ => {
                self.decide(Verdict::Refused, Stage::Data, reply);
                Turn::Finished
            }
        }
    }

    /// The reply to the final dot or the last chunk. A server may refuse a chunk before it has read it all.
    pub(super) fn last(&mut self, reply: &mut Reply) -> Turn {
        let done = self.content == Content::Done;
        match reply.code / 100 {
            3 => return Turn::Misbehaved("3xx to a complete message"),
            2 if !done => return Turn::Misbehaved("message accepted before its end"),
            2 => self.decide(Verdict::Delivered, Stage::Final, reply),
            _ => self.decide(Verdict::Refused, Stage::Final, reply),
        }
        self.final_seen = true;
        if done { Turn::Finished } else { Turn::Next }
    }

    /// The caller has written all content. True if the reply has been there before.
    pub(super) fn content_done(&mut self, end: u64) -> bool {
        self.content = Content::Done;
        self.end_at = Some(end);
        self.final_seen
    }

    /// Every recipient is refused.
    pub(super) fn nobody(&self) -> bool {
        self.answered == self.outcome.refusals.len() && self.accepted == 0
    }

    /// The connection is over, `sent` octets may have left on it. `shut`: the server has said 421 to something before this.
    pub(super) fn cut(&mut self, sent: u64, shut: bool, why: &Why) {
        if self.decided {
            return;
        }
        let complete = self.end_at.is_some_and(|end| sent >= end);
        let (verdict, stage) = match () {
            () if !self.seen(sent) => (Verdict::NeverSeen, Stage::Mail),
            () if shut => (Verdict::Broken, Stage::Mail),
            () if complete => (Verdict::InDoubt, Stage::Final),
            () if self.content != Content::Closed && !self.chunk => (Verdict::Broken, Stage::Content),
            () if !self.mail_accepted => (Verdict::Broken, Stage::Mail),
            () if self.answered < self.outcome.refusals.len() => (Verdict::Broken, Stage::Rcpt),
            () if self.chunk => (Verdict::Broken, Stage::Content),
            () => (Verdict::Broken, Stage::Data),
        };
        self.decide(verdict, stage, &mut why.reply());
    }

    /// Whether an octet of MAIL FROM may have left.
    pub(super) fn seen(&self, sent: u64) -> bool {
        self.mail_at.is_some_and(|at| sent > at)
    }
}
