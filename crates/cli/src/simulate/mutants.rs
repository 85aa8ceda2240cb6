//! `synod simulate mutants`: the hunt of `synod_sim::hunt`, mutant by mutant.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use synod_sim::family::Family;
use synod_sim::hunt::{Found, Hunt, Mutant, mutants};

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
    let mut found = Vec::new();
    for mutant in chosen {
        let began = Instant::now();
        let hit = hunt.hunt::<F>(&mutant)?;
        let took = began.elapsed();
        eprintln!("{:<26} {hit:?} in {took:.1?}", mutant.name);
        found.push(Found { mutant, hit, took });
    }
    let _ = std::panic::take_hook();
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
