//! PBFT among replicas that lie: what each lie comes to, and how many messages a decision takes where nobody does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use synod_core::{
    Batch, Change, Command, CommandId, Config, Delivery, Index, Input, Lsn, Members, NodeId, Output,
    Protocol, ReadId, Recovered, Rng, Role, SnapshotRef, Time,
};
use synod_protocols::pbft::{
    Base, Certificate, Claim, Content, Digest, Keys, Message, NewView, Options, Pbft, Point, Progress,
    Proposal, Record, Request, Sealed, Signature, Subject, View, ViewChange, digest,
};

/// One replica whose disk is as fast as its thoughts.
struct Node {
    id: NodeId,
    pbft: Pbft,
    out: Output<Pbft>,
    now: Time,
}

fn keys(id: u64) -> Keys {
    Keys::from_names().of(NodeId(id))
}

fn options() -> Options {
    Options {
        view_timeout: Duration::from_millis(100),
        heartbeat: Duration::from_millis(10),
        checkpoint_every: 4,
        window: 8,
        ..Options::default()
    }
}

impl Node {
    fn new(id: u64, nodes: u64) -> Node {
        let mut node = Node::found(id, nodes, Recovered::default());
        node.input(Input::Timeout);
        node
    }

    fn found(id: u64, nodes: u64, found: Recovered<Record>) -> Node {
        let members = Members::of((1..=nodes).map(NodeId));
        let config = Config { id: NodeId(id), members, seed: id, options: options() };
        let mut out = Output::default();
        let pbft = Pbft::open(&config, found, Time(1), &mut out);
        Node { id: NodeId(id), pbft, out, now: Time(1) }
    }

    /// Takes an input; everything that it writes is durable at once.
    fn input(&mut self, input: Input<Sealed>) {
        self.pbft.step(self.now, input, &mut self.out);
        self.settle();
    }

    fn settle(&mut self) {
        loop {
            self.pbft.flush(self.now, &mut self.out);
            if self.out.records.is_empty() {
                return;
            }
            self.out.records.clear();
            let upto = self.out.written();
            self.pbft.step(self.now, Input::Durable(upto), &mut self.out);
        }
    }

    /// The replica (n2 in most stories) hears a message that really is by this one.
    fn hears(&mut self, from: u64, message: Message) {
        let sealed = Sealed::new(message, self.id, &keys(from));
        self.input(Input::Message { from: NodeId(from), message: sealed });
    }

    fn said(&mut self) -> Vec<Message> {
        self.out.messages.drain(..).map(|outbound| outbound.message.message).collect()
    }

    fn view(&self) -> u64 {
        self.pbft.status().term
    }
}

fn command(origin: u64, number: u64) -> Batch {
    let id = CommandId { origin: NodeId(origin), number };
    Arc::from([Command { id, payload: Bytes::from_static(b"x") }])
}

fn request(origin: u64, number: u64) -> Arc<Request> {
    Arc::new(Request::new(NodeId(origin), (1 << 32) + number, command(origin, number), &keys(origin)))
}

fn proposal(origin: u64, number: u64) -> Arc<Proposal> {
    Arc::new(Proposal::new(vec![request(origin, number)]))
}

fn pre_prepare(view: u64, at: u64, proposal: &Arc<Proposal>) -> Message {
    Message::PrePrepare { view: View(view), at: Index(at), proposal: proposal.clone() }
}

fn agrees(said: &[Message]) -> bool {
    said.iter().any(|message| matches!(message, Message::Prepare { .. }))
}

