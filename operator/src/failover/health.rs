//! Evidence over time → a verdict over the master.

use replset::{
    MasterLink, MasterSighting, Release, RoleKind, Term, Timing, Vote, VoterSet, master_is_lost,
};

/// How long a member's word about its master is worth something, in milliseconds. Members speak
/// after every change and at least once a second, and are asked again while anything looks wrong.
pub const FRESH_MS: u64 = 1_500;
/// How long a master's word about itself is worth something: one silent push more and it counts as
/// lost sight of. Less than a lease, so it never delays the end of one.
pub const MASTER_FRESH_MS: u64 = 1_100;

/// How our control connection to a member is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Line {
    /// States arrive.
    Up,
    /// There is none yet, or its state is not known.
    Unknown,
    /// The other end closed it, and a new connection was refused: nobody listens there.
    Refused,
    /// The other end closed it; a new one was not refused and not accepted either.
    Closed,
    /// It stands, or can be made, but nothing comes: a stopped process.
    Silent,
    /// Nothing can be reached there: a lost node or network.
    Unreachable,
}

/// What Kubernetes says about the member's pod.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PodFact {
    /// There is no news, or it runs.
    Running,
    /// The kubelet says that the server's container is not running.
    ContainerDown,
    /// Its deletion was asked for, or its object is gone.
    Deleted,
    /// Its node is not ready.
    NodeDown,
    /// It could not be looked up.
    Unknown,
}

/// The part of a member's pushed state that decides.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Word {
    /// How old it is, in milliseconds.
    pub age_ms: u64,
    /// What the member is.
    pub role: RoleKind,
    /// In which term.
    pub term: Term,
    /// Whether it serves clients.
    pub serving: bool,
    /// Whether its vote counts.
    pub vote: Vote,
    /// When it last heard its master, as of the push.
    pub master_seen_ms_ago: Option<u64>,
    /// Its replica link.
    pub link: MasterLink,
    /// A release that it gave, or saw its master give.
    pub released: Option<Release>,
    /// A term it was master of, and is no more.
    pub relinquished: Option<Term>,
    /// The highest term it promised.
    pub promised: Term,
}

/// Everything known about one member.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Witness {
    /// Its name.
    pub member: String,
    /// Our connection to it.
    pub line: Line,
    /// Its last word; `None` if it never spoke.
    pub word: Option<Word>,
    /// Its pod.
    pub pod: PodFact,
}

/// Everything known about a set.
#[derive(Clone, Debug)]
pub struct Evidence<'a> {
    /// The voters, from the status.
    pub voters: &'a VoterSet,
    /// The term of the last recorded mastership; 0 before the first.
    pub term: Term,
    /// The master of that term.
    pub master: Option<&'a str>,
    /// One for each member that should exist.
    pub witnesses: &'a [Witness],
    /// The durations in force; `suspicion_ms` is the set's `detectAfter`.
    pub timing: Timing,
}

/// How it is known that a master's process is gone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Proof {
    /// The kubelet says that its container ended.
    Container,
    /// Operator and replicas both find nobody listening at its address.
    Refused,
    /// The pod was deleted and its connections were closed by its own kernel.
    PodDeleted,
    /// The process itself says that it is master no more: it was started anew, or stepped down.
    OwnWord,
}

/// What is going on with the mastership.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// A member is master; it serves, or is about to.
    Serving {
        /// The member.
        master: String,
        /// Its term.
        term: Term,
    },
    /// There never was a master.
    NeverHadOne,
    /// The master gave its term up.
    Released(Release),
    /// The master's process is gone beyond doubt.
    Gone(Proof),
    /// A majority of the voters misses it.
    Missed(Symptom),
    /// Something is wrong, but not enough members say so.
    Unsure {
        /// Who or what is missing, in words.
        why: String,
    },
}

/// What a missed master looks like from here, for the record only.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Symptom {
    /// Its node does not answer.
    NodeLost,
    /// It accepts connections and says nothing.
    Unresponsive,
}

