//! A control thread with two shards that a test plays itself.

use crate::{
    config::Config,
    control::{Handle, Options, start},
    link::{self, Command, QueueRow, Report, ShardLink, ShardStatus},
};
use serde_json::Value;
use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

/// Longer than anything takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The configuration with these lines, its data under `directory`.
pub(in crate::control) fn config(directory: &Path, more: &str) -> Arc<Config> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = format!("hostname = \"mta.test\"\ndata_dir = {:?}\nshards = 2\n{more}", directory.display());
    fs::write(file.path(), text).unwrap();
    Arc::new(Config::load(file.path()).unwrap())
}

/// One shard's end: what is asked is answered by itself, what is told comes here.
pub(super) struct Shard {
    pub(super) number: u16,
    told: mpsc::Receiver<Command>,
    reports: tokio::sync::mpsc::Sender<Report>,
}

impl Shard {
    fn new(link: ShardLink) -> Self {
        let ShardLink { shard: number, mut commands, reports } = link;
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            while let Some(command) = commands.blocking_recv() {
                match command {
                    Command::Status(reply) => drop(reply.send(status(number))),
                    // Told at the start, before the first snapshot.
                    Command::Lists { .. } => {}
                    Command::Queue(_, reply) => drop(reply.send(vec![row(number)])),
                    other => {
                        if tell.send(other).is_err() {
                            return;
                        }
                    }
                }
            }
        });
        Self { number, told, reports }
    }

    /// The next command, status and queue aside.
    pub(super) fn told(&self) -> Command {
        self.told.recv_timeout(PATIENCE).expect("a command")
    }

    /// True if nothing more was told.
    pub(super) fn is_quiet(&self) -> bool {
        self.told.try_recv().is_err()
    }

    pub(super) fn report(&self, report: Report) {
        self.reports.blocking_send(report).expect("a control thread");
    }

    pub(super) fn events(&self, cursor: u64, lines: impl Into<Vec<u8>>) {
        self.report(Report::Events { shard: self.number, cursor, lines: lines.into() });
    }

    pub(super) fn stopped(&self, error: Option<&str>) {
        self.report(Report::Stopped { shard: self.number, error: error.map(Into::into) });
    }

    /// Version and number of leased IPs of the snapshot that comes next.
    pub(super) fn snapshot(&self) -> (u64, usize) {
        match self.told() {
            Command::Snapshot(snapshot) => (snapshot.policy.version, snapshot.policy.leases.len()),
            other => panic!("{other:?}"),
        }
    }

    /// The cursor that is acknowledged next.
    pub(super) fn kept(&self) -> u64 {
        match self.told() {
            Command::EventsKept { cursor } => cursor,
            other => panic!("{other:?}"),
        }
    }
}

fn status(shard: u16) -> ShardStatus {
    ShardStatus { shard, queued: 10 + u64::from(shard), accepted: 5, ..ShardStatus::default() }
}

fn row(shard: u16) -> QueueRow {
    QueueRow {
        shard,
        site: "mx.one.test".into(),
        domains: vec!["one.test".into()],
        queued: 3 + u64::from(shard),
        oldest: 1,
        ..QueueRow::default()
    }
}

/// What came back over the socket.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

pub(super) struct Rig {
    pub(super) directory: tempfile::TempDir,
    pub(super) config: Arc<Config>,
    pub(super) handle: Handle,
}

/// Starts one with these lines in its configuration; the shards have had their first snapshot.
pub(super) fn rig(more: &str) -> (Rig, [Shard; 2]) {
    let (rig, links) = rig_and_links(tempfile::tempdir().unwrap(), more);
    let shards = links.map(Shard::new);
    for shard in &shards {
        shard.snapshot();
    }
    (rig, shards)
}

/// Starts one; nobody reads what shards are told.
pub(super) fn rig_and_links(directory: tempfile::TempDir, more: &str) -> (Rig, [ShardLink; 2]) {
    rig_with(directory, more, options())
}

/// Starts one in this way.
pub(super) fn rig_with(directory: tempfile::TempDir, more: &str, options: Options) -> (Rig, [ShardLink; 2]) {
    let config = config(directory.path(), more);
    let (control, links) = link::link(2);
    let handle = start(Arc::clone(&config), control, options).unwrap();
    (Rig { directory, config, handle }, links.try_into().unwrap())
}

pub(super) fn shard(link: ShardLink) -> Shard {
    Shard::new(link)
}

pub(super) fn options() -> Options {
    let reload = Box::new(|| Err("nothing to read".to_owned()));
    Options { signals: false, listeners: Vec::new(), grace: Duration::from_secs(1), reload }
}

impl Rig {
    /// Sends a request whole; the answer is whoever's who reads it.
    pub(super) fn send(&self, method: &str, path: &str, body: &str) -> UnixStream {
        let mut stream = UnixStream::connect(&self.config.control.socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: mailrail\r\nconnection: close\r\n");
        let rest = format!("content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(format!("{head}{rest}").as_bytes()).unwrap();
        stream
    }

    pub(super) fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let mut text = String::new();
        self.send(method, path, body).read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").expect("an HTTP answer");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    pub(super) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "")
    }

    pub(super) fn put_fleet(&self, query: &str, toml: &str) -> Answer {
        let body = serde_json::json!({ "toml": toml, "file": "fleet.toml" }).to_string();
        self.ask("PUT", &format!("/mailrail/v1/fleet{query}"), &body)
    }

    /// Asks until the answer is as wanted.
    pub(super) fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let start = std::time::Instant::now();
        loop {
            let answer = self.get(path).json();
            if wanted(&answer) {
                return answer;
            }
            assert!(start.elapsed() < PATIENCE, "never: {answer}");
        }
    }
}
