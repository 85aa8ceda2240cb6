//! Each of the nine watch guarantees, and lease timing, is found broken when it is, and not otherwise.

use synod_check::formats::{Options, read_all};
use synod_check::history::History;
use synod_check::watch::{GUARANTEES, WatchFinding, check};

fn history(text: &str) -> History {
    read_all(text.as_bytes(), "test", &Options::default())
        .unwrap_or_else(|error| panic!("{error}\n{text}"))
        .remove(0)
}

fn broken(text: &str) -> Vec<&'static str> {
    let broken = |finding: &WatchFinding| finding.verdict.decided() == Some(false);
    check(&history(text)).iter().filter(|finding| broken(finding)).map(|finding| finding.guarantee).collect()
}

/// Three puts and a deletion, told by their replies.
const OPERATIONS: &str = r#"
{"process":0,"start":0,"end":1,"request":{"put":{"key":"a","value":"1"}},"reply":{"revision":2}}
{"process":0,"start":2,"end":3,"request":{"put":{"key":"b","value":"2"}},"reply":{"revision":3}}
{"process":0,"start":4,"end":5,"request":{"put":{"key":"a","value":"3"}},"reply":{"revision":4}}
{"process":0,"start":6,"end":7,"request":{"delete":{"key":"a"}},"reply":{"revision":5,"deleted":1}}
"#;

