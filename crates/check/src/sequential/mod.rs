//! Sequential consistency: one order of all operations that agrees with each process's own.
//!
//! "The result of any execution is the same as if the operations of all the processors were executed in some
//! sequential order, and the operations of each individual processor appear in this sequence in the order specified by its
//! program" (Lamport, 1979). Checking one history is NP-complete even with unique values (Gibbons and Korach, 1997), so, as in "Gradual
//! consistency checking" (Zennou, Bouajjani, Enea, Erradi, CAV'19), what is cheap comes first, and mostly decides:
//!
//! 1. the patterns of weak causality and convergence, which every sequentially consistent history is free of;
//! 2. saturation: all orders between writes that follow from what was read; a cycle refutes;
//! 3. `witness`: the order of each key's writes as the saturated graph, or the clock, suggests it, tried in linear time;
//! 4. `search`: an execution of the sessions that turns back where it is stuck, within the budget.
//!
//! Real time plays no part, but for the suggestion in 3.

mod search;
mod witness;

use crate::budget::Budget;
use crate::causal::order::{Readers, View};
use crate::causal::saturate::{Ending, Rules};
use crate::causal::{Analysis, Found, convergence, holds, unfold, weak_causal};
use crate::explain::shrink;
use crate::history::{Clock, History};
use crate::reads_from::{Op, ReadsFrom, Undecidable};
use crate::verdict::{Exhausted, Limit, Verdict, Witness};

/// What the steps found out.
enum Judgement {
    /// An order, and which step found it.
    Order(Vec<Op>, &'static str),
    /// A pattern, and which step found it.
    Broken(Found, &'static str),
}

/// Judges sequential consistency; with the name of the step that decided.
///
/// ```
/// use synod_check::{budget::Budget, generate::Script, sequential};
///
/// // Each process misses the other's write: no single order explains both.
/// let history = Script::new()
///     .write("p", "x", 4).read("p", "y", 0)
///     .write("q", "y", 2).read("q", "x", 0)
///     .history();
/// let (verdict, _) = sequential::check(&history, &Budget::default());
/// assert_eq!(verdict.decided(), Some(false));
/// ```
pub fn check(history: &History, budget: &Budget) -> (Verdict, String) {
    let reads_from = match ReadsFrom::of(history) {
        Ok(reads_from) => reads_from,
        Err(reason) => {
            let limit = match reason {
                Undecidable::Ambiguous { .. } => Limit::AmbiguousReads,
                _ => Limit::Unsupported,
            };
            let verdict = Verdict::Unknown(Exhausted { limit, progress: reason.words(history) });
            return (verdict, "gradual consistency checking".to_string());
        }
    };
    let clock = suggested_ranks(history, &reads_from);
    match judge(&reads_from, clock.as_deref(), budget) {
        Err(exhausted) => (Verdict::Unknown(exhausted), "saturation, then search".to_string()),
        Ok(Judgement::Order(order, step)) => {
            let verdict = match holds(&reads_from) {
                Verdict::Holds(_) => {
                    let order = order.iter().map(|&op| reads_from.origin(op)).collect();
                    Verdict::Holds(Witness { order })
                }
                unknown => unknown,
            };
            (verdict, step.to_string())
        }
        Ok(Judgement::Broken(found, step)) => {
            let mut find = |part: &ReadsFrom| match judge(part, None, budget) {
                Ok(Judgement::Broken(found, _)) => Some(found),
                _ => None,
            };
            let evidence = shrink::evidence(&reads_from, history, found, &mut find);
            (Verdict::Violated(evidence), step.to_string())
        }
    }
}

/// Whether a history violates sequential consistency. For tests and for shrinking: no evidence is prepared.
pub fn violates(reads_from: &ReadsFrom, budget: &Budget) -> Result<bool, Exhausted> {
    Ok(matches!(judge(reads_from, None, budget)?, Judgement::Broken(..)))
}

/// When each operation was called, if one clock says so.
fn suggested_ranks(history: &History, reads_from: &ReadsFrom) -> Option<Vec<u64>> {
    let called =
        |op: Op| history.operations[reads_from.origin(op) as usize].invoked.cast_unsigned() ^ (1 << 63);
    (history.clock == Clock::Shared).then(|| reads_from.ops().map(called).collect())
}

fn judge(reads_from: &ReadsFrom, clock: Option<&[u64]>, budget: &Budget) -> Result<Judgement, Exhausted> {
    if let Some(read) = reads_from.thin_air() {
        let found = Found::single("ThinAirRead: a read returned a value that nobody wrote", read);
        return Ok(Judgement::Broken(found, "reads-from"));
    }
    if let Some(order) = clock.and_then(|rank| witness::by_rank(reads_from, &Readers::of(reads_from), rank)) {
        return Ok(Judgement::Order(order, "the order of calls, verified"));
    }
    let analysis = Analysis::of(reads_from, budget)?;
    if let Some(found) = weak_causal(&analysis) {
        return Ok(Judgement::Broken(found, "bad patterns of weak causality"));
    }
    if let Some(found) = convergence(&analysis) {
        return Ok(Judgement::Broken(found, "bad patterns of causal convergence"));
    }
    let mut saturation = analysis.saturation(budget)?;
    let ending = saturation.run(View::Everything, Rules::Both, budget)?;
    let names = [
        "the reads force a cycle: no single order explains them all",
        "a read of the initial value must come after a write that the reads force before it",
    ];
    if let Some(found) = unfold(&saturation, &analysis.readers, reads_from, View::Everything, &ending, names)
    {
        return Ok(Judgement::Broken(found, "saturation"));
    }
    assert_eq!(ending, Ending::Consistent, "every other ending unfolds to a pattern");
    let mut rank = vec![0u64; reads_from.len()];
    for (i, &op) in saturation.order.iter().enumerate() {
        rank[op as usize] = i as u64;
    }
    if let Some(order) = witness::by_rank(reads_from, &analysis.readers, &rank) {
        return Ok(Judgement::Order(order, "saturation, and its order verified"));
    }
    match search::search(reads_from, &analysis.readers, &saturation.extra, &rank, budget)? {
        search::Ending::Order(order) => Ok(Judgement::Order(order, "saturation, then search")),
        search::Ending::Impossible => {
            let mut found =
                Found::of("every order of the writes was tried and none explains the reads", Vec::new());
            found.add(&reads_from.ops().collect::<Vec<Op>>());
            Ok(Judgement::Broken(found, "saturation, then search"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::brute;
    use crate::causal::order::Extra;
    use crate::generate::{Random, tiny};
    use crate::verdict::Level;

    /// The search alone, without saturation before it, agrees with the definition: so what it learns is true.
    #[test]
    fn the_search_alone_is_right() {
        let histories = if cfg!(debug_assertions) { 3_000 } else { 100_000 };
        for seed in 0..histories {
            let history = tiny(&mut Random::new(seed));
            let reads_from = ReadsFrom::of(&history).expect("values are unique");
            if reads_from.thin_air().is_some() {
                continue;
            }
            let readers = Readers::of(&reads_from);
            let extra = Extra::new(reads_from.len());
            // Any preference will do; a bad one makes the search learn more.
            let rank: Vec<u64> =
                reads_from.ops().map(|op| u64::from(op).wrapping_mul(0x9e37_79b9 + seed) % 64).collect();
            let ending =
                search::search(&reads_from, &readers, &extra, &rank, &Budget::default()).expect("tiny");
            let found = matches!(ending, search::Ending::Order(_));
            assert_eq!(Some(found), brute::holds(&history, Level::Sequential), "seed {seed}");
        }
    }
}
