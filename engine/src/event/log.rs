//! The event log: JSON lines in `events.jsonl`, rotated by size. *Control thread.*
//!
//! A line counts once [`EventLog::keep`] has returned: only then may the spool forget what it tells. After a crash the last
//! lines may be there without that having been said, and come a second time.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};
use thiserror::Error;

/// The log cannot be written.
#[derive(Debug, Error)]
#[error("event log {path}: {what}: {source}", path = path.display())]
pub struct LogError {
    path: PathBuf,
    what: &'static str,
    source: io::Error,
}

/// See the module.
#[derive(Debug)]
pub struct EventLog {
    directory: PathBuf,
    file: File,
    /// Durable bytes of it.
    size: u64,
    /// There may be something behind them.
    dirty: bool,
    max_size: u64,
    keep: usize,
}

const CURRENT: &str = "events.jsonl";

impl EventLog {
    /// Opens or makes the log. A torn last line, left by a crash, is cut off: it will be told again.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn open(directory: &Path, max_size: u64, keep: usize) -> Result<Self, LogError> {
        let path = directory.join(CURRENT);
        let error = |what, source| LogError { path: path.clone(), what, source };
        fs::create_dir_all(directory).map_err(|e| error("make the directory", e))?;
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| error("open", e))?;
        let size = cut_torn_line(&mut file).map_err(|e| error("read its end", e))?;
        sync_directory(directory).map_err(|e| error("sync its directory", e))?;
        Ok(Self { directory: directory.to_path_buf(), file, size, dirty: false, max_size, keep })
    }

    /// Appends whole lines and makes them durable. Blocks.
    ///
    /// # Errors
    /// [`LogError`]; none of the lines counts. Given again, they stand there once.
    pub fn keep<'a>(&mut self, lines: impl IntoIterator<Item = &'a [u8]>) -> Result<(), LogError> {
        if self.dirty {
            // The kernel tells of a failed write-back once: what a sync failed for may be lost though the next one succeeds.
            let cut = self.file.set_len(self.size).and_then(|()| self.file.seek(SeekFrom::End(0)));
            cut.map_err(|source| self.error("cut off what is not durable", source))?;
            self.dirty = false;
        }
        if self.size >= self.max_size {
            self.rotate()?;
        }
        self.dirty = true;
        let mut size = self.size;
        for lines in lines {
            self.file.write_all(lines).map_err(|source| self.error("write", source))?;
            size += lines.len() as u64;
        }
        self.file.sync_data().map_err(|source| self.error("sync", source))?;
        (self.size, self.dirty) = (size, false);
        Ok(())
    }

    /// Starts a new file, and removes the oldest beyond those to keep. A file or directory that somebody has removed
    /// meanwhile is no reason to stop.
    fn rotate(&mut self) -> Result<(), LogError> {
        fs::create_dir_all(&self.directory).map_err(|e| self.error("make the directory", e))?;
        let current = self.directory.join(CURRENT);
        let next = files(&self.directory).map_err(|e| self.error("list", e))?.iter().filter_map(|f| number(f)).max();
        let old = self.directory.join(format!("events-{:08}.jsonl", next.unwrap_or(0) + 1));
        match fs::rename(&current, &old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.error("rename", error)),
            _ => {}
        }
        self.file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&current)
            .map_err(|e| self.error("open the next file", e))?;
        sync_directory(&self.directory).map_err(|e| self.error("sync its directory", e))?;
        self.size = 0;
        let mut rotated: Vec<_> = files(&self.directory)
            .map_err(|e| self.error("list", e))?
            .into_iter()
            .filter(|f| number(f).is_some())
            .collect();
        rotated.sort_by_key(|file| number(file));
        let surplus = rotated.len().saturating_sub(self.keep);
        for file in &rotated[..surplus] {
            fs::remove_file(file).map_err(|e| self.error("remove the oldest file", e))?;
        }
        Ok(())
    }

    fn error(&self, what: &'static str, source: io::Error) -> LogError {
        LogError { path: self.directory.join(CURRENT), what, source }
    }
}

/// Files of the log in a directory, oldest first, the current one last.
///
/// # Errors
/// As the system says.
pub fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut rotated = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if number(&path).is_some() {
            rotated.push(path);
        }
    }
    rotated.sort_by_key(|path| number(path));
    let current = directory.join(CURRENT);
    if current.exists() {
        rotated.push(current);
    }
    Ok(rotated)
}

/// Makes the names in a directory durable.
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("events-")?.strip_suffix(".jsonl")?.parse().ok()
}

/// Leaves the file at its end; returns its size.
fn cut_torn_line(file: &mut File) -> io::Result<u64> {
    let size = file.seek(SeekFrom::End(0))?;
    let mut end = size;
    let mut block = [0; 4096];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let length = (end - start) as usize;
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block[..length])?;
        if let Some(at) = memchr::memrchr(b'\n', &block[..length]) {
            end = start + at as u64 + 1;
            break;
        }
        end = start;
    }
    if end < size {
        file.set_len(end)?;
    }
    file.seek(SeekFrom::Start(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_line_is_cut_off_when_the_log_is_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(CURRENT);
        for (before, after) in [("a\nb\nhalf", "a\nb\nc\n"), ("half", "c\n"), ("", "c\n"), ("a\n", "a\nc\n")] {
            fs::write(&path, before).unwrap();
            let mut log = EventLog::open(directory.path(), 1 << 20, 2).unwrap();
            log.keep([&b"c\n"[..]]).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), after);
        }
        fs::write(&path, format!("a\n{}", "x".repeat(10_000))).unwrap();
        EventLog::open(directory.path(), 1 << 20, 2).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "a\n");
    }

    #[test]
    fn lines_given_again_after_an_error_stand_there_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(CURRENT);
        let mut log = EventLog::open(directory.path(), 1 << 20, 2).unwrap();
        log.keep([&b"a\n"[..]]).unwrap();
        // A file that takes no writing, as a full disk would.
        let good = std::mem::replace(&mut log.file, File::open(&path).unwrap());
        assert!(log.keep([&b"b\n"[..], b"c\n"]).unwrap_err().to_string().contains("write"));
        assert!(log.keep([&b"b\n"[..], b"c\n"]).unwrap_err().to_string().contains("cut off"));
        log.file = good;
        log.file.write_all(b"b\nhal").unwrap();
        log.keep([&b"b\n"[..], b"c\n"]).unwrap();
        log.keep([&b"d\n"[..]]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "a\nb\nc\nd\n");
    }

    #[test]
    fn a_file_that_somebody_removed_stops_no_rotation() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = EventLog::open(directory.path(), 2, 2).unwrap();
        log.keep([&b"a\n"[..]]).unwrap();
        fs::remove_file(directory.path().join(CURRENT)).unwrap();
        log.keep([&b"b\n"[..]]).unwrap();
        fs::remove_dir_all(directory.path()).unwrap();
        log.keep([&b"c\n"[..]]).unwrap();
        assert_eq!(fs::read_to_string(directory.path().join(CURRENT)).unwrap(), "c\n");
    }

    #[test]
    fn it_rotates_by_size_and_keeps_the_newest_files() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = EventLog::open(directory.path(), 10, 2).unwrap();
        for n in 0..6 {
            log.keep([format!("{n}123456789\n").as_bytes()]).unwrap();
        }
        let kept: Vec<_> =
            files(directory.path()).unwrap().iter().map(|file| fs::read_to_string(file).unwrap()).collect();
        assert_eq!(kept, ["3123456789\n", "4123456789\n", "5123456789\n"]);
    }
}
