//! CPU time that threads and processes have used, read from `/proc` (Linux).
//!
//! For reports only, never on the data path. `None` means that the kernel or the system has no such figure.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Length of a clock tick in `/proc/PID/stat`: USER_HZ is 100 on every Linux architecture that Rust supports.
const TICK: Duration = Duration::from_millis(10);

/// CPU time of one thread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadCpu {
    /// Thread id.
    pub tid: u32,
    /// Name, at most 15 bytes.
    pub name: String,
    /// Time on a CPU, user and system together, exact to nanoseconds.
    pub cpu: Duration,
}

/// CPU time of the calling thread so far.
#[must_use]
pub fn this_thread() -> Option<Duration> {
    schedstat(Path::new("/proc/thread-self"))
}

/// CPU time of a whole process so far, ended threads included, exact to 10 ms.
#[must_use]
pub fn process(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; fields 14 and 15 (utime, stime) count from behind it.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(TICK * user.checked_add(system)?)
}

/// CPU time of each thread of a process that is alive now.
#[must_use]
pub fn threads(pid: u32) -> Vec<ThreadCpu> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let read = |task: fs::DirEntry| {
        let tid = task.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(task.path().join("comm")).ok()?.trim_end().to_owned();
        Some(ThreadCpu { tid, name, cpu: schedstat(&task.path())? })
    };
    let mut threads: Vec<_> = tasks.filter_map(Result::ok).filter_map(read).collect();
    threads.sort_by_key(|thread| thread.tid);
    threads
}

fn schedstat(task: &Path) -> Option<Duration> {
    let text = fs::read_to_string(task.join("schedstat")).ok()?;
    Some(Duration::from_nanos(text.split_ascii_whitespace().next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_time_grows_and_threads_are_listed() {
        let before = this_thread().unwrap();
        let mut sum = 0_u64;
        while this_thread().unwrap() == before {
            sum = sum.wrapping_add(std::hint::black_box(1));
        }
        assert!(this_thread().unwrap() > before, "{sum}");
        let pid = std::process::id();
        assert!(process(pid).is_some());
        assert!(!threads(pid).is_empty());
        assert_eq!(process(u32::MAX), None);
    }
}
