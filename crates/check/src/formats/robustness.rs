//! etcd's robustness suite: `operations.json` and `watch.json` of each client, one JSON object after another.
//!
//! An operation is Porcupine's (`ClientId`, `Input`, `Call`, `Output`, `Return`) around the suite's own request and
//! response types, whose embedded Go structs lie flat in the JSON. `Error` in the output means an unknown outcome, unless
//! it is one that the store gives for certain (`ClientError`: compacted, future revision). Values longer than 20 bytes are
//! recorded as a hash, which is kept as a value of its own kind. A run has a folder for each client; all files of a run
//! make one history, so [`Robustness`] takes several inputs. Sources: etcd's tests/robustness, `model/types.go`,
//! `report/client.go`.

use std::io::BufRead;

use super::form::{Form, Malformed, Notation, parse};
use super::split::Splitter;
use super::{Format, ImportError, OPERATIONS_MAX, Place};
use crate::builder::Builder;
use crate::etcd::*;
use crate::history::{
    Call, Datum, History, Key, ModelKind, NEVER, Operation, Outcome, Reply as AnyReply, Value,
};

const NAME: &str = "robustness";

/// The files of one run.
pub struct Robustness {
    builder: Builder,
    count: usize,
    /// For watch streams, which do not say whose they are: the client of the file before, or a number of their own.
    client: i64,
}

impl Robustness {
    /// A run of that name.
    pub fn new(name: &str) -> Robustness {
        debug_assert_eq!(NAME, Format::Robustness.name());
        Robustness { builder: Builder::new(name, NAME, ModelKind::Etcd), count: 0, client: 0 }
    }

    /// The next watch files are this client's.
    pub fn set_client(&mut self, client: i64) {
        self.client = client;
    }

    /// Reads one file of the run.
    pub fn read(&mut self, input: impl BufRead) -> Result<(), ImportError> {
        let mut splitter = Splitter::new(input, Notation::Json, NAME);
        let mut found = false;
        while let Some(piece) = splitter.next_piece()? {
            found = true;
            self.count += 1;
            if self.count > OPERATIONS_MAX {
                return Err(ImportError::new(
                    NAME,
                    piece.place,
                    format!("at most {OPERATIONS_MAX} operations"),
                ));
            }
            parse(piece.text, Notation::Json)
                .and_then(|form| match form.get("Input") {
                    Some(_) => self.operation(&form, piece.place.line),
                    None => self.watch(&form, piece.place.line),
                })
                .map_err(|malformed| ImportError::at(NAME, &piece, malformed))?;
        }
        if !found {
            return Err(ImportError::new(
                NAME,
                Place { line: 1, column: 1 },
                "operations, but there are none",
            ));
        }
        Ok(())
    }

    /// The history of all files.
    pub fn finish(self) -> History {
        self.builder.finish()
    }

    fn operation(&mut self, form: &Form<'_>, line: u32) -> Result<(), Malformed> {
        let client = need_int(form, "ClientId")?;
        let input = form.get("Input").ok_or_else(|| form.expected("\"Input\""))?;
        let output = form.get_some("Output").ok_or_else(|| form.expected("\"Output\""))?;
        let (invoked, completed) = (need_int(form, "Call")?, need_int(form, "Return")?);
        let request = self.request(input)?;
        let outcome = self.output(&request, output)?;
        let completed = if outcome == Outcome::Unknown { NEVER } else { completed.min(NEVER - 1) };
        let process = self.builder.process(Datum::Int(client));
        let key = super::operation::only_key(&mut self.builder);
        let id = self.builder.id(None);
        let call = Call::Etcd(Box::new(request));
        self.builder.push(Operation { process, key, call, outcome, invoked, completed, id, line });
        Ok(())
    }

    fn key(&mut self, form: &Form<'_>, name: &str) -> Key {
        let text = form.get(name).and_then(Form::name).unwrap_or_default();
        self.builder.key(Datum::text(text))
    }

    fn end(&mut self, form: &Form<'_>, name: &str) -> RangeEnd {
        match form.get(name).and_then(Form::name).unwrap_or_default() {
            "" => RangeEnd::Single,
            "\0" => RangeEnd::Open,
            end => RangeEnd::Until(self.builder.key(Datum::text(end))),
        }
    }

    /// `{"Value": "2"}`, or `{"Hash": 123}` for a long one.
    fn value(&mut self, form: Option<&Form<'_>>) -> Value {
        let hash = form.and_then(|form| form.get("Hash")).and_then(Form::int).filter(|hash| *hash != 0);
        let text = form.and_then(|form| form.get("Value")).and_then(Form::name).unwrap_or_default();
        self.builder.value(match hash {
            Some(hash) => Datum::text(format!("#{hash}")),
            None => Datum::text(text),
        })
    }

