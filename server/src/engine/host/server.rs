//! The server as a whole, as INFO and DEBUG ask for it.

use std::time::Duration;

use crate::{
    command::{host::ServerHost, session::Switch},
    config::Permission,
    engine::Core,
    keyspace::Keyspace,
    metrics::info,
};

impl ServerHost for Core {
    fn info(&self, sections: &[&str], keyspace: &Keyspace, now_ms: i64) -> String {
        info::render(&self.facts(keyspace, now_ms), sections)
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
