//! Every linearizability algorithm agrees with brute force on a hundred thousand random tiny histories of each class.
//!
//! Brute force here is the definition, written down: try every order that real time allows. A disagreement is shrunk by
//! leaving out operations for as long as the two still disagree, and printed with the seed that made it.
//! (In debug builds two thousand of each: the full number takes a minute there.)

mod referee;
mod store;

use synod_check::budget::Budget;
use synod_check::builder::Builder;
use synod_check::history::*;
use synod_check::linearizable::{check, search_part};
use synod_check::model::{Counter, Model, Mutex, Queue, Register, Set, Transactions};

use referee::{Dice, agree};

const ROUNDS: u64 = if cfg!(debug_assertions) { 2_000 } else { 100_000 };
const OPERATIONS_MAX: u64 = 6;

/// What a class of histories is made of.
struct Class {
    model: ModelKind,
    /// A random call; the number is the operation's own, for unique values.
    call: fn(&mut Dice, &mut Builder, u64) -> Call,
    /// Answers that the call may get at all.
    answers: fn(&mut Builder, &Call) -> Vec<Reply>,
}

fn int(builder: &mut Builder, value: i64) -> Value {
    builder.value(Datum::Int(value))
}

/// Times are drawn, a moment inside each operation is drawn, and the model answers in the order of the moments; then, in
/// half of the histories, one answer is exchanged or one operation moved.
fn generate<M: Model<Call = Call, Reply = Reply>>(
    dice: &mut Dice,
    class: &Class,
    model: impl Fn(&History) -> M,
) -> History {
    let mut builder = Builder::new("random", "none", class.model);
    // Values that answers may name are there before the model is made.
    (0..8).for_each(|i| _ = int(&mut builder, i));
    let count = 2 + dice.below(OPERATIONS_MAX - 1);
    let mut drawn: Vec<(i64, Operation)> = Vec::new();
    let processes = 1 + dice.below(3);
    let mut clocks = vec![0i64; processes as usize];
    let key = builder.key(Datum::text("k"));
    for i in 0..count {
        let process = dice.below(processes);
        let clock = &mut clocks[process as usize];
        let invoked = *clock + dice.below(6) as i64;
        let completed = invoked + dice.below(8) as i64;
        *clock = completed + 1 + dice.below(2) as i64;
        let moment = invoked + dice.below((completed - invoked + 1) as u64) as i64;
        let call = (class.call)(dice, &mut builder, i);
        let process = builder.process(Datum::Int(process as i64));
        drawn.push((
            moment,
            Operation { process, key, call, outcome: Outcome::Unknown, invoked, completed, id: i, line: 0 },
        ));
    }
    drawn.sort_by_key(|(moment, _)| *moment);
    let model = model(builder.history_mut());
    let mut state = model.initial();
    for (_, operation) in &mut drawn {
        let mut answers = (class.answers)(&mut builder, &operation.call);
        let unknown = dice.below(8) == 0;
        while !answers.is_empty() {
            let reply = answers.swap_remove(dice.below(answers.len() as u64) as usize);
            if let Some(after) = model.step(&state, &operation.call, Some(&reply)) {
                if !unknown || dice.below(2) == 0 {
                    state = after;
                }
                operation.outcome = if unknown { Outcome::Unknown } else { Outcome::Ok(reply) };
                break;
            }
        }
    }
    if dice.below(2) == 0 {
        let victim = dice.below(drawn.len() as u64) as usize;
        let operation = &mut drawn[victim].1;
        if dice.below(3) == 0 {
            operation.invoked += 4;
            operation.completed += 4;
        } else if operation.is_ok() {
            let answers = (class.answers)(&mut builder, &operation.call);
            operation.outcome = Outcome::Ok(dice.of(&answers));
        }
    }
    for (_, operation) in drawn {
        builder.push(operation);
    }
    builder.finish()
}

fn sweep<M: Model<Call = Call, Reply = Reply>>(class: &Class, model: impl Fn(&History) -> M + Copy) {
    let (mut right, mut decided) = (0, 0);
    for seed in 1..=ROUNDS {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let history = generate(&mut dice, class, model);
        let all: Vec<u32> = (0..history.operations.len() as u32).collect();
        decided += u64::from(agree(seed, &history, &|history| check(history, &Budget::default()).0));
        agree(seed, &history, &|history| {
            let all: Vec<u32> = (0..history.operations.len() as u32).collect();
            search_part(history, &all, &Budget::default())
        });
        right += u64::from(search_part(&history, &all, &Budget::default()).decided() == Some(true));
    }
    assert!(right > ROUNDS / 10 && right < ROUNDS - ROUNDS / 20, "{right} of {ROUNDS} hold: not a fair mix");
    assert_eq!(decided, ROUNDS, "some were left undecided");
}

