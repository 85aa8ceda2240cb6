//! HTTP/2's frames and header compression, without a socket (RFC 9113, RFC 7541).
//!
//! What the client port and the load generator share: how a frame looks ([`frame`]), and how a header block becomes a list of
//! fields ([`hpack`], [`huffman`]). What a stream is, who may send how much and what a request means is left to those
//! who use it. Only what gRPC needs is written (fields are encoded as literals, or with the few entries that the caller keeps
//! track of), but everything that a peer may send is read.
//!
//! Everything that arrives is checked and bounded: a malformed block or frame is an error, never a panic.

pub mod frame;
pub mod hpack;
pub mod huffman;
