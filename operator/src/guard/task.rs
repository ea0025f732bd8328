//! The loop of one set's guard.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use kube::ResourceExt;
use replset::{Endpoint, MemberName, Peer, VoterSet};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::sleep,
};
use tracing::{debug, info, warn};

use super::{
    STANDBY_DELAY_MS, STANDBY_PATIENCE_MS,
    election::{Purpose, accepts_empty, voters_of},
    handover::SwitchOver,
    record::Unrecorded,
    slices::Slices,
    view::{MemberView, Stuck, View, pod_address},
};
use crate::{
    api::{RedisReplicaSet, names},
    context::{Context, SetKey, cached},
    failover::{
        decide::{Call, Decision},
        health::{Line, Verdict},
    },
    members::link::{Event, Link, News},
    reconcile::validate::tolerate,
    resources::secrets::read_server_secret,
    set::{Activity, ValidatedSet},
};

/// Pause of the loop while all is well; every piece of news ends it early.
const CALM_TICK: Duration = Duration::from_millis(500);
/// Pause of the loop while something looks wrong.
const ALARM_TICK: Duration = Duration::from_millis(50);
/// How often members are asked while something looks wrong, instead of waiting for their word.
const ASK_EVERY_MS: u64 = 100;
/// First pause after an election that failed.
const MIN_BACKOFF_MS: u64 = 150;
/// Longest pause after elections that failed.
const MAX_BACKOFF_MS: u64 = 8_000;
/// Pause between elections while only a person or the return of a member helps: each election takes a term.
const HELPLESS_PAUSE_MS: u64 = 60_000;
/// A master that served for this long ends the growing of that pause: elections one after another
/// for the same cause bring nothing but full syncs.
const STEADY_MS: u64 = 5_000;
/// News waiting for the guard.
pub(super) const MAX_EVENTS: usize = 256;

/// What this guard itself saw of the present mastership: proof of a death counts only for the very
/// pod that was seen serving, because a pod of the same name made later says nothing about it.
#[derive(Clone, Debug)]
pub(super) struct Reign {
    pub master: String,
    pub pod_uid: String,
    /// How the line to that very pod was when it was last looked at.
    pub line: Line,
    /// When it was last known to serve, in monotonic milliseconds.
    pub served_ms: u64,
}

/// Whether a member can be asked now.
fn answers(members: &BTreeMap<String, MemberView>, name: &str) -> bool {
    members
        .get(name)
        .is_some_and(|member| member.current().is_some())
}

/// One set's guard.
pub struct Guard {
    pub(super) context: Arc<Context>,
    pub(super) key: SetKey,
    pub(super) links: BTreeMap<String, (String, Link)>,
    pub(super) members: BTreeMap<String, MemberView>,
    pub(super) set: Option<RedisReplicaSet>,
    /// The spec, without its mistakes.
    pub(super) wanted: Option<ValidatedSet>,
    pub(super) reign: Option<Reign>,
    pub(super) stuck: Option<Stuck>,
    pub(super) slices: Slices,
    pub(super) unrecorded: Option<Unrecorded>,
    pub(super) verdict: Option<Verdict>,
    pub(super) verdict_since_ms: u64,
    backoff_ms: u64,
    not_before_ms: u64,
    asked_ms: u64,
    /// Who was away when the last election failed and may remember more than those that answered.
    awaited: Vec<String>,
    /// The highest term handed out, and when it was first seen: another elector may be at work.
    claimed: (i64, u64),
    /// Since when a master serves without interruption.
    serving_since_ms: Option<u64>,
    /// Since when members are bound to a later term than that of the master that serves.
    pub(super) stranded_since_ms: Option<u64>,
    told: Option<(String, u64, u64, VoterSet, Vec<Peer>)>,
    /// The newest decisions this process made or saw: the cache may be behind them.
    pub(super) floor: Option<RedisReplicaSet>,
    pub(super) events_in: mpsc::Sender<Event>,
    pub(super) events: mpsc::Receiver<Event>,
    commands: mpsc::Receiver<SwitchOver>,
    /// An order that waits for its moment, and since when.
    pub(super) postponed: Option<(SwitchOver, u64)>,
    wake: Arc<Notify>,
    view: watch::Sender<View>,
    /// Told when something changed that reconciling may want to know.
    changed: mpsc::Sender<SetKey>,
    digest: String,
}

