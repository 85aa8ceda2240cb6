//! `synod bench`: load against any etcd v3 endpoint, and the comparison with a real etcd.

mod compare;
mod family;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use synod_load::plan::{Choice, End, Kind, Pace, Plan};
use synod_load::process::usage;
use synod_load::report::{Report, short};
use synod_load::watch::{self, WatchPlan};
use synod_load::{drive, html};

use crate::ctl;

/// Measure how fast a store answers, and what it costs
#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Puts, reads, transactions, ranges or leases, in a closed or an open loop
    Load(Load),
    /// Many watchers: events a second, and how late they come
    Watch(Watch),
    /// Side by side with a real etcd: clusters of both on loopback, in turn, with ratios
    Compare(compare::Options),
    /// Our protocols side by side: throughput, latency, messages, CPU, recovery, and how each grows
    Family(family::Options),
}

#[derive(Clone, Copy, ValueEnum)]
enum Word {
    Put,
    Get,
    GetSerializable,
    Mixed,
    Range,
    Txn,
    Lease,
}

#[derive(Args)]
struct Target {
    /// Connections
    #[arg(long, default_value_t = 20)]
    connections: usize,
    /// How long is measured, in seconds
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// The length of a value, in bytes
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Load {
    /// What requests do
    #[arg(value_enum, default_value = "put")]
    kind: Word,
    #[command(flatten)]
    target: Target,
    /// Requests under way on each connection
    #[arg(long, default_value_t = 50)]
    streams: usize,
    /// Requests a second in an open loop: latency counts from the intended start; without it the loop is closed
    #[arg(long, allow_negative_numbers = true)]
    rate: Option<f64>,
    /// End after so many requests
    #[arg(long)]
    requests: Option<u64>,
    /// Seconds that come first and are not counted
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// How many keys there are
    #[arg(long, default_value_t = 10_000)]
    keys: u64,
    /// The length of a key, in bytes
    #[arg(long, default_value_t = 16)]
    key_bytes: usize,
    /// Which key is taken: uniform, sequential, or zipf:EXPONENT
    #[arg(long, default_value = "uniform")]
    choice: String,
    /// Reads in a hundred, for mixed
    #[arg(long, default_value_t = 90)]
    reads: u8,
    /// Keys of one answer at most, for range
    #[arg(long, default_value_t = 100)]
    limit: u64,
    /// Write all keys first
    #[arg(long)]
    fill: bool,
    /// Where randomness starts
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The servers' process ids: CPU for each request and memory are told, too
    #[arg(long, value_delimiter = ',')]
    pids: Vec<u32>,
    /// Write a page with plots
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Args)]
struct Watch {
    #[command(flatten)]
    target: Target,
    /// How many watchers, each a stream of its own
    #[arg(long, default_value_t = 1000)]
    watchers: usize,
    /// Puts a second; without it one after the other, as fast as they are answered
    #[arg(long, allow_negative_numbers = true)]
    rate: Option<f64>,
}

/// Runs the command.
pub(crate) fn run(cluster: &ctl::Target, options: &Options) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("synod bench: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        match &options.what {
            What::Load(load) => run_load(cluster, load).await,
            What::Watch(watch) => run_watch(cluster, watch).await,
            What::Compare(options) => compare::run(options).await,
            What::Family(options) => family::run(options).await,
        }
    });
    outcome.unwrap_or_else(|wrong| {
        eprintln!("synod bench: {wrong:#}");
        ExitCode::FAILURE
    })
}

/// The addresses of all endpoints: connections go to them in turn.
fn addresses(target: &ctl::Target) -> Result<Vec<SocketAddr>> {
    target.endpoints.iter().map(|word| ctl::address(word)).collect()
}

fn seconds(flag: &str, value: f64) -> Result<Duration> {
    if !(0.0..=86_400.0 * 7.0).contains(&value) {
        bail!("--{flag}={value}: allowed is 0 to 604800 seconds");
    }
    Ok(Duration::from_secs_f64(value))
}

fn choice(word: &str) -> Result<Choice> {
    Ok(match word.split_once(':') {
        None if word == "uniform" => Choice::Uniform,
        None if word == "sequential" => Choice::Sequential,
        None if word == "zipf" => Choice::Zipf(1.0),
        Some(("zipf", exponent)) => {
            Choice::Zipf(exponent.parse().with_context(|| format!("--choice={word}: no such exponent"))?)
        }
        _ => bail!("--choice={word}: allowed is uniform, sequential, zipf or zipf:EXPONENT"),
    })
}

