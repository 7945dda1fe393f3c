//! The filter forbids what it says, and leaves what a server needs. One test, as it holds for the whole process.

use mailrail_engine::{privileges, sandbox};
use std::{
    fs,
    io::ErrorKind,
    net::{TcpListener, TcpStream},
    process::Command,
    sync::mpsc,
    thread,
};

#[test]
fn programs_and_new_code_are_forbidden_and_the_work_of_a_server_goes_on() {
    // A thread from before: it is held by the filter, too.
    let (ask, asked) = mpsc::channel::<()>();
    let before = thread::spawn(move || {
        let _ = asked.recv();
        Command::new("true").status().map_err(|error| error.kind())
    });
    assert!(Command::new("true").status().is_ok_and(|status| status.success()), "before, programs can be started");
    privileges::confine();
    if let Err(error) = sandbox::enter() {
        eprintln!("SKIPPED: {error}");
        return;
    }
    ask.send(()).unwrap();
    assert_eq!(before.join().unwrap().unwrap_err(), ErrorKind::PermissionDenied);
    assert_eq!(Command::new("true").status().unwrap_err().kind(), ErrorKind::PermissionDenied);
    let code = memmap2::MmapMut::map_anon(4096).unwrap();
    assert_eq!(code.make_exec().unwrap_err().kind(), ErrorKind::PermissionDenied);
    let packet = rustix::net::socket(rustix::net::AddressFamily::PACKET, rustix::net::SocketType::DGRAM, None);
    assert_eq!(packet.unwrap_err(), rustix::io::Errno::PERM);
    assert_eq!(nix::unistd::setuid(nix::unistd::Uid::current()).unwrap_err(), nix::errno::Errno::EPERM);
    assert!(nix::unistd::chroot("/").is_err());

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = thread::spawn(move || TcpStream::connect(address).is_ok());
    listener.accept().unwrap();
    assert!(client.join().unwrap(), "threads and sockets are as before");
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("mail"), "x").unwrap();
    assert!(fs::read_to_string("/proc/self/status").unwrap().contains("Seccomp:\t2"));
}
