//! Header compression (RFC 7541): from a header block to its fields, and the few forms that we write.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use crate::huffman;

/// One header field; names are in lower case, as they are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name; pseudo-headers begin with a colon.
    pub name: Bytes,
    /// Its value.
    pub value: Bytes,
}

impl Field {
    /// What it counts in a table, or a list (4.1).
    #[must_use]
    pub fn size(&self) -> usize {
        self.name.len() + self.value.len() + 32
    }
}

/// Why a block cannot be read. The connection cannot go on: what follows depends on the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HpackError {
    /// The block ends inside a field.
    #[error("a header block ends inside a field")]
    Cut,
    /// A number that no block needs.
    #[error("a number in a header block is too large")]
    Number,
    /// An entry that is not in the table.
    #[error("a header block names an entry that the table does not have")]
    Index,
    /// A table larger than agreed.
    #[error("a header block makes the table larger than agreed, or says so too late")]
    TableSize,
    /// A string that does not decode.
    #[error("{0}")]
    Huffman(#[from] huffman::Malformed),
}

/// What decoding a block gave beside its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Whether there were more fields than `list_max` bytes; those beyond are not given.
    pub cut: bool,
    /// Whether the table is as it was: then the same bytes mean the same again.
    pub repeatable: bool,
}

/// The size that tables have unless agreed otherwise.
pub const TABLE_SIZE: usize = 4096;

/// A decoder with its dynamic table: one for each connection and direction.
#[derive(Debug)]
pub struct Decoder {
    /// The newest entry first.
    table: VecDeque<Field>,
    size: usize,
    size_max: usize,
    /// What was agreed in SETTINGS: `size_max` stays at or below it.
    agreed: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder::with_table(TABLE_SIZE)
    }
}

impl Decoder {
    /// A decoder whose table holds at most so many bytes, as was said in SETTINGS.
    #[must_use]
    pub fn with_table(agreed: usize) -> Decoder {
        Decoder { table: VecDeque::new(), size: 0, size_max: agreed, agreed }
    }

    /// Appends the fields of a block; at most `list_max` bytes of them, by their size in a list.
    ///
    /// # Errors
    /// What is wrong with the block.
    pub fn decode(
        &mut self,
        block: &[u8],
        list_max: usize,
        fields: &mut Vec<Field>,
    ) -> Result<Decoded, HpackError> {
        let mut from = Input(block);
        let (mut listed, mut fresh) = (0, true);
        let mut decoded = Decoded { cut: false, repeatable: true };
        while let Some(first) = from.0.first().copied() {
            let field = match first {
                0x80.. => self.entry(from.number(7)?)?,
                0x40.. => {
                    let field = self.literal(&mut from, 6)?;
                    self.insert(field.clone());
                    decoded.repeatable = false;
                    field
                }
                0x20.. => {
                    // Only in front of the first field (4.2).
                    let size = from.number(5)?;
                    if !fresh || size > self.agreed {
                        return Err(HpackError::TableSize);
                    }
                    self.size_max = size;
                    self.evict(0);
                    decoded.repeatable = false;
                    continue;
                }
                _ => self.literal(&mut from, 4)?,
            };
            fresh = false;
            listed += field.size();
            if listed > list_max {
                decoded.cut = true;
            } else {
                fields.push(field);
            }
        }
        Ok(decoded)
    }

    fn literal(&self, from: &mut Input<'_>, prefix: u8) -> Result<Field, HpackError> {
        let name = match from.number(prefix)? {
            0 => from.string()?,
            index => self.entry(index)?.name,
        };
        Ok(Field { name, value: from.string()? })
    }

    fn entry(&self, index: usize) -> Result<Field, HpackError> {
        if index == 0 {
            return Err(HpackError::Index);
        }
        if let Some((name, value)) = STATIC.get(index - 1) {
            return Ok(Field {
                name: Bytes::from_static(name.as_bytes()),
                value: Bytes::from_static(value.as_bytes()),
            });
        }
        self.table.get(index - 1 - STATIC.len()).cloned().ok_or(HpackError::Index)
    }

    fn insert(&mut self, field: Field) {
        let size = field.size();
        self.evict(size);
        // What is larger than the whole table empties it (4.4).
        if size <= self.size_max {
            self.size += size;
            self.table.push_front(field);
        }
    }

    /// Makes room for so many bytes.
    fn evict(&mut self, room: usize) {
        while self.size + room > self.size_max
            && let Some(oldest) = self.table.pop_back()
        {
            self.size -= oldest.size();
        }
    }
}

/// What of a block is still to be read.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Result<u8, HpackError> {
        let (first, rest) = self.0.split_first().ok_or(HpackError::Cut)?;
        self.0 = rest;
        Ok(*first)
    }

    /// A number that begins in the low bits of the next byte (5.1).
    fn number(&mut self, prefix: u8) -> Result<usize, HpackError> {
        let mask = (1usize << prefix) - 1;
        let first = usize::from(self.byte()?) & mask;
        if first < mask {
            return Ok(first);
        }
        let mut number = mask;
        // Three more bytes reach two million: nothing here is that long.
        for shift in [0, 7, 14] {
            let byte = self.byte()?;
            number += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(HpackError::Number)
    }

    fn string(&mut self) -> Result<Bytes, HpackError> {
        let coded = self.0.first().is_some_and(|first| first & 0x80 != 0);
        let length = self.number(7)?;
        let (string, rest) = self.0.split_at_checked(length).ok_or(HpackError::Cut)?;
        self.0 = rest;
        if !coded {
            return Ok(Bytes::copy_from_slice(string));
        }
        let mut out = Vec::with_capacity(string.len() * 8 / 5);
        huffman::decode(string, &mut out)?;
        Ok(out.into())
    }
}

