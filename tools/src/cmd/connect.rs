//! How a command finds the server: `--socket` or `MAILRAIL_SOCKET`.

use super::Failure;
use crate::client::Client;
use std::{path::PathBuf, time::Duration};

/// Where the server is.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Connect {
    /// Control socket of the server
    #[arg(long, value_name = "PATH", env = "MAILRAIL_SOCKET")]
    pub(crate) socket: Option<PathBuf>,
    /// Give up after so many seconds without an answer
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: u64,
}

impl Connect {
    /// A client for the server these options name.
    ///
    /// # Errors
    /// No socket is named.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let Some(socket) = self.socket.clone() else {
            return Err(Failure::Usage("name the server's control socket with --socket or MAILRAIL_SOCKET".into()));
        };
        Ok(Client::new(socket, Duration::from_secs(self.timeout))?)
    }
}