fn values(builder: &mut Builder) -> Vec<Reply> {
    (0..8).map(|i| Reply::Value(int(builder, i))).chain([Reply::Value(Value::NIL)]).collect()
}

/// Registers with unique values: the block algorithm and the search.
#[test]
fn registers_with_unique_values() {
    let class = Class {
        model: ModelKind::Register,
        call: |dice, builder, i| match dice.below(2) {
            0 => Call::Read,
            _ => Call::Write(int(builder, i as i64)),
        },
        answers: |builder, call| if *call == Call::Read { values(builder) } else { vec![Reply::Done] },
    };
    sweep(&class, |history| Register { initial: history.initial });
}

/// Unique values with compare-and-sets, which chain blocks.
#[test]
fn registers_with_compare_and_set_chains() {
    let class = Class {
        model: ModelKind::Register,
        call: |dice, builder, i| match dice.below(5) {
            0 | 1 => Call::Read,
            2 => Call::Write(int(builder, i as i64)),
            _ => {
                let expected = match dice.below(3) {
                    0 => Value::NIL,
                    _ => int(builder, i.saturating_sub(1 + dice.below(2)) as i64),
                };
                Call::Cas { expected, new: int(builder, i as i64) }
            }
        },
        answers: |builder, call| match call {
            Call::Read => values(builder),
            Call::Cas { .. } => vec![Reply::Done, Reply::Flag(false)],
            _ => vec![Reply::Done],
        },
    };
    sweep(&class, |history| Register { initial: history.initial });
}

/// Registers with few values, as in Jepsen's logs: the search and its rules.
#[test]
fn registers_with_repeated_values() {
    let class = Class {
        model: ModelKind::Register,
        call: |dice, builder, _| match dice.below(4) {
            0 | 1 => Call::Read,
            2 => Call::Write(int(builder, dice.below(2) as i64)),
            _ => Call::Cas {
                expected: int(builder, dice.below(2) as i64),
                new: int(builder, dice.below(2) as i64),
            },
        },
        answers: |builder, call| match call {
            Call::Read => values(builder),
            Call::Cas { .. } => vec![Reply::Done, Reply::Flag(false)],
            _ => vec![Reply::Done],
        },
    };
    sweep(&class, |history| Register { initial: history.initial });
}

/// Keys with append: blocks of puts and appends, told apart by time where texts repeat.
#[test]
fn keys_with_append() {
    let class = Class {
        model: ModelKind::KeyValue,
        call: |dice, builder, i| {
            let text = |n: u64| Datum::text(["a", "b", "c", "d", "e", "f", "g", "h"][n as usize % 8]);
            let own = if dice.below(6) == 0 { dice.below(3) } else { i };
            match dice.below(5) {
                0 | 1 => Call::Read,
                2 => Call::Write(builder.value(text(own))),
                _ => Call::Append(builder.value(text(own))),
            }
        },
        answers: |builder, call| match call {
            Call::Read => {
                let mut all = vec![String::new()];
                for length in 0..4 {
                    let longest: Vec<String> =
                        all.iter().filter(|text| text.len() == length).cloned().collect();
                    for text in longest {
                        all.extend(
                            "abcdefg".chars().filter(|c| !text.contains(*c)).map(|c| format!("{text}{c}")),
                        );
                    }
                    if all.len() > 300 {
                        break;
                    }
                }
                all.into_iter().map(|text| Reply::Value(builder.value(Datum::text(text)))).collect()
            }
            _ => vec![Reply::Done],
        },
    };
    sweep_texts(&class);
}

/// As [`sweep`], for the model that looks values up in the history and so cannot be made before it.
fn sweep_texts(class: &Class) {
    let mut right = 0;
    let rounds = ROUNDS;
    for seed in 1..=rounds {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let history = generate_texts(&mut dice, class);
        agree(seed, &history, &|history| check(history, &Budget::default()).0);
        agree(seed, &history, &|history| {
            let all: Vec<u32> = (0..history.operations.len() as u32).collect();
            search_part(history, &all, &Budget::default())
        });
        right += u64::from(check(&history, &Budget::default()).0.decided() == Some(true));
    }
    assert!(right > rounds / 10 && right < rounds - rounds / 20, "{right} of {rounds} hold: not a fair mix");
}

