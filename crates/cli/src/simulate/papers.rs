//! What the papers measured, measured again: figure 16 of the Raft paper, and what partial connectivity does to Raft.
//!
//! Figure 16 (Ongaro and Ousterhout, 2014, section 9.3): how long five servers are without a leader after theirs crashed, by
//! how much randomness their election timeouts have. As there: a broadcast takes 15 ms, heartbeats come at half the
//! shortest timeout, the crash comes at a random moment between two heartbeats, and some servers have shorter logs and cannot
//! win. Partial connectivity: the three cases of Ng, Haridi and Carbone, "Omni-Paxos" (2023), section 2: quorum loss, constrained
//! election, and a chain.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use synod_core::{NodeId, Rng, Time};
use synod_sim::faults::FaultSet;
use synod_sim::swarm::{self, Wishes};
use synod_sim::trace::Recorder;
use synod_sim::world::World;

use super::families::RaftFamily;

/// Write the tables and figures into a folder
#[derive(Args)]
pub(crate) struct Options {
    /// Where the files go
    #[arg(long, default_value = "docs/papers")]
    into: PathBuf,

    /// Elections for each curve
    #[arg(long, default_value_t = 1000)]
    trials: u64,
}

pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    std::fs::create_dir_all(&options.into)?;
    let curves: Vec<Curve> = JITTERS
        .iter()
        .map(|jitter| measure(*jitter, ON_ITS_WAY, options.trials))
        .collect::<anyhow::Result<_>>()?;
    write(&options.into, "figure16.svg", &figure(&curves))?;
    let delays = delays(options.trials.div_ceil(4))?;
    write(&options.into, "figure16.md", &(table(&curves, options.trials) + &delays))?;
    write(&options.into, "connectivity.md", &connectivity()?)?;
    Ok(ExitCode::SUCCESS)
}

fn write(folder: &Path, name: &str, content: &str) -> anyhow::Result<()> {
    let path = folder.join(name);
    std::fs::write(&path, content).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

/// The widths of the random part, in milliseconds, as in the figure's upper half.
const JITTERS: [u64; 6] = [0, 1, 5, 25, 50, 150];

/// What the paper says of a curve.
fn paper(jitter: u64) -> &'static str {
    match jitter {
        0 => "over 10 s, many split votes",
        5 => "median 287 ms",
        50 => "worst 513 ms",
        _ => "not stated",
    }
}

/// No trial waits longer than this.
const WAIT_MAX: Duration = Duration::from_secs(100);

/// How long a message is on its way in the figure, in microseconds: there and back, with the disk, 15 ms.
const ON_ITS_WAY: u64 = 7000;

struct Curve {
    jitter: u64,
    /// Times without a leader in milliseconds, ascending.
    times: Vec<f64>,
}

fn plan_of(
    seed: u64,
    nodes: u64,
    set: &[(&str, String)],
) -> anyhow::Result<synod_sim::world::PlanOf<RaftFamily>> {
    let set = set.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let wishes = Wishes { nodes: Some(nodes), faults: FaultSet::NONE, options: set, ..Wishes::default() };
    Ok(swarm::draw::<RaftFamily>(seed, &wishes)?)
}

fn measure(jitter: u64, on_its_way: u64, trials: u64) -> anyhow::Result<Curve> {
    let mut times = Vec::new();
    for trial in 0..trials {
        let set = [
            ("election_timeout", "150ms".to_owned()),
            ("election_jitter", format!("{jitter}ms")),
            ("heartbeat", "75ms".to_owned()),
            ("pre_vote", "off".to_owned()),
            ("check_quorum", "off".to_owned()),
            ("lease_reads", "off".to_owned()),
        ];
        let mut plan = plan_of(trial, 5, &set)?;
        plan.rates =
            synod_sim::network::Rates::calm(Duration::from_micros(on_its_way), Duration::from_micros(400));
        plan.disk = (Duration::from_micros(50), Duration::from_micros(150));
        (plan.clients, plan.watchers) = (0, 0);
        times.push(election(trial, plan));
    }
    times.sort_by(f64::total_cmp);
    Ok(Curve { jitter, times })
}

