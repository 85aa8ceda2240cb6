//! Swarm testing: each seed draws its own world, and leaves most kinds of faults out.
//!
//! "Swarm testing" (Groce et al., 2012): a test that may do everything at any time does most things seldom and never any
//! of them much. A seed here draws a *subset* of the faults allowed, then rates for each, a workload, a disk, a
//! network and the protocol's options; so some seeds are all crashes, some all partitions, some nearly calm.

use std::time::Duration;

use synod_core::{NodeId, Rng, Time};

use crate::client::Taste;
use crate::disk::{Call, Damage, Effect, Loss, Trap};
use crate::family::{Clocks, Family};
use crate::faults::{Cue, Fault, FaultKind, FaultSet, Packets, Planned, Side, Target, Until};
use crate::network::{LinkOrder, Rates};
use crate::partition::Shape;
use crate::planted;

/// What a person asks for.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// How many replicas; none: drawn per seed.
    pub nodes: Option<u64>,
    /// Which kinds of faults a seed may draw from.
    pub faults: FaultSet,
    /// How long the safety phase lasts.
    pub safety: Duration,
    /// Options of the protocol by name, over what is drawn.
    pub options: Vec<(String, String)>,
    /// Of the plan, keep only the faults with these numbers; none: keep all. For shrinking and replaying.
    pub keep: Option<Vec<usize>>,
    /// More lying replicas than the protocol claims to tolerate, to see that the test can see.
    pub liars: Option<usize>,
}

impl Default for Wishes {
    fn default() -> Self {
        Wishes {
            nodes: None,
            faults: FaultSet::all(),
            safety: Duration::from_secs(40),
            options: Vec::new(),
            keep: None,
            liars: None,
        }
    }
}

/// Everything that is decided before the first event.
#[derive(Clone, Debug)]
pub struct Plan<O> {
    /// How many replicas start.
    pub nodes: u64,
    /// The protocol's options.
    pub options: O,
    /// The longest election timeout under these options.
    pub election: Duration,
    /// How long a healthy core takes to answer, at the longest.
    pub answer: Duration,
    /// The kinds that this seed drew.
    pub faults: FaultSet,
    /// The network in the safety phase.
    pub rates: Rates,
    /// The network of the core in the liveness phase.
    pub calm: Rates,
    /// How long a write and its sync take, at least and at most.
    pub disk: (Duration, Duration),
    /// How far clocks run apart, in parts in a million.
    pub drift_ppm: u32,
    /// Deliveries between two snapshots.
    pub snapshot_every: u64,
    /// Commands that one flush may apply.
    pub applies_max: usize,
    /// How many clients there are.
    pub clients: usize,
    /// How many watchers there are.
    pub watchers: usize,
    /// How long a client thinks between two operations, at most.
    pub think: Duration,
    /// How long a client waits for an answer.
    pub patience: Duration,
    /// Over how many keys.
    pub keys: u64,
    /// What clients ask for most.
    pub taste: Taste,
    /// Whether the first client goes on asking whoever led before, whatever else happens: what a leader that is none any more says is what
    /// reads must not believe.
    pub loyal: bool,
    /// Whether two more come by whenever somebody takes the lead, and ask the new leader and the one before (see `world/callers.rs`).
    pub passers: bool,
    /// The share of faults that wait for a cue.
    pub lurking: f64,
    /// How many operations clients may start in all: what a checker can take.
    pub operations_max: usize,
    /// When the safety phase ends.
    pub safety: Duration,
    /// Who may lose its disk for ever.
    pub victims: Vec<NodeId>,
    /// Who lies.
    pub liars: Vec<NodeId>,
    /// What happens when.
    pub planned: Vec<Planned>,
    /// The planted defect of log, replica or store ([`crate::planted`]) that everybody runs with.
    pub defect: Option<&'static str>,
}

/// An option that the protocol does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WishError {
    /// No such option, or no such value.
    #[error("{protocol} has no option `{name}`, or not with the value `{value}`")]
    Option {
        /// Which protocol.
        protocol: &'static str,
        /// Which option.
        name: String,
        /// Which value.
        value: String,
    },
    /// So many replicas are not possible.
    #[error("{protocol} cannot run on {nodes} replicas: {low} to {high} are possible")]
    Nodes {
        /// Which protocol.
        protocol: &'static str,
        /// How many were asked for.
        nodes: u64,
        /// The fewest.
        low: u64,
        /// The most.
        high: u64,
    },
}

