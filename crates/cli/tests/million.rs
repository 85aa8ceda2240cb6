//! One million keys of 16 + 256 bytes on one member: memory, restart and a large range, as `docs/figures.md` quotes them.
//!
//! `just million`; not part of the ordinary run, because it measures and proves little: only that all keys are there.

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Client, Cluster, base64, number};
use serde_json::json;

const KEYS: usize = 1_000_000;
const PUTS_IN_A_TXN: usize = 100;
const RANGE: usize = 100_000;
const LOADERS: usize = 4;

/// A key of 16 bytes; `number` puts it in its place, and the order of loading is not that of the keys.
fn key(number: usize) -> String {
    format!("key/{number:012}")
}

/// See the file's text.
#[test]
#[ignore = "a measurement of a minute: `just million`"]
fn a_million_keys() {
    let mut cluster = Cluster::start(1, &["--log-level=warn"]);
    let member = &mut cluster.members[0];
    println!("empty: {} MB resident", resident(&mut member.client()));

    let started = Instant::now();
    let port = member.client;
    std::thread::scope(|scope| {
        for loader in 0..LOADERS {
            scope.spawn(move || load(port, loader));
        }
    });
    println!(
        "loaded in {:.1} s by transactions of {PUTS_IN_A_TXN} over JSON",
        started.elapsed().as_secs_f64()
    );
    println!("loaded: {} MB resident", resident(&mut member.client()));

    member.kill();
    let started = Instant::now();
    member.start();
    let restarted = loop {
        let mut client = Client::at(port, Duration::from_secs(5));
        if client.put("after", "restart").is_ok() {
            break started.elapsed();
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    println!("kill -9, restart to first write: {:.2} s", restarted.as_secs_f64());
    let mut client = member.client();
    let counted = client.call(
        "/v3/kv/range",
        &json!({"key": base64("key/"), "range_end": base64("key0"), "count_only": true}),
    );
    assert_eq!(number(&counted.expect("counted")["count"]), KEYS as i64, "every key is there");
    let before = resident(&mut client);
    println!("restarted: {before} MB resident");

    for _ in 0..3 {
        let started = Instant::now();
        let bytes = range_over_grpc(port);
        let took = started.elapsed();
        println!("range of {RANGE} keys, {:.1} MB: {:.0} ms", bytes as f64 / 1e6, took.as_secs_f64() * 1e3);
        assert!(bytes > RANGE * (16 + 256), "all of them came");
    }
    println!("after three such ranges: {} MB resident", resident(&mut client));
}

/// Puts every `LOADERS`th key, in an order of its own.
fn load(port: u16, loader: usize) {
    let mut client = Client::at(port, Duration::from_secs(30));
    let value = base64("v".repeat(256));
    let numbers: Vec<usize> = (loader..KEYS).step_by(LOADERS).collect();
    // A step that shares no factor with the number of keys visits each of them once.
    let step = 7_919;
    for first in (0..numbers.len()).step_by(PUTS_IN_A_TXN) {
        let puts: Vec<_> = (first..(first + PUTS_IN_A_TXN).min(numbers.len()))
            .map(|nth| json!({"request_put": {"key": base64(key(numbers[nth * step % numbers.len()])), "value": value}}))
            .collect();
        client.call("/v3/kv/txn", &json!({"success": puts})).expect("the transaction succeeds");
    }
}

/// What the process says of itself, in MB.
fn resident(client: &mut Client) -> u64 {
    let page = client.get("/metrics").expect("the metrics page");
    let line = page.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    line.and_then(|value| value.parse::<f64>().ok()).expect("resident memory") as u64 / 1_000_000
}

/// Reads `RANGE` keys with one serializable call, without decoding them: how many bytes came.
fn range_over_grpc(port: u16) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let socket = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.expect("connected");
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(1 << 24).initial_connection_window_size(1 << 24);
        let (mut sender, connection) = builder.handshake::<_, Bytes>(socket).await.expect("HTTP/2");
        tokio::spawn(connection);
        let request = http::Request::post(format!("http://127.0.0.1:{port}/etcdserverpb.KV/Range"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .expect("a request");
        let (response, mut body) = sender.send_request(request, false).expect("sent");
        // RangeRequest: 1 key, 2 range_end, 3 limit, 7 serializable.
        let mut message = vec![0x0a, 4];
        message.extend_from_slice(b"key/");
        message.extend_from_slice(&[0x12, 4]);
        message.extend_from_slice(b"key0");
        message.extend_from_slice(&[0x18, 0xa0, 0x8d, 0x06, 0x38, 1]);
        let mut frame = vec![0, 0, 0, 0, message.len() as u8];
        frame.extend_from_slice(&message);
        body.send_data(Bytes::from(frame), true).expect("sent");
        let mut stream = response.await.expect("a response").into_body();
        let mut bytes = 0;
        while let Some(data) = stream.data().await {
            let data = data.expect("data");
            bytes += data.len();
            stream.flow_control().release_capacity(data.len()).expect("capacity");
        }
        let trailers = stream.trailers().await.expect("trailers").expect("trailers");
        assert_eq!(trailers["grpc-status"], "0");
        bytes
    })
}
