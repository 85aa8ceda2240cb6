//! The replicated key-value store: multi-version, with transactions, leases and watches, as etcd's clients know it.
//!
//! A state machine in the sense of [`synod_core::Machine`]: it knows no protocol, protobuf service, clock, thread or
//! file. Commands come in as [`op::Op`]s, in order; time comes in by argument, and only where leases and their expiry
//! are concerned, which is the one thing here that is not replicated.

pub mod error;
pub mod op;
mod op_wire;
pub mod record;
pub mod validate;

pub use error::OpError;
