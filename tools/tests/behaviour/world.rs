//! A world for one test: the real server as its own process, an embedded DNS, receivers on loopback addresses.

use mailrail_bench::{
    dns::{DnsServer, Zone},
    model::Model,
    sink::{
        Delivery, Sink, SinkConfig, Store,
        dkim::{DkimCounts, DkimKeys},
    },
    tls::TlsIdentity,
};
use serde_json::Value;
use std::{
    cell::OnceCell,
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// No wait of a test is longer; it is reached only when something is broken.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Keys of the sender's domain, the same in all tests.
pub struct Keys {
    /// PEM of an Ed25519 key.
    pub pem: String,
    /// What its TXT record says.
    pub record: String,
}

/// See the module. Everything ends when it is dropped.
pub struct World {
    pub dir: tempfile::TempDir,
    pub dns: DnsServer,
    /// Port of all receivers.
    pub port: u16,
    pub sinks: Vec<Sink>,
    server: Option<Child>,
    /// A command that runs the server, in front of its own.
    pub within: Vec<String>,
    /// The server.
    pub binary: PathBuf,
    /// What the server logs.
    pub filter: &'static str,
    pub keys: Keys,
    known: OnceCell<SocketAddr>,
}

/// Address of receiver `n`.
pub fn host(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, n as u8 + 1)
}

impl World {
    /// Receivers with these models at [`host`]`(0)`, `(1)`, …; `zone` may name them. No server yet.
    pub fn new(models: Vec<Model>, zone: impl Fn(Zone) -> Zone) -> Self {
        Self::with_tls(models, zone, None)
    }