/// Draws the plan of a seed.
///
/// # Errors
/// When the wishes cannot be met.
pub fn draw<F: Family>(
    seed: u64,
    wishes: &Wishes,
) -> Result<Plan<<F::Protocol as synod_core::Protocol>::Options>, WishError> {
    let mut rng = Rng::new(seed ^ 0x5eed_0f5e_ed0f);
    let possible = F::nodes();
    let nodes = match wishes.nodes {
        Some(nodes) if possible.contains(&nodes) => nodes,
        Some(nodes) => {
            let (low, high) = (*possible.start(), *possible.end());
            return Err(WishError::Nodes { protocol: F::NAME, nodes, low, high });
        }
        None => usual_nodes(&mut rng, *possible.start(), *possible.end()),
    };
    let mut options = F::options(&mut rng.fork());
    let mut defect = None;
    for (name, value) in &wishes.options {
        if name == "mutant" && defect.is_none() {
            defect = planted::named(value);
            if defect.is_some() {
                continue;
            }
        }
        if !F::set(&mut options, name, value) {
            let (name, value) = (name.clone(), value.clone());
            return Err(WishError::Option { protocol: F::NAME, name, value });
        }
    }
    let election = F::election_timeout(&options);

    // One seed in eight is calm, one in eight has it all; the others toss a coin for each kind.
    let mood = rng.below(8);
    let mut faults = FaultSet::NONE;
    for kind in FaultKind::ALL {
        let drawn = match mood {
            0 => false,
            1 => true,
            _ => rng.chance(0.4),
        };
        if drawn && wishes.faults.has(*kind) {
            faults = faults.with(*kind);
        }
    }

    let clocks = F::clocks(&options);
    if clocks != Clocks::Free {
        // A pause or a leap of the clock is what leases do not survive in any system: see the paper's own caveat.
        faults = faults.without(FaultKind::Jump);
    }
    // Every number is drawn whether it is needed or not: leaving a fault out must not change the others.
    let drift_ppm = match clocks {
        Clocks::Free => rng.below(200_000) as u32,
        Clocks::Bounded(ppm) => rng.below(u64::from(ppm) + 1) as u32,
    };
    let drift_ppm = if faults.has(FaultKind::Drift) { drift_ppm } else { 0 };
    // One in four has a snapshot behind everything that is decided: in the middle of a change of the members, say.
    let snapshot_every = [1, 6, 60, 60][rng.below(4) as usize].min(rng.between(3, 60));
    let rates = network(&mut rng.fork(), faults, election);
    let slow = rng.between(1, 20);
    let victims = victims(&mut rng, nodes, F::losses_max(nodes as usize));
    let liars_max = wishes.liars.unwrap_or(F::liars_max(nodes as usize));
    let liars = if faults.has(FaultKind::Byzantine) || wishes.liars.is_some() {
        let mut liars = self::victims(&mut rng.fork(), nodes, liars_max);
        liars.truncate(if wishes.liars.is_some() {
            liars_max
        } else {
            rng.below(liars_max as u64 + 1) as usize
        });
        liars
    } else {
        Vec::new()
    };
    // A liar uses up what the protocol tolerates: nobody else may be lost for good.
    // And where members change, a majority of tomorrow's may be a minority of today's.
    let victims = match (liars.is_empty(), faults.has(FaultKind::Members)) {
        (true, false) => victims,
        _ => liars.clone(),
    };
    let mut plan = Plan {
        nodes,
        election,
        answer: F::answer_within(&options),
        faults,
        rates,
        calm: Rates::calm(election / 400, election / 400),
        disk: (Duration::from_micros(50 * slow), Duration::from_micros(400 * slow)),
        drift_ppm,
        snapshot_every: if faults.has(FaultKind::Snapshots) { snapshot_every } else { 2000 },
        applies_max: if rng.chance(0.2) { rng.between(1, 16) as usize } else { 8192 },
        clients: rng.between(1, 6) as usize,
        watchers: rng.below(4) as usize,
        think: Duration::from_millis(rng.between(5, 250)),
        // Whoever gives up soon asks often where nobody answers: a leader that is none any more is asked for reads to its end.
        patience: F::answer_within(&options) * [1, 2, 4, 4, 8][rng.below(5) as usize] / 2,
        keys: rng.between(1, 6),
        taste: Taste::ALL[rng.below(Taste::ALL.len() as u64) as usize],
        loyal: rng.chance(0.5),
        passers: false,
        lurking: [0.0, 0.3, 0.6, 0.9][rng.below(4) as usize],
        operations_max: 3000,
        safety: wishes.safety,
        victims,
        liars,
        planned: Vec::new(),
        defect,
        options,
    };
    // A client that is alone is alone in some worlds.
    plan.passers = plan.clients > 1;
    plan.planned = schedule(&mut rng.fork(), &plan);
    if let Some(keep) = &wishes.keep {
        let mut number = 0;
        plan.planned.retain(|_| {
            number += 1;
            keep.contains(&(number - 1))
        });
    }
    Ok(plan)
}

