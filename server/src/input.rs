//! Input of clients and of a master's stream: room for what does not hold a whole request yet, and requests parsed ahead
//! ([`Batch`]).
//!
//! Invariants: a buffer grows by at least half, so that its bytes are copied a bounded number of times however many
//! reads a request takes; it grows at most to twice what has come, whatever length was announced; and nothing is
//! zeroed, since a read that finds nothing must cost nothing (readers use `read_buf`).

mod batch;

pub use batch::Batch;

/// Room for one read behind little input.
const READ_BYTES: usize = 64 * 1024;
/// Most bytes of one read.
const MAX_READ_BYTES: usize = 1024 * 1024;

/// Makes room behind a request of which at least `needed` bytes are missing; answers how many bytes the next read may
/// bring, at least one.
pub fn make_room(buffer: &mut Vec<u8>, needed: usize) -> usize {
    let held = buffer.len();
    // Not earlier: input that comes in small pieces would be moved with each of them.
    if buffer.capacity() == held {
        let most = held.max(READ_BYTES);
        buffer.reserve_exact(needed.max(held / 2).clamp(READ_BYTES, most));
    }
    (buffer.capacity() - held).min(MAX_READ_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `total` bytes as they come, `step` at a time; answers how many bytes were moved by growing.
    fn moved(total: usize, step: usize) -> usize {
        let (mut buffer, mut moved) = (Vec::new(), 0);
        while buffer.len() < total {
            let (old, held) = (buffer.capacity(), buffer.len());
            let room = make_room(&mut buffer, total - held);
            assert!(room >= 1);
            assert!(buffer.capacity() <= 2 * held.max(READ_BYTES));
            moved += if buffer.capacity() == old { 0 } else { held };
            buffer.resize(held + step.min(room).min(total - held), 0);
        }
        moved
    }

    #[test]
    fn a_request_is_moved_at_most_twice_however_it_comes() {
        for total in [1, 100, READ_BYTES, 300_000, 10_000_001] {
            for step in [1000, 65536, MAX_READ_BYTES] {
                assert!(moved(total, step) <= 2 * total, "{total} by {step}");
            }
        }
    }

    /// A request of many short arguments is never known to need much more.
    #[test]
    fn little_that_is_needed_makes_the_buffer_grow_as_fast() {
        let (mut buffer, mut grown) = (Vec::new(), 0);
        while buffer.len() < 100 * READ_BYTES {
            let (old, held) = (buffer.capacity(), buffer.len());
            let room = make_room(&mut buffer, 1);
            grown += u32::from(buffer.capacity() != old);
            buffer.resize(held + room, 0);
        }
        assert!(grown < 20, "{grown}");
    }
}
