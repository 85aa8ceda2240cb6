//! A stretch of a file in memory that moves along with a reader.
//!
//! A log is read once, from front to back, and most of it goes to where its records will live. So nothing is read into a buffer
//! of the file's size first: what is small is copied out of one that is used again and again, and what is large is read straight
//! to its place. A page of memory that a restart does not touch is time that it does not take.

use std::io;

use bytes::Bytes;

use crate::disk::DiskFile;
use crate::segment::is_zero;

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

    /// The `N` bytes at `at`; `None` where the file ends before.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn array<const N: usize>(&mut self, at: usize) -> io::Result<Option<[u8; N]>> {
        Ok(self.at(at, N)?.map(|bytes| bytes.try_into().expect("as many as were asked for")))
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
