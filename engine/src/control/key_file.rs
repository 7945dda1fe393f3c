//! Files that hold a key, as a fleet file names them. *Control thread, in blocking tasks.*

use std::{
    io::{self, Read},
    path::Path,
};

/// Octets read of a key file; an RSA key of 16,384 bits has 13,000.
const KEY_MAX: u64 = 64 << 10;

/// A key file, of which nothing is expected but to be small: a pipe would hold up the change, a device feed it for ever.
pub(super) fn read_key(path: &Path) -> io::Result<String> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut pem = String::new();
    std::fs::File::open(path)?.take(KEY_MAX).read_to_string(&mut pem)?;
    Ok(pem)
}
