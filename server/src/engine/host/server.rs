//! The server as a whole, as INFO and DEBUG ask for it.

use std::time::Duration;

use crate::{
    command::{CommandError, host::ServerHost, session::Switch},
    config::Permission,
    engine::Core,
    keyspace::Keyspace,
    metrics::info,
};

impl ServerHost for Core {
    fn info(&self, sections: &[&str], keyspace: &Keyspace, now_ms: i64) -> String {
        info::render(&self.facts(keyspace, now_ms), sections)
    }

    fn abort_shutdown(&mut self) -> Result<(), CommandError> {
        if self.config.fleet.managed {
            return Err(CommandError::new(
                "ERR the role of this server is managed by its operator: a shutdown has given it away",
            ));
        }
        if self.shared.shutdown_request.lock().take().is_none() {
            return Err(CommandError::new("ERR No shutdown in progress."));
        }
        self.shared.shutdown_aborted.notify_one();
        Ok(())
    }

    fn last_save_s(&self) -> i64 {
        self.saving.last_save_s
    }

    fn debug_permission(&self) -> Permission {
        self.config.security.debug_command
    }

    fn debug_sleep(&self, duration: Duration) {
        // With the engine's lock held: stopping everybody is what it is for.
        std::thread::sleep(duration);
    }

    fn set_active_expire(&mut self, wanted: Switch) {
        self.about.active_expire = wanted;
    }
}
