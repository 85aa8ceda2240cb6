//! `synod simulate`: the shipped code under every fault, from a seed.
//!
//! One seed or many, here or as a shard of a larger campaign; a recorded run as text, as a diagram, or for ShiViz; scripts; the
//! papers' figures; the mutants' table. Each protocol is described to the simulator by a [`Family`], a row of the table in `families`.

mod attack;
mod endure;
mod families;
mod generals;
mod generals_page;
pub(crate) mod messages;
#[cfg(feature = "mutants")]
mod mutants;
mod papers;

use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use synod_core::{NodeId, Time};
use synod_sim::family::Family;
use synod_sim::faults::{FaultKind, FaultSet};
use synod_sim::report::Report;
use synod_sim::swarm::Wishes;
use synod_sim::sweep::{self, GoOn};
use synod_sim::trace::{self, Filter, Recorder};
use synod_sim::{diagram, script};

/// Run clusters in a simulated world in which everything goes wrong
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Option<Action>,

    /// Which protocol
    #[arg(long, default_value = "raft")]
    protocol: String,

    /// How many replicas; drawn per seed when left out
    #[arg(long)]
    nodes: Option<u64>,

    /// The seed to run, or the first of many
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// How many seeds
    #[arg(long, default_value_t = 1)]
    seeds: u64,

    /// What may go wrong: `all`, `none`, names with commas between them, or `-name` for all but that; `help` lists them
    #[arg(long, default_value = "all", allow_hyphen_values = true)]
    faults: String,

    /// How long everything may go wrong in each run, in simulated seconds; a healed core must then recover
    #[arg(long, default_value_t = 40)]
    seconds: u64,

    /// Stop after so many minutes, however many seeds are left
    #[arg(long)]
    minutes: Option<f64>,

    /// Run only the i-th of n parts of the seeds
    #[arg(long, value_name = "I/N")]
    shard: Option<String>,

    /// Sets one of the protocol's options for every seed
    #[arg(long = "option", value_name = "NAME=VALUE")]
    set: Vec<String>,

    /// Of the seed's faults, keep only those with these numbers (what a shrunk failure prints)
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    keep: Option<Vec<usize>>,

    /// So many replicas lie, whether the protocol tolerates it or not
    #[arg(long)]
    liars: Option<usize>,

    /// Record the run of one seed: `.html` a diagram, `.shiviz` for ShiViz, else text; `-` for text on the terminal
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,

    /// Of a recorded run, only these: n2, a kind (sent, arrived, lost, synced, stands, applied, client, fault, note), or a word
    #[arg(long, value_name = "WORD")]
    only: Vec<String>,

    /// Write the summary as JSON, with the trace hash of every seed
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Action {
    /// Add up the JSON summaries of shards
    Merge {
        /// The summaries
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Write the sum as JSON
        #[arg(long)]
        json: bool,
    },
    /// Replay a script, and show what happens
    Script {
        /// Which protocol
        #[arg(long, default_value = "raft")]
        protocol: String,
        /// The script (the commands are in the module documentation of `synod-sim`'s script runner)
        file: PathBuf,
    },
    /// Let one cluster live for a long time, with every fault again and again, and an operator who replaces what is lost
    Endure(endure::Options),
    /// Race an attacker with a share of all hashing power against the honest chain of proof of work
    Attack(attack::Options),
    /// Play the Byzantine generals: OM(m) with oral messages, SM(m) with signed ones
    Generals(generals::Options),
    /// Measure what the papers measured, and write tables and figures
    Papers(papers::Options),
    /// Count the messages, bytes and syncs of a decision, for every protocol
    Messages,
    /// Leave one rule of the protocol out at a time, and look for the seed that shows it
    #[cfg(feature = "mutants")]
    Mutants(mutants::Options),
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> ExitCode {
    let result = match &options.action {
        Some(Action::Merge { files, json }) => merge(files, *json),
        Some(Action::Script { protocol, file }) => replay(protocol, file),
        Some(Action::Endure(options)) => row(&options.protocol).and_then(|row| (row.endure)(options)),
        Some(Action::Attack(options)) => attack::run(options),
        Some(Action::Generals(options)) => generals::run(options),
        Some(Action::Papers(options)) => papers::run(options),
        Some(Action::Messages) => messages::run(),
        #[cfg(feature = "mutants")]
        Some(Action::Mutants(options)) => row(&options.protocol).and_then(|row| (row.mutants)(options)),
        None => row(&options.protocol).and_then(|row| (row.simulate)(options)),
    };
    result.unwrap_or_else(|error| {
        eprintln!("synod simulate: {error:#}");
        ExitCode::from(2)
    })
}

/// What can be done with a protocol.
struct Row {
    name: &'static str,
    simulate: fn(&Options) -> anyhow::Result<ExitCode>,
    replay: fn(&str) -> Result<String, script::ScriptError>,
    endure: fn(&endure::Options) -> anyhow::Result<ExitCode>,
    #[cfg(feature = "mutants")]
    mutants: fn(&mutants::Options) -> anyhow::Result<ExitCode>,
}

impl Row {
    const fn of<F: Family>() -> Row {
        Row {
            name: F::NAME,
            simulate: simulate::<F>,
            replay: |text| script::replay::<F::Protocol>(text, F::SCRIPTS, F::set),
            endure: endure::run::<F>,
            #[cfg(feature = "mutants")]
            mutants: mutants::run::<F>,
        }
    }
}

macro_rules! rows {
    ($($name:ident: $family:ident,)*) => { &[$(Row::of::<families::$family>()),*] };
}

const ROWS: &[Row] = families::each_family!(rows);

fn row(name: &str) -> anyhow::Result<&'static Row> {
    ROWS.iter().find(|row| row.name == name).ok_or_else(|| {
        let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        anyhow::anyhow!("there is no protocol `{name}` in the simulator; there are: {}", names.join(", "))
    })
}

