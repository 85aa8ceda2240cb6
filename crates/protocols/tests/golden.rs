//! Golden traces: the figures of the papers, and a story for each feature, replayed step by step.
//!
//! A trace is a script with what happened; see `synod_sim::script` for its language. `SYNOD_UPDATE=1` writes
//! the traces anew: read the difference before you commit it.

use std::path::Path;

use synod_protocols::multipaxos;
use synod_protocols::raft::{Options, Raft};
use synod_sim::script::{Order, check_folder};

/// Every Raft trace happens as it is written.
#[test]
fn raft() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/raft");
    assert!(check_folder::<Raft>(&folder, Order::Total, Options::set) >= 15);
}

/// Every Multi-Paxos trace happens as it is written.
#[test]
fn multipaxos() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/multipaxos");
    let set = multipaxos::Options::set;
    assert!(check_folder::<multipaxos::MultiPaxos>(&folder, Order::Total, set) >= 20);
}
