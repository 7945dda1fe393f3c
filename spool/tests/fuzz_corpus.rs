//! The corpus of the fuzz target, replayed: what fuzzing has found stays found, on stable Rust and on each change.

#[path = "../fuzz/harness/reader.rs"]
mod reader;

use std::{fs, path::Path};

#[test]
fn reader_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/reader");
    let mut inputs = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        eprintln!("{}", path.display());
        reader::run(&fs::read(path).unwrap());
        inputs += 1;
    }
    assert!(inputs > 10, "{} holds a corpus", folder.display());
}
