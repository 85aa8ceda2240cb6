//! `synod keygen`: the keys of a PBFT cluster.
//!
//! Every member gets a secret key in a file of its own, and all get the same file of public keys. Made in one place for a trial; where it
//! matters each member's operator runs it for that one name, and only the public lines are brought together.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use synod_server::protocol::pbft_keys::{generate, public_text, read_public, write_secret};

/// Make the keys of members for `--protocol pbft`
#[derive(Args)]
pub(crate) struct Options {
    /// The members' names, as in --initial-cluster
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// The folder for NAME.key (secret, one for each) and pbft.keys (public, of all)
    #[arg(long, value_name = "FOLDER")]
    into: PathBuf,
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> ExitCode {
    match make(&options.names, &options.into) {
        Ok(()) => {
            println!(
                "Made {} secret key(s) and {}. Give each member its own NAME.key, as --pbft-key, and all of them pbft.keys, as \
                 --pbft-peers-keys.",
                options.names.len(),
                options.into.join(PUBLIC).display()
            );
            ExitCode::SUCCESS
        }
        Err(wrong) => {
            eprintln!("synod keygen: {wrong:#}");
            ExitCode::FAILURE
        }
    }
}

/// The file of public keys.
const PUBLIC: &str = "pbft.keys";

fn make(names: &[String], folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let public = folder.join(PUBLIC);
    let mut keys = if public.exists() { read_public(&public)? } else { BTreeMap::new() };
    for name in names {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.starts_with('.') || !name.chars().all(is_plain) {
            bail!("'{name}' is no name for a file: allowed are letters, digits, '-', '_' and '.'");
        }
        let path = folder.join(format!("{name}.key"));
        let (secret, key) = generate().context("there is no randomness")?;
        write_secret(&path, &secret).with_context(|| format!("cannot write {}", path.display()))?;
        keys.insert(name.clone(), key);
    }
    fs::write(&public, public_text(&keys)).with_context(|| format!("cannot write {}", public.display()))
}

/// The flags with which members of these names find their keys in the folder; makes the keys when there are none.
pub(crate) fn flags_for(name: &str, names: &[String], folder: &Path) -> Result<[(&'static str, String); 2]> {
    if !folder.join(PUBLIC).exists() {
        make(names, folder)?;
    }
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    Ok([
        ("pbft-key", text(folder.join(format!("{name}.key")))),
        ("pbft-peers-keys", text(folder.join(PUBLIC))),
    ])
}
