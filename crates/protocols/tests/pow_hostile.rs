//! Messages that no correct peer would send: nothing panics, no rule is broken, and what was written opens again (A6, groups 11
//! and 14).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use synod_core::{
    Batch, Command, CommandId, Config, Delivery, Index, Input, Members, NodeId, Output, Protocol, ReadId,
    Recovered, Rng, SnapshotRef, Time, Wire, empty_batch,
};
use synod_protocols::pow::{
    Block, Hash, Header, Message, Mining, Options, Pow, Record, Root, U256, WrongChain, check_chain_of,
};

/// Easy blocks; this replica only listens.
fn options() -> Options {
    let mut options = Options::drawn(Duration::from_secs(1), Duration::from_secs(1));
    options.genesis_bits = options.limit_bits;
    (options.mining, options.confirmations, options.settled_after) = (Mining::Off, 2, 4);
    options.retarget_blocks = 1000;
    options
}

fn open(options: &Options, found: Recovered<Record>, out: &mut Output<Pow>) -> Pow {
    let members = Members::of([NodeId(1), NodeId(2)]);
    let config = Config { id: NodeId(1), members, seed: 1, options: options.clone() };
    Pow::open(&config, found, Time(1), out)
}

fn command(origin: u64, number: u64) -> Command {
    let id = CommandId { origin: NodeId(origin), number };
    Command { id, payload: Bytes::from_static(b"x") }
}

fn hear(pow: &mut Pow, now: Time, message: Message, out: &mut Output<Pow>) {
    // As a receiver gets it: what the decoder refuses never reaches the protocol.
    if let Ok(message) = Message::decode_all(message.to_bytes()) {
        pow.step(now, Input::Message { from: NodeId(2), message }, out);
    }
    pow.step(now, Input::Durable(out.written()), out);
    pow.flush(now, out);
    pow.examine().expect("what a replica says of itself holds");
}

/// A chain behind the genesis block, a second from block to block.
fn chain(options: &Options, length: u64) -> Vec<Block> {
    let mut before = options.genesis();
    let mut blocks = Vec::new();
    for height in 1..=length {
        let block = Block::on(&before, height, NodeId(2), Batch::from([command(2, height)]));
        before = block.header;
        blocks.push(block);
    }
    blocks
}

/// A way to break a rule.
type Breaking = fn(&mut Block, &[Block]);

/// A block that breaks any one rule is not taken, whatever work it proves, and the reason is noted; the block that it was made of
/// is taken.
#[test]
fn every_rule_is_enforced() {
    let options = options();
    let blocks = chain(&options, 14);
    let cases: [(&str, Breaking); 11] = [
        ("the hash is above the target", |block, _| {
            while block.header.check_work(U256::MAX).is_ok() {
                block.header.nonce += 1;
            }
        }),
        ("the target is above the limit", |block, _| {
            block.header.bits = 0x2100_ffff;
            block.mine();
        }),
        ("the target is negative", |block, _| block.header.bits = 0x0492_3456),
        ("the target is zero", |block, _| block.header.bits = 0),
        ("are due", |block, _| {
            block.header.bits = 0x2000_7fff;
            block.mine();
        }),
        ("not later than the median", |block, blocks| {
            block.header.time = blocks[7].header.time;
            block.mine();
        }),
        ("s ahead of", |block, _| {
            block.header.time += 10_000;
            block.mine();
        }),
        ("the merkle root does not stand for the body", |block, _| block.batch = empty_batch()),
        ("is in the chain already", |block, blocks| {
            block.batch = blocks[3].batch.clone();
            block.mine();
        }),
        ("is in the chain already", |block, _| {
            let twice = [block.batch[0].clone(), block.batch[0].clone()];
            block.batch = Batch::from(twice);
            block.mine();
        }),
        ("the height is 99", |block, _| {
            block.height = 99;
            block.mine();
        }),
    ];
    let mut out = Output::default();
    let mut pow = open(&options, Recovered::default(), &mut out);
    let (last, rest) = blocks.split_last().expect("blocks");
    for block in rest {
        hear(&mut pow, Time(1), Message::Block(Arc::new(block.clone())), &mut out);
    }
    assert_eq!(pow.tip().0, 13);
    for (number, (why, breaks)) in cases.into_iter().enumerate() {
        let mut bent = last.clone();
        breaks(&mut bent, rest);
        out.notes.clear();
        hear(&mut pow, Time(1), Message::Block(Arc::new(bent)), &mut out);
        assert_eq!(pow.counts().rejected, number as u64 + 1, "{why}");
        assert!(out.notes.iter().any(|note| note.contains(why)), "{why}: {:?}", out.notes);
        assert_eq!(pow.tip().0, 13, "{why}");
    }
    hear(&mut pow, Time(1), Message::Block(Arc::new(last.clone())), &mut out);
    assert_eq!(pow.tip().0, 14);
}

