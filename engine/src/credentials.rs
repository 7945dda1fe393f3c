//! Who may submit as which account: SMTP user names and passwords, as SES derives them from access keys.
//!
//! Part of the snapshot, so one per host and shared by all shards. It holds derived passwords only, never an access key's
//! secret; nothing of it is ever shown.

use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// Version of SES's SMTP passwords.
const VERSION: u8 = 4;

/// See the module.
#[derive(Clone, Default)]
pub struct Credentials(BTreeMap<Box<str>, Access>);

#[derive(Clone)]
struct Access {
    account: Arc<str>,
    /// One for each region of the host.
    passwords: Vec<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({} keys)", self.0.len())
    }
}

impl Credentials {
    /// Lets an access key submit as `account`, with the password of any of these regions.
    pub fn add(&mut self, key_id: &str, secret: &str, account: &Arc<str>, regions: &[String]) {
        let passwords = regions.iter().map(|region| smtp_password(secret, region)).collect();
        self.0.insert(key_id.into(), Access { account: Arc::clone(account), passwords });
    }

    /// The account of these credentials. An unknown user takes as long as a wrong password.
    #[must_use]
    pub fn check(&self, user: &str, password: &str) -> Option<Arc<str>> {
        let nobody = String::new();
        let known = self.0.get(user);
        let passwords = known.map_or(std::slice::from_ref(&nobody), |access| &access.passwords);
        let mut right = false;
        for expected in passwords {
            right |= verify_slices_are_equal(expected.as_bytes(), password.as_bytes()).is_ok();
        }
        known.filter(|_| right).map(|access| Arc::clone(&access.account))
    }
}

/// The SMTP password of an access key in a region, as SES derives it (its guide, "Obtaining SMTP credentials").
#[must_use]
pub fn smtp_password(secret: &str, region: &str) -> String {
    let mut key = format!("AWS4{secret}").into_bytes();
    for message in ["11111111", region, "ses", "aws4_request", "SendRawEmail"] {
        key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), message.as_bytes()).as_ref().to_vec();
    }
    key.insert(0, VERSION);
    STANDARD.encode(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

    #[test]
    fn passwords_are_those_of_ses() {
        assert_eq!(smtp_password(SECRET, "us-east-1"), "BOntiZFm/r+5s3psZ/RpsjB+aSGsj2J0rXdiLuO0cQL7");
        assert_eq!(smtp_password(SECRET, "local"), "BLlqSbcEu4HDxlaqWvTfgirAdzcuTRYBKwyj76WvMwvU");
    }

    #[test]
    fn only_a_key_with_its_password_of_a_region_of_the_host_is_let_in() {
        let mut credentials = Credentials::default();
        let regions = ["local".to_owned(), "us-east-1".to_owned()];
        credentials.add("AKID", SECRET, &Arc::from("acme"), &regions);
        for region in &regions {
            assert_eq!(credentials.check("AKID", &smtp_password(SECRET, region)).as_deref(), Some("acme"));
        }
        let elsewhere = smtp_password(SECRET, "eu-west-1");
        for (user, password) in [("AKID", ""), ("AKID", SECRET), ("AKID", &elsewhere), ("", ""), ("other", "")] {
            assert_eq!(credentials.check(user, password), None, "{user} {password}");
        }
        assert!(!format!("{credentials:?}").contains("AKID"));
    }
}
