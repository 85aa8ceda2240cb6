//! Generates the messages and clients of `synod-api` from `proto/*.proto`.
//!
//! Three things come out: one Rust file for each package, and `descriptors.bin`, the compiled descriptions that
//! the JSON gateway and server reflection read at run time. Server traits are left out on purpose: the server has one
//! boundary of its own for every method.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorSet};

/// The files to compile, in `proto/`.
const FILES: [&str; 8] = [
    "auth.proto",
    "election.proto",
    "health.proto",
    "lock.proto",
    "mvcc.proto",
    "reflection.proto",
    "rpc.proto",
    "witness.proto",
];

/// Compiles `proto/` of `workspace` into the folder `target`.
///
/// # Errors
/// When a file does not compile, or cannot be read or written.
pub(crate) fn generate(workspace: &Path, target: &Path) -> Result<()> {
    fs::create_dir_all(target).with_context(|| format!("create {}", target.display()))?;
    let mut compiler = protox::Compiler::new([workspace.join("proto")])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(FILES)?;
    let mut set = compiler.file_descriptor_set();

    let mut described = set.clone();
    for file in &mut described.file {
        file.source_code_info = None;
    }
    let descriptors = target.join("descriptors.bin");
    fs::write(&descriptors, described.encode_to_vec())
        .with_context(|| format!("write {}", descriptors.display()))?;

    rename_urls(&mut set);
    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .bytes(".")
        .out_dir(target)
        .emit_rerun_if_changed(false)
        .compile_fds(set)
        .context("generate Rust")
}

/// `peerURLs` would become `peer_ur_ls` in Rust: the generated code (and it alone) is told `peerUrls`.
fn rename_urls(set: &mut FileDescriptorSet) {
    fn rename(message: &mut DescriptorProto) {
        for field in &mut message.field {
            if let Some(name) = &mut field.name {
                *name = name.replace("URLs", "Urls");
            }
        }
        message.nested_type.iter_mut().for_each(rename);
    }
    set.file.iter_mut().flat_map(|file| &mut file.message_type).for_each(rename);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The committed code is what the committed `.proto` files generate: neither was changed alone.
    #[test]
    fn committed_code_is_up_to_date() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let committed = workspace.join("crates/api/src/gen");
        let fresh = tempfile::tempdir().unwrap();
        generate(workspace, fresh.path()).unwrap();
        let names = |folder: &Path| {
            let mut names: Vec<_> =
                fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(fresh.path()), names(&committed), "run `cargo xtask codegen`");
        for name in names(fresh.path()) {
            let same =
                fs::read(fresh.path().join(&name)).unwrap() == fs::read(committed.join(&name)).unwrap();
            assert!(same, "{} is out of date: run `cargo xtask codegen`", name.display());
        }
    }
}
