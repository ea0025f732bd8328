//! Golden scripts: a story of a replica set, command by command, and what everybody says to it.
//!
//! A script is a file of `scripts/`: commands, then `---`, then what they printed.
//! `UPDATE_GOLDENFILES=1 cargo test --workspace --test scripts` writes the outputs anew; read the difference.
//!
//! | command | does |
//! | --- | --- |
//! | `set 3` | a bootstrapped set of as many members; `a` is its master |
//! | `pass 500` | time, in milliseconds |
//! | `write a 50` | bytes into the master's stream |
//! | `down a`, `crash a`, `wipe a` | the process stops; starts again from disk; starts again with nothing |
//! | `kill a 40` | the process ends and starts again with what it had saved, up to this offset |
//! | `elect unplanned` | an election: `unplanned`, `forced`, or `planned` after `handover` |
//! | `promise b` | an election that ends when `b` has promised |
//! | `handover a b` | `a` gives its term to `b`; without `b` to whoever has everything |
//! | `show` | everybody |

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends at its first surprise"
)]

mod scene;

use std::{error::Error, fmt::Write as _};

use goldenscript::{Command, Context, Runner};
use replset::{
    Bootstrapped, DataPosition, Handover, Input, Intent, Loss, Release, Reply, Tail, Term,
};
use scene::{Set, name};

#[derive(Default)]
struct Stage {
    set: Option<Set>,
    release: Option<Release>,
}

impl Runner for Stage {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        let mut arguments = command.consume_args();
        let words: Vec<&str> = std::iter::from_fn(|| arguments.next_pos()).collect();
        arguments.reject_next()?;
        if command.name == "set" {
            self.set = Some(Set::of(number(&words, 0)?));
            return Ok(String::new());
        }
        let set = self.set.as_mut().ok_or("begin with `set`")?;
        match (command.name.as_str(), words.as_slice()) {
            ("pass", _) => set.pass(number(&words, 0)?),
            ("write", [who, _]) => set.write(member(who)?, number(&words, 1)?),
            ("down", [who]) => set.nodes[member(who)?].up = false,
            ("crash", [who]) => set.crash(member(who)?),
            ("kill", [who, _]) => set.kill(member(who)?, number(&words, 1)?),
            ("wipe", [who]) => set.restart(member(who)?, None, DataPosition::default()),
            ("promise", [who]) => {
                set.term += 1;
                let prepare = set.prepare(set.term, "op", Intent::Forced);
                let Some(Reply::Prepare(Ok(promise))) = set.ask(member(who)?, prepare) else {
                    return Err("it does not promise".into());
                };
                return Ok(format!("term {}\n", promise.term));
            }
            ("elect", [how]) => return elect(set, how, self.release),
            ("handover", [from, to @ ..]) => {
                let (release, said) = hand_over(set, member(from)?, to.first().copied())?;
                self.release = release;
                return Ok(said);
            }
            ("show", []) => return Ok(show(set)),
            (other, _) => return Err(format!("no command {other} with {words:?}").into()),
        }
        Ok(String::new())
    }
}

fn number<T: std::str::FromStr>(words: &[&str], at: usize) -> Result<T, Box<dyn Error>> {
    let word = words.get(at).ok_or("a number is missing")?;
    word.parse()
        .map_err(|_| format!("{word} is no number").into())
}

fn member(word: &str) -> Result<usize, Box<dyn Error>> {
    let found = (0..3).find(|at| name(*at).as_str() == word);
    found.ok_or_else(|| format!("nobody is called {word}").into())
}

fn elect(set: &mut Set, how: &str, release: Option<Release>) -> Result<String, Box<dyn Error>> {
    let intent = match how {
        "unplanned" => Intent::Unplanned,
        "forced" => Intent::Forced,
        "planned" => Intent::Planned(release.ok_or("nobody has handed over")?),
        other => return Err(format!("no election is {other}").into()),
    };
    Ok(match set.elect(intent, Bootstrapped::Yes) {
        Ok(promotion) => format!(
            "{} in term {}, serving is deferred by {} ms{}\n",
            promotion.winner.name,
            promotion.promote.term,
            promotion.promote.defer_ms,
            match promotion.loss {
                Loss::None => "",
                Loss::Possible => ", writes may be lost",
            }
        ),
        Err(why) => format!("nobody: {why}\n"),
    })
}

fn hand_over(
    set: &mut Set,
    from: usize,
    to: Option<&str>,
) -> Result<(Option<Release>, String), Box<dyn Error>> {
    let handover = Handover {
        term: Term(set.nodes[from].member.role_term().0),
        target: to.map(Into::into),
        budget_ms: 500,
        token: 77,
    };
    let answer = set.ask(from, Input::Handover(4, handover));
    let clients = set.clients(from).join(", ");
    match answer {
        Some(Reply::Handover(Ok(handed))) => {
            let said = format!(
                "released term {} to {}; {clients}\n",
                handed.release.term, handed.to
            );
            Ok((Some(handed.release), said))
        }
        Some(Reply::Handover(Err(refusal))) => Ok((None, format!("refused: {refusal}\n"))),
        Some(other) => Err(format!("{other:?}").into()),
        None => Ok((None, format!("not yet; {clients}\n"))),
    }
}

fn show(set: &mut Set) -> String {
    let mut out = String::new();
    for at in 0..set.nodes.len() {
        let clients = set.clients(at);
        let node = &set.nodes[at];
        let report = node.member.report(set.now);
        if !node.up {
            writeln!(out, "{}: down", report.id.name).unwrap();
            continue;
        }
        let follows = report
            .master
            .map(|m| format!(" of {m}"))
            .unwrap_or_default();
        let serves = if report.serving { ", serves" } else { "" };
        let cut = match node.member.state().tail {
            Tail::Whole => "",
            Tail::MayBeCut => ", may lack its end",
        };
        writeln!(
            out,
            "{}: {:?}{follows} in term {}, at {}, vote {:?}{serves}{cut}; promised {}; clients {clients:?}",
            report.id.name, report.role, report.term, report.position, report.vote, report.promised
        )
        .unwrap();
    }
    out
}

#[test]
fn scripts() -> std::io::Result<()> {
    for entry in std::fs::read_dir("tests/scripts")? {
        let path = entry?.path();
        println!("{}", path.display());
        goldenscript::run(&mut Stage::default(), &path)?;
    }
    Ok(())
}
