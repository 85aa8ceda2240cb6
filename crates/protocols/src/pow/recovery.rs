//! From what the disk held to a replica.
//!
//! Records are blocks, on all branches, in the order in which they were taken in, so parents come before children; in front of
//! them, behind a checkpoint, the root. Which chain is best follows from the blocks. What is in blocks of other branches waits to be mined
//! again, as it did before. Nothing else was promised: what was in no block yet is gone, and its origins, if they still run, offer it
//! again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use synod_core::{Config, Lsn, NodeId, Recovered, Rng, Time};

use super::gossip::Peer;
use super::header::Hash;
use super::message::Record;
use super::mining::Miner;
use super::pool::Pool;
use super::tree::Tree;
use super::{Counts, Options, Pow};

/// The log holds a chain that these options do not make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the log holds a chain with other rules: its genesis block is {found}, and these options make {made}"
)]
pub struct WrongChain {
    /// Its first block.
    pub found: Hash,
    /// The first block with these options.
    pub made: Hash,
}

/// Whether the log's chain is the one that these options make.
///
/// # Errors
/// When it is another.
pub fn check_chain_of(options: &Options, records: &[Record]) -> Result<(), WrongChain> {
    let made = options.genesis().hash();
    for record in records {
        let found = match record {
            Record::Root(root) => root.genesis,
            Record::Block(block) if block.height == 1 => block.header.previous,
            Record::Block(_) => continue,
        };
        if found != made {
            return Err(WrongChain { found, made });
        }
    }
    Ok(())
}

impl Pow {
    pub(super) fn recover(config: &Config<Options>, found: Recovered<Record>, now: Time) -> Pow {
        let options = config.options.clone();
        if let Err(error) = options.check() {
            panic!("options are checked before a replica is opened: {error}");
        }
        if let Err(wrong) = check_chain_of(&options, &found.records) {
            panic!("{wrong}");
        }
        let mut tree = Tree::planted(&options);
        for record in found.records {
            match record {
                Record::Root(root) => {
                    tree = Tree::new(*root);
                }
                Record::Block(block) => {
                    let parent = block.header.previous;
                    if tree.knows(parent) && !tree.knows(block.header.hash()) {
                        let settled = tree.root.height;
                        tree.insert(block, Lsn::ZERO, settled, &options);
                    }
                }
            }
        }
        let root = tree.root.height;
        if let Some(snapshot) = &found.snapshot {
            assert_eq!(snapshot.at.0, root, "the log's checkpoint and its snapshot stand behind one block");
        }
        let peers: BTreeMap<NodeId, Peer> = config
            .members
            .all()
            .filter(|id| *id != config.id)
            .take(super::gossip::PEERS_MAX)
            .map(|id| (id, Peer::default()))
            .collect();
        let mut rng = Rng::new(config.seed);
        let mut pow = Pow {
            id: config.id,
            options,
            tree,
            pool: Pool::default(),
            miner: Miner::new(rng.fork()),
            peers,
            told: BTreeSet::new(),
            // A moment later, and not at once: a deadline at zero would mean that there is more to apply.
            gossip_at: now + std::time::Duration::from_millis(1),
            orphans: VecDeque::new(),
            durable: Lsn::ZERO,
            durable_to: root,
            delivered: VecDeque::new(),
            delivered_from: root,
            diverged: false,
            floor: root,
            refused_fork: None,
            switches: 0,
            counts: Counts::default(),
            now,
        };
        pow.counts.recovered = pow.tree.blocks().len() as u64;
        pow.put_losers_back();
        pow.mine_anew(now);
        pow
    }
}