/// A decision among n takes n - 1 pre-prepares, (n - 1)^2 prepares and n (n - 1) commits: 2n (n - 1) in all, as the paper's
/// protocol has it: 24, 84 and 180 for f = 1, 2, 3.
#[test]
fn a_decision_takes_as_many_messages_as_the_paper_says() {
    for (n, all) in [(4u64, 24usize), (7, 84), (10, 180)] {
        let mut nodes: Vec<Node> = (1..=n).map(|id| Node::new(id, n)).collect();
        for node in &mut nodes {
            node.out.messages.clear();
        }
        nodes[0].input(Input::Propose(command(1, 1)));
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        loop {
            let mut under_way = Vec::new();
            for (place, node) in nodes.iter_mut().enumerate() {
                let from = NodeId(place as u64 + 1);
                under_way.extend(node.out.messages.drain(..).map(|it| (from, it.to, it.message)));
            }
            if under_way.is_empty() {
                break;
            }
            for (from, to, message) in under_way {
                let name = format!("{message:?}");
                let name = name.split([' ', '(']).next().unwrap_or_default().to_owned();
                *counts.entry(name).or_default() += 1;
                nodes[to.0 as usize - 1].input(Input::Message { from, message });
            }
        }
        let n = n as usize;
        assert_eq!(counts["PrePrepare"], n - 1);
        assert_eq!(counts["Prepare"], (n - 1) * (n - 1));
        assert_eq!(counts["Commit"], n * (n - 1));
        assert_eq!((counts.values().sum::<usize>(), 2 * n * (n - 1)), (all, all));
        for node in &nodes {
            assert_eq!(node.out.deliveries.len(), 1, "every replica executes it");
        }
    }
}

/// Whoever sees a primary give one number to two proposals leaves its view at once, and says so under its signature.
#[test]
fn an_equivocating_primary_is_caught() {
    let mut n2 = Node::new(2, 4);
    n2.hears(1, pre_prepare(0, 1, &proposal(1, 1)));
    assert!(agrees(&n2.said()));
    n2.hears(1, pre_prepare(0, 1, &proposal(1, 1)));
    assert_eq!(n2.view(), 0, "the same again is no lie");
    n2.hears(1, pre_prepare(0, 1, &proposal(3, 1)));
    assert_eq!(n2.view(), 1);
    let left =
        n2.said().into_iter().any(|it| matches!(it, Message::ViewChange(said) if said.view == View(1)));
    assert!(left);
    n2.hears(1, pre_prepare(0, 2, &proposal(1, 2)));
    assert!(!agrees(&n2.said()), "it takes no part in the view that it left");
}

/// What is not said by whom it should be, or lies outside the watermarks or the view, is not agreed to.
#[test]
fn what_is_out_of_place_is_ignored() {
    let mut n2 = Node::new(2, 4);
    n2.said();
    let good = proposal(1, 1);
    n2.hears(3, pre_prepare(0, 1, &good));
    n2.hears(1, pre_prepare(1, 1, &good));
    n2.hears(1, pre_prepare(0, 0, &good));
    n2.hears(1, pre_prepare(0, 9, &good));
    n2.hears(1, pre_prepare(0, 1, &Arc::new(Proposal::null())));
    assert!(!agrees(&n2.said()));
    // n3 says that it is n1; n1 says something to n3, who passes it on.
    let forged = Sealed::new(pre_prepare(0, 1, &good), NodeId(2), &keys(3));
    n2.input(Input::Message { from: NodeId(1), message: forged });
    let passed_on = Sealed::new(pre_prepare(0, 1, &good), NodeId(3), &keys(1));
    n2.input(Input::Message { from: NodeId(1), message: passed_on });
    // From nobody, and from itself.
    let stranger = Sealed::new(pre_prepare(0, 1, &good), NodeId(2), &keys(9));
    n2.input(Input::Message { from: NodeId(9), message: stranger.clone() });
    n2.input(Input::Message { from: NodeId(2), message: stranger });
    assert!(!agrees(&n2.said()));
    assert_eq!(n2.view(), 0);
    n2.hears(1, pre_prepare(0, 8, &good));
    assert!(agrees(&n2.said()), "the high watermark itself is within");
}

