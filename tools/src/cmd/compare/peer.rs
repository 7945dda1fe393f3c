//! The mail servers that can be compared: this one, Postfix, and whatever a small file says how to start.

use super::{mailrail, postfix};
use crate::cmd::Failure;
use serde::Deserialize;
use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long a server may take to start and to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which signature is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Dkim {
    /// None
    None,
    /// RSA-2048
    Rsa,
    /// Ed25519
    Ed25519,
}

/// Where a server is to live for one run.
pub(super) struct Place<'a> {
    /// A directory of its own.
    pub(super) directory: &'a Path,
    /// Where it is to take mail.
    pub(super) listen: SocketAddr,
    /// Where all of it is to go.
    pub(super) sink: SocketAddr,
    /// What is signed.
    pub(super) dkim: Dkim,
    /// The key for it, PEM; selector `s1` of `example.com`.
    pub(super) key: &'a Path,
}

/// A server that can be started.
#[derive(Clone, Debug)]
pub(super) enum Peer {
    Mailrail(Own),
    Postfix,
    File(Box<Adapter>),
}

/// This server, in one of its set-ups.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub(super) name: String,
    /// One per core if not said.
    pub(super) shards: Option<u16>,
    /// Delivery connections of a leased IP to the sink, if not as many as by default.
    pub(super) lines: Option<u32>,
    /// Deferred messages in its queue while it is measured.
    pub(super) queued: u64,
}

/// How to start and stop any other server.
///
/// In `start` and `stop`, `{dir}`, `{listen_ip}`, `{listen_port}`, `{sink_ip}`, `{sink_port}` and `{key}` are replaced.
/// `start` may stay in the foreground, or end and leave the process id of a daemon in `pid_file`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Adapter {
    name: String,
    /// What 250 means to it, for the report.
    durability: String,
    start: Vec<String>,
    #[serde(default)]
    stop: Vec<String>,
    pid_file: Option<String>,
    /// It can sign with these.
    #[serde(default)]
    dkim: Vec<String>,
}

/// A server that runs.
pub(super) struct Running {
    /// Its first process, and those of its helpers that are not below it.
    pub(super) pids: Vec<u32>,
    /// Asked at the end; dropping it stops the server too.
    pub(super) stop: Box<dyn FnOnce() -> Result<(), Failure>>,
    /// Syncs so far, where the server counts them.
    pub(super) syncs: Option<Box<dyn Fn() -> Option<u64>>>,
    /// What can be done with a full queue, where the server lets itself be asked.
    pub(super) queue: Option<Queue>,
}

/// The processes of a server started again, and when that was.
pub(super) type Again = (Vec<u32>, Instant);

/// See [`Running::queue`].
pub(super) struct Queue {
    /// Recipients deferred since it was started.
    pub(super) deferred: Box<dyn Fn() -> Option<u64>>,
    /// Recipients queued now.
    pub(super) queued: Box<dyn Fn() -> Option<u64>>,
    /// Stops it and starts it again.
    pub(super) again: Box<dyn Fn() -> Result<Again, Failure>>,
}

impl Peer {
    /// `mailrail`, `postfix`, or the path of an adapter file.
    pub(super) fn named(name: &str, shards: Option<u16>, lines: Option<u32>) -> Result<Self, Failure> {
        match name {
            "mailrail" => Ok(Self::Mailrail(Own { name: "mailrail".into(), shards, lines, queued: 0 })),
            "postfix" => postfix::check().map(|()| Self::Postfix),
            path => Adapter::read(Path::new(path)).map(|adapter| Self::File(Box::new(adapter))),
        }
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::Mailrail(own) => &own.name,
            Self::Postfix => "postfix",
            Self::File(adapter) => &adapter.name,
        }
    }

    /// Deferred messages that it is to have in its queue.
    pub(super) fn backlog(&self) -> u64 {
        if let Self::Mailrail(own) = self { own.queued } else { 0 }
    }

    /// Its version, where it can be asked.
    pub(super) fn version(&self) -> Option<String> {
        match self {
            Self::Mailrail(_) => Some(env!("CARGO_PKG_VERSION").into()),
            Self::Postfix => postfix::version(),
            Self::File(_) => None,
        }
    }

    /// What its 250 means.
    pub(super) fn durability(&self) -> &str {
        match self {
            Self::Mailrail(_) => "250 after fdatasync, many messages a sync",
            Self::Postfix => "250 after fsync, one or more a message",
            Self::File(adapter) => &adapter.durability,
        }
    }

    pub(super) fn start(&self, place: &Place<'_>) -> Result<Running, Failure> {
        let running = match self {
            Self::Mailrail(own) => mailrail::start(place, own),
            Self::Postfix => postfix::start(place),
            Self::File(adapter) => adapter.start(place),
        }?;
        wait_for_port(place.listen, self.name())?;
        Ok(running)
    }
}

