//! Other connections, as CLIENT commands ask for them.

use std::time::Duration;

use crate::{
    command::{
        host::{ClientFilter, ClientHost, Killed, PauseKind, Unblock},
        session::{Session, Switch},
    },
    engine::{Core, clients, clock, pause::Purpose},
};

impl ClientHost for Core {
    fn client_list(&self, filter: &ClientFilter) -> String {
        let now_ms = clock::monotonic_ms();
        let mut list = String::new();
        for client in self.shared.clients.matching(filter, now_ms) {
            list.push_str(&client.describe(now_ms));
            list.push('\n');
        }
        list
    }

    fn client_info(&self, session: &Session) -> String {
        self.publish_session(session);
        let client = self.shared.clients.get(session.id);
        client.map_or_else(String::new, |client| {
            client.describe(clock::monotonic_ms()) + "\n"
        })
    }

    fn kill_clients(&mut self, filter: &ClientFilter, own: u64) -> Killed {
        let mut killed = Killed {
            count: 0,
            own: Switch::Off,
        };
        for client in self.shared.clients.matching(filter, clock::monotonic_ms()) {
            // One that somebody killed before is listed until its connection has ended, but counts once.
            if clients::skips(filter, client.id, own) || client.is_closing() {
                continue;
            }
            killed.count += 1;
            if client.id == own {
                killed.own = Switch::On;
            } else {
                client.close();
            }
        }
        killed
    }

    fn publish_session(&self, session: &Session) {
        if let Some(client) = self.shared.clients.get(session.id) {
            client.publish(session);
        }
    }

    fn pause(&mut self, kind: PauseKind, duration: Duration) {
        let ms = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let until_ms = clock::monotonic_ms().saturating_add(ms);
        self.hold_clients(Purpose::Client, kind, until_ms);
    }

    fn unblock(&mut self, id: u64, how: Unblock) -> Switch {
        match self.waiters.iter().find(|waiter| waiter.id == id) {
            None => Switch::Off,
            Some(waiter) => {
                waiter.unblock(how);
                Switch::On
            }
        }
    }

    fn unpause(&mut self) {
        self.release_clients(Purpose::Client);
    }
}
