//! All guards of this process.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, Semaphore, mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

use super::{
    handover::{NotSwitched, SwitchOver},
    record,
    task::Guard,
    view::View,
};
use crate::{
    api::v1alpha1::FailoverReason,
    context::{Context, SetKey},
    failover::switchover::Order,
};

/// Longest wait for a planned switchover as a whole.
const SWITCH_OVER_TIMEOUT: Duration = Duration::from_secs(10);

struct Handle {
    wake: Arc<Notify>,
    commands: mpsc::Sender<SwitchOver>,
    /// Taken by the order that is waiting or being carried out, even if nobody waits for its result any more.
    turn: Arc<Semaphore>,
    view: watch::Receiver<View>,
    task: JoinHandle<()>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// All guards of this process, by set.
#[derive(Default)]
pub struct Guards {
    handles: Mutex<BTreeMap<SetKey, Handle>>,
}

impl Guards {
    /// Makes sure that the set is guarded, and has its guard look again.
    pub fn look_at(&self, context: &Arc<Context>, key: &SetKey, changed: &mpsc::Sender<SetKey>) {
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = handles.get(key) {
            handle.wake.notify_one();
            return;
        }
        let wake = Arc::new(Notify::new());
        let (commands, commands_out) = mpsc::channel(1);
        let (view_in, view) = watch::channel(View::default());
        let guard = Guard::new(
            Arc::clone(context),
            key.clone(),
            commands_out,
            Arc::clone(&wake),
            view_in,
            changed.clone(),
        );
        let task = tokio::spawn(guard.run());
        handles.insert(
            key.clone(),
            Handle {
                wake,
                commands,
                turn: Arc::new(Semaphore::new(1)),
                view,
                task,
            },
        );
    }

    /// Stops guarding a set that is gone, and showing its figures.
    pub fn forget(&self, context: &Context, key: &SetKey) {
        self.handles
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
        record::forget(&context.metrics, key);
    }

    /// The sets that are guarded.
    #[must_use]
    pub fn known(&self) -> Vec<SetKey> {
        let handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        handles.keys().cloned().collect()
    }

    /// What the guard of a set knows.
    #[must_use]
    pub fn view(&self, key: &SetKey) -> View {
        let handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        handles
            .get(key)
            .map(|h| h.view.borrow().clone())
            .unwrap_or_default()
    }

    /// Has the mastership of a set handed over. When this returns, [`Guards::view`] shows what came of it. An order whose
    /// target is master already is done; one that has not begun when its time is over is dropped.
    ///
    /// # Errors
    /// Why it did not come about.
    pub async fn switch_over(
        &self,
        key: &SetKey,
        order: Order,
        reason: FailoverReason,
        why: &str,
    ) -> Result<(), NotSwitched> {
        let result = self.order(key, order, reason, why)?;
        match timeout(SWITCH_OVER_TIMEOUT, result).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(NotSwitched::Stopped),
            Err(_) => Err(NotSwitched::TimedOut(SWITCH_OVER_TIMEOUT)),
        }
    }

    fn order(
        &self,
        key: &SetKey,
        order: Order,
        reason: FailoverReason,
        why: &str,
    ) -> Result<oneshot::Receiver<Result<(), NotSwitched>>, NotSwitched> {
        let handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = handles.get(key).ok_or(NotSwitched::NotGuarded)?;
        let turn = Arc::clone(&handle.turn).try_acquire_owned();
        let turn = turn.map_err(|_| NotSwitched::Busy)?;
        let (done, result) = oneshot::channel();
        let command = SwitchOver {
            order,
            reason,
            why: why.to_owned(),
            done,
            turn,
        };
        let sent = handle.commands.try_send(command);
        sent.map_err(|_| NotSwitched::Busy)?;
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[tokio::test]
    async fn a_set_has_one_order_at_a_time() {
        let (context, _writers) = testing::context(testing::nowhere());
        let (changed, _heard) = mpsc::channel(1);
        let key = SetKey {
            namespace: "shop".into(),
            name: "orders".into(),
        };
        let order = || Order {
            from: "orders-0".into(),
            to: "orders-1".into(),
        };
        let guards = Guards::default();
        guards.look_at(&context, &key, &changed);
        let first = guards.order(&key, order(), FailoverReason::Rollout, "");
        // Its result is not waited for: it is in the way all the same until the guard is through with it.
        drop(first.unwrap());
        let second = guards.order(&key, order(), FailoverReason::Rollout, "");
        assert!(matches!(second, Err(NotSwitched::Busy)), "{second:?}");
        let third = async {
            loop {
                match guards.order(&key, order(), FailoverReason::Rollout, "") {
                    Err(NotSwitched::Busy) => tokio::task::yield_now().await,
                    answer => return answer.unwrap().await.unwrap(),
                }
            }
        };
        let refused = third.await.unwrap_err();
        assert_eq!(refused.to_string(), "no master serves");
    }
}
