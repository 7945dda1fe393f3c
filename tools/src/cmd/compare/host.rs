//! What the figures were measured on.

use serde::Serialize;
use std::{fmt, fs, path::Path, thread};

/// See the module.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Host {
    cpu: String,
    cores: usize,
    kernel: String,
    /// Of the servers' directories.
    filesystem: String,
    /// Processes that wanted to run when it began: others' work makes every figure worse.
    load: String,
}

impl Host {
    /// This one; the servers are to live in `directory`.
    pub(super) fn of(directory: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (cpuinfo, mounts, load) = (read("/proc/cpuinfo"), read("/proc/self/mounts"), read("/proc/loadavg"));
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let directory = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
        Self {
            cpu: model.map_or("unknown processor", |(_, name)| name.trim()).to_owned(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            filesystem: filesystem(&mounts, &directory).unwrap_or("unknown file system").to_owned(),
            load: load.split_whitespace().next().unwrap_or("?").to_owned(),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cores, kernel, filesystem, .. } = self;
        write!(f, "{cpu}, {cores} core{}, Linux {kernel}, {filesystem}", if *cores == 1 { "" } else { "s" })
    }
}

impl Host {
    /// How busy others kept it.
    pub(super) fn load(&self) -> &str {
        &self.load
    }
}

/// Type of the file system that a directory is on: that of the longest mount point above it.
fn filesystem<'a>(mounts: &'a str, directory: &Path) -> Option<&'a str> {
    let mount = |line: &'a str| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?))
    };
    let above = mounts.lines().filter_map(mount).filter(|(at, _)| directory.starts_with(at));
    // Of two on one place the later one is seen.
    above.max_by_key(|(at, _)| at.len()).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_counts_and_this_host_is_described() {
        let mounts = "/dev/a / ext4 rw 0 0\nnone /tmp tmpfs rw 0 0\n/dev/b /tmp/x xfs rw 0 0\n";
        assert_eq!(filesystem(mounts, Path::new("/tmp/x/y")), Some("xfs"));
        assert_eq!(filesystem(mounts, Path::new("/tmp/xy")), Some("tmpfs"));
        assert_eq!(filesystem(mounts, Path::new("/var")), Some("ext4"));
        assert!(Host::of(Path::new("/")).to_string().contains("Linux"));
    }
}
