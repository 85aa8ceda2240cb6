//! etcd's store: random histories with revisions, some outcomes unknown, judged by real time and by session.

use synod_check::budget::Budget;
use synod_check::builder::Builder;
use synod_check::etcd;
use synod_check::history::*;
use synod_check::linearizable::{check, revisions, search_part};
use synod_check::model::store::{Names, StoreModel};
use synod_check::verdict::Verdict;

use crate::referee::{Dice, agree, agree_with, brute_by};
use crate::{OPERATIONS_MAX, ROUNDS, int};

fn etcd_reply(revision: i64, body: etcd::ReplyBody) -> Outcome {
    Outcome::Ok(Reply::Etcd(Box::new(etcd::Reply { revision, body })))
}

/// A random history of etcd's store over two keys, with revisions in every reply and some outcomes unknown.
fn generate_etcd(dice: &mut Dice) -> History {
    let mut builder = Builder::new("random", "none", ModelKind::Etcd);
    let keys = [builder.key(Datum::text("a")), builder.key(Datum::text("b"))];
    let count = 2 + dice.below(OPERATIONS_MAX - 1);
    let processes = 1 + dice.below(3);
    let mut clocks = vec![0i64; processes as usize];
    let mut drawn = Vec::new();
    for i in 0..count {
        let process = dice.below(processes);
        let clock = &mut clocks[process as usize];
        let invoked = *clock + dice.below(6) as i64;
        let completed = invoked + dice.below(8) as i64;
        *clock = completed + 1;
        let moment = invoked + dice.below((completed - invoked + 1) as u64) as i64;
        let process = builder.process(Datum::Int(process as i64));
        drawn.push((moment, process, invoked, completed, i));
    }
    drawn.sort_unstable();
    // By hand: what each key holds (value, created, modified, version) and the revision.
    let mut store: [Option<(Value, i64, i64, i64)>; 2] = [None, None];
    let mut revision = 1;
    let mut operations = Vec::new();
    for (_, process, invoked, completed, id) in drawn {
        let at = dice.below(2) as usize;
        let (key, value) = (keys[at], int(&mut builder, id as i64));
        let unknown = dice.below(5) == 0;
        let happens = !unknown || dice.below(2) == 0;
        let mut after = store;
        let put = |after: &mut [Option<(Value, i64, i64, i64)>; 2], now: i64| {
            let (created, version) =
                after[at].map_or((now, 1), |(_, created, _, version)| (created, version + 1));
            after[at] = Some((value, created, now, version));
        };
        let pairs = |store: &[Option<(Value, i64, i64, i64)>; 2]| {
            let pair = store[at].map(|(value, create, modified, version)| etcd::KeyValue {
                key,
                value,
                create,
                modified,
                version,
                lease: etcd::UNRECORDED,
            });
            etcd::RangeReply { pairs: pair.into_iter().collect(), count: i64::from(store[at].is_some()) }
        };
        let range =
            etcd::Range { key, end: etcd::RangeEnd::Single, revision: 0, limit: 0, serializable: false };
        let (request, body, changed) = match dice.below(4) {
            0 => (etcd::Request::Range(range), etcd::ReplyBody::Range(pairs(&store)), false),
            1 => {
                put(&mut after, revision + 1);
                (etcd::Request::Put(etcd::Put { key, value, lease: 0 }), etcd::ReplyBody::Nothing, true)
            }
            2 => {
                let there = after[at].take().is_some();
                let delete = etcd::DeleteRange { key, end: etcd::RangeEnd::Single };
                (etcd::Request::Delete(delete), etcd::ReplyBody::Deleted(i64::from(there)), there)
            }
            _ => {
                let guess = dice.below(revision as u64 + 1) as i64;
                let target = etcd::CompareTarget::Mod(guess);
                let compare = etcd::Compare { key, target, result: etcd::CompareResult::Equal };
                let holds = store[at].map_or(0, |(_, _, modified, _)| modified) == guess;
                let replies = if holds {
                    put(&mut after, revision + 1);
                    vec![etcd::TxnReply::Put]
                } else {
                    vec![etcd::TxnReply::Range(pairs(&store))]
                };
                let txn = etcd::Txn {
                    compares: Box::new([compare]),
                    then: Box::new([etcd::TxnOp::Put(etcd::Put { key, value, lease: 0 })]),
                    otherwise: Box::new([etcd::TxnOp::Range(range)]),
                };
                let body = etcd::ReplyBody::Txn { succeeded: Some(holds), replies: replies.into() };
                (etcd::Request::Txn(txn), body, holds)
            }
        };
        if happens {
            store = after;
            revision += i64::from(changed);
        }
        let outcome = if unknown { Outcome::Unknown } else { etcd_reply(revision, body) };
        let call = Call::Etcd(Box::new(request));
        operations.push(Operation { process, key: keys[0], call, outcome, invoked, completed, id, line: 0 });
    }
    if dice.below(2) == 0 {
        let victim = dice.below(operations.len() as u64) as usize;
        match dice.below(3) {
            0 => {
                operations[victim].invoked += 5;
                operations[victim].completed += 5;
            }
            1 => {
                if let Outcome::Ok(Reply::Etcd(reply)) = &mut operations[victim].outcome {
                    reply.revision = (reply.revision + dice.below(3) as i64 - 1).max(1);
                }
            }
            _ => {
                let other = dice.below(operations.len() as u64) as usize;
                let outcome = operations[other].outcome.clone();
                if operations[victim].call == operations[other].call {
                    operations[victim].outcome = outcome;
                }
            }
        }
    }
    operations.into_iter().for_each(|operation| builder.push(operation));
    builder.finish()
}

/// etcd's store by revisions, with gaps that operations of unknown outcome must fill; and by the search.
#[test]
fn etcd_stores_with_revisions() {
    let mut right = 0;
    for seed in 1..=ROUNDS {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let history = generate_etcd(&mut dice);
        agree(seed, &history, &|history| check(history, &Budget::default()).0);
        let all: Vec<u32> = (0..history.operations.len() as u32).collect();
        right += u64::from(search_part(&history, &all, &Budget::default()).decided() == Some(true));
    }
    assert!(right > ROUNDS / 10 && right < ROUNDS - ROUNDS / 20, "{right} of {ROUNDS} hold: not a fair mix");
}

/// etcd's store by revisions, bound by each process's order alone: sequential consistency.
#[test]
fn etcd_stores_with_revisions_by_session() {
    let sequential = |history: &History| {
        let names = Names::new(history);
        let model = StoreModel { names: &names, origin: revisions::origin(history) };
        brute_by(&model, history, |i, one, j, other| one.process == other.process && i < j)
    };
    let judge = |history: &History| {
        let all: Vec<u32> = (0..history.operations.len() as u32).collect();
        let verdict = revisions::check(history, &all, revisions::Binds::Session, &Budget::default());
        // Orders need not respect real time here, so they are not shown to the check that wants it.
        match verdict.expect("replies carry revisions") {
            Verdict::Holds(_) => Verdict::Holds(synod_check::verdict::Witness { order: Vec::new() }),
            other => other,
        }
    };
    let mut right = 0;
    for seed in 1..=ROUNDS {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let history = generate_etcd(&mut dice);
        agree_with(seed, &history, &judge, &sequential);
        right += u64::from(judge(&history).decided() == Some(true));
    }
    assert!(right > ROUNDS / 10 && right < ROUNDS - ROUNDS / 20, "{right} of {ROUNDS} hold: not a fair mix");
}
