//! Does the simulator find what it is for? Each mutant is our own code with one rule left out; the sweep must notice.
//!
//! Mutants are famous bugs (`docs/mutants.md` says where each comes from). They exist only with the cargo feature
//! `mutants`, and are switched on by an option of the protocol. A mutant that no seed shows is a hole in the simulator, and
//! stays in the table as such.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use synod_protocols::raft::Mutant;
use synod_sim::faults::FaultSet;
use synod_sim::swarm::Wishes;
use synod_sim::sweep;
use synod_sim::trace::Recorder;

use super::families::RaftFamily;

/// Look for every mutant, and write the table
#[derive(Args)]
pub(crate) struct Options {
    /// Seeds to try for each mutant, at most
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,

    /// Where the table goes; `-` for the terminal
    #[arg(long, default_value = "docs/mutants.md")]
    into: PathBuf,

    /// Only the mutant of this name
    #[arg(long)]
    only: Option<String>,
}

struct Found {
    name: &'static str,
    seed: Option<u64>,
    property: String,
    took: Duration,
    tried: u64,
}

pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let chosen: Vec<Mutant> = Mutant::ALL
        .iter()
        .copied()
        .filter(|mutant| options.only.as_ref().is_none_or(|name| name == mutant.name()))
        .collect();
    anyhow::ensure!(!chosen.is_empty(), "there is no mutant of that name");
    std::panic::set_hook(Box::new(|_| {}));
    let mut found = Vec::new();
    for mutant in chosen {
        let result = hunt(mutant, options.seeds)?;
        eprintln!("{:<26} {:?} {} in {:.1?}", result.name, result.seed, result.property, result.took);
        found.push(result);
    }
    let _ = std::panic::take_hook();
    let table = table(&found, options.seeds);
    if options.into.as_os_str() == "-" {
        print!("{table}");
    } else {
        std::fs::write(&options.into, table)?;
    }
    let all = found.iter().all(|mutant| mutant.seed.is_some());
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn hunt(mutant: Mutant, seeds: u64) -> anyhow::Result<Found> {
    let wishes = Wishes {
        faults: FaultSet::all(),
        options: vec![("mutant".to_owned(), mutant.name().to_owned())],
        ..Wishes::default()
    };
    let began = Instant::now();
    for seed in 1..=seeds {
        let outcome = sweep::run::<RaftFamily>(seed, &wishes, Recorder::default())?;
        // What breaks without the mutant, too, says nothing about it.
        let plain = Wishes { options: Vec::new(), ..wishes.clone() };
        if let Some(violation) = outcome.violation
            && sweep::run::<RaftFamily>(seed, &plain, Recorder::default())?.violation.is_none()
        {
            let property = violation.property.to_owned();
            return Ok(Found {
                name: mutant.name(),
                seed: Some(seed),
                property,
                took: began.elapsed(),
                tried: seed,
            });
        }
    }
    Ok(Found {
        name: mutant.name(),
        seed: None,
        property: "not found".to_owned(),
        took: began.elapsed(),
        tried: seeds,
    })
}

fn table(found: &[Found], seeds_max: u64) -> String {
    let hits: Vec<&Found> = found.iter().filter(|mutant| mutant.seed.is_some()).collect();
    let mut seeds: Vec<u64> = hits.iter().map(|mutant| mutant.tried).collect();
    seeds.sort_unstable();
    let median = seeds.get(seeds.len() / 2).copied().unwrap_or_default();
    let mut out = format!(
        "# Mutants\n\nOur own Raft with one rule left out at a time, hunted by `synod simulate mutants` (all faults, seeds from 1, at most {seeds_max} \
         each): **found {} of {}**, median seed {median}. What each leaves out, and which system shipped it, is said in \
         `crates/protocols/src/raft/mutants.rs`.\n\n| mutant | found at seed | by | time |\n|---|---|---|---|\n",
        hits.len(),
        found.len()
    );
    for mutant in found {
        let seed = mutant.seed.map_or_else(|| format!("not in {}", mutant.tried), |seed| seed.to_string());
        let _ = writeln!(
            out,
            "| {} | {seed} | {} | {:.1} s |",
            mutant.name,
            mutant.property,
            mutant.took.as_secs_f64()
        );
    }
    out
}
