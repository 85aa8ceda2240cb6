//! Every importer reads what it should, says line, column and expectation of what it cannot, and never panics.

use proptest::prelude::*;
use synod_check::budget::Budget;
use synod_check::formats::{Format, ImportError, Options, detect, read_all};
use synod_check::history::*;
use synod_check::ladder;
use synod_check::verdict::Level;

/// A small valid input of each format, with what it is detected as.
const VALID: [(&str, Format, &str); 9] = [
    (
        "knossos",
        Format::Edn,
        "; a comment\n[{:process 4, :type :invoke, :f :write, :value 2}\n {:process 4, :type :ok, :f :write, :value 2}\n \
         {:process 6, :type :invoke, :f :read, :value nil}\n {:process 6, :type :ok, :f :read, :value 2}]\n",
    ),
    (
        "porcupine-kv",
        Format::Edn,
        "{:process 0, :type :invoke, :f :append, :key \"0\", :value \"x 0 0 y\"}\n{:process 0, :type :ok, :f :append, :key \"0\", \
         :value \"x 0 0 y\"}\n{:process 1, :type :invoke, :f :get, :key \"0\", :value nil}\n{:process 1, :type :ok, :f :get, :key \
         \"0\", :value \"x 0 0 y\"}\n",
    ),
    (
        "elle-edn",
        Format::Edn,
        "{:index 0 :process 1 :type :invoke :value [[:append 5 1] [:r 5 nil]]}\n{:index 1 :process 1 :type :ok :value [[:append 5 1] [:r 5 [1]]]}\n",
    ),
    (
        "elle-json",
        Format::Events,
        "[{\"type\":\"invoke\",\"f\":\"txn\",\"value\":[[\"w\",\"x\",2],[\"r\",\"y\",null]],\"process\":0,\"index\":1},\n{\"type\":\"ok\",\"f\":\"txn\",\
         \"value\":[[\"w\",\"x\",2],[\"r\",\"y\",null]],\"process\":0,\"index\":2}]\n",
    ),
    (
        "jepsen-log",
        Format::JepsenLog,
        "INFO  jepsen.util - 0\t:invoke\t:read\tnil\nINFO  jepsen.util - 0\t:ok\t:read\tnil\nINFO  jepsen.util - 1\t:invoke\t:cas\t[3 0]\n\
         INFO  jepsen.util - 1\t:info\t:cas\t:timed-out\n",
    ),
    (
        "synod",
        Format::Synod,
        "{\"synod\":\"history\",\"version\":1,\"name\":\"two\",\"initial\":0}\n\
         {\"process\":0,\"f\":\"write\",\"key\":\"x\",\"value\":4,\"start\":0,\"end\":10}\n\
         {\"process\":1,\"f\":\"read\",\"key\":\"x\",\"value\":4,\"start\":5,\"end\":null,\"type\":\"info\"}\n",
    ),
    (
        "cases",
        Format::Cases,
        "{\"id\": 7, \"initial_value\": 0, \"ops\": [{\"process\": \"P1\", \"f\": \"write\", \"key\": \"x\", \"value\": 4, \"start\": 0, \"end\": 10}]}\n",
    ),
    (
        "robustness",
        Format::Robustness,
        "{\"ClientId\":1,\"Input\":{\"Type\":\"txn\",\"Txn\":{\"Conditions\":null,\"OperationsOnSuccess\":[{\"Type\":\"put-operation\",\"Put\":\
         {\"Key\":\"a\",\"Value\":{\"Value\":\"1\"},\"LeaseID\":0}}],\"OperationsOnFailure\":null}},\"Call\":5,\"Output\":{\"Txn\":{\"Failure\":false,\
         \"Results\":[{\"KVs\":null,\"Count\":0,\"Deleted\":0}]},\"Revision\":2},\"Return\":9}\n\
         {\"Request\":{\"Key\":\"\",\"Revision\":0,\"WithPrefix\":true},\"Responses\":[{\"Events\":[{\"Type\":\"put-operation\",\"Key\":\"a\",\
         \"Value\":{\"Value\":\"1\"},\"Revision\":2,\"IsCreate\":true}],\"IsProgressNotify\":false,\"Revision\":2,\"Time\":10}]}\n",
    ),
    (
        "dbcop",
        Format::Dbcop,
        "{\"params\":{\"id\":3},\"info\":\"\",\"data\":[[{\"events\":[{\"write\":true,\"variable\":0,\"value\":1,\"success\":true}],\"success\":true}],\
         [{\"events\":[{\"write\":false,\"variable\":0,\"value\":1,\"success\":true}],\"success\":true}]]}\n",
    ),
];

