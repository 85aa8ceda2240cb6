//! Multi-Paxos with one rule removed at a time: some golden trace must tell something else, or the simulator's sweep must.
//!
//! `cargo test -p synod-protocols --release --features mutants --test multipaxos_mutants -- --nocapture`; the sweep's share is
//! hunted by `synod simulate mutants`.
#![cfg(feature = "mutants")]

use std::path::{Path, PathBuf};

use synod_protocols::multipaxos::{MultiPaxos, Mutant, Options};
use synod_sim::script::{Order, replay};

/// What no trace shows, because it takes many replicas' bad luck at once: left to the simulator's hunt, which finds each.
const IN_SWEEPS: &[Mutant] = &[
    Mutant::PromiseBeforeDisk,
    Mutant::CountsOldMembers,
    Mutant::SnapshotForgetsMembers,
    Mutant::PromisesDespiteLease,
    Mutant::DeliverySkips,
];

fn traces() -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/multipaxos");
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a trace can be read");
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

/// Whether something else happens in a trace when a rule is left out.
fn differs(mutant: Mutant, trace: &str) -> bool {
    let option = |count: char| format!("cluster {count} mutant={}", mutant.name());
    let bent = trace.replace("cluster 3", &option('3')).replace("cluster 5", &option('5'));
    let outcome = std::panic::catch_unwind(|| replay::<MultiPaxos>(&bent, Order::Total, Options::set));
    match outcome {
        Ok(Ok(text)) => text != bent,
        // Agreement was violated, or an assertion.
        _ => true,
    }
}

/// Every mutant is noticed by a trace, but for those that only sweeps show.
#[test]
fn traces_notice_mutants() {
    std::panic::set_hook(Box::new(|_| {}));
    let traces = traces();
    let mut missed = Vec::new();
    for mutant in Mutant::ALL {
        let by: Vec<_> = traces
            .iter()
            .filter(|(_, trace)| differs(*mutant, trace))
            .filter_map(|(path, _)| path.file_stem()?.to_str())
            .collect();
        println!("{:26} {}", mutant.name(), by.join(" "));
        if by.is_empty() && !IN_SWEEPS.contains(mutant) {
            missed.push(mutant.name());
        }
    }
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}
