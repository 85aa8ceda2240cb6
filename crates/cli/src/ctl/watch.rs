//! `watch`: every change, as it comes.

use std::ops::ControlFlow;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use synod_api::Method;
use synod_api::etcdserverpb as pb;
use synod_api::mvccpb::event::EventType;

use super::kv::Keys;
use super::print;
use super::target::{Connection, Format, explain};

/// `synod watch`
#[derive(Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    keys: Keys,
    /// From this revision on; 0: from now
    #[arg(long, default_value_t = 0)]
    rev: i64,
    /// Tell what was there before
    #[arg(long)]
    prev_kv: bool,
    /// Let the server say from time to time how far it is
    #[arg(long)]
    progress_notify: bool,
    /// End after so many events
    #[arg(long)]
    events: Option<u64>,
}

pub(super) async fn run(connection: &Connection, watch: &Watch) -> Result<ExitCode> {
    let (key, range_end) = watch.keys.range()?;
    let create = pb::WatchCreateRequest {
        key,
        range_end,
        start_revision: watch.rev,
        progress_notify: watch.progress_notify,
        prev_kv: watch.prev_kv,
        ..pb::WatchCreateRequest::default()
    };
    let request =
        pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
    let mut client = connection.connect().await?;
    let mut left = watch.events.unwrap_or(u64::MAX);
    let mut canceled = None;
    let ended = client
        .stream(Method::Watch, &request, |answer: pb::WatchResponse| {
            if answer.canceled {
                canceled = Some(match answer.compact_revision {
                    0 => answer.cancel_reason,
                    revision => format!("the history before revision {revision} was given up; begin there, with --rev={revision}"),
                });
                return ControlFlow::Break(());
            }
            if connection.format == Format::Json {
                if !answer.events.is_empty() && print::json(Method::Watch, &answer).is_err() {
                    return ControlFlow::Break(());
                }
            } else {
                if answer.events.is_empty() && watch.progress_notify && !answer.created {
                    let revision = answer.header.map_or(0, |header| header.revision);
                    print::line(format!("progress notify: {revision}").as_bytes());
                }
                for event in &answer.events {
                    print::line(match event.r#type() {
                        EventType::Put => b"PUT",
                        EventType::Delete => b"DELETE",
                    });
                    event.prev_kv.iter().for_each(|pair| print::pair(pair, false));
                    event.kv.iter().for_each(|pair| print::pair(pair, false));
                }
            }
            left = left.saturating_sub(answer.events.len() as u64);
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .await;
    if let Some(why) = canceled {
        bail!("the watch was cancelled: {why}");
    }
    ended.map_err(|error| explain(error, ""))?;
    Ok(ExitCode::SUCCESS)
}
