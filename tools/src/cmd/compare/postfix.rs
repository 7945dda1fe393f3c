//! Postfix as its distribution ships it, in directories of its own, relaying everything to the sink; with OpenDKIM as a
//! milter on a Unix socket where signatures are wanted. Needs root, as Postfix does.

use super::peer::{Dkim, Place, Running, end, read_pid, run, spawn};
use crate::cmd::Failure;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Can it run here?
pub(super) fn check() -> Result<(), Failure> {
    let found = Command::new("postconf").arg("mail_version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        return Err(Failure::Usage(
            "--peer postfix: Postfix is not installed (apt-get install postfix opendkim)".into(),
        ));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::Usage("--peer postfix: Postfix can be started by root only".into()));
    }
    Ok(())
}

/// What it says of itself.
pub(super) fn version() -> Option<String> {
    let said = Command::new("postconf").args(["-h", "mail_version"]).output().ok()?;
    Some(String::from_utf8(said.stdout).ok()?.trim().to_owned())
}

fn words(text: &[&str]) -> Vec<String> {
    text.iter().map(|word| (*word).to_owned()).collect()
}

/// Starts it.
pub(super) fn start(place: &Place<'_>) -> Result<Running, Failure> {
    if place.dkim == Dkim::Ed25519 {
        return Err(Failure::Usage("--peer postfix: OpenDKIM signs with RSA only".into()));
    }
    let directory = place.directory;
    // Its users must reach what is theirs.
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    let (config, queue, data) = (directory.join("conf"), directory.join("queue"), directory.join("data"));
    for path in [&config, &queue, &data] {
        fs::create_dir_all(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    let milter = directory.join("milter.sock");
    fs::write(config.join("main.cf"), main_cf(place, &queue, &data, &milter))?;
    fs::write(config.join("master.cf"), master_cf(place))?;
    run(&words(&["chown", "postfix", &data.display().to_string()]), directory, "postfix")?;
    let signer = if place.dkim == Dkim::Rsa { Some(opendkim(place, &milter)?) } else { None };
    let at = config.display().to_string();
    run(&words(&["postfix", "-c", &at, "start"]), directory, "postfix")?;
    let pid = read_pid(&queue.join("pid/master.pid"), "postfix")?;
    let pids = std::iter::once(pid).chain(signer.as_ref().map(std::process::Child::id)).collect();
    let owned = directory.to_owned();
    let stop = move || {
        let stopped = run(&words(&["postfix", "-c", &at, "stop"]), &owned, "postfix");
        signer.map_or(Ok(()), end).and(stopped)
    };
    Ok(Running { pids, stop: Box::new(stop), syncs: None, queue: None })
}

fn main_cf(place: &Place<'_>, queue: &Path, data: &Path, milter: &Path) -> String {
    let (sink, queue, data) = (place.sink, queue.display(), data.display());
    let log = place.directory.join("maillog");
    let mut text = format!(
        "compatibility_level = 3.6\nqueue_directory = {queue}\ndata_directory = {data}\nmail_owner = postfix\n\
         setgid_group = postdrop\nmyhostname = mta.example.com\nmydestination =\nlocal_recipient_maps =\n\
         mynetworks = 127.0.0.0/8\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4\n\
         smtpd_recipient_restrictions = permit_mynetworks, reject\nrelayhost = [{}]:{}\nsmtp_bind_address = 127.0.10.1\n\
         disable_dns_lookups = yes\nsmtp_tls_security_level = none\nmaillog_file = {}\nmaillog_file_prefixes = {}\n\
         default_process_limit = 100\nalias_maps =\nalias_database =\n",
        sink.ip(),
        sink.port(),
        log.display(),
        place.directory.display()
    );
    if place.dkim == Dkim::Rsa {
        text += &format!("smtpd_milters = unix:{}\nmilter_default_action = tempfail\n", milter.display());
    }
    text
}

/// The services that relaying needs, as in the file that Postfix ships, without chroot.
fn master_cf(place: &Place<'_>) -> String {
    let listen = place.listen;
    format!(
        "{listen} inet n - n - - smtpd\npickup unix n - n 60 1 pickup\ncleanup unix n - n - 0 cleanup\n\
         qmgr unix n - n 300 1 qmgr\nrewrite unix - - n - - trivial-rewrite\nbounce unix - - n - 0 bounce\n\
         defer unix - - n - 0 bounce\ntrace unix - - n - 0 bounce\nverify unix - - n - 1 verify\n\
         flush unix n - n 1000? 0 flush\nproxymap unix - - n - - proxymap\nproxywrite unix - - n - 1 proxymap\n\
         smtp unix - - n - - smtp\nrelay unix - - n - - smtp\nshowq unix n - n - - showq\nerror unix - - n - - error\n\
         retry unix - - n - - error\ndiscard unix - - n - - discard\nanvil unix - - n - 1 anvil\n\
         scache unix - - n - 1 scache\npostlog unix-dgram n - n - 1 postlogd\n"
    )
}

/// OpenDKIM in the foreground, as root: it only signs what Postfix gives it here.
fn opendkim(place: &Place<'_>, milter: &Path) -> Result<std::process::Child, Failure> {
    let config = place.directory.join("opendkim.conf");
    let text = format!(
        "Domain example.com\nSelector s1\nKeyFile {}\nSocket local:{}\nMode s\nCanonicalization relaxed/relaxed\n\
         Background no\nUMask 000\nRequireSafeKeys no\nInternalHosts 127.0.0.0/8\nSyslog no\n",
        place.key.display(),
        milter.display()
    );
    fs::write(&config, text)?;
    let child = spawn(&words(&["opendkim", "-f", "-x", &config.display().to_string()]), place.directory, "opendkim")?;
    let until = Instant::now() + Duration::from_secs(10);
    while !milter.exists() {
        if Instant::now() > until {
            let _ = end(child);
            return Err(Failure::Operation("opendkim does not listen on its socket".into()));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(child)
}
