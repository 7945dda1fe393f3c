//! What stands between an intruder and the host: confinement of the process, who may use the control socket, what is written
//! into logs, and that all of it works under the restrictions of the unit file.

use crate::world::{FLEET, MESSAGE, World, host};
use mailrail_bench::model::Model;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Output},
};

fn world() -> World {
    World::new(vec![Model::named("accept")], |zone| zone.mx("one.test", 10, "mx.one.test").a("mx.one.test", host(0)))
}

/// A value of `/proc/<pid>/task/<task>/status`, for each thread.
fn status_of_threads(world: &World, name: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", world.pid())).unwrap().flatten();
    let value = |text: String| text.lines().find_map(|line| line.strip_prefix(name)).map(|rest| rest.trim().to_owned());
    tasks.filter_map(|task| value(fs::read_to_string(task.path().join("status")).ok()?)).collect()
}

#[test]
fn every_thread_is_confined() {
    let mut world = world().started();
    world.submit(&["b@one.test"], MESSAGE);
    world.drained();
    for (name, value) in [("NoNewPrivs:", "1"), ("Seccomp:", "2")] {
        let found = status_of_threads(&world, name);
        assert!(found.len() > 3 && found.iter().all(|found| found == value), "{name} {found:?}");
    }
    let umask = status_of_threads(&world, "Umask:");
    assert!(umask.iter().all(|umask| umask == "0077"), "{umask:?}");
}

/// Runs a client command as somebody else.
fn as_stranger(world: &World, uid: u32, gid: u32) -> Output {
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".into()]);
    // Copied to where anybody may run it.
    command.arg(world.path("mailrail")).args(["status", "--json", "--socket"]).arg(world.path("control.sock"));
    command.env_remove("MAILRAIL_CONFIG").output().expect("there is a setpriv")
}

#[test]
fn the_control_socket_is_for_those_who_are_named() {
    let mut world = world();
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can come as somebody else");
        return;
    }
    fs::set_permissions(world.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_mailrail"), world.path("mailrail")).unwrap();
    world.configure(&[("[control]", "socket = \"control.sock\"")]);
    world.start();
    let refused = as_stranger(&world, 4711, 4711);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(3) && said.contains("may not be opened by this user"), "{said}");
    world.stop();

    world.configure(&[("[control]", "socket = \"control.sock\"\nallow_uids = [4711]\nallow_gids = [4712]")]);
    world.start();
    for (uid, gid) in [(4711, 1), (1, 4712)] {
        let output = as_stranger(&world, uid, gid);
        assert!(output.status.success(), "{uid} {gid}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let refused = as_stranger(&world, 4713, 4713);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("allow_uids"), "{said}");
    assert!(world.log().contains("not allowed") && world.log().contains("4713"), "{}", world.log());
}

#[test]
fn a_change_is_logged_with_who_made_it_and_secrets_never_are() {
    let mut world = world();
    world.filter = "trace";
    world.configure(&[]);
    world.start();
    world.apply(FLEET);
    world.submit(&["b@one.test"], &format!("{MESSAGE}the recipe of the secret sauce\r\n"));
    world.drained();
    world.stop();
    let log = world.log();
    let own = rustix::process::geteuid().as_raw();
    assert!(log.contains(&format!("uid {own}, pid ")), "{log}");
    let key: String = world.keys.pem.lines().filter(|line| !line.starts_with("--")).collect();
    for secret in [&key[..40], &key[24..60], "PRIVATE KEY", "secret sauce"] {
        assert!(!log.contains(secret), "the log has {secret:?}");
    }
    let stored = fs::metadata(world.path("data/control.db")).unwrap().permissions().mode() & 0o777;
    assert_eq!(stored, 0o600, "where the keys are");
}

/// `ProtectSystem=strict`, `User=`, no capabilities, `NoNewPrivileges`, `LimitMEMLOCK`, `PrivateTmp`: what the unit asks of systemd,
/// made by hand. Arguments: directory of the world, then the server and its arguments.
const AS_IN_THE_UNIT: &str = "
    mount --make-rprivate / && mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro / && cd \"$1\" && shift &&
    exec setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all \
        prlimit --memlock=8388608 --nofile=4096 --core=0 \"$@\"";

#[test]
fn it_serves_under_the_restrictions_of_the_unit() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can take away so much");
        return;
    }
    let mut world = world();
    fs::set_permissions(world.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_mailrail"), world.path("mailrail")).unwrap();
    fs::create_dir(world.path("data")).unwrap();
    std::os::unix::fs::chown(world.path("data"), Some(65534), Some(65534)).unwrap();
    world.configure(&[]);
    let dir = world.dir.path().display().to_string();
    world.within = ["unshare", "--mount", "sh", "-ec", AS_IN_THE_UNIT, "sh", &dir].map(String::from).to_vec();
    world.binary = world.path("mailrail");
    world.start();
    world.apply(FLEET);
    for _ in 0..5 {
        world.submit(&["b@one.test"], MESSAGE);
    }
    world.deliveries(0, 5);
    world.drained();
    for (name, value) in [("CapEff:", "0000000000000000"), ("CapBnd:", "0000000000000000"), ("Uid:", "65534")] {
        let found = status_of_threads(&world, name);
        assert!(found.iter().all(|found| found.split_whitespace().next() == Some(value)), "{name} {found:?}");
    }
    let root = format!("/proc/{}/root", world.pid());
    let written = fs::write(format!("{root}/var/tmp/mailrail-was-here"), "");
    assert_eq!(written.unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    world.stop();
    world.start();
    world.stop();
}

#[test]
fn started_as_root_it_becomes_the_user_of_the_configuration() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can become somebody else");
        return;
    }
    let mut world = world();
    fs::set_permissions(world.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    world.configure(&[("", "user = \"nobody\"")]);
    world.start();
    world.apply(FLEET);
    world.submit(&["b@one.test"], MESSAGE);
    world.deliveries(0, 1);
    for (name, value) in [("Uid:", "65534\t65534\t65534\t65534"), ("CapEff:", "0000000000000000"), ("Seccomp:", "2")] {
        let found = status_of_threads(&world, name);
        assert!(found.iter().all(|found| found == value), "{name} {found:?}");
    }
    let groups = status_of_threads(&world, "Groups:");
    assert!(groups.iter().all(|groups| groups == "65534" || groups.is_empty()), "{groups:?}");
    world.stop();
}
