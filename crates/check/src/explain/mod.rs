//! Why the next level fails: the smallest piece of the history, and words for it.
//!
//! - [`shrink`] cuts a history down to the few operations that still violate a level; [`piece`] does so for linearizability
//!   where only a search could decide it
//! - [`words`] names operations; this file makes sentences of evidence

pub mod piece;
pub mod shrink;
pub mod words;

use std::fmt::Write as _;

use crate::history::{Call, Clock, History, NEVER, Operation};
use crate::reads_from::read_value;
use crate::verdict::{Edge, Evidence, Finding, Level, Verdict, Why};

/// How many operations and steps are spelt out.
const LINES_MAX: usize = 24;

/// A finding in words: one line if the level holds or is unknown; the contradiction, the operations and the steps if it is violated.
///
/// ```
/// use std::time::Duration;
/// use synod_check::{budget::Budget, explain, generate::Script, sequential, verdict::{Finding, Level}};
///
/// let history = Script::new().write("2", "x", 1).write("2", "x", 2).read("4", "x", 2).read("4", "x", 1).history();
/// let (verdict, algorithm) = sequential::check(&history, &Budget::default());
/// let finding = Finding { level: Level::Sequential, verdict, algorithm, elapsed: Duration::ZERO };
/// let text = explain::explain(&history, &finding);
/// assert!(text.starts_with("Not sequentially consistent: process 4 read x=1"));
/// ```
pub fn explain(history: &History, finding: &Finding) -> String {
    let title = finding.level.title();
    match &finding.verdict {
        Verdict::Holds(_) => format!("{}: holds ({}).\n", capital(title), finding.algorithm),
        Verdict::Unknown(exhausted) => {
            format!("{}: unknown ({}): {}.\n", capital(title), exhausted.limit.name(), exhausted.progress)
        }
        Verdict::Violated(evidence) => {
            let narrowed = piece::narrowed(history, finding.level, evidence);
            violated(history, finding.level, narrowed.as_ref().unwrap_or(evidence))
        }
    }
}

/// The contradiction in one sentence.
///
/// ```
/// use synod_check::{budget::Budget, causal, explain, generate::Script, verdict::Verdict};
///
/// let history = Script::new().write("2", "x", 1).read("2", "x", 0).history();
/// let (level, verdict, _) = causal::check(&history, &Budget::default()).swap_remove(4);
/// let Verdict::Violated(evidence) = verdict else { unreachable!() };
/// assert_eq!(explain::headline(&history, level, &evidence), "process 2 read x=0 after its own write of x=1");
/// ```
pub fn headline(history: &History, level: Level, evidence: &Evidence) -> String {
    if let Some(words) = missed_write(history, level, evidence) {
        return words;
    }
    let op = |i: u32| &history.operations[i as usize];
    if level == Level::Eventual
        && let [one, other] = evidence.operations[..]
    {
        let last = |op: &Operation| format!("{} last {}", words::who(history, op), words::did(history, op));
        return format!("when all writes had completed, {} and {}", last(op(one)), last(op(other)));
    }
    if let Some(words) = against_time(history, evidence) {
        return words;
    }
    if let Some(words) = two_orders(history, evidence) {
        return words;
    }
    match evidence.operations[..] {
        [only] => {
            let op = op(only);
            format!("{} {}, which no write explains", words::who(history, op), words::did(history, op))
        }
        _ => evidence.reason.clone(),
    }
}

/// A read that returned something although a write of the same key came before it, as the circle says.
fn missed_write(history: &History, level: Level, evidence: &Evidence) -> Option<String> {
    let op = |i: u32| history.operations.get(i as usize);
    // The edge that closes the circle: the read did not see the write, so it would have to come first.
    let missed = evidence.cycle.iter().find_map(|edge| {
        let (read, write) = (op(edge.before)?, op(edge.after)?);
        let overwrites = edge.why == Why::Overwrites && read.key == write.key;
        (overwrites && read_value(read).is_some() && write.value_written().is_some())
            .then_some((edge, read, write))
    });
    let (edge, read, write) = missed?;
    let direct = |why: Why| {
        evidence
            .cycle
            .iter()
            .any(|other| other.why == why && other.before == edge.after && other.after == edge.before)
    };
    let reads = format!("{} {}", words::who(history, read), words::did(history, read));
    // Only linearizability may lean on the clock.
    let in_time = level == Level::Linearizable && history.clock == Clock::Shared && write.precedes(read);
    let own = write.process == read.process;
    Some(if own && (in_time || direct(Why::Session) || edge.after < edge.before) {
        format!("{reads} after its own {}", bare(history, write))
    } else if in_time || direct(Why::RealTime) {
        format!("{reads} after {} had completed", words::the(history, write))
    } else {
        format!("{reads} although {} must come before that", words::the(history, write))
    })
}