impl Guard {
    /// A guard that has seen nothing yet.
    pub(super) fn new(
        context: Arc<Context>,
        key: SetKey,
        commands: mpsc::Receiver<SwitchOver>,
        wake: Arc<Notify>,
        view: watch::Sender<View>,
        changed: mpsc::Sender<SetKey>,
    ) -> Self {
        let (events_in, events) = mpsc::channel(MAX_EVENTS);
        Self {
            context,
            key,
            links: BTreeMap::new(),
            members: BTreeMap::new(),
            set: None,
            wanted: None,
            reign: None,
            stuck: None,
            slices: Slices::default(),
            unrecorded: None,
            verdict: None,
            verdict_since_ms: 0,
            backoff_ms: MIN_BACKOFF_MS,
            not_before_ms: 0,
            asked_ms: 0,
            awaited: Vec::new(),
            claimed: (0, 0),
            serving_since_ms: None,
            stranded_since_ms: None,
            told: None,
            floor: None,
            events_in,
            events,
            commands,
            postponed: None,
            wake,
            view,
            changed,
            digest: String::new(),
        }
    }

    /// Guards the set until the task is dropped.
    pub async fn run(mut self) {
        info!(set = %self.key, "guarding");
        loop {
            self.refresh();
            let tick = self.turn().await;
            self.publish();
            self.obey_postponed().await;
            let tick = tick.min(self.postponement().unwrap_or(tick));
            tokio::select! {
                biased;
                Some(command) = self.commands.recv(), if self.postponed.is_none() => {
                    self.postponed = Some((command, self.context.now_ms()));
                }
                Some(event) = self.events.recv() => self.hear_all(event),
                () = self.wake.notified() => {}
                () = sleep(tick) => {}
            }
        }
    }

    /// One look: verdict, decision, action. Returns how long to wait for news.
    pub(super) async fn turn(&mut self) -> Duration {
        let Some(set) = self.decided() else {
            return CALM_TICK;
        };
        let Some(activity) = self.wanted.as_ref().map(|v| v.activity) else {
            self.verdict = None;
            return CALM_TICK;
        };
        let now_ms = self.context.now_ms();
        self.slices.observe(&self.members, now_ms);
        let handed_out = set.status.as_ref().map_or(0, |s| s.election_term);
        if handed_out > self.claimed.0 {
            self.claimed = (handed_out, now_ms);
        }
        let voters = voters_of(&set);
        let witnesses = self.witnesses(&set, now_ms);
        let (verdict, decision) = self.conclude(&set, &voters, &witnesses);
        self.remember(&verdict, now_ms);
        if activity == Activity::Paused {
            // It is looked at, so that the status stays true, and left alone.
            (self.stuck, self.serving_since_ms, self.stranded_since_ms) = (None, None, None);
            if !self.awaited.is_empty() {
                // Whoever comes back meanwhile is not to be waited for after the pause.
                self.awaited.clear();
                self.not_before_ms = now_ms;
            }
            self.keep_together(&voters).await;
            return CALM_TICK;
        }
        let calm = matches!(verdict, Verdict::Serving { .. });
        if !calm {
            (self.serving_since_ms, self.stranded_since_ms) = (None, None);
        }
        self.welcome_the_awaited();
        match decision {
            Decision::Rest => {
                self.calm(&set, &voters).await;
                self.reunite(&set, &voters).await;
            }
            Decision::Wait { why } => {
                if !matches!(self.stuck, Some(Stuck::DataLost(_))) {
                    self.stuck = Some(Stuck::Waiting(why));
                }
            }
            Decision::Elect(call) if self.is_my_turn(now_ms) => {
                let call = match matches!(verdict, Verdict::Missed(_)) {
                    true => self.confirm(&set, &voters).await,
                    false => Some(call),
                };
                if let Some(call) = call {
                    self.run_election(&set, &call, Purpose::AnyMaster).await;
                }
            }
            Decision::Elect(_) => {}
        }
        if !calm && self.context.may_act() {
            self.drop_gone().await;
        }
        if !calm && now_ms >= self.asked_ms + ASK_EVERY_MS {
            self.asked_ms = now_ms;
            self.ask_everybody();
        }
        if calm { CALM_TICK } else { ALARM_TICK }
    }