/// One trial: how long the cluster is without a leader, in milliseconds.
fn election(seed: u64, plan: synod_sim::world::PlanOf<RaftFamily>) -> f64 {
    let mut rng = Rng::new(seed ^ 0xf16);
    let mut world = World::<RaftFamily>::new(seed, plan, Recorder::default());
    let step = Duration::from_millis(50);
    // A first leader must reign for a while. Without randomness that may itself take long.
    let mut reign = 0;
    while reign < 8 && world.now() < Time::ZERO + WAIT_MAX {
        world.run_for(step);
        reign = if world.leader().is_some() { reign + 1 } else { 0 };
    }
    let Some(leader) = world.leader() else { return WAIT_MAX.as_secs_f64() * 1e3 };
    // Two of the others miss the last command: their logs are shorter, and they cannot win. The leader hears nothing of
    // them from then on, so that it does not notice; its heartbeats go on to all, at once, and keep the timers together.
    let others: Vec<NodeId> = (1..=5).map(NodeId).filter(|id| *id != leader).collect();
    let first = rng.below(4) as usize;
    let behind = [others[first], others[(first + 1) % 4]];
    for id in behind {
        world.part_one_way(leader, id);
        world.part_one_way(id, leader);
    }
    world.submit(leader);
    world.run_for(Duration::from_millis(16));
    behind.iter().for_each(|id| world.mend_one_way(leader, *id));
    world.run_for(Duration::from_millis(75) + rng.span(Duration::ZERO, Duration::from_millis(75)));
    let (_, _, term) = world.elected().unwrap_or((Time::ZERO, leader, 0));
    world.take_down(leader);
    world.mend_links();
    let crashed = world.now();
    loop {
        world.run_for(Duration::from_millis(20));
        match world.elected() {
            Some((at, _, newer)) if newer > term && at > crashed => {
                return at.since(crashed).as_secs_f64() * 1e3;
            }
            _ if world.now().since(crashed) > WAIT_MAX => return WAIT_MAX.as_secs_f64() * 1e3,
            _ => {}
        }
    }
}

fn quantile(curve: &Curve, share: f64) -> f64 {
    curve.times[((curve.times.len() - 1) as f64 * share) as usize]
}

fn table(curves: &[Curve], trials: u64) -> String {
    let mut out = format!(
        "# Figure 16 of the Raft paper, measured in the simulator\n\nTime without a leader after a leader's crash: five servers, 15 ms \
         broadcast time, {trials} elections for each curve, none watched for more than 100 s. Made by `synod simulate papers`; nothing is drawn from a clock, so the \
         same program gives the same figures.\n\n![Figure 16](figure16.svg)\n\n| election timeout | median | 99 % | worst | the paper |\n|---|---|---|---|---|\n"
    );
    for curve in curves {
        let _ = writeln!(
            out,
            "| 150-{} ms | {:.0} ms | {:.0} ms | {:.0} ms | {} |",
            150 + curve.jitter,
            quantile(curve, 0.5),
            quantile(curve, 0.99),
            quantile(curve, 1.0),
            paper(curve.jitter)
        );
    }
    out
}

/// The narrow curves once more, by how long a candidate's question takes to arrive.
fn delays(trials: u64) -> anyhow::Result<String> {
    let mut out = format!(
        "\n## How long a question is on its way\n\nWhoever times out before another's question arrives asks for itself, and votes are split. So the narrow curves \
         depend on the time from a candidate's timeout to its question's arrival, more than on the whole broadcast. {trials} elections each:\n\n\
         | the question arrives after | 150-155 ms: median | 150-200 ms: worst |\n|---|---|---|\n"
    );
    for on_its_way in [1000, 2000, 3000, 4000, 5000, ON_ITS_WAY] {
        let (narrow, wide) = (measure(5, on_its_way, trials)?, measure(50, on_its_way, trials)?);
        let (median, worst) = (quantile(&narrow, 0.5), quantile(&wide, 1.0));
        let _ = writeln!(out, "| {:.1} ms | {median:.0} ms | {worst:.0} ms |", on_its_way as f64 / 1e3);
    }
    out.push_str("| the paper | 287 ms | 513 ms |\n");
    Ok(out)
}

