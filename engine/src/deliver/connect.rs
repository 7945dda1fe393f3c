//! Opening a connection to a mail host from a leased IP.

use glommio::net::TcpStream;
use socket2_04::{Domain, Protocol, SockAddr, Socket, Type};
use std::{
    io,
    net::{IpAddr, SocketAddr},
};

/// Starts a connection from `lease` to `host`; does not wait for it. The first read tells how it went.
///
/// # Errors
/// What the kernel says at once: the host has lost the leased address, no route, no descriptor left.
pub(crate) fn start(lease: IpAddr, host: SocketAddr) -> io::Result<TcpStream> {
    let domain = if host.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    // Each write is a whole group of commands or a whole message: waiting for more would only add delay.
    socket.set_nodelay(true)?;
    socket.bind(&SockAddr::from(SocketAddr::new(lease, 0)))?;
    match socket.connect(&SockAddr::from(host)) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from(socket))
}

/// The first address of `addresses` that `lease` can reach: a leased IP speaks only its own family.
pub(crate) fn same_family(lease: IpAddr, addresses: &[IpAddr]) -> impl Iterator<Item = IpAddr> + '_ {
    addresses.iter().copied().filter(move |address| address.is_ipv4() == lease.is_ipv4())
}
