//! `synod simulate generals`: the games of the Byzantine generals (Lamport, Shostak and Pease, 1982), one of them, many, or all; the games
//! themselves are in `synod_sim::generals`.
//!
//! Without `--generals` it writes the page of the paper's theorems: how many generals cope with how many traitors, with and without signatures, what
//! breaks beside that, and what it costs in messages.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::json;
use synod_sim::generals::{self, Game, Plot, Rules, Space, every};

use super::{generals_page, progress};

/// Play the Byzantine generals: OM(m) with oral messages, SM(m) with signed ones
#[derive(Args)]
pub(crate) struct Options {
    /// How many generals, the commander included, 2 to 10; the paper's theorems in a table when left out
    #[arg(long, value_name = "N")]
    generals: Option<usize>,

    /// How many of them are traitors; one when left out
    #[arg(long, value_name = "M", requires = "generals")]
    traitors: Option<usize>,

    /// How often an order is passed on, the m of OM(m) and SM(m); as often as there are traitors when left out, or as there can be
    #[arg(long, value_name = "M", requires = "generals")]
    rounds: Option<usize>,

    /// Whether messages are signed
    #[arg(long, value_enum, default_value = "oral", requires = "generals")]
    algorithm: Algorithm,

    /// The seed that draws who betrays and how, or the first of many
    #[arg(long, default_value_t = 1, conflicts_with = "exhaustive")]
    pub(super) seed: u64,

    /// How many seeds; one when left out, and 10000 for each row of the table
    #[arg(long, value_name = "K", conflicts_with = "exhaustive")]
    pub(super) seeds: Option<u64>,

    /// Every choice of traitors, every order, and everything that they can do
    #[arg(long, requires = "generals")]
    exhaustive: bool,

    /// Of these, the game with this number alone (what a broken one prints)
    #[arg(long, value_name = "N", requires = "exhaustive")]
    game: Option<u64>,

    /// Write what was found as JSON
    #[arg(long)]
    pub(super) json: bool,

    /// Where the page goes; `-` for the terminal
    #[arg(long, value_name = "FILE", default_value = "-")]
    into: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Algorithm {
    /// A message is worth what its sender is worth
    Oral,
    /// A message shows who has signed it
    Signed,
}

/// More seeds, or more games one by one, are not played.
const SEEDS_MAX: u64 = 10_000_000;
const ONE_BY_ONE_MAX: u64 = 1 << 24;

/// Seeds that look for a broken game to tell, where all games together have one.
const TELLING_SEEDS_MAX: u64 = 10_000;

/// Which games are played.
#[derive(Clone, Copy)]
pub(super) enum Which {
    Seeds { first: u64, count: u64 },
    All,
}

/// In how many games a condition is broken.
#[derive(Clone, Copy)]
pub(super) enum Broken {
    Games(u64),
    Share(f64),
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Broken::Games(games) => write!(f, "{games}"),
            Broken::Share(share) if *share == 0.0 => f.write_str("0"),
            Broken::Share(share) if *share < 1e-5 => write!(f, "2^{:.1} of them", share.log2()),
            Broken::Share(share) => write!(f, "{:.3} %", share * 100.0),
        }
    }
}

/// What games under some rules came to.
pub(super) struct Found {
    pub(super) rules: Rules,
    /// What was played, in words.
    pub(super) games: String,
    pub(super) split: Broken,
    pub(super) disobeyed: Broken,
    is_broken: bool,
    /// The fewest and the most messages of a game; none: they were not played one by one.
    messages: Option<(u64, u64)>,
    /// The first broken game, and the command that plays it again.
    pub(super) first: Option<(String, String)>,
}

impl Found {
    /// The paper's promise is kept; where it promises nothing, a game must show why.
    pub(super) fn is_as_proven(&self) -> bool {
        self.is_broken != self.rules.is_promised()
    }
}

pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    if let Some(seeds) = options.seeds {
        anyhow::ensure!((1..=SEEDS_MAX).contains(&seeds), "--seeds {seeds}: 1 to {SEEDS_MAX} are possible");
    }
    let usual = if options.generals.is_some() { 1 } else { generals_page::SEEDS };
    let last = options.seed.checked_add(options.seeds.unwrap_or(usual));
    anyhow::ensure!(last.is_some(), "--seed and --seeds together are beyond 2^64");
    let (text, code) = match options.generals {
        Some(generals) => games(options, generals)?,
        None => generals_page::write(options)?,
    };
    if options.into.as_os_str() == "-" {
        print!("{text}");
    } else {
        std::fs::write(&options.into, text)
            .map_err(|error| anyhow::anyhow!("{}: {error}", options.into.display()))?;
        println!("{}", options.into.display());
    }
    Ok(code)
}

