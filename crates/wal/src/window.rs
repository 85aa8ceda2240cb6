//! A stretch of a file in memory that moves along with a reader.
//!
//! A log is read once, from front to back, and most of it goes to where its records will live. So nothing is read into a buffer
//! of the file's size first: what is small is copied out of one that is used again and again, and what is large is read straight
//! to its place. A page of memory that a restart does not touch is time that it does not take.

use std::io;

use bytes::Bytes;

use crate::disk::DiskFile;
use crate::segment::{BATCH_HEADER_BYTES, BatchHeader, PAGE_BYTES, is_zero};

/// How much is read at a time; what is longer is read by itself.
const WINDOW_BYTES: usize = 256 << 10;

/// A file, seen through a window.
pub(crate) struct Window<'a> {
    file: &'a dyn DiskFile,
    length: usize,
    /// What the window shows, from `from` on.
    bytes: Vec<u8>,
    from: usize,
}

impl<'a> Window<'a> {
    /// The first `length` bytes of a file; `buffer` is used again.
    pub(crate) fn new(file: &'a dyn DiskFile, length: usize, mut buffer: Vec<u8>) -> Window<'a> {
        buffer.clear();
        Window { file, length, bytes: buffer, from: 0 }
    }

    /// The buffer, for the next window.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }

    /// The `length` bytes at `at`; `None` where the file ends before.
    ///
    /// # Errors
    /// When the file cannot be read.
    fn at(&mut self, at: usize, length: usize) -> io::Result<Option<&[u8]>> {
        let Some(end) = at.checked_add(length).filter(|end| *end <= self.length) else { return Ok(None) };
        if at < self.from || end > self.from + self.bytes.len() {
            self.from = at;
            self.bytes.resize(length.max(WINDOW_BYTES).min(self.length - at), 0);
            self.file.read_at(at as u64, &mut self.bytes)?;
        }
        Ok(Some(&self.bytes[at - self.from..end - self.from]))
    }

    /// The header of the batch that follows what ends at `at`, and where it begins: there, or behind zeros at the next page, as
    /// a mark does. `None` where none of this segment's does.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn batch(&mut self, at: usize, salt: u32) -> io::Result<Option<(usize, BatchHeader)>> {
        let Some(page) = at.checked_next_multiple_of(PAGE_BYTES) else { return Ok(None) };
        let is_padding = self.at(at, page - at)?.is_some_and(is_zero);
        let at = if is_padding { page } else { at };
        let Some(bytes) = self.at(at, BATCH_HEADER_BYTES)? else { return Ok(None) };
        let bytes = bytes.try_into().expect("as many as were asked for");
        Ok(BatchHeader::decode_at(bytes, at, salt).map(|batch| (at, batch)))
    }

    /// The `length` bytes at `at` in memory of their own: what lives on in it keeps nothing else there. `None` where the file
    /// ends before.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn copy(&mut self, at: usize, length: usize) -> io::Result<Option<Bytes>> {
        if length <= WINDOW_BYTES {
            return Ok(self.at(at, length)?.map(Bytes::copy_from_slice));
        }
        if at.checked_add(length).is_none_or(|end| end > self.length) {
            return Ok(None);
        }
        let mut bytes = vec![0; length];
        self.file.read_at(at as u64, &mut bytes)?;
        Ok(Some(bytes.into()))
    }

    /// Whether nothing but zeros follows.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn is_zero_from(&mut self, mut at: usize) -> io::Result<bool> {
        while at < self.length {
            let length = WINDOW_BYTES.min(self.length - at);
            if !self.at(at, length)?.is_some_and(is_zero) {
                return Ok(false);
            }
            at += length;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use synod_core::NodeId;

    use super::*;
    use crate::disk::Disk;
    use crate::log::{Log, LogOptions};
    use crate::memory::MemoryDisk;
    use crate::names;
    use crate::segment::{HEADER_BYTES, Header, Identity};

    /// The zeros in front of a mark do not end what is read straight: a log that fell idle now and then was read twice.
    #[test]
    fn a_mark_follows_behind_zeros() {
        let disk = MemoryDisk::new();
        let identity = Identity { cluster: 2, node: NodeId(1) };
        let opened = Log::open(Arc::new(disk.clone()), identity, LogOptions::default());
        let (mut log, _) = opened.expect("nothing is wrong with the disk");
        for record in 0..5u64 {
            log.append(&record).and_then(|()| log.sync()).expect("nothing is wrong with the disk");
            log.mark().expect("nothing is wrong with the disk");
        }
        let file = disk.open(&names::segment(1)).expect("it is there");
        let mut head = [0; HEADER_BYTES];
        file.read_at(0, &mut head).expect("it can be read");
        let Ok(header) = Header::decode(&head) else { panic!("the log wrote it") };
        let mut window = Window::new(&*file, header.capacity as usize, Vec::new());
        let (mut at, mut found) = (HEADER_BYTES, Vec::new());
        while let Some((begins, batch)) = window.batch(at, header.salt()).expect("it can be read") {
            at = begins + batch.bytes();
            found.push((begins % PAGE_BYTES == 0, batch.records));
        }
        assert_eq!(found, [(false, 1), (true, 0)].repeat(5));
        assert!(window.is_zero_from(at).expect("it can be read"));
    }
}
