//! Golden traces: the figures of the papers, and a story for each feature, replayed step by step.
//!
//! A trace is a script with what happened; see `synod_sim::script` for its language. `SYNOD_UPDATE=1` writes
//! the traces anew: read the difference before you commit it.

use std::path::Path;

use synod_protocols::backup::{self, PrimaryBackup};
use synod_protocols::causal::{self, Causal};
use synod_protocols::multipaxos;
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

/// Every trace of synchronous primary-backup happens as it is written.
#[test]
fn primary_backup() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/primary-backup");
    assert!(check_folder::<PrimaryBackup>(&folder, Order::Total, backup::Options::set) >= 15);
}

/// Every trace of asynchronous primary-backup happens as it is written; what a failover loses was applied, and is not
/// any more, so positions are not compared.
#[test]
fn primary_backup_async() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/primary-backup-async");
    assert!(check_folder::<PrimaryBackup>(&folder, Order::Causal, backup::Options::set) >= 5);
}

/// Every Multi-Paxos trace happens as it is written.
#[test]
fn multipaxos() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/multipaxos");
    let set = multipaxos::Options::set;
    assert!(check_folder::<multipaxos::MultiPaxos>(&folder, Order::Total, set) >= 20);
}

/// Every Paxos trace happens as it is written.
#[test]
fn paxos() {
    use synod_protocols::paxos::{Options, Paxos};
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/paxos");
    assert!(check_folder::<Paxos>(&folder, Order::Total, Options::set) >= 20);
}

/// Every trace of causal broadcast happens as it is written.
#[test]
fn causal() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/causal");
    assert!(check_folder::<Causal>(&folder, Order::Causal, causal::Options::set) >= 15);
}

/// Every trace of proof of work happens as it is written. A reorganisation takes back what was applied, so positions are not
/// compared.
#[test]
fn pow() {
    use synod_protocols::pow::{Options, Pow};
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pow");
    assert!(check_folder::<Pow>(&folder, Order::Causal, Options::set) >= 20);
}