impl Evidence<'_> {
    /// The witness of a name.
    #[must_use]
    pub fn witness(&self, member: &str) -> Option<&Witness> {
        self.witnesses.iter().find(|w| w.member == member)
    }

    fn others<'a>(&'a self, master: &'a str) -> impl Iterator<Item = &'a Witness> {
        let is_voter = |w: &&Witness| self.voters.contains(&w.member.as_str().into());
        self.witnesses
            .iter()
            .filter(move |w| w.member != master)
            .filter(is_voter)
    }
}

impl Word {
    /// That of a member whose data belong to another set: it answers, and has no say.
    #[must_use]
    pub fn of_a_stranger(age_ms: u64) -> Self {
        Self {
            age_ms,
            role: RoleKind::Idle,
            term: Term(0),
            serving: false,
            vote: Vote::Suspended,
            master_seen_ms_ago: None,
            link: MasterLink::Down,
            released: None,
            relinquished: None,
            promised: Term(0),
        }
    }
}

impl Witness {
    /// Its last word, if it is recent.
    #[must_use]
    pub fn fresh(&self) -> Option<&Word> {
        self.word
            .as_ref()
            .filter(|w| self.line == Line::Up && w.age_ms <= FRESH_MS)
    }
}

/// The verdict over the set's master.
#[must_use]
pub fn judge(evidence: &Evidence<'_>) -> Verdict {
    if let Some((master, term)) = leader(evidence) {
        return Verdict::Serving { master, term };
    }
    if let Some(release) = released(evidence) {
        return Verdict::Released(release);
    }
    let Some(master) = evidence.master else {
        return Verdict::NeverHadOne;
    };
    match evidence.witness(master).and_then(|w| proof(evidence, w)) {
        Some(proof) => Verdict::Gone(proof),
        None => missed(evidence, master),
    }
}

/// The member that freshly says it is master, in the highest term.
fn leader(evidence: &Evidence<'_>) -> Option<(String, Term)> {
    evidence
        .witnesses
        .iter()
        .filter_map(|w| w.fresh().map(|word| (w, word)))
        .filter(|(_, word)| word.role == RoleKind::Master && word.age_ms <= MASTER_FRESH_MS)
        .filter(|(_, word)| word.term >= evidence.term && !is_over(word, evidence))
        .max_by_key(|(_, word)| word.term)
        .map(|(w, word)| (w.member.clone(), word.term))
}

/// A master that does not serve although a majority knows its term and misses it, or has promised a higher one: it is cut
/// off from its voters, or lost them to an election that failed. One that was just promoted and waits for an old lease to
/// end is neither; nor is one whose replicas have no vote yet because they are still copying its data: an election would
/// choose it again and begin their copying anew.
fn is_over(master: &Word, evidence: &Evidence<'_>) -> bool {
    let misses = |w: &Word| {
        let knows_it =
            w.term == master.term && w.role == RoleKind::Follower && w.vote == Vote::Granted;
        let lost = w
            .master_seen_ms_ago
            .is_none_or(|ago| ago >= evidence.timing.suspicion_ms);
        knows_it && lost
    };
    let words = evidence.witnesses.iter().filter_map(Witness::fresh);
    let without_it = words.filter(|w| w.promised > master.term || misses(w));
    !master.serving && without_it.count() >= replset::majority(evidence.voters.voters.len())
}

/// A release of the present term that somebody knows of.
fn released(evidence: &Evidence<'_>) -> Option<Release> {
    let words = evidence.witnesses.iter().filter_map(Witness::fresh);
    words
        .filter_map(|w| w.released)
        .find(|r| r.term >= evidence.term && r.term > Term(0))
}

