//! Blocks, tips and wants on their way (section 5).
//!
//! "New transaction broadcasts do not necessarily need to reach all nodes", and "block broadcasts are also tolerant of dropped
//! messages. If a node does not receive a block, it will request it when it receives the next block and realizes it missed
//! one." So nothing is retried for its own sake. Whoever found a block sends it to all. Whoever took a new best block from
//! another passes its name on. Everybody tells its best block now and then; who has less work asks for what follows the last block
//! that both know; who can no longer give that sends its snapshot, and the block that it stands behind.
//!
//! Anybody may take part: whoever speaks to this replica becomes one of its peers, if there is room. What a snapshot's root says
//! of the past cannot be checked but for its last headers, as with Bitcoin's `assumeutxo`; a peer that lies about it is not
//! defended against.

use std::sync::Arc;

use synod_core::{Batch, Index, NodeId, Output, SnapshotRef, Time};

use super::block::Block;
use super::header::Hash;
use super::inspect::check_chain;
use super::message::{Message, Root};
use super::mutants::Mutant;
use super::rules::{self, Invalid};
use super::tree::{Grown, Tree, headers_kept};
use super::work::U256;
use super::{Pow, Record};

/// So many replicas are gossiped with at most.
pub(super) const PEERS_MAX: usize = 64;

/// So many blocks without a known parent are kept at most; the oldest gives way.
const ORPHANS_MAX: usize = 64;

/// Bytes of own commands that are told again at a time.
const RETOLD_BYTES_MAX: usize = 1 << 20;

/// A replica that is gossiped with.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// The height of the best block that it told of, and its chain's work.
    pub(super) height: u64,
    work: U256,
    pub(super) heard_at: Option<Time>,
    /// When it was asked for blocks, and has not told since that this was all.
    asked_at: Option<Time>,
    /// The last block of its that is known here: a long answer goes on from there, even while its branch is not the best.
    has: Option<Hash>,
    /// Whether it has sent something new since it was asked.
    gave: bool,
}

impl Pow {
    /// Whoever speaks is a peer, as long as there is room.
    pub(super) fn meet(&mut self, now: Time, from: NodeId) {
        let has_room = self.peers.len() < PEERS_MAX || self.peers.contains_key(&from);
        if has_room && from != self.id && from != NodeId(0) {
            self.peers.entry(from).or_default().heard_at = Some(now);
        }
    }

    // A block is a proof by itself, a tip's name only a reason to ask, an offer of commands no promise. Whoever hears of them loses
    // nothing if this replica forgets them in a crash: so nothing here waits for the disk.

    pub(super) fn say_block(&mut self, to: NodeId, block: Arc<Block>, out: &mut Output<Self>) {
        out.send_early(to, Message::Block(block));
    }

    fn say_tip(&mut self, to: NodeId, out: &mut Output<Self>) {
        let (hash, height, work) = (self.tree.tip(), self.tree.tip_height(), self.tree.tip_work());
        out.send_early(to, Message::Tip { hash, height, work });
    }

    fn ask(&mut self, now: Time, from: NodeId, out: &mut Output<Self>) {
        let patience = self.options.gossip_every;
        let Some(peer) = self.peers.get_mut(&from) else { return };
        if peer.asked_at.is_some_and(|asked| now.since(asked) < patience)
            || self.options.has(Mutant::NeverAsks)
        {
            return;
        }
        peer.asked_at = Some(now);
        peer.gave = false;
        let has = peer.has.filter(|has| self.tree.knows(*has));
        let known = has.into_iter().chain(self.tree.locator()).collect();
        out.send_early(from, Message::Want { known, root_height: self.tree.root.height });
    }

    /// Tells everybody where this replica stands, and what its clients still wait for.
    pub(super) fn on_gossip_due(&mut self, now: Time, out: &mut Output<Self>) {
        self.gossip_at = now + self.options.gossip_every;
        let batch = self.pool.own_waiting(self.id, RETOLD_BYTES_MAX);
        let peers: Vec<NodeId> = self.peers.keys().copied().collect();
        for peer in peers {
            self.say_tip(peer, out);
            if !batch.is_empty() {
                out.send_early(peer, Message::Commands(batch.clone()));
            }
        }
    }

