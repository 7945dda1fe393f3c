//! Small and failing disks for the data directory of a world: mounted in a namespace of their own, reached through `/proc`, so
//! that nothing of the host changes and all of it goes with the test. The server runs inside that namespace.

use crate::world::World;
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
};

/// A mounted data directory. It goes when this is dropped, which must be after the server.
pub struct Mounted {
    holder: Child,
    said: BufReader<ChildStdout>,
    /// What is mounted under the data directory, as everybody can reach it.
    root: PathBuf,
}

impl Mounted {
    /// A tmpfs of so many MiB as the data directory. None where the host does not permit it, which is said.
    pub fn small(world: &mut World, mib: u32) -> Option<Self> {
        Self::new(world, &format!("mount -t tmpfs -o size={mib}m,mode=700 tmpfs disk"))
    }

    /// A btrfs in a file as the data directory, with a quota of so many MiB. None where the host does not permit it.
    pub fn with_quota(world: &mut World, mib: u32) -> Option<Self> {
        let script = "truncate -s 512m image && mkfs.btrfs -q image >/dev/null && mount -o loop,nodatacow image disk && \
             btrfs quota enable disk && btrfs qgroup limit";
        Self::new(world, &format!("{script} {mib}M disk"))
    }

    /// Takes the quota away.
    pub fn without_quota(&mut self) {
        let commands = "btrfs qgroup limit none disk && echo done";
        writeln!(self.holder.stdin.as_mut().expect("it is piped"), "{commands}").expect("it listens");
        assert_eq!(line_of(&mut self.said), "done");
    }

    /// An ext4 in a file as the data directory, which can be made to fail. None where the host does not permit it.
    pub fn breakable(world: &mut World) -> Option<Self> {
        let script = "truncate -s 256m image && mkfs.ext4 -q image && mount -o loop image disk";
        Self::new(world, script)
    }

    fn new(world: &mut World, script: &str) -> Option<Self> {
        fs::create_dir(world.path("disk")).expect("the directory is ours");
        let mut command = Command::new("unshare");
        command.arg("--mount");
        if !rustix::process::geteuid().is_root() {
            command.arg("--map-root-user");
        }
        // It ends with its standard input, and the mounts with it; each line is a command.
        command.args(["sh", "-c", &format!("{script} && echo ready && exec sh -e")]).current_dir(world.dir.path());
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut holder = match started {
            Ok(holder) => holder,
            Err(error) => return skipped(&format!("unshare: {error}")),
        };
        let mut said = BufReader::new(holder.stdout.take().expect("it is piped"));
        if line_of(&mut said) != "ready" {
            let error = holder.wait_with_output().map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
            return skipped(&error.unwrap_or_default());
        }
        let root =
            PathBuf::from(format!("/proc/{}/root", holder.id())).join(world.dir.path().strip_prefix("/").unwrap());
        symlink(root.join("disk"), world.path("data")).expect("the directory is ours");
        world.within = ["nsenter", "--mount", "--target"].map(String::from).to_vec();
        world.within.push(holder.id().to_string());
        if !rustix::process::geteuid().is_root() {
            world.within.extend(["--user", "--preserve-credentials"].map(String::from));
        }
        Some(Self { holder, said, root })
    }

    /// Takes all the space that is left there.
    pub fn fill(&self) {
        let mut file = fs::File::options().create(true).append(true).open(self.filler()).expect("one more file");
        let block = vec![0x55; 64 << 10];
        while file.write_all(&block).is_ok() {}
        while file.write_all(&[0x55; 512]).is_ok() {}
    }

    /// Gives it back.
    pub fn free(&self) {
        fs::remove_file(self.filler()).expect("it was filled");
    }

    /// From now on every write and every sync of the ext4 fails, and nothing more reaches the medium: EXT4_IOC_SHUTDOWN without
    /// a flush, which a safe language can only ask for by way of another program. False where that is not there.
    pub fn break_down(&self) -> bool {
        let ask =
            "open(my $d, '<', $ARGV[0]) or exit 1; my $how = pack('L', 2); exit(ioctl($d, 0x8004587d, $how) ? 0 : 2)";
        let done = Command::new("perl").args(["-e", ask]).arg(self.root.join("disk")).status();
        done.is_ok_and(|status| status.success()) || skipped("no EXT4_IOC_SHUTDOWN").is_some()
    }

    /// Mounted anew, as after a power cut: what was not synced is gone.
    pub fn mount_again(&mut self) {
        let commands = "umount disk && mount -o loop image disk && echo done";
        writeln!(self.holder.stdin.as_mut().expect("it is piped"), "{commands}").expect("it listens");
        assert_eq!(line_of(&mut self.said), "done");
    }

    fn filler(&self) -> PathBuf {
        self.root.join("disk/filler")
    }
}

fn line_of(said: &mut impl BufRead) -> String {
    let mut line = String::new();
    let _ = said.read_line(&mut line);
    line.trim_end().to_owned()
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

fn skipped(why: &str) -> Option<Mounted> {
    eprintln!("SKIPPED: this host does not let the test mount a disk of its own: {}", why.trim());
    None
}
