//! What a file holds: bytes, and behind them zeros that nobody has to store.
//!
//! A log's segment is preallocated with zeros and filled little by little; keeping the zeros would cost a simulation more than all
//! else that it does.

/// A file's content.
///
/// Invariant: no more bytes are stored than its length; the rest are zeros.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    stored: Vec<u8>,
    length: usize,
}

impl Content {
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// The bytes up to the last one that is not zero.
    pub(crate) fn used(&self) -> usize {
        self.stored.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
    }

    /// Longer by zeros, or cut off.
    pub(crate) fn set_len(&mut self, length: usize) {
        self.stored.truncate(length);
        self.length = length;
    }

    /// Overwrites from `offset` on; the file grows if it must.
    pub(crate) fn put(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.stored.len() < offset {
            self.stored.resize(offset, 0);
        }
        let inside = (self.stored.len() - offset).min(bytes.len());
        self.stored[offset..offset + inside].copy_from_slice(&bytes[..inside]);
        self.stored.extend_from_slice(&bytes[inside..]);
        self.length = self.length.max(end);
    }

    /// Fills `buffer` from `offset` on; false when the file ends before it is full.
    pub(crate) fn read(&self, offset: usize, buffer: &mut [u8]) -> bool {
        if offset.checked_add(buffer.len()).is_none_or(|end| end > self.length) {
            return false;
        }
        let held = self.stored.get(offset..).unwrap_or_default();
        let inside = held.len().min(buffer.len());
        buffer[..inside].copy_from_slice(&held[..inside]);
        buffer[inside..].fill(0);
        true
    }

    /// Becomes like `other` from `from` on.
    pub(crate) fn take_from(&mut self, other: &Content, from: usize) {
        self.stored.resize(from.min(self.length), 0);
        self.stored.extend_from_slice(other.stored.get(from..).unwrap_or_default());
        self.length = other.length;
        self.stored.truncate(self.length);
    }

    /// Flips one bit, if the file has it.
    pub(crate) fn flip(&mut self, bit: usize) {
        let mut byte = [0];
        if self.read(bit / 8, &mut byte) {
            self.put(bit / 8, &[byte[0] ^ 1 << (bit % 8)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What lies before stays; zeros that nobody stored are taken over, too, and the length.
    #[test]
    fn only_the_end_is_taken_over() {
        let content = |bytes: &[u8], length| {
            let mut content = Content::default();
            content.put(0, bytes);
            content.set_len(length);
            content
        };
        for (other, from, expected) in [
            (content(b"abcdef", 8), 4, content(b"ABCDef", 8)),
            (content(b"ab", 6), 4, content(b"ABCD", 6)),
            (content(b"abcdef", 6), 0, content(b"abcdef", 6)),
            (content(b"abcdefgh", 9), 7, content(b"ABCDE\0\0h", 9)),
            (content(b"ab", 3), 4, content(b"ABC", 3)),
        ] {
            let mut taken = content(b"ABCDE", 8);
            taken.take_from(&other, from);
            let same = |left: &Content, right: &Content| {
                let (mut a, mut b) = ([0; 9], [0; 9]);
                left.len() == right.len()
                    && left.read(0, &mut a[..left.len()])
                    && right.read(0, &mut b[..right.len()])
                    && a == b
            };
            assert!(same(&taken, &expected), "{taken:?} is not {expected:?}");
        }
    }

    /// Stored or not, zeros are read back as zeros, and what is cut off is gone.
    #[test]
    fn zeros_need_no_room() {
        let mut content = Content::default();
        content.set_len(100);
        content.put(40, b"ab");
        content.flip(99 * 8);
        let mut read = [1; 61];
        assert!(content.read(39, &mut read));
        assert_eq!((&read[..4], read[60], content.used()), (&b"\0ab\0"[..], 1, 100));
        assert!(!content.read(50, &mut [0; 51]), "it ends at 100");
        content.set_len(41);
        content.set_len(80);
        assert!(content.read(40, &mut read[..2]));
        assert_eq!(&read[..2], b"a\0");
    }
}
