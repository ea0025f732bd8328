//! The member's state on disk: a small file that is either the old one or the new one, never half.
//!
//! ```text
//! redfleet-state.json
//!   9f86d081…  (64 hexadecimal digits: SHA-256 of everything after this line)
//!   {"fleet": …, "promised": …}
//! ```
//!
//! Owns the file and the lock that keeps a second process out of the data directory. Invariant:
//! when [`StateFile::save`] returns, a crash of process or machine cannot bring the old state back.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use replset::MemberState;
use sha2::{Digest, Sha256};

const FILE: &str = "redfleet-state.json";
const NEW_FILE: &str = "redfleet-state.json.new";
const BAD_FILE: &str = "redfleet-state.json.bad";
const LOCK_FILE: &str = "redfleet.lock";

/// Why the state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// The system refused.
    #[error("cannot {doing} '{}': {source}; mend the rights or the disk of 'dir'", path.display())]
    Io {
        /// What was going on.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Two processes on one directory.
    #[error("another process uses the data directory '{}'; end it, or choose another 'dir'", dir.display())]
    InUse {
        /// Which.
        dir: PathBuf,
    },
    /// It cannot be written as text; nothing in it can cause that.
    #[error("cannot encode the member's state: {0}")]
    Encode(#[from] serde_json::Error),
}

/// The state file of one member.
#[derive(Debug)]
pub struct StateFile {
    dir: PathBuf,
    /// Held as long as the process lives.
    _lock: File,
}

impl StateFile {
    /// The file in this directory; keeps every other process out of it.
    pub fn open(dir: &Path) -> Result<Self, StateFileError> {
        let path = dir.join(LOCK_FILE);
        let failed = |source| StateFileError::Io {
            doing: "open",
            path: path.clone(),
            source,
        };
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        let lock = lock.map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                dir: dir.to_owned(),
                _lock: lock,
            }),
            Err(fs::TryLockError::WouldBlock) => Err(StateFileError::InUse {
                dir: dir.to_owned(),
            }),
            Err(fs::TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// The state; `None` if there is none, or none that can be trusted (then the member comes back
    /// as one that lost its memory, and the damaged file is kept aside).
    pub fn load(&self) -> Result<Option<MemberState>, StateFileError> {
        let path = self.dir.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => String::new(),
            Err(source) => {
                return Err(StateFileError::Io {
                    doing: "read",
                    path,
                    source,
                });
            }
        };
        if let Some(state) = decode(&text) {
            return Ok(Some(state));
        }
        let bad = self.dir.join(BAD_FILE);
        tracing::error!(kept = %bad.display(), "the state file is damaged: this member starts anew, without a vote");
        fs::rename(&path, &bad).map_err(|source| StateFileError::Io {
            doing: "rename",
            path,
            source,
        })?;
        Ok(None)
    }

    /// Writes the state; finished when it cannot be lost.
    pub fn save(&self, state: &MemberState) -> Result<(), StateFileError> {
        let text = encode(state)?;
        let (new, path) = (self.dir.join(NEW_FILE), self.dir.join(FILE));
        let failed = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| StateFileError::Io {
                doing,
                path,
                source,
            }
        };
        let mut file = File::create(&new).map_err(failed("create", &new))?;
        file.write_all(text.as_bytes())
            .map_err(failed("write", &new))?;
        file.sync_all().map_err(failed("sync", &new))?;
        fs::rename(&new, &path).map_err(failed("rename", &new))?;
        let dir = File::open(&self.dir).map_err(failed("open", &self.dir))?;
        dir.sync_all().map_err(failed("sync", &self.dir))
    }
}

fn digest(body: &str) -> String {
    Sha256::digest(body.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn encode(state: &MemberState) -> Result<String, StateFileError> {
    let body = serde_json::to_string_pretty(state)?;
    Ok(format!("{}\n{body}", digest(&body)))
}

fn decode(text: &str) -> Option<MemberState> {
    let (sum, body) = text.split_once('\n')?;
    if sum != digest(body) {
        return None;
    }
    serde_json::from_str(body).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use replset::{Incarnation, MemberId, Promised, Term};

    use super::*;

    fn state(term: u64) -> MemberState {
        let id = MemberId {
            name: "a".into(),
            incarnation: Incarnation(7),
        };
        let mut state = MemberState::new("f".into(), id);
        state.promised = Promised {
            term: Term(term),
            elector: Some("op".into()),
        };
        state
    }

    #[test]
    fn what_was_saved_last_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::open(dir.path()).unwrap();
        assert_eq!(file.load().unwrap(), None);
        file.save(&state(3)).unwrap();
        file.save(&state(4)).unwrap();
        assert_eq!(file.load().unwrap(), Some(state(4)));
    }

    #[test]
    fn a_damaged_file_is_amnesia_not_an_old_promise() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::open(dir.path()).unwrap();
        file.save(&state(4)).unwrap();
        let path = dir.path().join(FILE);
        let damaged = fs::read_to_string(&path)
            .unwrap()
            .replace("\"term\": 4", "\"term\": 3");
        fs::write(&path, damaged).unwrap();
        assert_eq!(file.load().unwrap(), None);
        assert!(dir.path().join(BAD_FILE).exists());
        fs::write(&path, [0xff, 0xfe, 0x00]).unwrap();
        assert_eq!(file.load().unwrap(), None);
    }

    #[test]
    fn a_second_process_is_kept_out() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateFile::open(dir.path()).unwrap();
        assert!(matches!(
            StateFile::open(dir.path()),
            Err(StateFileError::InUse { .. })
        ));
        drop(first);
        assert!(StateFile::open(dir.path()).is_ok());
    }

    proptest! {
        /// No bytes are taken for a promise but those that were written.
        #[test]
        fn a_file_with_a_changed_byte_is_never_believed(
            term: u64, at in any::<prop::sample::Index>(), to: u8, cut in any::<prop::sample::Index>(),
        ) {
            let good = encode(&state(term)).unwrap();
            prop_assert_eq!(decode(&good), Some(state(term)));
            let mut bytes = good.clone().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = to;
            if let Ok(text) = String::from_utf8(bytes) {
                prop_assert!(text == good || decode(&text).is_none());
            }
            let cut = cut.index(good.len());
            prop_assert_eq!(decode(&good[..cut]), None);
        }

        /// A body that is no state is none, even under a right sum.
        #[test]
        fn rubbish_with_a_right_sum_is_not_believed(body in "\\PC{0,200}") {
            prop_assert_eq!(decode(&body), None);
            prop_assert_eq!(decode(&format!("{}\n{body}", digest(&body))), None);
        }
    }
}