    fn range(&mut self, form: &Form<'_>) -> Range {
        let revision = int(form, "Revision", 0);
        // The suite answers reads of the past from any member; reads of now are linearizable.
        Range {
            key: self.key(form, "Start"),
            end: self.end(form, "End"),
            revision,
            limit: int(form, "Limit", 0),
            serializable: false,
        }
    }

    fn request(&mut self, form: &Form<'_>) -> Result<Request, Malformed> {
        let kind = form.get("Type").ok_or_else(|| form.expected("\"Type\": the kind of request"))?;
        let part = |name: &str| form.get_some(name).ok_or_else(|| form.expected(format!("\"{name}\"")));
        Ok(match kind.name() {
            Some("range") => Request::Range(self.range(part("Range")?)),
            Some("txn") => {
                let txn = part("Txn")?;
                Request::Txn(Txn {
                    compares: list(txn, "Conditions").iter().map(|form| self.condition(form)).collect(),
                    then: self.operations(list(txn, "OperationsOnSuccess"))?,
                    otherwise: self.operations(list(txn, "OperationsOnFailure"))?,
                })
            }
            Some("leaseGrant") => Request::LeaseGrant { id: int(part("LeaseGrant")?, "LeaseID", 0), ttl: 0 },
            Some("leaseRevoke") => Request::LeaseRevoke { id: int(part("LeaseRevoke")?, "LeaseID", 0) },
            Some("compact") => Request::Compact { revision: int(part("Compact")?, "Revision", 0) },
            Some("defragment") => Request::Other,
            _ => return Err(kind.expected("range, txn, leaseGrant, leaseRevoke, compact or defragment")),
        })
    }

    fn condition(&mut self, form: &Form<'_>) -> Compare {
        let version = int(form, "ExpectedVersion", 0);
        let target = match version {
            0 => CompareTarget::Mod(int(form, "ExpectedRevision", 0)),
            version => CompareTarget::Version(version),
        };
        Compare { key: self.key(form, "Key"), target, result: CompareResult::Equal }
    }

