//! The tree of blocks, and which of its branches counts (sections 3 and 5).
//!
//! "Nodes always consider the longest chain to be the correct one": the paper measures length in blocks, but means work, "the
//! greatest proof-of-work effort invested in it" (section 4), and where difficulties differ only work is safe to compare.
//! Of two branches with equal work the one that was there first stays.
//!
//! The tree begins at its root, the block behind the newest snapshot; what lies before is known by its last headers and by
//! the commands that may not come again. Below the root no branch leads anywhere.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use synod_core::{CommandId, Lsn};

use super::Options;
use super::block::Block;
use super::header::{Hash, Header};
use super::message::{KNOWN_MAX, Root};
use super::mutants::Mutant;
use super::seen::{self, Highest};
use super::work::{U256, bits_of, clamped, retarget, target_of, work_of};

/// A block of the tree, above its root.
pub(super) struct Node {
    pub(super) block: Arc<Block>,
    /// Of its whole chain.
    pub(super) work: U256,
    highest: Arc<Highest>,
    /// Which came first.
    order: u64,
    /// Its record.
    pub(super) lsn: Lsn,
}

/// The tree.
///
/// Invariants: every node's parent is a node or the root; `active` leads from the root to the tip without gaps; no node's chain
/// has more work than the tip's, unless it leaves the active chain below what is settled.
pub(super) struct Tree {
    pub(super) root: Root,
    root_hash: Hash,
    nodes: BTreeMap<Hash, Node>,
    /// The best chain: its first is the root.
    active: VecDeque<Hash>,
    /// Where a command is held, on any branch.
    holders: BTreeMap<CommandId, Vec<Hash>>,
    next_order: u64,
    bytes: usize,
    /// Blocks of the chain up to the root, for those who lag behind; the last is the root's own.
    past: VecDeque<Arc<Block>>,
    past_bytes: usize,
}

/// What a new block did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Grown {
    /// It is on a side branch.
    Side,
    /// The best chain ends with it now. Blocks that left the chain, and blocks that joined it, each from the lowest on.
    Best { left: Vec<Hash>, joined: Vec<Hash> },
    /// Its chain has the most work, but leaves the best one below what is settled, at this height.
    TooDeep { fork: u64 },
}

/// Headers from one on backwards.
struct Back<'a> {
    tree: &'a Tree,
    next: Option<Hash>,
    /// Of the root's headers, so many are left.
    left: usize,
}

impl<'a> Iterator for Back<'a> {
    type Item = &'a Header;

    fn next(&mut self) -> Option<&'a Header> {
        if let Some(hash) = self.next {
            if let Some(node) = self.tree.nodes.get(&hash) {
                self.next = Some(node.block.header.previous);
                return Some(&node.block.header);
            }
            self.next = None;
            self.left = self.tree.root.headers.len();
        }
        self.left = self.left.checked_sub(1)?;
        self.tree.root.headers.get(self.left)
    }
}

/// The median of so many times counts.
pub const MEDIAN_OF: usize = 11;

impl Tree {
    pub(super) fn new(root: Root) -> Tree {
        let root_hash = root.hash();
        Tree {
            root,
            root_hash,
            nodes: BTreeMap::new(),
            active: VecDeque::from([root_hash]),
            holders: BTreeMap::new(),
            next_order: 0,
            bytes: 0,
            past: VecDeque::new(),
            past_bytes: 0,
        }
    }

    /// A chain of which there is only the genesis block.
    pub(super) fn planted(options: &Options) -> Tree {
        let header = options.genesis();
        Tree::new(Root {
            genesis: header.hash(),
            height: 0,
            work: U256::ZERO,
            headers: vec![header],
            highest: Arc::default(),
            seen: seen::Seen::default(),
        })
    }

    pub(super) fn tip(&self) -> Hash {
        *self.active.back().expect("the best chain has its root")
    }

    pub(super) fn tip_height(&self) -> u64 {
        self.root.height + self.active.len() as u64 - 1
    }

    pub(super) fn tip_work(&self) -> U256 {
        self.work(self.tip()).expect("the tip is known")
    }

    /// The block of the best chain at a height.
    pub(super) fn active_at(&self, height: u64) -> Option<Hash> {
        self.active.get(usize::try_from(height.checked_sub(self.root.height)?).ok()?).copied()
    }

    pub(super) fn node(&self, hash: Hash) -> Option<&Node> {
        self.nodes.get(&hash)
    }

    pub(super) fn knows(&self, hash: Hash) -> bool {
        hash == self.root_hash || self.nodes.contains_key(&hash)
    }

    pub(super) fn height(&self, hash: Hash) -> Option<u64> {
        if hash == self.root_hash {
            Some(self.root.height)
        } else {
            self.nodes.get(&hash).map(|it| it.block.height)
        }
    }