    /// An election, and what is to be known of it until the next.
    pub(super) async fn run_election(
        &mut self,
        set: &RedisReplicaSet,
        call: &Call,
        purpose: Purpose,
    ) {
        match self.elect(set, call, purpose).await {
            Ok(master) => {
                info!(set = %self.key, master, reason = ?call.reason, "new master");
                self.stuck = None;
            }
            Err(failure) => {
                warn!(set = %self.key, %failure, "no new master yet");
                self.awaited = failure.awaited();
                let members = &self.members;
                self.awaited.retain(|name| !answers(members, name));
                self.stuck = Some(failure.stuck(set));
            }
        }
        let pause_ms = match self.stuck {
            Some(Stuck::DataLost(_)) => HELPLESS_PAUSE_MS,
            Some(Stuck::Waiting(_)) if !self.awaited.is_empty() => HELPLESS_PAUSE_MS,
            Some(Stuck::Waiting(_)) | None => self.backoff_ms,
        };
        self.not_before_ms = self.context.now_ms() + pause_ms;
        self.backoff_ms = (self.backoff_ms * 2).min(MAX_BACKOFF_MS);
    }

    /// What follows while a master serves: slices, voters and addresses are brought up to date by
    /// the acting operator, the record of a change also by the one that made it.
    async fn calm(&mut self, set: &RedisReplicaSet, voters: &VoterSet) {
        self.stuck = None;
        self.awaited.clear();
        self.settle();
        let Some(Verdict::Serving { master, term }) = self.verdict.clone() else {
            return;
        };
        if self.context.may_act() {
            self.write_slices(&master, term).await;
        }
        self.record_missing(set, &master, term).await;
        if self.context.may_act() {
            self.tell_voters(voters, &master).await;
        }
    }

    /// What a pause does not stop: Kubernetes goes on to replace pods, and one that comes back has another address. Clients
    /// find it by the slices, and it is let in again by the master only. Nothing that was decided changes by this.
    async fn keep_together(&mut self, voters: &VoterSet) {
        if !self.context.may_act() {
            return;
        }
        match self.verdict.clone() {
            Some(Verdict::Serving { master, term }) => {
                self.write_slices(&master, term).await;
                self.tell_voters(voters, &master).await;
            }
            Some(_) | None => self.drop_gone().await,
        }
    }

    /// Whoever is awaited is not to find the next election seconds away; one election for each who came back.
    fn welcome_the_awaited(&mut self) {
        let before = self.awaited.len();
        let members = &self.members;
        self.awaited.retain(|name| !answers(members, name));
        if self.awaited.len() < before {
            self.not_before_ms = self.context.now_ms();
        }
    }

    /// Forgets failed elections once a master has served long enough.
    fn settle(&mut self) {
        let Some(Verdict::Serving { master, .. }) = &self.verdict else {
            return;
        };
        let state = self.members.get(master).and_then(|m| m.current());
        if !state.is_some_and(|s| s.serving) {
            self.serving_since_ms = None;
            return;
        }
        let now_ms = self.context.now_ms();
        let since_ms = *self.serving_since_ms.get_or_insert(now_ms);
        if now_ms.saturating_sub(since_ms) >= STEADY_MS {
            self.backoff_ms = MIN_BACKOFF_MS;
        }
    }

    /// Tells the master who votes and where everybody is, when that is news to it.
    async fn tell_voters(&mut self, voters: &VoterSet, master: &str) {
        let Some(member) = self.members.get(master) else {
            return;
        };
        let Some(state) = member.current() else {
            return;
        };
        let peers = self.peers();
        let told = (
            master.to_owned(),
            state.boot,
            state.term,
            voters.clone(),
            peers.clone(),
        );
        if self.told.as_ref() == Some(&told) || voters.voters.is_empty() {
            return;
        }
        match member.remote.set_voters(voters, &peers).await {
            Ok(Ok(())) => {
                debug!(set = %self.key, ?voters, "the master knows voters and addresses");
                self.told = Some(told);
            }
            Ok(Err(refusal)) => warn!(set = %self.key, %refusal, "voters refused"),
            Err(error) => debug!(set = %self.key, %error, "voters not told"),
        }
    }