/// A request that its origin did not sign, or with commands of another's clients, is not agreed to.
#[test]
fn forged_requests_are_not_agreed_to() {
    let mut n2 = Node::new(2, 4);
    n2.said();
    let forge = |origin: u64, batch: Batch, signer: u64| {
        let signed = Request::new(NodeId(origin), 1 << 32, batch.clone(), &keys(signer));
        let request = Request::received(None, NodeId(origin), 1 << 32, batch, signed.signature);
        Arc::new(Proposal::new(vec![Arc::new(request)]))
    };
    n2.hears(1, pre_prepare(0, 1, &forge(3, command(3, 1), 1)));
    n2.hears(1, pre_prepare(0, 1, &forge(1, command(3, 1), 1)));
    n2.hears(1, pre_prepare(0, 1, &forge(9, command(9, 1), 9)));
    assert!(!agrees(&n2.said()));
    n2.hears(1, pre_prepare(0, 1, &forge(3, command(3, 1), 3)));
    assert!(agrees(&n2.said()));
}

fn bound(view: u64, origin: u64, number: u64) -> Arc<Proposal> {
    let number = (1 << 32) + number;
    let request =
        Request::within(Some(View(view)), NodeId(origin), number, command(origin, number), &keys(origin));
    Arc::new(Proposal::new(vec![Arc::new(request)]))
}

/// What a primary wants ordered in its view alone (the end of a lease, say) gets a number from it and there, and from nobody else
/// later: neither by itself when it leads no more, nor from a liar who kept it.
#[test]
fn what_is_meant_for_one_view_falls_with_it() {
    let mut n1 = Node::new(1, 4);
    n1.said();
    n1.pbft.propose_as_leader(n1.now, command(1, 1), &mut n1.out);
    n1.settle();
    let proposed = |said: &[Message]| {
        said.iter()
            .any(|it| matches!(it, Message::PrePrepare { proposal, .. } if !proposal.requests.is_empty()))
    };
    assert!(proposed(&n1.said()));
    let mut n2 = Node::new(2, 4);
    let is_agreed_to = |n2: &mut Node, view: u64, at: u64, proposal: &Arc<Proposal>| {
        n2.said();
        n2.hears(1 + view % 4, pre_prepare(view, at, proposal));
        agrees(&n2.said())
    };
    assert!(is_agreed_to(&mut n2, 0, 1, &bound(0, 1, 1)));
    assert!(!is_agreed_to(&mut n2, 0, 2, &bound(0, 3, 1)), "n3 is not the primary");
    assert!(!is_agreed_to(&mut n2, 0, 2, &bound(4, 1, 2)), "of another view");
    // n2 leads next. What n1 left behind it has heard of, from n1 and from others; it orders none of it.
    let loose = bound(0, 1, 3).requests[0].clone();
    n2.hears(3, Message::Request(loose.clone()));
    for id in [3, 4] {
        n2.hears(id, Message::ViewChange(view_change(1, id, id, &[])));
    }
    assert_eq!((n2.view(), n2.pbft.status().role), (1, Role::Primary));
    n2.hears(1, Message::Request(loose));
    assert!(!proposed(&n2.said()));
    // Nor does n1 take it any more, once it does not lead.
    n1.hears(2, Message::ViewChange(view_change(1, 2, 2, &[])));
    n1.hears(3, Message::ViewChange(view_change(1, 3, 3, &[])));
    n1.pbft.propose_as_leader(n1.now, command(1, 2), &mut n1.out);
    assert!(n1.out.answers.iter().any(|it| matches!(it, synod_core::Answer::Refused { .. })));
}

fn point(at: u64) -> Point {
    Point { at: Index(at), history: digest(&[b"history"]) }
}

fn certificate(at: u64, signers: &[u64]) -> Certificate {
    let sign = |id: &u64| (NodeId(*id), keys(*id).sign(Subject::Checkpoint, point(at).digest()));
    Certificate { point: point(at), signatures: signers.iter().map(sign).collect() }
}

