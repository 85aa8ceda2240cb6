//! What the fuzz targets try: the client port's decoders, which are nobody else's business (`fuzz/`, and this crate's own
//! `tests/fuzz_corpus.rs`).

use synod_api::Method;

use crate::http::tried;
pub use crate::http2::tried::connection;

/// The body of a JSON call: the first byte chooses the method.
pub fn json(bytes: &[u8]) {
    let Some((which, text)) = bytes.split_first() else { return };
    let method = Method::ALL[usize::from(*which) % Method::ALL.len()];
    tried::json(text, method.input());
}
