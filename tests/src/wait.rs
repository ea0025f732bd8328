//! Waiting for conditions, with a deadline and a reason: the only way tests of this crate let time pass.
//!
//! Called by every test that needs more than one process. Owns no clock but the process's own; never sleeps for luck.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::bail;

/// Pause between two looks at a condition.
const POLL: Duration = Duration::from_millis(50);

/// Looks until `probe` yields a value and returns it; after `deadline` fails, naming `what` and the last obstacle.
///
/// `probe` answers `Ok(Some(value))` when done and `Ok(None)` for "not yet". An error also means "not yet" (servers that
/// are being killed refuse connections); the last one is part of the failure.
pub async fn wait_until<T, F, Fut>(
    what: &str,
    deadline: Duration,
    mut probe: F,
) -> anyhow::Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = anyhow::Result<Option<T>>>,
{
    let started = Instant::now();
    let mut obstacle;
    loop {
        let left = deadline.saturating_sub(started.elapsed());
        match tokio::time::timeout(left.max(POLL), probe()).await {
            Ok(Ok(Some(value))) => return Ok(value),
            Ok(Ok(None)) => obstacle = None,
            Ok(Err(error)) => obstacle = Some(format!("{error:#}")),
            Err(_) => obstacle = Some("the last look at it did not come back in time".to_owned()),
        }
        if started.elapsed() >= deadline {
            let why = obstacle.map_or_else(String::new, |why| format!(": {why}"));
            bail!(
                "gave up waiting for {what} after {:.1} s{why}",
                deadline.as_secs_f64()
            );
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn returns_the_value_when_it_is_there() {
        let mut looks = 0;
        let value = wait_until("three looks", Duration::from_secs(5), || {
            looks += 1;
            let now = looks;
            async move { Ok((now == 3).then_some(now)) }
        })
        .await
        .unwrap();
        assert_eq!(value, 3);
    }

    #[tokio::test]
    async fn failure_names_what_and_why() {
        let error = wait_until("a miracle", Duration::from_millis(60), || async {
            Err::<Option<()>, _>(anyhow::anyhow!("no such thing"))
        })
        .await
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "gave up waiting for a miracle after 0.1 s: no such thing"
        );
    }
}
