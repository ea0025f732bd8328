//! `pause`: the process that holds a pod's namespaces in the test clusters. Leaves on SIGTERM or SIGINT, collects orphans
//! (it is process 1 when a pod shares its PID namespace), does nothing else. Packed by `tests/cluster/images.sh`.

#![forbid(unsafe_code)]

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

fn main() -> nix::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGCHLD);
    signals.thread_block()?;
    loop {
        match signals.wait() {
            Ok(Signal::SIGCHLD) => collect_orphans(),
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}

fn collect_orphans() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            return;
        }
    }
}
