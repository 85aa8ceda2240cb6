//! Messages that no correct peer would send: nothing panics, nothing delivered is taken back, and what was written opens
//! again (A6, group 11).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use synod_core::{
    Batch, Change, Command, CommandId, Config, Delivery, Index, Input, Lsn, Members, NodeId, Output,
    Protocol, ReadId, Recovered, Rng, SnapshotRef, Time, empty_batch,
};
use synod_protocols::paxos::{Ballot, Configurations, Message, Options, Paxos, Proposal, Record, Value};

/// Numbers that are likely to hurt.
fn number(rng: &mut Rng) -> u64 {
    match rng.below(12) {
        0 => u64::MAX,
        1 => u64::MAX - 1,
        2 => 1 << 60,
        3 => 1 << 32,
        _ => rng.below(8),
    }
}

fn slot(rng: &mut Rng) -> Index {
    Index(number(rng))
}

fn ballot(rng: &mut Rng) -> Ballot {
    Ballot { round: number(rng), node: NodeId(rng.below(5)), life: rng.below(3) }
}

fn members(rng: &mut Rng) -> Arc<Members> {
    let mut members = Members::default();
    for _ in 0..rng.below(6) {
        let node = NodeId(rng.below(6));
        let sets =
            [&mut members.voters, &mut members.outgoing, &mut members.learners, &mut members.learners_next];
        sets.into_iter().nth(rng.below(4) as usize).expect("four sets").insert(node);
    }
    Arc::new(members)
}

fn batch(rng: &mut Rng) -> Batch {
    if rng.chance(0.5) {
        return empty_batch();
    }
    let id = CommandId { origin: NodeId(number(rng)), number: number(rng) };
    Arc::from([Command { id, payload: Bytes::from_static(b"x") }])
}

fn value(rng: &mut Rng) -> Value {
    match rng.below(5) {
        0 => Value::Members { after: slot(rng), members: members(rng) },
        _ => Value::Batch(batch(rng)),
    }
}

fn configurations(rng: &mut Rng) -> Configurations {
    (0..rng.below(3)).map(|_| (slot(rng), members(rng))).collect()
}

fn message(rng: &mut Rng, from: NodeId) -> Message {
    let (slot, mut ballot) = (slot(rng), ballot(rng));
    match rng.below(10) {
        0 => {
            ballot.node = from;
            Message::Prepare { slot, ballot }
        }
        1 => {
            let accepted = rng.chance(0.5).then(|| Proposal { ballot: self::ballot(rng), value: value(rng) });
            Message::Promise { slot, ballot: mine(rng), accepted }
        }
        2 => {
            ballot.node = from;
            Message::Accept { slot, ballot, value: value(rng) }
        }
        3 => Message::Accepted { slot, ballot: mine(rng) },
        4 => Message::Refused { slot, ballot: mine(rng), promised: ballot },
        5 => Message::Chosen { slot, ballot },
        6 => Message::Have { decided: slot },
        7 => Message::Learn { after: slot },
        8 => {
            let values = (0..rng.below(5)).map(|_| value(rng)).collect();
            Message::Known { first: slot, values, decided: self::slot(rng) }
        }
        _ => Message::InstallSnapshot { at: slot, configurations: configurations(rng) },
    }
}

/// A ballot that the replica under test is likely to have begun.
fn mine(rng: &mut Rng) -> Ballot {
    Ballot { round: 1 + rng.below(4), node: NodeId(1), life: 1 }
}

/// A replica that is fed anything neither panics nor takes back what it delivered, and what it wrote opens again.
#[test]
fn hostile_inputs_never_panic() {
    for seed in 0..400 {
        let mut rng = Rng::new(seed);
        let mut options = Options::timed(Duration::from_millis(10));
        options.log_bytes_max = 400;
        options.jitter = rng.chance(0.8);
        let nodes = if rng.chance(0.3) { 1 } else { 3 };
        let config = Config { id: NodeId(1), members: Members::of((1..=nodes).map(NodeId)), seed, options };
        let mut out = Output::<Paxos>::default();
        let mut now = Time(1);
        let mut paxos = Paxos::open(&config, Recovered::default(), now, &mut out);
        let mut records: Vec<Record> = Vec::new();
        let mut delivered = Index::ZERO;
        for step in 0..400 {
            now = Time(now.0 + rng.below(30_000_000));
            let from = NodeId(rng.below(5));
            let input = match rng.below(24) {
                0..=2 => Input::Timeout,
                3 | 4 => Input::Durable(out.written()),
                5 => Input::Durable(Lsn(number(&mut rng))),
                6 => Input::Propose(batch(&mut rng)),
                7 => Input::Read(ReadId(step)),
                8 => Input::Reconfigure(vec![Change::AddVoter(NodeId(rng.below(6)))]),
                9 => Input::Transfer(NodeId(number(&mut rng))),
                10 => Input::Freezing(slot(&mut rng)),
                11 => Input::TransferFailed(NodeId(number(&mut rng))),
                12 => {
                    let at = slot(&mut rng);
                    let snapshot = SnapshotRef::in_memory(at, Bytes::from_static(b"state"));
                    let message = Message::InstallSnapshot { at, configurations: configurations(&mut rng) };
                    Input::Installed { from, message, snapshot }
                }
                _ => Input::Message { from, message: message(&mut rng, from) },
            };
            paxos.step(now, input, &mut out);
            paxos.flush(now, &mut out);
            let status = paxos.status();
            assert!(status.decided <= status.last, "seed {seed}: {status:?}");
            for delivery in out.deliveries.drain(..) {
                match delivery {
                    Delivery::Batch { at, .. } | Delivery::Members { at, .. } => {
                        assert_eq!(at, delivered.next(), "seed {seed}: deliveries have no gaps");
                        delivered = at;
                    }
                    Delivery::Restore(snapshot) => {
                        assert!(snapshot.at > delivered, "seed {seed}: the state never goes back");
                        delivered = snapshot.at;
                    }
                    other => panic!("seed {seed}: Paxos never delivers {other:?}"),
                }
            }
            records.append(&mut out.records);
            out.messages.clear();
            out.answers.clear();
            assert!(paxos.deadline().is_none_or(|deadline| deadline > Time::ZERO));
        }
        let mut again = Output::<Paxos>::default();
        let found = Recovered { records, snapshot: None };
        let reopened = Paxos::open(&config, found, now, &mut again).status();
        assert!(reopened.decided <= paxos.status().decided, "seed {seed}: nobody knows more than it wrote");
    }
}
