//! What a mail server costs: CPU, memory and writes of all its processes, and the flushes that the disks were asked for.

use std::{collections::HashMap, fs, time::Duration};

/// Length of a clock tick in `/proc/PID/stat`: USER_HZ is 100 on every Linux architecture that Rust supports.
const TICK: Duration = Duration::from_millis(10);

/// Counters at one moment; differences of two are what was spent between.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reading {
    /// CPU time of a process and its descendants, ended ones included as far as they were waited for.
    pub(super) cpu: Duration,
    /// Bytes that they had written to disks.
    pub(super) written: u64,
    /// Largest resident sets that they have had, added up.
    pub(super) peak: u64,
    /// Flushes of all disks of the host.
    pub(super) flushes: u64,
}

impl Reading {
    /// Of these processes and all below them.
    pub(super) fn take(roots: &[u32]) -> Self {
        let mut reading = Self { flushes: flushes(), ..Self::default() };
        for pid in roots.iter().flat_map(|root| family(*root)) {
            if let Some(stat) = Stat::read(pid) {
                reading.cpu += TICK * stat.ticks;
            }
            reading.written += field(&format!("/proc/{pid}/io"), "write_bytes:");
            reading.peak += field(&format!("/proc/{pid}/status"), "VmHWM:") * 1024;
        }
        reading
    }

    /// What was spent since `before`.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            written: self.written.saturating_sub(before.written),
            peak: self.peak,
            flushes: self.flushes.saturating_sub(before.flushes),
        }
    }
}

/// Memory of its own, files left out, that these processes and all below them have.
pub(super) fn heap(roots: &[u32]) -> u64 {
    let of = |pid| field(&format!("/proc/{pid}/status"), "RssAnon:") * 1024;
    roots.iter().flat_map(|root| family(*root)).map(of).sum()
}

struct Stat {
    parent: u32,
    ticks: u32,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// proc(5): the name may hold anything, so the fields are counted from its closing parenthesis.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u32>().ok();
        Some(Self { parent: number(1)?, ticks: number(11)? + number(12)? + number(13)? + number(14)? })
    }
}

/// A process and its descendants.
fn family(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        if let Some(stat) = Stat::read(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut family = vec![root];
    let mut at = 0;
    while let Some(pid) = family.get(at) {
        family.extend(children.remove(pid).unwrap_or_default());
        at += 1;
    }
    family
}

/// The number behind a name in a file of `/proc`; 0 where it cannot be read.
fn field(path: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

/// Flush requests completed, all disks (field 16 behind the name, Linux 5.5).
fn flushes() -> u64 {
    let text = fs::read_to_string("/proc/diskstats").unwrap_or_default();
    text.lines().filter_map(|line| line.split_whitespace().nth(18)?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_measured_and_odd_names_are_no_obstacle() {
        let stat = Stat::parse("12 (a) b (c)) S 7 1 1 0 -1 4194304 1 2 3 4 10 20 30 40 20 0 1 0 5 6 7").unwrap();
        assert_eq!((stat.parent, stat.ticks), (7, 100));
        let reading = Reading::take(&[std::process::id()]);
        assert!(reading.peak > 1 << 20);
        assert!(family(std::process::id()).contains(&std::process::id()));
    }
}
