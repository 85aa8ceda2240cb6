//! What replicas say to one another (section 5), what they write down, and how both become bytes.
//!
//! Nothing here is believed for who says it: a block proves its own work, a tip is only a reason to ask, commands are only
//! offered. A snapshot's root is believed as far as its headers prove it (see `gossip`).

use std::fmt;
use std::sync::Arc;

use bytes::BytesMut;
use synod_core::wire::{Reader, put_u64};
use synod_core::{Batch, NodeId, Wire, WireError};

use super::block::{Block, HEIGHT_MAX};
use super::header::{Hash, Header};
use super::seen::{Highest, ORIGINS_MAX, Seen};
use super::work::U256;

/// What replicas say to one another.
#[derive(Clone)]
pub enum Message {
    /// Here is a block, with all it holds.
    Block(Arc<Block>),
    /// This is my best block.
    Tip {
        /// Its name.
        hash: Hash,
        /// Its height.
        height: u64,
        /// The work of its whole chain.
        work: U256,
    },
    /// Send me what follows the first of these that you know, on your best chain.
    Want {
        /// Blocks of the asker's best chain, newest first, ever further apart; the last is where its tree begins.
        known: Vec<Hash>,
        /// The height of that last one.
        root_height: u64,
    },
    /// Your tree begins at a block that is not on my best chain: I cannot bring you to it.
    Apart {
        /// That block.
        root: Hash,
        /// The work of my best chain.
        work: U256,
    },
    /// Clients want these ordered: whoever mines may put them into a block.
    Commands(Batch),
    /// Behind a snapshot: the block that it stands behind.
    Root(Box<Root>),
}

/// What must survive a crash.
#[derive(Clone)]
pub enum Record {
    /// A block that was accepted, on whichever branch.
    Block(Arc<Block>),
    /// The block that the snapshot stands behind; everything before it is forgotten.
    Root(Box<Root>),
}

/// A block without its past: what a replica must know of everything up to it.
#[derive(Clone, PartialEq, Eq)]
pub struct Root {
    /// The chain's first block.
    pub genesis: Hash,
    /// Its height.
    pub height: u64,
    /// The work of the chain up to it.
    pub work: U256,
    /// The last headers up to its own, oldest first: times and targets are judged by them.
    pub headers: Vec<Header>,
    /// The highest command of each origin.
    pub highest: Arc<Highest>,
    /// The commands that may not come again.
    pub seen: Seen,
}

impl Root {
    /// Its own header.
    #[must_use]
    pub fn header(&self) -> &Header {
        self.headers.last().expect("a root has its own header")
    }

    /// Its name.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.header().hash()
    }
}

/// A request names so many blocks at most: steps double, so this reaches beyond every height.
pub(super) const KNOWN_MAX: usize = 129;

/// A root carries so many headers at most: as many as the longest period between two adjustments.
pub(super) const HEADERS_MAX: u64 = 1 << 16;

fn put_tag(out: &mut BytesMut, tag: u8) {
    out.extend_from_slice(&[tag]);
}

fn height(from: &mut Reader) -> Result<u64, WireError> {
    let value = from.u64("height")?;
    if value > HEIGHT_MAX {
        return Err(WireError::Invalid { what: "height", value, allowed: "at most 2^60" });
    }
    Ok(value)
}

impl Wire for Message {
    fn encode(&self, out: &mut BytesMut) {
        match self {
            Message::Block(block) => {
                put_tag(out, 0);
                block.encode(out);
            }
            Message::Tip { hash, height, work } => {
                put_tag(out, 1);
                hash.encode(out);
                put_u64(out, *height);
                work.encode(out);
            }
            Message::Want { known, root_height } => {
                put_tag(out, 2);
                known.encode(out);
                put_u64(out, *root_height);
            }
            Message::Commands(batch) => {
                put_tag(out, 3);
                batch.encode(out);
            }
            Message::Root(root) => {
                put_tag(out, 4);
                root.encode(out);
            }
            Message::Apart { root, work } => {
                put_tag(out, 5);
                root.encode(out);
                work.encode(out);
            }
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(match from.u8("message kind")? {
            0 => Message::Block(Arc::decode(from)?),
            1 => {
                let (hash, height) = (Hash::decode(from)?, height(from)?);
                Message::Tip { hash, height, work: U256::decode(from)? }
            }
            2 => {
                let count = from.count("known blocks", KNOWN_MAX as u64)?;
                let known = (0..count).map(|_| Hash::decode(from)).collect::<Result<_, _>>()?;
                Message::Want { known, root_height: height(from)? }
            }
            3 => Message::Commands(Batch::decode(from)?),
            4 => Message::Root(Box::new(Root::decode(from)?)),
            5 => Message::Apart { root: Hash::decode(from)?, work: U256::decode(from)? },
            other => {
                let value = u64::from(other);
                return Err(WireError::Invalid { what: "message kind", value, allowed: "0 to 5" });
            }
        })
    }
}

impl Wire for Record {
    fn encode(&self, out: &mut BytesMut) {
        match self {
            Record::Block(block) => {
                put_tag(out, 0);
                block.encode(out);
            }
            Record::Root(root) => {
                put_tag(out, 1);
                root.encode(out);
            }
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        match from.u8("record kind")? {
            0 => Ok(Record::Block(Arc::decode(from)?)),
            1 => Ok(Record::Root(Box::new(Root::decode(from)?))),
            other => {
                Err(WireError::Invalid { what: "record kind", value: u64::from(other), allowed: "0 or 1" })
            }
        }
    }
}

impl Wire for Root {
    fn encode(&self, out: &mut BytesMut) {
        self.genesis.encode(out);
        put_u64(out, self.height);
        self.work.encode(out);
        self.headers.encode(out);
        put_u64(out, self.highest.len() as u64);
        for (origin, number) in self.highest.iter() {
            origin.encode(out);
            put_u64(out, *number);
        }
        self.seen.encode(out);
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        let genesis = Hash::decode(from)?;
        let (height, work) = (height(from)?, U256::decode(from)?);
        let count = from.count("headers", HEADERS_MAX)?;
        if count == 0 || count as u64 > height.saturating_add(1) {
            let allowed = "at least one, and no more than the chain has";
            return Err(WireError::Invalid { what: "headers", value: count as u64, allowed });
        }
        let headers: Vec<Header> = (0..count).map(|_| Header::decode(from)).collect::<Result<_, _>>()?;
        let mut highest = Highest::new();
        for _ in 0..from.count("origins", ORIGINS_MAX as u64)? {
            highest.insert(NodeId(from.u64("origin")?), from.u64("highest number")?);
        }
        Ok(Root { genesis, height, work, headers, highest: Arc::new(highest), seen: Seen::decode(from)? })
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Message::Block(block) => write!(f, "Block {block:?}"),
            Message::Tip { hash, height, work } => write!(f, "Tip {height}:{hash:?} work {work:?}"),
            Message::Want { known, root_height } => write!(f, "Want after {known:?}, root {root_height}"),
            Message::Apart { root, work } => write!(f, "Apart from {root:?} with work {work:?}"),
            Message::Commands(batch) => write!(f, "Commands {batch:?}"),
            Message::Root(root) => write!(f, "Root {root:?}"),
        }
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Record::Block(block) => write!(f, "Block {block:?}"),
            Record::Root(root) => write!(f, "Root {root:?}"),
        }
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:?} work {:?}, {} headers", self.height, self.hash(), self.work, self.headers.len())
    }
}