impl Adapter {
    fn read(path: &Path) -> Result<Self, Failure> {
        let wrong = |why: &dyn std::fmt::Display| {
            let known = "--peer takes mailrail, postfix, or an adapter file";
            Failure::Usage(format!("{}: {why}; {known}", path.display()))
        };
        let text = fs::read_to_string(path).map_err(|why| wrong(&why))?;
        let adapter: Self = toml::from_str(&text).map_err(|why| wrong(&why.to_string().trim().replace('\n', " ")))?;
        if adapter.start.is_empty() {
            return Err(wrong(&"start is empty"));
        }
        Ok(adapter)
    }

    fn start(&self, place: &Place<'_>) -> Result<Running, Failure> {
        let kind = match place.dkim {
            Dkim::None => None,
            Dkim::Rsa => Some("rsa"),
            Dkim::Ed25519 => Some("ed25519"),
        };
        if kind.is_some_and(|kind| !self.dkim.iter().any(|known| known == kind)) {
            return Err(Failure::Usage(format!("{}: its adapter says nothing of such signatures (dkim =)", self.name)));
        }
        let child = spawn(&fill(&self.start, place), place.directory, &self.name)?;
        let stop = fill(&self.stop, place);
        let directory = place.directory.to_owned();
        let Some(file) = &self.pid_file else {
            let pid = child.id();
            return Ok(Running { pids: vec![pid], stop: Box::new(move || end(child)), syncs: None, queue: None });
        };
        let pid = read_pid(&PathBuf::from(&fill(std::slice::from_ref(file), place)[0]), &self.name)?;
        let name = self.name.clone();
        Ok(Running { pids: vec![pid], stop: Box::new(move || run(&stop, &directory, &name)), syncs: None, queue: None })
    }
}

fn fill(words: &[String], place: &Place<'_>) -> Vec<String> {
    let replace = |word: &String| {
        word.replace("{dir}", &place.directory.display().to_string())
            .replace("{listen_ip}", &place.listen.ip().to_string())
            .replace("{listen_port}", &place.listen.port().to_string())
            .replace("{sink_ip}", &place.sink.ip().to_string())
            .replace("{sink_port}", &place.sink.port().to_string())
            .replace("{key}", &place.key.display().to_string())
    };
    words.iter().map(replace).collect()
}

/// Starts a program with its output in the directory.
pub(super) fn spawn(words: &[String], directory: &Path, name: &str) -> Result<Child, Failure> {
    let failed = |why: &dyn std::fmt::Display| Failure::Operation(format!("starting {name}: {why}"));
    let (program, arguments) = words.split_first().ok_or_else(|| failed(&"no command"))?;
    let log =
        fs::File::options().create(true).append(true).open(directory.join("output")).map_err(|why| failed(&why))?;
    let error = log.try_clone().map_err(|why| failed(&why))?;
    Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(error)
        .spawn()
        .map_err(|why| failed(&format!("{program}: {why}")))
}

/// Runs a program to its end.
pub(super) fn run(words: &[String], directory: &Path, name: &str) -> Result<(), Failure> {
    if words.is_empty() {
        return Ok(());
    }
    let status = spawn(words, directory, name)?.wait();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            let said = fs::read_to_string(directory.join("output")).unwrap_or_default();
            let last = said.lines().next_back().unwrap_or_default();
            Err(Failure::Operation(format!("{name}: `{}` ended with {status}: {last}", words.join(" "))))
        }
        Err(why) => Err(Failure::Operation(format!("{name}: {why}"))),
    }
}

/// Ends a child: SIGTERM, then, if it does not listen, SIGKILL.
pub(super) fn end(mut child: Child) -> Result<(), Failure> {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if matches!(child.try_wait(), Ok(Some(_))) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
    Err(Failure::Operation("a server did not stop when asked to, and was killed".into()))
}

/// Waits for the file in which a daemon says who it is.
pub(super) fn read_pid(path: &Path, name: &str) -> Result<u32, Failure> {
    let until = Instant::now() + PATIENCE;
    loop {
        let pid = fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
        match pid {
            Some(pid) => return Ok(pid),
            None if Instant::now() > until => {
                return Err(Failure::Operation(format!("{name}: no process id in {}", path.display())));
            }
            None => thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn wait_for_port(address: SocketAddr, name: &str) -> Result<(), Failure> {
    let until = Instant::now() + PATIENCE;
    while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
        if Instant::now() > until {
            return Err(Failure::Operation(format!("{name} does not listen on {address}")));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_is_read_and_filled_and_a_mistake_is_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("other.toml");
        let text = "name = \"other\"\ndurability = \"none\"\nstart = [\"true\", \"--port={listen_port}\", \"{dir}\"]\n";
        fs::write(&path, text).unwrap();
        let adapter = Adapter::read(&path).unwrap();
        let place = Place {
            directory: Path::new("/d"),
            listen: "127.0.0.1:25".parse().unwrap(),
            sink: "127.0.0.2:26".parse().unwrap(),
            dkim: Dkim::None,
            key: Path::new("/k"),
        };
        assert_eq!(fill(&adapter.start, &place), ["true", "--port=25", "/d"]);
        fs::write(&path, "nam = 1").unwrap();
        let said = Adapter::read(&path).unwrap_err().to_string();
        assert!(said.contains("nam") && !said.contains('\n'), "{said}");
    }
}
