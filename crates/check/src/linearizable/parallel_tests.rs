//! A search on many threads says what one on one thread says, and keeps to the limits.

use super::super::search::{Entry, STEPS_ALONE_MAX, search_alone_for};
use super::*;
use crate::builder::Builder;
use crate::history::{Call, Datum, ModelKind, NEVER, Operation, Outcome, Reply, Time, Value};
use crate::linearizable::check;
use crate::model::{Queue as Fifo, Register};

type Drawn = (Call, Option<Reply>, Time, Time);

fn below(dice: &mut u64, n: u64) -> u64 {
    *dice ^= *dice << 13;
    *dice ^= *dice >> 7;
    *dice ^= *dice << 17;
    (*dice >> 11) % n
}

/// Overlapping calls, answered as the model does in some order inside their times; then some answers are exchanged,
/// and some lost.
fn history<M: Model<Call = Call, Reply = Reply>>(
    dice: &mut u64,
    model: &M,
    call: fn(&mut u64) -> Call,
    answers: &[Reply],
) -> Vec<Drawn> {
    let count = 6 + below(dice, 12);
    let mut drawn: Vec<(Time, Drawn)> = (0..count)
        .map(|_| {
            let invoked = below(dice, 24) as Time;
            let moment = invoked + below(dice, 8) as Time;
            (moment, (call(dice), None, invoked, moment + below(dice, 8) as Time))
        })
        .collect();
    drawn.sort_by_key(|(moment, _)| *moment);
    let mut state = model.initial();
    for (_, (call, reply, ..)) in &mut drawn {
        let fits = answers.iter().find(|answer| model.step(&state, call, Some(answer)).is_some());
        let answer = fits.expect("every call has an answer").clone();
        state = model.step(&state, call, Some(&answer)).expect("it fits");
        *reply = Some(answer);
    }
    let mut operations: Vec<Drawn> = drawn.into_iter().map(|(_, operation)| operation).collect();
    let exchanged = 1 + below(dice, 4);
    for _ in 0..exchanged {
        let at = below(dice, count) as usize;
        operations[at].1 = Some(answers[below(dice, answers.len() as u64) as usize].clone());
    }
    for operation in &mut operations {
        if below(dice, 3) == 0 {
            (operation.1, operation.3) = (None, NEVER);
        }
    }
    operations.sort_by_key(|operation| operation.2);
    operations
}

fn entries<'a, M: Model<Call = Call, Reply = Reply>>(operations: &'a [Drawn]) -> Vec<Entry<'a, M>> {
    let entry = |(call, reply, invoked, completed): &'a Drawn| {
        let (invoked, completed) = (*invoked, *completed);
        Entry { call, reply: reply.as_ref(), invoked, completed }
    };
    operations.iter().map(entry).collect()
}