fn import(text: &[u8]) -> Result<Vec<History>, ImportError> {
    read_all(text, "test", &Options::default())
}

fn refused(text: &[u8]) -> ImportError {
    match import(text) {
        Err(error) => error,
        Ok(histories) => panic!("accepted {}: {histories:?}", String::from_utf8_lossy(text)),
    }
}

/// Each format is told by its content, read, and judged linearizable (or, without real time, sequential).
#[test]
fn every_format_is_told_read_and_judged() {
    for (name, format, text) in VALID {
        assert_eq!(detect(text.as_bytes()), Ok(format), "{name}");
        let histories = import(text.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(histories.len(), 1, "{name}");
        let report = ladder::check(&histories[0], &Budget::default());
        assert!(report.strongest() <= Some(Level::Sequential), "{name}: {report:?}");
        assert!(report.strongest().is_some(), "{name}");
        assert!(report.watch.iter().all(|finding| finding.verdict.decided() == Some(true)), "{name}");
    }
}

/// The models are told by the operations.
#[test]
fn models_are_told_by_the_operations() {
    let model = |text: &str| import(text.as_bytes()).expect(text)[0].model;
    let one = |f: &str, value: &str, answer: &str| {
        format!(
            "{{:process 0, :type :invoke, :f :{f}, :value {value}}}{{:process 0, :type :ok, :f :{f}, :value {value}}}\
             {{:process 0, :type :invoke, :f :read, :value nil}}{{:process 0, :type :ok, :f :read, :value {answer}}}"
        )
    };
    assert_eq!(model(&one("add", "1", "#{1}")), ModelKind::Set);
    assert_eq!(model(&one("add", "1", "1")), ModelKind::Counter);
    assert_eq!(model(&one("inc", "nil", "1")), ModelKind::Counter);
    assert_eq!(model(&one("transfer", "{:from 0 :to 1 :amount 3}", "{0 1, 1 4}")), ModelKind::Bank);
    assert_eq!(model(&one("enqueue", "1", "nil")), ModelKind::Queue);
    assert_eq!(model(&one("acquire", "nil", "nil")), ModelKind::Mutex);
    assert_eq!(model(&one("write", "1", "1")), ModelKind::Register);
    assert_eq!(model(VALID[1].2), ModelKind::KeyValue);
    assert_eq!(model(VALID[2].2), ModelKind::ListAppend);
    assert_eq!(model(VALID[7].2), ModelKind::Etcd);
}

/// Inputs that hold no history are refused, and the message says where and what was expected.
#[test]
fn unusable_inputs_are_refused_with_place_and_expectation() {
    let says = |text: &[u8], line: u32, column: u32, expected: &str| {
        let error = refused(text);
        assert_eq!((error.place.line, error.place.column), (line, column), "{error}");
        assert!(error.expected.contains(expected), "{error}");
    };
    says(b"", 1, 1, "empty");
    says(b"  \n \n", 3, 1, "empty");
    says(b"ab\0cd", 1, 3, "binary");
    says(b"hello world\n", 1, 1, "a history");
    says(b"[{:process 0, :type :invoke, :f :read, :value nil}\n", 2, 1, "']'");
    says(b"{:process 0, :type :invoke, :f :read", 1, 37, "closed");
    says(b"{:process 0, :type :invoke, :f :fly, :value 1}", 1, 32, "known function");
    says(b"{:process 0, :type :done, :f :read}", 1, 20, "invoke, ok, fail or info");
    says(b"{:process 0, :type :invoke, :f :cas, :value 1}", 1, 45, "two values");
    says(
        b"{\"process\":0,\"f\":\"write\",\"key\":\"x\",\"value\":4,\"start\":\"a\",\"end\":10}",
        1,
        54,
        "whole number",
    );
    says(b"{\"process\":0,\n\"f\":\"write\",\n\"key\":\"x\"}", 1, 1, "start");
    says(b"INFO  jepsen.util - x\t:invoke\t:read\tnil\n", 1, 21, "process number");
    says(b"INFO  jepsen.util - 1\t:invoke\t:fly\tnil\n", 1, 31, ":read, :write or :cas");
    says(b"{\"id\":1,\"ops\":4}", 1, 15, "array");
    says(
        b"{\"ClientId\":1,\"Input\":{\"Type\":\"fly\"},\"Call\":1,\"Output\":{},\"Return\":2}",
        1,
        31,
        "range, txn",
    );
    says(b"{:process 0, :type :invoke, :f :write, :value \"\xff\"}", 1, 48, "UTF-8");
    says(b"; only comments\n", 2, 1, "after the comments");
    says(b"[]", 1, 1, "none");
}

/// A form nested too deep is refused before the stack ends, whatever its brackets.
#[test]
fn deep_nesting_is_refused() {
    for open in ["[", "{:a ", "(", "#{", "#x "] {
        let text = format!("{{:process 0, :type :invoke, :f :write, :value {}", open.repeat(1_000_000));
        let error = refused(text.as_bytes());
        assert!(error.expected.contains("closed"), "{error}");
        let closed = format!(
            "{{:process 0, :type :invoke, :f :write, :value {}{}}}",
            "[".repeat(1000),
            "]".repeat(1000)
        );
        assert!(refused(closed.as_bytes()).expected.contains("64 levels"));
    }
}

/// Duplicate ids, times that run backwards, overlapping operations and repeated values are warned of, once each, with the line.
#[test]
fn oddities_are_warned_of() {
    let line = |process: u32, value: u32, start: i64, end: i64, id: u32| {
        format!(
            "{{\"process\":{process},\"f\":\"write\",\"key\":\"x\",\"value\":{value},\"start\":{start},\"end\":{end},\"id\":{id}}}\n"
        )
    };
    let text = line(0, 1, 0, 10, 1) + &line(0, 2, 5, 20, 2) + &line(1, 2, 30, 25, 2);
    let history = import(text.as_bytes()).expect("a history").remove(0);
    let kinds: Vec<(WarningKind, u32)> =
        history.warnings.iter().map(|warning| (warning.kind, warning.line)).collect();
    assert_eq!(
        kinds,
        [
            (WarningKind::ValueNotUnique, 3),
            (WarningKind::ClockAnomaly, 3),
            (WarningKind::OverlappingProcess, 2),
            (WarningKind::DuplicateId, 3)
        ]
    );
}

/// Events whose times run backwards keep the order that they came in.
#[test]
fn event_order_outranks_event_times() {
    let text = "{:process 0 :type :invoke :f :write :value 1 :time 50}{:process 0 :type :ok :f :write :value 1 :time 40}\
                {:process 1 :type :invoke :f :read :value nil :time 30}{:process 1 :type :ok :f :read :value 1 :time 20}";
    let history = import(text.as_bytes()).expect("a history").remove(0);
    assert!(history.operations[0].precedes(&history.operations[1]));
    assert_eq!(history.warnings[0].kind, WarningKind::ClockAnomaly);
    assert_eq!(history.warnings[0].count, 3);
}

/// A failed operation did not happen; an unknown one may have, at any later time.
#[test]
fn fail_and_info_mean_what_jepsen_means() {
    let history = |kind: &str| {
        let text = format!(
            "{{:process 0 :type :invoke :f :write :value 1}}{{:process 0 :type :{kind} :f :write :value 1}}\
             {{:process 1 :type :invoke :f :read :value nil}}{{:process 1 :type :ok :f :read :value 1}}"
        );
        import(text.as_bytes()).expect("a history").remove(0)
    };
    let linearizable = |history: &History| {
        ladder::check(history, &Budget::default()).finding(Level::Linearizable).unwrap().verdict.decided()
    };
    assert_eq!(linearizable(&history("fail")), Some(false));
    assert_eq!(linearizable(&history("info")), Some(true));
    assert_eq!(history("info").operations[0].completed, NEVER);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 200 } else { 4000 }))]

    /// Random bytes are read or refused by every importer, and never panic.
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = import(&bytes);
        for (format, _) in Format::ALL {
            let _ = read_all(&bytes[..], "random", &Options { format: Some(format), ..Options::default() });
        }
    }

    /// Valid inputs with bytes changed, left out, doubled or cut are read or refused, and what is read can be judged.
    #[test]
    fn mutated_inputs_never_panic(
        which in 0..VALID.len(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0..6u8, any::<u8>()), 1..6),
    ) {
        let mut bytes = VALID[which].2.as_bytes().to_vec();
        for (index, kind, byte) in edits {
            if bytes.is_empty() {
                break;
            }
            let at = index.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => _ = bytes.remove(at),
                2 => bytes.insert(at, byte),
                3 => bytes.truncate(at),
                4 => bytes[at] = b"0123456789[]{}()\":,-"[byte as usize % 20],
                _ => {
                    let copy = bytes[at..].to_vec();
                    bytes.extend_from_slice(&copy);
                }
            }
        }
        for format in [None, Some(VALID[which].1)] {
            let options = Options { format, ..Options::default() };
            if let Ok(histories) = read_all(&bytes[..], "mutated", &options) {
                for history in &histories {
                    let budget = Budget { steps_max: 10_000, ..Budget::default() };
                    let report = ladder::check(history, &budget);
                    let _ = synod_check::json::line(history, &report);
                }
            }
        }
    }
}
