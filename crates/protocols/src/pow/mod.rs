//! Proof of work, after Nakamoto, "Bitcoin: A Peer-to-Peer Electronic Cash System" (2008), with the store's commands in the place
//! of payments.
//!
//! Nobody leads and nobody votes. Whoever finds a nonce that makes a block's hash small enough may extend the chain, and the chain
//! with the most work counts. So replicas need not know how many they are, or who; the price is that nothing is ever
//! decided for certain. A block is delivered when it has `confirmations` blocks on it, itself counted; a branch with more work may
//! still turn up and take it back, with a chance that falls exponentially with the number (section 11). Then
//! this replica *rewinds*: the store goes back to where the branches part, and goes on along the other.
//!
//! | file | what | paper |
//! |---|---|---|
//! | `header`, `work` | 80 bytes, double SHA-256, targets, adjusting the difficulty | 4 |
//! | `block` | the body, and its merkle root | 2, 7 |
//! | `rules` | what makes a block valid | 5 |
//! | `tree` | branches, the most work, the root behind a snapshot | 3, 5 |
//! | `pool`, `seen` | commands that wait, and those that may not come again | 5 |
//! | `mining` | slices of hashing | 4 |
//! | `gossip`, `message` | blocks, tips, wants, snapshots | 5 |
//! | `recovery` | from records to a replica | |
//! | `race` | an attacker's race against the honest chain | 11 |
//! | `inspect` | what oracles and people may look at | |
//! | `mutants` | one rule left out at a time, for tests | |
//!
//! Choices that the paper leaves open:
//!
//! - *Headers, targets, times* follow Bitcoin bit for bit: its own headers are valid here, and a test shows it.
//! - *A clock* is needed for the rule that a block may not come from the far future: the wall clock when the replica was opened, and its own
//!   steady clock from then on. Replicas whose clocks differ by more than two hours do not agree.
//! - *Delivery waits for the own disk*: a client is answered when its block has its confirmations and this replica's
//!   records of all of them are durable, so what was answered is still there when everybody was killed.
//! - *What is settled*: a snapshot holds what lies `settled_after` blocks deep, and no branch is followed that leaves the chain
//!   below it. Two halves that were apart for longer, and have both made snapshots, do not find together again: the one with less work
//!   says so by name, and an operator must decide. Only when it is so far behind that a snapshot of the others does not show where they
//!   parted, it takes that for having been away, follows, and says that. Bitcoin keeps everything and has no such limit.
//! - *Reads* are local; a linearizable one is refused, because finality is a probability.
//! - *Membership* means nothing: a replica that knows one other's address joins by catching up, and leaves by leaving. So there is
//!   nothing to reconfigure, and it is refused.
//!
//! Left out: transactions that spend outputs, scripts and fees (what is ordered here is commands), incentive (section 6), simplified
//! verification by headers alone (section 8), relaying of others' commands (each replica tells its own to all it
//! knows), and any defence against a majority of hashing power, for which section 11 says there is none.

mod block;
mod gossip;
mod header;
mod inspect;
mod message;
mod mining;
mod mutants;
mod options;
mod pool;
mod race;
mod recovery;
mod rules;
mod seen;
mod tree;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use synod_core::{
    Config, Index, Input, Lsn, NodeId, Output, Protocol, Recovered, Refusal, Role, Status, Time,
};

pub use block::{Block, root_of};
use gossip::Peer;
pub use header::{BadWork, HEADER_BYTES, Hash, Header, double_sha};
pub use inspect::{Counts, check_chain};
pub use message::{Message, Record, Root};
use mining::Miner;
pub use mutants::Mutant;
pub use options::{Mining, Options, OptionsError};
use pool::Pool;
pub use race::{Race, Side, exact, nakamoto};
pub use recovery::{WrongChain, check_chain_of};
pub use rules::Invalid;
pub use tree::MEDIAN_OF;
use tree::Tree;
pub use work::{BadBits, U256, bits_of, retarget, target_for, target_of, work_of};

/// Why this protocol fences no reads.
pub const NO_FENCE: &str = "proof of work cannot say that a read sees everything acknowledged: finality is a probability, and a \
     longer chain may be on its way; ask for an eventual read";

