//! Structured logs by `tracing`, to standard output or a file, at the configured level.

use std::{fs::OpenOptions, sync::OnceLock};

use tracing_subscriber::{
    EnvFilter, Registry, fmt::MakeWriter, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

use crate::{
    config::{Config, LogLevel},
    server::StartError,
};

/// The way to change the filter of a running server.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Installs the subscriber. `RUST_LOG` overrides `loglevel`.
pub fn start(config: &Config) -> Result<(), StartError> {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(filter_of(config.log.level)));
    let Some(path) = &config.log.file else {
        install(filter, std::io::stdout);
        return Ok(());
    };
    let file = OpenOptions::new().create(true).append(true).open(path);
    let file = file.map_err(|source| StartError::LogFile {
        path: path.clone(),
        source,
    })?;
    install(filter, std::sync::Mutex::new(file));
    Ok(())
}

/// A subscriber that is already there (in tests) stays.
fn install<W>(filter: EnvFilter, writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(false);
    let installed = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init();
    if installed.is_ok() {
        // Only the subscriber that is installed has a filter worth changing.
        let _first = FILTER.set(handle);
    }
}

/// Changes the level of a running server.
pub fn set_level(level: LogLevel) {
    if let Some(handle) = FILTER.get()
        && let Err(error) = handle.reload(EnvFilter::new(filter_of(level)))
    {
        tracing::warn!(%error, "the log level could not be changed");
    }
}

/// The filter of a `loglevel`; libraries stay at warnings.
fn filter_of(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Debug => "warn,redfleet_server=trace",
        LogLevel::Verbose => "warn,redfleet_server=debug",
        LogLevel::Notice => "warn,redfleet_server=info",
        LogLevel::Warning => "warn",
        LogLevel::Nothing => "off",
    }
}
