//! One self-contained page that shows a history and what was found out about it.
//!
//! Processes are rows and operations are bars, as Herlihy and Wing drew them. The page has three views: the counter-example alone,
//! with the steps of the contradiction as arrows; the whole history in time, with the offending operations marked; and, where
//! a level holds and an order was found, the history in that order. Nothing is loaded from anywhere: data, style and script are in
//! the page; it is drawn on a canvas, which a hundred thousand bars do not trouble.
//!
//! `page.html`, `page.css` and `page.js` beside this file are the template; this file writes the data into it. Left out: editing, and
//! histories beyond [`OPERATIONS_SHOWN_MAX`], of which a window around the first violation is shown.

use std::fmt::Write as _;

use hashbrown::HashMap;
use serde_json::{Value as Json, json};

use crate::explain;
use crate::history::{Call, Clock, History, NEVER, Operation, Outcome, Reply};
use crate::verdict::{Evidence, Finding, Report, Verdict, Why};

/// How many operations a page holds; it has about fifty bytes for each.
pub const OPERATIONS_SHOWN_MAX: usize = 250_000;

/// The page for a history and its report.
///
/// ```
/// use std::time::Duration;
/// use synod_check::{budget::Budget, generate::Script, html, sequential};
/// use synod_check::verdict::{Finding, Level, Report};
///
/// let history = Script::new().write("p", "x", 1).read("q", "x", 1).read("q", "x", 0).history();
/// let (verdict, algorithm) = sequential::check(&history, &Budget::default());
/// let finding = Finding { level: Level::Sequential, verdict, algorithm, elapsed: Duration::ZERO };
/// let page = html::page(&history, &html::report_of(&history, vec![finding]));
/// assert!(page.starts_with("<!doctype html>"));
/// assert!(!page.contains("http"), "nothing is loaded from anywhere");
/// ```
pub fn page(history: &History, report: &Report) -> String {
    let shown = Shown::of(history, report);
    let data = shown.data(history, report).to_string();
    // A value may hold anything, also "</script>"; in JSON text "<" may be written as an escape everywhere.
    let data = data.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
    let title = escape(&format!("{}: {}", report.name, verdict_in_brief(report)));
    let template = include_str!("page.html");
    let mut out = String::with_capacity(template.len() + data.len() + 64 * 1024);
    for part in template.split("{{").enumerate() {
        match part {
            (0, text) => out.push_str(text),
            (_, text) => {
                let (name, rest) = text.split_once("}}").unwrap_or(("", text));
                match name {
                    "title" => out.push_str(&title),
                    "style" => out.push_str(include_str!("page.css")),
                    "script" => out.push_str(include_str!("page.js")),
                    "data" => out.push_str(&data),
                    _ => {}
                }
                out.push_str(rest);
            }
        }
    }
    out
}

/// A report with nothing but some findings, for those who call single checkers.
pub fn report_of(history: &History, findings: Vec<Finding>) -> Report {
    Report {
        name: history.name.clone(),
        format: history.format,
        model: history.model.name(),
        operations: history.operations.len(),
        findings,
        keys: Vec::new(),
        watch: Vec::new(),
        staleness: None,
        warnings: history.warnings.clone(),
        elapsed: std::time::Duration::ZERO,
    }
}

fn verdict_in_brief(report: &Report) -> String {
    report.strongest().map_or("no level holds".to_string(), |level| level.title().to_string())
}

/// The operations on the page, as positions in the history, and back.
struct Shown {
    positions: Vec<u32>,
    place: HashMap<u32, u32, foldhash::fast::FixedState>,
}

impl Shown {
    fn of(history: &History, report: &Report) -> Shown {
        let all = history.operations.len();
        let mut positions: Vec<u32> = if all <= OPERATIONS_SHOWN_MAX {
            (0..all as u32).collect()
        } else {
            let first = evidences(report)
                .next()
                .and_then(|evidence| evidence.operations.first())
                .map_or(0, |&i| i as usize);
            let from = first.saturating_sub(OPERATIONS_SHOWN_MAX / 2).min(all - OPERATIONS_SHOWN_MAX);
            let window = from as u32..(from + OPERATIONS_SHOWN_MAX) as u32;
            evidences(report).flat_map(|evidence| evidence.operations.iter().copied()).chain(window).collect()
        };
        positions.sort_unstable();
        positions.dedup();
        let place = positions.iter().enumerate().map(|(place, &position)| (position, place as u32)).collect();
        Shown { positions, place }
    }

    fn places(&self, positions: &[u32]) -> Vec<u32> {
        positions.iter().filter_map(|position| self.place.get(position).copied()).collect()
    }

