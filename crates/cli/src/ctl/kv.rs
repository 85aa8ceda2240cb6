//! `put`, `get`, `del`.

use std::io::Read;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use synod_api::Method;
use synod_api::etcdserverpb as pb;

use super::print;
use super::target::{Connection, Format};

/// Which keys are meant.
#[derive(Args)]
pub(super) struct Keys {
    /// The key, or the first one
    key: String,
    /// The key behind the last one
    range_end: Option<String>,
    /// All keys that begin with KEY; an empty KEY means all keys
    #[arg(long, conflicts_with_all = ["range_end", "from_key"])]
    prefix: bool,
    /// All keys from KEY on
    #[arg(long, conflicts_with = "range_end")]
    from_key: bool,
}

impl Keys {
    /// Key and range end as the API has them.
    pub(super) fn range(&self) -> Result<(Bytes, Bytes)> {
        let key = self.key.clone().into_bytes();
        if key.is_empty() && !self.prefix && !self.from_key {
            bail!("an empty key needs --prefix or --from-key: together they mean all keys");
        }
        let end = match (&self.range_end, self.prefix, self.from_key) {
            (Some(end), _, _) => end.clone().into_bytes(),
            (_, true, _) => prefix_end(&key),
            (_, _, true) => vec![0],
            _ => Vec::new(),
        };
        // The API has no empty first key: a zero byte comes before all others.
        let key = if key.is_empty() { vec![0] } else { key };
        Ok((key.into(), end.into()))
    }
}

/// The first key that does not begin with `prefix`; a zero byte: there is none.
fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// `synod put`
#[derive(Args)]
pub(crate) struct Put {
    /// The key
    key: String,
    /// The value; without it, or as '-', it is read from standard input
    value: Option<String>,
    /// Bind the key to this lease (hexadecimal)
    #[arg(long, value_parser = print::parse_hex, default_value = "0")]
    lease: u64,
    /// Tell what was there before
    #[arg(long)]
    prev_kv: bool,
    /// Keep the value, change the lease
    #[arg(long)]
    ignore_value: bool,
    /// Keep the lease, change the value
    #[arg(long, conflicts_with = "lease")]
    ignore_lease: bool,
}