    pub(super) fn work(&self, hash: Hash) -> Option<U256> {
        if hash == self.root_hash { Some(self.root.work) } else { self.nodes.get(&hash).map(|it| it.work) }
    }

    pub(super) fn highest(&self, hash: Hash) -> &Arc<Highest> {
        self.nodes.get(&hash).map_or(&self.root.highest, |node| &node.highest)
    }

    /// Bytes of blocks above the root.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Every block above the root, in the order in which they came: parents before children.
    pub(super) fn blocks(&self) -> Vec<Arc<Block>> {
        let mut nodes: Vec<&Node> = self.nodes.values().collect();
        nodes.sort_unstable_by_key(|node| node.order);
        nodes.into_iter().map(|node| node.block.clone()).collect()
    }

    fn back(&self, from: Hash) -> impl Iterator<Item = &Header> {
        Back { tree: self, next: Some(from), left: 0 }
    }

    /// The median of the last eleven times up to `parent`: a new block must be later, so that time moves on whatever single
    /// miners say.
    pub(super) fn median_time(&self, parent: Hash) -> u32 {
        let mut times: Vec<u32> = self.back(parent).take(MEDIAN_OF).map(|header| header.time).collect();
        times.sort_unstable();
        times[times.len() / 2]
    }

    /// The bits that a block behind `parent` must have.
    pub(super) fn next_bits(&self, parent: Hash, options: &Options) -> u32 {
        let height = self.height(parent).expect("the parent is known") + 1;
        let last = self.back(parent).next().expect("the parent is known");
        if !height.is_multiple_of(options.retarget_blocks) {
            return last.bits;
        }
        // As in Bitcoin from the period's first block to its last, which is one spacing too few. The genesis block's time is no
        // measurement: the first period begins with the block behind it.
        let steps = (options.retarget_blocks - 1).min(height - 2) as usize;
        let first = self.back(parent).nth(steps).expect("a root has a period's headers");
        let target = target_of(last.bits).expect("the bits of a chain's blocks are targets");
        let (timespan, limit) = (options.timespan(), options.limit());
        let next = if options.has(Mutant::RetargetOverflow) {
            let (wrapped, _) = target.times(clamped(first.time, last.time, timespan));
            wrapped.times_over(1, timespan).min(limit).max(U256::ONE)
        } else {
            retarget(target, first.time, last.time, timespan, limit)
        };
        bits_of(next)
    }

    /// Whether `old` is `young` or one of its ancestors.
    fn is_before(&self, old: Hash, young: Hash) -> bool {
        let Some(height) = self.height(old) else { return false };
        let mut here = young;
        loop {
            let Some(at) = self.height(here).filter(|at| *at >= height) else { return false };
            if self.active_at(at) == Some(here) {
                return self.active_at(height) == Some(old);
            }
            if here == old {
                return true;
            }
            match self.nodes.get(&here) {
                Some(node) => here = node.block.header.previous,
                None => return false,
            }
        }
    }

    /// Whether a command is in a chain's blocks up to `tip`.
    pub(super) fn holds(&self, id: CommandId, tip: Hash) -> bool {
        self.root.seen.contains(id)
            || self.holders.get(&id).is_some_and(|it| it.iter().any(|holder| self.is_before(*holder, tip)))
    }

    /// The height at which a block's chain leaves the best one.
    pub(super) fn fork(&self, hash: Hash) -> u64 {
        let mut here = hash;
        loop {
            let height = self.height(here).expect("a chain leads to the root");
            if self.active_at(height) == Some(here) {
                return height;
            }
            here = self.nodes[&here].block.header.previous;
        }
    }

    /// Takes in a block whose parent is known; `settled` is the height below which no branch may leave the best chain.
    pub(super) fn insert(&mut self, block: Arc<Block>, lsn: Lsn, settled: u64, options: &Options) -> Grown {
        let hash = block.header.hash();
        let parent = block.header.previous;
        debug_assert!(!self.knows(hash), "a block is taken in once");
        let before = self.work(parent).expect("the parent is known");
        let target = target_of(block.header.bits).unwrap_or(U256::MAX);
        let work = before.plus(work_of(target));
        let highest = seen::raised(self.highest(parent), block.batch.iter().map(|command| command.id));
        for command in block.batch.iter() {
            self.holders.entry(command.id).or_default().push(hash);
        }
        self.bytes += block.bytes();
        let better = if options.has(Mutant::HeightWins) {
            block.height > self.tip_height()
        } else {
            work > self.tip_work()
        };
        let order = self.next_order;
        self.next_order += 1;
        self.nodes.insert(hash, Node { block, work, highest, order, lsn });
        if !better {
            return Grown::Side;
        }
        let fork = self.fork(hash);
        if fork < settled {
            return Grown::TooDeep { fork };
        }
        let mut joined = Vec::new();
        let mut here = hash;
        while self.active_at(fork) != Some(here) {
            joined.push(here);
            here = self.nodes[&here].block.header.previous;
        }
        joined.reverse();
        let left = self.active.split_off((fork - self.root.height) as usize + 1).into();
        self.active.extend(&joined);
        Grown::Best { left, joined }
    }

