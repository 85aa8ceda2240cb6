//! What a replica may say of its own disk, and when; and what it keeps in memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use synod_core::{
    Command, CommandId, Config, Index, Input, Lsn, Members, NodeId, Output, Patience, Protocol, Recovered,
    SnapshotRef, Time,
};
use synod_protocols::raft::{Body, Entry, Message, Options, Position, Purpose, Raft, Record, Term};

struct Bench {
    raft: Raft,
    out: Output<Raft>,
    now: Time,
}

fn options() -> Options {
    Options::timed(Duration::from_millis(10), Duration::from_millis(100))
}

impl Bench {
    fn new(found: Recovered<Record>) -> Bench {
        Bench::with(options(), found)
    }

    fn with(options: Options, found: Recovered<Record>) -> Bench {
        let config = Config { id: NodeId(1), members: Members::of((1..=3).map(NodeId)), seed: 7, options };
        let (mut out, now) = (Output::default(), Time(1));
        let raft = Raft::open(&config, found, now, &mut out);
        let mut bench = Bench { raft, out, now };
        bench.raft.flush(now, &mut bench.out);
        bench
    }

    fn step(&mut self, input: Input<Message>) {
        self.raft.step(self.now, input, &mut self.out);
        self.raft.flush(self.now, &mut self.out);
    }

    fn hear(&mut self, from: u64, message: Message) {
        self.step(Input::Message { from: NodeId(from), message });
    }

    fn said(&mut self) -> Vec<(Message, Patience)> {
        self.out.messages.drain(..).map(|outbound| (outbound.message, outbound.patience)).collect()
    }
}

fn at(index: u64, term: u64) -> Position {
    Position { index: Index(index), term: Term(term) }
}

fn entry(term: u64, word: &'static str) -> Entry {
    let id = CommandId { origin: NodeId(9), number: term };
    Entry {
        term: Term(term),
        body: Body::Batch(Arc::from([Command { id, payload: Bytes::from_static(word.as_bytes()) }])),
    }
}

fn append(term: u64, previous: Position, entries: Vec<Entry>) -> Message {
    Message::Append { term: Term(term), previous, entries, commit: Index(0) }
}

/// Index 2 is written in term 1, cut, and written again in term 2. How far the log is confirmed to be durable when the
/// old entry is on disk, when the new term is, and when the new entry is.
fn confirmed_after_rewriting(options: Options) -> [Index; 3] {
    let mut bench = Bench::with(options, Recovered::default());
    bench.hear(2, append(1, at(0, 0), vec![entry(1, "a"), entry(1, "old")]));
    let old = bench.out.written();
    bench.hear(3, append(2, at(1, 1), vec![entry(2, "new")]));
    assert_eq!(bench.out.written(), Lsn(old.0 + 2), "the term and the new entry");
    [0, 1, 2].map(|more| {
        bench.step(Input::Durable(Lsn(old.0 + more)));
        bench.said();
        bench.hear(3, Message::Heartbeat { term: Term(2), commit: Index(0), round: 0, sent: Time(0) });
        match bench.said().pop() {
            Some((Message::HeartbeatAck { received: Index(2), durable, .. }, Patience::Early)) => durable,
            other => panic!("a heartbeat is answered at once: {other:?}"),
        }
    })
}

/// The ABA trap: that the first writing of an index reaches the disk says nothing about the second.
#[test]
fn an_old_write_does_not_count_for_a_new_entry() {
    assert_eq!(confirmed_after_rewriting(options()), [Index(0), Index(1), Index(2)]);
}

/// And if it did count, the test above would notice.
#[test]
#[cfg(feature = "mutants")]
fn an_old_write_that_counts_is_noticed() {
    let mut options = options();
    options.mutant = Some(synod_protocols::raft::Mutant::CountsOldWrites);
    assert_eq!(confirmed_after_rewriting(options), [Index(0), Index(2), Index(2)]);
}

/// Votes and confirmations wait for the record that they rest on; refusals, rejections and questions do not.
#[test]
fn promises_wait_and_the_rest_does_not() {
    let mut bench = Bench::new(Recovered::default());
    let ask = |term, purpose| Message::RequestVote { term: Term(term), last: at(0, 0), purpose };
    bench.hear(2, ask(1, Purpose::Probe));
    assert!(matches!(bench.said()[..], [(Message::Vote { granted: true, .. }, Patience::Early)]));
    bench.hear(2, ask(1, Purpose::Election));
    let vote = bench.out.written();
    match bench.said()[..] {
        [(Message::Vote { granted: true, .. }, Patience::Durable(mark))] => assert_eq!(mark, vote),
        ref other => panic!("{other:?}"),
    }
    bench.hear(3, ask(1, Purpose::Election));
    assert!(matches!(bench.said()[..], [(Message::Vote { granted: false, .. }, Patience::Early)]));
    bench.hear(2, append(1, at(0, 0), vec![entry(1, "a")]));
    match bench.said()[..] {
        [(Message::Appended { matched: Index(1), .. }, Patience::Durable(mark))] => {
            assert_eq!(mark, bench.out.written());
        }
        ref other => panic!("{other:?}"),
    }
    bench.hear(2, append(1, at(7, 1), vec![]));
    assert!(matches!(bench.said()[..], [(Message::Rejected { .. }, Patience::Early)]));
}

