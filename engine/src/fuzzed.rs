//! What the fuzz targets run of the parts that are not public, and its replay. *Tests and fuzzing only; in no server.*
#![allow(missing_docs, reason = "one function each: `run`")]

#[path = "../fuzz/harness/canonical.rs"]
pub mod canonical;
#[path = "../fuzz/harness/control_json.rs"]
pub mod control_json;
#[path = "../fuzz/harness/dsn.rs"]
pub mod dsn;
#[path = "../fuzz/harness/envelope.rs"]
pub mod envelope;
#[path = "../fuzz/harness/fleet.rs"]
pub mod fleet;
#[path = "../fuzz/harness/headers.rs"]
pub mod headers;
#[path = "../fuzz/harness/host.rs"]
pub mod host;
#[cfg(test)]
#[path = "../fuzz/harness/replay.rs"]
mod replayed;
#[path = "../fuzz/harness/suppression.rs"]
pub mod suppression;

#[cfg(test)]
mod tests {
    use super::replayed::replay;

    #[test]
    fn canonical() {
        replay("canonical", super::canonical::run);
    }

    #[test]
    fn control_json() {
        replay("control_json", super::control_json::run);
    }

    #[test]
    fn dsn() {
        replay("dsn", super::dsn::run);
    }

    #[test]
    fn envelope() {
        replay("envelope", super::envelope::run);
    }

    #[test]
    fn fleet() {
        replay("fleet", super::fleet::run);
    }

    #[test]
    fn headers() {
        replay("headers", super::headers::run);
    }

    #[test]
    fn host() {
        replay("host", super::host::run);
    }

    #[test]
    fn suppression() {
        replay("suppression", super::suppression::run);
    }
}
