//! SMTP without sockets: a server session and a client session as machines that take bytes and give bytes and actions.
//!
//! Nothing here may read a clock, draw a random number, block or touch a socket: the caller moves bytes, keeps time and
//! tells the machine what happened (`lost`, `timed_out`). One [`server::Server`] per client connection, one
//! [`client::Client`] per delivery connection; both keep their buffers from one message to the next.
//!
//! The parsers are our own and strict. `smtp-proto` 0.2.5 was tried: its request parser ends a command at a lone LF
//! (`NOOP\nQUIT` is two commands), ignores words after `DATA` and `BDAT 5 LAST`, takes a parameter twice, and decodes
//! `ENVID=a+0D+0A` to a CR and LF. The first lets two servers see two dialogues in the same bytes, which is what SMTP
//! smuggling lives on; the last would put a line end into a DSN. It also allocates for each command.

pub mod address;
mod auth;
mod bdat;
pub(crate) mod buffer;
pub mod client;
pub mod command;
pub mod data;
pub mod envelope;
mod flight;
pub mod letter;
pub mod outcome;
pub(crate) mod patience;
pub mod reply;
pub mod server;
mod session;
mod survey;
