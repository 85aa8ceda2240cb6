//! Does the simulator find what it is for? Each mutant is our own code with one rule left out; the sweep must notice.
//!
//! Mutants are famous bugs (each one's story says which system shipped it): those of a protocol, and those of the log, the store and the
//! replica beneath ([`planted`]). They exist only with the cargo feature `mutants`, and are switched on by the option
//! `mutant`. A mutant that no seed shows is a hole in the simulator, and stays in the table as such. What a seed violates
//! without the mutant, too, says nothing about it and does not count.

use std::fmt::Write as _;
use std::time::Duration;

use crate::family::Family;
use crate::faults::FaultSet;
use crate::planted;
use crate::swarm::{WishError, Wishes};
use crate::sweep;
use crate::trace::Recorder;

/// What is hunted.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// The protocol, or the part beneath it.
    pub part: &'static str,
    /// The value of the option `mutant`.
    pub name: &'static str,
    /// One line about it.
    pub story: &'static str,
}

/// How far a hunt goes.
#[derive(Clone, Copy, Debug)]
pub struct Hunt {
    /// Seeds to try for each mutant, from 1 on.
    pub seeds_max: u64,
    /// How long the safety phase of each seed lasts.
    pub safety: Duration,
}

/// A seed that shows a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Which.
    pub seed: u64,
    /// What it violates.
    pub property: &'static str,
}

/// What came of the hunt for one mutant.
#[derive(Clone, Debug)]
pub struct Found {
    /// Which mutant.
    pub mutant: Mutant,
    /// The seed, if there is one.
    pub hit: Option<Hit>,
    /// How long it took, by whoever has a clock.
    pub took: Duration,
}

/// The mutants of a protocol, and under Raft those of what lies beneath.
#[must_use]
pub fn mutants<F: Family>() -> Vec<Mutant> {
    let own = F::mutants().into_iter().map(|(name, story)| Mutant { part: F::NAME, name, story });
    let beneath = planted::all().into_iter().filter(|_| F::NAME == "raft");
    own.chain(beneath.map(|(part, name, story)| Mutant { part, name, story })).collect()
}

impl Hunt {
    /// Looks for the first seed that shows a mutant.
    ///
    /// # Errors
    /// When the protocol does not know it.
    pub fn hunt<F: Family>(&self, mutant: &Mutant) -> Result<Option<Hit>, WishError> {
        let plain = Wishes { faults: FaultSet::all(), safety: self.safety, ..Wishes::default() };
        let options = vec![("mutant".to_owned(), mutant.name.to_owned())];
        let wishes = Wishes { options, ..plain.clone() };
        for seed in 1..=self.seeds_max {
            if let Some(violation) = sweep::run::<F>(seed, &wishes, Recorder::default())?.violation
                && sweep::run::<F>(seed, &plain, Recorder::default())?.violation.is_none()
            {
                return Ok(Some(Hit { seed, property: violation.property }));
            }
        }
        Ok(None)
    }

    /// What was found, as a page for the documentation.
    #[must_use]
    pub fn table(&self, protocol: &str, found: &[Found]) -> String {
        let mut seeds: Vec<u64> = found.iter().filter_map(|found| Some(found.hit.as_ref()?.seed)).collect();
        seeds.sort_unstable();
        let median = seeds.get(seeds.len() / 2).copied().unwrap_or_default();
        let (safety, most) = (self.safety.as_secs(), self.seeds_max);
        let mut out = format!(
            "# Mutants under {protocol}\n\nOur own code with one rule left out at a time, hunted by `synod simulate mutants --protocol {protocol}` (a build with `--features \
             mutants`; all faults, {safety} s of them each, seeds from 1, at most {most} for each mutant): **found {} of {}**, median seed {median}. The time is that of \
             one thread on a machine that others used, too.\n\n| part | mutant | what it does | found at seed | violates | time |\n|---|---|---|---|---|---|\n",
            seeds.len(),
            found.len()
        );
        for Found { mutant, hit, took } in found {
            let (seed, property) = match hit {
                Some(hit) => (hit.seed.to_string(), hit.property),
                None => (format!("**not in {most}**"), ""),
            };
            let Mutant { part, name, story } = mutant;
            let (story, took) = (story.trim(), took.as_secs_f64());
            let _ = writeln!(out, "| {part} | {name} | {story} | {seed} | {property} | {took:.1} s |");
        }
        out
    }
}
