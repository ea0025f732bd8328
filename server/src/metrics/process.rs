//! What the system says about this process, read from `/proc`.

use std::fs;
use std::sync::LazyLock;

/// Ticks per second of the times in `/proc/self/stat`; the same on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// Figures of the process and its machine.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ProcessFacts {
    /// Process id.
    pub pid: u32,
    /// Physical memory in bytes.
    pub rss_bytes: u64,
    /// Seconds of processor time in user mode.
    pub cpu_user_s: f64,
    /// Seconds of processor time in the kernel.
    pub cpu_sys_s: f64,
    /// Memory of the machine in bytes.
    pub machine_bytes: u64,
}

/// Asks the system. What it does not answer is zero.
pub fn read() -> ProcessFacts {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let (cpu_user_s, cpu_sys_s) = cpu_seconds(&stat).unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    ProcessFacts {
        pid: std::process::id(),
        rss_bytes: kilobytes(&status, "VmRSS:").unwrap_or(0) * 1024,
        cpu_user_s,
        cpu_sys_s,
        machine_bytes: *MACHINE_BYTES,
    }
}

static MACHINE_BYTES: LazyLock<u64> = LazyLock::new(|| {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    kilobytes(&info, "MemTotal:").unwrap_or(0) * 1024
});

/// The system, its version and the kind of processor, as `uname` tells them.
pub fn system() -> String {
    static RELEASE: LazyLock<String> = LazyLock::new(|| {
        fs::read_to_string("/proc/sys/kernel/osrelease")
            .unwrap_or_default()
            .trim()
            .to_owned()
    });
    format!("Linux {} {}", *RELEASE, std::env::consts::ARCH)
}

/// User and system time. The name in field 2 may hold blanks and parentheses: count from the last one.
fn cpu_seconds(stat: &str) -> Option<(f64, f64)> {
    let fields = stat.rsplit_once(')')?.1;
    let mut times = fields
        .split_ascii_whitespace()
        .skip(11)
        .map(str::parse::<f64>);
    let user = times.next()?.ok()?;
    let system = times.next()?.ok()?;
    Some((user / TICKS_PER_SECOND, system / TICKS_PER_SECOND))
}

/// A line `Name:   123 kB`.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let facts = read();
        assert_eq!(facts.pid, std::process::id());
        assert!(
            facts.rss_bytes > 100_000 && facts.rss_bytes < facts.machine_bytes,
            "{facts:?}"
        );
        assert!(system().len() > "Linux  ".len());
    }

    #[test]
    fn a_process_name_cannot_shift_the_fields() {
        let stat = "1 (a) R 9) S 0 1 1 0 -1 4 5 6 7 8 250 125 1 1";
        assert_eq!(cpu_seconds(stat), Some((2.5, 1.25)));
        assert_eq!(cpu_seconds("rubbish"), None);
    }
}
