//! The ladder: every level of one history, the strongest that holds, for the whole and key by key.
//!
//! The levels are judged from where most follows: linearizability first, since it implies all others; if it fails, the
//! causal levels, which are polynomial and whose violation refutes sequential consistency with smaller evidence; then
//! sequential consistency. What one verdict implies is filled in and says so ("implied by sequential").

use std::time::Duration;

use crate::budget::Budget;
use crate::history::{Clock, History, Key};
use crate::linearizable::revisions::{self, Binds};
use crate::linearizable::{self, PartVerdict};
use crate::registers::{self, Registers};
use crate::verdict::{Exhausted, Finding, KEYS_LISTED_MAX, KeyReport, Level, Limit, Report, Verdict};
use crate::{causal, eventual, sequential, watch};

/// Keys with more operations in all than this are judged for linearizability alone, not for every level.
const KEY_LEVELS_OPERATIONS_MAX: usize = 200_000;

/// Judges every level of a history.
///
/// ```
/// use synod_check::{budget::Budget, formats, ladder, verdict::Level};
///
/// let text = r#"
/// {"process":0,"f":"write","key":"x","value":4,"start":0,"end":10}
/// {"process":1,"f":"read","key":"x","value":null,"start":20,"end":30}
/// "#;
/// let history = formats::read_all(text.as_bytes(), "stale", &formats::Options::default()).unwrap().remove(0);
/// let report = ladder::check(&history, &Budget::default());
/// assert_eq!(report.finding(Level::Linearizable).unwrap().verdict.decided(), Some(false));
/// assert_eq!(report.strongest(), Some(Level::Sequential));
/// ```
pub fn check(history: &History, budget: &Budget<'_>) -> Report {
    let begin = budget.watcher.now();
    let mut ladder = Ladder { budget, findings: Vec::new() };
    let (verdict, algorithm, parts) = linearizable::check_parts(history, budget);
    ladder.found(Level::Linearizable, verdict, algorithm, begin);
    ladder.weaker(history);
    let begin_eventual = budget.watcher.now();
    let registers = registers::of(history);
    let judged = registers.as_ref().map_or(history, |registers| &registers.history);
    let (mut verdict, algorithm, staleness) = eventual::check(judged, budget);
    if let Some(registers) = &registers {
        of_registers(&mut verdict, registers);
    }
    if ladder.decided(Level::Eventual).is_none() {
        ladder.found(Level::Eventual, verdict, algorithm, begin_eventual);
    }
    Report {
        name: history.name.clone(),
        format: history.format,
        model: history.model.name(),
        operations: history.operations.len(),
        findings: ladder.finish(),
        keys: keys(history, parts, budget),
        watch: watch::check(history),
        staleness,
        warnings: history.warnings.clone(),
        elapsed: budget.watcher.now().saturating_sub(begin),
    }
}

struct Ladder<'a, 'b> {
    budget: &'a Budget<'b>,
    findings: Vec<Finding>,
}

impl Ladder<'_, '_> {
    fn found(&mut self, level: Level, verdict: Verdict, algorithm: String, since: Duration) {
        let elapsed = self.budget.watcher.now().saturating_sub(since);
        self.findings.push(Finding { level, verdict, algorithm, elapsed });
        self.imply();
    }

    fn decided(&self, level: Level) -> Option<bool> {
        self.findings
            .iter()
            .find(|finding| finding.level == level)
            .and_then(|finding| finding.verdict.decided())
    }

    /// Fills in what follows from what is known: down from what holds, up from what is violated.
    fn imply(&mut self) {
        for level in Level::ALL {
            if self.decided(level).is_some() {
                continue;
            }
            let from = self.findings.iter().find_map(|known| match &known.verdict {
                Verdict::Holds(_) if known.level.implies(level) => {
                    Some((Verdict::holds(), format!("implied by {}", known.level.name())))
                }
                Verdict::Violated(evidence) if level.implies(known.level) => {
                    Some((Verdict::Violated(evidence.clone()), format!("implied by {}", known.level.name())))
                }
                _ => None,
            });
            if let Some((verdict, algorithm)) = from {
                // An unknown verdict that is known now: its place is taken, its time kept.
                let elapsed = self
                    .findings
                    .iter()
                    .find(|finding| finding.level == level)
                    .map(|finding| finding.elapsed);
                self.findings.retain(|finding| finding.level != level);
                self.findings.push(Finding {
                    level,
                    verdict,
                    algorithm,
                    elapsed: elapsed.unwrap_or_default(),
                });
            }
        }
    }

