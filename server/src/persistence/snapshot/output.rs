//! The files that a snapshot's bytes go to: that of the next start, and one for replicas that must know the length
//! first.
//!
//! Each output takes chunks on the snapshot's thread. One that fails is dropped with its reason;
//! the others go on. Links: `feed.rs`.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    SnapshotError,
    feed::{self, Alive, Feeder},
};
use crate::replication::identity::History;

/// Bytes after which a file's pages are written out, so that the last sync is short.
const SYNC_EVERY_BYTES: u64 = 32 * 1024 * 1024;
/// Bytes of a chunk that is read back from a file.
const READ_BACK_BYTES: usize = 256 * 1024;

/// Answers whoever asked for a save.
pub type Done = oneshot::Sender<Result<(), SnapshotError>>;

/// The file that the next start loads.
pub struct SaveFile {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
    unsynced: u64,
}

impl SaveFile {
    /// Opens a temporary file beside `target`.
    pub fn create(target: PathBuf) -> Result<Self, SnapshotError> {
        let temporary = target.with_file_name(format!("temp-{}.rdb", std::process::id()));
        let file = File::create(&temporary).map_err(SnapshotError::file(&temporary))?;
        Ok(Self {
            file,
            temporary,
            target,
            unsynced: 0,
        })
    }

    /// Appends a chunk.
    pub fn write(&mut self, chunk: &[u8]) -> Result<(), SnapshotError> {
        let mut written = self.file.write_all(chunk);
        self.unsynced += chunk.len() as u64;
        if self.unsynced >= SYNC_EVERY_BYTES {
            self.unsynced = 0;
            written = written.and_then(|()| self.file.sync_data());
        }
        written.map_err(SnapshotError::file(&self.temporary))
    }

    /// Puts the complete file in the place of the old one, durably.
    pub fn finish(self) -> Result<(), SnapshotError> {
        self.file
            .sync_all()
            .map_err(SnapshotError::file(&self.temporary))?;
        fs::rename(&self.temporary, &self.target).map_err(SnapshotError::file(&self.target))?;
        let folder = match self.target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            Some(_) | None => Path::new("."),
        };
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(SnapshotError::file(folder))
    }

    /// Removes what was written so far.
    pub fn discard(self) {
        if let Err(error) = fs::remove_file(&self.temporary) {
            tracing::warn!(path = %self.temporary.display(), %error, "a temporary file stays");
        }
    }
}

/// A file without a name, for replicas that must be told the length first.
pub struct Spool {
    file: File,
    length: u64,
    path: PathBuf,
}

impl Spool {
    /// Opens it in `folder`; the name is removed at once, so a crash leaves nothing behind.
    pub fn create(folder: &Path) -> Result<Self, SnapshotError> {
        let path = folder.join(format!("temp-repl-{}.rdb", std::process::id()));
        let mut options = File::options();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path);
        let file = file.map_err(SnapshotError::file(&path))?;
        fs::remove_file(&path).map_err(SnapshotError::file(&path))?;
        Ok(Self {
            file,
            length: 0,
            path,
        })
    }

    /// Appends a chunk.
    pub fn write(&mut self, chunk: &[u8]) -> Result<(), SnapshotError> {
        self.length += chunk.len() as u64;
        self.file
            .write_all(chunk)
            .map_err(SnapshotError::file(&self.path))
    }

    /// Gives the complete bytes to each waiting replica.
    pub fn serve(self, history: &History, waiting: Vec<feed::Reply>) {
        let Self { file, length, .. } = self;
        let file = Arc::new(file);
        for reply in waiting {
            let Some(feeder) = Feeder::begin(history, Some(length), reply) else {
                continue;
            };
            let file = file.clone();
            let reader = thread::Builder::new().name("snapshot-feed".to_owned());
            let work = move || {
                let outcome = read_back(&file, length, &feeder);
                feeder.end(outcome);
            };
            if let Err(error) = reader.spawn(work) {
                tracing::warn!(%error, "no thread to feed a replica");
            }
        }
    }
}

fn read_back(file: &File, length: u64, feeder: &Feeder) -> Result<(), SnapshotError> {
    let mut at = 0;
    while at < length {
        let mut chunk = vec![0; READ_BACK_BYTES];
        let count = match file.read_at(&mut chunk, at) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => Ok(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let count = count.map_err(SnapshotError::file(Path::new("snapshot for replicas")))?;
        chunk.truncate(count);
        at += count as u64;
        if feeder.send(Bytes::from(chunk)) == Alive::No {
            break;
        }
    }
    Ok(())
}
