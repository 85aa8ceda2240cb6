//! Side by side with a real etcd: the same generator, the same rows, in turn, several times.
//!
//! Each round starts every contender's cluster afresh, one after the other, and runs all experiments on it; so whatever else the machine does
//! meets all of them. The faster etcd of each row is what ours is divided by. Nothing is left out: a row that is lost stands in the table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use serde_json::{Value, json};
use synod_api::Method;
use synod_api::etcdserverpb as pb;

use crate::client::{Client, call};
use crate::cluster::{Cluster, Contender};
use crate::drive::{fill, run};
use crate::plan::{End, Kind, Pace, Plan};
use crate::process::{forget_peak, usage};
use crate::report::Report;
use crate::watch::{self, WatchPlan};

/// What is compared, and how long.
pub struct Options {
    /// All of them; the first is ours.
    pub contenders: Vec<Contender>,
    /// How often everything is run.
    pub rounds: usize,
    /// How long each measurement takes.
    pub measure: Duration,
    /// Where the clusters' data lies.
    pub folder: PathBuf,
    /// Which experiments: those whose name begins with one of these.
    pub only: Vec<String>,
}

/// Whether more or less of something is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Throughput.
    More,
    /// Latency, CPU, memory.
    Less,
}

/// A figure of one experiment.
struct Figure {
    name: &'static str,
    unit: &'static str,
    better: Better,
    value: f64,
}

/// An experiment on a cluster.
#[derive(Clone, Copy, Debug)]
enum Experiment {
    /// A closed loop of so many connections and streams.
    Closed { kind: Kind, connections: usize, streams: usize, value_bytes: usize },
    /// An open loop of puts at half of what the fastest etcd managed; then the same while snapshots are read.
    HalfRate,
    /// Memory, restart and a large range with so many keys.
    Keys(u64),
    /// So many watchers on one prefix.
    Watchers(usize),
}

struct Row {
    name: String,
    members: usize,
    experiment: Experiment,
}

/// The goal of a figure: as a ratio, but for "with by without", which is one already.
fn goal(row: &str, figure: &str) -> Option<f64> {
    Some(match (row, figure) {
        ("put", "rate") => 6.0,
        ("put", "cpu") => 1.0 / 8.0,
        ("get", "rate") => 2.5,
        ("get", "cpu") => 0.25,
        ("get-serializable", "rate") => 1.7,
        ("get-serializable", "cpu") => 1.0 / 3.0,
        ("put, one client", "p50") => 0.5,
        ("get, one client", "p50") => 0.3,
        ("put at half rate", "p99") => 0.3,
        ("put at half rate", WITH_BY_WITHOUT) => 2.0,
        ("1000000 keys", "resident") => 0.7,
        ("1000000 keys", "restart") => 0.2,
        ("1000000 keys", "range of 100000") => 1.0 / 3.0,
        ("1000000 keys", "growth by it") => 0.25,
        ("10000 watchers", "events") => 5.0,
        ("10000 watchers", "p99") => 0.2,
        _ => return None,
    })
}

/// How much a snapshot that is read adds to the tail.
const WITH_BY_WITHOUT: &str = "with by without";

/// All experiments, in order; names begin with what they are about.
fn rows() -> Vec<Row> {
    let closed = |kind, connections, streams, value_bytes| Experiment::Closed {
        kind,
        connections,
        streams,
        value_bytes,
    };
    let row = |name: &str, members, experiment| Row { name: name.to_owned(), members, experiment };
    let mut rows = vec![
        row("put", 3, closed(Kind::Put, 20, 50, 256)),
        row("get", 3, closed(Kind::Get, 20, 50, 256)),
        row("get-serializable", 3, closed(Kind::SerializableGet, 20, 50, 256)),
        row("put, one client", 3, closed(Kind::Put, 1, 1, 256)),
        row("get, one client", 3, closed(Kind::Get, 1, 1, 256)),
        row("put at half rate", 3, Experiment::HalfRate),
        row("mixed", 3, closed(Kind::Mixed { reads: 90 }, 20, 50, 256)),
        row("txn", 3, closed(Kind::Txn, 20, 50, 256)),
        row("range of 100", 3, closed(Kind::Range { limit: 100 }, 20, 5, 256)),
        row("lease", 3, closed(Kind::Lease, 20, 50, 256)),
        row("10000 watchers", 3, Experiment::Watchers(10_000)),
        row("1000000 keys", 3, Experiment::Keys(1_000_000)),
    ];
    for members in [1, 5, 7, 9] {
        rows.push(row(&format!("scale: put, {members} members"), members, closed(Kind::Put, 20, 50, 256)));
        rows.push(row(&format!("scale: get, {members} members"), members, closed(Kind::Get, 20, 50, 256)));
    }
    for (connections, streams) in [(1, 10), (10, 10), (100, 100)] {
        let clients = connections * streams;
        rows.push(row(
            &format!("scale: put, {clients} clients"),
            3,
            closed(Kind::Put, connections, streams, 256),
        ));
        rows.push(row(
            &format!("scale: get, {clients} clients"),
            3,
            closed(Kind::Get, connections, streams, 256),
        ));
    }
    for bytes in [16, 4096, 65_536, 1 << 20] {
        let streams = if bytes > 100_000 { 1 } else { 10 };
        rows.push(row(&format!("scale: put, values of {bytes}"), 3, closed(Kind::Put, 10, streams, bytes)));
        rows.push(row(&format!("scale: get, values of {bytes}"), 3, closed(Kind::Get, 10, streams, bytes)));
    }
    for watchers in [1, 100, 1000] {
        rows.push(row(&format!("scale: {watchers} watchers"), 3, Experiment::Watchers(watchers)));
    }
    for keys in [10_000, 100_000] {
        rows.push(row(&format!("scale: {keys} keys"), 3, Experiment::Keys(keys)));
    }
    rows.push(row("huge: 10000000 keys", 3, Experiment::Keys(10_000_000)));
    rows
}

