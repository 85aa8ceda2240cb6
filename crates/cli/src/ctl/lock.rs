//! `lock` and `elect`: the recipes of etcd's clients, on keys, leases and watches alone.
//!
//! Whoever wants in writes a key of its own under a common prefix, bound to a lease. Keys are in the order of their creation; the oldest
//! holds. Everybody else waits for the key just before its own to go, so that nobody is woken in vain.
//!
//! A lease is a promise about time, and time is not to be trusted: a holder that was paused may believe that it still holds. What the lock
//! guards should therefore refuse a fencing token smaller than one it has seen; the token is the revision at which the key was
//! created, and it is told.

use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::Args;
use synod_api::Method;
use synod_api::etcdserverpb as pb;
use synod_api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use synod_api::etcdserverpb::request_op::Request;
use synod_api::etcdserverpb::response_op::Response;
use synod_api::mvccpb::KeyValue;
use synod_api::mvccpb::event::EventType;
use synod_load::client::Client;

use super::print;
use super::target::{Connection, explain};

/// `synod lock`
#[derive(Args)]
pub(crate) struct Lock {
    /// The lock's name
    name: String,
    /// Seconds after which the lock is free when its holder is gone
    #[arg(long, default_value_t = 10)]
    ttl: i64,
    /// Run this while the lock is held, with its key and fencing token in SYNOD_LOCK_KEY and SYNOD_LOCK_REV
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// `synod elect`
#[derive(Args)]
pub(crate) struct Elect {
    /// The election's name
    name: String,
    /// What is told of whoever is elected; without it, listen who is
    value: Option<String>,
    /// Listen who is elected
    #[arg(short, long, conflicts_with = "value")]
    listen: bool,
    /// Seconds after which the next one is elected when the elected is gone
    #[arg(long, default_value_t = 10)]
    ttl: i64,
}

/// A place in the queue.
struct Place {
    prefix: String,
    key: String,
    lease: i64,
    /// The fencing token.
    created: i64,
}

pub(super) async fn lock(connection: &Connection, lock: &Lock) -> Result<ExitCode> {
    let mut client = connection.connect().await?;
    let place = Place::take(connection, &mut client, &lock.name, "", lock.ttl).await?;
    let holding = async {
        place.wait(connection, &mut client).await?;
        if lock.command.is_empty() {
            print::line(place.key.as_bytes());
            std::future::pending::<()>().await;
            return Ok(ExitCode::SUCCESS);
        }
        let status = tokio::process::Command::new(&lock.command[0])
            .args(&lock.command[1..])
            .env("SYNOD_LOCK_KEY", &place.key)
            .env("SYNOD_LOCK_REV", place.created.to_string())
            .status()
            .await
            .with_context(|| format!("cannot run {}", lock.command[0]))?;
        // Ended by a signal: what shells answer then, roughly.
        Ok(ExitCode::from(status.code().map_or(1, |code| code.clamp(0, 255) as u8)))
    };
    place.hold(connection, holding).await
}

pub(super) async fn elect(connection: &Connection, elect: &Elect) -> Result<ExitCode> {
    let Some(value) = &elect.value else { return listen(connection, &elect.name).await };
    let mut client = connection.connect().await?;
    let place = Place::take(connection, &mut client, &elect.name, value, elect.ttl).await?;
    let holding = async {
        place.wait(connection, &mut client).await?;
        print::line(place.key.as_bytes());
        print::line(value.as_bytes());
        std::future::pending::<()>().await;
        Ok(ExitCode::SUCCESS)
    };
    place.hold(connection, holding).await
}

impl Place {
    /// Writes a key of one's own.
    async fn take(
        connection: &Connection,
        client: &mut Client,
        name: &str,
        value: &str,
        ttl: i64,
    ) -> Result<Place> {
        let grant = pb::LeaseGrantRequest { ttl, id: 0 };
        let granted: pb::LeaseGrantResponse = connection.change(client, Method::LeaseGrant, &grant).await?;
        let (prefix, lease) = (format!("{name}/"), granted.id);
        let key = format!("{prefix}{}", print::hex(lease as u64));
        let bytes = Bytes::from(key.clone());
        let put = pb::PutRequest {
            key: bytes.clone(),
            value: Bytes::copy_from_slice(value.as_bytes()),
            lease,
            ..pb::PutRequest::default()
        };
        let get = pb::RangeRequest { key: bytes.clone(), ..pb::RangeRequest::default() };
        let absent = pb::Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Create.into(),
            key: bytes,
            target_union: Some(TargetUnion::CreateRevision(0)),
            ..pb::Compare::default()
        };
        let op = |request| pb::RequestOp { request: Some(request) };
        let txn = pb::TxnRequest {
            compare: vec![absent],
            success: vec![op(Request::RequestPut(put))],
            failure: vec![op(Request::RequestRange(get))],
        };
        let answer: pb::TxnResponse = connection.change(client, Method::Txn, &txn).await?;
        let created = match answer.responses.first().and_then(|response| response.response.as_ref()) {
            Some(Response::ResponseRange(range)) => range.kvs.first().map_or(0, |pair| pair.create_revision),
            _ => answer.header.as_ref().map_or(0, |header| header.revision),
        };
        Ok(Place { prefix, key, lease, created })
    }

