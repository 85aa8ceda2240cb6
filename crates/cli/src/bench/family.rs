//! `synod bench family`: what each protocol gives and costs, in one table.
//!
//! Real members on loopback for the times, the simulator's count for the messages: it is exact, and knows a decision from a heartbeat.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use synod_load::cluster::Contender;
use synod_load::family::{Figures, figures};
use synod_server::protocol::{self, FAMILY, Kin};

use super::compare::machine;
use crate::simulate::messages::one_at_a_time;

/// With how many members, where the protocol can be founded with so many.
const SIZES: [usize; 6] = [3, 4, 5, 7, 9, 10];

#[derive(Args)]
pub(super) struct Options {
    /// Only these protocols
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    protocols: Vec<String>,
    /// Only with so many members
    #[arg(long, value_name = "COUNT", value_delimiter = ',')]
    members: Vec<usize>,
    /// How long each measurement takes, in seconds
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Where the clusters' data lies; on a real disk, or syncs cost nothing
    #[arg(long, default_value = "target/bench")]
    data_dir: PathBuf,
    /// Write the table to a file, too
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// One line of the table.
struct Line {
    name: String,
    protocol: &'static str,
    members: usize,
    outcome: Result<Figures>,
}

pub(super) async fn run(options: &Options) -> Result<ExitCode> {
    for name in &options.protocols {
        protocol::find(name)?;
    }
    if let Some(count) = options.members.iter().find(|count| !(1..=13).contains(*count)) {
        bail!("--members={count}: allowed is 1 to 13");
    }
    if !(0.1..=3600.0).contains(&options.seconds) {
        bail!("--seconds is 0.1 to 3600");
    }
    let sizes = if options.members.is_empty() { &SIZES[..] } else { &options.members };
    let wanted = |kin: &&Kin| {
        options.protocols.is_empty() || options.protocols.iter().any(|name| name == kin.row.name)
    };
    let mut lines = Vec::new();
    for members in sizes {
        for kin in FAMILY.iter().filter(wanted).filter(|kin| is_size(kin, *members)) {
            for contender in contenders(kin)? {
                eprintln!("{} with {members} members", contender.name);
                let measure = Duration::from_secs_f64(options.seconds);
                let outcome = figures(&contender, *members, &options.data_dir, measure).await;
                let line = Line { name: contender.name, protocol: kin.row.name, members: *members, outcome };
                eprintln!("    {}", line.shown());
                lines.push(line);
            }
        }
    }
    let table = table(&lines);
    println!("{table}");
    if let Some(file) = &options.markdown {
        fs::write(file, format!("{}\n{table}", machine()))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// 3, 5, 7 and 9; where only some numbers are possible (3f + 1), the first three of those.
fn is_size(kin: &Kin, members: usize) -> bool {
    let possible = kin.row.sizes.possible;
    if possible(3) {
        members % 2 == 1 && members < 10 && possible(members)
    } else {
        possible(members) && members % 3 == 1
    }
}

/// Each setting of the protocol that changes what it offers.
fn contenders(kin: &Kin) -> Result<Vec<Contender>> {
    let ours = Contender::synod()?;
    let with = |name: String, flags: &[(&str, &str)]| {
        let mut contender = ours.clone();
        contender.name = name;
        contender.flags.push(format!("--protocol={}", kin.row.name));
        contender.flags.extend(flags.iter().map(|(flag, value)| format!("--{flag}={value}")));
        contender.needs_keys = kin.row.flags.iter().any(|flag| flag.name == "pbft-key");
        if kin.row.flags.iter().any(|flag| flag.name == "after-loss") {
            // Otherwise the survivors of asynchronous replication wait for an operator, and nothing can be measured.
            contender.flags.push("--after-loss=serve".to_owned());
        }
        contender
    };
    Ok(match kin.row.variants {
        [] => vec![with(kin.row.name.to_owned(), &[])],
        variants => {
            variants.iter().map(|it| with(format!("{} {}", kin.row.name, it.name), it.flags)).collect()
        }
    })
}

impl Line {
    fn shown(&self) -> String {
        let counted = match one_at_a_time(self.protocol, self.members as u64) {
            Some(cost) => format!("{:.1} | {:.0} | {:.1}", cost.messages, cost.bytes, cost.syncs),
            None => " | | ".to_owned(),
        };
        match &self.outcome {
            Ok(it) => format!(
                "{:.0} | {:.1} | {} | {counted} | {:.0} | {:.1} | {}",
                it.rate,
                it.cpu.as_nanos() as f64 / 1e3,
                millis(it.alone),
                it.bytes,
                it.syncs,
                millis(it.recovery)
            ),
            Err(error) => format!("failed: {error:#} | | | {counted} | | |"),
        }
    }
}

fn millis(time: Duration) -> String {
    format!("{:.2}", time.as_nanos() as f64 / 1e6)
}

fn table(lines: &[Line]) -> String {
    let mut out = String::from(
        "| protocol | members | puts a second, 1,000 at once | CPU us for each | one client, median ms | messages a decision | bytes | \
         syncs | bytes on the wire for each put of one client | syncs | after the loss of who is asked, ms |\n",
    );
    out.push_str("|---|---|---|---|---|---|---|---|---|---|---|\n");
    for line in lines {
        let _ = writeln!(out, "| {} | {} | {} |", line.name, line.members, line.shown());
    }
    let rate = |name: &str| {
        let line = lines.iter().find(|line| line.name == name && line.members == 3)?;
        line.outcome.as_ref().ok().map(|it| it.rate)
    };
    if let (Some(raft), Some(multipaxos)) = (rate("raft"), rate("multipaxos")) {
        let _ = writeln!(
            out,
            "\nMulti-Paxos with three members has {:.2} of Raft's throughput.",
            multipaxos / raft
        );
    }
    out
}
