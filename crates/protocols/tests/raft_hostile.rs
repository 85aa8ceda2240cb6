//! Messages that no correct peer would send: nothing panics, and nothing committed changes (A6, group 11).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use synod_core::{
    Batch, Change, Command, CommandId, Config, Delivery, Index, Input, Lsn, Members, NodeId, Output,
    Protocol, ReadId, Recovered, Rng, SnapshotRef, Time, empty_batch,
};
use synod_protocols::raft::{Body, Entry, Message, Options, Position, Purpose, Raft, Record, Term};

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

fn position(rng: &mut Rng) -> Position {
    Position { index: Index(number(rng)), term: Term(number(rng)) }
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

fn entries(rng: &mut Rng) -> Vec<Entry> {
    let body = |rng: &mut Rng| match rng.below(5) {
        0 => Body::Members(members(rng)),
        _ => Body::Batch(batch(rng)),
    };
    (0..rng.below(5)).map(|_| Entry { term: Term(number(rng)), body: body(rng) }).collect()
}

fn batch(rng: &mut Rng) -> Batch {
    if rng.chance(0.5) {
        return empty_batch();
    }
    let id = CommandId { origin: NodeId(number(rng)), number: number(rng) };
    Arc::from([Command { id, payload: Bytes::from_static(b"x") }])
}

fn message(rng: &mut Rng) -> Message {
    let term = Term(number(rng));
    let purpose = [Purpose::Probe, Purpose::Election, Purpose::Transfer][rng.below(3) as usize];
    match rng.below(14) {
        0 => Message::RequestVote { term, last: position(rng), purpose },
        1 => Message::Vote { term, purpose, granted: rng.chance(0.8) },
        2 | 3 => Message::Append {
            term,
            previous: position(rng),
            entries: entries(rng),
            commit: Index(number(rng)),
        },
        4 => Message::Appended { term, matched: Index(number(rng)) },
        5 => Message::Rejected { term, probe: Index(number(rng)), hint: position(rng) },
        6 => Message::Heartbeat {
            term,
            commit: Index(number(rng)),
            round: number(rng),
            sent: Time(number(rng)),
        },
        7 => Message::HeartbeatAck {
            term,
            round: number(rng),
            sent: Time(number(rng)),
            received: Index(number(rng)),
            durable: Index(number(rng)),
        },
        8 => Message::Committed { term, commit: Index(number(rng)) },
        9 => Message::InstallSnapshot { term, last: position(rng), members: members(rng) },
        10 => Message::NeedSnapshot { term, from: Index(number(rng)) },
        11 => Message::Forward { term, life: number(rng), number: number(rng), batch: batch(rng) },
        12 => match rng.below(2) {
            0 => Message::RequestIndex { life: number(rng), number: number(rng) },
            _ => Message::ReadIndex { life: number(rng), number: number(rng), index: Index(number(rng)) },
        },
        _ => Message::TimeoutNow { term },
    }
}

/// A replica that is fed anything in any role neither panics nor takes back what it delivered, and what it
/// wrote opens again.
#[test]
fn hostile_inputs_never_panic() {
    for seed in 0..400 {
        let mut rng = Rng::new(seed);
        let mut options = Options::timed(Duration::from_millis(10), Duration::from_millis(100));
        options.lease_reads = rng.chance(0.5);
        options.log_bytes_max = 200;
        let nodes = if rng.chance(0.3) { 1 } else { 3 };
        let config = Config { id: NodeId(1), members: Members::of((1..=nodes).map(NodeId)), seed, options };
        let mut out = Output::<Raft>::default();
        let mut now = Time(1);
        let mut raft = Raft::open(&config, Recovered::default(), now, &mut out);
        let mut records: Vec<Record> = Vec::new();
        let mut delivered = Index::ZERO;
        for step in 0..400 {
            now = Time(now.0 + rng.below(30_000_000));
            let input = match rng.below(24) {
                0..=2 => Input::Timeout,
                3 | 4 => Input::Durable(out.written()),
                5 => Input::Durable(Lsn(number(&mut rng))),
                6 => Input::Propose(batch(&mut rng)),
                7 => Input::Read(ReadId(step)),
                8 => Input::Reconfigure(vec![Change::AddVoter(NodeId(rng.below(6)))]),
                9 => Input::Transfer(NodeId(number(&mut rng))),
                10 => Input::Freezing(Index(number(&mut rng))),
                11 => Input::TransferFailed(NodeId(number(&mut rng))),
                12 => {
                    let at = Index(number(&mut rng));
                    let snapshot = SnapshotRef::in_memory(at, Bytes::from_static(b"state"));
                    let last = Position { index: at, term: Term(rng.below(8)) };
                    let term = Term(rng.below(8));
                    let message = Message::InstallSnapshot { term, last, members: members(&mut rng) };
                    Input::Installed { from: NodeId(rng.below(5)), message, snapshot }
                }
                _ => Input::Message { from: NodeId(rng.below(5)), message: message(&mut rng) },
            };
            raft.step(now, input, &mut out);
            raft.flush(now, &mut out);
            let status = raft.status();
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
                    Delivery::Rewind { .. } | Delivery::Replace(_) => {
                        panic!("seed {seed}: Raft takes nothing back")
                    }
                    Delivery::Stamped { .. } | Delivery::Merge { .. } | Delivery::Adopt(_) => {
                        panic!("seed {seed}: Raft has one order, and needs no stamps")
                    }
                    Delivery::Freeze { .. } => {
                        panic!("seed {seed}: Raft's replicas take snapshots each in its own time")
                    }
                }
            }
            records.append(&mut out.records);
            out.messages.clear();
            out.answers.clear();
            assert!(raft.deadline().is_none_or(|deadline| deadline > Time::ZERO));
        }
        let mut again = Output::<Raft>::default();
        let found = Recovered { records, snapshot: None };
        let reopened = Raft::open(&config, found, now, &mut again).status();
        assert_eq!((reopened.term, reopened.last), (raft.status().term, raft.status().last), "seed {seed}");
    }
}