async fn run_load(cluster: &ctl::Target, load: &Load) -> Result<ExitCode> {
    let kind = match load.kind {
        Word::Put => Kind::Put,
        Word::Get => Kind::Get,
        Word::GetSerializable => Kind::SerializableGet,
        Word::Mixed => Kind::Mixed { reads: load.reads },
        Word::Range => Kind::Range { limit: load.limit },
        Word::Txn => Kind::Txn,
        Word::Lease => Kind::Lease,
    };
    let plan = Plan {
        endpoints: addresses(cluster)?,
        connections: load.target.connections,
        streams: load.streams,
        kind,
        pace: load.rate.map_or(Pace::Closed, |rate| Pace::Open { rate }),
        end: End {
            after: seconds("seconds", load.target.seconds)?,
            requests: load.requests.unwrap_or(u64::MAX),
        },
        warmup: seconds("warmup", load.warmup)?,
        keys: load.keys,
        key_bytes: load.key_bytes,
        value_bytes: load.target.value_bytes,
        choice: choice(&load.choice)?,
        seed: load.seed,
        ..Plan::default()
    };
    plan.check().map_err(|why| anyhow!(why))?;
    if load.fill {
        drive::fill(plan.endpoints[0], plan.keys, plan.key_bytes, plan.value_bytes).await?;
    }
    let before = used(&load.pids)?;
    // What the warm-up costs is not part of the account.
    let (warm, measured) = match before {
        Some(_) => (plan.warmup, Plan { warmup: Duration::ZERO, ..plan.clone() }),
        None => (Duration::ZERO, plan.clone()),
    };
    if !warm.is_zero() {
        let end = End { after: warm, requests: u64::MAX };
        drive::run(&Plan { warmup: Duration::ZERO, end, ..plan.clone() }, |_| {}).await?;
    }
    let before = used(&load.pids)?;
    let bar = progress(&measured);
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    let outcome = drive::run(&measured, |shared| {
        let done = shared.done.load(Relaxed);
        bar.set_message(format!("{done} done"));
        bar.set_position(bar.elapsed().as_millis() as u64);
        // The first Ctrl-C ends the run, and what was measured until then is told.
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        if interrupted.as_mut().poll(&mut context).is_ready() {
            shared.stop();
        }
    })
    .await?;
    bar.finish_and_clear();
    let used = used(&load.pids)?.zip(before).map(|(mut after, before)| {
        after.cpu -= before.cpu;
        after
    });
    let report = Report { plan, outcome, used };
    match load.target.json {
        true => println!("{:#}", report.json()),
        false => print!("{}", report.text()),
    }
    if let Some(file) = &load.html {
        let page = html::page(std::slice::from_ref(&report));
        fs::write(file, page).with_context(|| format!("cannot write {}", file.display()))?;
    }
    // A run in which nothing went well measures nothing.
    Ok(if report.outcome.meter.succeeded() > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn used(pids: &[u32]) -> Result<Option<synod_load::process::Usage>> {
    if pids.is_empty() {
        return Ok(None);
    }
    usage(pids).map(Some).map_err(|why| anyhow!("--pids: {why}"))
}

fn progress(plan: &Plan) -> ProgressBar {
    let whole = (plan.warmup + plan.end.after).as_millis() as u64;
    let style = ProgressStyle::with_template("{bar:40} {elapsed}  {msg}");
    ProgressBar::new(whole).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

async fn run_watch(cluster: &ctl::Target, options: &Watch) -> Result<ExitCode> {
    let plan = WatchPlan {
        endpoints: addresses(cluster)?,
        watchers: options.watchers,
        connections: options.target.connections,
        after: seconds("seconds", options.target.seconds)?,
        rate: options.rate,
        value_bytes: options.target.value_bytes,
    };
    let outcome = watch::run(&plan).await?;
    let meter = &outcome.meter;
    let rate = meter.succeeded() as f64 / outcome.elapsed.as_secs_f64().max(1e-9);
    let micros = |percent: f64| meter.percentile(percent).as_nanos() as f64 / 1e3;
    if options.target.json {
        println!(
            "{:#}",
            serde_json::json!({
                "watchers": plan.watchers, "puts": outcome.puts, "events": meter.succeeded(), "events_lost": outcome.lost,
                "events_per_second": rate, "creating_ms": outcome.creating.as_millis() as u64,
                "delivery_us": { "p50": micros(50.0), "p99": micros(99.0), "p99.9": micros(99.9) },
            })
        );
    } else {
        println!("{} watchers, created in {}", plan.watchers, short(outcome.creating));
        println!(
            "  {} puts, {} events: {rate:.0} events/s, {} lost",
            outcome.puts,
            meter.succeeded(),
            outcome.lost
        );
        let told =
            [50.0, 99.0, 99.9].map(|percent| format!("p{percent} {}", short(meter.percentile(percent))));
        println!("  delivery: {}", told.join(", "));
    }
    Ok(if outcome.lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