fn put(key: &str, value: u32, revision: u32, more: &str) -> String {
    format!(r#"{{"type":"put","key":"{key}","value":"{value}","revision":{revision}{more}}}"#)
}

fn delete(key: &str, revision: u32, more: &str) -> String {
    format!(r#"{{"type":"delete","key":"{key}","revision":{revision}{more}}}"#)
}

/// A stream over all keys with these responses, each a list of events.
fn stream(request: &str, responses: &[Vec<String>]) -> String {
    let responses: Vec<String> = responses
        .iter()
        .map(|events| match events.first() {
            Some(progress) if progress.starts_with("progress") => {
                format!(
                    r#"{{"progress":true,"revision":{},"events":[]}}"#,
                    progress.trim_start_matches("progress ")
                )
            }
            _ => format!(r#"{{"events":[{}]}}"#, events.join(",")),
        })
        .collect();
    format!(
        "{{\"watch\":{{\"key\":\"a\",\"end\":\"z\"{request}}},\"responses\":[{}]}}\n",
        responses.join(",")
    )
}

fn all() -> Vec<String> {
    vec![
        put("a", 1, 2, r#","created":true"#),
        put("b", 2, 3, ""),
        put("a", 3, 4, r#","created":false"#),
        delete("a", 5, ""),
    ]
}

/// A stream that tells every change once and in order breaks nothing.
#[test]
fn a_faithful_stream_breaks_nothing() {
    let each: Vec<Vec<String>> = all().into_iter().map(|event| vec![event]).collect();
    let text = OPERATIONS.to_string()
        + &stream(r#","revision":2"#, &each)
        + &stream("", &[all(), vec!["progress 5".into()]]);
    assert_eq!(broken(&text), Vec::<&str>::new());
    assert_eq!(check(&history(&text)).len(), GUARANTEES.len());
}

/// An event of an older revision after a newer one breaks "ordered".
#[test]
fn ordered() {
    let responses = [vec![put("b", 2, 3, "")], vec![put("a", 1, 2, "")]];
    assert_eq!(broken(&(OPERATIONS.to_string() + &stream("", &responses))), ["ordered"]);
}

/// The same event twice breaks "unique".
#[test]
fn unique() {
    let responses = [vec![put("a", 1, 2, ""), put("a", 1, 2, "")]];
    assert_eq!(broken(&(OPERATIONS.to_string() + &stream("", &responses))), ["unique"]);
}

/// One revision in two responses breaks "atomic".
#[test]
fn atomic() {
    let text = r#"{"process":0,"start":0,"end":1,"request":{"txn":{"then":[{"put":{"key":"a","value":"1"}},{"put":{"key":"b","value":"2"}}]}},"reply":{"revision":2,"succeeded":true,"replies":[{"put":{}},{"put":{}}]}}
"#;
    let together = [vec![put("a", 1, 2, ""), put("b", 2, 2, "")]];
    assert_eq!(broken(&(text.to_string() + &stream("", &together))), Vec::<&str>::new());
    let split = [vec![put("a", 1, 2, "")], vec![put("b", 2, 2, "")]];
    assert_eq!(broken(&(text.to_string() + &stream("", &split))), ["atomic"]);
}

/// A change that a reply names and the stream leaves out breaks "reliable"; so do two streams that tell it differently.
#[test]
fn reliable() {
    let responses = [vec![put("a", 1, 2, ""), put("a", 3, 4, "")]];
    assert_eq!(broken(&(OPERATIONS.to_string() + &stream("", &responses))), ["reliable"]);
    let responses = [vec![put("a", 9, 2, "")]];
    assert_eq!(broken(&(OPERATIONS.to_string() + &stream("", &responses))), ["reliable"]);
}

/// A stream resumed at a revision that begins later breaks "resumable".
#[test]
fn resumable() {
    let responses = [vec![put("a", 3, 4, "")]];
    assert_eq!(broken(&(OPERATIONS.to_string() + &stream(r#","revision":3"#, &responses))), ["resumable"]);
}

/// An event at or below a notified progress breaks "bookmarkable"; so does progress ahead of an event that is due.
#[test]
fn bookmarkable() {
    let late = [vec![put("a", 1, 2, "")], vec!["progress 3".into()], vec![put("b", 2, 3, "")]];
    assert_eq!(broken(&(OPERATIONS.to_string() + &stream("", &late))), ["bookmarkable"]);
    let ahead = [vec!["progress 4".into()]];
    assert_eq!(broken(&(OPERATIONS.to_string() + &stream(r#","revision":2"#, &ahead))), ["bookmarkable"]);
}

/// An event outside of the range, or before the start, breaks "filter".
#[test]
fn filter() {
    let text = OPERATIONS.to_string()
        + r#"{"watch":{"key":"b"},"responses":[{"events":[{"type":"put","key":"a","value":"1","revision":2}]}]}"#;
    assert_eq!(broken(&text), ["filter"]);
}

/// A previous value that was not the last one breaks "previous"; so does one that is missing.
#[test]
fn previous() {
    let with = |previous: &str| {
        let event = put("a", 3, 4, &format!(r#","previous":{previous}"#));
        broken(&(OPERATIONS.to_string() + &stream(r#","previous":true"#, &[vec![event]])))
    };
    assert_eq!(with(r#"{"value":"1","mod":2}"#), Vec::<&str>::new());
    assert_eq!(with(r#"{"value":"2","mod":2}"#), ["previous"]);
    assert_eq!(with("null"), ["previous"]);
}

/// A put that says created though the key was there, or the other way round, breaks "created".
#[test]
fn created() {
    let event = put("a", 3, 4, r#","created":true"#);
    assert_eq!(broken(&(OPERATIONS.to_string() + &stream("", &[vec![event]]))), ["created"]);
    let more = OPERATIONS.to_string()
        + r#"{"process":0,"start":8,"end":9,"request":{"put":{"key":"a","value":"4"}},"reply":{"revision":6}}
"#;
    let event = put("a", 4, 6, r#","created":false"#);
    assert_eq!(broken(&(more + &stream("", &[vec![event]]))), ["created"]);
}

/// A write whose answer was lost, and of which no stream tells, may explain what an event says of the key: no verdict stands on a gap.
#[test]
fn gaps_explain() {
    let event = put("a", 6, 8, r#","created":true,"previous":{"value":"5","mod":6}"#);
    let more = OPERATIONS.replace(r#""deleted":1"#, r#""deleted":0"#);
    assert_eq!(broken(&(more + &stream(r#","previous":true"#, &[vec![event]]))), Vec::<&str>::new());
}

/// A leased key that is gone before its time breaks "lease-timing"; one that is gone after it does not.
#[test]
fn lease_timing() {
    let gone_at = |time: u64| {
        format!(
            r#"{{"process":0,"start":0,"end":1,"request":{{"lease_grant":{{"id":7,"ttl":2}}}},"reply":{{"revision":1}}}}
{{"process":0,"start":2,"end":3,"request":{{"put":{{"key":"a","value":"1","lease":7}}}},"reply":{{"revision":2}}}}
{{"process":0,"start":1000000000,"end":1000000001,"request":{{"keep_alive":{{"id":7}}}},"reply":{{"revision":2}}}}
{{"watch":{{"key":"a"}},"responses":[{{"time":{time},"events":[{{"type":"delete","key":"a","revision":3}}]}}]}}
"#
        )
    };
    assert_eq!(broken(&gone_at(3_000_000_000)), Vec::<&str>::new());
    assert_eq!(broken(&gone_at(2_500_000_000)), ["lease-timing"]);
    let renewed = r#"
{"process":0,"start":0,"end":1,"request":{"lease_grant":{"id":7,"ttl":2}},"reply":{"revision":1}}
{"process":0,"start":2,"end":3,"request":{"lease_revoke":{"id":7}},"reply":{"revision":1}}
{"process":0,"start":4,"end":5,"request":{"keep_alive":{"id":7}},"reply":{"revision":1}}
"#;
    assert_eq!(broken(renewed), ["lease-timing"]);
}