/// A proof takes a quorum of signers: one of them twice, one that is nobody, or one bad signature, and it proves nothing.
#[test]
fn a_repeated_signer_proves_nothing() {
    let stable = |certificate: Certificate| {
        let mut n2 = Node::new(2, 4);
        n2.said();
        n2.hears(1, Message::Stable(Arc::new(certificate)));
        // What a replica believes shows in what it says of itself.
        n2.now = Time(n2.now.0 + 20_000_000);
        n2.input(Input::Timeout);
        n2.said().into_iter().find_map(|it| match it {
            Message::Status(progress) => Some(progress.stable),
            _ => None,
        })
    };
    assert_eq!(stable(certificate(4, &[1, 3, 4])), Some(Index(4)));
    assert_eq!(stable(certificate(4, &[1, 3, 3])), Some(Index(0)));
    assert_eq!(stable(certificate(4, &[1, 3])), Some(Index(0)));
    assert_eq!(stable(certificate(4, &[1, 3, 9])), Some(Index(0)));
    let mut bad = certificate(4, &[1, 3, 4]);
    bad.signatures[1].1 = Signature([9; 64]);
    assert_eq!(stable(bad), Some(Index(0)));
    let mut other = certificate(4, &[1, 3, 4]);
    other.point.at = Index(8);
    assert_eq!(stable(other), Some(Index(0)));
}

fn view_change(view: u64, replica: u64, signer: u64, prepared: &[Claim]) -> Arc<ViewChange> {
    let mut said = ViewChange {
        view: View(view),
        replica: NodeId(replica),
        stable: Certificate::default(),
        prepared: prepared.to_vec(),
        pre_prepared: prepared.to_vec(),
        signature: Signature([0; 64]),
    };
    said.signature = keys(signer).sign(Subject::ViewChange, said.digest());
    Arc::new(said)
}

/// f + 1 replicas that leave are followed; a forged word, one said twice, or one of a view gone by counts for nothing.
#[test]
fn forged_view_changes_count_for_nothing() {
    let mut n2 = Node::new(2, 4);
    n2.hears(3, Message::ViewChange(view_change(5, 3, 3, &[])));
    n2.hears(3, Message::ViewChange(view_change(6, 3, 3, &[])));
    n2.hears(3, Message::ViewChange(view_change(5, 4, 3, &[])));
    n2.hears(4, Message::ViewChange(view_change(5, 4, 3, &[])));
    n2.hears(4, Message::ViewChange(view_change(0, 4, 4, &[])));
    let outside = Claim { at: Index(9), view: View(0), digest: digest(&[b"x"]) };
    n2.hears(4, Message::ViewChange(view_change(5, 4, 4, &[outside])));
    let later = Claim { at: Index(1), view: View(7), digest: digest(&[b"x"]) };
    n2.hears(4, Message::ViewChange(view_change(5, 4, 4, &[later])));
    assert_eq!(n2.view(), 0, "n3 alone wants to leave");
    n2.hears(4, Message::ViewChange(view_change(5, 4, 4, &[])));
    assert_eq!(n2.view(), 5, "the lowest view that somebody honest may want");
}