fn usual_nodes(rng: &mut Rng, low: u64, high: u64) -> u64 {
    // Of an even number, one more and one less make majorities that need not meet.
    let sizes = [3, 3, 3, 5, 5, 1, 2, 4, 4, 7];
    sizes[rng.below(sizes.len() as u64) as usize].clamp(low, high)
}

fn victims(rng: &mut Rng, nodes: u64, count: usize) -> Vec<NodeId> {
    let mut all: Vec<NodeId> = (1..=nodes).map(NodeId).collect();
    for i in (1..all.len()).rev() {
        all.swap(i, rng.below(i as u64 + 1) as usize);
    }
    all.truncate(count);
    all
}

fn network(rng: &mut Rng, faults: FaultSet, election: Duration) -> Rates {
    let mut rates = Rates::calm(election / 400, election / 400);
    let (step, doublings) = (20 + rng.below(200) as u32, rng.between(3, 8) as u32);
    let mut share = |kind: FaultKind, max: f64| {
        let drawn = rng.unit() * max;
        if faults.has(kind) { drawn } else { 0.0 }
    };
    rates.loss = share(FaultKind::Loss, 0.4);
    rates.duplication = share(FaultKind::Duplicate, 0.5);
    rates.corruption = share(FaultKind::Corrupt, 0.02);
    rates.encoded = 0.02 + share(FaultKind::Corrupt, 0.2);
    if faults.has(FaultKind::Delay) {
        rates.delay_step = election / step;
        rates.doublings_max = doublings;
    }
    if faults.has(FaultKind::Reorder) {
        rates.order = LinkOrder::Free;
    }
    rates
}

/// Draws when the single faults happen: each kind at its own pace, over the whole safety phase.
fn schedule<O>(rng: &mut Rng, plan: &Plan<O>) -> Vec<Planned> {
    let mut planned = Vec::new();
    for kind in FaultKind::ALL.iter().copied() {
        let mut rng = rng.fork();
        if !plan.faults.has(kind) {
            continue;
        }
        // On average once in this time: from restless to rare. What is one of many places, or must come together with something else to
        // matter, comes more often.
        let often =
            matches!(kind, FaultKind::CrashPoint | FaultKind::Members | FaultKind::Transfer | FaultKind::Rot);
        let pace = plan.election * (1 + rng.below(16) as u32) / if often { 2 } else { 1 };
        let mut at = Time::ZERO + pace / 2;
        loop {
            at = at + rng.span(pace / 8, pace * 2);
            if at.since(Time::ZERO) >= plan.safety {
                break;
            }
            let lurks = rng.chance(plan.lurking);
            let cues = [
                Cue::Lead,
                Cue::Lead,
                Cue::Lead,
                Cue::Snapshot,
                Cue::Members,
                Cue::Members,
                Cue::Apart,
                Cue::Apart,
                Cue::Asked,
                Cue::Asked,
            ];
            let cue = cues[rng.below(cues.len() as u64) as usize];
            // Half of them at once, before anything else comes of it.
            let after = rng.span(Duration::ZERO, plan.election / 10).saturating_sub(plan.election / 20);
            if let Some(fault) = fault(kind, &mut rng, plan) {
                let (cue, after) = if lurks { (cue, after) } else { (Cue::Clock, Duration::ZERO) };
                planned.push(Planned { at, cue, after, kind, fault });
            }
        }
    }
    if plan.faults.has(FaultKind::Partition) && plan.lurking > 0.0 {
        planned.extend(left_out(rng, &planned, plan.election));
    }
    planned.sort_by_key(|planned| planned.at);
    planned
}

