//! The referee: brute force, which is the definition written down, and the shrinking of what it disagrees with.

use synod_check::history::*;
use synod_check::linearizable::revisions;
use synod_check::model::store::{Names, StoreModel};
use synod_check::model::{Counter, KeyValue, Model, Mutex, Queue, Register, Set, Transactions, bank_of};
use synod_check::verdict::Verdict;

/// A small deterministic generator (xorshift).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    pub(crate) fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize].clone()
    }
}

/// The definition: is there an order of all answered operations and any of the unknown ones that real time and the model allow?
pub(crate) fn brute<M: Model<Call = Call, Reply = Reply>>(model: &M, history: &History) -> bool {
    brute_by(model, history, |_, one, _, other| one.precedes(other))
}

/// The same with any order: `before` says whether an answered operation must come before another (positions and both).
pub(crate) fn brute_by<M: Model<Call = Call, Reply = Reply>>(
    model: &M,
    history: &History,
    before: fn(usize, &Operation, usize, &Operation) -> bool,
) -> bool {
    fn go<M: Model<Call = Call, Reply = Reply>>(
        model: &M,
        operations: &[Operation],
        before: fn(usize, &Operation, usize, &Operation) -> bool,
        placed: u32,
        state: &M::State,
    ) -> bool {
        let left = |i: usize| placed & (1 << i) == 0;
        if operations.iter().enumerate().all(|(i, operation)| !left(i) || !operation.is_ok()) {
            return true;
        }
        operations.iter().enumerate().any(|(i, operation)| {
            let possible = left(i) && operation.outcome != Outcome::Failed;
            let first = || {
                operations
                    .iter()
                    .enumerate()
                    .all(|(j, other)| !left(j) || !other.is_ok() || !before(j, other, i, operation))
            };
            possible
                && first()
                && model
                    .step(state, &operation.call, operation.reply())
                    .is_some_and(|after| go(model, operations, before, placed | 1 << i, &after))
        })
    }
    go(model, &history.operations, before, 0, &model.initial())
}

pub(crate) fn brute_of(history: &History) -> bool {
    match history.model {
        ModelKind::Register => brute(&Register { initial: history.initial }, history),
        ModelKind::KeyValue => brute(&KeyValue { history }, history),
        ModelKind::Set => brute(&Set, history),
        ModelKind::Counter => brute(&Counter { initial: 0 }, history),
        ModelKind::Queue => brute(&Queue, history),
        ModelKind::Mutex => brute(&Mutex, history),
        ModelKind::ListAppend | ModelKind::TxnRegister => {
            brute(&Transactions { initial: history.initial }, history)
        }
        ModelKind::Bank => bank_of(history).is_ok_and(|bank| brute(&bank, history)),
        ModelKind::Etcd => {
            let names = Names::new(history);
            brute(&StoreModel { names: &names, origin: revisions::origin(history) }, history)
        }
    }
}

/// Compares `judge` with brute force and shrinks the first disagreement.
pub(crate) fn agree(seed: u64, history: &History, judge: &dyn Fn(&History) -> Verdict) -> bool {
    agree_with(seed, history, judge, &brute_of)
}

pub(crate) fn agree_with(
    seed: u64,
    history: &History,
    judge: &dyn Fn(&History) -> Verdict,
    brute_of: &dyn Fn(&History) -> bool,
) -> bool {
    let differ = |history: &History| {
        let found = judge(history).decided();
        found.is_some() && found != Some(brute_of(history))
    };
    let found = judge(history);
    if !differ(history) {
        if let Verdict::Holds(witness) = &found
            && !witness.order.is_empty()
        {
            assert!(
                explains(history, &witness.order),
                "seed {seed}: the order found is not one: {witness:?}\n{history:#?}"
            );
        }
        return found.decided().is_some();
    }
    let mut keep: Vec<u32> = (0..history.operations.len() as u32).collect();
    'smaller: loop {
        for at in 0..keep.len() {
            let mut fewer = keep.clone();
            fewer.remove(at);
            if differ(&history.restricted(&fewer)) {
                keep = fewer;
                continue 'smaller;
            }
        }
        break;
    }
    let small = history.restricted(&keep);
    let (found, right) = (judge(&small), brute_of(&small));
    panic!(
        "seed {seed}: found {found:?}, brute force says {right}:\n{:#?}\n{:?}",
        small.operations, small.values
    );
}

/// Whether an order respects real time and contains every answered operation (the model is the judge's matter).
pub(crate) fn explains(history: &History, order: &[u32]) -> bool {
    let all = (0..history.operations.len() as u32)
        .filter(|&i| history.operations[i as usize].is_ok())
        .all(|i| order.contains(&i));
    let in_time = order.iter().enumerate().all(|(at, &i)| {
        order[..at]
            .iter()
            .all(|&before| !history.operations[i as usize].precedes(&history.operations[before as usize]))
    });
    all && in_time
}
