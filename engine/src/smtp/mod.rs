//! SMTP without sockets: a server session and a client session as machines that take bytes and give bytes and actions.
//!
//! Nothing here may read a clock, draw a random number, block or touch a socket: the caller moves bytes, keeps time and
//! tells the machine what happened (`lost`, `timed_out`). One [`server::Server`] per client connection, one
//! [`client::Client`] per delivery connection; both keep their buffers from one message to the next.
//!
//! The parsers are our own and strict. `smtp-proto` was tried: its request parser ends a command at a lone LF, skips
//! control characters and takes words after an address that RFC 5321 does not know. Each of these lets two servers see two
//! different dialogues in the same bytes, which is what SMTP smuggling lives on.

pub mod address;
mod bdat;
mod buffer;
pub mod client;
pub mod command;
pub mod data;
pub mod envelope;
mod flight;
pub mod letter;
pub mod outcome;
pub mod reply;
pub mod server;
mod session;