/// A new view is believed when it follows from the view changes in it, of a quorum, each by another replica.
#[test]
fn a_wrong_new_view_is_not_believed() {
    let made = digest(&[b"made"]);
    let prepared = Claim { at: Index(1), view: View(0), digest: made };
    let said = |claims: &[Claim]| -> Vec<Arc<ViewChange>> {
        [1, 3, 4].iter().map(|id| view_change(2, *id, *id, claims)).collect()
    };
    let new_view = |view_changes: Vec<Arc<ViewChange>>, selection: Vec<Digest>, signer: u64| {
        let (view, signature) = (View(2), Signature([0; 64]));
        let mut new_view = NewView { view, view_changes, selection, signature };
        new_view.signature = keys(signer).sign(Subject::NewView, new_view.digest());
        Message::NewView(Arc::new(new_view))
    };
    let view_after = |message: Message| {
        let mut n2 = Node::new(2, 4);
        n2.hears(3, message);
        n2.view()
    };
    assert_eq!(view_after(new_view(said(&[]), vec![], 3)), 2);
    assert_eq!(view_after(new_view(said(&[prepared]), vec![made], 3)), 2);
    assert_eq!(view_after(new_view(said(&[prepared]), vec![], 3)), 0, "it drops what prepared");
    let null = Proposal::null().digest();
    assert_eq!(view_after(new_view(said(&[prepared]), vec![null], 3)), 0, "it puts nothing in its place");
    assert_eq!(view_after(new_view(said(&[]), vec![made], 3)), 0, "it adds what nobody prepared");
    assert_eq!(view_after(new_view(said(&[]), vec![], 1)), 0, "n1 is not the primary of view 2");
    let one = view_change(2, 1, 1, &[]);
    assert_eq!(
        view_after(new_view(vec![one.clone(), one.clone(), one], vec![], 3)),
        0,
        "one voice three times"
    );
    assert_eq!(view_after(new_view(said(&[])[..2].to_vec(), vec![], 3)), 0, "two voices of four");
}

/// Whoever is to begin a view asks once for what it must propose and does not hold, and begins when it has all of it. An answer brings
/// forth no further questions: it did, of all that was still missing to all others, and every answer to those did so again, until
/// memory was full of questions.
#[test]
fn answers_ask_for_nothing_anew() {
    let mut n2 = Node::new(2, 4);
    let selected: Vec<Arc<Proposal>> = (1..=4).map(|number| proposal(1, number)).collect();
    let claims: Vec<Claim> = (1..)
        .zip(&selected)
        .map(|(at, it)| Claim { at: Index(at), view: View(0), digest: it.digest() })
        .collect();
    for id in [1, 3, 4] {
        n2.hears(id, Message::ViewChange(view_change(1, id, id, &claims)));
    }
    let questions =
        |said: &[Message]| said.iter().filter(|it| matches!(it, Message::FetchProposal { .. })).count();
    let begins = |said: &[Message]| said.iter().any(|it| matches!(it, Message::NewView(_)));
    assert!(questions(&n2.said()) >= 4 * 3, "each of the four is asked of all three others");
    for (at, proposal) in (1..).zip(&selected) {
        for from in [1, 3, 4] {
            n2.hears(from, Message::Fetched { at: Index(at), proposal: proposal.clone() });
        }
        let said = n2.said();
        assert_eq!(questions(&said), 0);
        assert_eq!(begins(&said), at == 4);
    }
    assert_eq!(n2.view(), 1);
}

/// A liar's rubbish takes no room from what the others give.
#[test]
fn contents_of_fancy_take_nobodys_room() {
    let mut n2 = Node::new(2, 4);
    let past: Vec<Arc<Proposal>> = (1..=60).map(|number| proposal(1, number)).collect();
    let digests: Vec<Digest> = past.iter().map(|it| it.digest()).collect();
    n2.hears(1, Message::Decided { from: Index(1), digests: digests.clone(), proposals: past });
    for number in 0..10 {
        let rubbish = (0..60).map(|place| proposal(3, 1 + number * 60 + place)).collect();
        n2.hears(4, Message::Decided { from: Index(1), digests: Vec::new(), proposals: rubbish });
    }
    n2.hears(3, Message::Decided { from: Index(1), digests, proposals: Vec::new() });
    assert_eq!(n2.out.deliveries.len(), 60);
}