/// A random key-value history; the texts are tracked here, by hand.
fn generate_texts(dice: &mut Dice, class: &Class) -> History {
    let mut builder = Builder::new("random", "none", class.model);
    let key = builder.key(Datum::text("k"));
    let count = 2 + dice.below(OPERATIONS_MAX - 1);
    let processes = 1 + dice.below(3);
    let mut clocks = vec![0i64; processes as usize];
    let mut drawn: Vec<(i64, Operation)> = Vec::new();
    for i in 0..count {
        let process = dice.below(processes);
        let clock = &mut clocks[process as usize];
        let invoked = *clock + dice.below(6) as i64;
        let completed = invoked + dice.below(8) as i64;
        *clock = completed + 1;
        let moment = invoked + dice.below((completed - invoked + 1) as u64) as i64;
        let call = (class.call)(dice, &mut builder, i);
        let process = builder.process(Datum::Int(process as i64));
        drawn.push((
            moment,
            Operation { process, key, call, outcome: Outcome::Unknown, invoked, completed, id: i, line: 0 },
        ));
    }
    drawn.sort_by_key(|(moment, _)| *moment);
    let mut text = String::new();
    for (_, operation) in &mut drawn {
        let unknown = dice.below(8) == 0;
        let spelt = |builder: &mut Builder, value: Value| builder.history_mut().value(value).to_string();
        let mut after = text.clone();
        let reply = match operation.call {
            Call::Write(value) => {
                after = spelt(&mut builder, value);
                Reply::Done
            }
            Call::Append(value) => {
                after += &spelt(&mut builder, value);
                Reply::Done
            }
            _ => Reply::Value(builder.value(Datum::text(text.clone()))),
        };
        if !unknown || dice.below(2) == 0 {
            text = after;
        }
        if !unknown {
            operation.outcome = Outcome::Ok(reply);
        }
    }
    if dice.below(2) == 0 {
        let victim = dice.below(drawn.len() as u64) as usize;
        let operation = &mut drawn[victim].1;
        if dice.below(2) == 0 {
            operation.invoked += 4;
            operation.completed += 4;
        } else if operation.is_ok() && operation.call == Call::Read {
            let answers = (class.answers)(&mut builder, &operation.call);
            operation.outcome = Outcome::Ok(dice.of(&answers[..answers.len().min(60)]));
        }
    }
    for (_, operation) in drawn {
        builder.push(operation);
    }
    builder.finish()
}

fn subsets(builder: &mut Builder) -> Vec<Reply> {
    let values: Vec<Value> = (0..6).map(|i| int(builder, i)).collect();
    (0..64u32)
        .map(|bits| {
            Reply::Values(
                values.iter().enumerate().filter(|(i, _)| bits & (1 << i) != 0).map(|(_, v)| *v).collect(),
            )
        })
        .collect()
}

/// Sets that grow, by inclusion of reads.
#[test]
fn growing_sets() {
    let class = Class {
        model: ModelKind::Set,
        call: |dice, builder, i| {
            if dice.below(2) == 0 { Call::Read } else { Call::Add(int(builder, i as i64)) }
        },
        answers: |builder, call| if *call == Call::Read { subsets(builder) } else { vec![Reply::Done] },
    };
    sweep(&class, |_| Set);
}

/// Sets with removals and repeated elements, by the search.
#[test]
fn sets_with_removal() {
    let class = Class {
        model: ModelKind::Set,
        call: |dice, builder, _| match dice.below(3) {
            0 => Call::Read,
            1 => Call::Add(int(builder, dice.below(3) as i64)),
            _ => Call::Remove(int(builder, dice.below(3) as i64)),
        },
        answers: |builder, call| match call {
            Call::Read => subsets(builder),
            _ => vec![Reply::Done, Reply::Flag(true), Reply::Flag(false)],
        },
    };
    sweep(&class, |_| Set);
}

