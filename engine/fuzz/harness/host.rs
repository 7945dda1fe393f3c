//! Any `mailrail.toml`: read, or refused with a line that is in the file.

use crate::config::{ConfigError, explain, parse};
use std::path::Path;

/// The text of the file. Files that it names are left out: a fuzzer must not open them.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if ["cert", "key", "ca_", "\\", "user"].iter().any(|word| text.contains(word)) {
        return;
    }
    match parse(text, Path::new("mailrail.toml"), Path::new("/nowhere")) {
        Ok(config) => {
            assert!((1..=256).contains(&config.shards) && config.data_dir.is_absolute());
            assert!(config.hostname.is_ascii() && !config.hostname.contains(char::is_whitespace));
            let _ = explain(&config);
        }
        Err(ConfigError::Wrong { line, message, .. }) => {
            assert!((1..=text.split('\n').count() + 1).contains(&line), "line {line}: {message}");
        }
        Err(other) => panic!("nothing was to be read: {other}"),
    }
}