    /// Blocks of the best chain, newest first and ever further apart, down to the root: what another replica needs to find
    /// where its chain leaves this one.
    pub(super) fn locator(&self) -> Vec<Hash> {
        let mut known = Vec::new();
        let (mut place, mut step) = (self.active.len() - 1, 1);
        while place > 0 && known.len() < KNOWN_MAX - 2 {
            known.push(self.active[place]);
            if known.len() > 8 {
                step *= 2;
            }
            place = place.saturating_sub(step);
        }
        known.push(self.root_hash);
        known
    }

    /// The blocks of the best chain behind the first of `known` that is on it, at most so many bytes of them, but at least one;
    /// nothing if none of those is known.
    pub(super) fn after(&self, known: &[Hash], bytes_max: usize) -> Option<Vec<Arc<Block>>> {
        let on_chain = |hash: &Hash| {
            self.height(*hash).filter(|height| self.active_at(*height) == Some(*hash)).or_else(|| {
                let old = self.past.iter().find(|block| block.header.previous == *hash)?;
                Some(old.height - 1)
            })
        };
        let from = known.iter().find_map(on_chain)?;
        let past = self.past.iter().filter(|block| block.height > from).cloned();
        let above = (from.max(self.root.height) + 1..=self.tip_height())
            .filter_map(|height| Some(self.nodes.get(&self.active_at(height)?)?.block.clone()));
        let mut bytes = 0;
        let fits = |block: &Arc<Block>| {
            let room = bytes < bytes_max;
            bytes += block.bytes();
            room
        };
        Some(past.chain(above).take_while(fits).collect())
    }

    /// The tree begins at the best chain's block of this height from now on; other branches from below are gone.
    pub(super) fn reroot(&mut self, height: u64, options: &Options) {
        let Some(hash) = self.active_at(height).filter(|_| height > self.root.height) else { return };
        let gone: Vec<Hash> =
            self.active.drain(..(height - self.root.height) as usize).skip(1).chain([hash]).collect();
        for hash in &gone {
            let node = &self.nodes[hash];
            self.root.headers.push(node.block.header);
            node.block.batch.iter().for_each(|command| self.root.seen.insert(command.id));
            self.past_bytes += node.block.bytes();
            self.past.push_back(node.block.clone());
        }
        let node = &self.nodes[&hash];
        self.root.height = height;
        self.root.work = node.work;
        self.root.highest = node.highest.clone();
        self.root.seen.forget(&self.root.highest);
        self.root_hash = hash;
        let keep = headers_kept(options);
        let extra = self.root.headers.len().saturating_sub(keep);
        self.root.headers.drain(..extra);
        while self.past_bytes > options.past_bytes_max
            && let Some(block) = self.past.pop_front()
        {
            self.past_bytes -= block.bytes();
        }
        self.prune();
    }

    /// Removes what does not stand on the root.
    fn prune(&mut self) {
        let mut by_order: Vec<(u64, Hash)> =
            self.nodes.iter().map(|(hash, node)| (node.order, *hash)).collect();
        by_order.sort_unstable();
        for (_, hash) in by_order {
            let node = &self.nodes[&hash];
            // A parent came before its children, so whether it stays is known.
            if node.block.height > self.root.height && self.knows(node.block.header.previous) {
                continue;
            }
            let node = self.nodes.remove(&hash).expect("it was just there");
            self.bytes -= node.block.bytes();
            for command in node.block.batch.iter() {
                if let Some(holders) = self.holders.get_mut(&command.id) {
                    holders.retain(|holder| *holder != hash);
                    if holders.is_empty() {
                        self.holders.remove(&command.id);
                    }
                }
            }
        }
    }

    /// The blocks that nothing stands on, with the work of their chains: for oracles.
    pub(super) fn tips(&self) -> Vec<(Hash, U256)> {
        let mut tips: BTreeMap<Hash, U256> =
            self.nodes.iter().map(|(hash, node)| (*hash, node.work)).collect();
        for node in self.nodes.values() {
            tips.remove(&node.block.header.previous);
        }
        tips.into_iter().collect()
    }

    /// The headers that are known of the best chain, lowest first: for oracles.
    pub(super) fn headers(&self) -> Vec<Header> {
        let above = self.active.iter().skip(1).map(|hash| self.nodes[hash].block.header);
        self.root.headers.iter().copied().chain(above).collect()
    }
}

/// So many headers up to a root are kept: for the median of times, and for the next adjustment.
pub(super) fn headers_kept(options: &Options) -> usize {
    MEDIAN_OF.max(options.retarget_blocks as usize)
}
