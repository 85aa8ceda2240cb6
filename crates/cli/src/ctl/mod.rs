//! The commands that talk to a cluster, ours or any other with etcd's v3 API.
//!
//! Each is made once: a write without an answer is said to be undecided and never repeated in silence.

mod cluster;
mod kv;
mod lease;
mod lock;
mod print;
mod target;
mod top;
mod txn;
mod watch;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use self::target::Connection;
pub(crate) use self::target::{Target, address};

/// What can be asked of a cluster.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Write a key
    Put(kv::Put),
    /// Read a key, or a range of keys
    Get(kv::Get),
    /// Remove a key, or a range of keys
    Del(kv::Del),
    /// Several operations at once, under conditions; read from standard input
    Txn(txn::Txn),
    /// Hear of every change of a key, or of a range of keys
    Watch(watch::Watch),
    /// Grant, revoke, renew and list leases
    #[command(subcommand)]
    Lease(lease::Lease),
    /// Give up the history before a revision
    Compact(cluster::Compact),
    /// Hold a lock, alone or while a command runs
    Lock(lock::Lock),
    /// Stand for election, or listen who is elected
    Elect(lock::Elect),
    /// How each endpoint stands
    Status(cluster::Status),
    /// The hash of each endpoint's history: equal on all members of a sound cluster
    Hashkv(cluster::HashKv),
    /// List, add, remove, update and promote members
    #[command(subcommand)]
    Member(cluster::Member),
    /// Save the whole store to a file
    #[command(subcommand)]
    Snapshot(cluster::Snapshot),
    /// A live view of members: roles, terms, indices, rates, latencies, watchers
    Top(top::Top),
}

/// Runs a command to its end.
pub(crate) fn run(target: &Target, command: &Command) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("synod: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(carry_out(target, command)) {
        Ok(code) => code,
        Err(wrong) => {
            eprintln!("synod: {wrong:#}");
            ExitCode::FAILURE
        }
    }
}

async fn carry_out(target: &Target, command: &Command) -> Result<ExitCode> {
    let connection = Connection::new(target)?;
    match command {
        Command::Put(put) => kv::put(&connection, put).await,
        Command::Get(get) => kv::get(&connection, get).await,
        Command::Del(del) => kv::del(&connection, del).await,
        Command::Txn(txn) => txn::run(&connection, txn).await,
        Command::Watch(watch) => watch::run(&connection, watch).await,
        Command::Lease(lease) => lease::run(&connection, lease).await,
        Command::Compact(compact) => cluster::compact(&connection, compact).await,
        Command::Lock(lock) => lock::lock(&connection, lock).await,
        Command::Elect(elect) => lock::elect(&connection, elect).await,
        Command::Status(status) => cluster::status(&connection, status).await,
        Command::Hashkv(hash) => cluster::hash_kv(&connection, hash).await,
        Command::Member(member) => cluster::member(&connection, member).await,
        Command::Snapshot(snapshot) => cluster::snapshot(&connection, snapshot).await,
        Command::Top(top) => top::run(&connection, top).await,
    }
}
