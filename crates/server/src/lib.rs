//! The server: everything around a replica that touches a socket, a disk, a thread or the clock.
//!
//! A [`Member`] is one thread with one runtime on it: its clients' connections, its peers' and its node all
//! live there, so that a put wakes nobody else but the disk. Where to read on:
//!
//! - [`config`]: what a member is told. [`member`]: how it starts, and how it ends in good order.
//! - [`protocol`]: the family, one line and one file for each. [`contract`]: what each of them gives.
//! - [`node`]: the replica at work. [`disk`]: its log and snapshots on threads of their own. [`transport`]: its peers.
//! - [`witness`]: what members of a PBFT cluster testify; [`proxy`]: who asks several of them, and trusts none.
//! - [`http`], [`grpc`], [`service`], [`convert`], [`status`], [`metrics`]: its clients.

pub mod config;
pub mod contract;
pub mod convert;
mod disk;
pub mod grpc;
pub mod http;
mod http2;
pub mod member;
pub mod metrics;
mod node;
mod priority;
pub mod protocol;
pub mod proxy;
pub mod service;
pub mod status;
pub mod transport;
pub mod tried;
pub mod witness;

pub use member::{Member, Stopper};
pub use node::{FolderError, MemberError};
pub use service::ETCD_VERSION;
