//! Log format and filter.

use thiserror::Error;
use tracing_subscriber::{EnvFilter, filter::ParseError, fmt};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    #[default]
    Json,
}

/// Why the logger could not be installed.
#[derive(Debug, Error)]
pub enum LoggingError {
    /// The filter cannot be understood.
    #[error("the log filter {filter:?}: {source}")]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// There is one already.
    #[error("a logger is installed already: {0}")]
    Installed(String),
}

/// Installs the process's subscriber. `filter` has the syntax of `RUST_LOG`.
///
/// # Errors
/// When the filter cannot be parsed or a subscriber is installed already.
pub fn install(format: LogFormat, filter: &str) -> Result<(), LoggingError> {
    let parsed = EnvFilter::try_new(filter).map_err(|source| LoggingError::Filter {
        filter: filter.to_owned(),
        source,
    })?;
    let builder = fmt().with_env_filter(parsed).with_writer(std::io::stderr);
    let installed = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    installed.map_err(|error| LoggingError::Installed(error.to_string()))
}
