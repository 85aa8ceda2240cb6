//! `synod simulate mutants`: the hunt of `synod_sim::hunt`, mutant by mutant.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use synod_sim::family::Family;
use synod_sim::hunt::{Found, Hunt, Mutant, mutants};
use synod_sim::swarm::WishError;

/// Look for every mutant, and write the table
#[derive(Args)]
pub(crate) struct Options {
    /// Which protocol; the mutants of log, store and replica are hunted under Raft
    #[arg(long, default_value = "raft")]
    pub(super) protocol: String,

    /// Seeds to try for each mutant, at most
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,

    /// How long the safety phase of each seed lasts, in simulated seconds
    #[arg(long, default_value_t = 15)]
    seconds: u64,

    /// Where the table goes; `-` for the terminal
    #[arg(long, default_value = "-")]
    into: PathBuf,

    /// Only the mutant of this name
    #[arg(long)]
    only: Option<String>,

    /// Only the i-th of n parts of the mutants: for several machines or cores
    #[arg(long, value_name = "I/N")]
    shard: Option<String>,

    /// How many mutants are hunted at a time; left out: as many as there are cores
    #[arg(long)]
    threads: Option<usize>,
}

pub(super) fn run<F: Family>(options: &Options) -> anyhow::Result<ExitCode> {
    let (shard, shards) = super::parse_shard(options.shard.as_deref())?;
    let chosen: Vec<Mutant> = mutants::<F>()
        .into_iter()
        .filter(|mutant| options.only.as_ref().is_none_or(|name| name == mutant.name))
        .enumerate()
        .filter(|(place, _)| *place as u64 % shards == shard)
        .map(|(_, mutant)| mutant)
        .collect();
    anyhow::ensure!(!chosen.is_empty(), "{} has no mutant of that name", F::NAME);
    let hunt = Hunt { seeds_max: options.seeds, safety: Duration::from_secs(options.seconds) };
    std::panic::set_hook(Box::new(|_| {}));
    let threads =
        options.threads.or_else(|| Some(std::thread::available_parallelism().ok()?.get())).unwrap_or(1);
    let next = AtomicUsize::new(0);
    // Each takes the next mutant that nobody hunts yet.
    let hunter = || {
        let mut found = Vec::new();
        while let Some((place, mutant)) =
            Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|place| Some((place, *chosen.get(place)?)))
        {
            let began = Instant::now();
            let hit = hunt.hunt::<F>(&mutant)?;
            let took = began.elapsed();
            eprintln!("{:<26} {hit:?} in {took:.1?}", mutant.name);
            found.push((place, Found { mutant, hit, took }));
        }
        Ok::<_, WishError>(found)
    };
    let parts: Vec<_> = std::thread::scope(|scope| {
        let hunters: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(hunter)).collect();
        hunters.into_iter().map(|hunter| hunter.join().expect("a hunter catches panics")).collect()
    });
    let _ = std::panic::take_hook();
    let mut found = Vec::new();
    for part in parts {
        found.extend(part?);
    }
    found.sort_by_key(|(place, _)| *place);
    let found: Vec<Found> = found.into_iter().map(|(_, found)| found).collect();
    let table = hunt.table(F::NAME, &found);
    if options.into.as_os_str() == "-" {
        print!("{table}");
    } else {
        std::fs::write(&options.into, table)
            .map_err(|error| anyhow::anyhow!("{}: {error}", options.into.display()))?;
    }
    let all = found.iter().all(|found| found.hit.is_some());
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