/// Counters.
#[test]
fn counters() {
    let class = Class {
        model: ModelKind::Counter,
        call: |dice, _, _| {
            if dice.below(2) == 0 { Call::Read } else { Call::Increment(dice.below(5) as i64 - 2) }
        },
        answers: |_, call| match call {
            Call::Read => (-4..5).map(Reply::Number).collect(),
            _ => (-4..5).map(Reply::Number).chain([Reply::Done]).collect(),
        },
    };
    sweep(&class, |_| Counter { initial: 0 });
}

/// Queues.
#[test]
fn queues() {
    let class = Class {
        model: ModelKind::Queue,
        call: |dice, builder, i| {
            if dice.below(2) == 0 { Call::Dequeue } else { Call::Enqueue(int(builder, (i / 2) as i64)) }
        },
        answers: |builder, call| if *call == Call::Dequeue { values(builder) } else { vec![Reply::Done] },
    };
    sweep(&class, |_| Queue);
}

/// Mutexes with fencing tokens.
#[test]
fn mutexes() {
    let class = Class {
        model: ModelKind::Mutex,
        call: |dice, _, _| if dice.below(2) == 0 { Call::Acquire } else { Call::Release },
        answers: |_, call| match call {
            Call::Acquire => (0..4).map(Reply::Number).chain([Reply::Done, Reply::Flag(false)]).collect(),
            _ => vec![Reply::Done],
        },
    };
    sweep(&class, |_| Mutex);
}

/// Transactions on registers over two keys.
#[test]
fn transactions_on_registers() {
    let class = Class {
        model: ModelKind::TxnRegister,
        call: |dice, builder, i| {
            let mut access = || {
                let key = builder.key(Datum::text(["x", "y"][dice.below(2) as usize]));
                let write = dice.below(2) == 0;
                let value = int(builder, i as i64);
                Access { key, kind: if write { AccessKind::Write(value) } else { AccessKind::Read(None) } }
            };
            Call::Txn(Box::new([access(), access()]))
        },
        answers: |builder, call| {
            let Call::Txn(accesses) = call else { return vec![Reply::Done] };
            let values: Vec<Value> = (0..7).map(|i| int(builder, i)).chain([Value::NIL]).collect();
            let mut all = Vec::new();
            for one in &values {
                for other in &values {
                    let mut filled = accesses.clone();
                    for (access, value) in filled.iter_mut().zip([one, other]) {
                        if access.kind == AccessKind::Read(None) {
                            access.kind = AccessKind::Read(Some(*value));
                        }
                    }
                    all.push(Reply::Txn(filled));
                }
            }
            all
        },
    };
    sweep(&class, |history| Transactions { initial: history.initial });
}

/// Transactions on lists over two keys, by dependencies and by the search.
#[test]
fn transactions_on_lists() {
    let class = Class {
        model: ModelKind::ListAppend,
        call: |dice, builder, i| {
            let mut access = || {
                let key = builder.key(Datum::text(["x", "y"][dice.below(2) as usize]));
                let append = dice.below(2) == 0;
                let value = int(builder, i as i64);
                Access {
                    key,
                    kind: if append { AccessKind::Append(value) } else { AccessKind::ReadList(None) },
                }
            };
            let (one, other) = (access(), access());
            // One element twice in one list would not be unique.
            if one == other { Call::Txn(Box::new([one])) } else { Call::Txn(Box::new([one, other])) }
        },
        answers: |builder, call| {
            let Call::Txn(accesses) = call else { return vec![Reply::Done] };
            let values: Vec<Value> = (0..5).map(|i| int(builder, i)).collect();
            let mut lists: Vec<Box<[Value]>> = vec![Box::default()];
            for one in &values {
                lists.push(Box::new([*one]));
                lists.extend(values.iter().filter(|two| *two != one).map(|two| Box::from([*one, *two])));
            }
            let first = accesses.iter().position(|access| access.kind == AccessKind::ReadList(None));
            let mut all = Vec::new();
            for one in &lists {
                // Both reads of a transaction: the other one sees a short list, to keep the choice small.
                for other in lists.iter().filter(|list| list.len() < 2) {
                    let mut filled = accesses.clone();
                    for (at, access) in filled.iter_mut().enumerate() {
                        if access.kind == AccessKind::ReadList(None) {
                            let list = if Some(at) == first { one } else { other };
                            access.kind = AccessKind::ReadList(Some(list.clone()));
                        }
                    }
                    all.push(Reply::Txn(filled));
                }
            }
            all
        },
    };
    sweep(&class, |history| Transactions { initial: history.initial });
}
