//! The tables of quorum and joint-consensus arithmetic give their answers: a few of our own, and those of
//! etcd-io/raft, which nobody here wrote, from `raft/{quorum,confchange}/testdata` of the oracles.
//!
//! The oracles are looked for in `$SYNOD_ORACLES`, then in `../shared/oracles` beside the workspace.
#![allow(clippy::disallowed_methods)] // a test may read files

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use synod_core::quorum::{self, Outcome};
use synod_core::{Change, ChangeError, Index, Members, NodeId};

/// One case of a table: the command line, the lines of input, the lines of the answer.
struct Case {
    line: usize,
    command: String,
    input: Vec<String>,
    answer: Vec<String>,
}

/// Our own tables are right.
#[test]
fn own_tables() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    assert_eq!(run_quorum(&folder.join("quorum.txt")), 9);
    assert_eq!(run_confchange(&folder.join("confchange.txt")), 8);
}

/// Every row of the oracles' four quorum tables gives its answer.
#[test]
fn quorum_tables_of_the_oracles() {
    let Some(folder) = oracles("quorum") else { return };
    let cases: usize = tables(&folder).iter().map(|table| run_quorum(table)).sum();
    assert!(cases > 120, "only {cases} cases were found in {}", folder.display());
}

/// Every row of the oracles' nine tables of configuration changes gives its answer.
#[test]
fn confchange_tables_of_the_oracles() {
    let Some(folder) = oracles("confchange") else { return };
    let cases: usize = tables(&folder).iter().map(|table| run_confchange(table)).sum();
    assert!(cases > 50, "only {cases} cases were found in {}", folder.display());
}

fn oracles(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("SYNOD_ORACLES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/oracles"), PathBuf::from);
    let folder = root.join("raft").join(name).join("testdata");
    if !folder.is_dir() {
        eprintln!("SKIPPED: no oracles in {}; only our own tables were read", folder.display());
        return None;
    }
    Some(folder)
}

fn tables(folder: &Path) -> Vec<PathBuf> {
    let mut tables: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    tables.sort();
    tables
}

fn cases(path: &Path) -> Vec<Case> {
    let text = std::fs::read_to_string(path).expect("a table");
    let mut cases = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let mut case =
            Case { line: number + 1, command: line.to_owned(), input: Vec::new(), answer: Vec::new() };
        for (_, line) in lines.by_ref().take_while(|(_, line)| *line != "----") {
            case.input.push(line.to_owned());
        }
        while let Some((_, line)) = lines.next_if(|(_, line)| !line.trim().is_empty()) {
            case.answer.push(line.to_owned());
        }
        cases.push(case);
    }
    cases
}

