//! The JSON gateway and the other pages, over plain HTTP.

use std::sync::atomic::Ordering;

use serde_json::json;
use synod_server::http::Access;
use synod_server::service::Options;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::client::{get, post, send, soon};
use crate::fake::Served;

/// Calls work as JSON, also below the older prefix and in pieces of unknown length; what is zero is left out.
#[tokio::test]
async fn calls_as_json() {
    let served = Served::start().await;
    let header = |revision: &str| json!({ "cluster_id": "5", "member_id": "7", "revision": revision, "raft_term": "3" });
    let put = post(served.address, "/v3/kv/put", r#"{"key":"YQ==","value":"MQ=="}"#).await;
    assert_eq!((put.status, put.json()), (200, json!({ "header": header("2") })));
    assert!(put.head.contains("content-type: application/json"));
    assert!(put.head.contains("access-control-allow-origin: *"));
    let range = post(served.address, "/v3beta/kv/range", r#"{"key":"YQ=="}"#).await;
    let pair = json!({ "key": "YQ==", "create_revision": "2", "mod_revision": "2", "version": "1", "value": "MQ==" });
    assert_eq!(range.json(), json!({ "header": header("2"), "kvs": [pair], "count": "1" }));
    let none = post(served.address, "/v3/kv/deleterange", r#"{"key":"Yg=="}"#).await;
    assert_eq!(none.json(), json!({ "header": header("2") }));
    let members = post(served.address, "/v3/cluster/member/list", "").await;
    assert_eq!(members.json()["members"][0]["ID"], "7");
    let chunked = concat!(
        "POST /v3/kv/range HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ntransfer-encoding: chunked\r\n",
        "expect: 100-continue\r\n\r\n7\r\n{\"key\":\r\n7\r\n\"YQ==\"}\r\n0\r\n\r\n"
    );
    assert_eq!(send(served.address, chunked).await.json()["count"], "1");
}

/// Errors carry code and text under both names that clients look for, with the HTTP status that belongs to the code.
#[tokio::test]
async fn errors_as_json() {
    let served = Served::start().await;
    for (path, body, status, code, text) in [
        ("/v3/kv/range", "{}", 400, 3, "etcdserver: key is not provided"),
        ("/v3/kv/put", r#"{"key":"YQ==","lease":"9"}"#, 404, 5, "etcdserver: requested lease not found"),
        (
            "/v3/kv/range",
            r#"{"key":"YQ==","revision":9}"#,
            400,
            11,
            "etcdserver: mvcc: required revision is a future revision",
        ),
        ("/v3/kv/nope", "{}", 404, 5, "Not Found"),
        (
            "/v3/auth/enable",
            "{}",
            501,
            12,
            "synod: etcdserverpb.Auth/AuthEnable is not supported by this release",
        ),
        ("/v3/auth/authenticate", "{}", 400, 9, "etcdserver: authentication is not enabled"),
    ] {
        let answer = post(served.address, path, body).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.json(), json!({ "error": text, "code": code, "message": text }));
    }
    assert_eq!(get(served.address, "/v3/kv/range").await.status, 501);
}

/// Malformed JSON of every kind is answered with 400, and the server is still there afterwards.
#[tokio::test]
async fn malformed_json() {
    let served = Served::start().await;
    let deep = "[".repeat(2_000_000);
    let deep_unknown = format!("{{\"x\":{}", "{\"x\":".repeat(300_000));
    for body in [
        "{",
        "nonsense",
        "{\"key\":\"***\"}",
        "{\"key\":1}",
        "{\"limit\":1.5}",
        "{\"key\":\"YQ==\"}{}",
        "\u{feff}{\"key\":\"YQ==\"}",
        "\u{0}",
        &deep,
        &deep_unknown,
    ] {
        let answer = post(served.address, "/v3/kv/range", body).await;
        assert_eq!((answer.status, answer.json()["code"].clone()), (400, json!(3)), "{:.30}", body);
    }
    let large = format!("{{\"key\":\"{}\"}}", "A".repeat(5 << 20));
    let answer = post(served.address, "/v3/kv/put", &large).await;
    assert_eq!(answer.status, 429, "{answer:?}");
    let answer = post(served.address, "/v3/kv/put", &large[..3_000_000].replace("\"}", "")).await;
    assert_eq!(answer.status, 400);
    assert_eq!(post(served.address, "/v3/kv/range", "{\"key\":\"YQ==\"}").await.status, 200);
}

/// A watch over HTTP gives a line for each response as it happens; further requests may follow in the same body.
#[tokio::test]
async fn watches_as_lines() {
    let served = Served::start().await;
    let mut stream = BufReader::new(TcpStream::connect(served.address).await.unwrap());
    let create = r#"{"create_request":{"key":"YQ==","range_end":"Yg=="}}"#;
    let head = "POST /v3/watch HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    stream.get_mut().write_all((head.to_owned() + &chunk(create)).as_bytes()).await.unwrap();
    let mut lines = Vec::new();
    let mut until = async |stream: &mut BufReader<TcpStream>, count: usize| {
        while lines.len() < count {
            let mut line = String::new();
            assert!(soon(stream.read_line(&mut line)).await.unwrap() > 0, "the stream ended");
            if line.starts_with('{') {
                lines.push(serde_json::from_str::<serde_json::Value>(&line).unwrap());
            }
        }
        lines[count - 1].clone()
    };
    assert_eq!(until(&mut stream, 1).await["result"]["created"], true);
    post(served.address, "/v3/kv/put", r#"{"key":"YWE=","value":"MQ=="}"#).await;
    let event = until(&mut stream, 2).await;
    assert_eq!(event["result"]["events"][0]["kv"]["mod_revision"], "2");
    assert_eq!(event["result"]["events"][0].get("type"), None, "a put is the zero value");
    let more = chunk(&format!("{create}{{\"progress_request\":{{}}}}"));
    stream.get_mut().write_all(more.as_bytes()).await.unwrap();
    assert_eq!(until(&mut stream, 3).await["result"]["watch_id"], "1");
    assert_eq!(until(&mut stream, 4).await["result"]["watch_id"], "-1");
    stream.get_mut().write_all(chunk("{\"create_request\":7}").as_bytes()).await.unwrap();
    let error = until(&mut stream, 5).await;
    assert_eq!(
        (error["error"]["grpc_code"].clone(), error["error"]["http_code"].clone()),
        (json!(3), json!(400))
    );
}

/// A lease is kept alive by one request with one line of an answer, as Patroni does it; a stream that fails at once fails
/// with an HTTP status.
#[tokio::test]
async fn other_streams_as_lines() {
    let served = Served::start().await;
    let granted = post(served.address, "/v3/lease/grant", r#"{"TTL":30,"ID":"55"}"#).await.json();
    assert_eq!((granted["ID"].clone(), granted["TTL"].clone()), (json!("55"), json!("30")));
    let alive = post(served.address, "/v3/lease/keepalive", r#"{"ID":55}"#).await;
    assert!(
        alive.body.contains(r#"{"result":{"header":{"#) && alive.body.contains(r#""ID":"55","TTL":"30"}}"#)
    );
    served.backend.modest.store(true, Ordering::Relaxed);
    let refused = post(served.address, "/v3/election/observe", "{}").await;
    assert_eq!((refused.status, refused.json()["code"].clone()), (400, json!(9)));
    served.backend.modest.store(false, Ordering::Relaxed);
    let snapshot = post(served.address, "/v3/maintenance/snapshot", "{}").await;
    assert_eq!(snapshot.status, 200);
    assert!(snapshot.body.contains("\"remaining_bytes\":\""));
}

/// Load balancers get etcd's answers: a healthy member, one with an alarm, one without a leader.
#[tokio::test]
async fn probes() {
    let served = Served::start().await;
    let health = get(served.address, "/health").await;
    assert_eq!((health.status, health.json()), (200, json!({ "health": "true", "reason": "" })));
    assert_eq!(get(served.address, "/readyz").await.body, "ok\n");
    let verbose = get(served.address, "/readyz?verbose&exclude=non_learner").await.body;
    assert_eq!(verbose, "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\nok\n");
    assert_eq!(get(served.address, "/livez/serializable_read").await.body, "ok\n");
    assert_eq!(get(served.address, "/livez/nope").await.status, 404);
    assert_eq!(post(served.address, "/health", "").await.status, 405);

    post(
        served.address,
        "/v3/maintenance/alarm",
        r#"{"action":"ACTIVATE","memberID":"7","alarm":"NOSPACE"}"#,
    )
    .await;
    let full = get(served.address, "/health").await;
    assert_eq!((full.status, full.json()), (503, json!({ "health": "false", "reason": "ALARM NOSPACE" })));
    assert_eq!(get(served.address, "/health?exclude=NOSPACE").await.status, 200);

    served.backend.set_leader(None);
    let lost = get(served.address, "/health?exclude=NOSPACE").await;
    assert_eq!(lost.json()["reason"], "RAFT NO LEADER");
    let ready = get(served.address, "/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("[-]linearizable_read failed: etcdserver: no leader\n"));
    assert_eq!(get(served.address, "/livez").await.status, 200);
}

/// The page of figures is prometheus text with etcd's names and types; versions are told.
#[tokio::test]
async fn figures() {
    let served = Served::start().await;
    post(served.address, "/v3/kv/put", r#"{"key":"YQ=="}"#).await;
    let page = get(served.address, "/metrics").await;
    assert!(page.head.contains("content-type: text/plain; version=0.0.4"));
    for line in [
        "# TYPE grpc_server_started_total counter",
        "grpc_server_started_total{grpc_type=\"unary\",grpc_service=\"etcdserverpb.KV\",grpc_method=\"Put\"} 1",
        "grpc_server_handled_total{grpc_type=\"unary\",grpc_service=\"etcdserverpb.KV\",grpc_method=\"Put\",grpc_code=\"OK\"} 1",
        "etcd_debugging_mvcc_current_revision 2",
        "etcd_server_has_leader 1",
        "etcd_server_id{server_id=\"7\"} 1",
    ] {
        assert!(page.body.lines().any(|found| found == line), "{line} in\n{}", page.body);
    }
    let version = get(served.address, "/version").await.json();
    assert!(version["etcdserver"].as_str().unwrap().starts_with("3."));
    assert_eq!(get(served.address, "/debug/vars").await.json()["raft.status"]["term"], 3);
    assert_eq!(get(served.address, "/nope").await.status, 404);
}

/// Foreign hosts are turned away, and foreign pages get no permission; a browser's question is answered.
#[tokio::test]
async fn hosts_and_origins() {
    let access = Access::new(vec!["localhost".to_owned()], vec!["https://good.example".to_owned()]);
    let served = Served::with(Options::default(), access).await;
    let ask = async |method: &str, host: &str, origin: &str| {
        let origin = if origin.is_empty() { String::new() } else { format!("origin: {origin}\r\n") };
        let request =
            format!("{method} /v3/kv/range HTTP/1.1\r\nhost: {host}\r\n{origin}connection: close\r\n\r\n");
        send(served.address, request).await
    };
    assert_eq!(ask("POST", "evil.example", "").await.status, 421);
    let allowed = ask("OPTIONS", "localhost:2379", "https://good.example").await;
    assert_eq!(allowed.status, 200);
    assert!(allowed.head.contains("access-control-allow-origin: https://good.example"));
    assert!(allowed.head.contains("access-control-allow-methods: post, get, options, put, delete"));
    let foreign = ask("OPTIONS", "localhost", "https://evil.example").await;
    assert!(!foreign.head.contains("access-control"));
}

/// A deadline is honoured over HTTP, too, and a value that would change the meaning of a call is never ignored.
#[tokio::test]
async fn metadata_as_headers() {
    let served = Served::start().await;
    let call = async |name: &str, value: &str| {
        let request = format!(
            "POST /v3/kv/range HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{name}: {value}\r\ncontent-length: 14\r\n\r\n{{\"key\":\"YQ==\"}}"
        );
        send(served.address, request).await
    };
    assert_eq!(call("synod-consistency", "eventual").await.status, 200);
    assert_eq!(call("synod-consistency", "strongest").await.status, 400);
    served.backend.stuck.store(true, Ordering::Relaxed);
    assert_eq!(call("grpc-timeout", "10m").await.status, 504);
    assert_eq!(call("Grpc-Metadata-synod-consistency", "eventual").await.status, 200);
}