    /// Reads the caches: the set itself, and which members have which address.
    fn refresh(&mut self) {
        let Some(set) = self.context.set(&self.key) else {
            self.set = None;
            return;
        };
        if self.set.as_ref() != Some(&set) {
            self.wanted = Some(tolerate(&set, &self.context.settings.defaults));
        }
        self.set = Some(set);
        self.connect();
    }

    /// Starts and drops links as pods come, move and go.
    pub(super) fn connect(&mut self) {
        let stores = &self.context.stores;
        let secret = cached(
            &stores.secrets,
            &self.key,
            &names::server_secret(&self.key.name),
        );
        let Some(token) = secret
            .and_then(|s| read_server_secret(&s).ok())
            .map(|c| c.control_token)
        else {
            return;
        };
        let mut wanted: BTreeMap<String, (String, IpAddr)> = BTreeMap::new();
        for name in self.member_names() {
            let Some(pod) = cached(&stores.pods, &self.key, &name) else {
                continue;
            };
            if let Some(address) = pod_address(&pod) {
                wanted.insert(name, (pod.uid().unwrap_or_default(), address));
            }
        }
        let reign = self.reign.as_ref();
        let keeps = |name: &String, (uid, link): &(String, Link)| {
            let same_pod = match wanted.get(name) {
                Some((u, a)) => u == uid && *a == link.address,
                // The process may outlive the object of its pod, and what its kernel says of its end is the fastest proof.
                None => reign.is_some_and(|r| r.master == *name && r.pod_uid == *uid),
            };
            same_pod && link.token == token.expose()
        };
        self.links.retain(|name, link| keeps(name, link));
        self.members.retain(|name, _| self.links.contains_key(name));
        for (name, (uid, address)) in wanted {
            if self.links.contains_key(&name) {
                continue;
            }
            let events = self.events_in.clone();
            let port = names::CONTROL_PORT;
            match Link::start(name.clone(), address, port, token.expose(), events) {
                Ok(link) => {
                    let view = MemberView {
                        pod_uid: uid.clone(),
                        address,
                        line: Line::Unknown,
                        state: None,
                        heard_ms: 0,
                        remote: link.remote.clone(),
                    };
                    self.members.insert(name.clone(), view);
                    self.links.insert(name, (uid, link));
                }
                Err(error) => warn!(set = %self.key, %error, "no link"),
            }
        }
    }

    /// Names of the members there may be: those wanted, those that vote, those that still run.
    pub(super) fn member_names(&self) -> Vec<String> {
        let Some(set) = &self.set else {
            return Vec::new();
        };
        let stores = &self.context.stores;
        let workload = cached(
            &stores.stateful_sets,
            &self.key,
            &names::workload(&self.key.name),
        );
        let running = workload
            .and_then(|w| w.status.as_ref().map(|s| s.replicas))
            .unwrap_or_default()
            .max(set.spec.replicas);
        let running = u32::try_from(running).unwrap_or_default();
        let mut all: Vec<String> = (0..running)
            .map(|ordinal| names::member(&self.key.name, ordinal))
            .collect();
        for voter in set.status.iter().flat_map(|s| &s.voters) {
            if !all.contains(voter) {
                all.push(voter.clone());
            }
        }
        all
    }

    /// Takes an event and everything that waits behind it.
    fn hear_all(&mut self, first: Event) {
        self.hear(first);
        self.hear_waiting();
    }

