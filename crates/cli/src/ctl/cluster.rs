//! `compact`, `status`, `hashkv`, `member`, `snapshot`.

use std::fs::File;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use synod_api::Method;
use synod_api::etcdserverpb as pb;

use super::print;
use super::target::{Connection, Format, explain};

/// `synod compact`
#[derive(Args)]
pub(crate) struct Compact {
    /// The lowest revision that stays
    revision: i64,
    /// Return when what was given up is really gone
    #[arg(long)]
    physical: bool,
}

pub(super) async fn compact(connection: &Connection, compact: &Compact) -> Result<ExitCode> {
    let request = pb::CompactionRequest { revision: compact.revision, physical: compact.physical };
    let mut client = connection.connect().await?;
    let answer: pb::CompactionResponse = connection.change(&mut client, Method::Compact, &request).await?;
    match connection.format {
        Format::Json => print::json(Method::Compact, &answer)?,
        _ => print::line(format!("compacted revision {}", compact.revision).as_bytes()),
    }
    Ok(ExitCode::SUCCESS)
}

/// `synod status`
#[derive(Args)]
pub(crate) struct Status {}

pub(super) async fn status(connection: &Connection, _: &Status) -> Result<ExitCode> {
    let (mut rows, mut silent) = (Vec::new(), 0);
    for endpoint in &connection.endpoints {
        let asked = async {
            let mut client = connection.connect_to(&[*endpoint], Vec::new()).await?;
            connection.ask::<pb::StatusResponse>(&mut client, Method::Status, &pb::StatusRequest {}).await
        };
        let answer = match asked.await {
            Ok(answer) => answer,
            Err(error) => {
                eprintln!("synod: {error:#}");
                silent += 1;
                continue;
            }
        };
        if connection.format == Format::Json {
            print::json(Method::Status, &answer)?;
            continue;
        }
        let member = answer.header.as_ref().map_or(0, |header| header.member_id);
        rows.push(vec![
            endpoint.to_string(),
            print::hex(member),
            answer.version,
            print::size(answer.db_size),
            (answer.leader == member).to_string(),
            answer.is_learner.to_string(),
            answer.raft_term.to_string(),
            answer.raft_index.to_string(),
            answer.raft_applied_index.to_string(),
            answer.errors.join(" "),
        ]);
    }
    let head =
        ["endpoint", "id", "version", "db size", "leads", "learner", "term", "index", "applied", "errors"];
    write_rows(connection, &head, rows);
    Ok(if silent == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write_rows(connection: &Connection, head: &[&str], rows: Vec<Vec<String>>) {
    match connection.format {
        Format::Json => {}
        Format::Table => print::table(head, rows),
        Format::Simple => rows.iter().for_each(|row| print::line(row.join(", ").as_bytes())),
    }
}

/// `synod hashkv`
#[derive(Args)]
pub(crate) struct HashKv {
    /// Up to this revision; 0: up to now
    #[arg(long, default_value_t = 0)]
    rev: i64,
}

pub(super) async fn hash_kv(connection: &Connection, hash: &HashKv) -> Result<ExitCode> {
    let request = pb::HashKvRequest { revision: hash.rev };
    let mut rows = Vec::new();
    for endpoint in &connection.endpoints {
        let mut client = connection.connect_to(&[*endpoint], Vec::new()).await?;
        let answer: pb::HashKvResponse = connection.ask(&mut client, Method::HashKv, &request).await?;
        if connection.format == Format::Json {
            print::json(Method::HashKv, &answer)?;
        }
        rows.push(vec![endpoint.to_string(), answer.hash.to_string(), answer.hash_revision.to_string()]);
    }
    write_rows(connection, &["endpoint", "hash", "up to revision"], rows);
    Ok(ExitCode::SUCCESS)
}

/// `synod member`
#[derive(Subcommand)]
pub(crate) enum Member {
    /// All members
    List,
    /// Let a new member in; start it with --initial-cluster-state=existing afterwards
    Add {
        /// Where its peers will reach it
        #[arg(required = true, value_delimiter = ',')]
        peer_urls: Vec<String>,
        /// Without a vote, until it is promoted
        #[arg(long)]
        learner: bool,
    },
    /// Take a member out
    Remove {
        /// Its id, in hexadecimal
        #[arg(value_parser = print::parse_hex)]
        id: u64,
    },
    /// Say where a member's peers reach it from now on
    Update {
        /// Its id, in hexadecimal
        #[arg(value_parser = print::parse_hex)]
        id: u64,
        /// The new addresses
        #[arg(required = true, value_delimiter = ',')]
        peer_urls: Vec<String>,
    },
    /// Give a learner its vote
    Promote {
        /// Its id, in hexadecimal
        #[arg(value_parser = print::parse_hex)]
        id: u64,
    },
}

pub(super) async fn member(connection: &Connection, member: &Member) -> Result<ExitCode> {
    let mut client = connection.connect().await?;
    let json = connection.format == Format::Json;
    let say = |words: String| print::line(words.as_bytes());
    match member {
        Member::List => {
            let request = pb::MemberListRequest { linearizable: true };
            let answer: pb::MemberListResponse =
                connection.ask(&mut client, Method::MemberList, &request).await?;
            if json {
                print::json(Method::MemberList, &answer)?;
            } else {
                let row = |member: pb::Member| {
                    let started = if member.client_urls.is_empty() { "unstarted" } else { "started" };
                    vec![
                        print::hex(member.id),
                        started.to_owned(),
                        member.name,
                        member.peer_urls.join(","),
                        member.client_urls.join(","),
                        member.is_learner.to_string(),
                    ]
                };
                let rows = answer.members.into_iter().map(row).collect();
                write_rows(connection, &["id", "status", "name", "peers", "clients", "learner"], rows);
            }
        }
        Member::Add { peer_urls, learner } => {
            let request = pb::MemberAddRequest { peer_urls: peer_urls.clone(), is_learner: *learner };
            let answer: pb::MemberAddResponse =
                connection.change(&mut client, Method::MemberAdd, &request).await?;
            match (json, &answer.member) {
                (true, _) => print::json(Method::MemberAdd, &answer)?,
                (false, Some(added)) => say(format!(
                    "member {} added; start it with --initial-cluster-state=existing",
                    print::hex(added.id)
                )),
                (false, None) => bail!("the answer names no member"),
            }
        }
        Member::Remove { id } => {
            let request = pb::MemberRemoveRequest { id: *id };
            let answer: pb::MemberRemoveResponse =
                connection.change(&mut client, Method::MemberRemove, &request).await?;
            match json {
                true => print::json(Method::MemberRemove, &answer)?,
                false => say(format!("member {} removed", print::hex(*id))),
            }
        }
        Member::Update { id, peer_urls } => {
            let request = pb::MemberUpdateRequest { id: *id, peer_urls: peer_urls.clone() };
            let answer: pb::MemberUpdateResponse =
                connection.change(&mut client, Method::MemberUpdate, &request).await?;
            match json {
                true => print::json(Method::MemberUpdate, &answer)?,
                false => say(format!("member {} updated", print::hex(*id))),
            }
        }
        Member::Promote { id } => {
            let request = pb::MemberPromoteRequest { id: *id };
            let answer: pb::MemberPromoteResponse =
                connection.change(&mut client, Method::MemberPromote, &request).await?;
            match json {
                true => print::json(Method::MemberPromote, &answer)?,
                false => say(format!("member {} has its vote", print::hex(*id))),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `synod snapshot`
#[derive(Subcommand)]
pub(crate) enum Snapshot {
    /// Save the whole store, as one member has it
    Save {
        /// Where to
        file: PathBuf,
    },
}

pub(super) async fn snapshot(connection: &Connection, snapshot: &Snapshot) -> Result<ExitCode> {
    let Snapshot::Save { file } = snapshot;
    let mut client = connection.connect().await?;
    // Under another name until it is whole, so that half a snapshot is never taken for one.
    let mut part = file.clone().into_os_string();
    part.push(".part");
    let part = PathBuf::from(part);
    let mut out = File::create(&part).with_context(|| format!("cannot write {}", part.display()))?;
    let (mut failed, mut bytes, mut left) = (None, 0u64, 0u64);
    let ended = client
        .stream(Method::Snapshot, &pb::SnapshotRequest::default(), |answer: pb::SnapshotResponse| {
            bytes += answer.blob.len() as u64;
            left = answer.remaining_bytes;
            match out.write_all(&answer.blob) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })
        .await;
    let saved = ended.map_err(|error| explain(error, "")).and_then(|()| match failed {
        Some(error) => Err(error).with_context(|| format!("cannot write {}", part.display())),
        None if left > 0 || bytes == 0 => bail!("the snapshot ended {left} bytes too early"),
        None => {
            out.sync_all()?;
            std::fs::rename(&part, file).with_context(|| format!("cannot write {}", file.display()))
        }
    });
    if let Err(error) = saved {
        // Half of it is of no use to anybody.
        let _ = std::fs::remove_file(&part);
        return Err(error);
    }
    print::line(format!("snapshot saved at {} ({})", file.display(), print::size(bytes as i64)).as_bytes());
    Ok(ExitCode::SUCCESS)
}
