//! HTTP/2's header blocks, as any client may send them.
//!
//! It knows `synod-http2` alone, so that that crate's ordinary tests include the same file and run the corpus where there is no
//! libFuzzer.

use synod_http2::hpack::Decoder;

/// What a connection lets a list of fields grow to.
const LIST_MAX: usize = 4096;

/// Header blocks one after the other on one connection: each begins with its length in a byte.
pub fn header_blocks(mut bytes: &[u8]) {
    let mut decoder = Decoder::default();
    while let Some((length, rest)) = bytes.split_first() {
        let (block, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        bytes = rest;
        let mut fields = Vec::new();
        let Ok(decoded) = decoder.decode(block, LIST_MAX, &mut fields) else { return };
        assert!(fields.iter().map(|field| field.size()).sum::<usize>() <= LIST_MAX, "the list is bounded");
        if decoded.repeatable {
            let mut again = Vec::new();
            assert_eq!(decoder.decode(block, LIST_MAX, &mut again), Ok(decoded));
            assert_eq!(again, fields, "the same block means the same while the table is the same");
        }
    }
}