fn proof(evidence: &Evidence<'_>, master: &Witness) -> Option<Proof> {
    let disowned = |w: &Word| w.relinquished >= Some(evidence.term) && w.role != RoleKind::Master;
    if master.fresh().is_some_and(disowned) {
        return Some(Proof::OwnWord);
    }
    let down = matches!(
        master.line,
        Line::Refused | Line::Closed | Line::Unreachable
    );
    if !down {
        return None;
    }
    if master.pod == PodFact::ContainerDown {
        return Some(Proof::Container);
    }
    let others = || evidence.others(&master.member).filter_map(Witness::fresh);
    let nobody_attached = others().count() > 0 && others().all(|w| w.link != MasterLink::Up);
    let refused_too = others().any(|w| w.link == MasterLink::Refused);
    match master.line {
        Line::Refused if refused_too && nobody_attached => Some(Proof::Refused),
        Line::Refused | Line::Closed if master.pod == PodFact::Deleted && nobody_attached => {
            Some(Proof::PodDeleted)
        }
        Line::Refused
        | Line::Closed
        | Line::Unreachable
        | Line::Up
        | Line::Unknown
        | Line::Silent => None,
    }
}

/// R14: the voters' own word decides; ours only names the symptom.
fn missed(evidence: &Evidence<'_>, master: &str) -> Verdict {
    let sightings: Vec<MasterSighting> = evidence
        .witnesses
        .iter()
        .filter_map(|w| w.fresh().map(|word| (w, word)))
        .map(|(w, word)| MasterSighting {
            member: w.member.as_str().into(),
            seen_ms_ago: word
                .master_seen_ms_ago
                .map(|ago| ago.saturating_add(word.age_ms)),
            leads: word.role == RoleKind::Master && word.serving,
        })
        .collect();
    match master_is_lost(evidence.voters, &sightings, &evidence.timing) {
        Ok(()) => Verdict::Missed(symptom(evidence.witness(master))),
        Err(refusal) => Verdict::Unsure {
            why: refusal.to_string(),
        },
    }
}

