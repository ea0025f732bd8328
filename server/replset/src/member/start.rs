//! How a member is born: from its state file and whatever dataset the engine could load.
//!
//! Invariant (R11, R12): it is born a follower without a master, and without a vote unless both its
//! state and its dataset are there and belong together. After a process that did not save at its end
//! it says that what it acknowledged last may be missing (R11b), until it has caught up.

use crate::ids::{FleetId, Incarnation, MemberId, MemberName, Offset};
use crate::lease::{Grants, Serve};
use crate::member::lead::Mastership;
use crate::member::{MasterLink, Member, Output, Role};
use crate::message::Endpoint;
use crate::rules::Rules;
use crate::state::{DataPosition, History, MemberState, Tail, TermStart, Vote};
use crate::timing::{LEASE_MIN_VOTERS, Timing};

/// What a starting server knows.
#[derive(Clone, Debug)]
pub struct Boot {
    /// The set it is configured for. Data of another one keep belonging to that: the member reports so and obeys nobody
    /// until an elector of this set claims the inheritance ([`crate::Prepare::heir_of`]).
    pub fleet: FleetId,
    /// Its name.
    pub name: MemberName,
    /// Where it can be reached.
    pub endpoint: Endpoint,
    /// Random bits: the life it gets if it needs a new one.
    pub fresh: Incarnation,
    /// What the engine loaded.
    pub data: DataPosition,
    /// Now, on the monotonic clock.
    pub now_ms: u64,
}

impl Member {
    /// A member from its state file (`None`: there is none).
    pub fn start(state: Option<MemberState>, boot: Boot, timing: Timing) -> (Self, Vec<Output>) {
        Self::start_with_rules(state, boot, timing, Rules::default())
    }

    /// As [`Member::start`], with rules that tests switch off.
    #[doc(hidden)]
    pub fn start_with_rules(
        state: Option<MemberState>,
        boot: Boot,
        timing: Timing,
        rules: Rules,
    ) -> (Self, Vec<Output>) {
        let state = state.unwrap_or_else(|| {
            let id = MemberId {
                name: boot.name.clone(),
                incarnation: boot.fresh,
            };
            let mut state = MemberState::new(boot.fleet.clone(), id);
            if !rules.blank_has_no_vote {
                state.vote = Vote::Granted;
            }
            state
        });
        let mut member = Self {
            state,
            endpoint: boot.endpoint.clone(),
            timing,
            rules,
            role: Role::Idle,
            data: boot.data.clone(),
            seen_ms: None,
            master_offset: Offset(0),
            catch_up_to: None,
            link: MasterLink::Down,
            grants: Grants::default(),
            pending: None,
            peers: Vec::new(),
            master_released: None,
            held_until: None,
            serve: Serve::Never,
        };
        let outputs = member.wake(&boot);
        (member, outputs)
    }

    fn wake(&mut self, boot: &Boot) -> Vec<Output> {
        if self.state.boot > 0 && !self.state.clean_shutdown {
            self.state.tail = Tail::MayBeCut;
        }
        self.state.boot += 1;
        self.state.clean_shutdown = false;
        let resumed = self.state.history.last().cloned();
        let resumed =
            resumed.filter(|_| !self.rules.born_follower && self.state.last_mastership().is_some());
        self.recognize(boot);
        if let Some(followed) = &self.state.following
            && self.state.voters.voters.len() >= LEASE_MIN_VOTERS
        {
            // The process before this one may have granted a lease a moment ago.
            self.grants.grant(followed.term, boot.now_ms, &self.timing);
        }
        let mut outputs = vec![self.persist()];
        if let Some(mastership) = resumed {
            outputs.push(self.resume(mastership, boot.now_ms));
        }
        outputs
    }

    /// What R12 forbids; only tests get here.
    fn resume(&mut self, last: TermStart, now_ms: u64) -> Output {
        let (term, replid) = (last.term, last.replid.clone());
        self.state.history = History::new(vec![TermStart {
            start: Offset(0),
            ..last
        }]);
        self.state.vote = Vote::Granted;
        self.data.replid = Some(replid.clone());
        self.role = Role::Master(Box::new(Mastership::new(term, now_ms)));
        Output::Lead(term, replid)
    }

    /// Decides whether the dataset is the one the state speaks of; if not, this is a new life.
    fn recognize(&mut self, boot: &Boot) {
        let known = self.state.history_of(&boot.data);
        let renamed = self.state.id.name != boot.name;
        match known {
            Some(history) if !renamed => {
                self.state.history = history;
                self.state.blank = false;
            }
            _ if self.state.blank && !renamed && boot.data.replid.is_none() => {}
            _ if !self.rules.blank_has_no_vote => self.state.history = History::default(),
            _ => {
                self.state.id = MemberId {
                    name: boot.name.clone(),
                    incarnation: boot.fresh,
                };
                self.state.vote = Vote::Suspended;
                self.state.blank = boot.data.replid.is_none();
                self.state.history = History::default();
                self.state.following = None;
                self.state.released = None;
            }
        }
    }
}
