//! One file of a [`MemoryDisk`](crate::MemoryDisk): what a reader sees, what would survive, and the changes between.

use std::io;

#[derive(Default)]
pub(crate) struct FileState {
    pub(crate) name: String,
    /// What a reader sees.
    pub(crate) visible: Content,
    /// What survives a power cut for certain.
    pub(crate) durable: Content,
    /// What leads from the one to the other, in order.
    pub(crate) changes: Vec<Change>,
}

pub(crate) enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Length(u64),
}

/// Bytes with a tail of zeros that takes no memory.
#[derive(Clone, Default)]
pub(crate) struct Content {
    pub(crate) bytes: Vec<u8>,
    pub(crate) length: u64,
}

impl Content {
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset as usize + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset as usize..end].copy_from_slice(bytes);
        self.length = self.length.max(end as u64);
    }

    pub(crate) fn set_length(&mut self, length: u64) {
        self.length = length;
        self.bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
    }

    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let from = self.bytes.len().min(offset as usize);
        let known = (self.bytes.len() - from).min(buffer.len());
        buffer[..known].copy_from_slice(&self.bytes[from..from + known]);
        buffer[known..].fill(0);
        Ok(())
    }

    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let mut all = self.bytes.clone();
        all.resize(self.length as usize, 0);
        all
    }
}

impl FileState {
    pub(crate) fn change(&mut self, change: Change) {
        change.apply(&mut self.visible);
        self.changes.push(change);
    }

    pub(crate) fn sync(&mut self) {
        for change in self.changes.drain(..) {
            change.apply(&mut self.durable);
        }
    }
}

impl Change {
    pub(crate) fn apply(&self, content: &mut Content) {
        match self {
            Change::Write { offset, bytes } => content.write(*offset, bytes),
            Change::Length(length) => content.set_length(*length),
        }
    }
}