    /// The same, with STARTTLS at the receivers.
    pub fn with_tls(models: Vec<Model>, zone: impl Fn(Zone) -> Zone, tls: Option<&TlsIdentity>) -> Self {
        let keys = ed25519();
        let zone = zone(Zone::new().ttl(60).txt("s1._domainkey.sender.test", &keys.record));
        let dns = DnsServer::start(zone).expect("a free port for the DNS");
        let (port, sinks) = receivers(&models, tls, dns.addr());
        Self {
            dir: tempfile::tempdir().expect("a directory"),
            dns,
            port,
            sinks,
            server: None,
            within: Vec::new(),
            binary: env!("CARGO_BIN_EXE_mailrail").into(),
            filter: "info,mailrail_engine=debug",
            keys,
            known: OnceCell::new(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a configuration: the usual one, with `extra` lines for the tables that it names.
    pub fn configure(&self, changes: &[(&str, &str)]) {
        let port = self.port;
        let dns = self.dns.addr();
        let mut tables: Vec<(String, String)> = vec![
            (String::new(), "hostname = \"mta.sender.test\"\ndata_dir = \"data\"\nshards = 2\n".into()),
            ("[[listener]]".into(), "address = \"127.0.0.1:0\"\nallow = [\"127.0.0.0/8\", \"::1\"]\n".into()),
            ("[dns]".into(), format!("servers = [\"{dns}\"]\n")),
            ("[delivery]".into(), format!("port = {port}\nallow_private = true\n")),
            ("[delivery.retry]".into(), "first = \"1s\"\nmax = \"2s\"\n".into()),
            ("[delivery.site_backoff]".into(), "first = \"200ms\"\nmax = \"1s\"\n".into()),
            ("[spool]".into(), "segment_size = \"8MiB\"\n".into()),
        ];
        for (table, lines) in changes {
            match tables.iter_mut().find(|(name, _)| name == table) {
                Some((_, text)) => {
                    // A line replaces the one of the same key.
                    for line in lines.lines() {
                        let key = line.split('=').next().unwrap_or("").trim().to_owned();
                        let kept = text.lines().filter(|old| old.split('=').next().unwrap_or("").trim() != key);
                        *text = kept.map(|line| format!("{line}\n")).collect();
                        text.push_str(line);
                        text.push('\n');
                    }
                }
                None => tables.push(((*table).into(), format!("{lines}\n"))),
            }
        }
        let text: String = tables.iter().map(|(name, lines)| format!("{name}\n{lines}\n")).collect();
        fs::write(self.path("mailrail.toml"), text).expect("the directory is ours");
    }

    /// Starts the server; returns when it serves.
    pub fn start(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.path("log")).expect("a log file");
        let words: Vec<_> = self.within.iter().map(OsStr::new).chain([self.binary.as_os_str()]).collect();
        let child = Command::new(words[0])
            .args(&words[1..])
            .args(["serve", "--grace", "5", "--log", self.filter, "--config"])
            .arg(self.path("mailrail.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        self.server = Some(child);
        self.until("the server to serve", |world| {
            if let Some(status) = world.server.as_mut().and_then(|child| child.try_wait().ok()).flatten() {
                panic!("the server ended: {status}\n{}", world.log());
            }
            world.cli(&["status", "--json"]).status.success()
        });
    }

    /// Server with the usual configuration and two leased IPs, one for each shard.
    pub fn started(mut self) -> Self {
        self.configure(&[]);
        self.start();
        self.apply(FLEET);
        self
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.server.as_ref().map_or(0, Child::id)
    }

    /// Sends a signal to the server.
    pub fn signal(&self, name: &str) {
        let done = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(done.expect("there is a kill").success());
    }

    /// After SIGSTOP: no thread of the server is in a system call any more.
    pub fn stands_still(&mut self) -> bool {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("it runs").flatten();
        let states = tasks.map(|task| fs::read_to_string(task.path().join("stat")).unwrap_or_default());
        // The state stands behind the name, which is in brackets.
        states.into_iter().all(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
    }

    /// Waits for the server's end; its exit code.
    pub fn ended(&mut self) -> Option<i32> {
        let mut child = self.server.take().expect("it was started");
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = child.try_wait().expect("it is our child") {
                return status.code();
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        let _ = child.wait();
        panic!("the server did not end\n{}", self.log());
    }

    /// Its exit code, if the server has ended by itself.
    pub fn has_ended(&mut self) -> Option<i32> {
        let status = self.server.as_mut()?.try_wait().expect("it is our child")?;
        self.server = None;
        status.code()
    }

    /// SIGTERM, and a clean end.
    pub fn stop(&mut self) {
        self.signal("TERM");
        assert_eq!(self.ended(), Some(0), "{}", self.log());
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.signal("KILL");
        self.ended();
    }

    /// Runs a client command against the server.
    pub fn cli(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_mailrail"))
            .args(args)
            .env("MAILRAIL_CONFIG", self.path("mailrail.toml"))
            .env_remove("MAILRAIL_SOCKET")
            .current_dir(self.dir.path())
            .output()
            .expect("the binary starts")
    }

    /// The same, for one JSON document.
    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.cli(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {error}\n{}", self.log());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|why| panic!("{args:?}: {why}"))
    }

    /// Applies a fleet file; the key of the sender's domain lies beside it as `s1.pem`.
    pub fn apply(&self, fleet: &str) {
        fs::write(self.path("s1.pem"), &self.keys.pem).expect("the directory is ours");
        fs::write(self.path("fleet.toml"), fleet).expect("the directory is ours");
        let output = self.cli(&["apply", "fleet.toml"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Address of listener `n`: the kernel chose the port.
    pub fn listener(&self, n: usize) -> SocketAddr {
        let status = self.json(&["status", "--json"]);
        let listener = status["listeners"][n].as_str().and_then(|address| address.parse().ok());
        listener.unwrap_or_else(|| panic!("no listener {n} in {status}"))
    }

    /// The same of the first listener, known without a question after the first one.
    pub fn listener_known(&self) -> SocketAddr {
        *self.known.get_or_init(|| self.listener(0))
    }

    /// A client connection, greeting read.
    pub fn connect(&self) -> Client {
        Client::connect(self.listener(0))
    }

    /// Submits one message; the message id of its 250.
    pub fn submit(&self, to: &[&str], content: &str) -> String {
        let reply = self.connect().submit("a@sender.test", to, content);
        id_of(&reply)
    }

    /// Waits until `reached`; fails with the log after [`PATIENCE`].
    pub fn until(&mut self, what: &str, mut reached: impl FnMut(&mut Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !reached(self) {
            assert!(Instant::now() < end, "waited in vain for {what}\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The signatures of all that a sink has got, once each is checked.
    pub fn signatures(&mut self, sink: usize) -> DkimCounts {
        let mut counts = DkimCounts::default();
        self.until("the signatures to be checked", |world| {
            counts = world.sinks[sink].snapshot().dkim.expect("it has the keys");
            counts.waiting == 0
        });
        counts
    }

    /// Waits until nothing is queued.
    pub fn drained(&mut self) {
        self.until("the queue to be empty", |world| world.json(&["status", "--json"])["queued"] == 0);
    }

    /// All events of the log so far, in order.
    pub fn events(&self) -> Vec<Value> {
        let mut files: Vec<_> = fs::read_dir(self.path("data/events"))
            .map(|dir| dir.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        // `events-00000001.jsonl` before `events.jsonl`.
        files.sort();
        let lines = files.iter().flat_map(|file| {
            fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>()
        });
        lines.filter_map(|line| serde_json::from_str(&line).ok()).collect()
    }

    /// Waits for an event of this type about this recipient.
    pub fn event(&mut self, kind: &str, recipient: &str) -> Value {
        let mut found = Value::Null;
        self.until(&format!("a {kind} of {recipient}"), |world| {
            let events = world.events();
            let fits = |event: &&Value| event["eventType"] == kind && event["recipient"] == recipient;
            found = events.iter().find(fits).cloned().unwrap_or_default();
            !found.is_null()
        });
        found
    }

    /// Waits for `n` copies at receiver `sink`.
    pub fn deliveries(&self, sink: usize, n: usize) -> Vec<Arc<Delivery>> {
        let done = self.sinks[sink].wait_for_recipients(n as u64, PATIENCE);
        assert!(done, "receiver {sink} has {} of {n}\n{}", self.sinks[sink].recipients(), self.log());
        self.sinks[sink].deliveries()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut child) = self.server.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Two leased IPs, one for each shard, and the key of the sender's domain.
pub const FLEET: &str = r#"
[[pool]]
name = "main"
[[ip]]
address = "127.0.10.1"
helo = "out1.sender.test"
pool = "main"
shard = 0
[[ip]]
address = "127.0.10.2"
helo = "out2.sender.test"
pool = "main"
shard = 1
[[dkim]]
domain = "sender.test"
selector = "s1"
key_file = "s1.pem"
"#;

/// The same with the first leased IP only.
pub fn fleet_of_one() -> String {
    let second = "[[ip]]\naddress = \"127.0.10.2\"\nhelo = \"out2.sender.test\"\npool = \"main\"\nshard = 1\n";
    let only = FLEET.replace(second, "");
    assert!(only.len() < FLEET.len());
    only
}

/// A message from the sender's domain.
pub const MESSAGE: &str = "From: A <a@sender.test>\r\nTo: b@one.test\r\nSubject: hello\r\n\r\nHello.\r\n";

/// The id in `250 2.0.0 Ok <id>`.
pub fn id_of(reply: &str) -> String {
    assert!(reply.starts_with("250 "), "{reply}");
    reply.trim_end().rsplit(' ').next().unwrap_or_default().trim_matches(['<', '>']).to_owned()
}

fn ed25519() -> Keys {
    let key = mailrail_engine::sign::SigningKey::from_pem(KEY.as_bytes()).expect("it is a key");
    Keys { pem: KEY.into(), record: key.dns_record() }
}

/// Made for these tests; it protects nothing.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEID4G1JTz/Ggu7rafX6F8lp2WzeRprgqlGWjNP9575H5A\n-----END PRIVATE KEY-----\n";

/// One sink for each model, all on the same port.
fn receivers(models: &[Model], tls: Option<&TlsIdentity>, dns: SocketAddr) -> (u16, Vec<Sink>) {
    for _ in 0..50 {
        let mut port = 0;
        let mut sinks = Vec::new();
        for (n, model) in models.iter().enumerate() {
            let config = SinkConfig {
                store: Store::full(),
                tls: tls.cloned(),
                hostname: format!("mx{n}.test"),
                dkim: Some(DkimKeys::Dns(dns)),
                ..SinkConfig::default()
            };
            let mut model = model.clone();
            model.name = format!("{}-{n}", model.name);
            let mut config = config.listen_as((host(n), port), model.clone());
            config.models = config.models.otherwise(model);
            match Sink::start(config) {
                Ok(sink) => {
                    port = sink.addr().port();
                    sinks.push(sink);
                }
                Err(_) if port != 0 => break,
                Err(why) => panic!("receiver {n}: {why}"),
            }
        }
        if sinks.len() == models.len() {
            return (port, sinks);
        }
    }
    panic!("no port is free on all addresses of the receivers");
}

/// A plain SMTP client that does what it is told.
pub struct Client {
    stream: BufReader<TcpStream>,
    pub greeting: String,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let mut client = Self::silent(address);
        client.greeting = client.reply();
        client
    }

    /// Without waiting for a greeting.
    pub fn silent(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a valid time");
        Self { stream: BufReader::new(stream), greeting: String::new() }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // A server that has closed shows in the next reply.
        let _ = self.stream.get_mut().write_all(bytes.as_ref());
    }

    /// A whole reply, all its lines; empty when the server has closed.
    pub fn reply(&mut self) -> String {
        let mut all = String::new();
        loop {
            let mut line = String::new();
            match self.stream.read_line(&mut line) {
                Ok(0) | Err(_) => return all,
                Ok(_) => all.push_str(&line),
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                return all;
            }
        }
    }

    /// One command line, and its reply.
    pub fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n"));
        self.reply()
    }

    /// True once the server has closed the connection.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0; 1]), Ok(0) | Err(_))
    }

    pub fn stream(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    /// EHLO, envelope and content (dots are stuffed here); the reply to the final dot, or the first refusal.
    pub fn submit(&mut self, from: &str, to: &[&str], content: &str) -> String {
        let mut lines = vec!["EHLO client.test".to_owned(), format!("MAIL FROM:<{from}>")];
        lines.extend(to.iter().map(|to| format!("RCPT TO:<{to}>")));
        lines.push("DATA".into());
        for line in lines {
            let reply = self.ask(&line);
            if !reply.starts_with(['2', '3']) {
                return reply;
            }
        }
        let stuffed = content.replace("\r\n.", "\r\n..");
        self.send(format!("{stuffed}.\r\n"));
        self.reply()
    }
}