/// The names of all experiments.
#[must_use]
pub fn names() -> Vec<String> {
    rows().into_iter().map(|row| row.name).collect()
}

/// Everything that was measured: row, figure, contender, rounds.
#[derive(Default)]
pub struct Results {
    rows: Vec<(String, Vec<Measured>)>,
    contenders: Vec<String>,
    failures: Vec<String>,
}

struct Measured {
    figure: &'static str,
    unit: &'static str,
    better: Better,
    /// By contender, then by round.
    values: Vec<Vec<f64>>,
}

/// Runs all experiments that are wanted; `say` hears what is being done.
///
/// # Errors
/// When a cluster cannot be started. An experiment that fails is written down as failed, and the others go on.
pub async fn compare(options: &Options, mut say: impl FnMut(&str)) -> Result<Results> {
    let wanted: Vec<Row> = rows()
        .into_iter()
        .filter(|row| match options.only.is_empty() {
            true => !row.name.starts_with("huge"),
            false => options.only.iter().any(|name| row.name.starts_with(name.as_str())),
        })
        .collect();
    let mut results = Results {
        contenders: options.contenders.iter().map(|contender| contender.name.clone()).collect(),
        ..Results::default()
    };
    let mut by_cluster: BTreeMap<usize, Vec<&Row>> = BTreeMap::new();
    for row in &wanted {
        by_cluster.entry(row.members).or_default().push(row);
    }
    // Three members first: that is what most people run.
    let mut groups: Vec<_> = by_cluster.into_iter().collect();
    groups.sort_by_key(|(members, _)| (*members != 3, *members));
    for round in 1..=options.rounds {
        // The slowest first, since the others' rates follow from it: etcd before ours.
        let mut best_etcd_put = 0f64;
        let order: Vec<usize> = (0..options.contenders.len()).rev().collect();
        for (members, group) in &groups {
            for at in &order {
                let contender = &options.contenders[*at];
                let start = async |say: &mut dyn FnMut(&str)| {
                    say(&format!("round {round}: {} with {members} members", contender.name));
                    Cluster::start(contender, *members, &options.folder).await
                };
                let mut cluster = start(&mut say).await?;
                for row in group {
                    if matches!(row.experiment, Experiment::Keys(_)) {
                        // What came before must not count as memory.
                        drop(cluster);
                        cluster = start(&mut say).await?;
                    }
                    say(&format!("round {round}: {}: {}", contender.name, row.name));
                    let figures = experiment(&mut cluster, row, options, best_etcd_put).await;
                    match figures {
                        Ok(figures) => {
                            if *at > 0 && row.name == "put" {
                                best_etcd_put = figures[0].value.max(best_etcd_put);
                            }
                            for figure in &figures {
                                say(&format!("    {} {:.2} {}", figure.name, figure.value, figure.unit));
                            }
                            results.note(&row.name, *at, figures);
                        }
                        Err(error) => {
                            let failure =
                                format!("round {round}: {}: {}: {error:#}", contender.name, row.name);
                            say(&failure);
                            results.failures.push(failure);
                            drop(cluster);
                            cluster = start(&mut say).await?;
                        }
                    }
                }
            }
        }
    }
    Ok(results)
}