/// A block from the future is not invalid for ever: it is taken when it is offered again in time.
#[test]
fn the_future_comes() {
    let options = options();
    let mut out = Output::default();
    let mut pow = open(&options, Recovered::default(), &mut out);
    let mut block = chain(&options, 1).remove(0);
    block.header.time += 10_000;
    block.mine();
    let block = Arc::new(block);
    hear(&mut pow, Time(1), Message::Block(block.clone()), &mut out);
    assert_eq!(pow.tip().0, 0);
    hear(&mut pow, Time(3_000_000_000_000), Message::Block(block), &mut out);
    assert_eq!(pow.tip().0, 1);
}

/// Numbers that are likely to hurt.
fn number(rng: &mut Rng) -> u64 {
    match rng.below(10) {
        0 => u64::MAX,
        1 => 1 << 60,
        2 => (1 << 60) - 1,
        _ => rng.below(20),
    }
}

fn hash(rng: &mut Rng, known: &[Block]) -> Hash {
    match rng.below(4) {
        0 => Hash([rng.below(256) as u8; 32]),
        _ => known[rng.below(known.len() as u64) as usize].header.hash(),
    }
}

/// Some block: on any known one, and in half of the cases with something wrong.
fn block(rng: &mut Rng, known: &mut Vec<Block>, options: &Options) -> Block {
    let (header, height) = match rng.below(6) {
        0 => (options.genesis(), 0),
        _ => {
            let parent = &known[rng.below(known.len() as u64) as usize];
            (parent.header, parent.height)
        }
    };
    let commands = (0..rng.below(3)).map(|_| command(rng.below(3), number(rng))).collect();
    let mut block = Block::on(&header, height.saturating_add(1), NodeId(number(rng)), commands);
    match rng.below(10) {
        0 => block.height = number(rng),
        1 => block.header.time = number(rng) as u32,
        2 => block.header.bits = number(rng) as u32,
        3 => block.header.previous = hash(rng, known),
        4 => block.batch = empty_batch(),
        _ => known.push(block.clone()),
    }
    if rng.chance(0.5) {
        block.mine_within(64);
    }
    block
}

fn root(rng: &mut Rng, known: &[Block], options: &Options) -> Root {
    let length = rng.below(known.len() as u64) + 1;
    let mut headers: Vec<Header> = vec![options.genesis()];
    headers.extend(known.iter().take(length as usize).map(|block| block.header));
    let height = if rng.chance(0.7) { length } else { number(rng).min(1 << 60) };
    Root {
        genesis: if rng.chance(0.9) { options.genesis().hash() } else { hash(rng, known) },
        height,
        work: U256::of(number(rng)),
        headers,
        highest: Arc::default(),
        seen: Default::default(),
    }
}

fn message(rng: &mut Rng, known: &mut Vec<Block>, options: &Options) -> Message {
    match rng.below(10) {
        0 => Message::Tip { hash: hash(rng, known), height: number(rng), work: U256::of(number(rng)) },
        1 => {
            let known = (0..rng.below(5)).map(|_| hash(rng, known)).collect();
            Message::Want { known, root_height: number(rng) }
        }
        2 => Message::Commands((0..rng.below(4)).map(|_| command(rng.below(4), number(rng))).collect()),
        3 => Message::Apart { root: hash(rng, known), work: U256::of(number(rng)) },
        4 => Message::Root(Box::new(root(rng, known, options))),
        _ => Message::Block(Arc::new(block(rng, known, options))),
    }
}

