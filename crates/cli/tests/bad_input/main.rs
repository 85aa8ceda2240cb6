//! Bad input, against the built program: each gets the documented error, never a panic, never a lost write.
//!
//! What is tried is a list of what has brought down systems of this kind: keys, ranges, puts, transactions and leases
//! (`requests`, `leases`), files (`files`, `disk_full`), and flags (`flags`, `generals`). The tables say what was asked and what must be
//! answered, word by word; `docs/errors.md` tells the same to people, and [`documents`] compares the two. After each
//! table the member must still be alive, take a write, give it back, and have said nothing of a panic.
//!
//! Left out: watches, members, authentication, HTTP/2 and JSON themselves (`synod-server`'s own tests), and what only a
//! hostile peer can say.

#[path = "../common/mod.rs"]
mod common;

mod bench;
mod disk_full;
mod documents;
mod files;
mod flags;
mod generals;
mod grpc;
mod leases;
mod requests;
mod specimen;
mod txns;