/// Waits until the members have nothing left to do from the row before (a snapshot of large values, say), for a while: what a row
/// measures shall be its own.
async fn settle(cluster: &Cluster) -> Result<()> {
    const LOOK: Duration = Duration::from_millis(250);
    const LOOKS: usize = 60;
    let mut before = cluster.usage()?.cpu;
    for _ in 0..LOOKS {
        tokio::time::sleep(LOOK).await;
        let now = cluster.usage()?.cpu;
        if now.saturating_sub(before) < LOOK / 10 {
            break;
        }
        before = now;
    }
    Ok(())
}

async fn experiment(
    cluster: &mut Cluster,
    row: &Row,
    options: &Options,
    etcd_put: f64,
) -> Result<Vec<Figure>> {
    settle(cluster).await?;
    let figure = |name, unit, better, value| Figure { name, unit, better, value };
    match row.experiment {
        Experiment::Closed { kind, connections, streams, value_bytes } => {
            let plan = plan(cluster, options, kind, connections, streams, value_bytes).await?;
            let report = measured(cluster, &plan).await?;
            let mut figures = vec![figure("rate", "/s", Better::More, report.rate())];
            if let Some(cpu) = report.cpu_per_request() {
                figures.push(figure("cpu", "us", Better::Less, cpu.as_nanos() as f64 / 1e3));
            }
            for (name, percent) in [("p50", 50.0), ("p99", 99.0)] {
                figures.push(figure(
                    name,
                    "us",
                    Better::Less,
                    micros(report.outcome.meter.percentile(percent)),
                ));
            }
            Ok(figures)
        }
        Experiment::HalfRate => {
            let rate = if etcd_put > 0.0 { etcd_put / 2.0 } else { 5000.0 };
            let mut plan = plan(cluster, options, Kind::Put, 20, 50, 256).await?;
            plan.pace = Pace::Open { rate };
            let quiet = measured(cluster, &plan).await?;
            let leader = plan.endpoints[0];
            let reading = tokio::task::LocalSet::new();
            let snapshots = reading.run_until(async {
                let reader = tokio::task::spawn_local(async move {
                    loop {
                        if snapshot(leader).await.is_err() {
                            tokio::time::sleep(Duration::from_millis(100)).await;
                        }
                    }
                });
                let report = measured(cluster, &plan).await;
                reader.abort();
                report
            });
            let busy = snapshots.await?;
            let tail = |report: &Report| micros(report.outcome.meter.percentile(99.9));
            Ok(vec![
                figure("rate", "/s", Better::More, quiet.rate()),
                figure("p50", "us", Better::Less, micros(quiet.outcome.meter.percentile(50.0))),
                figure("p99", "us", Better::Less, micros(quiet.outcome.meter.percentile(99.0))),
                figure("p99.9", "us", Better::Less, tail(&quiet)),
                figure("p99.9 with a snapshot", "us", Better::Less, tail(&busy)),
                figure(WITH_BY_WITHOUT, "x", Better::Less, tail(&busy) / tail(&quiet).max(1.0)),
            ])
        }
        Experiment::Keys(keys) => with_keys(cluster, keys).await,
        Experiment::Watchers(watchers) => {
            let endpoints = cluster.endpoints();
            let plan = |rate| WatchPlan {
                endpoints: endpoints.clone(),
                watchers,
                connections: watchers.min(100),
                after: options.measure,
                rate,
                value_bytes: 256,
            };
            let before = cluster.usage()?.cpu;
            let fast = watch::run(&plan(None)).await?;
            let cpu = cluster.usage()?.cpu - before;
            // At a pace that both can keep, so that delivery is compared and not the queue.
            let paced = watch::run(&plan(Some(4.0))).await?;
            let events = fast.meter.succeeded();
            Ok(vec![
                figure("events", "/s", Better::More, events as f64 / fast.elapsed.as_secs_f64().max(1e-9)),
                figure("cpu", "us", Better::Less, micros(cpu) / events.max(1) as f64),
                figure("p50", "us", Better::Less, micros(paced.meter.percentile(50.0))),
                figure("p99", "us", Better::Less, micros(paced.meter.percentile(99.0))),
                figure("lost", "events", Better::Less, (fast.lost + paced.lost) as f64),
            ])
        }
    }
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e3
}

