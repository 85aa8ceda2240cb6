//! The page of `synod simulate generals`: what "The Byzantine Generals Problem" proves, played; each row is a campaign of its own.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::json;
use synod_sim::generals::{Algorithm, Rules, impossible};

use super::generals::{Found, Options, Which, as_json, counted, formula, play};

/// Seeds for a row that is drawn.
pub(super) const SEEDS: u64 = 10_000;

/// A row: generals, traitors, rounds, and whether its games are drawn.
type Row = (usize, usize, usize, Games);

#[derive(Clone, Copy)]
enum Games {
    All,
    Drawn,
}

use Games::{All, Drawn};

/// A part of the page: its heading, what is to be seen, the algorithm, the rows.
struct Part {
    heading: &'static str,
    story: &'static str,
    algorithm: Algorithm,
    rows: &'static [Row],
}

const PARTS: [Part; 5] = [
    Part {
        heading: "Oral messages: 3m + 1 generals cope with m traitors",
        story: "Theorem 1.",
        algorithm: Algorithm::Oral,
        rows: &[
            (4, 1, 1, All),
            (5, 1, 1, All),
            (7, 2, 2, Drawn),
            (7, 2, 2, All),
            (10, 3, 3, Drawn),
            (10, 3, 3, All),
        ],
    },
    Part {
        heading: "3m generals do not",
        story: "For three generals no algorithm does it (see below), and whatever 3m could do three could do, each playing the parts of m.",
        algorithm: Algorithm::Oral,
        rows: &[(3, 1, 1, All), (6, 2, 2, Drawn), (6, 2, 2, All), (9, 3, 3, Drawn), (9, 3, 3, All)],
    },
    Part {
        heading: "Too few rounds do not, and too many need more generals",
        story: "With fewer rounds than traitors a traitorous commander splits the others (IC1). With more rounds than the number of generals \
                allows a loyal one is not obeyed (IC2): by lemma 1 OM(m) wants more than 2k + m generals for k traitors, and in the last row 4 are not more than 2 + 2.",
        algorithm: Algorithm::Oral,
        rows: &[(4, 1, 0, All), (7, 2, 1, All), (10, 3, 2, Drawn), (10, 3, 2, All), (4, 1, 2, All)],
    },
    Part {
        heading: "Signed messages: any number of generals copes with m traitors",
        story: "Theorem 2. It says something where there are two loyal lieutenants at least, or a loyal commander and one: n ≥ m + 2.",
        algorithm: Algorithm::Signed,
        rows: &[
            (3, 1, 1, All),
            (4, 2, 2, All),
            (5, 3, 3, All),
            (6, 4, 4, All),
            (5, 3, 3, Drawn),
            (10, 3, 3, Drawn),
            (10, 8, 8, Drawn),
        ],
    },
    Part {
        heading: "Signed messages, too few rounds",
        story: "The traitors keep an order back until the last round, and show it to one: he cannot pass it on any more. A loyal commander is obeyed all \
                the same, because there is no second order with his signature.",
        algorithm: Algorithm::Signed,
        rows: &[(3, 1, 0, All), (4, 2, 1, All), (5, 3, 2, All), (10, 3, 2, Drawn)],
    },
];

/// Plays everything, and writes it down; a failure when anything is not as the paper proves it.
pub(super) fn write(options: &Options) -> anyhow::Result<(String, ExitCode)> {
    let seeds = options.seeds.unwrap_or(SEEDS);
    let mut parts = Vec::new();
    for part in &PARTS {
        let mut rows = Vec::new();
        for (generals, traitors, rounds, games) in part.rows {
            let rules = Rules::new(*generals, *traitors, *rounds, part.algorithm)?;
            let which = match games {
                All => Which::All,
                Drawn => Which::Seeds { first: options.seed, count: seeds },
            };
            rows.push(play(&rules, which)?);
        }
        parts.push((part, rows));
    }
    let (pairs, holding) = impossible::pairs();
    let is_right = holding == 0
        && parts
            .iter()
            .flat_map(|(_, rows)| rows)
            .all(|row| row.is_as_proven() && counted(&row.rules) == row.rules.messages());
    let page = if options.json {
        let rows: Vec<_> = parts.iter().flat_map(|(_, rows)| rows).map(as_json).collect();
        let three = json!({ "pairs_of_rules": pairs, "holding": holding });
        format!("{:#}\n", json!({ "rows": rows, "three_generals": three }))
    } else {
        as_page(options.seed, seeds, &parts, (pairs, holding))
    };
    Ok((page, if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE }))
}

