//! Messages that no correct peer would send: nothing panics, and nothing decided changes (A6, group 11).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use synod_core::{
    Batch, Change, Command, CommandId, Config, Delivery, Index, Input, Lsn, Members, NodeId, Output,
    Protocol, ReadId, Recovered, Rng, SnapshotRef, Time, empty_batch,
};
use synod_protocols::backup::{
    Ballot, Body, Entry, Message, Options, Position, PrimaryBackup, Record, Replication, View, ViewNumber,
};

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

fn view_number(rng: &mut Rng) -> ViewNumber {
    ViewNumber(number(rng))
}

fn position(rng: &mut Rng) -> Position {
    Position { index: Index(number(rng)), view: view_number(rng) }
}

fn members(rng: &mut Rng) -> Arc<Members> {
    let mut members = Members::default();
    for _ in 0..rng.below(6) {
        let node = NodeId(rng.below(6));
        let sets = [&mut members.voters, &mut members.outgoing, &mut members.learners];
        sets.into_iter().nth(rng.below(3) as usize).expect("three sets").insert(node);
    }
    Arc::new(members)
}

/// Mostly a view that could be, with a number that may be anything; sometimes one that could not.
fn view(rng: &mut Rng) -> Arc<View> {
    let sane = rng.chance(0.7);
    let members = if sane { Arc::new(Members::of((1..=3).map(NodeId))) } else { members(rng) };
    let primary = if sane { Some(NodeId(1 + rng.below(3))) } else { Some(NodeId(rng.below(5))) };
    let mut backups: BTreeSet<NodeId> = (0..rng.below(4)).map(|_| NodeId(1 + rng.below(3))).collect();
    if sane && let Some(primary) = primary {
        backups.remove(&primary);
    }
    let replication = if rng.chance(0.5) { Replication::Sync } else { Replication::Async };
    let number = view_number(rng);
    let loss = if rng.chance(0.3) { view_number(rng) } else { ViewNumber(0) };
    Arc::new(View { number, primary, backups, members, replication, loss })
}

fn ballot(rng: &mut Rng) -> Ballot {
    Ballot { round: number(rng), node: NodeId(rng.below(5)) }
}

fn entries(rng: &mut Rng) -> Vec<Entry> {
    let body = |rng: &mut Rng| match rng.below(5) {
        0 => Body::Begin(members(rng)),
        _ => Body::Batch(batch(rng)),
    };
    (0..rng.below(5)).map(|_| Entry { view: view_number(rng), body: body(rng) }).collect()
}

fn batch(rng: &mut Rng) -> Batch {
    if rng.chance(0.5) {
        return empty_batch();
    }
    let id = CommandId { origin: NodeId(number(rng)), number: number(rng) };
    Arc::from([Command { id, payload: Bytes::from_static(b"x") }])
}

fn message(rng: &mut Rng) -> Message {
    let number_of = view_number(rng);
    match rng.below(18) {
        0 | 1 => Message::Replicate {
            view: number_of,
            previous: position(rng),
            entries: entries(rng),
            decided: Index(number(rng)),
        },
        2 => Message::Replicated { view: number_of, matched: Index(number(rng)) },
        3 => Message::Rejected {
            view: number_of,
            probe: Index(number(rng)),
            hint: position(rng),
            delivered: Index(number(rng)),
        },
        4 => Message::Diverged { view: number_of, delivered: Index(number(rng)) },
        5 => Message::Heartbeat {
            view: view(rng),
            decided: Index(number(rng)),
            round: number(rng),
            sent: Time(number(rng)),
        },
        6 => Message::HeartbeatAck {
            view: number_of,
            round: number(rng),
            sent: Time(number(rng)),
            rival: rng.chance(0.3).then(|| ballot(rng)),
            received: Index(number(rng)),
            durable: Index(number(rng)),
        },
        7 => Message::Decided { view: number_of, decided: Index(number(rng)) },
        8 => Message::Prepare { view: view(rng), ballot: ballot(rng) },
        9 => Message::Promise {
            view: number_of,
            ballot: ballot(rng),
            accepted: rng.chance(0.3).then(|| (ballot(rng), view(rng))),
            last: rng.chance(0.8).then(|| position(rng)),
        },
        10 => Message::Accept { view: number_of, ballot: ballot(rng), next: view(rng) },
        11 => Message::Accepted { view: number_of, ballot: ballot(rng) },
        12 => Message::Outbid { view: number_of, promised: ballot(rng) },
        13 => Message::NewView { view: view(rng) },
        14 => Message::NeedSnapshot { view: number_of, from: Index(number(rng)) },
        15 => Message::Forward { view: number_of, life: number(rng), number: number(rng), batch: batch(rng) },
        16 => Message::RequestIndex { view: number_of, life: number(rng), number: number(rng) },
        _ => Message::ReadIndex {
            view: number_of,
            life: number(rng),
            number: number(rng),
            index: Index(number(rng)),
        },
    }
}

/// A replica that is fed anything in any role neither panics nor takes back what it delivered, but for a state that lies
/// ahead; and what it wrote opens again.
#[test]
fn hostile_inputs_never_panic() {
    for seed in 0..400 {
        let mut rng = Rng::new(seed);
        let mut options = Options::timed(Duration::from_millis(10), Duration::from_millis(100));
        options.lease_reads = rng.chance(0.5);
        options.log_bytes_max = 200;
        if rng.chance(0.5) {
            options.replication = Replication::Async;
        }
        let nodes = if rng.chance(0.3) { 1 } else { 3 };
        let config = Config { id: NodeId(1), members: Members::of((1..=nodes).map(NodeId)), seed, options };
        let mut out = Output::<PrimaryBackup>::default();
        let mut now = Time(1);
        let mut replica = PrimaryBackup::open(&config, Recovered::default(), now, &mut out);
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
                    let last = Position { index: at, view: ViewNumber(rng.below(8)) };
                    let message = Message::InstallSnapshot { view: ViewNumber(rng.below(8)), last };
                    Input::Installed { from: NodeId(rng.below(5)), message, snapshot }
                }
                _ => Input::Message { from: NodeId(rng.below(5)), message: message(&mut rng) },
            };
            replica.step(now, input, &mut out);
            replica.flush(now, &mut out);
            let status = replica.status();
            assert!(status.decided <= status.last, "seed {seed}: {status:?}");
            for delivery in out.deliveries.drain(..) {
                match delivery {
                    Delivery::Batch { at, .. } | Delivery::Members { at, .. } => {
                        assert_eq!(at, delivered.next(), "seed {seed}: deliveries have no gaps");
                        delivered = at;
                    }
                    Delivery::Restore(snapshot) | Delivery::Replace(snapshot) => {
                        assert!(snapshot.at > delivered, "seed {seed}: positions never go back");
                        delivered = snapshot.at;
                    }
                    other => panic!("seed {seed}: primary-backup never says {other:?}"),
                }
            }
            records.append(&mut out.records);
            out.messages.clear();
            out.answers.clear();
            assert!(replica.deadline().is_none_or(|deadline| deadline > Time::ZERO));
        }
        let mut again = Output::<PrimaryBackup>::default();
        let found = Recovered { records, snapshot: None };
        let reopened = PrimaryBackup::open(&config, found, now, &mut again).status();
        assert_eq!(
            (reopened.term, reopened.last),
            (replica.status().term, replica.status().last),
            "seed {seed}"
        );
    }
}
