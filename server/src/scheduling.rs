//! How Linux shares the processors among our threads: clients first, snapshots behind.
//!
//! Owns: what each kind of thread asks of the scheduler, once, at its start. Called by the I/O threads (`net::io_threads`)
//! and by the snapshot's thread (`persistence::snapshot`).
//! Invariant of the `unsafe` block: the kernel is handed a `sched_attr` that is initialized, outlives the call and names
//! its own size; it reads no more than that and keeps no pointer.
//! Not done here: how many threads there are. A wish that is refused costs latency, never correctness, so it is logged
//! and nothing else.

#![allow(
    unsafe_code,
    reason = "a system call that no safe library offers for other policies than SCHED_DEADLINE"
)]

use std::{io, mem::size_of};

/// Time that an I/O thread wants at a stretch, in ns. One that wakes takes the processor from a thread with longer
/// slices at once; otherwise it may have to wait for the end of that thread's, several ms. The kernel's shortest is 0.1 ms.
const IO_SLICE_NS: u64 = 200_000;
/// Nice value of the snapshot's thread: a tenth of an I/O thread's share where both want the same processor.
const SNAPSHOT_NICENESS: i32 = 10;

/// For I/O threads: asks for short slices, so that a request does not wait for whoever computes. Since Linux 6.12; an
/// older kernel ignores it. (Saves of 0.6 GB with two cores in turns with and without it, seven each: the median of the
/// 99.9th percentile of GETs was 4.6 against 18 ms, with 1,000 SETs a second 6.3 against 13; with nothing going on, 10.)
pub fn answer_soon() {
    if let Err(error) = ask_for_slices(IO_SLICE_NS) {
        tracing::debug!(%error, "I/O threads have slices as all others");
    }
}

/// For the snapshot's thread: lets the I/O threads have the processors first. Compressing and summing keep a whole one
/// busy. (Of 12 saves with two cores the median of the 99.9th percentile of GETs fell from 10 to 6.5 ms.) The price: where
/// clients keep all processors busy a snapshot takes longer; what piles up meanwhile is written without compression
/// (`persistence::snapshot::run::MAX_WAITING_BYTES`).
pub fn give_way() {
    // Linux takes "the calling process" for the calling thread.
    if let Err(error) = rustix::process::setpriority_process(None, SNAPSHOT_NICENESS) {
        tracing::debug!(%error, "snapshots compete with clients for processors");
    }
}

/// Sets the calling thread's slice and leaves its nice value.
fn ask_for_slices(slice_ns: u64) -> io::Result<()> {
    const CALLING_THREAD: libc::pid_t = 0;
    const FLAGS: libc::c_uint = 0;
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: 0,
        sched_nice: rustix::process::getpriority_process(None)?,
        sched_priority: 0,
        sched_runtime: slice_ns,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: `attributes` is initialized and lives until the call returns; `size` is its size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sched_setattr,
            CALLING_THREAD,
            &raw const attributes,
            FLAGS,
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_wishes_are_granted_to_a_thread_and_leave_the_others() {
        let before = rustix::process::getpriority_process(None).unwrap();
        std::thread::spawn(|| {
            give_way();
            let own = rustix::process::getpriority_process(None).unwrap();
            assert_eq!(own, SNAPSHOT_NICENESS);
            ask_for_slices(IO_SLICE_NS).unwrap();
            let own = rustix::process::getpriority_process(None).unwrap();
            assert_eq!(own, SNAPSHOT_NICENESS, "the slice changed the nice value");
        })
        .join()
        .unwrap();
        assert_eq!(rustix::process::getpriority_process(None).unwrap(), before);
    }
}
