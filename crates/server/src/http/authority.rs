//! Lets clients in that do not know what an authority is.
//!
//! etcd's own command line up to 3.4, and Go clients up to 3.5, send the endpoint as it was typed as HTTP/2's `:authority`:
//! `http://10.0.0.1:2379`, or `#initially=[...]`. Go's server does not look at it. Ours takes that for a malformed request and
//! resets the stream, as RFC 9113 wishes, before anybody can be asked. Since every etcd client shall work, the bytes on
//! their way in are looked through, and such an authority is replaced by one of the same length whose odd characters are
//! dashes. Same length, because both ends keep a table of headers (RFC 7541, section 4) whose size counts it.
//!
//! Nothing else is touched: frames pass as they are, without a copy, and anything unexpected is left for the HTTP/2
//! implementation to judge. A header block that is spread over several frames is not looked at; no client does that for
//! headers as small as these.

use bytes::{BufMut, Bytes, BytesMut};
use http::uri::Authority;

/// What an HTTP/2 client begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The length of a frame's header.
const HEAD: usize = 9;

/// The payload of a frame that we allow clients to send: HTTP/2's own default.
const PAYLOAD_MAX: usize = 16_384;

const HEADERS: u8 = 1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// Where in the client's bytes we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes of the preface have been seen.
    Preface(usize),
    /// At the beginning of a frame.
    Frame,
    /// So many bytes of a frame that is none of our business are still to come.
    Payload(usize),
    /// Not HTTP/2, or not to be understood: nothing is looked at any more.
    Blind,
}

/// What comes after the bytes that may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Nothing.
    End,
    /// A frame that has not arrived whole.
    Incomplete,
    /// A frame to be repaired.
    Repair,
}

/// Looks through one connection's bytes.
pub(super) struct Repairer {
    state: State,
    /// Bytes that must not pass yet: less than one frame.
    held: BytesMut,
    /// Bytes that may pass and have not been taken.
    ready: BytesMut,
}

impl Repairer {
    pub(super) fn new() -> Repairer {
        Repairer { state: State::Preface(0), held: BytesMut::new(), ready: BytesMut::new() }
    }

    /// Whether the connection's bytes may pass without being shown here.
    pub(super) fn is_blind(&self) -> bool {
        self.state == State::Blind && self.held.is_empty()
    }

    /// Looks at what arrived; so many bytes of it may pass at once. The rest is kept.
    pub(super) fn look(&mut self, arrived: &[u8]) -> usize {
        if self.held.is_empty() && self.ready.is_empty() {
            let (pass, next) = self.scan(arrived);
            if next != Next::End {
                self.held.extend_from_slice(&arrived[pass..]);
                self.settle();
            }
            return pass;
        }
        self.held.extend_from_slice(arrived);
        self.settle();
        0
    }

    /// Takes bytes that were kept and may pass now, at most `max`.
    pub(super) fn take(&mut self, max: usize) -> Bytes {
        let length = self.ready.len().min(max);
        self.ready.split_to(length).freeze()
    }

    /// Nothing more will arrive: what is kept may pass.
    pub(super) fn end(&mut self) {
        self.state = State::Blind;
        self.ready.unsplit(std::mem::take(&mut self.held));
    }

    /// Makes as much as possible of what is held ready.
    fn settle(&mut self) {
        loop {
            let held = std::mem::take(&mut self.held);
            let (pass, next) = self.scan(&held);
            self.held = held;
            self.ready.extend_from_slice(&self.held.split_to(pass));
            if next != Next::Repair {
                return;
            }
            let frame = self.held.split_to(HEAD + payload_len(&self.held));
            match repair(&frame) {
                Some(repaired) => self.ready.extend_from_slice(&repaired),
                None => {
                    self.ready.extend_from_slice(&frame);
                    self.state = State::Blind;
                }
            }
        }
    }

    /// How many bytes may pass, and why not more.
    fn scan(&mut self, bytes: &[u8]) -> (usize, Next) {
        let mut pass = 0;
        loop {
            let rest = &bytes[pass..];
            match self.state {
                State::Blind => return (bytes.len(), Next::End),
                State::Preface(seen) => {
                    let length = rest.len().min(PREFACE.len() - seen);
                    if rest[..length] != PREFACE[seen..seen + length] {
                        self.state = State::Blind;
                        continue;
                    }
                    pass += length;
                    self.state = State::Preface(seen + length);
                    if seen + length < PREFACE.len() {
                        return (pass, Next::End);
                    }
                    self.state = State::Frame;
                }
                State::Payload(left) => {
                    let length = rest.len().min(left);
                    pass += length;
                    if length < left {
                        self.state = State::Payload(left - length);
                        return (pass, Next::End);
                    }
                    self.state = State::Frame;
                }
                State::Frame if rest.is_empty() => return (pass, Next::End),
                State::Frame if rest.len() < HEAD => return (pass, Next::Incomplete),
                State::Frame => {
                    let length = payload_len(rest);
                    let (kind, flags) = (rest[3], rest[4]);
                    if kind != HEADERS || flags & END_HEADERS == 0 || length > PAYLOAD_MAX {
                        pass += HEAD;
                        self.state = State::Payload(length);
                        continue;
                    }
                    let Some(frame) = rest.get(..HEAD + length) else { return (pass, Next::Incomplete) };
                    if block(frame).and_then(|(from, to)| find(&frame[from..to])).is_some() {
                        return (pass, Next::Repair);
                    }
                    pass += frame.len();
                }
            }
        }
    }
}

