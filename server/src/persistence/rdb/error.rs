//! Why a snapshot cannot be loaded.

use std::io;

use thiserror::Error;

/// A refusal by the loader. Nothing of the old dataset has been touched when it comes.
#[derive(Debug, Error)]
pub enum RdbError {
    /// The source failed.
    #[error("reading the snapshot at byte {at}: {source}")]
    Read {
        /// Bytes taken before.
        at: u64,
        /// What the source said.
        source: io::Error,
    },
    /// The source ended too early.
    #[error("the snapshot ends in the middle, at byte {at}")]
    Truncated {
        /// Bytes taken before.
        at: u64,
    },
    /// The first bytes are not those of a snapshot.
    #[error("not an RDB file: it begins with {0:?}")]
    Magic(String),
    /// A version from the future.
    #[error("cannot load RDB version {0}: 1 to 12 of Redis and 80 of Valkey are known")]
    Version(String),
    /// The bytes contradict the format.
    #[error("corrupt snapshot before byte {at}: {what}")]
    Corrupt {
        /// Bytes taken before.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A value that this server has no type for.
    #[error(
        "key '{key}' in database {db} holds a {what} (RDB type {type_byte}), which this server cannot store"
    )]
    UnsupportedType {
        /// The key, made printable.
        key: String,
        /// Its database.
        db: u32,
        /// What the type is.
        what: &'static str,
        /// The byte in the file.
        type_byte: u8,
    },
    /// The checksum at the end differs.
    #[error(
        "wrong checksum: the file says {expected:016x}, its bytes give {computed:016x}; 'rdbchecksum no' loads it as it is"
    )]
    Checksum {
        /// What the file says.
        expected: u64,
        /// What its bytes give.
        computed: u64,
    },
    /// The receiver of the entries refused one.
    #[error("loading the snapshot: {0}")]
    Refused(String),
}