/// The values of `name=(a, b, c)` in a command line; empty when it is absent, zero or `()`.
fn list(command: &str, name: &str) -> Vec<String> {
    let Some(start) = command.find(&format!(" {name}=(")) else { return Vec::new() };
    let rest = &command[start + name.len() + 3..];
    let inside = &rest[..rest.find(')').expect("a closing parenthesis")];
    inside.split([',', ' ']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn nodes(command: &str, name: &str) -> Vec<NodeId> {
    list(command, name).iter().map(|id| NodeId(id.parse().expect("a node"))).collect()
}

fn run_quorum(path: &Path) -> usize {
    let cases = cases(path);
    for case in &cases {
        let (incoming, outgoing) = (nodes(&case.command, "cfg"), nodes(&case.command, "cfgj"));
        let members = Members {
            voters: incoming.iter().copied().collect(),
            outgoing: outgoing.iter().copied().collect(),
            ..Members::default()
        };
        // Values are given in the order in which the nodes are first named.
        let mut named = Vec::new();
        for node in incoming.into_iter().chain(outgoing) {
            if !named.contains(&node) {
                named.push(node);
            }
        }
        let answer = if case.command.starts_with("committed") {
            let values = list(&case.command, "idx");
            let reached: BTreeMap<NodeId, Index> =
                named.into_iter().zip(values.iter().map(|v| Index(v.parse().unwrap_or(0)))).collect();
            let value = |node| reached.get(&node).copied().unwrap_or_default();
            let joint = quorum::joint_reached(&members, value);
            if members.outgoing.is_empty() {
                assert_eq!(joint, quorum::majority_reached(&members.voters, value));
            }
            joint.map_or("∞".to_owned(), |index| index.to_string())
        } else {
            let values = list(&case.command, "votes");
            let votes: BTreeMap<NodeId, Option<bool>> = named
                .into_iter()
                .zip(values.iter().map(|v| match v.as_str() {
                    "y" => Some(true),
                    "n" => Some(false),
                    _ => None,
                }))
                .collect();
            let vote = |node| votes.get(&node).copied().flatten();
            match quorum::joint_vote(&members, vote) {
                Outcome::Won => "VoteWon",
                Outcome::Lost => "VoteLost",
                Outcome::Pending => "VotePending",
            }
            .to_owned()
        };
        let expected = case.answer.last().expect("an answer").trim();
        let expected = expected.strip_prefix("<empty majority quorum>").unwrap_or(expected);
        assert_eq!(answer, expected, "{}:{}: {}", path.display(), case.line, case.command);
    }
    cases.len()
}

fn run_confchange(path: &Path) -> usize {
    let mut members = Members::default();
    // Where replication to each node starts: the step at which it was first known, kept through role changes.
    let mut next: BTreeMap<NodeId, usize> = BTreeMap::new();
    let cases = cases(path);
    for (step, case) in cases.iter().enumerate() {
        let changes: Vec<Change> = case.input.iter().flat_map(|line| changes(line)).collect();
        let (name, outcome) = match case.command.split(' ').next().expect("a word") {
            "simple" => ("simple", members.simple(&changes)),
            "enter-joint" => ("enter", members.enter_joint(&changes)),
            "leave-joint" => ("leave", members.leave_joint()),
            other => panic!("{}:{}: unknown command {other}", path.display(), case.line),
        };
        let mut answer = Vec::new();
        match outcome {
            Ok(after) => {
                assert!(after.is_sound());
                next.retain(|node, _| after.contains(*node));
                for node in after.all() {
                    next.entry(node).or_insert(step.max(1));
                }
                members = after;
                let auto = if case.command.contains("autoleave=true") { " autoleave" } else { "" };
                answer.push(shown(&members) + auto);
                for node in members.all() {
                    let learner = if members.learners.contains(&node) { " learner" } else { "" };
                    answer.push(format!("{}: StateProbe match=0 next={}{learner}", node.0, next[&node]));
                }
            }
            Err(error) => answer.push(wording(name, &members, &error).to_owned()),
        }
        // Our own tables do without the lines of progress.
        answer.truncate(case.answer.len());
        assert_eq!(answer, case.answer, "{}:{}: {}", path.display(), case.line, case.command);
    }
    cases.len()
}

fn changes(line: &str) -> Vec<Change> {
    let change = |word: &str| {
        let node = NodeId(word[1..].parse().expect("a node"));
        match &word[..1] {
            "v" => Some(Change::AddVoter(node)),
            "l" => Some(Change::AddLearner(node)),
            "r" => Some(Change::Remove(node)),
            "u" => None, // an update of what the configuration does not hold
            other => panic!("unknown change {other}"),
        }
    };
    line.split_whitespace().filter_map(change).collect()
}

fn wording(command: &str, members: &Members, error: &ChangeError) -> &'static str {
    match (error, command) {
        (ChangeError::NotJoint, _) => "can't leave a non-joint config",
        (ChangeError::AlreadyJoint, "simple") => "can't apply simple config change in joint config",
        (ChangeError::AlreadyJoint, _) => "config is already joint",
        (ChangeError::NoVoters, "enter") if members.voters.is_empty() => {
            "can't make a zero-voter config joint"
        }
        (ChangeError::NoVoters, _) => "removed all voters",
        (ChangeError::TooManyAtOnce, _) => "more than one voter changed without entering joint config",
    }
}

fn shown(members: &Members) -> String {
    let set = |nodes: &BTreeSet<NodeId>| {
        let names: Vec<String> = nodes.iter().map(|node| node.0.to_string()).collect();
        format!("({})", names.join(" "))
    };
    let mut text = format!("voters={}", set(&members.voters));
    if members.is_joint() {
        text += &format!("&&{}", set(&members.outgoing));
    }
    for (name, nodes) in [("learners", &members.learners), ("learners_next", &members.learners_next)] {
        if !nodes.is_empty() {
            text += &format!(" {name}={}", set(nodes));
        }
    }
    text
}