    /// The causal levels and sequential consistency, where they do not follow.
    fn weaker(&mut self, history: &History) {
        let registers = registers::of(history);
        let judged = registers.as_ref().map_or(history, |registers| &registers.history);
        if causal::LEVELS.iter().any(|level| self.decided(*level).is_none()) {
            let begin = self.budget.watcher.now();
            for (level, mut verdict, algorithm) in causal::check(judged, self.budget) {
                if self.decided(level).is_none() {
                    if let Some(registers) = &registers {
                        of_registers(&mut verdict, registers);
                    }
                    // One pass judges them all: the time is booked on the first.
                    self.found(level, verdict, algorithm, begin);
                }
            }
        }
        if self.decided(Level::Sequential).is_none() {
            let begin = self.budget.watcher.now();
            let (verdict, algorithm) = self.sequential(history, registers.as_ref());
            self.found(Level::Sequential, verdict, algorithm, begin);
        }
    }

    fn sequential(&self, history: &History, registers: Option<&Registers>) -> (Verdict, String) {
        let Some(registers) = registers else { return sequential::check(history, self.budget) };
        let all: Vec<u32> = (0..history.operations.len() as u32).collect();
        if let Some(verdict) = revisions::check(history, &all, Binds::Session, self.budget) {
            return (verdict, "revision-order".into());
        }
        let (mut verdict, algorithm) = sequential::check(&registers.history, self.budget);
        of_registers(&mut verdict, registers);
        (verdict, algorithm)
    }

    fn finish(mut self) -> Vec<Finding> {
        for level in Level::ALL {
            if !self.findings.iter().any(|finding| finding.level == level) {
                let progress = "no checker judged it".to_string();
                let verdict = Verdict::Unknown(Exhausted { limit: Limit::Unsupported, progress });
                let elapsed = Duration::ZERO;
                self.findings.push(Finding { level, verdict, algorithm: "none".into(), elapsed });
            }
        }
        self.findings.sort_by_key(|finding| finding.level);
        self.findings
    }
}

/// A verdict on the registers of an etcd history becomes one on the history: a violation is one, but what was cut into
/// single keys need not hold together.
fn of_registers(verdict: &mut Verdict, registers: &Registers) {
    if registers.cut > 0 && verdict.decided() == Some(true) {
        let progress = format!(
            "it holds key by key, but {} operations on several keys, or on none that is known, are not judged as a whole",
            registers.cut
        );
        *verdict = Verdict::Unknown(Exhausted { limit: Limit::Unsupported, progress });
        return;
    }
    translate(verdict, &registers.origin);
}

/// The levels of each key, worst first.
fn keys(history: &History, parts: Vec<PartVerdict>, budget: &Budget<'_>) -> Vec<KeyReport> {
    let mut seen: Vec<(Key, Option<Verdict>, String)> = Vec::new();
    if history.clock == Clock::PerProcess && linearizable::is_local(history.model) {
        let parts = history.by_key().into_iter().enumerate().filter(|(_, part)| !part.is_empty());
        seen.extend(parts.map(|(key, _)| (Key(key as u32), None, String::new())));
    }
    for part in parts {
        if let Some(key) = part.key {
            seen.push((key, Some(part.verdict), part.algorithm.to_string()));
        }
    }
    if seen.len() < 2 {
        return Vec::new();
    }
    seen.truncate(KEYS_LISTED_MAX);
    let by_key = history.by_key();
    let mut left = KEY_LEVELS_OPERATIONS_MAX;
    seen.into_iter()
        .map(|(key, verdict, algorithm)| {
            let part = &by_key[key.0 as usize];
            let mut ladder = Ladder { budget, findings: Vec::new() };
            if let Some(verdict) = verdict {
                ladder.found(Level::Linearizable, verdict, algorithm, budget.watcher.now());
            }
            if part.len() <= left && ladder.decided(Level::Sequential).is_none() {
                left -= part.len();
                let mut inner = Ladder { budget, findings: std::mem::take(&mut ladder.findings) };
                let judged = inner.findings.len();
                inner.weaker(&history.restricted(part));
                for finding in &mut inner.findings[judged..] {
                    translate(&mut finding.verdict, part);
                }
                ladder.findings = inner.findings;
            }
            ladder.findings.sort_by_key(|finding| finding.level);
            KeyReport { key, operations: part.len(), findings: ladder.findings }
        })
        .collect()
}

/// Positions in a part of the history become positions in the whole.
fn translate(verdict: &mut Verdict, part: &[u32]) {
    let back = |i: &mut u32| *i = part[*i as usize];
    match verdict {
        Verdict::Holds(witness) => witness.order.iter_mut().for_each(back),
        Verdict::Violated(evidence) => {
            evidence.operations.iter_mut().for_each(back);
            for edge in &mut evidence.cycle {
                back(&mut edge.before);
                back(&mut edge.after);
            }
        }
        Verdict::Unknown(_) => {}
    }
}
