//! The control thread whole, over its real socket, with shards that only answer the link.

use crate::config::Config;
use std::{fs, path::Path, sync::Arc};

/// The configuration with these lines, its data under `directory`.
pub(super) fn config(directory: &Path, more: &str) -> Arc<Config> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = format!("hostname = \"mta.test\"\ndata_dir = {:?}\nshards = 2\n{more}", directory.display());
    fs::write(file.path(), text).unwrap();
    Arc::new(Config::load(file.path()).unwrap())
}
