//! The real server as a process of its own, so that its CPU time is its own: for demo and comparisons.

use crate::{
    client::{Client, ClientError},
    cmd::Failure,
};
use mailrail_engine::control::api::types::{ApplyReport, FleetRequest, StatusReport};
use std::{
    fs,
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long it may take to start and to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// See the module; dropped, it is stopped.
pub(crate) struct Server {
    child: Child,
    client: Client,
    log: PathBuf,
    pub(crate) socket: PathBuf,
}

impl Server {
    /// Starts it; returns when it serves.
    pub(crate) fn start(config: &Path) -> Result<Self, Failure> {
        let mut server = Self::spawn(config)?;
        server.serves()?;
        Ok(server)
    }

    /// Starts it, and does not wait.
    pub(crate) fn spawn(config: &Path) -> Result<Self, Failure> {
        let directory = config.parent().unwrap_or(Path::new("."));
        let (log, socket) = (directory.join("server.log"), directory.join("data/control.sock"));
        let failed = |what: &str, why: std::io::Error| Failure::Operation(format!("{what}: {why}"));
        let output = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(|why| failed("log of the server", why))?;
        let binary = std::env::current_exe().map_err(|why| failed("this program", why))?;
        let child = Command::new(binary)
            .args(["serve", "--grace", "5", "--log", "warn", "--log-format", "human", "--config"])
            .arg(config)
            .env_remove("MAILRAIL_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            // Ctrl-C is for the demo, which stops the server in order.
            .process_group(0)
            .spawn()
            .map_err(|why| failed("server", why))?;
        let client = Client::new(socket.clone(), Duration::from_secs(10)).map_err(|why| failed("client", why))?;
        Ok(Self { child, client, log, socket })
    }

    /// Waits until it serves.
    pub(crate) fn serves(&mut self) -> Result<(), Failure> {
        let end = Instant::now() + PATIENCE;
        while self.status().is_err() {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.ended(status));
            }
            if Instant::now() > end {
                return Err(Failure::Operation(format!("the server does not answer\n{}", self.said())));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn ended(&self, status: ExitStatus) -> Failure {
        Failure::Operation(format!("the server ended ({status})\n{}", self.said()))
    }

    /// The last lines of its log.
    pub(crate) fn said(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn status(&self) -> Result<StatusReport, Failure> {
        Ok(self.client.get("/mailrail/v1/status")?)
    }

    /// Single messages that still wait.
    pub(crate) fn queue(&self) -> Result<mailrail_engine::control::api::types::QueueReport, Failure> {
        Ok(self.client.get("/mailrail/v1/queue?messages=true&limit=0")?)
    }

    pub(crate) fn apply(&self, toml: String) -> Result<ApplyReport, Failure> {
        Ok(apply(&self.client, toml)?)
    }

    /// Where it takes mail: the kernel chose the port.
    pub(crate) fn listener(&self) -> Result<SocketAddr, Failure> {
        let none = || Failure::Operation("the server has no listener".into());
        self.status()?.listeners.first().copied().ok_or_else(none)
    }

    /// Stops it in order.
    pub(crate) fn stop(&mut self) -> Result<(), Failure> {
        self.signal();
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(self.ended(status)),
                _ => thread::sleep(Duration::from_millis(10)),
            }
        }
        Err(Failure::Operation(format!("the server does not stop\n{}", self.said())))
    }

    /// Ends it at once (SIGKILL), as a crash would.
    pub(crate) fn kill(mut self) -> Result<(), Failure> {
        if let Some(status) = self.child.try_wait()? {
            return Err(self.ended(status));
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn signal(&self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) && self.stop().is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Has the server that this client speaks to take a fleet file.
pub(crate) fn apply(client: &Client, toml: String) -> Result<ApplyReport, ClientError> {
    let request = FleetRequest { toml, file: Some("fleet.toml".into()), directory: None };
    client.put("/mailrail/v1/fleet", &request)
}