/// One liar's word about the past is not believed, with whatever content; two that say the same are.
#[test]
fn one_voice_about_the_past_is_not_believed() {
    let mut n2 = Node::new(2, 4);
    let past = proposal(1, 1);
    let told = |proposal: &Arc<Proposal>| Message::Decided {
        from: Index(1),
        digests: vec![proposal.digest()],
        proposals: vec![proposal.clone()],
    };
    n2.hears(3, told(&past));
    n2.hears(3, told(&past));
    n2.hears(4, told(&proposal(1, 2)));
    assert!(n2.out.deliveries.is_empty());
    n2.hears(1, told(&past));
    assert_eq!(n2.out.deliveries.len(), 1);
}

/// A snapshot that nobody, or one replica alone, vouches for is thrown away; so is one that is not what was vouched for.
#[test]
fn unproven_snapshots_are_thrown_away() {
    let bytes = Bytes::from_static(b"state");
    let installs = |bytes: &Bytes, signers: &[u64]| {
        let mut n2 = Node::new(2, 4);
        install(&mut n2, bytes, signers);
        n2.out.deliveries.iter().any(|it| matches!(it, Delivery::Restore(_)))
    };
    assert!(installs(&bytes, &[1, 3]));
    assert!(!installs(&bytes, &[3]));
    assert!(!installs(&bytes, &[3, 3]));
    assert!(!installs(&bytes, &[3, 9]));
    assert!(!installs(&Bytes::from_static(b"stale"), &[1, 3]));
}

/// n3 sends a snapshot at 4.
fn install(node: &mut Node, bytes: &Bytes, signers: &[u64]) {
    let base = Base { point: point(4), ..Base::default() };
    let sum = Digest(sha256(b"state"));
    // The two parts of what is attested are put together as the protocol does it.
    let executed = digest(&[&synod_core::Wire::to_bytes(&base.executed)]);
    let state = digest(&[&base.point.digest().0, &executed.0, &sum.0]);
    let proof = signers.iter().map(|id| (NodeId(*id), keys(*id).sign(Subject::Saved, state))).collect();
    let message = Message::InstallSnapshot { base: Arc::new(base), sum, proof };
    let message = Sealed::new(message, node.id, &keys(3));
    let snapshot = SnapshotRef::in_memory(Index(4), bytes.clone());
    node.input(Input::Installed { from: NodeId(3), message, snapshot });
}

/// A primary that takes over a peer's snapshot lets another one lead: what it kept beside its machine (which leases it had found to be
/// over) is gone, and what it asked for because of that must not be decided after it has promised otherwise.
#[test]
fn a_primary_that_takes_over_a_state_leaves() {
    for (id, view) in [(1, 1), (2, 0)] {
        let mut node = Node::new(id, 4);
        install(&mut node, &Bytes::from_static(b"state"), &[1, 3]);
        assert_eq!((node.view(), node.pbft.status().decided), (view, Index(4)));
    }
}

/// A replica that comes to a checkpoint by a peer's snapshot, or comes back to one, says so as if it had executed all before it:
/// with another replica away, nothing became stable where the window ends.
#[test]
fn who_comes_to_a_checkpoint_says_so() {
    let is_said = |node: &mut Node| {
        node.said().iter().any(|it| matches!(it, Message::Checkpoint { point, .. } if point.at == Index(4)))
    };
    let mut n2 = Node::new(2, 4);
    install(&mut n2, &Bytes::from_static(b"state"), &[1, 3]);
    assert!(is_said(&mut n2));
    let mut records = Vec::new();
    n2.pbft.checkpoint(&mut records);
    let snapshot = Some(SnapshotRef::in_memory(Index(4), Bytes::from_static(b"state")));
    let mut again = Node::found(2, 4, Recovered { records, snapshot });
    assert!(is_said(&mut again));
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&[bytes]).0
}

/// Numbers that are likely to hurt.
fn number(rng: &mut Rng) -> u64 {
    match rng.below(12) {
        0 => 1 << 60,
        1 => (1 << 60) - 1,
        2 => 1 << 32,
        _ => rng.below(12),
    }
}

