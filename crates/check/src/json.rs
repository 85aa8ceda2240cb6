//! The `--json` object: one for each history, with its verdicts where a script looks for them first.
//!
//! Each level's name is a field of its own, `true`, `false` or `"unknown"`, beside `strongest`, `algorithm` and
//! `time_ms`; `levels` says more of each. Operations are named by `id` and `line` of the input. Field order is fixed.

use serde::Serialize;

use crate::history::History;
use crate::verdict::{Evidence, Finding, KeyReport, Level, Report, Staleness, Verdict};
use crate::watch::WatchFinding;

/// How many operations of a piece of evidence are listed; the rest is counted.
const EVIDENCE_LISTED_MAX: usize = 100;

/// `true`, `false` or `"unknown"`.
#[derive(Serialize)]
#[serde(untagged)]
enum Truth {
    Known(bool),
    Unknown(&'static str),
}

fn truth(verdict: &Verdict) -> Truth {
    verdict.decided().map_or(Truth::Unknown("unknown"), Truth::Known)
}

#[derive(Serialize)]
struct Object<'a> {
    name: &'a str,
    format: &'a str,
    model: &'a str,
    operations: usize,
    processes: usize,
    linearizable: Truth,
    sequential: Truth,
    ccv: Truth,
    cm: Truth,
    cc: Truth,
    pram: Truth,
    read_your_writes: Truth,
    monotonic_reads: Truth,
    monotonic_writes: Truth,
    writes_follow_reads: Truth,
    eventual: Truth,
    strongest: &'static str,
    strongest_all: Vec<&'static str>,
    algorithm: &'a str,
    time_ms: f64,
    levels: Vec<LevelObject<'a>>,
    keys: Vec<KeyObject>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    watch: Vec<WatchObject<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    staleness: Option<StalenessObject<'a>>,
    warnings: Vec<WarningObject<'a>>,
}

#[derive(Serialize)]
struct LevelObject<'a> {
    level: &'static str,
    holds: Truth,
    algorithm: &'a str,
    time_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<EvidenceObject<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<UnknownObject<'a>>,
}

#[derive(Serialize)]
struct EvidenceObject<'a> {
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    operations: Vec<OperationObject>,
    count: usize,
    cycle: Vec<EdgeObject>,
}

#[derive(Serialize)]
struct OperationObject {
    id: u64,
    line: u32,
    process: String,
}

#[derive(Serialize)]
struct EdgeObject {
    before: u64,
    after: u64,
    why: String,
}

#[derive(Serialize)]
struct UnknownObject<'a> {
    limit: &'static str,
    progress: &'a str,
}

#[derive(Serialize)]
struct KeyObject {
    key: String,
    operations: usize,
    strongest: &'static str,
    linearizable: Truth,
}

#[derive(Serialize)]
struct WatchObject<'a> {
    guarantee: &'static str,
    holds: Truth,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

#[derive(Serialize)]
struct StalenessObject<'a> {
    fresh: u64,
    stale: u64,
    oldest: i64,
    histogram: &'a [(i64, u64)],
}

#[derive(Serialize)]
struct WarningObject<'a> {
    kind: &'static str,
    line: u32,
    message: &'a str,
    count: u64,
}

/// The report as one line of JSON.
pub fn line(history: &History, report: &Report) -> String {
    let holds =
        |level| report.finding(level).map_or(Truth::Unknown("unknown"), |finding| truth(&finding.verdict));
    let object = Object {
        name: &report.name,
        format: report.format,
        model: report.model,
        operations: report.operations,
        processes: history.processes.len(),
        linearizable: holds(Level::Linearizable),
        sequential: holds(Level::Sequential),
        ccv: holds(Level::CausalConvergence),
        cm: holds(Level::CausalMemory),
        cc: holds(Level::Causal),
        pram: holds(Level::Pram),
        read_your_writes: holds(Level::ReadYourWrites),
        monotonic_reads: holds(Level::MonotonicReads),
        monotonic_writes: holds(Level::MonotonicWrites),
        writes_follow_reads: holds(Level::WritesFollowReads),
        eventual: holds(Level::Eventual),
        strongest: name(report.strongest()),
        strongest_all: report.maximal().into_iter().map(Level::name).collect(),
        algorithm: report.finding(Level::Linearizable).map_or("none", |finding| &finding.algorithm),
        time_ms: report.elapsed.as_secs_f64() * 1e3,
        levels: report.findings.iter().map(|finding| level(history, finding)).collect(),
        keys: report.keys.iter().map(|report| key(history, report)).collect(),
        watch: report.watch.iter().map(watch).collect(),
        staleness: report.staleness.as_ref().map(staleness),
        warnings: report
            .warnings
            .iter()
            .map(|warning| WarningObject {
                kind: warning.kind.name(),
                line: warning.line,
                message: &warning.message,
                count: warning.count,
            })
            .collect(),
    };
    // Serialising strings, numbers and lists of them cannot fail.
    serde_json::to_string(&object).unwrap_or_default()
}

fn name(level: Option<Level>) -> &'static str {
    level.map_or("none", Level::name)
}

fn level<'a>(history: &History, finding: &'a Finding) -> LevelObject<'a> {
    let (evidence, unknown) = match &finding.verdict {
        Verdict::Holds(_) => (None, None),
        Verdict::Violated(found) => (Some(evidence(history, found)), None),
        Verdict::Unknown(exhausted) => {
            (None, Some(UnknownObject { limit: exhausted.limit.name(), progress: &exhausted.progress }))
        }
    };
    LevelObject {
        level: finding.level.name(),
        holds: truth(&finding.verdict),
        algorithm: &finding.algorithm,
        time_ms: finding.elapsed.as_secs_f64() * 1e3,
        evidence,
        unknown,
    }
}

fn evidence<'a>(history: &History, evidence: &'a Evidence) -> EvidenceObject<'a> {
    let id = |i: u32| history.operations[i as usize].id;
    EvidenceObject {
        reason: &evidence.reason,
        key: evidence.key.map(|key| history.key(key).to_string()),
        operations: evidence
            .operations
            .iter()
            .take(EVIDENCE_LISTED_MAX)
            .map(|&i| {
                let operation = &history.operations[i as usize];
                let process = history.process(operation.process).to_string();
                OperationObject { id: operation.id, line: operation.line, process }
            })
            .collect(),
        count: evidence.operations.len(),
        cycle: evidence
            .cycle
            .iter()
            .map(|edge| EdgeObject {
                before: id(edge.before),
                after: id(edge.after),
                why: format!("{:?}", edge.why),
            })
            .collect(),
    }
}

fn key(history: &History, report: &KeyReport) -> KeyObject {
    let linearizable = report.findings.iter().find(|finding| finding.level == Level::Linearizable);
    KeyObject {
        key: history.key(report.key).to_string(),
        operations: report.operations,
        strongest: name(report.strongest()),
        linearizable: linearizable.map_or(Truth::Unknown("unknown"), |finding| truth(&finding.verdict)),
    }
}

fn watch(finding: &WatchFinding) -> WatchObject<'_> {
    let reason = match &finding.verdict {
        Verdict::Violated(evidence) => Some(&*evidence.reason),
        _ => None,
    };
    WatchObject { guarantee: finding.guarantee, holds: truth(&finding.verdict), reason }
}

fn staleness(staleness: &Staleness) -> StalenessObject<'_> {
    StalenessObject {
        fresh: staleness.fresh,
        stale: staleness.stale,
        oldest: staleness.oldest,
        histogram: &staleness.histogram,
    }
}