/// A replica that is fed anything neither panics nor leaves the rules; positions are delivered without gaps, and what it wrote opens
/// again as the same replica.
#[test]
fn hostile_inputs_never_panic() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let mut options = options();
        options.retarget_blocks = [4, 11, 1000][rng.below(3) as usize];
        (options.pool_bytes_max, options.tree_bytes_max, options.answer_bytes_max) = (2_000, 2_000, 500);
        if rng.chance(0.5) {
            options.mining = Mining::Drawn { rate: 2_000_000 };
        }
        let mut out = Output::default();
        let mut pow = open(&options, Recovered::default(), &mut out);
        let mut known = chain(&options, 3);
        let (mut records, mut snapshot): (Vec<Record>, Option<SnapshotRef>) = (Vec::new(), None);
        let (mut now, mut at, mut checkpoint_due) = (Time(1), Index::ZERO, false);
        for round in 0..200 {
            now = now + Duration::from_millis(rng.below(800));
            let from = NodeId(rng.below(4));
            let said = Message::decode_all(message(&mut rng, &mut known, &options).to_bytes());
            match (said, rng.below(10)) {
                (Ok(message @ Message::Root(_)), 0..6) => {
                    let Message::Root(root) = &message else { continue };
                    let snapshot = SnapshotRef::in_memory(Index(root.height), Bytes::from_static(b"state"));
                    pow.step(now, Input::Installed { from, message, snapshot }, &mut out);
                }
                (Ok(message), _) => pow.step(now, Input::Message { from, message }, &mut out),
                (Err(_), _) => {}
            }
            match rng.below(12) {
                0 => pow.step(now, Input::Propose(Batch::from([command(1, round)])), &mut out),
                1 => pow.step(now, Input::Read(ReadId(round)), &mut out),
                2 => pow.step(now, Input::Transfer(NodeId(9)), &mut out),
                3 => pow.step(now, Input::TransferFailed(NodeId(9)), &mut out),
                4 if out.deliveries.is_empty() => {
                    let settled = pow.settled().expect("it says what is settled");
                    if snapshot.as_ref().is_none_or(|snapshot| snapshot.at < settled) && settled > Index::ZERO
                    {
                        pow.step(now, Input::Freezing(settled), &mut out);
                        let saved = SnapshotRef::in_memory(settled, Bytes::from_static(b"state"));
                        pow.step(now, Input::Snapshot(saved.clone()), &mut out);
                        (snapshot, checkpoint_due) = (Some(saved), true);
                    }
                }
                _ => {}
            }
            if pow.deadline().is_some_and(|due| due <= now) {
                pow.step(now, Input::Timeout, &mut out);
            }
            pow.step(now, Input::Durable(out.written()), &mut out);
            pow.flush(now, &mut out);
            pow.examine().unwrap_or_else(|what| panic!("seed {seed}, round {round}: {what}"));
            for delivery in out.deliveries.drain(..) {
                match delivery {
                    Delivery::Batch { at: next, .. } => {
                        assert_eq!(next, at.next(), "seed {seed}: deliveries have no gaps");
                        at = next;
                    }
                    Delivery::Rewind { at: back } => {
                        assert!(back < at, "seed {seed}: a rewind goes back");
                        at = back;
                    }
                    Delivery::Restore(restored) => {
                        at = restored.at;
                        (snapshot, checkpoint_due) = (Some(restored), true);
                    }
                    other => panic!("{other:?}"),
                }
            }
            records.append(&mut out.records);
            if std::mem::take(&mut checkpoint_due) {
                records.clear();
                pow.checkpoint(&mut records);
            }
            out.messages.clear();
            out.notes.clear();
            out.answers.clear();
        }
        let again = records.iter().map(|record| Record::decode_all(record.to_bytes()).expect("it decodes"));
        let found = Recovered { records: again.collect(), snapshot };
        let reopened = open(&options, found, &mut Output::default());
        assert_eq!(reopened.tip().2, pow.tip().2, "seed {seed}: the same work");
        assert!(reopened.examine().is_ok(), "seed {seed}");
    }
}

/// A log of a chain with other rules is told from one's own, by its blocks as by its root.
#[test]
fn another_chain_is_another_chain() {
    let (ours, theirs) = (options(), Options { chain: "other".to_owned(), ..options() });
    let blocks = chain(&theirs, 2).into_iter().map(|block| Record::Block(Arc::new(block)));
    let records: Vec<Record> = blocks.collect();
    assert_eq!(check_chain_of(&theirs, &records), Ok(()));
    let wrong = WrongChain { found: theirs.genesis().hash(), made: ours.genesis().hash() };
    assert_eq!(check_chain_of(&ours, &records), Err(wrong));
    let mut out = Output::default();
    let mut root = Vec::new();
    open(&theirs, Recovered::default(), &mut out).checkpoint(&mut root);
    assert_eq!(check_chain_of(&ours, &root), Err(wrong));
}
