//! Structured logs by `tracing`, to standard output or a file, at the configured level.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use parking_lot::{Mutex, MutexGuard};
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
    let file = LogFile::open(path).map_err(|source| StartError::LogFile {
        path: path.clone(),
        source,
    })?;
    install(filter, file);
    Ok(())
}

/// The file that is appended to. It is opened anew for the next line when another file, or none, is at its path, so that
/// it can be renamed while the server runs (logrotate); Redis opens it for each line.
struct LogFile {
    path: PathBuf,
    open: Mutex<File>,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            open: Mutex::new(append_to(path)?),
        })
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Whether `file` is still what is at `path`.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let (open, named) = (file.metadata()?, std::fs::metadata(path)?);
    Ok((open.dev(), open.ino()) == (named.dev(), named.ino()))
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        let mut file = self.open.lock();
        if !is_at(&file, &self.path).unwrap_or(false)
            && let Ok(fresh) = append_to(&self.path)
        {
            *file = fresh;
        }
        // Where it cannot be opened the old one goes on: a line that can be found is better than none.
        Line(file)
    }
}

/// The turn of one line.
struct Line<'a>(MutexGuard<'a, File>);

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_log_that_was_renamed_or_removed_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.log");
        let renamed = folder.path().join("server.log.1");
        let log = LogFile::open(&path).unwrap();
        let line = |text: &str| log.make_writer().write_all(text.as_bytes()).unwrap();
        line("one\n");
        line("two\n");
        fs::rename(&path, &renamed).unwrap();
        line("three\n");
        assert_eq!(fs::read_to_string(&renamed).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
        fs::remove_file(&path).unwrap();
        line("four\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "four\n");
    }

    #[test]
    fn lines_that_have_no_place_any_more_go_where_the_last_one_went() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("logs");
        fs::create_dir(&inner).unwrap();
        let log = LogFile::open(&inner.join("server.log")).unwrap();
        let moved = folder.path().join("moved");
        fs::rename(&inner, &moved).unwrap();
        log.make_writer().write_all(b"line\n").unwrap();
        assert_eq!(
            fs::read_to_string(moved.join("server.log")).unwrap(),
            "line\n"
        );
    }
}