/// Appends a field by its place in the static table or the peer's dynamic one.
pub fn put_indexed(out: &mut BytesMut, index: u8) {
    debug_assert!((1..0x7f).contains(&index), "one byte holds it");
    out.put_u8(0x80 | index);
}

/// Appends a field that the peer is not to remember.
pub fn put_literal(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.put_u8(0);
    put_string(out, name);
    put_string(out, value);
}

/// Appends a field that becomes the newest entry of the peer's table.
pub fn put_remembered(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.put_u8(0x40);
    put_string(out, name);
    put_string(out, value);
}

/// Appends the order to empty the table; only in front of a block's first field.
pub fn put_table_emptied(out: &mut BytesMut) {
    out.put_u8(0x20);
}

fn put_string(out: &mut BytesMut, string: &[u8]) {
    let mut rest = string.len();
    if rest < 0x7f {
        out.put_u8(rest as u8);
    } else {
        out.put_u8(0x7f);
        rest -= 0x7f;
        while rest >= 0x80 {
            out.put_u8(0x80 | rest as u8);
            rest >>= 7;
        }
        out.put_u8(rest as u8);
    }
    out.put_slice(string);
}

/// The static table (appendix A).
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// The static table's places that are written as they are.
pub mod place {
    /// `:method: POST`.
    pub const POST: u8 = 3;
    /// `:scheme: http`.
    pub const HTTP: u8 = 6;
    /// `:status: 200`.
    pub const OK: u8 = 8;
    /// The newest entry of the dynamic table.
    pub const NEWEST: u8 = 62;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(fields: &[Field]) -> Vec<String> {
        let words = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        fields.iter().map(|field| format!("{}: {}", words(&field.name), words(&field.value))).collect()
    }

    fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, HpackError> {
        let mut fields = Vec::new();
        decoder.decode(block, 1 << 16, &mut fields).map(|_| text(&fields))
    }

    /// The requests of RFC 7541, appendix C.4: Huffman-coded, each leaning on the table that the one before made.
    #[test]
    fn requests_of_the_rfc() {
        let mut decoder = Decoder::default();
        let first = [
            0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4,
            0xff,
        ];
        let site = ":authority: www.example.com";
        let common = [":method: GET", ":scheme: http", ":path: /", site];
        assert_eq!(decode(&mut decoder, &first).unwrap(), common);
        let second = [0x82, 0x86, 0x84, 0xbe, 0x58, 0x86, 0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf];
        assert_eq!(decode(&mut decoder, &second).unwrap()[3..], [site, "cache-control: no-cache"]);
        let third = [
            0x82, 0x87, 0x85, 0xbf, 0x40, 0x88, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f, 0x89, 0x25,
            0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf,
        ];
        let third = decode(&mut decoder, &third).unwrap();
        assert_eq!(third[3..], [site, "custom-key: custom-value"]);
        assert_eq!(decoder.size, 164);
    }

    /// Entries leave the table from its old end, and one that is too large empties it.
    #[test]
    fn the_table_evicts() {
        let mut decoder = Decoder::with_table(100);
        let mut block = BytesMut::new();
        for name in [b"a", b"b", b"c"] {
            put_remembered(&mut block, name, b"0123456789");
        }
        decode(&mut decoder, &block).unwrap();
        let newest = |decoder: &mut Decoder, index: u8| decode(decoder, &[0x80 | index]);
        assert_eq!(newest(&mut decoder, 62).unwrap(), ["c: 0123456789"]);
        assert_eq!(newest(&mut decoder, 63).unwrap(), ["b: 0123456789"]);
        assert_eq!(newest(&mut decoder, 64), Err(HpackError::Index));
        let mut block = BytesMut::new();
        put_remembered(&mut block, b"d", &[b'x'; 100]);
        decode(&mut decoder, &block).unwrap();
        assert_eq!((decoder.size, decoder.table.len()), (0, 0));
    }

    /// The table's size may be changed in front of a block alone, and never above what was agreed.
    #[test]
    fn table_sizes() {
        assert_eq!(decode(&mut Decoder::default(), &[0x20, 0x82]).unwrap(), [":method: GET"]);
        assert_eq!(decode(&mut Decoder::default(), &[0x82, 0x20]), Err(HpackError::TableSize));
        assert_eq!(decode(&mut Decoder::with_table(10), &[0x2b]), Err(HpackError::TableSize));
    }

    /// A list that is too long is cut and said to be, and the table stays in step.
    #[test]
    fn long_lists_are_cut() {
        let mut decoder = Decoder::default();
        let mut block = BytesMut::new();
        put_literal(&mut block, b"long", &[b'x'; 300]);
        put_remembered(&mut block, b"k", b"v");
        let mut fields = Vec::new();
        let decoded = decoder.decode(&block, 320, &mut fields).unwrap();
        assert_eq!((decoded.cut, decoded.repeatable, fields.len()), (true, false, 0));
        assert_eq!(decode(&mut decoder, &[0x80 | place::NEWEST]).unwrap(), ["k: v"]);
    }

    proptest! {
        /// What is written is read; whatever else arrives is an error or fields, never a panic.
        #[test]
        fn any_bytes(block: Vec<u8>, name in "[a-z-]{1,40}", value in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode(&mut Decoder::default(), &block);
            let mut written = BytesMut::new();
            put_literal(&mut written, name.as_bytes(), &value);
            put_remembered(&mut written, name.as_bytes(), &value);
            let mut fields = Vec::new();
            Decoder::default().decode(&written, 1 << 16, &mut fields).unwrap();
            prop_assert_eq!(fields.len(), 2);
            for field in fields {
                prop_assert_eq!(&field.name[..], name.as_bytes());
                prop_assert_eq!(&field.value[..], &value[..]);
            }
        }
    }
}
