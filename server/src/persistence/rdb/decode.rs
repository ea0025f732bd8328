//! Snapshot bytes → entries, trusting nothing.
//!
//! Owns the walk over the file's sections. Called with a source of bytes (a file, or the socket of
//! a master) and a [`Sink`] that takes the entries; the sink collects them aside, so that an error
//! at any byte leaves the old dataset as it was. Values are built by `build.rs`.
//!
//! A value of a type that this server does not have ends the load with the key's name; auxiliary
//! data that can be skipped (unknown facts, function libraries, module data that belong to no key)
//! are skipped and counted.

use std::io::Read;

use super::{
    build,
    error::RdbError,
    format::{self, types},
    reader::Reader,
};
use crate::keyspace::types::{EncodingLimits, value::Value};

/// Takes what the loader finds, in the order of the file.
pub trait Sink {
    /// Entries that follow belong to this database (the first, if never called).
    fn select_db(&mut self, db: u32) -> Result<(), RdbError>;

    /// How many keys the file says the database has; a hint by an untrusted source.
    fn resize_hint(&mut self, keys: u64, with_expiry: u64);

    /// One key. `expire_at_ms` is its deadline in Unix milliseconds, which may have passed.
    fn entry(
        &mut self,
        key: &[u8],
        value: Value,
        expire_at_ms: Option<i64>,
    ) -> Result<(), RdbError>;

    /// A fact about the file, such as `repl-id`.
    fn aux(&mut self, name: &[u8], value: &[u8]);
}

/// Who wrote the file, and its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Redis, or Valkey up to 8.1.
    Redis(u32),
    /// Valkey from 9.0 on.
    Valkey(u32),
}

/// What a load found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Who wrote it.
    pub format: Format,
    /// Keys given to the sink.
    pub keys: u64,
    /// Keys without elements, which Redis too leaves out.
    pub empty_keys_skipped: u64,
    /// Function libraries, which this server cannot run.
    pub functions_skipped: u64,
    /// Module data that belong to no key.
    pub module_data_skipped: u64,
}

/// Reads the first bytes and says whether this server can load what follows.
pub fn read_header<R: Read>(reader: &mut Reader<R>) -> Result<Format, RdbError> {
    let magic = reader.array::<{ format::MAGIC_BYTES }>()?;
    let number = |digits: &[u8]| {
        let valid = digits.iter().all(u8::is_ascii_digit);
        valid.then(|| {
            digits
                .iter()
                .fold(0, |n, digit| n * 10 + u32::from(digit - b'0'))
        })
    };
    let shown = || String::from_utf8_lossy(&magic).into_owned();
    if let Some(digits) = magic.strip_prefix(b"REDIS") {
        match number(digits) {
            Some(version @ 1..=format::MAX_REDIS_VERSION) => Ok(Format::Redis(version)),
            Some(_) => Err(RdbError::Version(shown())),
            None => Err(RdbError::Magic(shown())),
        }
    } else if let Some(digits) = magic.strip_prefix(b"VALKEY") {
        match number(digits) {
            Some(format::VALKEY_VERSION) => Ok(Format::Valkey(format::VALKEY_VERSION)),
            Some(_) => Err(RdbError::Version(shown())),
            None => Err(RdbError::Magic(shown())),
        }
    } else {
        Err(RdbError::Magic(shown()))
    }
}

/// Loads a whole file from `reader`, up to and including its checksum.
pub fn load<R: Read>(
    reader: &mut Reader<R>,
    limits: &EncodingLimits,
    sink: &mut dyn Sink,
) -> Result<Summary, RdbError> {
    let format = read_header(reader)?;
    let mut loader = Loader {
        reader,
        limits,
        sink,
        db: 0,
        key: Vec::new(),
        expire_at_ms: None,
        summary: Summary {
            format,
            keys: 0,
            empty_keys_skipped: 0,
            functions_skipped: 0,
            module_data_skipped: 0,
        },
    };
    while loader.section()? == Step::More {}
    let summary = loader.summary;
    verify_checksum(reader, format)?;
    Ok(summary)
}

/// Compares the checksum that follows the EOF opcode, unless it is zero or nobody wants to know.
fn verify_checksum<R: Read>(reader: &mut Reader<R>, format: Format) -> Result<(), RdbError> {
    match format {
        Format::Redis(version) if version < format::FIRST_CHECKSUM_VERSION => return Ok(()),
        Format::Redis(_) | Format::Valkey(_) => {}
    }
    let computed = reader.checksum();
    let expected = u64::from_le_bytes(reader.array()?);
    match computed {
        Some(computed) if expected != 0 && expected != computed => {
            Err(RdbError::Checksum { expected, computed })
        }
        Some(_) | None => Ok(()),
    }
}

