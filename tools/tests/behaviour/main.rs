//! Behaviour of the real server, through its public doors: SMTP, control socket, command line. A file a behaviour.
//!
//! Every test has a world of its own: a server process, an embedded DNS, receivers on loopback, free ports.

#![allow(unreachable_pub, reason = "shared by the files of this test only")]

mod accept_and_deliver;
mod account_pools;
mod accounts;
mod admission;
mod auditing;
mod bouncing;
mod command_line;
mod control_store;
mod durability;
mod extensions;
mod full_disk;
mod hostile_clients;
mod hostile_dns;
mod hostile_receivers;
mod leasing;
mod managed;
mod mounts;
mod operating;
mod overload;
mod queue_operations;
mod rehearsing;
mod retrying;
mod routing;
mod security;
mod shaping;
mod smuggling;
mod spool_tools;
mod suppressing;
mod tls;
mod warming;
mod world;
