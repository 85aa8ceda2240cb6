//! One member, and tables of what it is asked and must answer.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::{CallError, Client, Cluster, PATIENCE, base64, number};
use crate::grpc::Grpc;

/// gRPC's numbers of the codes that bad input gets.
pub(crate) const INVALID: i64 = 3;
pub(crate) const NOT_FOUND: i64 = 5;
pub(crate) const EXHAUSTED: i64 = 8;
pub(crate) const PRECONDITION: i64 = 9;
pub(crate) const OUT_OF_RANGE: i64 = 11;
pub(crate) const UNAVAILABLE: i64 = 14;

/// What must be answered.
pub(crate) enum Expect {
    /// This code, with exactly this sentence.
    Refused(i64, &'static str),
    /// Exactly this, but for the outer header.
    Answer(Value),
    /// A success whose answer, but for the outer header, passes.
    Passes(fn(&Value) -> bool),
}

/// A question over the JSON gateway: what it is about, the path below `/v3/`, the request, the expectation.
pub(crate) type Row = (&'static str, &'static str, Value, Expect);

/// One member under test.
pub(crate) struct Bench {
    pub(crate) cluster: Cluster,
    pub(crate) client: Client,
}

impl Bench {
    pub(crate) fn start(extra: &[&str]) -> Bench {
        let cluster = Cluster::start(1, extra);
        let mut client = cluster.members[0].client();
        client.timeout = PATIENCE;
        Bench { cluster, client }
    }

    /// A gRPC connection, for what JSON cannot say.
    pub(crate) fn grpc(&self) -> Grpc {
        Grpc::connect(self.cluster.members[0].client)
    }

    /// Asks every row, and shows all that were answered otherwise.
    pub(crate) fn ask(&mut self, rows: impl IntoIterator<Item = Row>) {
        let mut wrong = Vec::new();
        for (what, path, request, expected) in rows {
            let got = self.client.call(&format!("/v3/{path}"), &request);
            if let Err(found) = judge(got, &expected) {
                let request = request.to_string();
                let shown: String = request.chars().take(200).collect();
                wrong.push(format!("{what}: {path} {shown}\n  {found}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    /// A call that must succeed.
    pub(crate) fn must(&mut self, path: &str, request: &Value) -> Value {
        self.client.call(&format!("/v3/{path}"), request).expect("it succeeds")
    }

    /// A put that must succeed; its revision.
    pub(crate) fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> i64 {
        let request = json!({ "key": base64(key), "value": base64(value) });
        number(&self.must("kv/put", &request)["header"]["revision"])
    }

    /// Whether the member is what it was: it runs, nothing in it panicked, and it still remembers.
    pub(crate) fn is_sound(&mut self, after: &str) {
        let value = format!("after {after}");
        self.put("still here?", &value);
        // A new connection, too: a listener may have died where an old connection lives.
        let mut fresh = Client::at(self.cluster.members[0].client, Duration::from_secs(20));
        assert_eq!(fresh.read("still here?").expect("a read"), Some(base64(&value)), "after {after}");
        let log = self.cluster.members[0].log();
        assert!(!log.contains("panicked"), "after {after}: {log}");
    }
}

/// What is wrong with an answer, if anything.
fn judge(got: Result<Value, CallError>, expected: &Expect) -> Result<(), String> {
    let got = match got {
        Ok(mut answer) => {
            if let Some(answer) = answer.as_object_mut() {
                answer.remove("header");
            }
            Ok(answer)
        }
        Err(CallError::Refused(refusal)) => Err((
            refusal["code"].as_i64().unwrap_or(-1),
            refusal["message"].as_str().unwrap_or_default().to_owned(),
        )),
        Err(CallError::Lost(why)) => return Err(format!("no answer: {why}")),
    };
    let fits = match (&got, expected) {
        (Err((code, message)), Expect::Refused(expected, sentence)) => {
            code == expected && message == sentence
        }
        (Ok(answer), Expect::Answer(expected)) => answer == expected,
        (Ok(answer), Expect::Passes(check)) => check(answer),
        _ => false,
    };
    let expected = match expected {
        Expect::Refused(code, sentence) => format!("{code} {sentence}"),
        Expect::Answer(answer) => answer.to_string(),
        Expect::Passes(_) => "a success of a certain form".to_owned(),
    };
    if fits { Ok(()) } else { Err(format!("expected {expected:.400}, got {:.400}", format!("{got:?}"))) }
}

pub(crate) fn refused(code: i64, sentence: &'static str) -> Expect {
    Expect::Refused(code, sentence)
}

pub(crate) fn answer(answer: Value) -> Expect {
    Expect::Answer(answer)
}

/// An operation of a transaction that puts `key`.
pub(crate) fn op_put(key: &str) -> Value {
    json!({ "request_put": { "key": base64(key), "value": base64("x") } })
}

/// An operation of a transaction that reads `key`.
pub(crate) fn op_range(key: &str) -> Value {
    json!({ "request_range": { "key": base64(key) } })
}

/// An operation of a transaction that deletes `key`, or from there up to `end`.
pub(crate) fn op_delete(key: &str, end: &str) -> Value {
    json!({ "request_delete_range": { "key": base64(key), "range_end": base64(end) } })
}

/// An operation of a transaction that is a transaction.
pub(crate) fn op_txn(success: Vec<Value>, failure: Vec<Value>) -> Value {
    json!({ "request_txn": { "success": success, "failure": failure } })
}
