//! Defence against cross-protocol scripting: a web page can make a browser send HTTP to this port, and the lines of its body
//! would run as inline commands. As in Redis, a request that only HTTP begins so ends the connection, before the body.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::engine::clock;

/// Time between two warnings: whoever attacks must not fill the log.
const WARN_EVERY_MS: i64 = 60_000;

/// When the next warning may be logged, in milliseconds of the monotonic clock.
static NEXT_WARNING_MS: AtomicI64 = AtomicI64::new(0);

/// Whether a request whose first word is `name` comes from a client that speaks HTTP: `POST /…` and `Host: …`. Neither
/// is a command.
#[inline]
pub fn is_http(name: &[u8]) -> bool {
    match name.len() {
        4 => name.eq_ignore_ascii_case(b"post"),
        5 => name.eq_ignore_ascii_case(b"host:"),
        _ => false,
    }
}

/// Logs that such a client was sent away.
pub fn warn(client: &str) {
    let now_ms = clock::monotonic_ms();
    let next_ms = NEXT_WARNING_MS.load(Ordering::Relaxed);
    let is_due = now_ms >= next_ms
        && NEXT_WARNING_MS
            .compare_exchange(
                next_ms,
                now_ms + WARN_EVERY_MS,
                Ordering::Relaxed,
                Ordering::Relaxed,
            )
            .is_ok();
    if is_due {
        tracing::warn!(
            client,
            "possible security attack: a client sends POST or Host:, as a browser does that is made to run commands here \
             (cross-protocol scripting); its connection is closed"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_http_says_is_recognized() {
        for name in ["POST", "post", "Host:", "HOST:"] {
            assert!(is_http(name.as_bytes()), "{name}");
        }
        for name in ["", "GET", "host", "posts", "Host", "Accept:"] {
            assert!(!is_http(name.as_bytes()), "{name}");
        }
    }
}
