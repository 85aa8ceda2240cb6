//! Messages that no correct peer would send: nothing panics, and nothing decided changes (A6, groups 11 and 14).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use synod_core::{
    Batch, Change, Command, CommandId, Config, Delivery, Index, Input, Lsn, Members, NodeId, Output,
    Protocol, ReadId, Recovered, Rng, SnapshotRef, Time, empty_batch,
};
use synod_protocols::multipaxos::{
    Ballot, Message, MultiPaxos, Options, Purpose, Pvalue, Range, Record, Value,
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

fn slot(rng: &mut Rng) -> Index {
    Index(number(rng))
}

/// Mostly ballots of the peer that speaks, or of the replica under test.
fn ballot(rng: &mut Rng, from: NodeId) -> Ballot {
    let leader = match rng.below(6) {
        0 => NodeId(rng.below(5)),
        1 | 2 => NodeId(1),
        _ => from,
    };
    Ballot { round: number(rng), leader }
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
        0 => Value::Members(members(rng)),
        _ => Value::Batch(batch(rng)),
    }
}

fn accepted(rng: &mut Rng, from: NodeId) -> Vec<Pvalue> {
    (0..rng.below(4))
        .map(|_| Pvalue { at: slot(rng), ballot: ballot(rng, from), value: value(rng) })
        .collect()
}

fn message(rng: &mut Rng, from: NodeId) -> Message {
    let ballot = ballot(rng, from);
    match rng.below(17) {
        0 => Message::Probe { ballot, from: slot(rng) },
        1 => Message::Probed { ballot, granted: rng.chance(0.8), promised: self::ballot(rng, from) },
        2 => {
            let purpose = [Purpose::Election, Purpose::Transfer][rng.below(2) as usize];
            Message::Prepare { ballot, from: slot(rng), purpose }
        }
        3 | 4 => {
            let upto = if rng.chance(0.7) { Index(1 << 60) } else { slot(rng) };
            let accepted = accepted(rng, from);
            Message::Promise { ballot, from: slot(rng), upto, accepted, decided: slot(rng) }
        }
        5 => Message::Refused { asked: ballot, promised: self::ballot(rng, from) },
        6 | 7 => {
            let values = (0..rng.below(4)).map(|_| value(rng)).collect();
            Message::Accept { ballot, first: slot(rng), values, decided: slot(rng) }
        }
        8 => {
            let beyond = (0..rng.below(3)).map(|_| Range { first: slot(rng), last: slot(rng) }).collect();
            Message::Accepted { ballot, through: slot(rng), beyond }
        }
        9 => Message::Heartbeat { ballot, decided: slot(rng), round: number(rng), sent: Time(number(rng)) },
        10 => Message::HeartbeatAck {
            ballot,
            round: number(rng),
            sent: Time(number(rng)),
            received: slot(rng),
            durable: slot(rng),
            knows: slot(rng),
        },
        11 => Message::Decided { ballot, upto: slot(rng) },
        12 => Message::Install { ballot, at: slot(rng), members: members(rng) },
        13 => Message::NeedSnapshot { ballot, from: slot(rng) },
        14 => Message::Forward { ballot, life: number(rng), number: number(rng), batch: batch(rng) },
        15 => match rng.below(2) {
            0 => Message::RequestIndex { life: number(rng), number: number(rng) },
            _ => Message::ReadIndex { life: number(rng), number: number(rng), index: slot(rng) },
        },
        _ => Message::Invite { ballot },
    }
}

