//! Buffers that the connections of one I/O thread share: only one of them runs at a time.

use std::cell::RefCell;

use crate::input::Batch;

/// Bytes taken from a socket at once.
const READ_BYTES: usize = 64 * 1024;
/// An output buffer that has grown beyond this is given back to the allocator.
const KEEP_OUTPUT_BYTES: usize = 1024 * 1024;

/// One thread's buffers.
pub struct Scratch {
    /// Filled by a read, consumed by the batch that follows.
    pub input: Box<[u8]>,
    /// Replies of the present batch.
    pub output: Vec<u8>,
    /// The requests of the present batch.
    pub batch: Batch,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        input: vec![0; READ_BYTES].into_boxed_slice(),
        output: Vec::new(),
        batch: Batch::default(),
    });
}

/// Lends this thread's buffers to `work`.
pub fn with<R>(work: impl FnOnce(&mut Scratch) -> R) -> R {
    SCRATCH.with(|scratch| {
        let mut scratch = scratch.borrow_mut();
        let result = work(&mut scratch);
        scratch.output.clear();
        if scratch.output.capacity() > KEEP_OUTPUT_BYTES {
            scratch.output = Vec::new();
        }
        result
    })
}
