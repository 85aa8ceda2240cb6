//! `synod simulate attack`: an attacker's races against the honest chain, beside the chances that the formulas give (Nakamoto, 2008,
//! section 11; Rosenfeld, 2012).
//!
//! A race is drawn block by block (`synod_protocols::pow::Race`); the first of each row are run again with real blocks before a real
//! replica, which must deliver the payment, and take it back in just those that the attacker has won.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use synod_core::Rng;
use synod_protocols::pow::{Race, exact, nakamoto};

/// Race an attacker with a share of all hashing power against the honest chain
#[derive(Args)]
pub(crate) struct Options {
    /// The attacker's shares of all hashing power, between 0 and 0.5; the paper's 0.1 and 0.3 when left out
    #[arg(long, value_name = "Q,Q", value_delimiter = ',')]
    share: Vec<String>,

    /// How many confirmations the merchant waits for; those of the paper's tables when left out
    #[arg(long, value_name = "Z,Z", value_delimiter = ',')]
    confirmations: Vec<String>,

    /// Races for each row
    #[arg(long, default_value_t = 100_000)]
    trials: u64,

    /// Of these, so many are run again with real blocks before a real replica
    #[arg(long, default_value_t = 100)]
    replays: u64,

    /// The seed
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Write the rows as JSON
    #[arg(long)]
    json: bool,

    /// Where the page goes; `-` for the terminal
    #[arg(long, default_value = "-")]
    into: PathBuf,
}

const TRIALS_MAX: u64 = 10_000_000;
const CONFIRMATIONS_MAX: u32 = 1000;

/// More than so many standard deviations beside the exact chance is no chance.
const SIGMAS_MAX: f64 = 5.0;

/// Races of one share and one number of confirmations.
struct Row {
    share: f64,
    confirmations: u32,
    trials: u64,
    won: u64,
    replays: u64,
    /// Those in which the real replica did as it should.
    agreed: u64,
}

impl Row {
    fn race(share: f64, confirmations: u32, options: &Options) -> Row {
        let seed = options.seed ^ share.to_bits() ^ u64::from(confirmations) << 32;
        let mut rng = Rng::new(seed);
        let mut row = Row { share, confirmations, trials: options.trials, won: 0, replays: 0, agreed: 0 };
        for trial in 0..options.trials {
            let race = Race::run(share, confirmations, &mut rng);
            row.won += u64::from(race.is_won);
            // Who waits for nothing has delivered before there is a block.
            if trial < options.replays && confirmations > 0 {
                row.replays += 1;
                row.agreed += u64::from(race.replay() == (true, race.is_won));
            }
        }
        row
    }

    fn rate(&self) -> f64 {
        self.won as f64 / self.trials as f64
    }

    /// How many standard deviations the rate lies beside a chance.
    fn sigmas(&self, chance: f64) -> f64 {
        let sigma = (chance * (1.0 - chance) / self.trials as f64).sqrt();
        if sigma > 0.0 { (self.rate() - chance) / sigma } else { (self.rate() - chance) * 1e9 }
    }

    fn is_right(&self) -> bool {
        self.agreed == self.replays && self.sigmas(exact(self.share, self.confirmations)).abs() <= SIGMAS_MAX
    }
}

pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        (1..=TRIALS_MAX).contains(&options.trials),
        "--trials {}: 1 to {TRIALS_MAX} are possible",
        options.trials
    );
    let mut rows = Vec::new();
    for share in shares(options)? {
        for confirmations in confirmations(options, share)? {
            rows.push(Row::race(share, confirmations, options));
        }
    }
    let page = if options.json { as_json(&rows) } else { as_page(&rows, options) };
    if options.into.as_os_str() == "-" {
        print!("{page}");
    } else {
        std::fs::write(&options.into, page)
            .map_err(|error| anyhow::anyhow!("{}: {error}", options.into.display()))?;
        println!("{}", options.into.display());
    }
    Ok(if rows.iter().all(Row::is_right) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn shares(options: &Options) -> anyhow::Result<Vec<f64>> {
    if options.share.is_empty() {
        return Ok(vec![0.1, 0.3]);
    }
    let parse = |text: &String| {
        let share = text.parse::<f64>().ok().filter(|share| *share > 0.0 && *share < 0.5);
        share.ok_or_else(|| {
            anyhow::anyhow!("--share {text}: a number between 0 and 0.5 expected, without the two (half of all power always wins)")
        })
    };
    options.share.iter().map(parse).collect()
}

fn confirmations(options: &Options, share: f64) -> anyhow::Result<Vec<u32>> {
    if options.confirmations.is_empty() {
        // The paper's own rows: every one to ten, or every fifth to fifty where the attacker is strong.
        return Ok(if share < 0.2 { (0..=10).collect() } else { (0..=50).step_by(5).collect() });
    }
    let parse = |text: &String| {
        let number = text.parse::<u32>().ok().filter(|number| *number <= CONFIRMATIONS_MAX);
        number.ok_or_else(|| {
            anyhow::anyhow!("--confirmations {text}: a whole number from 0 to {CONFIRMATIONS_MAX} expected")
        })
    };
    options.confirmations.iter().map(parse).collect()
}

/// The fewest confirmations with which a chance is below one in a thousand.
fn fewest(chance: fn(f64, u32) -> f64, share: f64) -> Option<u32> {
    (0..=CONFIRMATIONS_MAX).find(|z| chance(share, *z) < 0.001)
}

/// The shares of the paper's last table.
const LAST_TABLE: [f64; 8] = [0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45];

fn as_json(rows: &[Row]) -> String {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let (q, z) = (row.share, row.confirmations);
            json!({
                "share": q,
                "confirmations": z,
                "trials": row.trials,
                "won": row.won,
                "simulated": row.rate(),
                "exact": exact(q, z),
                "nakamoto": nakamoto(q, z),
                "sigmas_from_exact": row.sigmas(exact(q, z)),
                "sigmas_from_nakamoto": row.sigmas(nakamoto(q, z)),
                "replays": row.replays,
                "agreed": row.agreed,
            })
        })
        .collect();
    let last: Vec<_> = LAST_TABLE
        .iter()
        .map(|q| json!({ "share": q, "exact": fewest(exact, *q), "nakamoto": fewest(nakamoto, *q) }))
        .collect();
    format!("{:#}\n", json!({ "rows": rows, "confirmations_for_one_in_a_thousand": last }))
}

fn as_page(rows: &[Row], options: &Options) -> String {
    let (trials, seed) = (options.trials, options.seed);
    let mut page = format!(
        "# An attacker's race\n\n\
         The attacker has a share q of all hashing power; the merchant waits for z confirmations. How often the payment is undone: in {trials} races\n\
         for each row (`synod simulate attack`, seed {seed}), by the exact formula (negative binomial), and by the paper's own (section 11), which takes the\n\
         time that the honest blocks need for fixed and is too low. σ: how many standard deviations the races lie beside each. Replayed: races that were run\n\
         again with real blocks before a real replica, and those in which it took back just what the attacker had won.\n\n\
         | q | z | races | exact | σ | the paper's | σ | replayed |\n|---|---|---|---|---|---|---|---|\n"
    );
    for row in rows {
        let (q, z) = (row.share, row.confirmations);
        let (exact, paper) = (exact(q, z), nakamoto(q, z));
        let sigmas = |chance: f64| {
            if chance > 1.0 - 1e-12 { "0.0".to_owned() } else { format!("{:+.1}", row.sigmas(chance)) }
        };
        // Formatting into a string does not fail.
        let _ = writeln!(
            page,
            "| {q} | {z} | {:.7} | {exact:.7} | {} | {paper:.7} | {} | {} of {} |",
            row.rate(),
            sigmas(exact),
            sigmas(paper),
            row.agreed,
            row.replays
        );
    }
    page.push_str(
        "\nThe fewest confirmations with which the attacker's chance is below one in a thousand:\n\n| q | exact | the paper's |\n|---|---|---|\n",
    );
    let shown = |fewest: Option<u32>| fewest.map_or_else(|| "over 1000".to_owned(), |it| it.to_string());
    for q in LAST_TABLE {
        let _ = writeln!(page, "| {q} | {} | {} |", shown(fewest(exact, q)), shown(fewest(nakamoto, q)));
    }
    page
}
