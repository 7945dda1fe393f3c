//! The corpora of the fuzz targets of the SMTP machines, replayed. Those of inner parts: `src/fuzzed.rs`.

#[path = "../fuzz/harness/replay.rs"]
mod replayed;
#[path = "../fuzz/harness/smtp_client.rs"]
mod smtp_client;
#[path = "../fuzz/harness/smtp_server.rs"]
mod smtp_server;

use replayed::replay;

#[test]
fn smtp_server_corpus() {
    replay("smtp_server", smtp_server::run);
}

#[test]
fn smtp_client_corpus() {
    replay("smtp_client", smtp_client::run);
}
