//! Replies that ask for less: patterns over code, enhanced code and text, and what each is answered with.

use crate::classify::{code_fits, enhanced_fits};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

/// What to do about a reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Then {
    /// Nothing: this reply is none of those below.
    #[default]
    Nothing,
    /// Half the rate.
    Slower,
    /// Half the connections.
    Fewer,
    /// Send nothing for a time.
    Suspend,
}

/// Which replies; what is empty fits all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    codes: Arc<[String]>,
    enhanced: Arc<[String]>,
    text: Arc<[String]>,
}

/// Which replies, and what then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Which.
    pub pattern: Pattern,
    /// What.
    pub then: Then,
    /// How long a first suspension lasts; each that follows closely is twice as long, up to a day.
    pub time: Duration,
}

impl Answer {
    /// Without a word about it.
    pub const SUSPENSION: Duration = Duration::from_secs(30 * 60);
}

impl Pattern {
    /// # Errors
    /// What is wrong: a code of another form, or nothing to go by.
    pub(super) fn new(codes: &[String], enhanced: &[String], text: &[String]) -> Result<Self, String> {
        let bad_code = |code: &&String| {
            let digits = code.bytes().all(|b| b == b'x' || b.is_ascii_digit());
            code.len() != 3 || !digits || !(code.starts_with('4') || code.starts_with('5'))
        };
        if let Some(code) = codes.iter().find(bad_code) {
            return Err(format!(
                "reply: code \"{code}\": three digits from 4 or 5 on, x for any, as \"421\" or \"4xx\""
            ));
        }
        let bad_enhanced = |code: &&String| {
            let part = |part: &str| part == "x" || part.parse::<u16>().is_ok();
            code.split('.').count() != 3 || !code.split('.').all(part)
        };
        if let Some(code) = enhanced.iter().find(bad_enhanced) {
            return Err(format!("reply: enhanced \"{code}\": three numbers, x for any, as \"4.7.28\" or \"x.7.1\""));
        }
        if codes.is_empty() && enhanced.is_empty() && text.is_empty() {
            return Err("reply: fits every reply; give code, enhanced or text".into());
        }
        if text.iter().any(|text| text.trim().is_empty()) {
            return Err("reply: an empty text is in every reply".into());
        }
        let text = text.iter().map(|text| text.to_lowercase()).collect();
        Ok(Self { codes: codes.into(), enhanced: enhanced.into(), text })
    }

    /// `text` in lower case. Only replies of 4xx and 5xx ask for anything.
    #[must_use]
    pub fn fits(&self, code: u16, enhanced: Option<(u8, u16, u16)>, text: &str) -> bool {
        (400..600).contains(&code)
            && (self.codes.is_empty() || self.codes.iter().any(|pattern| code_fits(pattern, code)))
            && (self.enhanced.is_empty()
                || enhanced.is_some_and(|code| self.enhanced.iter().any(|pattern| enhanced_fits(pattern, code))))
            && (self.text.is_empty() || self.text.iter().any(|word| text.contains(word.as_str())))
    }
}