/// The cumulative distributions, time on a logarithmic axis as in the paper.
fn figure(curves: &[Curve]) -> String {
    let (width, height, left, bottom) = (760.0, 420.0, 60.0, 50.0);
    let (low, high) = (100.0f64.ln(), 100_000.0f64.ln());
    let x = |ms: f64| left + (ms.max(100.0).ln() - low) / (high - low) * (width - left - 130.0);
    let y = |share: f64| height - bottom - share * (height - bottom - 30.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{left}\" y=\"18\" font-size=\"14\">Time without a leader, cumulative share of elections</text>\n"
    );
    for ms in [100.0, 1_000.0, 10_000.0, 100_000.0] {
        let _ = writeln!(
            out,
            "<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"30\" y2=\"{1:.1}\" stroke=\"#ddd\"/><text x=\"{0:.1}\" y=\"{2:.1}\" text-anchor=\"middle\">{3} ms</text>",
            x(ms),
            height - bottom,
            height - bottom + 18.0,
            ms
        );
    }
    for percent in [0, 20, 40, 60, 80, 100] {
        let at = y(f64::from(percent) / 100.0);
        let _ = writeln!(
            out,
            "<line x1=\"{left}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#eee\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{percent} %</text>",
            width - 130.0,
            left - 6.0,
            at + 4.0
        );
    }
    let colours = ["#444444", "#c0392b", "#d68910", "#1e8449", "#2471a3", "#7d3c98"];
    for (number, curve) in curves.iter().enumerate() {
        let colour = colours[number % colours.len()];
        let mut points = String::new();
        for (place, ms) in curve.times.iter().enumerate() {
            let _ = write!(points, "{:.1},{:.1} ", x(*ms), y((place + 1) as f64 / curve.times.len() as f64));
        }
        let _ = writeln!(
            out,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">150-{} ms</text>",
            width - 120.0,
            60.0 + 18.0 * number as f64,
            150 + curve.jitter
        );
    }
    for (jitter, ms, share, words) in PAPER {
        let colour = JITTERS
            .iter()
            .position(|known| known == jitter)
            .map_or("black", |place| colours[place % colours.len()]);
        let _ = writeln!(
            out,
            "<circle cx=\"{0:.1}\" cy=\"{1:.1}\" r=\"5\" fill=\"white\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <text x=\"{2:.1}\" y=\"{3:.1}\" font-size=\"11\">{words}</text>",
            x(*ms),
            y(*share),
            x(*ms) + 9.0,
            y(*share) + 14.0
        );
    }
    out.push_str("</svg>\n");
    out
}

/// What the paper says of three of the curves: the random part, milliseconds, the share of elections that were faster, and in words.
const PAPER: &[(u64, f64, f64, &str)] = &[
    (0, 10_000.0, 0.5, "paper: over 10 s"),
    (5, 287.0, 0.5, "paper: median 287 ms"),
    (50, 513.0, 1.0, "paper: worst 513 ms"),
];

/// How long a case is watched.
const WATCHED: Duration = Duration::from_secs(60);
/// How many runs of each case.
const RUNS: u64 = 20;

struct Case {
    name: &'static str,
    story: &'static str,
    nodes: u64,
}

const CASES: [Case; 3] = [
    Case {
        name: "quorum loss",
        story: "five servers; all links are cut but those of one that does not lead: the leader reaches only that one",
        nodes: 5,
    },
    Case {
        name: "constrained election",
        story: "as quorum loss, but the leader is cut off wholly, and the one in the middle misses the last command",
        nodes: 5,
    },
    Case {
        name: "chain",
        story: "three servers; the link between the leader and one of the others is cut",
        nodes: 3,
    },
];