/// Every other leader that is asked to hand over, or for other members, is left out of what comes of it, just then; or the others are,
/// once the members change.
fn left_out(rng: &mut Rng, planned: &[Planned], election: Duration) -> Vec<Planned> {
    let asks = planned.iter().filter(|it| matches!(it.kind, FaultKind::Members | FaultKind::Transfer));
    asks.filter_map(|ask| {
        // Half of them at once, while what was asked for is still on its way.
        let after = rng.span(Duration::ZERO, election / 10).saturating_sub(election / 20);
        let fault = Fault::LeaveOut { lasts: rng.span(election / 2, election * 4) };
        let at = Time(ask.at.0.saturating_sub(1));
        let changes = ask.kind == FaultKind::Members && rng.chance(0.4);
        let cue = if changes { Cue::Members } else { Cue::Asked };
        let planned = Planned { at, cue, after, kind: FaultKind::Partition, fault };
        rng.chance(0.5).then_some(planned)
    })
    .collect()
}

fn fault<O>(kind: FaultKind, rng: &mut Rng, plan: &Plan<O>) -> Option<Fault> {
    let election = plan.election;
    let target = if rng.chance(0.4) { Target::Leader(rng.next_u64()) } else { Target::Any(rng.next_u64()) };
    // One in three is back before anybody has missed it: what it said is still on its way.
    let down = if rng.chance(0.3) {
        rng.span(election / 400, election / 20)
    } else {
        rng.span(election / 20, election * 3)
    };
    let lasts = if rng.chance(0.2) {
        rng.span(election * 3, election * 12)
    } else {
        rng.span(election / 10, election * 5)
    };
    let draw = rng.next_u64();
    let loss = Loss::ALL[rng.below(Loss::ALL.len() as u64) as usize];
    let victim = |rng: &mut Rng| {
        let count = plan.victims.len() as u64;
        (count > 0).then(|| Target::Node(plan.victims[rng.below(count) as usize]))
    };
    // A disk that fails at every start would do nothing else, were it tried at once.
    let repair = down.max(election / 2);
    let harm = |rng: &mut Rng, damage| Some(Fault::Harm { target: victim(rng)?, damage, down: repair });
    match kind {
        FaultKind::Partition => {
            let shape = Shape::ALL[rng.below(Shape::ALL.len() as u64) as usize];
            let until = if rng.chance(0.3) { Until::Lead } else { Until::Clock };
            Some(Fault::Partition { shape, lasts, until, draw })
        }
        FaultKind::Clog => Some(Fault::Clog { draw, lasts }),
        FaultKind::Kill => Some(Fault::Kill { target, down }),
        FaultKind::Power => Some(Fault::Power { target, loss, down }),
        FaultKind::Blackout => Some(Fault::Blackout { loss, down }),
        FaultKind::CrashPoint if rng.chance(0.5) => {
            let side = if rng.chance(0.5) { Side::Before } else { Side::After };
            let loss = rng.chance(0.5).then_some(loss);
            let (packets, skip) =
                if rng.chance(0.5) { (Packets::Rare, rng.below(4)) } else { (Packets::Any, rng.below(30)) };
            Some(Fault::CrashAtSend { target, side, packets, skip, loss, down })
        }
        FaultKind::CrashPoint => {
            let effect = if rng.chance(0.5) { Effect::CutBefore } else { Effect::CutAfter };
            Some(Fault::CrashAtDisk { target, trap: trap(rng, effect), loss, down })
        }
        FaultKind::Pause => {
            // Some are over before anybody misses it: what a lease covers, and what it does not any more.
            let short = rng.span(election / 20, election);
            Some(Fault::Pause { target, lasts: if rng.chance(0.4) { short } else { lasts } })
        }
        FaultKind::Jump => {
            Some(Fault::Jump { target, by: rng.span(election / 10, Duration::from_secs(3600)) })
        }
        FaultKind::SlowDisk => {
            Some(Fault::SlowDisk { target, extra: rng.span(election / 100, election * 2), lasts })
        }
        FaultKind::StuckDisk => Some(Fault::StuckDisk { target, lasts }),
        FaultKind::FullDisk => Some(Fault::FullDisk { target, lasts }),
        FaultKind::DiskError => {
            let effect = if rng.chance(0.6) { Effect::FailOnce } else { Effect::FailForEver };
            Some(Fault::DiskError { target, trap: trap(rng, effect), down: repair })
        }
        FaultKind::Rot => harm(rng, Damage::Rot),
        FaultKind::Misdirect => harm(rng, Damage::Misdirected),
        FaultKind::Stale => harm(rng, Damage::Stale),
        FaultKind::Wipe => harm(rng, Damage::Wiped),
        FaultKind::Members => Some(Fault::Members { draw }),
        FaultKind::Transfer => Some(Fault::Transfer { draw }),
        FaultKind::Delay
        | FaultKind::Loss
        | FaultKind::Duplicate
        | FaultKind::Reorder
        | FaultKind::Corrupt
        | FaultKind::Drift
        | FaultKind::Snapshots
        | FaultKind::Byzantine => None,
    }
}

