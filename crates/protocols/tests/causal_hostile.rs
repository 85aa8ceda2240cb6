//! Messages that no correct peer would send: nothing panics, nothing delivered changes, and what was written opens again (A6,
//! group 11).

use std::sync::Arc;

use bytes::Bytes;
use synod_core::{
    Batch, Change, Command, CommandId, Config, Delivery, Index, Input, Lsn, Members, NodeId, Output,
    Protocol, ReadId, Recovered, Rng, SnapshotRef, Time, Vector, Wire, empty_batch,
};
use synod_protocols::causal::{Body, Cast, Causal, Membership, Message, Options, Record, Then};

/// Numbers that are likely to hurt.
fn number(rng: &mut Rng) -> u64 {
    match rng.below(12) {
        0 => u64::MAX,
        1 => u64::MAX - 1,
        2 => 1 << 62,
        3 => 1 << 61,
        _ => rng.below(8),
    }
}

fn vector(rng: &mut Rng) -> Vector {
    (0..rng.below(4)).map(|_| (NodeId(rng.below(6)), number(rng))).collect()
}

fn batch(rng: &mut Rng) -> Batch {
    if rng.chance(0.5) {
        return empty_batch();
    }
    let id = CommandId { origin: NodeId(number(rng)), number: number(rng) };
    Arc::from([Command { id, payload: Bytes::from_static(b"x") }])
}

/// Some membership, by way of its bytes: nobody but the protocol makes one.
fn members(rng: &mut Rng) -> Membership {
    let added: Vec<u8> = (1..=1 + rng.below(5) as u8).collect();
    let mut bytes = vec![added.len() as u8];
    bytes.extend(&added);
    let removed: Vec<u8> = added.iter().copied().filter(|_| rng.chance(0.2)).collect();
    bytes.push(removed.len() as u8);
    removed.iter().for_each(|id| bytes.extend([*id, 1 + rng.below(3) as u8, 1 + rng.below(9) as u8]));
    Membership::decode_all(bytes.into()).expect("it is sound")
}

fn cast(rng: &mut Rng) -> Arc<Cast> {
    let body = if rng.chance(0.1) { Body::Members(members(rng)) } else { Body::Batch(batch(rng)) };
    Arc::new(Cast {
        origin: NodeId(rng.below(5)),
        number: if rng.chance(0.7) { 1 + rng.below(6) } else { number(rng) },
        clock: number(rng),
        past: vector(rng),
        body,
    })
}

fn message(rng: &mut Rng) -> Message {
    match rng.below(5) {
        0 => {
            Message::Have { vector: vector(rng), clock: number(rng), forgot: vector(rng), saved: number(rng) }
        }
        1 => Message::State { vector: vector(rng), clock: number(rng), members: members(rng) },
        _ => {
            let then = if rng.chance(0.5) { Then::Tell } else { Then::Nothing };
            Message::Cast { casts: (0..rng.below(5)).map(|_| cast(rng)).collect(), then }
        }
    }
}

/// The message as a receiver gets it: what the decoder refuses never reaches the protocol.
fn passed(message: &Message) -> Option<Message> {
    Message::decode_all(message.to_bytes()).ok()
}

/// A replica that is fed anything neither panics nor takes back what it delivered; each origin's casts are delivered in their
/// order, and what it wrote opens again as the same replica.
#[test]
fn hostile_inputs_never_panic() {
    for seed in 0..600 {
        let mut rng = Rng::new(seed);
        let options = Options { retain_bytes_max: 300, waiting_bytes_max: 500, ..Options::default() };
        let nodes = if rng.chance(0.3) { 1 } else { 3 };
        let config = Config { id: NodeId(1), members: Members::of((1..=nodes).map(NodeId)), seed, options };
        let mut out = Output::<Causal>::default();
        let mut now = Time(1);
        let mut causal = Causal::open(&config, Recovered::default(), now, &mut out);
        let mut records: Vec<Record> = Vec::new();
        let (mut at, mut delivered) = (Index::ZERO, Vector::default());
        let mut was_restored = false;
        for step in 0..400 {
            now = Time(now.0 + rng.below(60_000_000));
            let input = match rng.below(20) {
                0..=2 => Input::Timeout,
                3 | 4 => Input::Durable(out.written()),
                5 => Input::Durable(Lsn(rng.below(out.written().0 + 1))),
                6 | 7 => Input::Propose(batch(&mut rng)),
                8 => Input::Read(ReadId(step)),
                9 => Input::Reconfigure(vec![Change::AddVoter(NodeId(rng.below(6)))]),
                10 => Input::Transfer(NodeId(number(&mut rng))),
                11 => Input::Freezing(Index(number(&mut rng))),
                12 => Input::TransferFailed(NodeId(number(&mut rng))),
                13 => {
                    let (vector, members) = (vector(&mut rng), members(&mut rng));
                    let at = if rng.chance(0.8) { vector.total() } else { number(&mut rng) };
                    let snapshot = SnapshotRef::in_memory(Index(at), Bytes::from_static(b"state"));
                    let state = Message::State { vector, clock: number(&mut rng), members };
                    let Some(message) = passed(&state) else { continue };
                    Input::Installed { from: NodeId(rng.below(5)), message, snapshot }
                }
                14 => Input::Snapshot(SnapshotRef::in_memory(Index(number(&mut rng)), Bytes::new())),
                _ => {
                    let Some(message) = passed(&message(&mut rng)) else { continue };
                    Input::Message { from: NodeId(rng.below(5)), message }
                }
            };
            causal.step(now, input, &mut out);
            causal.flush(now, &mut out);
            for outbound in out.messages.drain(..) {
                assert_ne!(outbound.to, NodeId(1), "seed {seed}: it talks to itself");
            }
            for delivery in out.deliveries.drain(..) {
                match delivery {
                    Delivery::Stamped { at: next, stamp, .. } => {
                        assert_eq!(next, at.next(), "seed {seed}: deliveries have a gap");
                        assert_eq!(stamp.number, delivered.get(stamp.origin) + 1, "seed {seed}");
                        delivered.raise(stamp.origin, stamp.number);
                        at = next;
                    }
                    Delivery::Adopt(_) | Delivery::Restore(_) => {
                        was_restored = true;
                        break;
                    }
                    Delivery::Merge { at: merged, snapshot } => {
                        assert!(merged > at && merged > snapshot.at, "seed {seed}");
                    }
                    other => panic!("seed {seed}: causal broadcast never says {other:?}"),
                }
            }
            if was_restored {
                break; // From here on the records belong to a snapshot, which this test has not.
            }
            records.append(&mut out.records);
            out.answers.clear();
        }
        if was_restored {
            continue;
        }
        for record in &records {
            assert_eq!(Record::decode_all(record.to_bytes()).as_ref(), Ok(record), "seed {seed}");
        }
        let found = Recovered { records, snapshot: None };
        let mut out = Output::<Causal>::default();
        let mut again = Causal::open(&config, found, now, &mut out);
        again.flush(now, &mut out);
        assert!(again.vector().dominates(&delivered), "seed {seed}: something was forgotten");
        let _ = again.status();
    }
}
