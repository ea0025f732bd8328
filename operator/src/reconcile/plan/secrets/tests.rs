//! Whole rotations over a simulated cluster, cut after every step.
//!
//! The cluster holds what outlives an operator: Secrets, status, members. Each look plans from that alone and
//! performs the steps as `apply` would, so that cutting a plan anywhere is killing the operator there. After
//! every step must hold: what is published is accepted by every member, and whatever a member shows to
//! a master is accepted by every other one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use control::proto;
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use serde_json::{Value, json};

use super::{
    super::{
        super::{
            apply::is_still,
            diff,
            draft::CredentialsDraft,
            observe::{Credentials, Observed, Remains},
            step::{CredentialKind, Step},
            validate::{ReferencedSecret, References},
        },
        Plan, json as value, plan,
        tests::{check, object, second},
    },
    restore::is_outdated,
};
use crate::{
    api::{RedisReplicaSet, RedisReplicaSetStatus, names, v1alpha1::RotationPhase},
    failover::{
        health::{Line, Verdict},
        switchover::Pause,
    },
    guard::view::{MemberView, View},
    members::remote::Remote,
    resources::secrets::{
        CREDENTIALS_FILE, ServerCredentials, read_published, read_server_secret, server_secret,
    },
    set::{Password, ValidatedSet},
};

const MEMBERS: u32 = 3;
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// More looks than any rotation takes.
const MAX_LOOKS: usize = 200;

/// A server, as far as passwords go.
#[derive(Clone, Default)]
struct Server {
    told: u64,
    accepts: BTreeMap<String, BTreeSet<String>>,
    /// What it logs in to its master with, in the order in which it tries.
    presents: Vec<String>,
    since: u64,
}