/// A replica that is fed anything in any role neither panics nor takes back what it delivered, never goes below its promise,
/// and what it wrote opens again.
#[test]
fn hostile_inputs_never_panic() {
    for seed in 0..400 {
        let mut rng = Rng::new(seed);
        let mut options = Options::timed(Duration::from_millis(10), Duration::from_millis(100));
        options.lease_reads = rng.chance(0.5);
        options.log_bytes_max = 200;
        options.window_max = rng.between(1, 8);
        let nodes = if rng.chance(0.3) { 1 } else { 3 };
        let config = Config { id: NodeId(1), members: Members::of((1..=nodes).map(NodeId)), seed, options };
        let mut out = Output::<MultiPaxos>::default();
        let mut now = Time(1);
        let mut paxos = MultiPaxos::open(&config, Recovered::default(), now, &mut out);
        let mut records: Vec<Record> = Vec::new();
        let (mut delivered, mut promised) = (Index::ZERO, Ballot::default());
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
                10 => Input::Freezing(slot(&mut rng)),
                11 => Input::TransferFailed(NodeId(number(&mut rng))),
                12 => {
                    let at = slot(&mut rng);
                    let snapshot = SnapshotRef::in_memory(at, Bytes::from_static(b"state"));
                    let from = NodeId(rng.below(5));
                    let message =
                        Message::Install { ballot: ballot(&mut rng, from), at, members: members(&mut rng) };
                    Input::Installed { from, message, snapshot }
                }
                _ => {
                    let from = NodeId(rng.below(5));
                    Input::Message { from, message: message(&mut rng, from) }
                }
            };
            paxos.step(now, input, &mut out);
            paxos.flush(now, &mut out);
            let status = paxos.status();
            assert!(status.decided <= status.last, "seed {seed}: {status:?}");
            let (_, now_promised) = paxos.standing();
            assert!(now_promised >= promised, "seed {seed}: promises only grow");
            promised = now_promised;
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
                    other => panic!("seed {seed}: Multi-Paxos never delivers {other:?}"),
                }
            }
            records.append(&mut out.records);
            out.messages.clear();
            out.answers.clear();
            assert!(paxos.deadline().is_none_or(|deadline| deadline > Time::ZERO));
        }
        let mut again = Output::<MultiPaxos>::default();
        let found = Recovered { records, snapshot: None };
        let reopened = MultiPaxos::open(&config, found, now, &mut again);
        assert_eq!(reopened.standing().1, paxos.standing().1, "seed {seed}");
        assert_eq!(reopened.status().last, paxos.status().last, "seed {seed}");
    }
}

/// A replica of three with n2's promise, which leads; and what it has to say.
fn leader() -> (MultiPaxos, Output<MultiPaxos>, Ballot) {
    let options = Options::timed(Duration::from_millis(10), Duration::from_millis(100));
    let config = Config { id: NodeId(1), members: Members::of((1..=3).map(NodeId)), seed: 1, options };
    let mut out = Output::<MultiPaxos>::default();
    let mut paxos = MultiPaxos::open(&config, Recovered::default(), Time(1), &mut out);
    let mut now = Time(1_000_000_000);
    let mut step = |paxos: &mut MultiPaxos, out: &mut Output<MultiPaxos>, input| {
        now = Time(now.0 + 1);
        paxos.step(now, input, out);
        paxos.flush(now, out);
    };
    step(&mut paxos, &mut out, Input::Timeout);
    let ballot = Ballot { round: 1, leader: NodeId(1) };
    let probed = Message::Probed { ballot, granted: true, promised: Ballot::default() };
    step(&mut paxos, &mut out, Input::Message { from: NodeId(2), message: probed });
    let durable = out.written();
    step(&mut paxos, &mut out, Input::Durable(durable));
    let promise = Message::Promise {
        ballot,
        from: Index(1),
        upto: Index(1 << 60),
        accepted: Vec::new(),
        decided: Index::ZERO,
    };
    step(&mut paxos, &mut out, Input::Message { from: NodeId(2), message: promise });
    assert_eq!(paxos.status().leader, Some(NodeId(1)));
    out.messages.clear();
    (paxos, out, ballot)
}

/// Nobody but a member may make up a quorum, nobody may speak for another's ballot, and a copy counts once.
#[test]
fn strangers_copies_and_misdirected_messages_count_for_nothing() {
    let (mut paxos, mut out, ballot) = leader();
    let now = Time(2_000_000_000);
    paxos.step(now, Input::Propose(empty_batch()), &mut out);
    paxos.flush(now, &mut out);
    let accepted = |ballot| Message::Accepted { ballot, through: Index(1), beyond: Vec::new() };
    let mut hear = |from: u64, message: Message| {
        paxos.step(now, Input::Message { from: NodeId(from), message }, &mut out);
        paxos.flush(now, &mut out);
        paxos.status().decided
    };
    // A stranger, itself, node zero, an earlier and a later ballot, and one of the right round that is another's.
    assert_eq!(hear(9, accepted(ballot)), Index::ZERO);
    assert_eq!(hear(1, accepted(ballot)), Index::ZERO);
    assert_eq!(hear(0, accepted(ballot)), Index::ZERO);
    for (round, leader) in [(0, 1), (2, 1), (1, 2)] {
        let other = Ballot { round, leader: NodeId(leader) };
        assert_eq!(hear(2, accepted(other)), Index::ZERO);
    }
    // n3 claims to lead in n2's ballot: it is not listened to.
    let forged = Ballot { round: 7, leader: NodeId(2) };
    let accept = Message::Accept { ballot: forged, first: Index(1), values: Vec::new(), decided: Index(0) };
    hear(3, accept);
    // The leader's own disk has not spoken: n2 alone is no quorum, and neither is its copy.
    assert_eq!(hear(2, accepted(ballot)), Index::ZERO);
    assert_eq!(hear(2, accepted(ballot)), Index::ZERO);
    assert_eq!(hear(3, accepted(ballot)), Index(1));
}
