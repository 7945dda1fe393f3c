//! Which configuration a command is about: `--config`, or the first of the usual files.

use super::Failure;
use crate::ui;
use mailrail_engine::config::Config;
use std::path::PathBuf;

/// The configuration file.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Which {
    /// Configuration file [default: the first of ./mailrail.toml, ~/.config/mailrail/mailrail.toml, /etc/mailrail/mailrail.toml]
    #[arg(long, value_name = "FILE", env = "MAILRAIL_CONFIG")]
    pub(crate) config: Option<PathBuf>,
}

impl Which {
    /// Reads and checks it; says which one it took where none was named.
    ///
    /// # Errors
    /// One line: what is wrong, where, and what to do.
    pub(crate) fn load(&self) -> Result<Config, Failure> {
        let wrong = |error: mailrail_engine::config::ConfigError| Failure::Usage(error.to_string());
        let path = match &self.config {
            Some(path) => path.clone(),
            None => {
                let found = Config::search().map_err(wrong)?;
                ui::note(&format!("using {}", found.display()));
                found
            }
        };
        Config::load(&path).map_err(wrong)
    }

    /// The control socket that it names; none if there is no configuration.
    ///
    /// # Errors
    /// There is one, and it is wrong.
    pub(crate) fn socket(&self) -> Result<Option<PathBuf>, Failure> {
        let path = match &self.config {
            Some(path) => path.clone(),
            None => match Config::search() {
                Ok(path) => path,
                Err(_) => return Ok(None),
            },
        };
        let config = Config::load(&path).map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(Some(config.control.socket))
    }
}