    pub(super) fn on_propose(&mut self, batch: Batch, out: &mut Output<Self>) {
        if batch.is_empty() {
            return;
        }
        if !self.pool.propose(&batch, self.options.pool_bytes_max) {
            // Nobody has heard of it, so it is certain that it will never be mined.
            return out.refuse(batch, synod_core::Refusal::Busy);
        }
        for peer in self.peers.keys() {
            out.send_early(*peer, Message::Commands(batch.clone()));
        }
    }

    pub(super) fn on_commands(&mut self, batch: &Batch) {
        for command in batch.iter().filter(|command| command.id.origin != self.id) {
            self.pool.offer(command, &self.tree, self.options.pool_bytes_max);
        }
    }

    pub(super) fn on_tip(
        &mut self,
        now: Time,
        from: NodeId,
        hash: Hash,
        height: u64,
        work: U256,
        out: &mut Output<Self>,
    ) {
        if let Some(peer) = self.peers.get_mut(&from) {
            (peer.height, peer.work) = (height, work);
            if peer.gave {
                // The end of an answer that helped: the next may follow at once. One that did not is not asked for again so soon.
                peer.asked_at = None;
            }
            if self.tree.knows(hash) {
                peer.has = Some(hash);
            }
        }
        if work > self.tree.tip_work() && !self.tree.knows(hash) {
            self.ask(now, from, out);
        } else if work < self.tree.tip_work() && self.told.insert(from) {
            // Once between two rounds: who is behind should not have to wait for the next.
            self.say_tip(from, out);
        }
    }

    pub(super) fn on_want(&mut self, from: NodeId, known: &[Hash], root_height: u64, out: &mut Output<Self>) {
        let Some(blocks) = self.tree.after(known, self.options.answer_bytes_max) else {
            // None of theirs is on this chain, as far as it is remembered.
            if self.tree.root.height > root_height {
                out.send_snapshot(from, Message::Root(Box::new(self.tree.root.clone())));
            } else if let Some(root) = known.last().copied() {
                out.send_early(from, Message::Apart { root, work: self.tree.tip_work() });
            }
            return;
        };
        for block in blocks {
            self.say_block(from, block, out);
        }
        // Ends the answer: if it was not all, the asker sees that there is more.
        self.say_tip(from, out);
    }

    pub(super) fn on_block(&mut self, now: Time, from: NodeId, block: Arc<Block>, out: &mut Output<Self>) {
        let hash = block.header.hash();
        if self.tree.knows(hash)
            && let Some(peer) = self.peers.get_mut(&from)
        {
            peer.has = Some(hash);
        }
        if self.tree.knows(hash) || self.orphans.iter().any(|orphan| orphan.header.hash() == hash) {
            return;
        }
        if let Err(why) = rules::check_alone(&block, &self.options) {
            return self.reject(from, &block, why, out);
        }
        if !self.tree.knows(block.header.previous) {
            return self.on_orphan(now, from, block, out);
        }
        let before = self.tree.tip();
        let mut next = Some(block);
        while let Some(block) = next {
            match rules::check_behind(&block, now, &self.tree, &self.options) {
                Ok(()) => self.take_in(now, block, out),
                Err(why) => self.reject(from, &block, why, out),
            }
            // Whoever waited for a parent may follow, one at a time.
            let ready = self.orphans.iter().position(|orphan| self.tree.knows(orphan.header.previous));
            next = ready.and_then(|place| self.orphans.remove(place));
        }
        if self.tree.knows(hash)
            && let Some(peer) = self.peers.get_mut(&from)
        {
            (peer.has, peer.gave) = (Some(hash), true);
        }
        if self.tree.tip() != before {
            self.pass_on(from, out);
        }
    }

