//! What oracles, traces and people may look at; nothing here changes anything.

use synod_core::{Index, Members, Peer};

use super::header::{Hash, Header};
use super::tree::MEDIAN_OF;
use super::work::{U256, bits_of, retarget, target_of};
use super::{Options, Pow};

/// How often things happened since this replica was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Blocks found here.
    pub mined: u64,
    /// Blocks that the disk held when this replica was opened.
    pub recovered: u64,
    /// Blocks of others that broke a rule.
    pub rejected: u64,
    /// Times at which another branch became the best.
    pub reorganisations: u64,
    /// Blocks that left the best chain at once, at most.
    pub deepest: u64,
    /// Reorganisations that took back something delivered.
    pub rewinds: u64,
    /// Deliveries that were taken back.
    pub taken_back: u64,
    /// Reorganisations that were refused, because they go deeper than what is settled.
    pub refused: u64,
    /// Snapshots of others that were installed.
    pub installed: u64,
    /// Those of them that are so far ahead that they do not show whether they hold what was settled here.
    pub unseen: u64,
    /// The fewest confirmations with which a block was delivered.
    pub fewest_confirmations: Option<u64>,
    /// How deep below the best block the shallowest snapshot was begun.
    pub least_settled: Option<u64>,
}

impl Pow {
    /// How often things happened.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Counts changes of the best chain's end.
    #[must_use]
    pub fn switches(&self) -> u64 {
        self.switches
    }

    /// The best block: height, name, and the work of its chain.
    #[must_use]
    pub fn tip(&self) -> (u64, Hash, U256) {
        (self.tree.tip_height(), self.tree.tip(), self.tree.tip_work())
    }

    /// The name of the best chain's block at a height, if that is not forgotten.
    #[must_use]
    pub fn block_at(&self, height: u64) -> Option<Hash> {
        self.tree.active_at(height)
    }

    /// Whether something that was answered here may be gone for good: the replica was down, and of the branches that lost before, it does not
    /// know all any more; or it cannot follow the others, or has followed them from so far behind that it cannot tell.
    #[must_use]
    pub fn admits_loss(&self) -> bool {
        let forgot = self.counts.recovered > 0 && self.tree.root.height > 0;
        self.counts.refused > 0 || self.counts.unseen > 0 || forgot
    }

    /// The last height that no accepted reorganisation passes.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// The height that the tree begins at.
    #[must_use]
    pub fn root(&self) -> u64 {
        self.tree.root.height
    }

    /// How many commands wait to be mined.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pool.len()
    }

    /// The options.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Checks what must hold of every replica at every moment, by computing it anew: the best chain is valid, header by
    /// header; it has the most work, unless another leaves it below what is settled; what was delivered is its beginning, and
    /// has its confirmations.
    ///
    /// # Errors
    /// Says what does not hold.
    pub fn examine(&self) -> Result<(), String> {
        let headers = self.tree.headers();
        let lowest = self.tree.tip_height() + 1 - headers.len() as u64;
        check_chain(&headers, lowest, &self.options)?;
        let latest =
            super::rules::unix(self.now, &self.options).saturating_add(self.options.future_max.as_secs());
        if let Some(late) = headers.iter().find(|header| u64::from(header.time) > latest) {
            return Err(format!(
                "block {} of the best chain is from the far future: {} is after {latest}",
                late.hash(),
                late.time
            ));
        }
        let best = self.tree.tip_work();
        for (hash, work) in self.tree.tips() {
            if work > best && self.tree.fork(hash) >= self.floor {
                return Err(format!("the best chain has work {best:?}, but block {hash} has {work:?}"));
            }
        }
        let mut height = self.delivered_from;
        for hash in &self.delivered {
            height += 1;
            let left = self.tree.active_at(height) != Some(*hash);
            if left && !self.diverged {
                return Err(format!("delivered block {height} is not on the best chain"));
            }
        }
        if let Some(fewest) = self.counts.fewest_confirmations.filter(|it| *it < self.options.confirmations) {
            return Err(format!("a block was delivered with {fewest} confirmations"));
        }
        if let Some(depth) = self.counts.least_settled.filter(|it| *it < self.options.settled_after) {
            return Err(format!(
                "a snapshot was begun of what lies {depth} blocks deep, which is not settled"
            ));
        }
        if let Some(node) =
            self.delivered.back().and_then(|hash| self.tree.node(*hash)).filter(|_| !self.diverged)
            && node.lsn > self.durable
        {
            return Err(format!("block {height} was delivered before it was durable"));
        }
        for hash in self.delivered.iter().rev().take(4).filter(|_| !self.diverged) {
            let Some(node) = self.tree.node(*hash) else { continue };
            if node.block.merkle_root() != node.block.header.merkle {
                return Err(format!("the merkle root of block {hash} does not stand for its body"));
            }
        }
        Ok(())
    }

    pub(super) fn members(&self) -> Members {
        Members::of(self.peers.keys().copied().chain([self.id]))
    }

    pub(super) fn peer_list(&self) -> Vec<Peer> {
        let peer = |(id, it): (&synod_core::NodeId, &super::Peer)| Peer {
            id: *id,
            matched: Index(it.height),
            silent: None,
            snapshotting: false,
        };
        self.peers.iter().map(peer).collect()
    }
}

/// Checks consecutive headers of a chain, the first of which has this height: links, work, targets and the median of times.
/// Written apart from the tree's own rules, and slowly, so that one can be held against the other. What depends on
/// headers before the first is not judged.
///
/// # Errors
/// Says which header breaks which rule.
pub fn check_chain(headers: &[Header], lowest: u64, options: &Options) -> Result<(), String> {
    let limit = options.limit();
    for (place, header) in headers.iter().enumerate().skip(1) {
        let height = lowest + place as u64;
        let wrong = |what: &str| Err(format!("block {height}:{}: {what}", header.hash()));
        let before = &headers[place - 1];
        if header.previous != before.hash() {
            return wrong("it does not name the block before it");
        }
        if let Err(why) = header.check_work(limit) {
            return wrong(&why.to_string());
        }
        let mut times: Vec<u32> =
            headers[place.saturating_sub(MEDIAN_OF)..place].iter().map(|header| header.time).collect();
        if times.len() == MEDIAN_OF || lowest == 0 {
            times.sort_unstable();
            if header.time <= times[times.len() / 2] {
                return wrong("it is not later than the median of the eleven before it");
            }
        }
        let period = options.retarget_blocks;
        let expected = if !height.is_multiple_of(period) {
            before.bits
        } else {
            let first_height = (height - period).max(1);
            let Some(first) = first_height.checked_sub(lowest).and_then(|place| headers.get(place as usize))
            else {
                continue;
            };
            let target = target_of(before.bits).map_err(|why| why.to_string())?;
            bits_of(retarget(target, first.time, before.time, options.timespan(), limit))
        };
        if header.bits != expected {
            return wrong(&format!("its bits are {:08x}, and {expected:08x} are due", header.bits));
        }
    }
    Ok(())
}
