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

/// How the names of temporary files begin, as in Redis; the id of the process follows.
const PREFIX: &str = "temp-";
/// How they end.
const SUFFIX: &str = ".rdb";
/// What stands before the id where the file is for replicas.
const SPOOL_INFIX: &str = "repl-";

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
        let temporary = temporary(&target);
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

    /// Puts the complete file in the place of the old one, durably. Where that fails nothing is left of it.
    pub fn finish(self) -> Result<(), SnapshotError> {
        if let Err(error) = self.put_in_place() {
            self.discard();
            return Err(error);
        }
        let folder = folder(&self.target);
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(SnapshotError::file(folder))
    }

    fn put_in_place(&self) -> Result<(), SnapshotError> {
        self.file
            .sync_all()
            .map_err(SnapshotError::file(&self.temporary))?;
        fs::rename(&self.temporary, &self.target).map_err(SnapshotError::file(&self.target))
    }

    /// Removes what was written so far.
    pub fn discard(self) {
        remove(&self.temporary);
    }
}

/// Where this process writes the snapshot that will be `target`.
fn temporary(target: &Path) -> PathBuf {
    target.with_file_name(format!("{PREFIX}{}{SUFFIX}", std::process::id()))
}

fn folder(target: &Path) -> &Path {
    match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a temporary file stays");
        }
    }
}

/// Removes what this process has written of a snapshot that will not be completed. To be called while none is taken: before
/// the first, or at the end of the process.
pub fn remove_unfinished(target: &Path) {
    remove(&temporary(target));
}

/// Removes what other processes have left of theirs beside `target`. To be called by who knows that they have ended.
pub fn remove_leftovers(target: &Path) {
    let folder = folder(target);
    let files = match fs::read_dir(folder) {
        Ok(files) => files,
        Err(error) => {
            tracing::warn!(path = %folder.display(), %error, "temporary files may stay");
            return;
        }
    };
    let names = files.flatten().map(|file| file.file_name());
    for name in names.filter(|name| target.file_name() != Some(name)) {
        let writer = name.to_str().and_then(writer_of);
        if writer.is_some_and(|writer| writer != std::process::id()) {
            remove(&folder.join(name));
        }
    }
}

/// The process that writes, or wrote, a temporary file of this name.
fn writer_of(name: &str) -> Option<u32> {
    let writer = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    writer
        .strip_prefix(SPOOL_INFIX)
        .unwrap_or(writer)
        .parse()
        .ok()
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
        let name = format!("{PREFIX}{SPOOL_INFIX}{}{SUFFIX}", std::process::id());
        let path = folder.join(name);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let files = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_save_that_cannot_be_put_in_place_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("dump.rdb");
        let mut file = SaveFile::create(target.clone()).unwrap();
        file.write(b"data").unwrap();
        assert_eq!(names(folder.path()).len(), 1);
        fs::create_dir(&target).unwrap();
        assert!(file.finish().is_err());
        assert_eq!(names(folder.path()), ["dump.rdb"]);
    }

    #[test]
    fn only_what_other_processes_wrote_of_snapshots_is_left_over() {
        let folder = tempfile::tempdir().unwrap();
        let own = format!("temp-{}.rdb", std::process::id());
        let all = ["temp-0.rdb", "temp-4000000000.rdb", "temp-repl-7.rdb"];
        let kept = [&*own, "temp-9.rdb", "temp-9.rdb.old", "temp-mine.rdb"];
        for name in all.iter().chain(&kept) {
            fs::write(folder.path().join(name), "data").unwrap();
        }
        let target = folder.path().join("temp-9.rdb");
        remove_leftovers(&target);
        let mut kept = kept.map(str::to_owned);
        kept.sort();
        assert_eq!(names(folder.path()), kept);
        remove_unfinished(&target);
        assert!(!names(folder.path()).contains(&own));
    }
}