#[derive(PartialEq, Eq)]
enum Step {
    More,
    End,
}

struct Loader<'a, R> {
    reader: &'a mut Reader<R>,
    limits: &'a EncodingLimits,
    sink: &'a mut dyn Sink,
    db: u32,
    key: Vec<u8>,
    /// Deadline of the key that follows.
    expire_at_ms: Option<i64>,
    summary: Summary,
}

impl<R: Read> Loader<'_, R> {
    /// One opcode with its operands, or one key with its value.
    fn section(&mut self) -> Result<Step, RdbError> {
        match self.reader.byte()? {
            format::OP_EOF => return Ok(Step::End),
            format::OP_SELECT_DB => {
                let db = self.reader.length()?;
                self.db = u32::try_from(db).map_err(|_| self.reader.corrupt("database number"))?;
                self.sink.select_db(self.db)?;
            }
            format::OP_RESIZE_DB => {
                let keys = self.reader.length()?;
                let with_expiry = self.reader.length()?;
                self.sink.resize_hint(keys, with_expiry);
            }
            format::OP_SLOT_INFO => {
                for _ in 0..3 {
                    self.reader.length()?;
                }
            }
            format::OP_AUX => {
                let name = self.reader.string()?;
                let value = self.reader.string()?;
                self.sink.aux(&name, &value);
            }
            format::OP_EXPIRE_MS => {
                self.expire_at_ms = Some(i64::from_le_bytes(self.reader.array()?));
            }
            format::OP_EXPIRE_SECONDS => {
                let seconds = i32::from_le_bytes(self.reader.array()?);
                self.expire_at_ms = Some(i64::from(seconds) * 1000);
            }
            format::OP_FREQUENCY => {
                self.reader.byte()?;
            }
            format::OP_IDLE => {
                self.reader.length()?;
            }
            format::OP_FUNCTION => {
                self.reader.skip_string()?;
                self.summary.functions_skipped += 1;
            }
            format::OP_MODULE_AUX => {
                self.skip_module_data()?;
                self.summary.module_data_skipped += 1;
            }
            format::OP_FUNCTION_PRE_GA => {
                return Err(self
                    .reader
                    .corrupt("a function library of a release candidate"));
            }
            format::OP_SLOT_IMPORT => {
                return Err(self.reader.corrupt("a cluster slot that is being imported"));
            }
            type_byte => self.key_and_value(type_byte)?,
        }
        Ok(Step::More)
    }

    fn key_and_value(&mut self, type_byte: u8) -> Result<(), RdbError> {
        let expire_at_ms = self.expire_at_ms.take();
        self.reader.string_into(&mut self.key)?;
        let value = match build::value(self.reader, type_byte, self.summary.format, self.limits)? {
            build::Built::Value(value) => value,
            build::Built::Empty => {
                self.summary.empty_keys_skipped += 1;
                return Ok(());
            }
            build::Built::Unsupported => {
                return Err(RdbError::UnsupportedType {
                    key: printable(&self.key),
                    db: self.db,
                    what: types::name(type_byte),
                    type_byte,
                });
            }
        };
        self.summary.keys += 1;
        self.sink.entry(&self.key, value, expire_at_ms)
    }

    /// Skips a module's data: a row of tagged values that ends with tag 0.
    fn skip_module_data(&mut self) -> Result<(), RdbError> {
        let _module_id = self.reader.length()?;
        loop {
            match self.reader.length()? {
                0 => return Ok(()),
                1 | 2 => {
                    self.reader.length()?;
                }
                3 => {
                    self.reader.array::<4>()?;
                }
                4 => {
                    self.reader.array::<8>()?;
                }
                5 => self.reader.skip_string()?,
                _ => return Err(self.reader.corrupt("unknown part of a module's data")),
            }
        }
    }
}

/// A key as a message shows it: at most 64 bytes, escaped.
fn printable(key: &[u8]) -> String {
    const MAX_SHOWN_BYTES: usize = 64;
    let cut = key.get(..MAX_SHOWN_BYTES);
    let mut text = cut.unwrap_or(key).escape_ascii().to_string();
    if cut.is_some_and(|cut| cut.len() < key.len()) {
        text.push('…');
    }
    text
}