/// Plays what the options ask for.
fn games(options: &Options, generals: usize) -> anyhow::Result<(String, ExitCode)> {
    let traitors = options.traitors.unwrap_or(1);
    let rounds = options.rounds.unwrap_or_else(|| traitors.min(generals.saturating_sub(2)));
    let algorithm = match options.algorithm {
        Algorithm::Oral => generals::Algorithm::Oral,
        Algorithm::Signed => generals::Algorithm::Signed,
    };
    let rules = Rules::new(generals, traitors, rounds, algorithm);
    let rules = rules.map_err(|error| anyhow::anyhow!("--{error}"))?;
    let seeds = options.seeds.unwrap_or(1);
    if let Some(number) = options.game {
        let plot = Space::new(&rules).plot(number);
        let plot = plot.ok_or_else(|| anyhow::anyhow!("--game {number}: {}", numbers(&rules)))?;
        return Ok(one(options, &rules, &plot, &command(&rules, Replay::Number(number))));
    }
    if !options.exhaustive && seeds == 1 {
        let plot = Plot::drawn(&rules, options.seed);
        return Ok(one(options, &rules, &plot, &command(&rules, Replay::Seed(options.seed))));
    }
    let which =
        if options.exhaustive { Which::All } else { Which::Seeds { first: options.seed, count: seeds } };
    let found = play(&rules, which)?;
    let text = if options.json { format!("{:#}\n", as_json(&found)) } else { as_text(&found) };
    Ok((text, if found.is_broken { ExitCode::FAILURE } else { ExitCode::SUCCESS }))
}

/// Which numbers the games have, where one is too large.
fn numbers(rules: &Rules) -> String {
    let count = Space::new(rules).count().expect("where 2^64 games are, each number is one");
    format!("0 to {} are possible with {rules}", count - 1)
}

