//! The replicated key-value store: multi-version, with transactions, leases and watches, as etcd's clients know it.
//!
//! A state machine in the sense of [`synod_core::Machine`]: it knows no protocol, protobuf service, clock, thread or
//! file. Commands come in as [`op::Op`]s, in order; time comes in by argument, and only where leases and their expiry
//! are concerned, which is the one thing here that is not replicated.
//!
//! From the outside in:
//! - [`op`], [`validate`], [`error`]: what can be asked, what is wrong with it, what comes back
//! - [`once`]: wishes of clients that trust no single replica; `reply_wire`: what comes back, as bytes
//! - [`store`]: the machine; [`snapshot`]: its state as bytes
//! - [`range`], [`hash`]: reading a [`view::View`]; `txn`: writing
//! - [`lease`] and [`lessor`]: what all agree on about leases, and what only the leader's clock knows
//! - [`watch`]: the hub
//! - `convergent`: what the store does where there is no single order; `merge`: two such states made one
//! - `mvcc`, `index` (`leaf`, `slot`), `arena`, [`record`]: versions, how they are found, where they lie; `scrub`: how
//!   memory comes back

mod arena;
mod convergent;
pub mod error;
pub mod hash;
mod index;
mod leaf;
pub mod lease;
pub mod lessor;
mod merge;
pub mod mutants;
mod mvcc;
pub mod once;
pub mod op;
mod op_wire;
pub mod range;
pub mod record;
mod reply_wire;
mod scrub;
mod slot;
pub mod snapshot;
pub mod store;
mod txn;
pub mod validate;
pub mod view;
pub mod watch;

pub use error::OpError;
pub use store::Store;