fn any_message(rng: &mut Rng, from: u64) -> Message {
    let (view, at) = (View(number(rng)), Index(number(rng)));
    let some = proposal(1 + rng.below(4), rng.below(3));
    let name = if rng.chance(0.5) { some.digest() } else { digest(&[&rng.below(3).to_le_bytes()]) };
    let claim = Claim { at: Index(rng.below(10)), view: View(rng.below(3)), digest: name };
    match rng.below(15) {
        0 => Message::Request(request(1 + rng.below(5), rng.below(5))),
        1 | 2 => Message::PrePrepare { view: View(rng.below(3)), at: Index(rng.below(10)), proposal: some },
        3 => Message::Prepare { view, at, digest: name },
        4 => Message::Commit { view: View(rng.below(3)), at: Index(rng.below(10)), digest: name },
        5 => {
            let signature = keys(from).sign(Subject::Checkpoint, point(at.0).digest());
            Message::Checkpoint { point: point(at.0), signature }
        }
        6 => Message::Stable(Arc::new(certificate(rng.below(3) * 4, &[1, 3, 4]))),
        7 => Message::Saved { at, state: name, signature: keys(from).sign(Subject::Saved, name) },
        8 => Message::ViewChange(view_change(rng.below(4), from, from, &[claim])),
        9 => Message::NewView(Arc::new(NewView {
            view,
            view_changes: vec![view_change(1, 1, 1, &[claim]); rng.below(4) as usize],
            selection: vec![name],
            signature: Signature([0; 64]),
        })),
        10 => Message::Status(Progress { view, executed: at, stable: at, proven: at }),
        11 => {
            let contents = [Content::Digests, Content::Proposals, Content::Snapshot];
            Message::Fetch { from: at, content: contents[rng.below(3) as usize] }
        }
        12 => {
            Message::Decided { from: Index(rng.below(6)), digests: vec![name; 3], proposals: vec![some; 2] }
        }
        13 => Message::FetchProposal { at, digest: name },
        _ => Message::Fetched { at, proposal: some },
    }
}

/// A replica that is fed anything by one liar (n3), and anything at all by its own world, neither panics nor takes back what it
/// delivered.
#[test]
fn hostile_inputs_never_panic() {
    for seed in 0..150 {
        let mut rng = Rng::new(seed);
        let mut n2 = Node::new(2, 4);
        let mut delivered = Index::ZERO;
        for step in 0..300 {
            n2.now = Time(n2.now.0 + rng.below(20_000_000));
            let input = match rng.below(20) {
                0..=2 => Input::Timeout,
                3 => Input::Durable(Lsn(n2.out.written().0)),
                4 => Input::Propose(command(2, step)),
                5 => Input::Read(ReadId(step)),
                6 => Input::Reconfigure(vec![Change::AddVoter(NodeId(rng.below(6)))]),
                7 => Input::Transfer(NodeId(number(&mut rng))),
                8 => Input::Freezing(Index(number(&mut rng))),
                9 => Input::TransferFailed(NodeId(number(&mut rng))),
                _ => {
                    let message = Sealed::new(any_message(&mut rng, 3), NodeId(2), &keys(3));
                    Input::Message { from: NodeId(3), message }
                }
            };
            n2.input(input);
            n2.out.messages.clear();
            n2.out.answers.clear();
            for delivery in n2.out.deliveries.drain(..) {
                if let Delivery::Batch { at, .. } = delivery {
                    assert_eq!(at, delivered.next(), "seed {seed}: deliveries have no gaps");
                    delivered = at;
                }
            }
            let status = n2.pbft.status();
            assert!(status.decided <= status.last, "seed {seed}");
            assert!(matches!(status.role, Role::Primary | Role::Backup));
        }
        assert_eq!(delivered, Index::ZERO, "seed {seed}: one liar alone decides nothing");
    }
}
