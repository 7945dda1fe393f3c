//! The corpora of the fuzz targets, replayed: what fuzzing has found stays found, on stable Rust and on each change.

#[path = "../fuzz/harness/smtp_client.rs"]
mod smtp_client;
#[path = "../fuzz/harness/smtp_server.rs"]
mod smtp_server;

use std::{fs, path::Path};

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        eprintln!("{}", path.display());
        run(&fs::read(path).unwrap());
        inputs += 1;
    }
    assert!(inputs > 10, "{} holds a corpus", folder.display());
}

#[test]
fn smtp_server_corpus() {
    replay("smtp_server", smtp_server::run);
}

#[test]
fn smtp_client_corpus() {
    replay("smtp_client", smtp_client::run);
}
