//! Mends the `:authority` of old clients, which put a whole URL there.
//!
//! grpc-go before 1.30 (etcdctl 3.4, among others) dials `http://HOST:PORT` and says just that as `:authority`. Go's own
//! server takes it; the `h2` crate refuses the stream as malformed (RFC 9113, 8.3.1, is on its side). So, before `h2` sees them,
//! the three letters `://` become `x--` in the headers' bytes. In HPACK's Huffman code these have exactly the same
//! lengths, so nothing moves: not the frame's length, not the string's, not the dynamic table's size.
//!
//! Only HEADERS frames are looked at. A string that is cut by the end of a read is left as it is.

/// What every HTTP/2 connection begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER_BYTES: usize = 9;
const FRAME_HEADERS: u8 = 1;

/// `http://` in the Huffman code, but for its last bit, and what it becomes.
const CODED: ([u8; 5], [u8; 5]) = ([0x9d, 0x29, 0xae, 0xe3, 0x0c], [0x9d, 0x29, 0xaf, 0xca, 0xcb]);
/// The same as plain letters.
const PLAIN: (&[u8; 7], &[u8; 7]) = (b"http://", b"httpx--");
/// A literal whose name is entry 1 of the static table: indexed, not indexed, never indexed.
const AUTHORITY: [u8; 3] = [0x41, 0x01, 0x11];

/// Follows the frames of one connection.
pub(super) struct Mender(State);

enum State {
    /// So many bytes of the preface were seen.
    Preface(usize),
    /// The beginning of a frame's header.
    Header { bytes: [u8; FRAME_HEADER_BYTES], filled: usize },
    /// Inside a frame.
    Body { left: usize, kind: u8 },
    /// Not HTTP/2.
    Off,
}

impl Mender {
    pub(super) fn new() -> Mender {
        Mender(State::Preface(0))
    }

    /// Takes what was read next.
    pub(super) fn mend(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let taken = match &mut self.0 {
                State::Off => return,
                State::Preface(seen) => {
                    let count = bytes.len().min(PREFACE.len() - *seen);
                    if bytes[..count] != PREFACE[*seen..*seen + count] {
                        self.0 = State::Off;
                        return;
                    }
                    *seen += count;
                    if *seen == PREFACE.len() {
                        self.0 = State::Header { bytes: [0; FRAME_HEADER_BYTES], filled: 0 };
                    }
                    count
                }
                State::Header { bytes: header, filled } => {
                    let count = bytes.len().min(FRAME_HEADER_BYTES - *filled);
                    header[*filled..*filled + count].copy_from_slice(&bytes[..count]);
                    *filled += count;
                    if *filled == FRAME_HEADER_BYTES {
                        let left = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
                        self.0 = State::Body { left, kind: header[3] };
                    }
                    count
                }
                State::Body { left, kind } => {
                    let count = bytes.len().min(*left);
                    if *kind == FRAME_HEADERS {
                        mend_block(&mut bytes[..count]);
                    }
                    *left -= count;
                    if *left == 0 {
                        self.0 = State::Header { bytes: [0; FRAME_HEADER_BYTES], filled: 0 };
                    }
                    count
                }
            };
            bytes = &mut bytes[taken..];
        }
    }
}

/// Mends a block of headers in place.
fn mend_block(block: &mut [u8]) {
    // The name, the value's length in one byte, and the value's beginning.
    for at in 0..block.len().saturating_sub(2 + CODED.0.len()) {
        if !AUTHORITY.contains(&block[at]) {
            continue;
        }
        let value = &mut block[at + 2..];
        if value.starts_with(&CODED.0) && value[CODED.0.len()] < 0x80 {
            value[..CODED.1.len()].copy_from_slice(&CODED.1);
            // The last letter's last bit is 0 in both codes.
            return;
        }
        if value.starts_with(PLAIN.0) {
            value[..PLAIN.1.len()].copy_from_slice(PLAIN.1);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What etcdctl 3.4 sent for `http://127.0.0.1:33931`: the method, the scheme, a path and the authority.
    const BLOCK: [u8; 22] = [
        0x83, 0x86, 0x84, 0x41, 0x90, 0x9d, 0x29, 0xae, 0xe3, 0x0c, 0x04, 0x4e, 0xae, 0x05, 0xc0, 0xb8, 0x6e,
        0x32, 0xcb, 0xec, 0x87, 0x5f,
    ];

    fn connection(frames: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = PREFACE.to_vec();
        for (kind, body) in frames {
            bytes.extend_from_slice(&(body.len() as u32).to_be_bytes()[1..]);
            bytes.extend_from_slice(&[*kind, 4, 0, 0, 0, 1]);
            bytes.extend_from_slice(body);
        }
        bytes
    }

    /// The authority is mended in headers and nowhere else, in whatever pieces the frames' headers come.
    #[test]
    fn only_headers_are_mended() {
        let whole = connection(&[(4, &[]), (1, &BLOCK), (0, &BLOCK), (1, b"\x01\x15http://127.0.0.1:2379")]);
        let headers_at = PREFACE.len() + 18;
        for cut in 0..headers_at {
            let mut bytes = whole.clone();
            let mut mender = Mender::new();
            mender.mend(&mut bytes[..cut]);
            mender.mend(&mut bytes[cut..]);
            assert_eq!(bytes[headers_at + 5..headers_at + 10], CODED.1, "cut at {cut}");
            let data_at = headers_at + BLOCK.len() + 9;
            assert_eq!(bytes[data_at..data_at + BLOCK.len()], BLOCK, "data are not touched");
            assert!(bytes.ends_with(b"httpx--127.0.0.1:2379"));
        }
    }

    /// HTTP/1 passes as it is.
    #[test]
    fn other_protocols_are_left_alone() {
        let request = b"GET http://127.0.0.1:2379/health HTTP/1.1\r\n\r\n\x41\x90\x9d\x29\xae\xe3\x0c\x04";
        let mut bytes = request.to_vec();
        Mender::new().mend(&mut bytes);
        assert_eq!(bytes, request);
    }
}