fn symptom(master: Option<&Witness>) -> Symptom {
    match master.map(|w| (w.line, w.pod)) {
        Some((Line::Silent, PodFact::Running | PodFact::Deleted | PodFact::Unknown)) => {
            Symptom::Unresponsive
        }
        Some(_) | None => Symptom::NodeLost,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use replset::{Generation, MemberName};

    use super::*;

    pub(in crate::failover) fn voters(n: usize) -> VoterSet {
        let voters = (0..n).map(|i| MemberName::new(format!("m-{i}"))).collect();
        VoterSet {
            generation: Generation(1),
            voters,
        }
    }

    pub(in crate::failover) fn word(role: RoleKind, seen: Option<u64>) -> Word {
        Word {
            age_ms: 20,
            role,
            term: Term(3),
            serving: role == RoleKind::Master,
            vote: Vote::Granted,
            master_seen_ms_ago: seen,
            link: if seen.is_some_and(|ms| ms < 800) {
                MasterLink::Up
            } else {
                MasterLink::Down
            },
            released: None,
            relinquished: None,
            promised: Term(3),
        }
    }

    pub(in crate::failover) fn witness(i: usize, line: Line, word: Option<Word>) -> Witness {
        Witness {
            member: format!("m-{i}"),
            line,
            word,
            pod: PodFact::Running,
        }
    }

    pub(in crate::failover) fn evidence<'a>(
        voters: &'a VoterSet,
        witnesses: &'a [Witness],
    ) -> Evidence<'a> {
        Evidence {
            voters,
            term: Term(3),
            master: Some("m-0"),
            witnesses,
            timing: Timing::default(),
        }
    }

    fn follower(i: usize, seen: Option<u64>) -> Witness {
        witness(i, Line::Up, Some(word(RoleKind::Follower, seen)))
    }

    fn verdict(witnesses: &[Witness]) -> Verdict {
        judge(&evidence(&voters(3), witnesses))
    }

    #[test]
    fn a_fresh_master_serves() {
        let master = witness(0, Line::Up, Some(word(RoleKind::Master, None)));
        let found = verdict(&[master, follower(1, Some(10)), follower(2, Some(10))]);
        assert_eq!(
            found,
            Verdict::Serving {
                master: "m-0".into(),
                term: Term(3)
            }
        );
    }

    #[test]
    fn an_operator_that_alone_lost_sight_deposes_nobody() {
        for line in [
            Line::Refused,
            Line::Closed,
            Line::Silent,
            Line::Unreachable,
            Line::Unknown,
        ] {
            let master = witness(0, line, None);
            let found = verdict(&[master, follower(1, Some(10)), follower(2, Some(10))]);
            assert!(
                matches!(found, Verdict::Unsure { .. }),
                "{line:?}: {found:?}"
            );
        }
    }

    #[test]
    fn a_majority_that_misses_it_is_enough_and_the_line_names_the_symptom() {
        for (line, symptom) in [
            (Line::Silent, Symptom::Unresponsive),
            (Line::Unreachable, Symptom::NodeLost),
        ] {
            let found = verdict(&[
                witness(0, line, None),
                follower(1, Some(900)),
                follower(2, None),
            ]);
            assert_eq!(found, Verdict::Missed(symptom));
        }
    }

    #[test]
    fn one_of_two_replicas_is_no_majority() {
        let found = verdict(&[
            witness(0, Line::Unreachable, None),
            follower(1, None),
            witness(2, Line::Unknown, None),
        ]);
        assert!(matches!(found, Verdict::Unsure { .. }), "{found:?}");
    }

    #[test]
    fn old_words_prove_nothing() {
        let stale = |i| {
            let mut w = follower(i, None);
            w.word.as_mut().unwrap().age_ms = FRESH_MS + 1;
            w
        };
        let found = verdict(&[witness(0, Line::Refused, None), stale(1), stale(2)]);
        assert!(matches!(found, Verdict::Unsure { .. }), "{found:?}");
    }

    #[test]
    fn refused_here_and_there_is_proof_without_waiting() {
        let mut one = follower(1, Some(100));
        one.word.as_mut().unwrap().link = MasterLink::Refused;
        let mut two = follower(2, Some(100));
        two.word.as_mut().unwrap().link = MasterLink::Down;
        let master = witness(0, Line::Refused, None);
        assert_eq!(
            verdict(&[master.clone(), one.clone(), two.clone()]),
            Verdict::Gone(Proof::Refused)
        );
        two.word.as_mut().unwrap().link = MasterLink::Up;
        assert!(matches!(
            verdict(&[master, one, two]),
            Verdict::Unsure { .. }
        ));
    }

    #[test]
    fn the_kubelets_word_counts_only_when_our_line_is_down_too() {
        let mut master = witness(0, Line::Refused, None);
        master.pod = PodFact::ContainerDown;
        let rest = [follower(1, Some(10)), follower(2, Some(10))];
        let all = [master.clone(), rest[0].clone(), rest[1].clone()];
        assert_eq!(verdict(&all), Verdict::Gone(Proof::Container));
        master.line = Line::Up;
        master.word = Some(word(RoleKind::Master, None));
        let found = verdict(&[master, rest[0].clone(), rest[1].clone()]);
        assert!(matches!(found, Verdict::Serving { .. }));
    }

    #[test]
    fn a_deleted_pod_whose_connections_were_closed_is_gone_but_not_one_that_is_unreachable() {
        let detached = |i| {
            let mut w = follower(i, Some(100));
            w.word.as_mut().unwrap().link = MasterLink::Down;
            w
        };
        let mut master = witness(0, Line::Closed, None);
        master.pod = PodFact::Deleted;
        let found = verdict(&[master.clone(), detached(1), detached(2)]);
        assert_eq!(found, Verdict::Gone(Proof::PodDeleted));
        master.line = Line::Unreachable;
        let found = verdict(&[master, detached(1), detached(2)]);
        assert!(
            matches!(found, Verdict::Unsure { .. }),
            "a force-deleted pod may live on"
        );
    }

    #[test]
    fn a_master_that_was_started_anew_says_so_itself() {
        let mut reborn = word(RoleKind::Idle, None);
        reborn.relinquished = Some(Term(3));
        let master = witness(0, Line::Up, Some(reborn));
        let found = verdict(&[master, follower(1, Some(10)), follower(2, Some(10))]);
        assert_eq!(found, Verdict::Gone(Proof::OwnWord));
    }

    #[test]
    fn a_release_is_heard_from_anybody() {
        let release = Release {
            term: Term(3),
            token: 7,
        };
        let mut heard = follower(1, Some(10));
        heard.word.as_mut().unwrap().released = Some(release);
        let found = verdict(&[
            witness(0, Line::Refused, None),
            heard,
            follower(2, Some(10)),
        ]);
        assert_eq!(found, Verdict::Released(release));
    }

    #[test]
    fn a_release_of_an_older_term_is_history() {
        let mut heard = follower(1, Some(10));
        heard.word.as_mut().unwrap().released = Some(Release {
            term: Term(2),
            token: 7,
        });
        let master = witness(0, Line::Up, Some(word(RoleKind::Master, None)));
        let found = verdict(&[master, heard, follower(2, Some(10))]);
        assert!(matches!(found, Verdict::Serving { .. }));
    }

    #[test]
    fn a_master_whose_voters_promised_somebody_else_is_not_waited_for() {
        let mut idle = word(RoleKind::Master, None);
        idle.serving = false;
        let master = witness(0, Line::Up, Some(idle));
        let promised = |i| {
            let mut w = follower(i, None);
            w.word.as_mut().unwrap().promised = Term(4);
            w
        };
        let found = verdict(&[master, promised(1), promised(2)]);
        assert!(matches!(found, Verdict::Missed(_)), "{found:?}");
    }

    #[test]
    fn one_that_promised_somebody_else_and_one_that_misses_it_are_a_majority() {
        let mut fenced = word(RoleKind::Master, None);
        fenced.serving = false;
        let mut promised = word(RoleKind::Idle, None);
        (promised.term, promised.promised) = (Term(0), Term(4));
        let found = verdict(&[
            witness(0, Line::Up, Some(fenced)),
            witness(1, Line::Up, Some(promised)),
            follower(2, Some(900)),
        ]);
        assert!(matches!(found, Verdict::Missed(_)), "{found:?}");
    }

    #[test]
    fn a_master_that_is_cut_off_from_its_replicas_is_deposed_when_it_stopped_serving() {
        let mut fenced = word(RoleKind::Master, None);
        let replicas = [follower(1, Some(900)), follower(2, Some(900))];
        let serving = witness(0, Line::Up, Some(fenced.clone()));
        let found = verdict(&[serving, replicas[0].clone(), replicas[1].clone()]);
        assert!(
            matches!(found, Verdict::Serving { .. }),
            "its lease is not over: {found:?}"
        );
        fenced.serving = false;
        let fenced = witness(0, Line::Up, Some(fenced));
        let found = verdict(&[fenced, replicas[0].clone(), replicas[1].clone()]);
        assert!(matches!(found, Verdict::Missed(_)), "{found:?}");
    }

    #[test]
    fn a_master_whose_replicas_are_still_copying_is_not_deposed() {
        let mut alone = word(RoleKind::Master, None);
        alone.serving = false;
        let learner = |i| {
            let mut w = follower(i, Some(900));
            w.word.as_mut().unwrap().vote = Vote::Suspended;
            w
        };
        let found = verdict(&[witness(0, Line::Up, Some(alone)), learner(1), learner(2)]);
        assert_eq!(
            found,
            Verdict::Serving {
                master: "m-0".into(),
                term: Term(3)
            }
        );
    }

    #[test]
    fn a_master_that_waits_for_an_old_lease_is_not_deposed() {
        let mut deferring = word(RoleKind::Master, None);
        (deferring.serving, deferring.term, deferring.promised) = (false, Term(4), Term(4));
        let promised = |i| {
            let mut w = follower(i, None);
            w.word.as_mut().unwrap().promised = Term(4);
            w
        };
        let master = witness(0, Line::Up, Some(deferring));
        let found = verdict(&[master, promised(1), promised(2)]);
        assert_eq!(
            found,
            Verdict::Serving {
                master: "m-0".into(),
                term: Term(4)
            }
        );
    }

    #[test]
    fn before_the_first_master_there_is_nobody_to_miss() {
        let voters = voters(3);
        let witnesses = [witness(0, Line::Up, Some(word(RoleKind::Idle, None)))];
        let mut e = evidence(&voters, &witnesses);
        (e.master, e.term) = (None, Term(0));
        assert_eq!(judge(&e), Verdict::NeverHadOne);
    }
}
