//! A block: a header, and what its merkle root stands for (sections 2, 5 and 7).
//!
//! The body is a batch of the store's commands, and in front of it a *coinbase*, as in Bitcoin the one entry that a miner
//! makes itself: its name, the block's height (so that no two blocks of a chain are alike), and a number to change when
//! all nonces are used up. Nobody is paid: what a miner of a store gains is the store. Leaves are double hashes of the
//! entries' encodings, the coinbase's first; levels are joined as in Bitcoin, an odd last one with itself. That form lets a
//! list whose end is doubled have the same root (CVE-2012-2459); a block that holds a command twice is refused for it.

use std::collections::BTreeSet;
use std::fmt;

use bytes::BytesMut;
use synod_core::wire::{Reader, put_u64};
use synod_core::{Batch, NodeId, Wire, WireError, batch_bytes};

use super::header::{Hash, Header, double_sha};

/// A block of the chain.
#[derive(Clone, PartialEq, Eq)]
pub struct Block {
    /// The 80 bytes that prove the work.
    pub header: Header,
    /// How many blocks lie before it; the genesis block has height 0.
    pub height: u64,
    /// Who says to have mined it: for people, never checked.
    pub miner: NodeId,
    /// Changed when all nonces are used up.
    pub extra: u64,
    /// The commands.
    pub batch: Batch,
}

/// A block is never higher than this, so that no arithmetic on heights overflows.
pub(super) const HEIGHT_MAX: u64 = 1 << 60;

impl Block {
    /// What the header's merkle field must hold.
    #[must_use]
    pub fn merkle_root(&self) -> Hash {
        let mut bytes = BytesMut::new();
        self.encode_coinbase(&mut bytes);
        let mut level = Vec::with_capacity(self.batch.len() + 1);
        level.push(double_sha(&bytes));
        for command in self.batch.iter() {
            bytes.clear();
            command.encode(&mut bytes);
            level.push(double_sha(&bytes));
        }
        root_of(level)
    }

    fn encode_coinbase(&self, out: &mut BytesMut) {
        put_u64(out, self.height);
        self.miner.encode(out);
        put_u64(out, self.extra);
    }

    /// What it costs in memory, and roughly on the wire.
    #[must_use]
    pub fn bytes(&self) -> usize {
        batch_bytes(&self.batch) + OVERHEAD_BYTES
    }

    /// Whether some command is in it twice.
    pub(super) fn repeats(&self) -> bool {
        let mut seen = BTreeSet::new();
        !self.batch.iter().all(|command| seen.insert(command.id))
    }
}

/// A header and a coinbase.
const OVERHEAD_BYTES: usize = 112;

/// Joins the leaves two by two until one is left.
#[must_use]
pub fn root_of(mut level: Vec<Hash>) -> Hash {
    assert!(!level.is_empty(), "a merkle tree has a leaf");
    while level.len() > 1 {
        level = level
            .chunks(2)
            .map(|pair| {
                let mut both = [0; 64];
                both[..32].copy_from_slice(&pair[0].0);
                both[32..].copy_from_slice(&pair[pair.len() - 1].0);
                double_sha(&both)
            })
            .collect();
    }
    level[0]
}

impl Wire for Block {
    fn encode(&self, out: &mut BytesMut) {
        self.header.encode(out);
        self.encode_coinbase(out);
        self.batch.encode(out);
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        let header = Header::decode(from)?;
        let height = from.u64("block height")?;
        if height == 0 || height > HEIGHT_MAX {
            let allowed = "from 1 to 2^60: nobody sends the genesis block";
            return Err(WireError::Invalid { what: "block height", value: height, allowed });
        }
        let miner = NodeId(from.u64("miner")?);
        Ok(Block { header, height, miner, extra: from.u64("extra nonce")?, batch: Batch::decode(from)? })
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Header { previous, time, bits, .. } = &self.header;
        write!(f, "{}:{:?} after {previous:?} by {:?}", self.height, self.header.hash(), self.miner)?;
        write!(f, " t={time} bits={bits:08x} {:?}", self.batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use synod_core::{Command, CommandId};

    fn block(commands: u64) -> Block {
        let command = |number| {
            let id = CommandId { origin: NodeId(1), number };
            Command { id, payload: Bytes::from(format!("put {number}")) }
        };
        let header =
            Header { version: 1, previous: Hash([1; 32]), merkle: Hash([0; 32]), time: 1, bits: 2, nonce: 3 };
        let mut block = Block {
            header,
            height: 7,
            miner: NodeId(2),
            extra: 9,
            batch: (1..=commands).map(command).collect(),
        };
        block.header.merkle = block.merkle_root();
        block
    }

    /// The merkle root of Bitcoin's block 100,000, from its four transactions: the joining is Bitcoin's.
    #[test]
    fn the_root_is_bitcoins() {
        let hash = |text: &str| {
            let mut bytes = [0; 32];
            for (place, byte) in bytes.iter_mut().rev().enumerate() {
                *byte = u8::from_str_radix(&text[place * 2..place * 2 + 2], 16).expect("hex");
            }
            Hash(bytes)
        };
        let leaves = [
            "8c14f0db3df150123e6f3dbbf30f8b955a8249b62ac1d1ff16284aefa3d06d87",
            "fff2525b8931402dd09222c50775608f75787bd2b87e56995a7bdd30f79702c4",
            "6359f0868171b1d194cbee1af2f16ea598ae8fad666d9b012c8ed2b79a236ec4",
            "e9a66845e05d5abc0ad04ec80f774a7e585c6e8db975962d069a522137b80c1d",
        ];
        let root = root_of(leaves.iter().map(|it| hash(it)).collect());
        assert_eq!(root.to_string(), "f3e94742aca4b5ef85488dc37c06c3282295ffec960994b2c0d5ac2a25a95766");
    }

    /// Whatever is changed in a block changes its root; a list with its end doubled has the same root and is told apart.
    #[test]
    fn the_root_stands_for_everything() {
        let plain = block(3);
        for change in [
            |it: &mut Block| it.height += 1,
            |it: &mut Block| it.miner = NodeId(3),
            |it: &mut Block| it.extra += 1,
            |it: &mut Block| it.batch = it.batch.iter().rev().cloned().collect(),
            |it: &mut Block| it.batch = it.batch.iter().skip(1).cloned().collect(),
        ] {
            let mut other = plain.clone();
            change(&mut other);
            assert_ne!(other.merkle_root(), plain.header.merkle);
        }
        let two = block(2);
        let doubled =
            Block { batch: two.batch.iter().chain([&two.batch[1]]).cloned().collect(), ..two.clone() };
        assert_eq!(doubled.merkle_root(), two.merkle_root(), "CVE-2012-2459");
        assert!(doubled.repeats() && !two.repeats());
    }

    /// Blocks come back from their encoding as they were.
    #[test]
    fn blocks_round_trip() {
        for commands in 0..4 {
            let it = block(commands);
            assert_eq!(Block::decode_all(it.to_bytes()), Ok(it));
        }
    }
}