/// A heartbeat of an old term that comes late is answered with the new term alone: whoever led then may lead again, and counts its rounds and
/// its clock from the beginning. (Seed 1724 of the simulator: a read was confirmed by an answer to a round of three terms before.)
#[test]
fn an_old_heartbeat_confirms_nothing_in_a_new_term() {
    let mut bench = Bench::new(Recovered::default());
    let heartbeat =
        |term, round| Message::Heartbeat { term: Term(term), commit: Index(0), round, sent: Time(5) };
    bench.hear(2, heartbeat(4, 1));
    bench.said();
    bench.hear(2, heartbeat(1, 38));
    let said: Vec<Message> = bench.said().into_iter().map(|(message, _)| message).collect();
    assert_eq!(said, [Message::Appended { term: Term(4), matched: Index(0) }]);
}

/// A candidate is elected only when its own vote is durable, though others may have answered before.
#[test]
fn ones_own_vote_counts_when_it_is_durable() {
    let mut bench = Bench::new(Recovered::default());
    bench.step(Input::Durable(bench.out.written()));
    bench.now = Time(10_000_000_000);
    bench.step(Input::Timeout);
    bench.hear(2, Message::Vote { term: Term(1), purpose: Purpose::Probe, granted: true });
    let vote = bench.out.written();
    assert_eq!(bench.out.records.last(), Some(&Record::Vote { term: Term(1), voted_for: Some(NodeId(1)) }));
    assert_eq!(bench.raft.status().role, synod_core::Role::Candidate);
    bench.step(Input::Durable(vote));
    assert_eq!(bench.raft.status().role, synod_core::Role::Candidate, "one of three is no majority");
    bench.hear(2, Message::Vote { term: Term(1), purpose: Purpose::Election, granted: true });
    assert_eq!(bench.raft.status().role, synod_core::Role::Leader);
}

/// The state may be ahead of the log after a crash (a snapshot was saved, its records were not): deliveries go on
/// where the state ends, once that much is known to be committed.
#[test]
fn a_state_ahead_of_its_log_is_not_replayed() {
    let records = vec![
        Record::Vote { term: Term(1), voted_for: None },
        Record::Entry { at: Index(1), entry: entry(1, "a") },
        Record::Entry { at: Index(2), entry: entry(1, "b") },
    ];
    let snapshot = Some(SnapshotRef::in_memory(Index(3), Bytes::from_static(b"abc")));
    let mut bench = Bench::new(Recovered { records, snapshot });
    let more = vec![entry(1, "c"), entry(1, "d")];
    let message = Message::Append { term: Term(1), previous: at(2, 1), entries: more, commit: Index(4) };
    bench.hear(2, message);
    let delivered: Vec<String> =
        bench.out.deliveries.iter().map(|delivery| format!("{delivery:?}")).collect();
    assert_eq!(delivered.len(), 1, "{delivered:?}");
    assert!(delivered[0].contains("at: @4"), "{delivered:?}");
}

/// A state that is older than its log (its snapshot was damaged) takes part in everything but leading, and asks
/// its leader for a snapshot.
#[test]
fn a_state_behind_its_log_asks_for_a_snapshot() {
    let members = Arc::new(Members::of((1..=3).map(NodeId)));
    let records = vec![
        Record::Vote { term: Term(1), voted_for: None },
        Record::SnapshotBase { last: at(5, 1), members: members.clone() },
        Record::Entry { at: Index(6), entry: entry(1, "f") },
    ];
    let mut bench = Bench::new(Recovered { records, snapshot: None });
    assert_eq!(bench.raft.deadline(), None, "it does not seek election");
    bench.hear(2, Message::Heartbeat { term: Term(1), commit: Index(6), round: 0, sent: Time(0) });
    let asked = bench
        .said()
        .into_iter()
        .any(|(message, _)| matches!(message, Message::NeedSnapshot { from: Index(5), .. }));
    assert!(asked && bench.out.deliveries.is_empty());
    let message = Message::InstallSnapshot { term: Term(1), last: at(5, 1), members };
    let snapshot = SnapshotRef::in_memory(Index(5), Bytes::from_static(b"state"));
    bench.step(Input::Installed { from: NodeId(2), message, snapshot });
    bench.hear(2, append(1, at(6, 1), vec![]));
    bench.hear(2, Message::Committed { term: Term(1), commit: Index(6) });
    assert_eq!(bench.out.deliveries.len(), 2, "the state, and what follows it: {:?}", bench.out.deliveries);
}

