//! Behaviour of the real server, through its public doors: SMTP, control socket, command line. A file a behaviour.
//!
//! Every test has a world of its own: a server process, an embedded DNS, receivers on loopback, free ports.

#![allow(unreachable_pub, reason = "shared by the files of this test only")]

mod accept_and_deliver;
mod admission;
mod bouncing;
mod command_line;
mod durability;
mod extensions;
mod full_disk;
mod hostile_receivers;
mod operating;
mod retrying;
mod routing;
mod smuggling;
mod tls;
mod world;