/// One game, told.
fn one(options: &Options, rules: &Rules, plot: &Plot, replay: &str) -> (String, ExitCode) {
    let mut game = Game::new(*rules);
    let (outcome, story) = (game.play(plot.clone()), game.tell(plot.clone()));
    let holds = outcome.agrees() && outcome.obeys();
    let text = if options.json {
        let told = json!({
            "generals": rules.generals(),
            "traitors": rules.traitors(),
            "rounds": rules.rounds(),
            "algorithm": name(rules),
            "promised": rules.is_promised(),
            "ic1": outcome.agrees(),
            "ic2": outcome.obeys(),
            "messages": outcome.messages,
            "story": story.lines().collect::<Vec<_>>(),
            "replay": replay,
        });
        format!("{told:#}\n")
    } else {
        story
    };
    (text, if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Plays many games, and counts.
pub(super) fn play(rules: &Rules, which: Which) -> anyhow::Result<Found> {
    let mut game = Game::new(*rules);
    let (first, count, space) = match which {
        Which::Seeds { first, count } => (first, count, None),
        Which::All => {
            let space = Space::new(rules);
            match space.count().filter(|count| *count <= ONE_BY_ONE_MAX) {
                Some(count) => (0, count, Some(space)),
                None => return together(rules, &space),
            }
        }
    };
    let mut found = Found {
        rules: *rules,
        games: if space.is_some() { format!("all {count}") } else { format!("{count} seeds") },
        split: Broken::Games(0),
        disobeyed: Broken::Games(0),
        is_broken: false,
        messages: None,
        first: None,
    };
    let (mut split, mut disobeyed) = (0u64, 0u64);
    let shows = std::io::stderr().is_terminal();
    let step = (count / 200).max(1);
    for done in 0..count {
        let number = first + done;
        let plot = match &space {
            Some(space) => space.plot(number).expect("there are as many as were counted"),
            None => Plot::drawn(rules, number),
        };
        let outcome = game.play(plot.clone());
        let (fewest, most) = found.messages.unwrap_or((outcome.messages, outcome.messages));
        found.messages = Some((fewest.min(outcome.messages), most.max(outcome.messages)));
        split += u64::from(!outcome.agrees());
        disobeyed += u64::from(!outcome.obeys());
        if found.first.is_none() && !(outcome.agrees() && outcome.obeys()) {
            let replay = if space.is_some() { Replay::Number(number) } else { Replay::Seed(number) };
            found.first = Some((game.tell(plot), command(rules, replay)));
        }
        if shows && done % step == 0 {
            progress(done, count, &format!("games of {rules}: {split} break IC1, {disobeyed} IC2"));
        }
    }
    if shows {
        progress(count, count, &format!("games of {rules}: {split} break IC1, {disobeyed} IC2"));
        eprintln!();
    }
    (found.split, found.disobeyed) = (Broken::Games(split), Broken::Games(disobeyed));
    found.is_broken = split + disobeyed > 0;
    Ok(found)
}

/// All games at once, where there are too many to play.
fn together(rules: &Rules, space: &Space) -> anyhow::Result<Found> {
    let ways = format!("2^{:.1}", space.bits());
    let shares = every::shares(rules).ok_or_else(|| {
        anyhow::anyhow!(
            "--exhaustive: {rules} can go {ways} ways; at most {ONE_BY_ONE_MAX} are played, and only oral messages with few outcomes are \
             decided together: --seeds draws some of them"
        )
    })?;
    let mut game = Game::new(*rules);
    let mut seeds = 0..if shares.is_broken { TELLING_SEEDS_MAX } else { 0 };
    let broken = seeds.find(|seed| {
        let outcome = game.play(Plot::drawn(rules, *seed));
        !(outcome.agrees() && outcome.obeys())
    });
    let first = broken.map(|seed| (game.tell(Plot::drawn(rules, seed)), command(rules, Replay::Seed(seed))));
    Ok(Found {
        rules: *rules,
        games: format!("all {ways}, together"),
        split: Broken::Share(shares.split),
        disobeyed: Broken::Share(shares.disobeyed),
        is_broken: shares.is_broken,
        messages: None,
        first,
    })
}

enum Replay {
    Seed(u64),
    Number(u64),
}

fn name(rules: &Rules) -> &'static str {
    match rules.algorithm() {
        generals::Algorithm::Oral => "oral",
        generals::Algorithm::Signed => "signed",
    }
}

/// The command that plays a game again.
fn command(rules: &Rules, replay: Replay) -> String {
    let which = match replay {
        Replay::Seed(seed) => format!("--seed {seed}"),
        Replay::Number(number) => format!("--exhaustive --game {number}"),
    };
    format!(
        "synod simulate generals --algorithm {} --generals {} --traitors {} --rounds {} {which}",
        name(rules),
        rules.generals(),
        rules.traitors(),
        rules.rounds()
    )
}

/// How the number of messages comes about: "3 + 3·2 = 9".
pub(super) fn formula(rules: &Rules) -> String {
    let others = rules.generals() - 1;
    match rules.algorithm() {
        generals::Algorithm::Signed if rules.rounds() == 0 => format!("n - 1 = {others}"),
        generals::Algorithm::Signed => format!("{others}² = {}", rules.messages()),
        generals::Algorithm::Oral if rules.rounds() == 0 => format!("n - 1 = {others}"),
        generals::Algorithm::Oral => {
            let level = |level: usize| {
                let factors = (0..=level).map(|step| (others - step).to_string());
                factors.collect::<Vec<_>>().join("·")
            };
            let levels: Vec<String> = (0..=rules.rounds()).map(level).collect();
            format!("{} = {}", levels.join(" + "), rules.messages())
        }
    }
}

/// The messages of a game in which everybody is loyal, counted.
pub(super) fn counted(rules: &Rules) -> u64 {
    let loyal = Rules::new(rules.generals(), 0, rules.rounds(), rules.algorithm());
    let loyal = loyal.expect("what is possible with traitors is possible without");
    Game::new(loyal).play(Plot::drawn(&loyal, 0)).messages
}

pub(super) fn as_json(found: &Found) -> serde_json::Value {
    let rules = &found.rules;
    let broken = |broken: Broken| match broken {
        Broken::Games(games) => json!(games),
        Broken::Share(share) => json!({ "share": share }),
    };
    let is_oral = rules.algorithm() == generals::Algorithm::Oral;
    let deepest = is_oral.then(|| rules.messages_at(rules.rounds()));
    json!({
        "generals": rules.generals(),
        "traitors": rules.traitors(),
        "rounds": rules.rounds(),
        "algorithm": name(rules),
        "promised": rules.is_promised(),
        "games": found.games,
        "ic1_broken": broken(found.split),
        "ic2_broken": broken(found.disobeyed),
        "is_broken": found.is_broken,
        "messages": { "counted": counted(rules), "formula": rules.messages(), "deepest": deepest },
        "first_broken": found.first.as_ref().map(|(story, replay)| json!({
            "story": story.lines().collect::<Vec<_>>(),
            "replay": replay,
        })),
    })
}

fn as_text(found: &Found) -> String {
    let Found { rules, games, split, disobeyed, .. } = found;
    let promise = match (rules.algorithm(), rules.is_promised()) {
        (generals::Algorithm::Oral, true) => "theorem 1 promises that",
        (generals::Algorithm::Oral, false) => {
            "theorem 1 promises nothing here: it wants more than 3m generals and at most m traitors"
        }
        (generals::Algorithm::Signed, true) => "theorem 2 promises that",
        (generals::Algorithm::Signed, false) => {
            "theorem 2 promises nothing here: it wants at most m traitors"
        }
    };
    let verdict = if found.is_broken {
        format!("IC1 is broken in {split}, IC2 in {disobeyed}")
    } else {
        "IC1 and IC2 hold in each".to_owned()
    };
    let mut text = format!(
        "{rules}: {games}\n{verdict} ({promise})\nmessages when nobody lies: {}, by the formula {}\n",
        counted(rules),
        formula(rules)
    );
    if let Some((fewest, most)) = found.messages {
        // Formatting into a string does not fail.
        let _ = writeln!(text, "messages in these games: {fewest} to {most}");
    }
    if let Some((story, replay)) = &found.first {
        let _ = write!(text, "\nthe first broken game:\n{story}\nreplay: {replay}\n");
    }
    text
}
