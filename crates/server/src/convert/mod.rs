//! Between protobuf bytes and the store's own types.

pub(crate) mod reply;
pub(crate) mod request;