pub(super) async fn put(connection: &Connection, put: &Put) -> Result<ExitCode> {
    let value = match put.value.as_deref() {
        _ if put.ignore_value && put.value.is_some() => bail!("--ignore-value wants no VALUE"),
        _ if put.ignore_value => Vec::new(),
        Some(value) if value != "-" => value.as_bytes().to_vec(),
        _ => {
            let mut value = Vec::new();
            std::io::stdin().read_to_end(&mut value).context("reading the value from standard input")?;
            value
        }
    };
    let request = pb::PutRequest {
        key: put.key.clone().into(),
        value: value.into(),
        lease: put.lease as i64,
        prev_kv: put.prev_kv,
        ignore_value: put.ignore_value,
        ignore_lease: put.ignore_lease,
    };
    let mut client = connection.connect().await?;
    let answer: pb::PutResponse = connection.change(&mut client, Method::Put, &request).await?;
    if connection.format == Format::Json {
        print::json(Method::Put, &answer)?;
    } else {
        print::line(b"OK");
        if let Some(pair) = &answer.prev_kv {
            print::pair(pair, false);
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Clone, Copy, ValueEnum)]
enum SortBy {
    Key,
    Version,
    Create,
    Modify,
    Value,
}

#[derive(Clone, Copy, ValueEnum)]
enum Order {
    Ascend,
    Descend,
}

#[derive(Clone, Copy, ValueEnum)]
enum Level {
    /// Sees everything that was acknowledged before
    Linearizable,
    /// Sees what this session has seen and written
    Sequential,
    /// Sees what this session has seen, and what that depends on
    Causal,
    /// What is there
    Eventual,
}

/// `synod get`
#[derive(Args)]
pub(crate) struct Get {
    #[command(flatten)]
    keys: Keys,
    /// So many keys at most; 0: all
    #[arg(long, default_value_t = 0)]
    limit: i64,
    /// As it was at this revision; 0: now
    #[arg(long, default_value_t = 0)]
    rev: i64,
    /// What the answer is ordered by
    #[arg(long, value_enum)]
    sort_by: Option<SortBy>,
    /// Which way
    #[arg(long, value_enum)]
    order: Option<Order>,
    /// Keys alone
    #[arg(long)]
    keys_only: bool,
    /// How many there are, alone
    #[arg(long)]
    count_only: bool,
    /// Values alone
    #[arg(long)]
    print_value_only: bool,
    /// How fresh the answer must be (Synod's own; etcd knows linearizable and, as eventual, serializable)
    #[arg(long, value_enum, default_value = "linearizable")]
    consistency: Level,
    /// A session's token, as an earlier answer gave it (Synod's own)
    #[arg(long, value_name = "TOKEN")]
    session: Option<String>,
}

pub(super) async fn get(connection: &Connection, get: &Get) -> Result<ExitCode> {
    let (key, range_end) = get.keys.range()?;
    let target = get.sort_by.map_or(pb::range_request::SortTarget::Key, |by| match by {
        SortBy::Key => pb::range_request::SortTarget::Key,
        SortBy::Version => pb::range_request::SortTarget::Version,
        SortBy::Create => pb::range_request::SortTarget::Create,
        SortBy::Modify => pb::range_request::SortTarget::Mod,
        SortBy::Value => pb::range_request::SortTarget::Value,
    });
    let order = match (get.order, get.sort_by) {
        (Some(Order::Descend), _) => pb::range_request::SortOrder::Descend,
        (Some(Order::Ascend), _) | (None, Some(_)) => pb::range_request::SortOrder::Ascend,
        (None, None) => pb::range_request::SortOrder::None,
    };
    let mut metadata = Vec::new();
    let mut level = |name: &str| metadata.push(("synod-consistency".to_owned(), name.to_owned()));
    match get.consistency {
        // Eventual is what every etcd calls serializable, so it needs no word of our own.
        Level::Linearizable | Level::Eventual => {}
        Level::Sequential => level("sequential"),
        Level::Causal => level("causal"),
    }
    metadata.extend(get.session.iter().map(|token| ("synod-session".to_owned(), token.clone())));
    let request = pb::RangeRequest {
        key,
        range_end,
        limit: get.limit,
        revision: get.rev,
        sort_order: order.into(),
        sort_target: target.into(),
        serializable: matches!(get.consistency, Level::Eventual),
        keys_only: get.keys_only,
        count_only: get.count_only,
        ..pb::RangeRequest::default()
    };
    let mut client = connection.connect_with(metadata).await?;
    let answer: pb::RangeResponse = connection.ask(&mut client, Method::Range, &request).await?;
    match connection.format {
        Format::Json => print::json(Method::Range, &answer)?,
        _ if get.count_only => print::line(answer.count.to_string().as_bytes()),
        Format::Table => {
            let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
            let row = |pair: &synod_api::mvccpb::KeyValue| {
                vec![
                    text(&pair.key),
                    text(&pair.value),
                    pair.create_revision.to_string(),
                    pair.mod_revision.to_string(),
                    pair.version.to_string(),
                    print::hex(pair.lease as u64),
                ]
            };
            let head = ["key", "value", "created", "modified", "version", "lease"];
            print::table(&head, answer.kvs.iter().map(row).collect());
        }
        Format::Simple => {
            for pair in &answer.kvs {
                match get.keys_only {
                    true => print::line(&pair.key),
                    false => print::pair(pair, get.print_value_only),
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `synod del`
#[derive(Args)]
pub(crate) struct Del {
    #[command(flatten)]
    keys: Keys,
    /// Tell what was there
    #[arg(long)]
    prev_kv: bool,
}

pub(super) async fn del(connection: &Connection, del: &Del) -> Result<ExitCode> {
    let (key, range_end) = del.keys.range()?;
    let request = pb::DeleteRangeRequest { key, range_end, prev_kv: del.prev_kv };
    let mut client = connection.connect().await?;
    let answer: pb::DeleteRangeResponse =
        connection.change(&mut client, Method::DeleteRange, &request).await?;
    if connection.format == Format::Json {
        print::json(Method::DeleteRange, &answer)?;
    } else {
        print::line(answer.deleted.to_string().as_bytes());
        answer.prev_kvs.iter().for_each(|pair| print::pair(pair, false));
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The end of a prefix is the next key that does not begin with it, and there is none behind the last.
    #[test]
    fn ends_of_prefixes() {
        assert_eq!(prefix_end(b"ab"), b"ac");
        assert_eq!(prefix_end(b"a\xff\xff"), b"b");
        assert_eq!(prefix_end(b"\xff"), b"\0");
        assert_eq!(prefix_end(b""), b"\0");
    }
}
