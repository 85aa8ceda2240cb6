//! `txn`: a transaction from standard input, in the language of etcd's own tool.
//!
//! Three parts with an empty line between them: comparisons, what is done when all hold, what is done otherwise.
//!
//! ```text
//! value("key") = "old"
//! mod("key") > "0"
//!
//! put key new
//! get other
//!
//! del key
//! ```

use std::io::Read;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use clap::Args;
use synod_api::Method;
use synod_api::etcdserverpb as pb;
use synod_api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use synod_api::etcdserverpb::request_op::Request;
use synod_api::etcdserverpb::response_op::Response;

use super::print;
use super::target::{Connection, Format};

/// `synod txn`
#[derive(Args)]
#[command(
    after_help = "Reads three parts from standard input, with an empty line between them: comparisons, what is done when all \
    hold, what is done otherwise. Example:\n\n  value(\"key\") = \"old\"\n\n  put key new\n\n  get key\n\nComparisons are \
    value(\"k\"), create(\"k\"), mod(\"k\"), version(\"k\") or lease(\"k\"), then = != < or >, then a quoted value. Operations are put KEY VALUE, \
    get KEY [END], del KEY [END]."
)]
pub(crate) struct Txn {}

pub(super) async fn run(connection: &Connection, _: &Txn) -> Result<ExitCode> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("reading the transaction from standard input")?;
    let request = parse(&text)?;
    let mut client = connection.connect().await?;
    let answer: pb::TxnResponse = connection.change(&mut client, Method::Txn, &request).await?;
    if connection.format == Format::Json {
        print::json(Method::Txn, &answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    print::line(if answer.succeeded { b"SUCCESS" } else { b"FAILURE" });
    for response in answer.responses {
        print::line(b"");
        match response.response {
            Some(Response::ResponsePut(_)) => print::line(b"OK"),
            Some(Response::ResponseRange(range)) => {
                range.kvs.iter().for_each(|pair| print::pair(pair, false))
            }
            Some(Response::ResponseDeleteRange(gone)) => print::line(gone.deleted.to_string().as_bytes()),
            _ => {}
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The transaction that a text describes.
fn parse(text: &str) -> Result<pb::TxnRequest> {
    let mut parts = [const { Vec::new() }; 3];
    let mut at = 0;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() {
            at += 1;
        } else if at < parts.len() {
            parts[at].push((number + 1, line));
        } else {
            bail!("line {}: a transaction has three parts, and this would be a fourth", number + 1);
        }
    }
    let [compares, success, failure] = parts;
    let each = |lines: Vec<(usize, &str)>| -> Result<Vec<pb::RequestOp>> {
        lines
            .into_iter()
            .map(|(number, line)| operation(line).with_context(|| format!("line {number}")))
            .collect()
    };
    Ok(pb::TxnRequest {
        compare: compares
            .into_iter()
            .map(|(number, line)| comparison(line).with_context(|| format!("line {number}")))
            .collect::<Result<_>>()?,
        success: each(success)?,
        failure: each(failure)?,
    })
}

/// The words of a line; quotes hold words together.
fn words(line: &str) -> Result<Vec<String>> {
    let (mut words, mut word, mut quote, mut any) = (Vec::new(), String::new(), None, false);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\\', Some('"')) => word.extend(letters.next()),
            (_, Some(open)) if letter == open => quote = None,
            (_, Some(_)) => word.push(letter),
            ('"' | '\'', None) => (quote, any) = (Some(letter), true),
            (' ' | '\t', None) => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            _ => word.push(letter),
        }
    }
    if quote.is_some() {
        bail!("a quote is not closed");
    }
    if any || !word.is_empty() {
        words.push(word);
    }
    Ok(words)
}

fn comparison(line: &str) -> Result<pb::Compare> {
    let malformed = || anyhow!("'{line}' is not a comparison like mod(\"key\") > \"0\"");
    let (target, rest) = line.split_once('(').ok_or_else(malformed)?;
    let (key, rest) = rest.rsplit_once(')').ok_or_else(malformed)?;
    let key = words(key)?.pop().ok_or_else(malformed)?;
    let mut rest = words(rest)?.into_iter();
    let (Some(sign), Some(value), None) = (rest.next(), rest.next(), rest.next()) else {
        return Err(malformed());
    };
    let result = match sign.as_str() {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        ">" => CompareResult::Greater,
        "<" => CompareResult::Less,
        other => bail!("'{other}' compares nothing: allowed is = != < >"),
    };
    let number = || value.parse::<i64>().map_err(|_| anyhow!("'{value}' is not a whole number"));
    let (target, union) = match target.trim() {
        "value" | "val" => (CompareTarget::Value, TargetUnion::Value(Bytes::from(value.clone()))),
        "create" | "c" => (CompareTarget::Create, TargetUnion::CreateRevision(number()?)),
        "mod" | "m" => (CompareTarget::Mod, TargetUnion::ModRevision(number()?)),
        "version" | "ver" => (CompareTarget::Version, TargetUnion::Version(number()?)),
        "lease" => {
            let lease = print::parse_hex(&value).map_err(|why| anyhow!(why))?;
            (CompareTarget::Lease, TargetUnion::Lease(lease as i64))
        }
        other => bail!("'{other}' cannot be compared: allowed is value, create, mod, version, lease"),
    };
    Ok(pb::Compare {
        result: result.into(),
        target: target.into(),
        key: key.into(),
        target_union: Some(union),
        ..pb::Compare::default()
    })
}

fn operation(line: &str) -> Result<pb::RequestOp> {
    let words = words(line)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let bytes = |word: &str| Bytes::copy_from_slice(word.as_bytes());
    let request = match words[..] {
        ["put", key, value] => Request::RequestPut(pb::PutRequest {
            key: bytes(key),
            value: bytes(value),
            ..pb::PutRequest::default()
        }),
        ["get", key] => {
            Request::RequestRange(pb::RangeRequest { key: bytes(key), ..pb::RangeRequest::default() })
        }
        ["get", key, end] => Request::RequestRange(pb::RangeRequest {
            key: bytes(key),
            range_end: bytes(end),
            ..pb::RangeRequest::default()
        }),
        ["del", key] => Request::RequestDeleteRange(pb::DeleteRangeRequest {
            key: bytes(key),
            ..pb::DeleteRangeRequest::default()
        }),
        ["del", key, end] => Request::RequestDeleteRange(pb::DeleteRangeRequest {
            key: bytes(key),
            range_end: bytes(end),
            ..pb::DeleteRangeRequest::default()
        }),
        _ => bail!("'{line}' is no operation: allowed is put KEY VALUE, get KEY [END], del KEY [END]"),
    };
    Ok(pb::RequestOp { request: Some(request) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All parts are understood, quotes and all.
    #[test]
    fn a_whole_transaction() {
        let text = "value(\"a b\") = \"x\"\nmod(\"k\") > \"3\"\n\nput k \"two words\"\nget a z\n\ndel k\n";
        let txn = parse(text).unwrap();
        assert_eq!((txn.compare.len(), txn.success.len(), txn.failure.len()), (2, 2, 1));
        assert_eq!(txn.compare[0].key, "a b");
        assert_eq!(txn.compare[1].target_union, Some(TargetUnion::ModRevision(3)));
        let Some(Request::RequestPut(put)) = &txn.success[0].request else { panic!("{txn:?}") };
        assert_eq!(put.value, "two words");
    }

    /// What is wrong is told with its line.
    #[test]
    fn mistakes_are_told() {
        let told = |text: &str| format!("{:#}", parse(text).unwrap_err());
        assert!(told("k = 3").starts_with("line 1: 'k = 3' is not a comparison"));
        assert!(told("mod(\"k\") ~ \"1\"").contains("allowed is = != < >"));
        assert!(told("mod(\"k\") > \"x\"").contains("not a whole number"));
        assert!(told("size(\"k\") > \"1\"").contains("allowed is value"));
        assert!(told("\n\nput k").starts_with("line 3"));
        assert!(told("\n\nput k \"v").contains("quote"));
        assert!(told("\n\n\n\nget a").contains("fourth"));
    }
}
