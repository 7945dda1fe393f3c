//! AUTH PLAIN and AUTH LOGIN as a machine: lines in, challenges and at last credentials out (RFC 4954, RFC 4616).
//!
//! One per client connection. It must never show what it holds, nor keep it longer than it takes to check it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::fmt;

/// Octets of a user name or a password.
const MAX: usize = 255;

/// What is known so far.
#[derive(Default)]
pub(super) enum Exchange {
    #[default]
    None,
    /// PLAIN: the one response is to come.
    Plain,
    /// LOGIN: the user name is to come.
    User,
    /// LOGIN: the password is to come.
    Password(String),
    /// All is there, to be checked.
    Complete(String, String),
}

/// What to do after a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Send this challenge and read on.
    Challenge(&'static str),
    /// Check the credentials.
    Check,
    /// Refuse with this; the exchange is over.
    Refuse(&'static str),
}

/// Never shown.
impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_open() { "Exchange(open)" } else { "Exchange" })
    }
}

const MALFORMED: Turn = Turn::Refuse("501 5.5.2 Cannot decode response");

impl Exchange {
    /// A line of the client is a response, not a command.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Plain | Self::User | Self::Password(_))
    }

    /// Begins; `initial` is the response that came with the command, `=` an empty one.
    pub(super) fn begin(&mut self, mechanism: &str, initial: Option<&str>) -> Turn {
        let challenge = if mechanism.eq_ignore_ascii_case("PLAIN") {
            *self = Self::Plain;
            "334 "
        } else if mechanism.eq_ignore_ascii_case("LOGIN") {
            *self = Self::User;
            "334 VXNlcm5hbWU6"
        } else {
            return Turn::Refuse("504 5.5.4 Authentication mechanism not supported");
        };
        match initial {
            None => Turn::Challenge(challenge),
            Some("=") => self.line(b""),
            Some(response) => self.line(response.as_bytes()),
        }
    }

    /// Takes a response.
    pub(super) fn line(&mut self, line: &[u8]) -> Turn {
        let state = std::mem::take(self);
        if line == b"*" {
            return Turn::Refuse("501 5.7.0 Authentication cancelled");
        }
        let Ok(decoded) = STANDARD.decode(line) else { return MALFORMED };
        let Ok(text) = String::from_utf8(decoded) else { return MALFORMED };
        match state {
            Self::Plain => {
                let mut parts = text.split('\0');
                let (Some(acting_for), Some(user), Some(password), None) =
                    (parts.next(), parts.next(), parts.next(), parts.next())
                else {
                    return MALFORMED;
                };
                // Nobody acts for anybody else.
                if !acting_for.is_empty() && acting_for != user {
                    return Turn::Refuse("535 5.7.8 Authentication Credentials Invalid");
                }
                self.complete(user, password)
            }
            Self::User if text.len() <= MAX && !text.is_empty() => {
                *self = Self::Password(text);
                Turn::Challenge("334 UGFzc3dvcmQ6")
            }
            Self::Password(user) => self.complete(&user, &text),
            _ => MALFORMED,
        }
    }

    fn complete(&mut self, user: &str, password: &str) -> Turn {
        if user.is_empty() || user.len() > MAX || password.len() > MAX || password.contains('\0') {
            return MALFORMED;
        }
        *self = Self::Complete(user.to_owned(), password.to_owned());
        Turn::Check
    }

    /// User name and password, once.
    pub(super) fn take(&mut self) -> Option<(String, String)> {
        match std::mem::take(self) {
            Self::Complete(user, password) => Some((user, password)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn b64(text: &str) -> String {
        STANDARD.encode(text)
    }

    #[test]
    fn plain_and_login_come_to_the_same_with_and_without_an_initial_response() {
        let credentials = Some(("user".to_owned(), "pass word".to_owned()));
        let plain = b64("\0user\0pass word");
        let mut exchange = Exchange::default();
        assert_eq!(exchange.begin("plain", Some(&plain)), Turn::Check);
        assert_eq!(exchange.take(), credentials);
        assert_eq!(exchange.begin("PLAIN", None), Turn::Challenge("334 "));
        assert_eq!(exchange.line(plain.as_bytes()), Turn::Check);
        assert_eq!(exchange.take(), credentials);
        assert_eq!(exchange.begin("LOGIN", None), Turn::Challenge("334 VXNlcm5hbWU6"));
        assert_eq!(exchange.line(b64("user").as_bytes()), Turn::Challenge("334 UGFzc3dvcmQ6"));
        assert_eq!(exchange.line(b64("pass word").as_bytes()), Turn::Check);
        assert_eq!(exchange.take(), credentials);
        assert_eq!(exchange.begin("LOGIN", Some(&b64("user"))), Turn::Challenge("334 UGFzc3dvcmQ6"));
        assert!(!format!("{exchange:?}").contains("user"));
    }

    #[test]
    fn what_is_cancelled_wrong_or_for_somebody_else_is_refused_and_forgotten() {
        let cases = [
            ("PLAIN", "*".to_owned(), "501"),
            ("PLAIN", "no base64".to_owned(), "501"),
            ("PLAIN", "=".to_owned(), "501"),
            ("PLAIN", b64("user\0pass"), "501"),
            ("PLAIN", b64("\0user\0pass\0"), "501"),
            ("PLAIN", b64("\0\0pass"), "501"),
            ("PLAIN", b64("admin\0user\0pass"), "535"),
            ("LOGIN", "=".to_owned(), "501"),
            ("CRAM-MD5", String::new(), "504"),
        ];
        for (mechanism, response, code) in cases {
            let mut exchange = Exchange::default();
            let turn = exchange.begin(mechanism, Some(&response));
            assert!(matches!(turn, Turn::Refuse(text) if text.starts_with(code)), "{mechanism} {response}: {turn:?}");
            assert!(!exchange.is_open() && exchange.take().is_none());
        }
    }

    proptest! {
        #[test]
        fn whatever_a_client_sends_it_ends(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..8)) {
            let mut exchange = Exchange::default();
            exchange.begin("LOGIN", None);
            for line in lines {
                if exchange.is_open() && exchange.line(&line) == Turn::Check {
                    prop_assert!(exchange.take().is_some());
                }
            }
        }
    }
}
