//! Any lines as an import of suppressed addresses: refused, or exported as what reads as the same entry.

use crate::control::suppression::{
    csv::{line, write},
    db::Entry,
};
use mailrail_queue::time::Wall;

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for one in text.split('\n') {
        let Ok(Some(put)) = line(one, Wall(1)) else { continue };
        let norm = put.address.as_str().to_owned();
        let entry =
            Entry { address: put.address.given().to_owned(), norm, reason: put.reason, at: put.at, message_id: None };
        let mut out = String::new();
        write(&entry, &mut out);
        assert_eq!(out.matches('\n').count(), 1, "{out:?}");
        let again = line(&out, Wall(1));
        let again = again.map(|put| put.map(|put| (put.address, put.reason)));
        assert_eq!(again, Ok(Some((put.address, put.reason))), "{out:?}");
    }
}