    fn data(&self, history: &History, report: &Report) -> Json {
        let operations = || self.positions.iter().map(|&i| &history.operations[i as usize]);
        let origin = operations().map(|op| op.invoked).min().unwrap_or(0);
        let mut texts = Texts::default();
        let text: Vec<u32> = operations().map(|op| texts.number(&label(history, op))).collect();
        let names = |table: &crate::history::Table| -> Vec<String> {
            (0..table.len() as u32).map(|i| table.get(i).to_string()).collect()
        };
        json!({
            "name": report.name,
            "format": report.format,
            "model": report.model,
            "total": report.operations,
            "shared": history.clock == Clock::Shared,
            "origin": origin.to_string(),
            "processes": names(&history.processes),
            "keys": names(&history.keys),
            "texts": texts.texts,
            "process": operations().map(|op| op.process.0).collect::<Vec<u32>>(),
            "key": operations().map(|op| op.key.0).collect::<Vec<u32>>(),
            "kind": operations().map(kind).collect::<Vec<u8>>(),
            "text": text,
            "start": operations().map(|op| op.invoked - origin).collect::<Vec<i64>>(),
            // Relative to the start; -1: never.
            "took": operations().map(|op| if op.completed == NEVER { -1 } else { op.completed - op.invoked }).collect::<Vec<i64>>(),
            "id": operations().map(|op| op.id).collect::<Vec<u64>>(),
            "findings": report.findings.iter().map(|finding| self.finding(history, finding)).collect::<Vec<Json>>(),
            "warnings": report.warnings.iter().map(|warning| format!("{} ({} times)", warning.message, warning.count)).collect::<Vec<String>>(),
            "staleness": report.staleness.as_ref().map(|staleness| json!({
                "fresh": staleness.fresh, "stale": staleness.stale, "oldest": staleness.oldest, "histogram": staleness.histogram,
            })),
        })
    }

    fn finding(&self, history: &History, finding: &Finding) -> Json {
        let mut out = json!({
            "level": finding.level.name(),
            "title": finding.level.title(),
            "algorithm": finding.algorithm,
            "text": explain::explain(history, finding),
        });
        match &finding.verdict {
            Verdict::Holds(witness) => {
                out["verdict"] = json!("holds");
                // An order is shown where all of it is on the page.
                let order = self.places(&witness.order);
                if order.len() == witness.order.len() && !order.is_empty() {
                    out["order"] = json!(order);
                }
            }
            Verdict::Unknown(exhausted) => {
                out["verdict"] = json!("unknown");
                out["headline"] = json!(exhausted.progress);
            }
            Verdict::Violated(evidence) => {
                let narrowed = explain::piece::narrowed(history, finding.level, evidence);
                let evidence = narrowed.as_ref().unwrap_or(evidence);
                out["verdict"] = json!("violated");
                out["headline"] = json!(explain::headline(history, finding.level, evidence));
                out["reason"] = json!(evidence.reason);
                out["operations"] = json!(self.places(&evidence.operations));
                out["steps"] = json!(self.steps(history, evidence));
            }
        }
        out
    }

    /// `[before, after, why, words]` of each step whose ends are on the page.
    fn steps(&self, history: &History, evidence: &Evidence) -> Vec<Json> {
        let steps = explain::in_reading_order(evidence).into_iter().filter_map(|edge| {
            let (before, after) = (self.place.get(&edge.before)?, self.place.get(&edge.after)?);
            Some(json!([before, after, why(edge.why), explain::step(history, &edge)]))
        });
        steps.collect()
    }
}

fn evidences(report: &Report) -> impl Iterator<Item = &Evidence> {
    report.findings.iter().filter_map(|finding| match &finding.verdict {
        Verdict::Violated(evidence) => Some(evidence),
        Verdict::Holds(_) | Verdict::Unknown(_) => None,
    })
}

/// Equal texts once.
#[derive(Default)]
struct Texts {
    texts: Vec<String>,
    numbers: HashMap<String, u32, foldhash::fast::FixedState>,
}

impl Texts {
    fn number(&mut self, text: &str) -> u32 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        let number = self.texts.len() as u32;
        self.texts.push(text.to_string());
        self.numbers.insert(text.to_string(), number);
        number
    }
}

/// What a bar says: "x=1" for a read, "x:=1" for a write.
fn label(history: &History, operation: &Operation) -> String {
    let key = history.key(operation.key);
    match (&operation.call, operation.reply()) {
        (Call::Read, Some(Reply::Value(value))) => format!("{key}={}", history.value(*value)),
        (Call::Write(value), _) => format!("{key}:={}", history.value(*value)),
        (Call::Cas { expected, new }, _) => {
            format!("{key}:{}→{}", history.value(*expected), history.value(*new))
        }
        _ => explain::words::did(history, operation),
    }
}

/// 0 read, 1 write, 2 both, 3 anything else; 4 more if it failed, 8 more if its fate is unknown.
fn kind(operation: &Operation) -> u8 {
    let kind = match operation.call {
        Call::Read => 0,
        Call::Write(_) | Call::Delete => 1,
        Call::Cas { .. } => 2,
        _ => 3,
    };
    match operation.outcome {
        Outcome::Ok(Reply::Flag(false)) | Outcome::Failed => kind + 4,
        Outcome::Ok(_) => kind,
        Outcome::Unknown => kind + 8,
    }
}

fn why(why: Why) -> &'static str {
    match why {
        Why::RealTime => "real time",
        Why::Session => "session",
        Why::ReadsFrom => "reads from",
        Why::Overwrites => "not seen",
        Why::WriteOrder => "write order",
        Why::Revision => "revision",
        Why::Causality => "causality",
    }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' | '>' | '&' | '"' | '\'' | '{' | '}' => _ = write!(out, "&#{};", u32::from(letter)),
            _ => out.push(letter),
        }
    }
    out
}