/// The model gives these answers in this order, real time allows it, and no answered operation is left out.
fn assert_explains<M: Model>(model: &M, entries: &[Entry<'_, M>], order: &[u32]) {
    let mut state = model.initial();
    let mut latest = Time::MIN;
    for (at, &i) in order.iter().enumerate() {
        let entry = &entries[i as usize];
        assert!(!order[..at].contains(&i), "placed twice");
        latest = latest.max(entry.invoked);
        assert!(entry.completed >= latest, "completed before one ahead of it was invoked");
        state = model.step(&state, entry.call, entry.reply).expect("the model answers so");
    }
    let missing = (0..entries.len()).find(|&i| entries[i].completed != NEVER && !order.contains(&(i as u32)));
    assert_eq!(missing, None, "answered operations are all placed");
}

/// Searches alone and in parallel; whether there is a linearization.
fn agree<M: Model>(model: &M, entries: &[Entry<'_, M>], alone: u64, threads: usize, story: &str) -> bool {
    let budget = Budget { threads, ..Budget::default() };
    let one = search_alone_for(u64::MAX, model, entries, &Budget::default());
    let many = search_alone_for(alone, model, entries, &budget);
    match (&one, &many) {
        (Search::Linearization(_), Search::Linearization(order)) => {
            assert_explains(model, entries, order);
            true
        }
        (Search::None { stuck, open, .. }, Search::None { stuck: also, open: too, longest }) => {
            assert_eq!((stuck, open), (also, too), "{story}: the evidence is the same");
            assert!(longest.len() <= entries.len());
            false
        }
        _ => panic!("{story}: alone {one:?}, in parallel {many:?}"),
    }
}

/// A few steps alone, then two to four threads, say what one thread says, on thousands of random histories.
#[test]
fn many_threads_say_what_one_says() {
    let register = Register { initial: Value(0) };
    let call = |dice: &mut u64| match below(dice, 4) {
        0 => Call::Read,
        1 => Call::Write(Value(below(dice, 3) as u32)),
        _ => Call::Cas { expected: Value(below(dice, 3) as u32), new: Value(below(dice, 3) as u32) },
    };
    let value = |number| Reply::Value(Value(number));
    let answers = [value(0), value(1), value(2), Reply::Flag(true), Reply::Flag(false)];
    let queue_call = |dice: &mut u64| match below(dice, 2) {
        0 => Call::Dequeue,
        _ => Call::Enqueue(Value(1 + below(dice, 3) as u32)),
    };
    let queue_answers = [value(0), value(1), value(2), value(3)];
    let rounds = if cfg!(debug_assertions) { 300 } else { 5_000 };
    let mut held = [0; 2];
    for seed in 1..=rounds {
        let mut dice = seed * 0x9e37_79b9_7f4a_7c15;
        let (alone, threads) = (below(&mut dice, 12), 2 + below(&mut dice, 3) as usize);
        let operations = history(&mut dice, &register, call, &answers);
        let story = format!("register, seed {seed}: {operations:?}");
        held[0] += u64::from(agree(&register, &entries(&operations), alone, threads, &story));
        let operations = history(&mut dice, &Fifo, queue_call, &queue_answers);
        let story = format!("queue, seed {seed}: {operations:?}");
        held[1] += u64::from(agree(&Fifo, &entries(&operations), alone, threads, &story));
    }
    for held in held {
        assert!(held > rounds / 10 && held < rounds * 9 / 10, "both verdicts come often: {held}");
    }
}

/// Writes of few values at once, many of unknown outcome; in the end a 9 is read, and it takes a 7 to become one.
fn hard(last: u32) -> Vec<Drawn> {
    let write = |value| Call::Write(Value(value));
    let mut operations = vec![(Call::Cas { expected: Value(7), new: Value(9) }, None, 0, NEVER)];
    operations.extend((0..6).map(|i| (write(1 + i % 2), None, 0, NEVER)));
    operations.extend((0..11).map(|i| (write(1 + i % 4), Some(Reply::Done), 0, 10)));
    operations.push((Call::Cas { expected: Value(3), new: Value(last) }, Some(Reply::Flag(true)), 0, 10));
    operations.push((Call::Read, Some(Reply::Value(Value(9))), 20, 30));
    operations
}

/// A hard history gets the verdict that it gets alone, with the threshold that is in use and with none.
#[test]
fn a_hard_history_is_decided_both_ways() {
    let register = Register { initial: Value(0) };
    for (last, holds) in [(6, false), (7, true)] {
        for alone in [0, STEPS_ALONE_MAX] {
            let operations = hard(last);
            assert_eq!(agree(&register, &entries(&operations), alone, 2, "hard"), holds);
        }
    }
    let operations = hard(6);
    let budget = Budget { steps_max: STEPS_ALONE_MAX, ..Budget::default() };
    let few = search_alone_for(u64::MAX, &register, &entries(&operations), &budget);
    assert!(matches!(few, Search::Exhausted { .. }), "it takes more steps than one thread does alone");
}

/// Steps and memory are limits of all threads together, and the one that is over is named.
#[test]
fn limits_hold_over_all_threads() {
    let register = Register { initial: Value(0) };
    let operations = hard(6);
    let wide = Budget { threads: 3, ..Budget::default() };
    let budgets = [
        (Budget { steps_max: 60_000, ..wide }, Limit::Steps),
        (Budget { memory_max: 400_000, ..wide }, Limit::Memory),
    ];
    for (budget, named) in budgets {
        match search_alone_for(10, &register, &entries(&operations), &budget) {
            Search::Exhausted { limit, .. } => assert_eq!(limit, named),
            other => panic!("{other:?}"),
        }
    }
}

/// A hard key among easy ones gets the verdict that it gets on one thread, after the threads have shared the keys.
#[test]
fn a_hard_key_waits_for_the_easy_ones() {
    for (last, holds) in [(6, false), (7, true)] {
        let mut builder = Builder::new("two keys", "none", ModelKind::Register);
        let values: Vec<Value> = (0..10).map(|i| builder.value(Datum::Int(i))).collect();
        let (hard_key, easy_key) = (builder.key(Datum::text("hard")), builder.key(Datum::text("easy")));
        let renamed = |value: Value| values[value.0 as usize];
        let mut push = |key, call, reply: Option<Reply>, invoked, completed| {
            let process = builder.process(Datum::Int(0));
            let outcome = reply.map_or(Outcome::Unknown, Outcome::Ok);
            builder.push(Operation { process, key, call, outcome, invoked, completed, id: 0, line: 0 });
        };
        for (call, reply, invoked, completed) in hard(last) {
            let call = match call {
                Call::Write(value) => Call::Write(renamed(value)),
                Call::Cas { expected, new } => Call::Cas { expected: renamed(expected), new: renamed(new) },
                other => other,
            };
            let reply = reply.map(|reply| match reply {
                Reply::Value(value) => Reply::Value(renamed(value)),
                other => other,
            });
            push(hard_key, call, reply, invoked, completed);
        }
        for i in 0..8_200 {
            push(easy_key, Call::Write(values[1]), Some(Reply::Done), 100 + 2 * i, 101 + 2 * i);
        }
        let history = builder.finish();
        let verdicts = [1, 2].map(|threads| check(&history, &Budget { threads, ..Budget::default() }).0);
        assert_eq!(verdicts.map(|verdict| verdict.decided()), [Some(holds); 2]);
    }
}
