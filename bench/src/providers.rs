//! What the big providers say when they are unhappy, word for word, as receiver models.

use crate::model::{Failure, Model, Stage};

impl Model {
    /// A model that says what one of the big providers says when it is unhappy, a small share of the time:
    /// `gmail`, `outlook` or `yahoo`.
    #[must_use]
    pub fn provider(name: &str) -> Option<Self> {
        let failures: &[(Stage, f64, &str)] = match name {
            "gmail" => &[
                (
                    Stage::Dot,
                    0.01,
                    "421-4.7.28 Gmail has detected an unusual rate of unsolicited mail originating\n421-4.7.28 from \
                     your IP address {ip}. To protect our users from spam, mail sent\n421 4.7.28 from your IP address \
                     has been temporarily rate limited.",
                ),
                (
                    Stage::Rcpt,
                    0.005,
                    "452 4.2.2 The recipient's inbox is out of storage space. Please direct the recipient to \
                     support pages.",
                ),
                (
                    Stage::Rcpt,
                    0.01,
                    "550-5.1.1 The email account that you tried to reach does not exist. Please try\n550-5.1.1 \
                     double-checking the recipient's email address for typos or\n550 5.1.1 unnecessary spaces.",
                ),
            ],
            "outlook" => &[
                (
                    Stage::Mail,
                    0.01,
                    "451 4.7.650 The mail server [{ip}] has been temporarily rate limited due to IP reputation.",
                ),
                (Stage::Rcpt, 0.01, "550 5.5.0 Requested action not taken: mailbox unavailable (S2017062302)."),
                (
                    Stage::Mail,
                    0.002,
                    "550 5.7.1 Unfortunately, messages from [{ip}] weren't sent. Please contact your Internet \
                     service provider since part of their network is on our block list (S3140).",
                ),
            ],
            "yahoo" => &[
                (
                    Stage::Mail,
                    0.01,
                    "421 4.7.0 [TSS04] Messages from {ip} temporarily deferred due to unexpected volume or user \
                     complaints - 4.16.55.1",
                ),
                (Stage::Dot, 0.01, "554 30 Sorry, your message could not be delivered. Mailbox disabled (554.30)."),
            ],
            _ => return None,
        };
        let failures =
            failures.iter().map(|(at, ratio, reply)| Failure { at: *at, ratio: *ratio, reply: (*reply).into() });
        Some(Self { failures: failures.collect(), ..Self::named(name) })
    }
}