fn connectivity() -> anyhow::Result<String> {
    let mut out = String::from(
        "# What partial connectivity does to Raft\n\nFor each case the longest time, over 20 runs of 60 s, in which nothing was decided, \
         and how many elections there were on average. Election timeout 1 to 2 s, heartbeats every 100 ms. Made by `synod simulate papers`. \
         The cases are those of \"Omni-Paxos\" (Ng, Haridi, Carbone, 2023).\n\n",
    );
    for case in &CASES {
        let _ = writeln!(out, "- **{}**: {}.", case.name, case.story);
    }
    out.push_str("\n| case | plain | pre-vote | check-quorum | both |\n|---|---|---|---|---|\n");
    for case in &CASES {
        let _ = write!(out, "| {} |", case.name);
        for (pre_vote, check_quorum) in [("off", "off"), ("on", "off"), ("off", "on"), ("on", "on")] {
            let (mut longest, mut elections) = (Duration::ZERO, 0);
            for seed in 0..RUNS {
                let (gap, terms) = observe(case, seed, pre_vote, check_quorum)?;
                longest = longest.max(gap);
                elections += terms;
            }
            let shown = if longest >= WATCHED * 9 / 10 {
                "for ever".to_owned()
            } else {
                format!("{:.1} s", longest.as_secs_f64())
            };
            let _ = write!(out, " {shown}, {:.1} elections |", elections as f64 / RUNS as f64);
        }
        out.push('\n');
    }
    Ok(out)
}

/// The longest time without a decision, and how many leaders there were.
fn observe(case: &Case, seed: u64, pre_vote: &str, check_quorum: &str) -> anyhow::Result<(Duration, u64)> {
    let set = [
        ("election_timeout", "1s".to_owned()),
        ("election_jitter", "1s".to_owned()),
        ("heartbeat", "100ms".to_owned()),
        ("pre_vote", pre_vote.to_owned()),
        ("check_quorum", check_quorum.to_owned()),
        ("lease_reads", "off".to_owned()),
    ];
    let mut plan = plan_of(seed, case.nodes, &set)?;
    (plan.clients, plan.watchers) = (0, 0);
    let mut world = World::<RaftFamily>::new(seed, plan, Recorder::default());
    world.run_for(Duration::from_secs(10));
    let leader = world.leader().ok_or_else(|| anyhow::anyhow!("a quiet cluster has no leader after 10 s"))?;
    let all: Vec<NodeId> = (1..=case.nodes).map(NodeId).collect();
    let others: Vec<NodeId> = all.iter().copied().filter(|id| *id != leader).collect();
    let hub = others[0];
    match case.name {
        "chain" => world.part(leader, hub),
        name => {
            if name == "constrained election" {
                // The one in the middle misses a command, and then the leader is gone.
                world.part(leader, hub);
                world.submit(leader);
                world.run_for(Duration::from_millis(60));
                others.iter().skip(1).for_each(|other| world.part(leader, *other));
            }
            for a in &all {
                for b in all.iter().filter(|b| *b > a && **b != hub && *a != hub) {
                    world.part(*a, *b);
                }
            }
        }
    }
    let before = world.elected().map_or(0, |(_, _, term)| term);
    let (mut last, mut decided, mut longest) = (world.now(), world.decided(), Duration::ZERO);
    let (mut terms, mut seen) = (0, before);
    let end = world.now() + WATCHED;
    while world.now() < end {
        // A client tries everybody all the time; what is refused costs nothing.
        all.iter().for_each(|id| world.submit(*id));
        world.run_for(Duration::from_millis(50));
        longest = longest.max(world.now().since(last));
        if world.decided() > decided {
            decided = world.decided();
            last = world.now();
        }
        if let Some((_, _, term)) = world.elected().filter(|(_, _, term)| *term != seen) {
            terms += 1;
            seen = term;
        }
    }
    Ok((longest, terms))
}