/// Writes that the reads put in two orders.
fn two_orders(history: &History, evidence: &Evidence) -> Option<String> {
    let orders = evidence.cycle.iter().filter(|edge| edge.why == Why::WriteOrder);
    let spelt: Option<Vec<String>> = orders
        .take(2)
        .map(|edge| {
            let (before, after) =
                (history.operations.get(edge.before as usize)?, history.operations.get(edge.after as usize)?);
            Some(format!("{} before {}", words::the(history, before), words::the(history, after)))
        })
        .collect();
    match &spelt?[..] {
        [] => None,
        [one] => Some(format!("what was read puts {one}, which cannot be")),
        several => Some(format!("what was read puts {}", several.join(", and "))),
    }
}

/// The steps of a contradiction so that what was known comes before what was read in spite of it.
pub(crate) fn in_reading_order(evidence: &Evidence) -> Vec<Edge> {
    let mut steps = evidence.cycle.clone();
    let in_spite = |edge: &Edge| matches!(edge.why, Why::Overwrites | Why::WriteOrder);
    if steps.len() > 1 && in_spite(&steps[0]) && !steps.iter().all(in_spite) {
        // A circle may be told from anywhere.
        steps.rotate_left(1);
    }
    steps
}

/// An answer that puts an operation before one that had completed before it was called.
fn against_time(history: &History, evidence: &Evidence) -> Option<String> {
    let spite = evidence.cycle.iter().find(|edge| {
        let back = |other: &&Edge| {
            other.why == Why::RealTime && other.before == edge.after && other.after == edge.before
        };
        edge.why != Why::RealTime && evidence.cycle.iter().any(|other| back(&other))
    })?;
    let (late, early) =
        (history.operations.get(spite.before as usize)?, history.operations.get(spite.after as usize)?);
    let did = format!("{} {}", words::who(history, late), words::did(history, late));
    Some(format!("{did} after {} had completed", words::the(history, early)))
}

/// The operation as a thing without its owner: "write of x=2".
fn bare(history: &History, operation: &Operation) -> String {
    let owned = words::the(history, operation);
    let owner = format!("{}'s ", words::who(history, operation));
    owned.strip_prefix(&owner).unwrap_or(&owned).to_string()
}

fn violated(history: &History, level: Level, evidence: &Evidence) -> String {
    let mut out = format!("Not {}: {}.\n", level.title(), headline(history, level, evidence));
    let sentence = headline(history, level, evidence) == evidence.reason;
    if !evidence.reason.is_empty() && !sentence {
        _ = writeln!(out, "  ({})", evidence.reason);
    }
    let count = evidence.operations.len();
    let enough = if evidence.sufficient { "these alone show it" } else { "seen in the whole history" };
    _ = writeln!(out, "  Operations ({count} of {}; {enough}):", history.operations.len());
    for &i in evidence.operations.iter().take(LINES_MAX) {
        if let Some(operation) = history.operations.get(i as usize) {
            _ = writeln!(out, "    {}", line(history, operation));
        }
    }
    if count > LINES_MAX {
        _ = writeln!(out, "    and {} more", count - LINES_MAX);
    }
    if !evidence.cycle.is_empty() {
        _ = writeln!(out, "  Because:");
        for edge in in_reading_order(evidence).iter().take(LINES_MAX) {
            _ = writeln!(out, "    - {}", step(history, edge));
        }
        if evidence.cycle.len() > LINES_MAX {
            _ = writeln!(out, "    - and {} more steps", evidence.cycle.len() - LINES_MAX);
        }
    }
    out
}

fn line(history: &History, operation: &Operation) -> String {
    let done = if operation.completed == NEVER { "?".to_string() } else { operation.completed.to_string() };
    let place = match operation.line {
        0 => format!("id {}", operation.id),
        line => format!("id {}, line {line}", operation.id),
    };
    format!(
        "{} {}   [{}, {done}] ({place})",
        words::who(history, operation),
        words::did(history, operation),
        operation.invoked
    )
}

/// One step of a contradiction in words.
///
/// ```
/// use synod_check::{explain, generate::Script, verdict::{Edge, Why}};
///
/// let history = Script::new().write("2", "x", 1).read("4", "x", 1).history();
/// let edge = Edge { before: 0, after: 1, why: Why::ReadsFrom };
/// assert_eq!(explain::step(&history, &edge), "process 4 read x=1 from process 2's write of x=1");
/// ```
pub fn step(history: &History, edge: &Edge) -> String {
    let op = |i: u32| history.operations.get(i as usize);
    let (Some(before), Some(after)) = (op(edge.before), op(edge.after)) else { return String::new() };
    let sentence =
        |operation| format!("{} {}", words::who(history, operation), words::did(history, operation));
    let (first, second) = (words::the(history, before), words::the(history, after));
    match edge.why {
        Why::RealTime => format!("{first} had completed before {second} was called"),
        Why::Session => format!("{}, and after that {}", sentence(before), words::did(history, after)),
        Why::ReadsFrom => match after.call {
            Call::Read | Call::Cas { .. } => format!("{} from {first}", sentence(after)),
            _ => format!("{second} saw {first}"),
        },
        Why::Overwrites => format!("but {}, as if {second} came after that", sentence(before)),
        Why::WriteOrder => format!("what was read puts {first} before {second}"),
        Why::Revision => format!("the store's revisions put {first} before {second}"),
        Why::Causality => format!("it follows that {first} comes before {second}"),
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}
