//! The machine of the network's replicas: a chain of hashes, so that agreement at one index covers all before it.

use std::io;

use synod_core::{Audience, Command, CommandId, Frozen, Index, Machine, Rng, SnapshotRef};

/// A machine whose state is the hash of all that it was given.
#[derive(Clone, Default)]
pub(crate) struct Chain {
    at: Index,
    hash: u64,
    /// What was applied since the network last looked.
    pub(super) fresh: Vec<(Index, CommandId, u64)>,
}

fn mix(hash: u64, value: u64) -> u64 {
    Rng::new(hash ^ value.wrapping_mul(0x9e37_79b9_7f4a_7c15)).next_u64()
}

impl Machine for Chain {
    type Reply = ();
    type Frozen = FrozenChain;

    fn apply(&mut self, at: Index, command: &Command, _audience: Audience) {
        self.hash = mix(self.hash, at.0 ^ mix(command.id.origin.0, command.id.number));
        self.at = at;
        self.fresh.push((at, command.id, self.hash));
    }

    fn freeze(&self) -> FrozenChain {
        FrozenChain(self.at, self.hash)
    }

    fn restore(&mut self, source: &SnapshotRef) -> io::Result<()> {
        let bytes = source.read(0, 16)?;
        let number = |range: std::ops::Range<usize>| u64::from_le_bytes(bytes[range].try_into().expect("8"));
        *self = Chain { at: Index(number(0..8)), hash: number(8..16), fresh: Vec::new() };
        Ok(())
    }
}

/// What a chain writes down.
#[derive(Clone)]
pub(crate) struct FrozenChain(Index, u64);

impl Frozen for FrozenChain {
    fn write_to(self, out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(&self.0.0.to_le_bytes())?;
        out.write_all(&self.1.to_le_bytes())
    }
}