    fn operations(&mut self, forms: &[Form<'_>]) -> Result<Box<[TxnOp]>, Malformed> {
        forms
            .iter()
            .map(|form| {
                let part =
                    |name: &str| form.get_some(name).ok_or_else(|| form.expected(format!("\"{name}\"")));
                Ok(match form.get("Type").and_then(Form::name) {
                    Some("range-operation") => TxnOp::Range(self.range(part("Range")?)),
                    Some("put-operation") => {
                        let put = part("Put")?;
                        let (key, value) = (self.key(put, "Key"), self.value(put.get("Value")));
                        TxnOp::Put(Put { key, value, lease: int(put, "LeaseID", 0) })
                    }
                    Some("delete-operation") => TxnOp::Delete(DeleteRange {
                        key: self.key(part("Delete")?, "Key"),
                        end: RangeEnd::Single,
                    }),
                    _ => {
                        return Err(
                            form.expected("\"Type\": range-operation, put-operation or delete-operation")
                        );
                    }
                })
            })
            .collect()
    }

    fn output(&mut self, request: &Request, form: &Form<'_>) -> Result<Outcome, Malformed> {
        let revision = int(form, "Revision", 0);
        let said = |name: &str| form.get(name).and_then(Form::name).unwrap_or_default().to_string();
        let (error, refused) = (said("Error"), said("ClientError"));
        let certain = format!("{error} {refused}");
        let body = if certain.contains("has been compacted") {
            ReplyBody::Compacted
        } else if certain.contains("future rev") {
            ReplyBody::FutureRevision
        } else if certain.contains("lease not found") || certain.contains("lease already exists") {
            ReplyBody::LeaseRefused
        } else if !error.is_empty() || (!refused.is_empty() && request_changes(request)) {
            return Ok(Outcome::Unknown);
        } else {
            self.body(request, form)?
        };
        Ok(Outcome::Ok(AnyReply::Etcd(Box::new(Reply { revision: revision.max(0), body }))))
    }

    fn body(&mut self, request: &Request, form: &Form<'_>) -> Result<ReplyBody, Malformed> {
        Ok(match (request, form.get_some("Range"), form.get_some("Txn")) {
            (Request::Range(_), Some(range), _) => ReplyBody::Range(self.range_reply(range)),
            (Request::Txn(txn), _, Some(said)) => {
                let failed = said.get("Failure").and_then(Form::bool).unwrap_or(false);
                let branch = if failed { &txn.otherwise } else { &txn.then };
                let results = list(said, "Results");
                let replies = branch.iter().zip(results).map(|(op, result)| match op {
                    TxnOp::Range(_) => TxnReply::Range(self.range_reply(result)),
                    TxnOp::Put(_) => TxnReply::Put,
                    TxnOp::Delete(_) => TxnReply::Deleted(int(result, "Deleted", 0)),
                });
                ReplyBody::Txn { replies: replies.collect(), succeeded: Some(!failed) }
            }
            _ => ReplyBody::Nothing,
        })
    }

    fn range_reply(&mut self, form: &Form<'_>) -> RangeReply {
        let pairs = list(form, "KVs").iter().map(|form| self.pair(form)).collect();
        RangeReply { pairs, count: int(form, "Count", UNRECORDED) }
    }

    fn pair(&mut self, form: &Form<'_>) -> KeyValue {
        KeyValue {
            key: self.key(form, "Key"),
            value: self.value(form.get("Value")),
            create: UNRECORDED,
            modified: int(form, "ModRevision", UNRECORDED),
            version: int(form, "Version", UNRECORDED),
            lease: UNRECORDED,
        }
    }

    fn watch(&mut self, form: &Form<'_>, line: u32) -> Result<(), Malformed> {
        let request = form
            .get_some("Request")
            .ok_or_else(|| form.expected("\"Input\" (an operation) or \"Request\" (a watch)"))?;
        let flag = |form: &Form<'_>, name: &str| form.get(name).and_then(Form::bool).unwrap_or(false);
        let key = self.key(request, "Key");
        let end = match flag(request, "WithPrefix") {
            false => RangeEnd::Single,
            true => self.prefix_end(request.get("Key").and_then(Form::name).unwrap_or_default()),
        };
        let mut responses = Vec::new();
        for response in list(form, "Responses") {
            let events =
                list(response, "Events").iter().map(|event| self.event(event)).collect::<Result<_, _>>()?;
            responses.push(WatchResponse {
                events,
                revision: int(response, "Revision", 0),
                kind: if flag(response, "IsProgressNotify") {
                    ResponseKind::Progress
                } else {
                    ResponseKind::Events
                },
                time: int(response, "Time", 0),
                error: response.get("Error").and_then(Form::name).unwrap_or_default().into(),
            });
        }
        let stream = WatchStream {
            client: self.client,
            key,
            end,
            revision: int(request, "Revision", 0),
            progress: if flag(request, "WithProgressNotify") {
                Progress::Wanted
            } else {
                Progress::NotWanted
            },
            previous: if flag(request, "WithPrevKV") { Previous::Wanted } else { Previous::NotWanted },
            responses,
            line,
        };
        self.builder.history_mut().watches.push(stream);
        Ok(())
    }

    fn event(&mut self, form: &Form<'_>) -> Result<WatchEvent, Malformed> {
        let key = self.key(form, "Key");
        let change = match form.get("Type").and_then(Form::name) {
            Some("put-operation") => Change::Put(self.value(form.get("Value"))),
            Some("delete-operation") => Change::Delete,
            _ => return Err(form.expected("\"Type\": put-operation or delete-operation")),
        };
        let previous = form.get_some("PrevValue").map(|form| {
            Some(KeyValue {
                key,
                value: self.value(form.get("Value")),
                create: UNRECORDED,
                modified: int(form, "ModRevision", UNRECORDED),
                version: int(form, "Version", UNRECORDED),
                lease: UNRECORDED,
            })
        });
        let created = form.get("IsCreate").and_then(Form::bool);
        Ok(WatchEvent { key, change, revision: int(form, "Revision", 0), created, previous })
    }

    /// The first key after all that begin with `prefix`.
    fn prefix_end(&mut self, prefix: &str) -> RangeEnd {
        let mut end = prefix.to_string();
        while let Some(last) = end.pop() {
            let next = (last as u32 + 1..=char::MAX as u32).find_map(char::from_u32);
            if let Some(next) = next {
                end.push(next);
                return RangeEnd::Until(self.builder.key(Datum::text(end)));
            }
        }
        RangeEnd::Open
    }
}

fn request_changes(request: &Request) -> bool {
    crate::model::store::changes(request) != crate::model::store::Changes::Never
}

fn need_int(form: &Form<'_>, name: &str) -> Result<i64, Malformed> {
    let inner = form.get(name).ok_or_else(|| form.expected(format!("\"{name}\"")))?;
    inner.int().ok_or_else(|| inner.expected(format!("a whole number as \"{name}\"")))
}

fn int(form: &Form<'_>, name: &str, default: i64) -> i64 {
    form.get(name).and_then(Form::int).unwrap_or(default)
}

fn list<'f, 'a>(form: &'f Form<'a>, name: &str) -> &'f [Form<'a>] {
    form.get(name).and_then(Form::seq).unwrap_or_default()
}
