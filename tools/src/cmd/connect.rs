//! How a command finds the server: `--socket`, `MAILRAIL_SOCKET`, or the configuration.

use super::{Failure, config::Which};
use crate::client::Client;
use std::{path::PathBuf, time::Duration};

/// Where the server is.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Connect {
    /// Control socket of the server
    #[arg(long, value_name = "PATH", env = "MAILRAIL_SOCKET")]
    pub(crate) socket: Option<PathBuf>,
    #[command(flatten)]
    which: Which,
    /// Give up after so many seconds without an answer
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: u64,
}

impl Connect {
    /// A client for the server these options name.
    ///
    /// # Errors
    /// No socket is named, and there is no configuration that names one.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let named = match &self.socket {
            Some(socket) => Some(socket.clone()),
            None => self.which.socket()?,
        };
        let Some(socket) = named else {
            return Err(Failure::Usage(
                "name the server's control socket with --socket or MAILRAIL_SOCKET, or its configuration with --config"
                    .into(),
            ));
        };
        Ok(Client::new(socket, Duration::from_secs(self.timeout))?)
    }
}