/// The length of a frame's payload, from its header.
fn payload_len(frame: &[u8]) -> usize {
    usize::from(frame[0]) << 16 | usize::from(frame[1]) << 8 | usize::from(frame[2])
}

/// Where the header block lies in a HEADERS frame.
fn block(frame: &[u8]) -> Option<(usize, usize)> {
    let flags = frame[4];
    let (mut from, mut to) = (HEAD, frame.len());
    if flags & PADDED != 0 {
        to = to.checked_sub(usize::from(*frame.get(HEAD)?))?;
        from += 1;
    }
    if flags & PRIORITY != 0 {
        from += 5;
    }
    (from <= to).then_some((from, to))
}

/// A bad authority in a header block: where its string lies, length included, and what it should say instead.
struct Bad {
    from: usize,
    to: usize,
    instead: Vec<u8>,
}

/// Looks for a bad authority, one representation after the other (RFC 7541, section 6).
fn find(block: &[u8]) -> Option<Bad> {
    let mut at = 0;
    while let Some(&first) = block.get(at) {
        let (bits, literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let (index, used) = integer(&block[at..], bits)?;
        at += used;
        if !literal {
            continue;
        }
        let mut is_authority = index == 1;
        if index == 0 {
            let name = string(block, at)?;
            is_authority = !name.huffman && &block[name.bytes.clone()] == b":authority";
            at = name.bytes.end;
        }
        let value = string(block, at)?;
        if is_authority {
            let raw = &block[value.bytes.clone()];
            let text = if value.huffman { unpack(raw)? } else { raw.to_vec() };
            if !text.is_empty() && Authority::try_from(&text[..]).is_err() {
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_~".contains(&byte);
                let instead = text.into_iter().map(|byte| if plain(byte) { byte } else { b'-' }).collect();
                return Some(Bad { from: at, to: value.bytes.end, instead });
            }
        }
        at = value.bytes.end;
    }
    None
}

/// The frame with a good authority; `None` if it would become too long.
fn repair(frame: &[u8]) -> Option<Bytes> {
    let (from, to) = block(frame)?;
    let bad = find(&frame[from..to])?;
    let mut out = BytesMut::with_capacity(frame.len() + bad.instead.len());
    out.put_slice(&frame[..from + bad.from]);
    put_length(&mut out, bad.instead.len());
    out.put_slice(&bad.instead);
    out.put_slice(&frame[from + bad.to..]);
    let length = out.len() - HEAD;
    if length > PAYLOAD_MAX {
        return None;
    }
    out[..3].copy_from_slice(&(length as u32).to_be_bytes()[1..]);
    Some(out.freeze())
}

/// A string in a header block.
struct Text {
    huffman: bool,
    bytes: std::ops::Range<usize>,
}

fn string(block: &[u8], at: usize) -> Option<Text> {
    let (length, used) = integer(block.get(at..)?, 7)?;
    let from = at + used;
    let to = from.checked_add(length)?;
    (to <= block.len()).then_some(Text { huffman: block[at] & 0x80 != 0, bytes: from..to })
}

/// A number that begins in the lowest `bits` of a byte, and how many bytes it takes (RFC 7541, section 5.1).
fn integer(bytes: &[u8], bits: u32) -> Option<(usize, usize)> {
    let mask = (1usize << bits) - 1;
    let mut value = usize::from(*bytes.first()?) & mask;
    if value < mask {
        return Some((value, 1));
    }
    // More than four further bytes is a number that no header block can mean.
    for (place, &byte) in bytes[1..].iter().enumerate().take(4) {
        value += usize::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            return Some((value, place + 2));
        }
    }
    None
}