/// A plan whose connections go to the leader.
async fn plan(
    cluster: &Cluster,
    options: &Options,
    kind: Kind,
    connections: usize,
    streams: usize,
    value_bytes: usize,
) -> Result<Plan> {
    let leader = cluster.endpoints()[cluster.leader().await?];
    let keys = if value_bytes > 10_000 { 200 } else { 10_000 };
    if matches!(kind, Kind::Get | Kind::SerializableGet | Kind::Mixed { .. } | Kind::Range { .. } | Kind::Txn)
    {
        fill(leader, keys, 16, value_bytes).await?;
    }
    Ok(Plan {
        endpoints: vec![leader],
        connections,
        streams,
        kind,
        keys,
        value_bytes,
        end: End { after: options.measure, requests: u64::MAX },
        ..Plan::default()
    })
}

/// Runs a plan, with what the members used in its measured part: the warm-up is a run of its own, before.
pub(crate) async fn measured(cluster: &Cluster, plan: &Plan) -> Result<Report> {
    let warm =
        Plan { warmup: Duration::ZERO, end: End { after: plan.warmup, requests: u64::MAX }, ..plan.clone() };
    run(&warm, |_| {}).await?;
    let before = cluster.usage()?;
    let plan = Plan { warmup: Duration::ZERO, ..plan.clone() };
    let outcome = run(&plan, |_| {}).await?;
    let mut used = cluster.usage()?;
    used.cpu -= before.cpu;
    let report = Report { plan, outcome, used: Some(used) };
    let failed = report.outcome.meter.failed();
    anyhow::ensure!(
        failed * 100 <= report.outcome.meter.succeeded(),
        "{failed} requests failed: {:?}",
        report.outcome.meter.errors
    );
    Ok(report)
}

async fn with_keys(cluster: &mut Cluster, keys: u64) -> Result<Vec<Figure>> {
    let count = cluster.endpoints().len();
    let leader = cluster.leader().await?;
    fill(cluster.endpoints()[leader], keys, 16, 256).await?;
    // What was written last is still on its way into followers and snapshots.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let resident = cluster.usage()?.resident as f64 / count as f64;
    let endpoint = cluster.endpoints()[leader];
    let pid = [cluster.pids()[leader]];
    forget_peak(pid[0]).map_err(|why| anyhow::anyhow!(why))?;
    let before = usage(&pid).map_err(|why| anyhow::anyhow!(why))?.resident_peak;
    let request = pb::RangeRequest {
        key: Bytes::from_static(b"0"),
        range_end: Bytes::from_static(b"1"),
        limit: 100_000,
        serializable: true,
        ..pb::RangeRequest::default()
    };
    let mut times = Vec::new();
    for _ in 0..3 {
        let started = Instant::now();
        let answer: pb::RangeResponse = call(endpoint, Method::Range, &request).await?;
        times.push(started.elapsed());
        anyhow::ensure!(answer.kvs.len() as u64 == keys.min(100_000), "{} keys came", answer.kvs.len());
    }
    times.sort_unstable();
    let after = usage(&pid).map_err(|why| anyhow::anyhow!(why))?.resident_peak;
    cluster.kill_all();
    let started = Instant::now();
    for at in 0..count {
        cluster.start_member(at)?;
    }
    let put = pb::PutRequest { key: Bytes::from_static(b"first"), ..pb::PutRequest::default() };
    while call::<pb::PutResponse>(endpoint, Method::Put, &put).await.is_err() {
        anyhow::ensure!(
            started.elapsed() < Duration::from_secs(180),
            "no write three minutes after the restart"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let restart = started.elapsed();
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    let figure = |name, unit, value| Figure { name, unit, better: Better::Less, value };
    Ok(vec![
        figure("resident", "MiB each", mib(resident)),
        figure("range of 100000", "ms", micros(times[1]) / 1e3),
        // Half a MiB stands for nothing: nothing can be divided by.
        figure("growth by it", "MiB", mib(after.saturating_sub(before) as f64).max(0.5)),
        figure("restart", "ms", micros(restart) / 1e3),
    ])
}

/// Reads a whole snapshot and throws it away.
async fn snapshot(endpoint: std::net::SocketAddr) -> Result<()> {
    let mut client = Client::connect(&[endpoint], Vec::new()).await?;
    let request = pb::SnapshotRequest::default();
    Ok(client.stream(Method::Snapshot, &request, |_: pb::SnapshotResponse| ControlFlow::Continue(())).await?)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Results {
    fn note(&mut self, row: &str, contender: usize, figures: Vec<Figure>) {
        let known = self.rows.iter().position(|(name, _)| name == row).unwrap_or_else(|| {
            self.rows.push((row.to_owned(), Vec::new()));
            self.rows.len() - 1
        });
        for Figure { name, unit, better, value } in figures {
            let measured = &mut self.rows[known].1;
            let at = measured.iter().position(|known| known.figure == name).unwrap_or_else(|| {
                let values = vec![Vec::new(); self.contenders.len()];
                measured.push(Measured { figure: name, unit, better, values });
                measured.len() - 1
            });
            measured[at].values[contender].push(value);
        }
    }

    /// A table: medians with their spread, the ratio of ours to the better etcd, and the goal where there is one.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut out = String::from("| row | figure |");
        out.extend(self.contenders.iter().map(|name| format!(" {name} |")));
        out.push_str(" ratio | goal | |\n|---|---|");
        self.contenders.iter().for_each(|_| out.push_str("---|"));
        out.push_str("---|---|---|\n");
        for (row, measured) in &self.rows {
            for figure in measured {
                let _ = write!(out, "| {row} | {} ({}) |", figure.figure, figure.unit);
                for values in &figure.values {
                    let (low, high) = values
                        .iter()
                        .fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(*value), high.max(*value)));
                    let digits = usize::from(median(values) < 100.0);
                    let _ = match values.is_empty() {
                        true => write!(out, " failed |"),
                        false => {
                            write!(out, " {:.digits$} ({low:.digits$} to {high:.digits$}) |", median(values))
                        }
                    };
                }
                let ratio = figure.ratio();
                let goal = goal(row, figure.figure);
                let judged = match figure.figure {
                    WITH_BY_WITHOUT => median(&figure.values[0]),
                    _ => ratio,
                };
                let met = goal.map(|goal| match figure.better {
                    Better::More => judged >= goal,
                    Better::Less => judged <= goal,
                });
                let worse = match figure.better {
                    Better::More => ratio < 1.0,
                    Better::Less => ratio > 1.0,
                };
                let goal = goal.map_or(String::new(), |goal| match figure.better {
                    Better::More => format!("at least {goal:.1}"),
                    Better::Less => format!("at most {goal:.3}"),
                });
                let verdict = match met {
                    Some(true) => "met",
                    Some(false) => "missed",
                    None if worse && ratio.is_finite() => "lost",
                    None => "",
                };
                let _ = writeln!(out, " {ratio:.3} | {goal} | {verdict} |");
            }
        }
        for failure in &self.failures {
            let _ = writeln!(out, "\nFailed: {failure}");
        }
        out
    }

    /// Every value of every round.
    #[must_use]
    pub fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .flat_map(|(row, measured)| {
                measured.iter().map(move |figure| {
                    let by: serde_json::Map<String, Value> = self
                        .contenders
                        .iter()
                        .zip(&figure.values)
                        .map(|(name, values)| (name.clone(), json!(values)))
                        .collect();
                    json!({
                        "row": row, "figure": figure.figure, "unit": figure.unit, "values": by, "ratio": figure.ratio(),
                        "goal": goal(row, figure.figure),
                    })
                })
            })
            .collect();
        json!({ "contenders": self.contenders, "rows": rows, "failures": self.failures })
    }
}

