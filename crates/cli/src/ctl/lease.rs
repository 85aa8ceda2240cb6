//! `lease`: keys that end with their holder.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Subcommand;
use synod_api::Method;
use synod_api::etcdserverpb as pb;
use synod_load::client::Client;

use super::print;
use super::target::{Connection, Format};

/// `synod lease`
#[derive(Subcommand)]
pub(crate) enum Lease {
    /// Make a lease of so many seconds
    Grant {
        /// Its length in seconds
        ttl: i64,
    },
    /// End a lease, and remove its keys
    Revoke {
        /// Its id, in hexadecimal
        #[arg(value_parser = print::parse_hex)]
        id: u64,
    },
    /// How long a lease still lives
    Timetolive {
        /// Its id, in hexadecimal
        #[arg(value_parser = print::parse_hex)]
        id: u64,
        /// Tell its keys, too
        #[arg(long)]
        keys: bool,
    },
    /// All leases
    List,
    /// Renew a lease, again and again
    KeepAlive {
        /// Its id, in hexadecimal
        #[arg(value_parser = print::parse_hex)]
        id: u64,
        /// Once
        #[arg(long)]
        once: bool,
    },
}

pub(super) async fn run(connection: &Connection, lease: &Lease) -> Result<ExitCode> {
    let mut client = connection.connect().await?;
    let json = connection.format == Format::Json;
    match lease {
        Lease::Grant { ttl } => {
            let request = pb::LeaseGrantRequest { ttl: *ttl, id: 0 };
            let answer: pb::LeaseGrantResponse =
                connection.change(&mut client, Method::LeaseGrant, &request).await?;
            match json {
                true => print::json(Method::LeaseGrant, &answer)?,
                false => print::line(
                    format!("lease {} granted with TTL({}s)", print::hex(answer.id as u64), answer.ttl)
                        .as_bytes(),
                ),
            }
        }
        Lease::Revoke { id } => {
            let request = pb::LeaseRevokeRequest { id: *id as i64 };
            let answer: pb::LeaseRevokeResponse =
                connection.change(&mut client, Method::LeaseRevoke, &request).await?;
            match json {
                true => print::json(Method::LeaseRevoke, &answer)?,
                false => print::line(format!("lease {} revoked", print::hex(*id)).as_bytes()),
            }
        }
        Lease::Timetolive { id, keys } => {
            let request = pb::LeaseTimeToLiveRequest { id: *id as i64, keys: *keys };
            let answer: pb::LeaseTimeToLiveResponse =
                connection.ask(&mut client, Method::LeaseTimeToLive, &request).await?;
            if json {
                print::json(Method::LeaseTimeToLive, &answer)?;
            } else if answer.ttl < 0 {
                bail!(
                    "there is no lease {}: it was never granted, was revoked, or its time is over",
                    print::hex(*id)
                );
            } else {
                let names = answer.keys.iter().map(|key| String::from_utf8_lossy(key).into_owned());
                let names = names.collect::<Vec<_>>().join(" ");
                let attached = if *keys { format!(", attached keys([{names}])") } else { String::new() };
                let (id, granted, left) = (print::hex(*id), answer.granted_ttl, answer.ttl);
                print::line(
                    format!("lease {id} granted with TTL({granted}s), remaining({left}s){attached}")
                        .as_bytes(),
                );
            }
        }
        Lease::List => {
            let answer: pb::LeaseLeasesResponse =
                connection.ask(&mut client, Method::LeaseLeases, &pb::LeaseLeasesRequest {}).await?;
            if json {
                print::json(Method::LeaseLeases, &answer)?;
            } else {
                print::line(format!("found {} leases", answer.leases.len()).as_bytes());
                answer.leases.iter().for_each(|lease| print::line(print::hex(lease.id as u64).as_bytes()));
            }
        }
        Lease::KeepAlive { id, once } => loop {
            let ttl = keep_alive(connection, &mut client, *id as i64).await?;
            print::line(format!("lease {} keepalived with TTL({ttl})", print::hex(*id)).as_bytes());
            if *once {
                break;
            }
            // A third of its life: two renewals may be lost.
            tokio::time::sleep(Duration::from_secs_f64(ttl as f64 / 3.0)).await;
        },
    }
    Ok(ExitCode::SUCCESS)
}

/// Renews a lease once; its length in seconds.
pub(super) async fn keep_alive(connection: &Connection, client: &mut Client, id: i64) -> Result<i64> {
    let request = pb::LeaseKeepAliveRequest { id };
    let answer: pb::LeaseKeepAliveResponse = connection.ask(client, Method::LeaseKeepAlive, &request).await?;
    if answer.ttl <= 0 {
        bail!("lease {} is over", print::hex(id as u64));
    }
    Ok(answer.ttl)
}