impl Server {
    /// A process that has started with this file.
    fn started(file: &str) -> Self {
        let mut server = Self::default();
        let mut accept = |user: &str, password: &str| {
            let accepted = server.accepts.entry(user.to_owned()).or_default();
            accepted.insert(password.to_owned());
        };
        for line in file.lines() {
            let line = line.replace('"', "");
            match line.split(' ').collect::<Vec<_>>().as_slice() {
                ["requirepass", password] => accept("default", password),
                ["masterauth", password] => {
                    accept("replication", password);
                    server.presents.push((*password).to_owned());
                }
                ["masteruser", "replication"] => {}
                ["accept-password", user, password] => {
                    accept(user, password);
                    if *user == "replication" {
                        server.presents.push((*password).to_owned());
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        server
    }

    fn tell(&mut self, request: &proto::SetCredentialsRequest) {
        assert!(request.revision > self.told, "nobody is told what it knows");
        let replication = request.replication.clone().unwrap();
        self.told = request.revision;
        self.accepts = BTreeMap::new();
        for user in &request.users {
            let passwords = user.passwords.iter().map(|p| p.password.clone());
            self.accepts.insert(user.name.clone(), passwords.collect());
        }
        self.presents = vec![replication.password];
        self.since = replication.since_revision;
    }

    fn accepts(&self, kind: CredentialKind, password: &str) -> bool {
        let accepted = self.accepts.get(kind.user());
        accepted.is_some_and(|passwords| passwords.contains(password))
    }
}

/// Where a plan is cut.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cut {
    Nowhere,
    /// The step is not done.
    Before,
    /// The step is done, and nothing that follows.
    After,
}

/// Whom a rule is asked about.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    /// Clients and members.
    Everybody,
    /// Clients: nobody may know what members show to each other.
    Clients,
}

#[derive(Clone)]
struct Cluster {
    object: RedisReplicaSet,
    secret: Option<Secret>,
    /// Every `credentials.conf` there was.
    files: Vec<String>,
    published: BTreeMap<String, Value>,
    servers: BTreeMap<String, Server>,
    /// What the operator remembers.
    remembered: Option<Box<ServerCredentials>>,
    made: u32,
    now: Timestamp,
    rule: Rule,
    /// The passwords in the Secrets of the user's that the spec names.
    given: BTreeMap<CredentialKind, &'static str>,
    /// A member that cannot be asked.
    away: Option<&'static str>,
    /// For nobody to be called.
    remote: Remote,
}

impl Cluster {
    /// A set whose first credentials are settled.
    fn settled() -> Self {
        let cluster = Self::settled_with(json!({"overlap": "1m"}), BTreeMap::new());
        cluster.published_is("g1");
        cluster
    }

    /// As [`Self::settled`], with a replication password of the user's.
    fn settled_with_given(password: &'static str) -> Self {
        let auth = json!({"overlap": "1m", "replicationSecretName": "mine"});
        let cluster = Self::settled_with(auth, [(CredentialKind::Replication, password)].into());
        cluster.published_is("g1");
        cluster
    }

    /// As [`Self::settled`], with a clients' password of the user's.
    fn settled_with_clients(password: &'static str) -> Self {
        let auth = json!({"overlap": "1m", "clientSecretName": "theirs"});
        Self::settled_with(auth, [(CredentialKind::Client, password)].into())
    }

    fn settled_with(auth: Value, given: BTreeMap<CredentialKind, &'static str>) -> Self {
        let spec = json!({"replicas": MEMBERS, "storage": {"ephemeral": {}}, "auth": auth});
        let mut object = object(&spec);
        object.status = Some(RedisReplicaSetStatus::default());
        let mut cluster = Self {
            object,
            secret: None,
            files: Vec::new(),
            published: BTreeMap::new(),
            servers: BTreeMap::new(),
            remembered: None,
            made: 0,
            now: second(0),
            rule: Rule::Everybody,
            given,
            away: None,
            remote: Remote::new(ADDRESS, 1, "token").unwrap(),
        };
        cluster.run(|_| Cut::Nowhere);
        cluster
    }

    fn set(&self) -> ValidatedSet {
        check(&self.object, &self.references())
    }

    fn references(&self) -> References {
        let secret = |password: &str| {
            let password = ByteString(password.as_bytes().to_vec());
            Secret {
                data: Some([("password".to_owned(), password)].into()),
                ..Secret::default()
            }
        };
        let referenced = |kind| match self.given.get(&kind) {
            Some(given) => ReferencedSecret::Found(Box::new(secret(given))),
            None => ReferencedSecret::Missing,
        };
        References {
            client: referenced(CredentialKind::Client),
            replication: referenced(CredentialKind::Replication),
        }
    }

    fn status(&mut self) -> &mut RedisReplicaSetStatus {
        self.object.status.get_or_insert_default()
    }

    fn credentials(&self) -> Option<ServerCredentials> {
        self.secret.as_ref().map(|s| read_server_secret(s).unwrap())
    }

    fn published(&self, kind: CredentialKind) -> Option<Password> {
        let secret = self.published.get(&kind.published_secret("orders"))?;
        read_published(&serde_json::from_value::<Secret>(secret.clone()).unwrap())
    }

    fn published_is(&self, password: &str) {
        let published = self.published(CredentialKind::Client).unwrap();
        assert_eq!(published.expose(), password);
    }

    /// As `observe` reads it.
    fn observed(&self) -> Observed {
        let mut remains = Remains {
            client: self.published(CredentialKind::Client),
            replication: self.published(CredentialKind::Replication),
            remembered: self.remembered.clone(),
            outdated: None,
        };
        let status = self.object.status.clone().unwrap_or_default();
        let credentials = match self.credentials() {
            Some(found) if !is_outdated(&found, &status.rotation) => {
                Credentials::Found(Box::new(found))
            }
            outdated => {
                remains.outdated = outdated.map(Box::new);
                Credentials::Absent(Box::new(remains))
            }
        };
        let mut children: BTreeMap<(&'static str, String), Value> = BTreeMap::new();
        for (name, secret) in &self.published {
            children.insert(("Secret", name.clone()), secret.clone());
        }
        if let Some(secret) = &self.secret {
            let mut secret = value(secret);
            diff::stamp(&mut secret);
            children.insert(("Secret", names::server_secret("orders")), secret);
        }
        Observed {
            set: self.object.clone(),
            references: self.references(),
            children,
            credentials,
            workload_replicas: Some(MEMBERS),
            pods: BTreeMap::new(),
            claims: BTreeMap::new(),
            volumes: BTreeMap::new(),
            nodes: BTreeMap::new(),
            view: self.view(),
            config_answers: BTreeMap::new(),
            switchovers: Pause::default(),
            waits: BTreeMap::new(),
            now: self.now,
        }
    }

    fn view(&self) -> View {
        let master = "orders-0";
        let member = |(name, server): (&String, &Server)| {
            let role = if name == master {
                proto::Role::Master
            } else {
                proto::Role::Follower
            };
            let state = proto::State {
                role: role.into(),
                link: proto::Link::Up.into(),
                secret_revision: server.told,
                link_secret_revision: Some(server.since),
                ..proto::State::default()
            };
            let view = MemberView {
                pod_uid: String::new(),
                address: ADDRESS,
                line: Line::Up,
                state: Some(Arc::new(state)),
                heard_ms: 0,
                remote: self.remote.clone(),
            };
            (name.clone(), view)
        };
        View {
            members: self
                .servers
                .iter()
                .filter(|(name, _)| self.away != Some(name.as_str()))
                .map(member)
                .collect(),
            verdict: Some(Verdict::Serving {
                master: master.to_owned(),
                term: replset::Term(1),
            }),
            stuck: None,
        }
    }

    /// One look: the plan, with its steps that concern passwords.
    fn look(&mut self) -> (Plan, Vec<Step>) {
        let observed = self.observed();
        if let Some(remembered) = observed.remembered() {
            self.remembered = Some(remembered.credentials);
        }
        let plan = plan(&self.set(), &observed);
        let concerns = |step: &Step| match step {
            Step::Apply(child) => child.kind == "Secret",
            Step::StoreCredentials { .. }
            | Step::RecordRotation { .. }
            | Step::PushCredentials { .. } => true,
            Step::PushConfig { .. }
            | Step::SetVoters { .. }
            | Step::SwitchOver { .. }
            | Step::DeletePod { .. }
            | Step::RecordRelocation(_)
            | Step::LabelPod { .. } => false,
        };
        let steps = plan.steps.iter().map(|p| p.step.clone());
        let steps = steps.filter(concerns).collect();
        (plan, steps)
    }

    /// Looks until there is nothing to do and nothing to wait for; returns how many steps it took.
    fn run(&mut self, mut cut: impl FnMut(usize) -> Cut) -> usize {
        self.run_with(|_, at| cut(at))
    }

    /// As [`Self::run`]; `before` may change the cluster before each step.
    fn run_with(&mut self, mut before: impl FnMut(&mut Self, usize) -> Cut) -> usize {
        let mut at = 0;
        for _ in 0..MAX_LOOKS {
            self.start_servers();
            let (plan, steps) = self.look();
            if steps.is_empty() && plan.secrets.waiting.is_empty() {
                self.check();
                return at;
            }
            if steps.is_empty() {
                self.now += plan.secrets.wake_after.unwrap_or(Duration::from_secs(1));
            }
            for step in steps {
                let cut = before(self, at);
                at += 1;
                let done = cut != Cut::Before && self.perform(step);
                self.check();
                if !done || cut == Cut::After {
                    break;
                }
            }
        }
        panic!("it does not end: {:?}", self.status().rotation);
    }

    /// Pods start once there is a Secret to mount.
    fn start_servers(&mut self) {
        if let (true, Some(file)) = (self.servers.is_empty(), self.files.last()) {
            for ordinal in 0..MEMBERS {
                let name = names::member("orders", ordinal);
                self.servers.insert(name, Server::started(file));
            }
        }
    }

    /// Performs a step as `apply` does; `false` if it was made from what is of the past.
    fn perform(&mut self, step: Step) -> bool {
        match step {
            Step::StoreCredentials { present, wanted } => {
                return self.store(present.as_deref(), *wanted);
            }
            Step::Apply(child) => {
                self.published.insert(child.name, child.object);
            }
            Step::RecordRotation { kind, seen, state } => {
                if is_still(kind, &seen, &self.object).is_err() {
                    return false;
                }
                let rotation = &mut self.status().rotation;
                let mut all = value(rotation);
                for (field, told) in value(&state).as_object().unwrap() {
                    all[kind.status_field()][field] = told.clone();
                }
                *rotation = serde_json::from_value(all).unwrap();
            }
            Step::PushCredentials { member, request } => {
                self.servers.get_mut(&member).unwrap().tell(&request.0);
            }
            Step::PushConfig { .. }
            | Step::SetVoters { .. }
            | Step::SwitchOver { .. }
            | Step::DeletePod { .. }
            | Step::RecordRelocation(_)
            | Step::LabelPod { .. } => panic!("it does not concern passwords"),
        }
        true
    }

    fn store(&mut self, present: Option<&ServerCredentials>, wanted: CredentialsDraft) -> bool {
        if self.credentials().as_ref() != present {
            return false;
        }
        let made = &mut self.made;
        let credentials = wanted.made(|| {
            *made += 1;
            Password::new(format!("g{made}"))
        });
        let secret = server_secret(&self.set(), &credentials);
        let file = secret.data.as_ref().unwrap()[CREDENTIALS_FILE].0.clone();
        let file = String::from_utf8(file).unwrap();
        if self.files.last() != Some(&file) {
            self.files.push(file);
        }
        self.secret = Some(secret);
        true
    }

    /// What must hold at every moment.
    fn check(&self) {
        let where_it_is = || format!("{:#?}", self.object.status.as_ref().map(|s| &s.rotation));
        for kind in CredentialKind::ALL {
            if self.rule == Rule::Clients && kind == CredentialKind::Replication {
                continue;
            }
            // What was published before the user gave a password nobody reads any more.
            let published = self.published(kind);
            let Some(published) = published.filter(|_| !self.given.contains_key(&kind)) else {
                continue;
            };
            for (name, server) in &self.servers {
                let accepted = server.accepts(kind, published.expose());
                assert!(
                    accepted,
                    "{name} refuses what is published: {}",
                    where_it_is()
                );
            }
        }
        if self.rule == Rule::Clients {
            return;
        }
        for (name, replica) in &self.servers {
            for (other, master) in self.servers.iter().filter(|(other, _)| *other != name) {
                let mut tried = replica.presents.iter();
                let accepted = tried.any(|p| master.accepts(CredentialKind::Replication, p));
                assert!(accepted, "{other} refuses {name}: {}", where_it_is());
            }
        }
    }

    /// The user writes a Secret that the spec names.
    fn give(&mut self, kind: CredentialKind, password: &'static str) {
        self.given.insert(kind, password);
    }

    /// Looks until there is nothing to do but to wait.
    fn rest(&mut self) {
        for _ in 0..MAX_LOOKS {
            self.start_servers();
            let (_, steps) = self.look();
            if steps.is_empty() {
                return;
            }
            for step in steps {
                assert!(self.perform(step));
                self.check();
            }
        }
        panic!("it does not rest: {:?}", self.status().rotation);
    }

    /// That every member that can be asked accepts these passwords of clients and no other.
    fn accepted_by_all_there(&self, passwords: &[&str]) {
        let wanted: BTreeSet<String> = passwords.iter().map(|p| (*p).to_owned()).collect();
        for (name, server) in &self.servers {
            if self.away != Some(name) {
                assert_eq!(server.accepts["default"], wanted, "{name}");
            }
        }
    }

    fn request(&mut self, scope: &str) {
        let annotations = self.object.metadata.annotations.get_or_insert_default();
        annotations.insert("redfleet.dev/rotate".to_owned(), format!("{scope}@1"));
    }

    /// That both credentials are settled at these revisions, and only the newest is accepted.
    fn ended(&mut self, client: i64, replication: i64) {
        let rotation = self.status().rotation.clone();
        let stands = CredentialKind::ALL.map(|kind| {
            let state = kind.recorded(&rotation);
            (state.revision, state.phase)
        });
        let settled = |revision| (revision, RotationPhase::Settled);
        assert_eq!(stands, [settled(client), settled(replication)]);
        let credentials = self.credentials().unwrap();
        for kind in CredentialKind::ALL {
            let newest = kind.ring(&credentials).newest.expose();
            match self.given.get(&kind) {
                // What was published before the user gave one stays as it was.
                Some(given) => assert_eq!(newest, *given),
                None => assert_eq!(self.published(kind).unwrap().expose(), newest),
            }
            for server in self.servers.values() {
                assert_eq!(
                    server.accepts[kind.user()],
                    BTreeSet::from([newest.to_owned()])
                );
            }
        }
        self.rule = Rule::Everybody;
        self.check();
    }
}

/// A settled cluster that was asked to rotate, and the revisions that it shall end with.
fn asked(scope: &str) -> (Cluster, i64, i64) {
    let mut cluster = Cluster::settled();
    cluster.request(scope);
    match scope {
        "client" => (cluster, 2, 1),
        "replication" => (cluster, 1, 2),
        _ => (cluster, 2, 2),
    }
}

const SCOPES: [&str; 3] = ["client", "replication", "all"];

#[tokio::test]
async fn a_rotation_cut_after_any_step_goes_on_and_nobody_is_refused() {
    for scope in SCOPES {
        let (mut whole, client, replication) = asked(scope);
        let steps = whole.run(|_| Cut::Nowhere);
        whole.ended(client, replication);
        assert!(steps > 12, "{steps}");
        for cut_at in 0..steps {
            for how in [Cut::Before, Cut::After] {
                let (mut cluster, client, replication) = asked(scope);
                cluster.run(|at| if at == cut_at { how } else { Cut::Nowhere });
                cluster.ended(client, replication);
            }
        }
        let (mut cluster, client, replication) = asked(scope);
        cluster.run(|_| Cut::After);
        cluster.ended(client, replication);
    }
}

#[tokio::test]
async fn both_passwords_rotate_in_one_write_of_the_secret() {
    let (mut cluster, ..) = asked("all");
    let (_, steps) = cluster.look();
    let stores = |steps: &[Step]| {
        let store = |step: &&Step| matches!(step, Step::StoreCredentials { .. });
        steps.iter().filter(store).count()
    };
    assert_eq!(stores(&steps), 1);
    let mut all = 0;
    cluster.run_with(|cluster, _| {
        all = all.max(cluster.files.len());
        Cut::Nowhere
    });
    assert_eq!(
        cluster.files.len(),
        3,
        "the first, both passwords, the newest"
    );
}

#[tokio::test]
async fn a_member_that_restarts_at_any_step_knows_what_counts() {
    for scope in SCOPES {
        let (mut whole, ..) = asked(scope);
        let steps = whole.run(|_| Cut::Nowhere);
        for restart_at in 0..steps {
            let (mut cluster, client, replication) = asked(scope);
            cluster.run_with(|cluster, at| {
                if at == restart_at {
                    let file = cluster.files.last().unwrap().clone();
                    let restarted = Server::started(&file);
                    cluster.servers.insert("orders-1".to_owned(), restarted);
                    cluster.check();
                }
                Cut::Nowhere
            });
            cluster.ended(client, replication);
        }
    }
}

#[tokio::test]
async fn a_member_that_restarts_with_the_file_of_before_the_retirement_gets_in() {
    let (mut cluster, client, replication) = asked("all");
    let mut restarted = 0;
    cluster.run_with(|cluster, _| {
        if cluster.status().rotation.client.phase == RotationPhase::Retiring && restarted == 0 {
            restarted += 1;
            let file = cluster.files[cluster.files.len() - 2].clone();
            cluster
                .servers
                .insert("orders-1".to_owned(), Server::started(&file));
            cluster.check();
        }
        Cut::Nowhere
    });
    assert_eq!(restarted, 1);
    cluster.ended(client, replication);
}

#[tokio::test]
async fn a_lost_secret_is_made_anew_as_the_operator_saw_it_last() {
    let (mut whole, ..) = asked("all");
    let steps = whole.run(|_| Cut::Nowhere);
    for lost_at in 0..steps {
        let (mut cluster, client, replication) = asked("all");
        let token = cluster.credentials().unwrap().control_token;
        cluster.run_with(|cluster, at| {
            if at == lost_at {
                // Seen by the look that made this plan.
                cluster.remembered = cluster.credentials().map(Box::new);
                cluster.secret = None;
                return Cut::Before;
            }
            Cut::Nowhere
        });
        cluster.ended(client, replication);
        assert_eq!(cluster.credentials().unwrap().control_token, token);
    }
}

#[tokio::test]
async fn what_was_retired_since_it_was_seen_is_not_restored() {
    let (mut cluster, client, replication) = asked("all");
    let mut seen = None;
    cluster.run_with(|cluster, _| {
        if seen.is_none() && cluster.status().rotation.client.phase == RotationPhase::Overlapping {
            seen = cluster.credentials().map(Box::new);
        }
        Cut::Nowhere
    });
    assert!(seen.as_ref().unwrap().client.previous.is_some());
    (cluster.secret, cluster.remembered) = (None, seen);
    cluster.run(|_| Cut::Nowhere);
    assert_eq!(cluster.credentials().unwrap().client.previous, None);
    cluster.ended(client, replication);
}

#[tokio::test]
async fn a_lost_secret_that_nobody_remembers_is_made_of_what_is_published() {
    let (mut whole, ..) = asked("all");
    let steps = whole.run(|_| Cut::Nowhere);
    for lost_at in 0..=steps {
        let (mut cluster, ..) = asked("all");
        cluster.rule = Rule::Clients;
        let lose = |cluster: &mut Cluster| {
            (cluster.secret, cluster.remembered) = (None, None);
        };
        cluster.run_with(|cluster, at| {
            if at == lost_at {
                lose(cluster);
                return Cut::Before;
            }
            Cut::Nowhere
        });
        if lost_at == steps {
            let before = cluster.published(CredentialKind::Client);
            lose(&mut cluster);
            cluster.run(|_| Cut::Nowhere);
            assert_eq!(cluster.published(CredentialKind::Client), before);
        }
        let rotation = cluster.status().rotation.clone();
        assert!(rotation.client.revision >= 2);
        cluster.ended(rotation.client.revision, rotation.replication.revision);
    }
}

#[tokio::test]
async fn without_any_trace_new_passwords_are_published_when_all_members_accept_them() {
    let mut cluster = Cluster::settled();
    cluster.rule = Rule::Clients;
    (cluster.secret, cluster.remembered) = (None, None);
    cluster.published.clear();
    cluster.run_with(|cluster, _| {
        if cluster.servers.values().any(|server| server.told < 12) {
            assert!(cluster.published.is_empty());
        }
        Cut::Nowhere
    });
    cluster.ended(2, 2);
}

#[tokio::test]
async fn a_copy_of_an_earlier_time_that_was_restored_refuses_nobody() {
    let (mut cluster, ..) = asked("client");
    let copy = cluster.secret.clone();
    cluster.run(|_| Cut::Nowhere);
    let published = cluster.published(CredentialKind::Client);
    (cluster.secret, cluster.remembered) = (copy, None);
    cluster.run(|_| Cut::Nowhere);
    assert_eq!(cluster.published(CredentialKind::Client), published);
    cluster.ended(3, 1);
}

#[tokio::test]
async fn a_lost_status_ends_settled_at_any_step() {
    let (mut whole, ..) = asked("all");
    let steps = whole.run(|_| Cut::Nowhere);
    for lost_at in 0..=steps {
        let (mut cluster, ..) = asked("all");
        let lose = |cluster: &mut Cluster| cluster.status().rotation = Default::default();
        cluster.run_with(|cluster, at| {
            if at == lost_at {
                lose(cluster);
            }
            Cut::Nowhere
        });
        if lost_at == steps {
            lose(&mut cluster);
            cluster.run(|_| Cut::Nowhere);
        }
        let rotation = cluster.status().rotation.clone();
        cluster.ended(rotation.client.revision, rotation.replication.revision);
    }
}

#[tokio::test]
async fn the_status_tells_the_last_instruction_that_each_member_confirmed() {
    let (mut cluster, ..) = asked("client");
    let mut told = BTreeSet::new();
    for _ in 0..MAX_LOOKS {
        let (plan, steps) = cluster.look();
        let members = plan.secrets.client_members.clone();
        told.extend(members.iter().filter_map(|m| m.applied.clone()));
        cluster.status().rotation.client.members = members;
        if steps.is_empty() {
            cluster.now += plan.secrets.wake_after.unwrap_or(Duration::from_secs(1));
        }
        for step in steps {
            assert!(cluster.perform(step));
        }
    }
    cluster.ended(2, 1);
    let told: Vec<&str> = told.iter().map(String::as_str).collect();
    assert_eq!(told, ["1-only", "2-add", "2-both", "2-only"]);
}

#[tokio::test]
async fn what_others_recorded_meanwhile_is_not_overwritten() {
    let (mut cluster, ..) = asked("client");
    let (_, steps) = cluster.look();
    let mut faster = cluster.clone();
    faster.run(|_| Cut::Nowhere);
    cluster.object = faster.object.clone();
    let record = steps
        .into_iter()
        .find(|s| matches!(s, Step::RecordRotation { .. }));
    assert!(!cluster.perform(record.unwrap()));
    assert_eq!(cluster.object, faster.object);
}

#[tokio::test]
async fn a_replication_password_of_the_users_rotates_whenever_its_secret_changes() {
    let changed = || {
        let mut cluster = Cluster::settled_with_given("mine-1");
        cluster.ended(1, 1);
        cluster.give(CredentialKind::Replication, "mine-2");
        cluster
    };
    let steps = changed().run(|_| Cut::Nowhere);
    for cut_at in 0..=steps {
        for how in [Cut::Before, Cut::After] {
            let mut cluster = changed();
            cluster.run(|at| if at == cut_at { how } else { Cut::Nowhere });
            cluster.ended(1, 2);
        }
    }
}

#[tokio::test]
async fn a_lost_replication_secret_of_the_users_changes_no_password() {
    let mut cluster = Cluster::settled_with_given("mine-1");
    cluster.given.clear();
    let (plan, steps) = cluster.look();
    assert!(steps.is_empty(), "{steps:?}");
    let problem = plan.secrets.problem.unwrap();
    assert!(
        problem.starts_with("spec.auth.replicationSecretName: Secret mine: it does not exist"),
        "{problem}"
    );
    cluster.give(CredentialKind::Replication, "mine-1");
    cluster.ended(1, 1);
}

#[tokio::test]
async fn a_rotation_tells_the_others_and_waits_for_a_member_that_is_away() {
    for restarts in [false, true] {
        let (mut cluster, client, replication) = asked("all");
        cluster.away = Some("orders-2");
        let mut waiting = Vec::new();
        for _ in 0..MAX_LOOKS {
            let (plan, steps) = cluster.look();
            for step in steps {
                assert!(cluster.perform(step));
                cluster.check();
            }
            waiting = plan.secrets.waiting;
            cluster.now += Duration::from_secs(10);
        }
        let waits = |why: &String| why.contains("orders-2 cannot be asked");
        assert!(
            !waiting.is_empty() && waiting.iter().all(waits),
            "{waiting:?}"
        );
        let newest = cluster.credentials().unwrap().client.newest;
        for (name, server) in &cluster.servers {
            let knows = server.accepts(CredentialKind::Client, newest.expose());
            assert_eq!(knows, name != "orders-2", "{name}");
        }
        if restarts {
            let restarted = Server::started(cluster.files.last().unwrap());
            cluster.servers.insert("orders-2".to_owned(), restarted);
        }
        cluster.away = None;
        cluster.run(|_| Cut::Nowhere);
        cluster.ended(client, replication);
    }
}

#[tokio::test]
async fn what_clients_read_is_accepted_though_it_changes_twice_while_a_member_is_away() {
    for phase in [RotationPhase::Adding, RotationPhase::Switching] {
        let mut cluster = Cluster::settled_with_clients("a");
        cluster.give(CredentialKind::Client, "b");
        while cluster.status().rotation.client.phase != phase {
            let (_, steps) = cluster.look();
            assert!(cluster.perform(steps[0].clone()));
        }
        cluster.away = Some("orders-2");
        cluster.rest();
        assert_eq!(cluster.status().rotation.client.phase, phase);
        cluster.accepted_by_all_there(&["a", "b"]);
        cluster.give(CredentialKind::Client, "c");
        cluster.rest();
        cluster.accepted_by_all_there(&["b", "c"]);
        cluster.away = None;
        cluster.run(|_| Cut::Nowhere);
        cluster.ended(3, 1);
    }
}

#[tokio::test]
async fn a_generated_password_that_nobody_has_read_yields_to_the_one_that_clients_have() {
    let (mut cluster, ..) = asked("client");
    cluster.away = Some("orders-2");
    cluster.rest();
    cluster.published_is("g1");
    cluster.object.spec.auth.client_secret_name = Some("theirs".to_owned());
    cluster.give(CredentialKind::Client, "a");
    cluster.rest();
    cluster.accepted_by_all_there(&["a", "g1"]);
    cluster.away = None;
    cluster.run(|_| Cut::Nowhere);
    cluster.ended(3, 1);
}

#[tokio::test]
async fn a_request_for_all_is_not_acted_upon_when_a_password_is_the_users_no_more() {
    let mut cluster = Cluster::settled_with_clients("a");
    cluster.request("all");
    cluster.run(|_| Cut::Nowhere);
    cluster.ended(1, 2);
    let rotation = cluster.status().rotation.clone();
    assert_eq!(rotation.client.request, rotation.replication.request);
    cluster.object.spec.auth.client_secret_name = None;
    cluster.given.clear();
    cluster.run(|_| Cut::Nowhere);
    cluster.ended(1, 2);
}