    /// Returns when everybody before has gone.
    async fn wait(&self, connection: &Connection, client: &mut Client) -> Result<()> {
        while let Some(before) = self.before(connection, client).await? {
            let create = pb::WatchCreateRequest {
                key: before.key.clone(),
                start_revision: before.mod_revision + 1,
                ..pb::WatchCreateRequest::default()
            };
            let request = pb::WatchRequest {
                request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)),
            };
            let gone = |answer: pb::WatchResponse| {
                let gone =
                    answer.canceled || answer.events.iter().any(|event| event.r#type() == EventType::Delete);
                if gone { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            // A stream of its own: the connection is used again.
            let mut watching = connection.connect().await?;
            watching.stream(Method::Watch, &request, gone).await.map_err(|error| explain(error, ""))?;
        }
        Ok(())
    }

    /// The youngest key that is older than ours.
    async fn before(&self, connection: &Connection, client: &mut Client) -> Result<Option<KeyValue>> {
        let mut end = self.prefix.clone().into_bytes();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        let request = pb::RangeRequest {
            key: self.prefix.clone().into(),
            range_end: end.into(),
            limit: 1,
            max_create_revision: self.created - 1,
            sort_order: pb::range_request::SortOrder::Descend.into(),
            sort_target: pb::range_request::SortTarget::Create.into(),
            ..pb::RangeRequest::default()
        };
        let answer: pb::RangeResponse = connection.ask(client, Method::Range, &request).await?;
        Ok(answer.kvs.into_iter().next())
    }

    /// Renews the lease until it is lost.
    async fn renew(&self, connection: &Connection) -> Result<ExitCode> {
        let mut client = connection.connect().await?;
        loop {
            let ttl = super::lease::keep_alive(connection, &mut client, self.lease).await?;
            tokio::time::sleep(Duration::from_secs_f64(ttl as f64 / 3.0)).await;
        }
    }

    /// Keeps the lease alive while `work` goes on, and gives the place up at its end, or on Ctrl-C.
    async fn hold(
        &self,
        connection: &Connection,
        work: impl Future<Output = Result<ExitCode>>,
    ) -> Result<ExitCode> {
        let outcome: Result<ExitCode> = tokio::select! {
            outcome = work => outcome,
            lost = self.renew(connection) => lost.context("the lock is lost"),
            _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(130)),
        };
        let revoking = async {
            let mut client = connection.connect().await?;
            let request = pb::LeaseRevokeRequest { id: self.lease };
            connection.change::<pb::LeaseRevokeResponse>(&mut client, Method::LeaseRevoke, &request).await
        };
        // Otherwise it goes by itself, when the lease ends.
        if let Err(error) = revoking.await {
            eprintln!("synod: the place could not be given up at once: {error:#}");
        }
        outcome
    }
}

/// Tells who is elected, again and again.
async fn listen(connection: &Connection, name: &str) -> Result<ExitCode> {
    let prefix = format!("{name}/");
    let mut end = prefix.clone().into_bytes();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    let mut client = connection.connect().await?;
    let mut told = None;
    loop {
        let oldest = pb::RangeRequest {
            key: prefix.clone().into(),
            range_end: end.clone().into(),
            limit: 1,
            sort_order: pb::range_request::SortOrder::Ascend.into(),
            sort_target: pb::range_request::SortTarget::Create.into(),
            ..pb::RangeRequest::default()
        };
        let answer: pb::RangeResponse = connection.ask(&mut client, Method::Range, &oldest).await?;
        let revision = answer.header.as_ref().map_or(0, |header| header.revision);
        if let Some(pair) = answer.kvs.into_iter().next()
            && told.as_ref() != Some(&(pair.key.clone(), pair.value.clone()))
        {
            print::pair(&pair, false);
            told = Some((pair.key, pair.value));
        }
        let create = pb::WatchCreateRequest {
            key: prefix.clone().into(),
            range_end: end.clone().into(),
            start_revision: revision + 1,
            ..pb::WatchCreateRequest::default()
        };
        let request =
            pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
        let mut canceled = None;
        let mut watching = connection.connect().await?;
        let changed = watching.stream(Method::Watch, &request, |answer: pb::WatchResponse| {
            if answer.canceled {
                canceled = Some(answer.cancel_reason);
                return ControlFlow::Break(());
            }
            if answer.events.is_empty() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        tokio::select! {
            changed = changed => changed.map_err(|error| explain(error, ""))?,
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::from(130)),
        }
        if let Some(why) = canceled {
            bail!("listening was cancelled: {why}");
        }
    }
}