/// The plan of a cluster that lives for a long time: a wide-area one of three, which meets every kind of fault again and again, at
/// `pace` on average.
///
/// Heartbeats of 1 s and election timeouts of 10 to 20 s are those of a cluster between continents that is in no hurry; one packet in a
/// thousand is lost, one doubled, one in ten thousand damaged. Disks are damaged at a tenth of the pace, each time on one machine.
///
/// # Errors
/// When the protocol cannot run so.
pub fn long_life<F: Family>(
    seed: u64,
    span: Duration,
    pace: Duration,
) -> Result<Plan<<F::Protocol as synod_core::Protocol>::Options>, WishError> {
    let slow = [
        ("election_timeout", "10s"),
        ("election_jitter", "10s"),
        ("heartbeat", "1s"),
        ("disk_stuck_after", "20s"),
        ("pre_vote", "on"),
        ("check_quorum", "on"),
        ("lease_reads", "off"),
    ];
    let mut scratch = F::options(&mut Rng::new(seed));
    let slow = slow.iter().filter(|(name, value)| F::set(&mut scratch, name, value));
    let wishes = Wishes {
        nodes: Some(3.clamp(*F::nodes().start(), *F::nodes().end())),
        faults: FaultSet::NONE,
        safety: span,
        options: slow.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ..Wishes::default()
    };
    let mut plan = draw::<F>(seed, &wishes)?;
    plan.faults = FaultSet::all().without(FaultKind::Byzantine);
    plan.rates = Rates::calm(Duration::from_millis(20), Duration::from_millis(10));
    (plan.rates.loss, plan.rates.duplication, plan.rates.corruption) = (0.001, 0.001, 0.0001);
    (plan.rates.doublings_max, plan.rates.encoded) = (6, 0.01);
    plan.calm = plan.rates;
    plan.drift_ppm = 200;
    plan.snapshot_every = 1000;
    plan.applies_max = 8192;
    (plan.clients, plan.watchers, plan.keys, plan.taste) = (4, 1, 6, Taste::Usual);
    (plan.patience, plan.loyal, plan.passers) = (plan.election * 4, false, false);
    plan.think = Duration::from_secs(120);
    plan.operations_max = usize::MAX;
    plan.victims = (1..=plan.nodes).map(NodeId).collect();
    let mut rng = Rng::new(seed ^ 0x1009_11fe);
    plan.planned.clear();
    for kind in plan.faults.kinds() {
        let mut rng = rng.fork();
        let harms =
            matches!(kind, FaultKind::Rot | FaultKind::Misdirect | FaultKind::Stale | FaultKind::Wipe);
        let pace = if harms { pace * 10 } else { pace };
        let mut at = Time::ZERO;
        loop {
            at = at + rng.span(Duration::ZERO, pace * 2);
            if at.since(Time::ZERO) >= span {
                break;
            }
            if let Some(fault) = fault(kind, &mut rng, &plan) {
                plan.planned.push(Planned { at, cue: Cue::Clock, after: Duration::ZERO, kind, fault });
            }
        }
    }
    plan.planned.sort_by_key(|planned| planned.at);
    Ok(plan)
}

/// A trap on a call to come: on any that changes something, or on one kind, which may be rare.
fn trap(rng: &mut Rng, effect: Effect) -> Trap {
    let rare = [
        Call::Create,
        Call::Rename,
        Call::Remove,
        Call::SyncDir,
        Call::SyncAll,
        Call::Preallocate,
        Call::Settle,
        Call::Shrink,
    ];
    let common = [Call::Write, Call::SyncData];
    match rng.below(4) {
        0 => Trap { skip: rng.below(40), only: None, effect },
        1 => Trap { skip: rng.below(8), only: Some(common[rng.below(2) as usize]), effect },
        _ => Trap { skip: rng.below(3), only: Some(rare[rng.below(rare.len() as u64) as usize]), effect },
    }
}