fn as_page(seed: u64, seeds: u64, parts: &[(&Part, Vec<Found>)], pairs: (usize, usize)) -> String {
    let mut page = format!(
        "# The Byzantine generals\n\n\
         A commander orders his lieutenants to attack or to retreat, and some of the generals, perhaps he himself, are traitors who say to each what they like. IC1: all\n\
         loyal lieutenants do the same. IC2: they do what a loyal commander ordered. After Lamport, Shostak and Pease, *The Byzantine Generals Problem* (TOPLAS,\n\
         1982), which gives two algorithms: OM(m) for oral messages, SM(m) for signed ones, m being how often an order is passed on. Made by\n\
         `synod simulate generals` (`just generals`), seed {seed}; nothing is drawn from a clock, so the same program gives the same page.\n\n\
         **Games**: *all N*: every choice of traitors, every order, everything that the traitors can do, one by one; *together*: all of them as well,\n\
         added up without being played one by one, broken ones as a share (tiny where it takes a traitorous commander, for the games with a loyal one are many more); *seeds*: so many games of which the seed draws who betrays and how.\n\
         **Messages**: counted in a game in which nobody lies or is silent, beside the formula.\n"
    );
    for (part, rows) in parts {
        let _ = write!(
            page,
            "\n## {}\n\n{}\n\n| generals | traitors | m | games | IC1 broken | IC2 broken | the paper | messages | formula |\n|---|---|---|---|---|---|---|---|---|\n",
            part.heading, part.story
        );
        for row in rows {
            let rules = &row.rules;
            // Formatting into a string does not fail.
            let _ = writeln!(
                page,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                rules.generals(),
                rules.traitors(),
                rules.rounds(),
                row.games,
                row.split,
                row.disobeyed,
                if rules.is_promised() { "holds" } else { "no promise" },
                counted(rules),
                formula(rules)
            );
        }
    }
    let (all, holding) = pairs;
    let _ = write!(
        page,
        "\n## Why three cannot\n\n\
         A lieutenant who hears *attack* from the commander and *retreat, he said* from the other cannot tell which of the two lies (the paper's figures 1 and 2). If it is\n\
         the other he must attack; if it is the commander, the other lieutenant has heard the opposite and wonders likewise. So it is not OM(1) that is too\n\
         weak: of the {all} pairs of rules that two lieutenants could follow, {holding} hold in every game.\n"
    );
    let told = [(3, 1, 1, Algorithm::Oral), (4, 2, 1, Algorithm::Signed)];
    page.push_str("\n## Two broken games\n");
    for found in parts.iter().flat_map(|(_, rows)| rows) {
        let rules = &found.rules;
        let key = (rules.generals(), rules.traitors(), rules.rounds(), rules.algorithm());
        if let Some((story, replay)) = found.first.as_ref().filter(|_| told.contains(&key)) {
            let _ = write!(page, "\n```console\n$ {replay}\n{story}```\n");
        }
    }
    let _ = write!(
        page,
        "\nSigned orders are written as in the paper: `attack:0:2` is an order that the commander (0) and then lieutenant 2 have signed.\n\n\
         ## Left out\n\n\
         Orders other than the two; generals who cannot reach one another, with p-regular graphs for oral messages and connected loyal generals for signed ones (section\n\
         5); how reliable systems are built from this (section 6): for that there is [PBFT](../protocols/pbft.md). Seeds are no proof: {seeds} games of ten generals are few beside all, which\n\
         is why those are added up as well.\n"
    );
    page
}
