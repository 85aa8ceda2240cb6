//! The Huffman code of RFC 7541, appendix B.
//!
//! The code is canonical: codes of one length are consecutive numbers, in the order of their symbols, and each length begins where
//! the one before it ends, shifted by one. So the lengths alone are the whole table.

use std::sync::LazyLock;

/// The length of each symbol's code, in bits; the last symbol is the end of the string.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
    8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7,
    15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
    23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26,
    26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20,
    21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26, 30,
];

const LENGTH_MAX: usize = 30;
const END: u16 = 256;

/// The codes of each length: the first code, and where its symbols stand.
struct Canon {
    first: [u32; LENGTH_MAX + 1],
    count: [u32; LENGTH_MAX + 1],
    offset: [usize; LENGTH_MAX + 1],
    symbols: Vec<u16>,
}

static CANON: LazyLock<Canon> = LazyLock::new(|| {
    let mut symbols: Vec<u16> = (0..=END).collect();
    symbols.sort_by_key(|symbol| (LENGTHS[*symbol as usize], *symbol));
    let mut canon = Canon {
        first: [0; LENGTH_MAX + 1],
        count: [0; LENGTH_MAX + 1],
        offset: [0; LENGTH_MAX + 1],
        symbols,
    };
    let (mut code, mut offset) = (0, 0);
    for length in 1..=LENGTH_MAX {
        let count = LENGTHS.iter().filter(|own| **own as usize == length).count();
        code <<= 1;
        (canon.first[length], canon.count[length], canon.offset[length]) = (code, count as u32, offset);
        code += count as u32;
        offset += count;
    }
    canon
});

/// A string that is not coded as it should be: an unknown code, the end symbol, or padding that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a Huffman-coded string is malformed")]
pub struct Malformed;

/// Appends what `coded` stands for: at most 8/5 of its length.
///
/// # Errors
/// [`Malformed`]; what was appended until then means nothing.
pub fn decode(coded: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let canon = &*CANON;
    let (mut bits, mut held) = (0u64, 0usize);
    let mut rest = coded.iter();
    loop {
        while held <= 56
            && let Some(byte) = rest.next()
        {
            bits = bits << 8 | u64::from(*byte);
            held += 8;
        }
        if held == 0 {
            return Ok(());
        }
        let mut found = None;
        for length in 5..=held.min(LENGTH_MAX) {
            let code = (bits >> (held - length)) as u32 & ((1 << length) - 1);
            let place = code.wrapping_sub(canon.first[length]);
            if place < canon.count[length] {
                found = Some((length, canon.symbols[canon.offset[length] + place as usize]));
                break;
            }
        }
        match found {
            Some((_, END)) => return Err(Malformed),
            Some((length, symbol)) => {
                out.push(symbol as u8);
                held -= length;
            }
            // Less than a byte of ones pads the string (RFC 7541, 5.2).
            None if held < 8 && bits & ((1 << held) - 1) == (1 << held) - 1 => return Ok(()),
            None => return Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(text: &[u8]) -> Vec<u8> {
        let canon = &*CANON;
        let (mut bits, mut held, mut out) = (0u64, 0, Vec::new());
        for byte in text {
            let length = LENGTHS[*byte as usize] as usize;
            let run = &canon.symbols[canon.offset[length]..][..canon.count[length] as usize];
            let place = run.iter().position(|symbol| *symbol == u16::from(*byte)).unwrap();
            bits = bits << length | u64::from(canon.first[length] + place as u32);
            held += length;
            while held >= 8 {
                held -= 8;
                out.push((bits >> held) as u8);
            }
            bits &= (1 << held) - 1;
        }
        if held > 0 {
            out.push(((bits << (8 - held)) | ((1 << (8 - held)) - 1)) as u8);
        }
        out
    }

    /// The examples of RFC 7541, appendix C.4.
    #[test]
    fn examples_of_the_rfc() {
        let plain = |coded: &[u8]| {
            let mut out = Vec::new();
            decode(coded, &mut out).map(|()| String::from_utf8(out).unwrap())
        };
        let coded = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(plain(&coded).as_deref(), Ok("www.example.com"));
        assert_eq!(plain(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]).as_deref(), Ok("no-cache"));
        assert_eq!(plain(&[]).as_deref(), Ok(""));
    }

    /// Every byte survives, and a string that is cut or padded wrongly is refused.
    #[test]
    fn every_byte_and_bad_padding() {
        let all: Vec<u8> = (0..=255).collect();
        let mut out = Vec::new();
        decode(&encode(&all), &mut out).unwrap();
        assert_eq!(out, all);
        for bad in [&[0xff][..], &[0xff, 0xff, 0xff, 0xff], &[0b0000_0000], &[0x07, 0xff]] {
            assert_eq!(decode(bad, &mut Vec::new()), Err(Malformed), "{bad:?}");
        }
    }
}
