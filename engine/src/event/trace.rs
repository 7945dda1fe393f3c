//! One message's story, read back from the event log.

use super::log;
use crate::message::id::MessageId;
use serde_json::Value;
use std::{collections::HashSet, fs::File, io, path::Path};

/// All events of a message, in the order they were logged, each once. Blocks: reads every file of the log that can have
/// them, searching for the id without parsing other lines.
///
/// # Errors
/// As the system says; a log that is not there yet has no events.
pub fn events_of(directory: &Path, id: MessageId) -> io::Result<Vec<Value>> {
    let mut events = Vec::new();
    let mut seen = HashSet::new();
    let files = match log::files(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(events),
        files => files?,
    };
    let wanted = id.to_string();
    for path in files {
        let file = File::open(&path)?;
        // What was last written before the message was accepted cannot speak of it. A minute for stepping clocks.
        let modified = file.metadata()?.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        if modified.as_millis() + 60_000 < u128::from(id.time_ms()) {
            continue;
        }
        each_line_with(file, wanted.as_bytes(), |line| {
            // A line may come twice after a crash; what is told twice happened once.
            if seen.insert(line.to_vec())
                && let Ok(event) = serde_json::from_slice(line)
            {
                events.push(event);
            }
        })?;
    }
    Ok(events)
}

/// Gives each whole line that contains `needle` to `f`; memory is bounded by the block and the longest line.
fn each_line_with(mut file: impl io::Read, needle: &[u8], mut f: impl FnMut(&[u8])) -> io::Result<()> {
    const BLOCK: usize = 1 << 20;
    let finder = memchr::memmem::Finder::new(needle);
    let mut buffer: Vec<u8> = Vec::new();
    loop {
        let held = buffer.len();
        buffer.resize(held + BLOCK, 0);
        let read = file.read(&mut buffer[held..])?;
        buffer.truncate(held + read);
        let whole = if read == 0 { buffer.len() } else { memchr::memrchr(b'\n', &buffer).map_or(0, |at| at + 1) };
        let mut at = 0;
        while let Some(found) = finder.find(&buffer[at..whole]) {
            let start = memchr::memrchr(b'\n', &buffer[..at + found]).map_or(0, |line| line + 1);
            let end = memchr::memchr(b'\n', &buffer[at + found..whole]).map_or(whole, |line| at + found + line);
            f(&buffer[start..end]);
            at = end;
        }
        buffer.drain(..whole);
        if read == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_story_is_found_across_files_once_and_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let id = MessageId::new(1, 2, 3, 4);
        let line = |n: u32| format!("{{\"n\":{n},\"messageId\":\"{id}\"}}\n");
        let other = "{\"messageId\":\"other\"}\n".repeat(100_000);
        fs::write(directory.path().join("events-00000001.jsonl"), format!("{}{other}{}", line(1), line(2))).unwrap();
        fs::write(directory.path().join("events.jsonl"), format!("{other}{}{}", line(2), line(3))).unwrap();
        let events = events_of(directory.path(), id).unwrap();
        assert_eq!(events.iter().map(|event| event["n"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(events_of(directory.path(), MessageId::new(9, 9, 9, 9)).unwrap().is_empty());
        assert!(events_of(&directory.path().join("none"), id).unwrap().is_empty());
    }
}