/// Why this protocol changes no configuration.
pub const NO_MEMBERS: &str = "proof of work has no membership: start a replica with the address of any other and it joins by \
     catching up; stop it and it has left";

/// Why there is nobody to hand leadership to.
pub const NO_LEADER: &str = "proof of work has no leader";

/// A proof-of-work replica.
///
/// Invariants: `delivered` names the blocks that were delivered above `delivered_from`, lowest first; they are the best chain's,
/// unless `diverged`; nothing below `floor` is ever taken back.
pub struct Pow {
    id: NodeId,
    options: Options,
    tree: Tree,
    pool: Pool,
    miner: Miner,
    peers: BTreeMap<NodeId, Peer>,
    /// Who was told of the best block out of turn since the last round of gossip.
    told: BTreeSet<NodeId>,
    gossip_at: Time,
    orphans: VecDeque<Arc<Block>>,
    durable: Lsn,
    /// The best chain is durable up to this height.
    durable_to: u64,
    delivered: VecDeque<Hash>,
    delivered_from: u64,
    /// The best chain may have left what was delivered.
    diverged: bool,
    /// A snapshot holds this height: no reorganisation passes it.
    floor: u64,
    /// The last refused reorganisation left the chain here: it is noted once.
    refused_fork: Option<u64>,
    /// Counts changes of the best chain's end.
    switches: u64,
    counts: Counts,
    /// When this replica was flushed last: for oracles alone.
    now: Time,
}

impl Protocol for Pow {
    type Message = Message;
    type Record = Record;
    type Options = Options;
    /// On another branch a height holds another block: a snapshot of one must not take the place of one of the other.
    const HAS_ONE_ORDER: bool = false;

    fn open(config: &Config<Options>, found: Recovered<Record>, now: Time, _out: &mut Output<Self>) -> Self {
        Pow::recover(config, found, now)
    }

    fn step(&mut self, now: Time, input: Input<Message>, out: &mut Output<Self>) {
        match input {
            Input::Message { from, message } => {
                self.meet(now, from);
                self.on_message(now, from, message, out);
            }
            Input::Installed { from, message: Message::Root(root), snapshot } => {
                self.meet(now, from);
                self.on_installed(now, from, *root, snapshot, out);
            }
            Input::Installed { .. } | Input::TransferFailed(_) => {}
            Input::Propose(batch) => self.on_propose(batch, out),
            Input::Read(read) => out.refuse_read(read, Refusal::Unsupported(NO_FENCE)),
            Input::Reconfigure(_) => out.decline(Refusal::Unsupported(NO_MEMBERS)),
            Input::Transfer(_) => out.decline(Refusal::Unsupported(NO_LEADER)),
            Input::Durable(upto) => self.durable = upto,
            Input::Freezing(at) => {
                // One that was begun before, and did not get written, is as settled as it was, though a chain of fewer blocks with
                // more work may have become the best since.
                if at.0 > self.floor {
                    let depth = self.tree.tip_height().saturating_sub(at.0);
                    self.counts.least_settled =
                        Some(self.counts.least_settled.map_or(depth, |least| least.min(depth)));
                    self.floor = at.0;
                }
            }
            Input::Snapshot(snapshot) => self.on_snapshot(snapshot.at),
            Input::Timeout => {
                if self.miner.due.is_some_and(|due| due <= now) {
                    self.on_mining_due(now, out);
                }
                if self.gossip_at <= now {
                    self.told.clear();
                    self.on_gossip_due(now, out);
                }
            }
        }
    }

    fn flush(&mut self, now: Time, out: &mut Output<Self>) {
        self.now = now;
        self.deliver(out);
    }

    fn deadline(&self) -> Option<Time> {
        let gossip = (!self.peers.is_empty()).then_some(self.gossip_at);
        [self.miner.due, gossip].into_iter().flatten().min()
    }

    fn checkpoint(&self, records: &mut Vec<Record>) {
        records.push(self.root_record());
        records.extend(self.tree.blocks().into_iter().map(Record::Block));
    }

