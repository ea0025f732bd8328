//! The snapshot on its way from the master: how long it is, and where it ends.
//!
//! Owns the line before the snapshot (`$<length>` or `$EOF:<40 bytes>`) and [`Payload`], a reader
//! that gives exactly the snapshot's bytes to the loader, so that the loader's own buffer never
//! takes bytes of the stream behind it.

use std::io::{self, Read};

use thiserror::Error;

/// Length of the mark that ends a snapshot of unknown length.
pub const MARK_BYTES: usize = 40;

/// How the snapshot's end is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes.
    Length(u64),
    /// The snapshot's own end, then these bytes.
    Mark([u8; MARK_BYTES]),
}

/// Why a transfer ends early.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TransferError {
    /// The master has no snapshot to give.
    #[error("the master aborted the synchronization: {0}")]
    Aborted(String),
    /// The line before the snapshot has another form.
    #[error("expected the length of a snapshot, got {0}")]
    Header(String),
    /// The bytes behind the snapshot are not the mark.
    #[error("the snapshot does not end where the master said")]
    End,
}

/// Reads the line before the snapshot; `None` for an empty line, which only keeps the link alive.
pub fn header(line: &[u8]) -> Result<Option<Framing>, TransferError> {
    let shown = || line[..line.len().min(200)].escape_ascii().to_string();
    match line {
        [] => Ok(None),
        [b'-', ..] => Err(TransferError::Aborted(shown())),
        [b'$', b'E', b'O', b'F', b':', mark @ ..] => {
            let mark = mark
                .try_into()
                .map_err(|_| TransferError::Header(shown()))?;
            Ok(Some(Framing::Mark(mark)))
        }
        [b'$', digits @ ..] => resp::parse_i64(digits)
            .and_then(|length| u64::try_from(length).ok())
            .map(|length| Some(Framing::Length(length)))
            .ok_or_else(|| TransferError::Header(shown())),
        _ => Err(TransferError::Header(shown())),
    }
}

/// Gives the bytes of a snapshot of known length and not one more; for the other framing the bytes
/// as they come, since only the loader knows where they end.
pub struct Payload<R> {
    source: R,
    left: Option<u64>,
}

impl<R: Read> Payload<R> {
    /// Reads the snapshot that `source` holds next.
    pub fn new(source: R, framing: Framing) -> Self {
        let left = match framing {
            Framing::Length(length) => Some(length),
            Framing::Mark(_) => None,
        };
        Self { source, left }
    }

    /// The source, and how many bytes of the announced length were not read.
    pub fn into_parts(self) -> (R, u64) {
        (self.source, self.left.unwrap_or(0))
    }
}

impl<R: Read> Read for Payload<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(left) = &mut self.left else {
            return self.source.read(buffer);
        };
        let most = usize::try_from(*left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let count = self.source.read(&mut buffer[..most])?;
        *left -= count as u64;
        Ok(count)
    }
}

/// Checks the end of a snapshot framed by a mark: `rest` are the bytes that the loader's buffer
/// took beyond the snapshot. Returns the bytes of the stream among them.
pub fn take_mark<R: Read>(
    mark: &[u8; MARK_BYTES],
    mut rest: Vec<u8>,
    source: &mut R,
) -> io::Result<Result<Vec<u8>, TransferError>> {
    if rest.len() < MARK_BYTES {
        let have = rest.len();
        rest.resize(MARK_BYTES, 0);
        source.read_exact(&mut rest[have..])?;
    }
    let stream = rest.split_off(MARK_BYTES);
    Ok(if rest == mark {
        Ok(stream)
    } else {
        Err(TransferError::End)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MARK: &[u8; MARK_BYTES] = b"0123456789012345678901234567890123456789";

    #[test]
    fn both_framings_are_read() {
        assert_eq!(header(b"$1000"), Ok(Some(Framing::Length(1000))));
        let line = [&b"$EOF:"[..], MARK].concat();
        assert_eq!(header(&line), Ok(Some(Framing::Mark(*MARK))));
        assert_eq!(header(b""), Ok(None));
        for line in [
            &b"$-1"[..],
            b"$EOF:short",
            b"$",
            b"+OK",
            b"$9999999999999999999999",
        ] {
            assert!(header(line).is_err());
        }
        assert!(matches!(header(b"-ERR no"), Err(TransferError::Aborted(_))));
    }

    #[test]
    fn a_payload_of_known_length_leaves_the_stream_alone() {
        let mut source = &b"snapshotSTREAM"[..];
        let mut payload = Payload::new(&mut source, Framing::Length(8));
        let mut out = Vec::new();
        payload.read_to_end(&mut out).unwrap();
        assert_eq!(out, b"snapshot");
        assert_eq!(payload.into_parts().1, 0);
        assert_eq!(source, b"STREAM");
    }

    #[test]
    fn the_mark_must_follow_the_snapshot() {
        for split in 0..=MARK_BYTES {
            let mut source = &MARK[split..];
            let taken = take_mark(MARK, MARK[..split].to_vec(), &mut source).unwrap();
            assert_eq!(taken, Ok(Vec::new()));
        }
        let rest = [&MARK[..], b"*1\r\n"].concat();
        assert_eq!(
            take_mark(MARK, rest, &mut io::empty()).unwrap(),
            Ok(b"*1\r\n".to_vec())
        );
        let wrong = take_mark(MARK, vec![b'x'; 50], &mut io::empty()).unwrap();
        assert_eq!(wrong, Err(TransferError::End));
    }

    proptest! {
        #[test]
        fn any_line_before_a_snapshot_is_read_or_refused(
            line in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..60),
                "[$]-?[0-9]{0,25}".prop_map(String::into_bytes),
                prop::collection::vec(any::<u8>(), 38..43).prop_map(|mark| [b"$EOF:", mark.as_slice()].concat()),
            ],
        ) {
            match header(&line) {
                Ok(Some(Framing::Length(length))) => prop_assert!(i64::try_from(length).is_ok()),
                Ok(Some(Framing::Mark(mark))) => prop_assert_eq!(&line[5..], &mark[..]),
                Ok(None) => prop_assert!(line.is_empty()),
                Err(error) => prop_assert!(error.to_string().len() < 1000),
            }
        }

        #[test]
        fn what_follows_a_snapshot_is_its_mark_or_refused(
            behind in prop::collection::vec(any::<u8>(), 0..100), good: bool, taken in 0usize..150,
        ) {
            let bytes = if good { [&MARK[..], &behind].concat() } else { behind };
            let (rest, mut source) = bytes.split_at(taken.min(bytes.len()));
            match take_mark(MARK, rest.to_vec(), &mut source) {
                Ok(Ok(stream)) => {
                    prop_assert_eq!([&MARK[..], &stream, source].concat(), bytes);
                }
                Ok(Err(_)) => prop_assert!(!bytes.starts_with(MARK)),
                Err(_) => prop_assert!(bytes.len() < MARK_BYTES),
            }
        }
    }
}
