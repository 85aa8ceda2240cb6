//! What a search for bad patterns found, before it is cut down to the fewest operations.

use crate::reads_from::Op;
use crate::verdict::Why;

/// "`before` must come before `after`, because `why`", on the compact input's operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// The earlier.
    pub(crate) before: Op,
    /// The later.
    pub(crate) after: Op,
    /// The reason.
    pub(crate) why: Why,
}

/// A bad pattern.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// Its name in the paper, and what it means in one sentence.
    pub(crate) pattern: &'static str,
    /// The circle.
    pub(crate) steps: Vec<Step>,
    /// Why the derived steps of the circle hold.
    pub(crate) justification: Vec<Step>,
    /// All operations that take part, ascending.
    pub(crate) operations: Vec<Op>,
}

impl Found {
    pub(crate) fn of(pattern: &'static str, steps: Vec<Step>) -> Found {
        let mut found = Found { pattern, ..Found::default() };
        let ends: Vec<Op> = steps.iter().flat_map(|step| [step.before, step.after]).collect();
        found.steps = steps;
        found.add(&ends);
        found
    }

    /// A pattern that is one operation.
    pub(crate) fn single(pattern: &'static str, op: Op) -> Found {
        Found { pattern, operations: vec![op], ..Found::default() }
    }

    pub(crate) fn add(&mut self, ops: &[Op]) {
        self.operations.extend_from_slice(ops);
        self.operations.sort_unstable();
        self.operations.dedup();
    }

    pub(crate) fn justify(&mut self, steps: Vec<Step>) {
        let ends: Vec<Op> = steps.iter().flat_map(|step| [step.before, step.after]).collect();
        self.justification.extend(steps);
        self.add(&ends);
    }
}