impl Measured {
    /// Ours by the better of the others.
    fn ratio(&self) -> f64 {
        let others = self.values[1..].iter().filter(|values| !values.is_empty()).map(|values| median(values));
        let best = match self.better {
            Better::More => others.fold(f64::NAN, f64::max),
            Better::Less => others.fold(f64::NAN, f64::min),
        };
        median(&self.values[0]) / best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ours is divided by the better etcd, whichever way better is; a goal that is missed is said to be, and so is a row that is lost.
    #[test]
    fn ratios_and_verdicts() {
        let mut results =
            Results { contenders: vec!["ours".into(), "old".into(), "new".into()], ..Results::default() };
        let figure = |name, better, value| Figure { name, unit: "/s", better, value };
        for (at, rate, cpu) in
            [(0, 60.0, 2.0), (0, 62.0, 2.0), (0, 90.0, 2.0), (1, 8.0, 10.0), (2, 10.0, 40.0)]
        {
            let figures = vec![figure("rate", Better::More, rate), figure("cpu", Better::Less, cpu)];
            results.note("put", at, figures);
        }
        results.note("other", 0, vec![figure("rate", Better::More, 1.0)]);
        results.note("other", 1, vec![figure("rate", Better::More, 2.0)]);
        let table = results.markdown();
        assert!(table.contains("| put | rate (/s) | 62.0 (60.0 to 90.0) | 8.0 (8.0 to 8.0) | 10.0 (10.0 to 10.0) | 6.200 | at least 6.0 | met |"), "{table}");
        assert!(table.contains(" 0.200 | at most 0.125 | missed |"), "{table}");
        assert!(table.contains("| failed | 0.500 |  | lost |"), "{table}");
    }
}