    /// Takes the events that wait.
    pub(super) fn hear_waiting(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.hear(event);
        }
    }

    pub(super) fn hear(&mut self, event: Event) {
        let now_ms = self.context.now_ms();
        let Some(member) = self.members.get_mut(&event.member) else {
            return;
        };
        if member.address != event.address {
            return;
        }
        match event.news {
            News::State(state) => {
                member.line = Line::Up;
                member.heard_ms = now_ms;
                member.state = Some(Arc::from(state));
            }
            News::Line(line) => {
                debug!(set = %self.key, member = event.member, ?line, "line");
                member.line = line;
            }
        }
    }

    /// The set with the newest decisions known.
    pub(super) fn decided(&mut self) -> Option<RedisReplicaSet> {
        let set = self.set.clone()?;
        let ahead = |s: &RedisReplicaSet| {
            let status = s.status.clone().unwrap_or_default();
            (status.election_term, status.term, status.voters_generation)
        };
        match self.floor.take() {
            Some(floor) if ahead(&floor) > ahead(&set) && floor.uid() == set.uid() => {
                let mut merged = set;
                merged.status.clone_from(&floor.status);
                self.floor = Some(floor);
                Some(merged)
            }
            Some(_) | None => Some(set),
        }
    }

    fn is_my_turn(&self, now_ms: u64) -> bool {
        let decided = matches!(self.stuck, Some(Stuck::DataLost(_)))
            && self.set.as_ref().is_some_and(accepts_empty);
        if self.is_pausing(now_ms) && !decided {
            return false;
        }
        self.context.may_act()
            || (now_ms >= self.verdict_since_ms + STANDBY_DELAY_MS && self.elector_had_its_time())
    }

    /// Whether it is too soon after the last election for another.
    pub(super) fn is_pausing(&self, now_ms: u64) -> bool {
        now_ms < self.not_before_ms
    }

    /// Whether the elector that took the newest term had the time to use it.
    pub(super) fn elector_had_its_time(&self) -> bool {
        self.context.now_ms() >= self.claimed.1 + STANDBY_PATIENCE_MS
    }

    /// Every member that has an address, as others shall reach it.
    pub(super) fn peers(&self) -> Vec<Peer> {
        let endpoint = |address: IpAddr| Endpoint {
            host: address.to_string(),
            port: names::REDIS_PORT,
            control_port: names::CONTROL_PORT,
        };
        let peer = |(name, member): (&String, &MemberView)| Peer {
            name: MemberName::new(name.clone()),
            endpoint: endpoint(member.address),
        };
        self.members.iter().map(peer).collect()
    }

    /// Publishes the view, and tells the reconciler when something changed that it may act upon.
    pub(super) fn publish(&mut self) {
        let view = View {
            members: self.members.clone(),
            verdict: self.verdict.clone(),
            stuck: self.stuck.clone(),
        };
        let digest = digest(&view);
        self.view.send_replace(view);
        if digest != self.digest {
            self.digest = digest;
            // A full queue means that this or another set is about to be looked at anyway.
            let _ = self.changed.try_send(self.key.clone());
        }
    }
}

/// What of a view matters for reconciling: not the figures that move all the time.
fn digest(view: &View) -> String {
    use std::fmt::Write as _;
    let mut text = format!("{:?} {:?}", view.verdict, view.stuck);
    for (name, member) in &view.members {
        let line = member.line;
        // Writing into a String cannot fail.
        let _ = match member.current() {
            Some(s) => write!(
                text,
                "|{name} {} {} {} {} {} {} {} {} {} {:?} {} {:?} {:?}",
                s.boot,
                s.role,
                s.term,
                s.serving,
                s.vote,
                s.voter,
                super::view::in_sync(s),
                s.config_revision,
                s.secret_revision,
                s.link_secret_revision,
                s.version,
                s.voters,
                s.loading.is_some(),
            ),
            None => write!(text, "|{name} {line:?}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::testing::Scene;

    #[tokio::test]
    async fn a_paused_set_is_kept_together_and_left_alone() {
        let mut scene = Scene::new().await;
        scene.acts();
        scene.guard.wanted.as_mut().unwrap().activity = Activity::Paused;
        scene.guard.turn().await;
        let calls: Vec<_> = scene.members.iter().map(|m| m.calls()).collect();
        assert_eq!(calls, [vec!["set voters"], vec![], vec![]]);
        let replicas = scene.endpoints("orders-replicas").unwrap();
        assert_eq!(replicas, ["orders-1", "orders-2"]);
        // A replica comes back with another address.
        let view = scene.guard.members.get_mut("orders-2").unwrap();
        view.address = IpAddr::from([127, 0, 0, 9]);
        scene.guard.turn().await;
        scene.guard.turn().await;
        assert_eq!(scene.members[0].calls(), ["set voters", "set voters"]);
        let written = scene.api.methods().len();
        scene.says("orders-0", |state| {
            state.role = control::proto::Role::Idle.into();
            state.serving = false;
        });
        scene.guard.turn().await;
        assert_eq!(scene.members[0].calls().len(), 2);
        assert_eq!(scene.api.methods().len(), written, "nobody is chosen");
    }
}
