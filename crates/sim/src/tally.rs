//! The simplest machine that shows what was applied, and in which order.

use std::collections::BTreeSet;
use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use synod_core::{Audience, Command, CommandId, Frozen, Index, Machine, NodeId, SnapshotRef};

/// Remembers every command applied; a reply is the number of commands so far.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// What was applied: where, which command, and its payload.
    pub applied: Vec<(Index, CommandId, Bytes)>,
}

impl Tally {
    /// A number that two tallies share exactly when they applied the same commands in the same order
    /// (FNV-1a, 64 bits).
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut digest = 0xcbf2_9ce4_8422_2325u64;
        let mut mix = |byte: u8| digest = (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        for (at, id, payload) in &self.applied {
            for number in [at.0, id.origin.0, id.number, payload.len() as u64] {
                number.to_le_bytes().into_iter().for_each(&mut mix);
            }
            payload.iter().copied().for_each(&mut mix);
        }
        digest
    }
}

impl Machine for Tally {
    type Reply = u64;
    type Frozen = Tally;

    fn apply(&mut self, at: Index, command: &Command, _audience: Audience) -> u64 {
        self.applied.push((at, command.id, command.payload.clone()));
        self.applied.len() as u64
    }

    fn freeze(&self) -> Tally {
        self.clone()
    }

    /// Its own, and behind it what only the other has.
    fn merge(&self, other: &SnapshotRef, _at: Index) -> io::Result<Tally> {
        let mut theirs = Tally::default();
        theirs.restore(other)?;
        let mut both = self.clone();
        let known: BTreeSet<CommandId> = both.applied.iter().map(|(_, id, _)| *id).collect();
        both.applied.extend(theirs.applied.into_iter().filter(|(_, id, _)| !known.contains(id)));
        Ok(both)
    }

    fn restore(&mut self, source: &SnapshotRef) -> io::Result<()> {
        let bytes = source.read(0, usize::try_from(source.bytes).map_err(|_| io::ErrorKind::InvalidData)?)?;
        self.applied = decode(bytes).ok_or(io::ErrorKind::InvalidData)?;
        Ok(())
    }
}

impl Frozen for Tally {
    fn write_to(self, out: &mut dyn io::Write) -> io::Result<()> {
        let mut bytes = BytesMut::new();
        for (at, id, payload) in &self.applied {
            for number in [at.0, id.origin.0, id.number, payload.len() as u64] {
                bytes.put_u64_le(number);
            }
            bytes.put_slice(payload);
        }
        out.write_all(&bytes)
    }
}

fn decode(mut bytes: Bytes) -> Option<Vec<(Index, CommandId, Bytes)>> {
    let mut applied = Vec::new();
    while !bytes.is_empty() {
        let mut numbers = [0; 4];
        for number in &mut numbers {
            *number = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
            bytes = bytes.slice(8..);
        }
        let [at, origin, number, length] = numbers;
        let length = usize::try_from(length).ok().filter(|length| *length <= bytes.len())?;
        applied.push((Index(at), CommandId { origin: NodeId(origin), number }, bytes.split_to(length)));
    }
    Some(applied)
}
