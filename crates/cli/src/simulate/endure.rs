//! `synod simulate endure`: one cluster, one long life; the life itself is in `synod_sim::endurance`.

use std::io::{IsTerminal, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use synod_sim::endurance::Life;
use synod_sim::family::Family;

/// How long, and how rough
#[derive(Args)]
pub(crate) struct Options {
    /// Which protocol
    #[arg(long, default_value = "raft")]
    pub(super) protocol: String,

    /// How many simulated days
    #[arg(long, default_value_t = 365)]
    days: u64,

    /// The seed
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Every kind of fault comes once in so many hours, on average; damage to disks in ten times as many
    #[arg(long, default_value_t = 6)]
    hours: u64,

    /// Where the summary goes; `-` for the terminal
    #[arg(long, default_value = "-")]
    into: PathBuf,
}

pub(super) fn run<F: Family>(options: &Options) -> anyhow::Result<ExitCode> {
    anyhow::ensure!((1..=3650).contains(&options.days), "--days {}: 1 to 3650 are possible", options.days);
    anyhow::ensure!((1..=1000).contains(&options.hours), "--hours {}: 1 to 1000 are possible", options.hours);
    let life = Life { days: options.days, seed: options.seed, hours: options.hours };
    let began = Instant::now();
    let shows = std::io::stderr().is_terminal();
    let lived = life.live::<F>(|day, decided| {
        if shows || day % 10 == 0 {
            let speed = day as f64 * 86_400.0 / began.elapsed().as_secs_f64();
            let end = if shows { '\r' } else { '\n' };
            eprint!(
                "day {day} of {}, {decided} decided, {speed:.0} times as fast as time {end}",
                options.days
            );
            let _ = std::io::stderr().flush();
        }
    })?;
    eprintln!("{:.0} minutes", began.elapsed().as_secs_f64() / 60.0);
    if options.into.as_os_str() == "-" {
        print!("{}", lived.summary);
    } else {
        std::fs::write(&options.into, &lived.summary)
            .map_err(|error| anyhow::anyhow!("{}: {error}", options.into.display()))?;
        println!("{}", options.into.display());
    }
    Ok(if lived.outcome.violation.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
