//! Golden traces: the figures of the papers, and a story for each feature, replayed step by step.
//!
//! A trace is a script with what happened; see `synod_sim::script` for its language. `SYNOD_UPDATE=1` writes
//! the traces anew: read the difference before you commit it.

use std::path::Path;

use synod_protocols::pbft::{self, Pbft};
use synod_protocols::raft::{Options, Raft};
use synod_sim::script::{Order, check_folder};

/// Every Raft trace happens as it is written.
#[test]
fn raft() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/raft");
    assert!(check_folder::<Raft>(&folder, Order::Total, Options::set) >= 15);
}

/// Every PBFT trace happens as it is written.
#[test]
fn pbft() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pbft");
    assert!(check_folder::<Pbft>(&folder, Order::Total, pbft::Options::set) >= 14);
}

/// Every Paxos trace happens as it is written.
#[test]
fn paxos() {
    use synod_protocols::paxos::{Options, Paxos};
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/paxos");
    assert!(check_folder::<Paxos>(&folder, Order::Total, Options::set) >= 20);
}
