//! Any fleet file: read or refused in one line, and what was read comes back from its own export.

use crate::control::fleet::Fleet;
use std::path::Path;

/// The text of the file. Key files are left out: a fuzzer must not open what it names.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if text.contains("key_") || text.contains('\\') {
        return;
    }
    let read = |text: &str, old: &Fleet| Fleet::parse(text, Path::new("fleet.toml"), Path::new("/nowhere"), 4, old);
    match read(text, &Fleet::default()) {
        Ok(fleet) => {
            let export = fleet.to_toml();
            let again = read(&export, &fleet).unwrap_or_else(|why| panic!("{why}\n{export}"));
            assert_eq!(fleet, again, "{export}");
            assert!(fleet.changes(&again).is_empty());
            let policy = fleet.policy(1, 4);
            assert_eq!(policy.leases.len(), fleet.counts()[1]);
        }
        Err(why) => {
            let why = why.to_string();
            assert!(why.starts_with("fleet.toml:"), "it names file and line: {why}");
        }
    }
}
