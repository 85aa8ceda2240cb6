//! Chores of the workspace, run as `cargo xtask <chore>`.
//!
//! `codegen` turns `proto/*.proto` into `crates/api/src/gen`. Nothing but cargo is needed: the protobuf compiler
//! is a crate. The result is committed, so that building Synod needs neither this crate nor the network.

mod codegen;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let chore = std::env::args().nth(1);
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies inside the workspace");
    let done = match chore.as_deref() {
        Some("codegen") => codegen::generate(workspace, &workspace.join("crates/api/src/gen")),
        _ => {
            eprintln!("usage: cargo xtask codegen");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
