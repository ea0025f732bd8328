//! Huge pages, as soon as there are data to put on them.
//!
//! Random keys are cheaper to reach on huge pages (about a third of the time of a GET among millions), and without fork
//! nothing speaks against them but the memory that a small dataset would waste: some ten megabytes in an empty server. So
//! the allocator always asks for them (`main.rs`), the process forbids them at its start, and permits them here for good
//! when the data have become large.

use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::prctl;

/// Bytes of data from which huge pages are worth their waste.
const FROM_BYTES: u64 = 64 * 1024 * 1024;

/// Whether they are permitted; the question is asked often and the kernel must be told once.
static PERMITTED: AtomicBool = AtomicBool::new(false);

/// Forbids huge pages. To be called first of all.
pub fn forbid() {
    tell_kernel(Rule::Forbidden);
}

/// Permits huge pages if there are, or will soon be, so many bytes of data.
pub fn permit_for(bytes: u64) {
    if bytes >= FROM_BYTES && !PERMITTED.swap(true, Ordering::Relaxed) {
        tell_kernel(Rule::Permitted);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Forbidden,
    Permitted,
}

/// An old kernel that does not know the request goes on as it is configured: memory, not correctness.
fn tell_kernel(rule: Rule) {
    if let Err(error) = prctl::set_thp_disable(rule == Rule::Forbidden) {
        tracing::debug!(%error, ?rule, "the kernel takes no rule for huge pages");
    }
}
