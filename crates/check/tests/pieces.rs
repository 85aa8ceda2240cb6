//! Where only a search can refute linearizability, explaining still finds a piece that shows it by itself.

mod common;

use synod_check::budget::Budget;
use synod_check::explain::{self, piece};
use synod_check::formats::{Options, read_all};
use synod_check::linearizable;
use synod_check::verdict::{Finding, Level, Verdict};

#[test]
fn every_bad_log_of_etcd_comes_down_to_a_piece_that_is_bad_alone() {
    let Some(folder) = common::oracles() else { return };
    let budget = Budget::default();
    let mut sizes = Vec::new();
    for number in (0..=102).step_by(2) {
        let path = folder.join(format!("porcupine/test_data/jepsen/etcd_{number:03}.log"));
        let bytes = std::fs::read(&path).expect("log");
        let history = read_all(&bytes[..], "log", &Options::default()).expect("readable").remove(0);
        let (verdict, algorithm) = linearizable::check(&history, &budget);
        let Verdict::Violated(evidence) = &verdict else { continue };
        let narrowed = piece::narrowed(&history, Level::Linearizable, evidence);
        let operations = &narrowed.as_ref().unwrap_or(evidence).operations;
        let alone = linearizable::check(&history.restricted(operations), &budget).0;
        assert_eq!(alone.decided(), Some(false), "{number}: {operations:?}");
        sizes.push(operations.len());
        let finding = Finding { level: Level::Linearizable, verdict, algorithm, elapsed: Default::default() };
        assert!(explain::explain(&history, &finding).contains("these alone show it"), "{number}");
    }
    sizes.sort_unstable();
    assert!(sizes.len() > 30, "{} bad logs", sizes.len());
    println!("sizes: {sizes:?}");
}