fn wishes(options: &Options) -> anyhow::Result<Wishes> {
    let faults = FaultSet::parse(&options.faults)
        .map_err(|error| anyhow::anyhow!("--faults {}: {error}", options.faults))?;
    let mut set = Vec::new();
    for word in &options.set {
        let (name, value) =
            word.split_once('=').ok_or_else(|| anyhow::anyhow!("--option {word}: NAME=VALUE expected"))?;
        set.push((name.to_owned(), value.to_owned()));
    }
    Ok(Wishes {
        nodes: options.nodes,
        faults,
        safety: Duration::from_secs(options.seconds),
        options: set,
        keep: options.keep.clone(),
        liars: options.liars,
    })
}

/// The part of the seeds that this shard runs.
fn parse_shard(text: Option<&str>) -> anyhow::Result<(u64, u64)> {
    let Some(text) = text else { return Ok((0, 1)) };
    let parsed =
        text.split_once('/').and_then(|(i, n)| Some((i.parse::<u64>().ok()?, n.parse::<u64>().ok()?)));
    match parsed {
        Some((i, n)) if i < n => Ok((i, n)),
        _ => anyhow::bail!("--shard {text}: I/N expected, with I from 0 to N-1"),
    }
}

fn simulate<F: Family>(options: &Options) -> anyhow::Result<ExitCode> {
    if options.faults == "help" {
        for kind in FaultKind::ALL {
            println!("{:<12} {}", kind.name(), kind.story());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let wishes = wishes(options)?;
    if let Some(path) = &options.trace {
        anyhow::ensure!(options.seeds == 1, "--trace records one seed: leave --seeds out");
        record::<F>(options, &wishes, path)?;
    }
    let (part, parts) = parse_shard(options.shard.as_deref())?;
    let last = options.seed.checked_add(options.seeds);
    let last = last.ok_or_else(|| anyhow::anyhow!("--seed and --seeds together are beyond 2^64"))?;
    let seeds = (options.seed..last).filter(|seed| seed % parts == part);
    let all = options.seeds.div_ceil(parts);
    let began = Instant::now();
    let (mut done, mut failed, mut simulated) = (0u64, 0u64, 0.0);
    let shows = std::io::stderr().is_terminal();
    // A protocol's panic is a finding, and shown as one: not with a backtrace in the middle of the progress bar.
    std::panic::set_hook(Box::new(|_| {}));
    let report = sweep::campaign::<F>(seeds, &wishes, |_, outcome| {
        done += 1;
        failed += u64::from(outcome.violation.is_some());
        simulated += outcome.simulated.as_secs_f64();
        let wall = began.elapsed().as_secs_f64();
        if shows {
            let pace = simulated / wall.max(1e-9);
            let words = format!(
                "seeds, {failed} failed, {simulated:.0} s simulated, {pace:.0} times as fast as time"
            );
            progress(done, all, &words);
        }
        let over = options.minutes.is_some_and(|minutes| wall > minutes * 60.0);
        if over { GoOn::No } else { GoOn::Yes }
    });
    let _ = std::panic::take_hook();
    if shows {
        eprintln!();
    }
    show(&report?, options.json)
}

/// Draws the progress bar anew.
fn progress(done: u64, all: u64, words: &str) {
    let filled = (done.saturating_mul(30) / all.max(1)).min(30) as usize;
    eprint!("\r[{}{}] {done}/{all} {words} ", "#".repeat(filled), "-".repeat(30 - filled));
    let _ = std::io::stderr().flush();
}

fn show(report: &Report, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        println!("{}", serde_json::to_string_pretty(report)?);
    } else {
        print!("{}", report.table());
    }
    Ok(if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one seed with a recorder, and writes what happened.
fn record<F: Family>(options: &Options, wishes: &Wishes, path: &Path) -> anyhow::Result<()> {
    let outcome = sweep::run::<F>(options.seed, wishes, Recorder::recording())?;
    let filter = filter(&options.only);
    let extension = path.extension().and_then(|extension| extension.to_str());
    let content = match extension {
        Some("html") => {
            let shown: Vec<_> = outcome.happenings.iter().filter(|it| filter.shows(it)).cloned().collect();
            let verdict =
                outcome.violation.as_ref().map_or_else(|| "no violation".to_owned(), ToString::to_string);
            let title = format!("{} · {verdict}", synod_sim::report::command(F::NAME, options.seed, wishes));
            diagram::page(&title, &shown)
        }
        Some("shiviz") => trace::shiviz(&outcome.happenings, &filter),
        _ => trace::text(&outcome.happenings, &filter),
    };
    if path == Path::new("-") {
        print!("{content}");
        return Ok(());
    }
    std::fs::write(path, content).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    eprintln!("{} happenings written to {}", outcome.happenings.len(), path.display());
    Ok(())
}

const KINDS: [&str; 10] =
    ["sent", "arrived", "lost", "records", "synced", "stands", "applied", "client", "fault", "note"];

fn filter(words: &[String]) -> Filter {
    let mut filter = Filter::default();
    for word in words {
        let node = word.strip_prefix('n').and_then(|id| u64::from_str_radix(id, 16).ok());
        if KINDS.contains(&word.as_str()) {
            filter.kinds.push(word.clone());
        } else if let Some(id) = node {
            filter.nodes.push(NodeId(id));
        } else if let Some(seconds) = word.strip_prefix("from=").and_then(|text| text.parse::<f64>().ok()) {
            filter.from = Some(Time((seconds * 1e9) as u64));
        } else if let Some(seconds) = word.strip_prefix("to=").and_then(|text| text.parse::<f64>().ok()) {
            filter.to = Some(Time((seconds * 1e9) as u64));
        } else {
            filter.text = Some(word.clone());
        }
    }
    filter
}

fn merge(files: &[PathBuf], json: bool) -> anyhow::Result<ExitCode> {
    let mut reports = Vec::new();
    for file in files {
        let text =
            std::fs::read_to_string(file).map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?;
        // serde_json names line and column itself.
        let report: Report =
            serde_json::from_str(&text).map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?;
        reports.push(report);
    }
    show(&Report::merge(reports)?, json)
}

fn replay(protocol: &str, file: &Path) -> anyhow::Result<ExitCode> {
    let text =
        std::fs::read_to_string(file).map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?;
    let result = (row(protocol)?.replay)(&text);
    // The error begins with line and column.
    print!("{}", result.map_err(|error| anyhow::anyhow!("{}:{error}", file.display()))?);
    Ok(ExitCode::SUCCESS)
}