/// Writes the length of a string that is not packed.
fn put_length(out: &mut BytesMut, length: usize) {
    if length < 0x7f {
        out.put_u8(length as u8);
        return;
    }
    out.put_u8(0x7f);
    let mut rest = length - 0x7f;
    while rest >= 0x80 {
        out.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

/// How many bits HPACK's code spends on each printable character, from the space on (RFC 7541, appendix B). The code is
/// canonical: shorter codes first, and among equally long ones in the order of the characters.
const BITS: [u8; 95] = [
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, //
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, //
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, //
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, //
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, //
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13,
];

/// The only character beside the printable ones whose code is short enough to matter.
const NUL_BITS: u8 = 13;

/// Undoes HPACK's packing; `None` for anything but printable characters.
fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(packed.len() * 2);
    let (mut code, mut length) = (0u32, 0u8);
    for byte in packed {
        for bit in (0..8).rev() {
            code = code << 1 | u32::from(byte >> bit & 1);
            length += 1;
            if let Some(character) = character(code, length) {
                if character == 0 {
                    return None;
                }
                out.push(character);
                (code, length) = (0, 0);
            }
            if length > 19 {
                return None;
            }
        }
    }
    // What is left are ones, less than a byte of them.
    (length < 8 && code == (1 << length) - 1).then_some(out)
}

/// The character of a code of this length.
fn character(code: u32, length: u8) -> Option<u8> {
    let mut first = 0u32;
    for bits in 5..=length {
        let of_length = |symbol: &u8| match symbol {
            0 => NUL_BITS == bits,
            symbol => BITS[usize::from(symbol - b' ')] == bits,
        };
        let symbols = std::iter::once(0).chain(b' '..=b'~').filter(of_length);
        if bits == length {
            let place = code.checked_sub(first)?;
            return symbols.into_iter().nth(place as usize);
        }
        first = (first + symbols.count() as u32) << 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        out.extend_from_slice(&[HEADERS, flags, 0, 0, 0, 1]);
        out.extend_from_slice(payload);
        out
    }

    /// `:method POST`, an authority as a literal to be remembered, and a header of no interest.
    fn headers(authority: &[u8], huffman: bool) -> Vec<u8> {
        let mut block = vec![0x83, 0x41, authority.len() as u8 | if huffman { 0x80 } else { 0 }];
        block.extend_from_slice(authority);
        block.extend_from_slice(b"\x40\x01x\x01y");
        block
    }

    fn pass(pieces: &[&[u8]]) -> Vec<u8> {
        let mut repairer = Repairer::new();
        let mut out = Vec::new();
        for piece in pieces {
            let passed = repairer.look(piece);
            out.extend_from_slice(&piece[..passed]);
            loop {
                let taken = repairer.take(7);
                if taken.is_empty() {
                    break;
                }
                out.extend_from_slice(&taken);
            }
        }
        repairer.end();
        out.extend_from_slice(&repairer.take(usize::MAX));
        out
    }

    /// The RFC's own examples of the packing.
    #[test]
    fn unpacking() {
        let packed = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(unpack(&packed).unwrap(), b"www.example.com");
        assert_eq!(unpack(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]).unwrap(), b"no-cache");
        assert_eq!(unpack(&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf]).unwrap(), b"custom-value");
        assert_eq!(unpack(&[0xff; 4]), None);
    }

    /// A bad authority is replaced by a good one of the same length, packed or not, with padding and priority or without,
    /// however the bytes arrive; what follows is untouched.
    #[test]
    fn bad_authorities_are_replaced() {
        let bad = &b"http://10.0.0.1:2379"[..];
        let good = b"http---10.0.0.1-2379";
        let repaired = headers(good, false);
        let mut padded = vec![3];
        padded.extend_from_slice(&[0, 0, 0, 0, 16]);
        padded.extend_from_slice(&headers(bad, false));
        padded.extend_from_slice(&[0; 3]);
        let mut padded_good = vec![3, 0, 0, 0, 0, 16];
        padded_good.extend_from_slice(&repaired);
        padded_good.extend_from_slice(&[0; 3]);
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let stream =
            [PREFACE, &settings, &frame(END_HEADERS, &headers(bad, false)), b"\0\0\x02\0\x01\0\0\0\x01hi"];
        let mut stream = stream.concat();
        stream.extend(frame(END_HEADERS | PADDED | PRIORITY, &padded));
        let expected = [PREFACE, &settings, &frame(END_HEADERS, &repaired), b"\0\0\x02\0\x01\0\0\0\x01hi"];
        let mut expected = expected.concat();
        expected.extend(frame(END_HEADERS | PADDED | PRIORITY, &padded_good));
        for size in 1..=stream.len() {
            let pieces: Vec<&[u8]> = stream.chunks(size).collect();
            assert_eq!(pass(&pieces), expected, "pieces of {size}");
        }

        // "a/" packed: 00011 011000, then ones.
        let packed = [PREFACE, &frame(END_HEADERS, &headers(&[0x1b, 0x1f], true))].concat();
        let plain = [PREFACE, &frame(END_HEADERS, &headers(b"a-", false))].concat();
        assert_eq!(pass(&[&packed]), plain);
    }

    /// Everything else passes as it is: good authorities, other protocols, nonsense, blocks in several frames.
    #[test]
    fn the_rest_is_untouched() {
        let good = [PREFACE, &frame(END_HEADERS, &headers(b"localhost:2379", false))].concat();
        let spread = [PREFACE, &frame(0, &headers(b"http://a", false))].concat();
        let broken = [PREFACE, &frame(END_HEADERS, b"\x41\x7f\xff\xff\xff\xff\xff")].concat();
        let short = [PREFACE, &frame(END_HEADERS | PADDED, b"\xff")].concat();
        let half = good[..good.len() - 3].to_vec();
        for stream in
            [&good[..], &spread, &broken, &short, &half, b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/1.1", b""]
        {
            for size in [1, 5, 1000] {
                let pieces: Vec<&[u8]> = stream.chunks(size).collect();
                assert_eq!(pass(&pieces), stream);
            }
        }
    }
}
