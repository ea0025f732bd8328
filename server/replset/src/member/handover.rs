//! Planned switchover (R16): writes pause, the target catches up, the master releases its term.
//!
//! Invariant: after the release is on disk this member does not serve its term again; if the target
//! is not there in time, writes go on and nothing happened.

use crate::ids::{MemberName, Offset, Position};
use crate::lease::Serve;
use crate::member::{Handed, HandoverTarget, Held, Member, Output, Reply, RequestId, Role};
use crate::message::{Handover, NotObeyed, Release, Standing};
use crate::state::DataPosition;

/// How long clients of a released master are held before they are closed, if no successor appears.
const HOLD_MS: u64 = 1_000;

/// A switchover under way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PendingHandover {
    id: RequestId,
    target: Option<MemberName>,
    pub(super) deadline_ms: u64,
    token: u64,
    /// Where the stream ends, once writes are paused.
    end: Option<Offset>,
}

impl PendingHandover {
    fn target(&self) -> HandoverTarget {
        self.target
            .clone()
            .map_or(HandoverTarget::Any, HandoverTarget::Member)
    }
}

impl Member {
    pub(super) fn begin_handover(
        &mut self,
        now_ms: u64,
        id: RequestId,
        handover: Handover,
    ) -> Vec<Output> {
        if let Some(answer) = self.handed_already(&handover) {
            return vec![Output::Answer(id, Reply::Handover(answer))];
        }
        let me = self.state.id.name.clone();
        let voters = self.state.voters.clone();
        let Role::Master(mastership) = &mut self.role else {
            return refuse(id, NotObeyed::NotMaster);
        };
        if mastership.term != handover.term {
            return refuse(id, NotObeyed::NotMaster);
        }
        if mastership.handover.is_some() {
            return refuse(id, NotObeyed::Busy);
        }
        if let Some(target) = &handover.target {
            let counts = mastership.track(target).is_some_and(|track| track.counts());
            if *target == me || !voters.contains(target) || !counts {
                return refuse(id, NotObeyed::BadTarget);
            }
        }
        let deadline_ms = now_ms + handover.budget_ms;
        mastership.handover = Some(PendingHandover {
            id,
            target: handover.target,
            deadline_ms,
            token: handover.token,
            end: None,
        });
        vec![Output::PauseClients(Held::Writes, deadline_ms)]
    }

    /// A repeated request for a handover that was done.
    fn handed_already(&self, handover: &Handover) -> Option<Result<Handed, NotObeyed>> {
        let release = self
            .state
            .released
            .filter(|release| release.term == handover.term)?;
        let to = handover.target.clone().unwrap_or_default();
        Some(Ok(Handed {
            release,
            position: self.position(),
            to,
        }))
    }

    pub(super) fn paused(&mut self, now_ms: u64, data: DataPosition) -> Vec<Output> {
        let offset = data.offset;
        let mut outputs = self.progress(data);
        let Role::Master(mastership) = &mut self.role else {
            return outputs;
        };
        let Some(handover) = &mut mastership.handover else {
            return outputs;
        };
        handover.end = Some(offset);
        mastership.hurry();
        outputs.extend(self.tick(now_ms));
        outputs
    }

    /// Releases the term if the target holds everything.
    pub(super) fn advance_handover(&mut self, now_ms: u64, outputs: &mut Vec<Output>) {
        let Role::Master(mastership) = &self.role else {
            return;
        };
        let Some(handover) = &mastership.handover else {
            return;
        };
        let Some(end) = handover.end else { return };
        let whole = Position {
            term: mastership.term,
            offset: end,
        };
        let ready = |name: &MemberName| {
            let track = mastership.track(name);
            self.state.voters.contains(name)
                && track.is_some_and(|track| track.counts() && track.position >= whole)
        };
        let to = match handover.target() {
            HandoverTarget::Member(name) => Some(name).filter(|name| ready(name)),
            HandoverTarget::Any => mastership
                .tracks()
                .map(|(name, _)| name.clone())
                .find(|name| ready(name)),
        };
        let Some(to) = to else { return };
        let release = Release {
            term: mastership.term,
            token: handover.token,
        };
        let handed = Handed {
            release,
            position: whole,
            to,
        };
        let id = handover.id;
        self.release(now_ms, id, handed, outputs);
    }

    fn release(&mut self, now_ms: u64, id: RequestId, handed: Handed, outputs: &mut Vec<Output>) {
        let held_until_ms = now_ms + HOLD_MS;
        let last_words = self.heartbeats(now_ms, Some(Standing::Released(handed.release)));
        outputs.push(Output::PauseClients(Held::All, held_until_ms));
        self.set_serve(Serve::Never, outputs);
        self.state.released = Some(handed.release);
        self.role = Role::Idle;
        self.held_until = Some(held_until_ms);
        outputs.push(Output::StepDown);
        outputs.push(self.persist());
        outputs.extend(last_words);
        outputs.push(Output::Answer(id, Reply::Handover(Ok(handed))));
    }

    /// Gives a handover up when its time is over.
    pub(super) fn expire_handover(&mut self, now_ms: u64, outputs: &mut Vec<Output>) {
        let Role::Master(mastership) = &mut self.role else {
            return;
        };
        let due = |handover: &mut PendingHandover| now_ms >= handover.deadline_ms;
        let Some(handover) = mastership.handover.take_if(due) else {
            return;
        };
        outputs.push(Output::ResumeClients);
        let late = Err(NotObeyed::TargetBehind);
        outputs.push(Output::Answer(handover.id, Reply::Handover(late)));
    }

    /// Closes clients that waited too long for a successor.
    pub(super) fn expire_hold(&mut self, now_ms: u64, outputs: &mut Vec<Output>) {
        if self.held_until.take_if(|until| now_ms >= *until).is_some() {
            outputs.push(Output::CloseClients);
        }
    }
}

fn refuse(id: RequestId, reason: NotObeyed) -> Vec<Output> {
    vec![Output::Answer(id, Reply::Handover(Err(reason)))]
}
