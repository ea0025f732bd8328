//! All guards of this process.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

use super::{
    task::{Command, Guard, MAX_COMMANDS},
    view::View,
};
use crate::{
    api::v1alpha1::FailoverReason,
    context::{Context, SetKey},
};

/// Longest wait for a planned switchover as a whole.
const SWITCH_OVER_TIMEOUT: Duration = Duration::from_secs(10);

struct Handle {
    wake: Arc<Notify>,
    commands: mpsc::Sender<Command>,
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
        let (commands, commands_out) = mpsc::channel(MAX_COMMANDS);
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
                view,
                task,
            },
        );
    }

    /// Stops guarding a set that is gone.
    pub fn forget(&self, key: &SetKey) {
        self.handles
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
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

    /// Hands the mastership of a set over. Returns the new master.
    ///
    /// # Errors
    /// Why it did not come about, in words.
    pub async fn switch_over(
        &self,
        key: &SetKey,
        to: Option<String>,
        reason: FailoverReason,
    ) -> Result<String, String> {
        let (done, result) = oneshot::channel();
        let commands = {
            let handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
            handles
                .get(key)
                .map(|h| h.commands.clone())
                .ok_or("the set is not guarded")?
        };
        let command = Command::SwitchOver { to, reason, done };
        commands
            .try_send(command)
            .map_err(|_| "the guard is busy".to_owned())?;
        match timeout(SWITCH_OVER_TIMEOUT, result).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err("the guard stopped".to_owned()),
            Err(_) => Err(format!("no result within {SWITCH_OVER_TIMEOUT:?}")),
        }
    }
}
