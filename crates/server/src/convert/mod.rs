//! Between protobuf bytes and the store's own types.

pub mod reply;
pub mod request;