    /// Tells the others of a best block that came from somebody else.
    fn pass_on(&mut self, from: NodeId, out: &mut Output<Self>) {
        let height = self.tree.tip_height();
        let others: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(id, peer)| **id != from && peer.height < height)
            .map(|(id, _)| *id)
            .collect();
        for other in others {
            self.say_tip(other, out);
        }
    }

    fn on_orphan(&mut self, now: Time, from: NodeId, block: Arc<Block>, out: &mut Output<Self>) {
        if block.height <= self.tree.root.height || self.options.has(Mutant::NeverAsks) {
            return; // It is older than everything known here: late, or of a chain that is never followed.
        }
        if self.orphans.len() >= ORPHANS_MAX {
            self.orphans.pop_front();
        }
        self.orphans.push_back(block);
        self.ask(now, from, out);
    }

    fn reject(&mut self, from: NodeId, block: &Block, why: Invalid, out: &mut Output<Self>) {
        self.counts.rejected += 1;
        // A log that a liar can fill is no use: so many times, and then silence.
        if self.counts.rejected <= NOTES_MAX {
            let hash = block.header.hash();
            out.note(format!("block {}:{hash} from {from} is not taken: {why}", block.height));
        }
    }

    /// Takes a valid block into the tree; the best chain may be another afterwards.
    pub(super) fn take_in(&mut self, now: Time, block: Arc<Block>, out: &mut Output<Self>) {
        let hash = block.header.hash();
        let lsn = Pow::write_down(&block, out);
        match self.tree.insert(block, lsn, self.floor, &self.options) {
            Grown::Side => {}
            Grown::TooDeep { fork } => self.note_too_deep(fork, hash, out),
            Grown::Best { left, joined } => {
                self.switches += 1;
                if !left.is_empty() {
                    let fork = self.tree.tip_height() - joined.len() as u64;
                    self.durable_to = self.durable_to.min(fork);
                    self.counts.reorganisations += 1;
                    self.counts.deepest = self.counts.deepest.max(left.len() as u64);
                    self.diverged = true;
                }
                self.reshuffle(&left, &joined);
                self.mine_anew(now);
            }
        }
        if self.tree.bytes() > self.options.tree_bytes_max {
            out.want_snapshot();
        }
    }

    /// Commands of blocks that left the best chain wait again; those of blocks that joined it do not.
    fn reshuffle(&mut self, left: &[Hash], joined: &[Hash]) {
        let commands = |tree: &Tree, hash: &Hash| tree.node(*hash).map(|node| node.block.batch.clone());
        if !self.options.has(Mutant::ForgetsLosers) {
            for batch in left.iter().filter_map(|hash| commands(&self.tree, hash)) {
                batch.iter().for_each(|command| self.pool.put(command.clone()));
            }
        }
        for batch in joined.iter().filter_map(|hash| commands(&self.tree, hash)) {
            batch.iter().for_each(|command| self.pool.remove(command.id));
        }
    }

    /// Commands of all blocks beside the best chain wait.
    pub(super) fn put_losers_back(&mut self) {
        for block in self.tree.blocks() {
            if !self.options.has(Mutant::ForgetsLosers)
                && self.tree.active_at(block.height) != Some(block.header.hash())
            {
                block.batch.iter().for_each(|command| self.pool.put_if_minable(command, &self.tree));
            }
        }
    }

    /// A peer cannot bring this replica to its chain, because they part below what is settled here.
    pub(super) fn on_apart(&mut self, root: Hash, work: U256, out: &mut Output<Self>) {
        let height = self.tree.root.height;
        // Said of another root, it is out of date; said by somebody with less work, it is that one's trouble.
        let is_ours = root == self.tree.active_at(height).unwrap_or_default();
        if is_ours && height == 0 && self.refused_fork.is_none() {
            // A first block is forgotten by nobody who has it, or a snapshot is sent instead.
            self.refused_fork = Some(0);
            self.counts.refused += 1;
            out.note(format!(
                "a peer's chain has another first block than this one's ({root}): it was started with other rules, such as another spacing \
                 of blocks; the two never find together"
            ));
        } else if is_ours && work > self.tree.tip_work() {
            self.note_too_deep(height.saturating_sub(1), root, out);
        }
    }

    fn note_too_deep(&mut self, fork: u64, hash: Hash, out: &mut Output<Self>) {
        if self.refused_fork == Some(fork) {
            return;
        }
        self.refused_fork = Some(fork);
        self.counts.refused += 1;
        out.note(format!(
            "a reorganisation is refused: a chain with more work leaves this one at height {fork} or below (block {hash}), and \
             everything up to {} is settled here; if the others are right, start this replica anew with an empty folder",
            self.floor.max(self.tree.root.height)
        ));
    }

    /// A peer's snapshot is here, and behind it the block that it stands behind.
    pub(super) fn on_installed(
        &mut self,
        now: Time,
        from: NodeId,
        root: Root,
        snapshot: SnapshotRef,
        out: &mut Output<Self>,
    ) {
        let is_sound = Index(root.height) == snapshot.at && self.is_sound(&root);
        if !is_sound || root.height <= self.floor {
            return;
        }
        // The snapshot may end where its sender's chain has less work than this one's has by now, and go on to more.
        let told = self.peers.get(&from).map_or(U256::ZERO, |peer| peer.work).max(root.work);
        if self.tree.active_at(root.height) == Some(root.hash()) || told <= self.tree.tip_work() {
            return; // What it stands for is here already, or is not the best.
        }
        let back = root.height - self.floor;
        let known = usize::try_from(back).ok().and_then(|back| root.headers.iter().rev().nth(back));
        if let Some(header) = known
            && Some(header.hash()) != self.tree.active_at(self.floor)
        {
            return self.note_too_deep(self.floor.saturating_sub(1), root.hash(), out);
        }
        if known.is_none() && self.floor > 0 {
            // Whoever has only been away for long must catch up, and whoever has gone another way looks the same from here.
            self.counts.unseen += 1;
            out.note(format!(
                "a snapshot at height {} takes the place of what is here: whether it holds all that was settled here, up to {}, \
                 cannot be seen from so far away",
                root.height, self.floor
            ));
        }
        self.counts.installed += 1;
        let (height, blocks) = (root.height, self.tree.blocks());
        self.tree = Tree::new(root);
        self.floor = height;
        self.delivered.clear();
        self.delivered_from = height;
        self.durable_to = height;
        self.diverged = false;
        self.switches += 1;
        out.restore(snapshot);
        // The checkpoint behind the restoring writes all of this down. What was known may stand on the new root, too; and what was in
        // blocks that are of no use any more waits to be mined again.
        if !self.options.has(Mutant::ForgetsLosers) {
            let commands = blocks.iter().flat_map(|block| block.batch.iter());
            commands.for_each(|command| self.pool.put_if_minable(command, &self.tree));
        }
        for block in blocks {
            let hash = block.header.hash();
            let fits = self.tree.knows(block.header.previous) && !self.tree.knows(hash);
            if fits && rules::check_behind(&block, now, &self.tree, &self.options).is_ok() {
                self.take_in(now, block, out);
            }
        }
        self.mine_anew(now);
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.asked_at = None;
        }
        self.ask(now, from, out);
    }

    /// Whether a root's headers are a chain that proves its work, in as far as it can be told.
    fn is_sound(&self, root: &Root) -> bool {
        let kept = headers_kept(&self.options) as u64;
        let wanted = kept.min(root.height + 1);
        let linked = root.headers.windows(2).all(|pair| pair[1].previous == pair[0].hash());
        let genesis = self.options.genesis();
        let proves =
            |header: &super::Header| *header == genesis || header.check_work(self.options.limit()).is_ok();
        let begins_right = root.headers.len() as u64 <= root.height || root.headers[0] == genesis;
        root.genesis == genesis.hash()
            && root.headers.len() as u64 == wanted
            && linked
            && check_chain(&root.headers, root.height + 1 - wanted, &self.options).is_ok()
            && begins_right
            && root.headers.iter().all(proves)
    }

    /// The record of where things begin.
    pub(super) fn root_record(&self) -> Record {
        Record::Root(Box::new(self.tree.root.clone()))
    }
}

/// So many blocks that are not taken are noted.
const NOTES_MAX: u64 = 100;