    fn settled(&self) -> Option<Index> {
        let deep = self.tree.tip_height().saturating_sub(self.options.settled_after);
        let deep = if self.options.has(Mutant::SettlesEarly) { u64::MAX } else { deep };
        // While the best chain has left what was delivered, the machine's past is another chain's.
        let settled = if self.diverged { self.floor } else { deep.min(self.delivered_height()) };
        Some(Index(settled.max(self.floor)))
    }

    fn status(&self) -> Status {
        Status {
            role: Role::Miner,
            leader: None,
            term: self.switches,
            decided: Index(self.delivered_height()),
            last: Index(self.tree.tip_height()),
            members: self.members(),
            peers: self.peer_list(),
        }
    }
}

impl Pow {
    fn on_message(&mut self, now: Time, from: NodeId, message: Message, out: &mut Output<Self>) {
        match message {
            Message::Block(block) => self.on_block(now, from, block, out),
            Message::Tip { hash, height, work } => self.on_tip(now, from, hash, height, work, out),
            Message::Want { known, root_height } => self.on_want(from, &known, root_height, out),
            Message::Apart { root, work } => self.on_apart(root, work, out),
            Message::Commands(batch) => self.on_commands(&batch),
            // Worth something only behind its snapshot.
            Message::Root(_) => {}
        }
    }

    fn delivered_height(&self) -> u64 {
        self.delivered_from + self.delivered.len() as u64
    }

    /// Delivers what has its confirmations, on the best chain and on this replica's disk.
    fn deliver(&mut self, out: &mut Output<Self>) {
        let early = self.options.has(Mutant::DeliversBeforeDisk);
        while let Some(hash) = self.tree.active_at(self.durable_to + 1)
            && (early || self.tree.node(hash).is_some_and(|node| node.lsn <= self.durable))
        {
            self.durable_to += 1;
        }
        if self.diverged {
            // In one piece: back, and on along the other branch.
            if self.durable_to < self.tree.tip_height() {
                return;
            }
            self.go_back(out);
        }
        let mut wait = self.options.confirmations;
        if self.options.has(Mutant::OneTooFew) {
            wait = wait.saturating_sub(1).max(1);
        }
        // A block at height h has d - h + 1 confirmations when the chain is durable up to d.
        let deliverable = (self.durable_to + 1).saturating_sub(wait);
        while self.delivered_height() < deliverable {
            let height = self.delivered_height() + 1;
            let hash = self.tree.active_at(height).expect("the best chain has no gaps");
            let batch = self.tree.node(hash).expect("it lies above the root").block.batch.clone();
            batch.iter().for_each(|command| self.pool.delivered(command.id, self.id));
            self.delivered.push_back(hash);
            let confirmations = self.tree.tip_height() + 1 - height;
            let fewest = self.counts.fewest_confirmations.map_or(confirmations, |it| it.min(confirmations));
            self.counts.fewest_confirmations = Some(fewest);
            out.deliver(Index(height), batch);
        }
    }

    /// Takes back what was delivered and is not on the best chain any more.
    fn go_back(&mut self, out: &mut Output<Self>) {
        self.diverged = false;
        let before = self.delivered_height();
        while let Some(last) = self.delivered.back()
            && self.tree.active_at(self.delivered_height()) != Some(*last)
        {
            self.delivered.pop_back();
        }
        let after = self.delivered_height();
        assert!(after >= self.floor, "what is settled is not taken back: {after} is below {}", self.floor);
        if after == before {
            return;
        }
        if self.options.has(Mutant::NoRewind) {
            let missing = after + 1..=before;
            let lost = missing.map_while(|height| self.tree.active_at(height)).collect::<Vec<_>>();
            return self.delivered.extend(lost);
        }
        self.counts.rewinds += 1;
        self.counts.taken_back += before - after;
        out.note(format!(
            "a reorganisation takes back {} delivered blocks, down to height {after}: a chain with more work left this one there",
            before - after
        ));
        out.rewind(Index(after));
    }

    fn on_snapshot(&mut self, at: Index) {
        self.floor = self.floor.max(at.0);
        self.tree.reroot(at.0, &self.options);
        while self.delivered_from < at.0 && self.delivered.pop_front().is_some() {
            self.delivered_from += 1;
        }
        let root = self.tree.root.height;
        self.orphans.retain(|orphan| orphan.height > root);
        self.durable_to = self.durable_to.max(root);
    }
}
