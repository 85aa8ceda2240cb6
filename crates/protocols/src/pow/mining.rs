//! Finding blocks (section 4): a nonce that makes the header's hash small enough.
//!
//! Mining must not stand in anybody's way. A slice of hashing is short and comes at its own deadline, so messages, the disk
//! and clients are served in between; and the rate is bounded by the options, so a member costs a known share of a processor.
//! Hashing has no memory: a block in the making can be thrown away and made anew, with newer commands or a newer time, and
//! nothing is lost but the making. So it is made anew when the best chain grows, when commands came in (but not too often), and
//! when its time is old.

use std::sync::Arc;
use std::time::Duration;

use synod_core::{Output, Rng, Time};

use super::block::Block;
use super::header::{Header, Search};
use super::options::Mining;
use super::rules::unix;
use super::work::{target_of, work_of};
use super::{Pow, Record};

/// New commands are taken into a block in the making after so long.
const REMAKE_AFTER: Duration = Duration::from_millis(100);

/// A block in the making is made anew after so long, because its time is old.
const STALE_AFTER: Duration = Duration::from_secs(1);

/// A search that was drawn tries so many nonces at most; then the next draw has its turn.
const TRIES_MAX: u32 = 1 << 16;

/// The miner of one replica.
pub(super) struct Miner {
    rng: Rng,
    /// When to mine next.
    pub(super) due: Option<Time>,
    /// The block in the making.
    making: Option<Making>,
}

struct Making {
    block: Block,
    search: Search,
    next_nonce: u32,
    made_at: Time,
    pool_version: u64,
}

impl Miner {
    pub(super) fn new(rng: Rng) -> Miner {
        Miner { rng, due: None, making: None }
    }
}

impl Pow {
    /// The best chain has another end: what was in the making is worthless, and a drawn moment belongs to it.
    pub(super) fn mine_anew(&mut self, now: Time) {
        self.miner.making = None;
        self.miner.due = match self.options.mining {
            Mining::Off => None,
            Mining::Hashing { every, .. } => {
                Some(self.miner.due.unwrap_or(now + every).max(now).min(now + every))
            }
            Mining::Drawn { rate } => {
                let bits = self.tree.next_bits(self.tree.tip(), &self.options);
                let work = target_of(bits).map_or(1.0, |target| work_of(target).to_f64());
                let mean = work * 1e6 / rate as f64;
                let drawn = -(1.0 - self.miner.rng.unit()).ln() * mean;
                Some(now + Duration::from_secs_f64(drawn.clamp(1e-6, 1e9)))
            }
        };
    }

    /// One slice of hashing.
    pub(super) fn on_mining_due(&mut self, now: Time, out: &mut Output<Self>) {
        let (tries, again) = match self.options.mining {
            Mining::Off => return,
            Mining::Hashing { hashes, every } => (hashes, Some(now + every)),
            Mining::Drawn { .. } => (TRIES_MAX, None),
        };
        self.miner.due = again;
        if !self.make_block(now) {
            // Time must pass before a block can be later than those before it.
            self.miner.due = Some(now + STALE_AFTER);
            return;
        }
        let Some(making) = &mut self.miner.making else { return };
        let mut found = None;
        for _ in 0..tries {
            if making.search.tries(making.next_nonce) {
                found = Some(making.next_nonce);
                break;
            }
            match making.next_nonce.checked_add(1) {
                Some(next) => making.next_nonce = next,
                None => break,
            }
        }
        match found {
            Some(nonce) => {
                let Some(Making { mut block, .. }) = self.miner.making.take() else { return };
                block.header.nonce = nonce;
                self.on_found(now, Arc::new(block), out);
            }
            None if making.next_nonce == u32::MAX => self.miner.making = None,
            None => {}
        }
        if self.miner.due.is_none() {
            self.mine_anew(now);
        }
    }

    /// Sees to a block in the making that is up to date; false when none can be made now.
    fn make_block(&mut self, now: Time) -> bool {
        let fresh = self.miner.making.as_ref().is_some_and(|making| {
            let age = now.since(making.made_at);
            age < STALE_AFTER && (making.pool_version == self.pool.version || age < REMAKE_AFTER)
        });
        if fresh {
            return true;
        }
        let tip = self.tree.tip();
        let clock = unix(now, &self.options);
        let time = clock.max(u64::from(self.tree.median_time(tip)) + 1);
        let bits = self.tree.next_bits(tip, &self.options);
        let Ok(time) = u32::try_from(time) else { return false };
        let Ok(target) = target_of(bits) else { return false };
        if u64::from(time) > clock + self.options.future_max.as_secs() {
            return false;
        }
        let batch = self.pool.choose(&self.tree, self.options.block_bytes_max - RESERVE_BYTES);
        let header =
            Header { version: 1, previous: tip, merkle: super::Hash::default(), time, bits, nonce: 0 };
        let height = self.tree.tip_height() + 1;
        let mut block = Block { header, height, miner: self.id, extra: self.miner.rng.next_u64(), batch };
        block.header.merkle = block.merkle_root();
        let search = Search::new(&block.header, target);
        let pool_version = self.pool.version;
        self.miner.making = Some(Making { block, search, next_nonce: 0, made_at: now, pool_version });
        true
    }

    /// "When a node finds a proof-of-work, it broadcasts the block to all nodes" (section 5, step 4).
    fn on_found(&mut self, now: Time, block: Arc<Block>, out: &mut Output<Self>) {
        self.counts.mined += 1;
        self.take_in(now, block.clone(), out);
        let peers: Vec<_> = self.peers.keys().copied().collect();
        for peer in peers {
            self.say_block(peer, block.clone(), out);
        }
    }

    /// Writes a block down; it waits for nothing else.
    pub(super) fn write_down(block: &Arc<Block>, out: &mut Output<Self>) -> synod_core::Lsn {
        out.record(Record::Block(block.clone()))
    }
}

/// Room for a header and a coinbase.
const RESERVE_BYTES: usize = 256;