/// A leader whose state is ahead of its log's commit index can bring up a new voter by its newest snapshot, though nothing
/// can be committed before that voter is there.
#[test]
fn a_leader_knows_what_its_own_state_holds() {
    let records = vec![
        Record::SnapshotBase { last: at(2, 1), members: Arc::new(Members::of([NodeId(1), NodeId(2)])) },
        Record::Entry { at: Index(3), entry: entry(1, "c") },
    ];
    let snapshot = Some(SnapshotRef::in_memory(Index(3), Bytes::from_static(b"abc")));
    let mut bench = Bench::new(Recovered { records, snapshot });
    bench.step(Input::Durable(bench.out.written()));
    bench.now = Time(10_000_000_000);
    bench.step(Input::Timeout);
    bench.hear(2, Message::Vote { term: Term(1), purpose: Purpose::Probe, granted: true });
    bench.step(Input::Durable(bench.out.written()));
    let term = Term(bench.raft.status().term);
    bench.hear(2, Message::Vote { term, purpose: Purpose::Election, granted: true });
    bench.said();
    bench.hear(2, Message::Rejected { term, probe: Index(3), hint: at(0, 0) });
    match &bench.said()[..] {
        [(Message::InstallSnapshot { last, .. }, Patience::Snapshot)] => assert_eq!(*last, at(3, 1)),
        other => panic!("the newest snapshot is sent: {other:?}"),
    }
}

/// A leader keeps what it has delivered only up to its limit, and takes no more once what it may not drop fills the
/// backlog's: with a peer that is away, or a disk that is stuck, memory stays bounded.
#[test]
fn memory_is_bounded() {
    let options = Options { log_bytes_max: 10_000, backlog_bytes_max: 40_000, ..options() };
    let found = vec![Record::SnapshotBase { last: at(1, 1), members: Arc::new(Members::of([NodeId(1)])) }];
    let snapshot = Some(SnapshotRef::in_memory(Index(1), Bytes::from_static(b"state")));
    let mut bench = Bench::with(options, Recovered { records: found, snapshot });
    bench.step(Input::Durable(bench.out.written()));
    bench.now = Time(10_000_000_000);
    bench.step(Input::Timeout);
    bench.step(Input::Durable(bench.out.written()));
    let kept = |bench: &Bench| bench.raft.entries().count();
    let propose = |bench: &mut Bench| {
        let Body::Batch(batch) = entry(9, "x").body else { unreachable!() };
        bench.step(Input::Propose(batch));
    };
    for _ in 0..1000 {
        propose(&mut bench);
        bench.step(Input::Durable(bench.out.written()));
    }
    assert_eq!(bench.out.answers.len(), 0, "nothing is refused");
    assert!(kept(&bench) < 110, "{} entries of about 100 bytes in 10,000", kept(&bench));
    // The disk is stuck: what is not decided stays, and fills the backlog.
    for _ in 0..1000 {
        propose(&mut bench);
    }
    assert!(kept(&bench) < 420, "{} entries of about 100 bytes in 40,000", kept(&bench));
    assert!(bench.out.answers.len() > 500, "the rest is refused as busy");
    // A snapshot is being written: what follows it stays, too.
    bench.step(Input::Durable(bench.out.written()));
    bench.step(Input::Durable(bench.out.written()));
    let at = bench.raft.status().decided;
    bench.step(Input::Freezing(at));
    bench.out.answers.clear();
    for _ in 0..1000 {
        propose(&mut bench);
        bench.step(Input::Durable(bench.out.written()));
    }
    assert!(kept(&bench) < 420 && !bench.out.answers.is_empty(), "{}", kept(&bench));
    // It is saved: the checkpoint begins right behind it, and memory is what it was.
    bench.step(Input::Snapshot(SnapshotRef::in_memory(at, Bytes::from_static(b"more"))));
    let mut records = Vec::new();
    bench.raft.checkpoint(&mut records);
    let first = records.iter().find_map(|record| match record {
        Record::Entry { at, .. } => Some(*at),
        _ => None,
    });
    assert_eq!(first, Some(at.next()));
    bench.step(Input::Durable(bench.out.written()));
    assert!(kept(&bench) < 110, "{}", kept(&bench));
}
