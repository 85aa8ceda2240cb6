//! `synod proxy` on real processes: four members of a PBFT cluster, the proxy in front, and members that die, are mute, or lie with their own key.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use common::{CallError, Client, Cluster, PATIENCE, base64, ended, free_ports, number, quiet, until};
use prost::Message as _;
use serde_json::json;
use synod_api::synod::Words;
use synod_core::{NodeId, Wire as _};
use synod_protocols::pbft::{Digest, Keys, Subject};
use synod_server::witness::words::{Ask, Item, Testimony, encode_items, statement};

const QUICK: [&str; 4] =
    ["--protocol=pbft", "--log-level=warn", "--heartbeat-interval=20", "--election-timeout=200"];

/// A cluster with its keys.
struct Four {
    cluster: Cluster,
    keys: PathBuf,
}

impl Four {
    fn start() -> Four {
        let mut cluster = Cluster::prepare(4, &QUICK);
        let keys = cluster.folder.path().join("keys");
        let names = cluster.members.iter().map(|member| member.name.as_str());
        let made = Command::new(common::SYNOD).arg("keygen").args(names).arg("--into").arg(&keys).output();
        assert!(made.expect("keygen runs").status.success());
        for member in &mut cluster.members {
            let key = keys.join(format!("{}.key", member.name));
            member.add_flags(&[
                format!("--pbft-key={}", key.display()),
                format!("--pbft-peers-keys={}", keys.join("pbft.keys").display()),
            ]);
            member.start();
        }
        cluster.await_ready();
        Four { cluster, keys }
    }

    fn endpoints(&self) -> Vec<String> {
        self.cluster.members.iter().map(|member| format!("127.0.0.1:{}", member.client)).collect()
    }

    fn proxy(&self, endpoints: &[String], extra: &[&str]) -> Proxy {
        let proxy = Proxy::start(&self.keys.join("pbft.keys"), endpoints, self.cluster.folder.path(), extra);
        until("the proxy serves", || {
            proxy.client().get("/health").is_ok_and(|page| page.contains("\"true\""))
        });
        proxy
    }
}

/// A proxy; it ends with this.
struct Proxy {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Proxy {
    fn start(keys: &Path, endpoints: &[String], folder: &Path, extra: &[&str]) -> Proxy {
        let port = free_ports(1)[0];
        let log = folder.join(format!("proxy-{port}.log"));
        let mut command = Command::new(common::SYNOD);
        command
            .arg("proxy")
            .arg(format!("--endpoints={}", endpoints.join(",")))
            .arg(format!("--pbft-peers-keys={}", keys.display()))
            .arg(format!("--listen-client-urls=http://127.0.0.1:{port}"))
            .args(extra)
            .stdin(Stdio::null())
            .stderr(File::create(&log).expect("a log"));
        Proxy { child: quiet(&mut command).spawn().expect("it starts"), port, log }
    }

    fn client(&self) -> Client {
        Client::at(self.port, Duration::from_secs(30))
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A watch over the JSON gateway.
struct Watching(BufReader<TcpStream>);

impl Watching {
    fn start(port: u16, create: &serde_json::Value) -> Watching {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut reader = BufReader::new(stream);
        let body = json!({ "create_request": create }).to_string();
        let request = format!(
            "POST /v3/watch HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        reader.get_mut().write_all(request.as_bytes()).expect("asked");
        Watching(reader)
    }

    /// The next line that holds this.
    fn wait_for(&mut self, what: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(
                self.0.read_line(&mut line).expect("a line in time") > 0,
                "the watch ended before {what}"
            );
            if line.contains(what) {
                return line;
            }
        }
    }
}

fn refusal(outcome: Result<serde_json::Value, CallError>) -> String {
    match outcome {
        Err(CallError::Refused(why)) => why["message"].as_str().unwrap_or_default().to_owned(),
        other => panic!("it should be refused: {other:?}"),
    }
}

/// Everything that the proxy gives works; and goes on, watches included, when a member is killed.
#[test]
fn a_client_is_served_and_goes_on() {
    let mut four = Four::start();
    let proxy = four.proxy(&four.endpoints(), &[]);
    let mut client = proxy.client();
    let first = client.put("a", "1").expect("put");
    assert_eq!(client.read("a").expect("read"), Some(base64("1")));
    let compare = json!({ "key": base64("a"), "target": "MOD", "mod_revision": first.to_string() });
    let put = json!({ "request_put": { "key": base64("a"), "value": base64("2"), "prev_kv": true } });
    let get = json!({ "request_range": { "key": base64("a") } });
    let txn = json!({ "compare": [compare], "success": [put, get], "failure": [] });
    let reply = client.call("/v3/kv/txn", &txn).expect("txn");
    assert_eq!(reply["succeeded"], true);
    assert_eq!(reply["responses"][1]["response_range"]["kvs"][0]["value"], base64("2"), "{reply}");
    let again = client.call("/v3/kv/txn", &txn).expect("txn");
    assert!(!again["succeeded"].as_bool().unwrap_or_default(), "{again}");
    let old = json!({ "key": base64("a"), "revision": first.to_string(), "serializable": true });
    let read = client.call("/v3/kv/range", &old).expect("an old revision");
    assert_eq!(read["kvs"][0]["value"], base64("1"));

    let mut watching = Watching::start(proxy.port, &json!({ "key": base64("w"), "prev_kv": true }));
    watching.wait_for("\"created\":true");
    let mut earlier =
        Watching::start(proxy.port, &json!({ "key": base64("a"), "start_revision": first.to_string() }));
    earlier.wait_for(&base64("2"));
    client.put("w", "one").expect("put");
    watching.wait_for(&base64("one"));

    let lease = client.call("/v3/lease/grant", &json!({ "TTL": "3600" })).expect("grant")["ID"].clone();
    let put = json!({ "key": base64("leased"), "value": base64("x"), "lease": lease });
    client.call("/v3/kv/put", &put).expect("put");
    let alive = client.call("/v3/lease/keepalive", &json!({ "ID": lease })).expect("renewed");
    assert_eq!(alive["result"]["TTL"], "3600", "{alive}");
    let time = client.call("/v3/lease/timetolive", &json!({ "ID": lease, "keys": true })).expect("time");
    assert_eq!((&time["grantedTTL"], &time["keys"][0]), (&json!("3600"), &json!(base64("leased"))), "{time}");
    assert_eq!(client.call("/v3/lease/leases", &json!({})).expect("leases")["leases"][0]["ID"], lease);

    four.cluster.members[1].kill();
    client.call("/v3/lease/revoke", &json!({ "ID": lease })).expect("revoked, without one member");
    assert_eq!(client.read("leased").expect("read"), None);
    for round in 0..8 {
        client.put("w", &format!("more {round}")).expect("put");
        watching.wait_for(&base64(format!("more {round}")));
    }
    four.cluster.members[1].start();
    four.cluster.await_ready();
    four.cluster.members[2].kill();
    let last = client.put("w", "last").expect("put, with the one that came back");
    watching.wait_for(&base64("last"));
    let gone =
        client.call("/v3/kv/deleterange", &json!({ "key": base64("w"), "prev_kv": true })).expect("gone");
    assert_eq!((&gone["deleted"], &gone["prev_kvs"][0]["value"]), (&json!("1"), &json!(base64("last"))));
    assert!(watching.wait_for("DELETE").contains(&base64("last")));

    client.call("/v3/kv/compaction", &json!({ "revision": last.to_string() })).expect("compacted");
    let why = refusal(client.call("/v3/kv/range", &json!({ "key": base64("a"), "revision": "2" })));
    assert_eq!(why, "etcdserver: mvcc: required revision has been compacted");
    let mut late = Watching::start(proxy.port, &json!({ "key": base64("a"), "start_revision": "2" }));
    assert!(late.wait_for("compact_revision").contains(&last.to_string()));
    let why = refusal(client.call("/v3/cluster/member/list", &json!({})));
    assert!(why.contains("the proxy does not give etcdserverpb.Cluster/MemberList"), "{why}");
    assert!(!proxy.log().contains("signed something else"), "nobody lied: {}", proxy.log());
}

/// A member with its own key that answers every question, asked or not, and falsely; or says who it is and then nothing.
struct Fake {
    address: SocketAddr,
    /// It ends with this.
    _ends: tokio::sync::oneshot::Sender<()>,
}

impl Fake {
    fn start(four: &Four, name: &str, lies: bool) -> Fake {
        let mut client = four.cluster.members[0].client();
        let status = client.call("/v3/maintenance/status", &json!({})).expect("status");
        let cluster: u64 = status["header"]["cluster_id"].as_str().expect("an id").parse().expect("a number");
        let text = fs::read_to_string(four.keys.join(format!("{name}.key"))).expect("the key");
        let mut secret = [0; 32];
        for (place, byte) in secret.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).expect("hex");
        }
        let public = BTreeMap::from([(NodeId(0), Keys::public_of(secret))]);
        let keys = Keys::new(cluster, NodeId(0), secret, &public).expect("keys");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("it can be");
        let address = listener.local_addr().expect("bound");
        let (ends, mut ended) = tokio::sync::oneshot::channel::<()>();
        let name = name.to_owned();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
                loop {
                    tokio::select! {
                        _ = &mut ended => return,
                        accepted = listener.accept() => {
                            let Ok((socket, _)) = accepted else { return };
                            tokio::spawn(fake(socket, name.clone(), cluster, keys.clone(), lies));
                        }
                    }
                }
            });
        });
        Fake { address, _ends: ends }
    }
}

async fn fake(
    socket: tokio::net::TcpStream,
    name: String,
    cluster: u64,
    keys: Keys,
    lies: bool,
) -> Option<()> {
    let mut connection = h2::server::handshake(socket).await.ok()?;
    let (request, mut respond) = connection.accept().await?.ok()?;
    tokio::spawn(async move { while connection.accept().await.is_some() {} });
    let mut body = request.into_body();
    let said = body.data().await?.ok()?;
    let words = Words::decode(said.slice(5..)).ok()?;
    let Ok(Ask::Hello { client, nonce }) = Ask::decode_all(words.words) else { return None };
    let head = http::Response::builder().header("content-type", "application/grpc").body(()).ok()?;
    let mut out = respond.send_response(head, false).ok()?;
    // A put's answer, and nothing like what anybody asked for: revision 999.
    let lie = Bytes::from_static(&[0xe7, 0x07, 1, 0xe7, 0x07, 0]);
    let mut place = 0;
    let mut say = |items: &[Item]| {
        let items = encode_items(items);
        let what = Digest(statement(client, nonce, place, &items));
        let signature = keys.sign(Subject::Reply, what).0;
        let said = Testimony { name: name.clone(), cluster, place, items, signature };
        place += 1;
        let message = Words { words: said.to_bytes() }.encode_to_vec();
        let mut framed = vec![0];
        framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
        framed.extend_from_slice(&message);
        out.send_data(framed.into(), false)
    };
    say(&[]).ok()?;
    let mut arrived = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    let mut newest = 1;
    loop {
        let data = tokio::select! {
            data = body.data() => data?.ok()?,
            _ = ticks.tick() => {
                if lies {
                    let numbers = newest..newest + 20;
                    let items = numbers.map(|number| Item::Answer { number, bytes: lie.clone() });
                    say(&items.collect::<Vec<_>>()).ok()?;
                }
                continue;
            }
        };
        let _ = body.flow_control().release_capacity(data.len());
        arrived.extend_from_slice(&data);
        while let Some(prefix) = arrived.first_chunk::<5>() {
            let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
            if arrived.len() < 5 + length {
                break;
            }
            let message: Vec<u8> = arrived.drain(..5 + length).skip(5).collect();
            let asked = Words::decode(&message[..]).ok().and_then(|words| Ask::decode_all(words.words).ok());
            if let Some(Ask::Wish { number, .. }) = &asked {
                newest = *number;
            }
            if let (true, Some(Ask::Watch(request))) = (lies, asked) {
                let watch = request.watch_id;
                let event =
                    |revision| Item::Event { watch, revision, bytes: Bytes::from_static(b"Z\x02\x12\0") };
                say(&[
                    Item::Watching(watch),
                    event(request.start_revision),
                    event(1_000_000),
                    Item::Progress(i64::MAX),
                ])
                .ok()?;
            }
        }
    }
}

/// One member of four lies with its own key: answers and events are right all the same, and the log names it. Two mute members beside it
/// leave fewer than f + 1 who say the same: the proxy refuses, and says who did what.
#[test]
fn liars_are_outvoted_and_named() {
    let four = Four::start();
    let liar = Fake::start(&four, "m3", true);
    let mut endpoints = four.endpoints();
    endpoints[3] = liar.address.to_string();
    let proxy = four.proxy(&endpoints, &["--retry-after=0.1"]);
    let mut client = proxy.client();
    let mut watching = Watching::start(proxy.port, &json!({ "key": base64("k") }));
    watching.wait_for("\"created\":true");
    for round in 0..40 {
        let revision = client.put("k", &round.to_string()).expect("put");
        assert!(revision < 999, "the liar's answer");
        assert_eq!(client.read("k").expect("read"), Some(base64(round.to_string())));
        let line = watching.wait_for("kv");
        assert!(line.contains(&base64(round.to_string())), "round {round}: {line}");
    }
    // The cluster executed each once: versions count it.
    let read = client.call("/v3/kv/range", &json!({ "key": base64("k") })).expect("read");
    assert_eq!(number(&read["kvs"][0]["version"]), 40, "{read}");
    until("it is named", || proxy.log().contains("signed something else") && proxy.log().contains("m3"));
    drop(proxy);

    let (one, two) = (Fake::start(&four, "m1", false), Fake::start(&four, "m2", false));
    (endpoints[1], endpoints[2]) = (one.address.to_string(), two.address.to_string());
    let keys = four.keys.join("pbft.keys");
    let extra = ["--retry-after=0.05", "--command-timeout=2"];
    let proxy = Proxy::start(&keys, &endpoints, four.cluster.folder.path(), &extra);
    until("it listens", || TcpStream::connect(("127.0.0.1", proxy.port)).is_ok());
    let put = json!({ "key": base64("k"), "value": base64("no") });
    let why = refusal(proxy.client().call("/v3/kv/put", &put));
    assert!(why.contains("1 of 4 members agree on an answer, and 2 are needed"), "{why}");
    assert!(why.contains("m1 is silent, m2 is silent, m0, m3 do not say the same"), "{why}");
}

/// Copies both ways, and changes a byte of what the member says now and then.
fn garble(to: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(member) = TcpStream::connect(("127.0.0.1", to)) else { return };
            let (mut from, mut into) =
                (client.try_clone().expect("a copy"), member.try_clone().expect("a copy"));
            std::thread::spawn(move || std::io::copy(&mut from, &mut into));
            std::thread::spawn(move || {
                let (mut member, mut client, mut buffer) = (member, client, [0; 1024]);
                while let Ok(count @ 1..) = member.read(&mut buffer) {
                    // Longer than what HTTP/2 says of itself: a testimony, which ends with its signature.
                    if count > 60 {
                        buffer[count - 1] ^= 1;
                    }
                    if client.write_all(&buffer[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

/// What was changed on its way is not believed: with one such line the proxy serves, with three it does not even start to.
#[test]
fn what_was_garbled_is_not_believed() {
    let four = Four::start();
    let mut endpoints = four.endpoints();
    endpoints[0] = format!("127.0.0.1:{}", garble(four.cluster.members[0].client));
    let proxy = four.proxy(&endpoints, &["--retry-after=0.1"]);
    let mut client = proxy.client();
    for round in 0..10 {
        client.put("g", &round.to_string()).expect("put");
        assert_eq!(client.read("g").expect("read"), Some(base64(round.to_string())));
    }
    until("it is told", || proxy.log().contains("no word from this member"));
    for place in [1, 2] {
        endpoints[place] = format!("127.0.0.1:{}", garble(four.cluster.members[place].client));
    }
    let said = fails(&four.keys.join("pbft.keys"), &endpoints, &["--command-timeout=1"]);
    assert!(said.contains("fewer than 2 of 4 members show by their signature"), "{said}");
}

fn fails(keys: &Path, endpoints: &[String], extra: &[&str]) -> String {
    let mut command = Command::new(common::SYNOD);
    let port = free_ports(1)[0];
    command
        .arg("proxy")
        .arg(format!("--endpoints={}", endpoints.join(",")))
        .arg(format!("--pbft-peers-keys={}", keys.display()))
        .arg(format!("--listen-client-urls=http://127.0.0.1:{port}"))
        .args(extra);
    let (status, said) = ended(&mut command);
    assert!(!status.success());
    said
}

/// Whatever is wrong at the start is told in one sentence, with what is allowed.
#[test]
fn wrong_starts_are_refused() {
    let raft = Cluster::start(1, &["--log-level=warn"]);
    let folder = raft.folder.path();
    let made =
        Command::new(common::SYNOD).args(["keygen", "a", "b", "c", "d", "--into"]).arg(folder).output();
    assert!(made.expect("keygen runs").status.success());
    let keys = folder.join("pbft.keys");
    let nobody: Vec<String> = free_ports(4).iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let said = fails(&folder.join("none"), &nobody, &[]);
    assert!(said.contains("`synod keygen` makes both files"), "{said}");
    let said = fails(&keys, &nobody[..3], &[]);
    assert!(said.contains("--endpoints names 3 member(s)") && said.contains("the keys of 4"), "{said}");
    let twice: Vec<String> = vec![nobody[0].clone(); 4];
    assert!(fails(&keys, &twice, &[]).contains("stands there twice"));
    assert!(
        fails(&keys, &nobody, &["--retry-after=0"])
            .contains("--retry-after=0: allowed is 0.001 to 3600 seconds")
    );
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("--listen-client-urls=http://{}", taken.local_addr().expect("bound"));
    let mut command = Command::new(common::SYNOD);
    command.arg("proxy").arg(format!("--endpoints={}", nobody.join(",")));
    command.arg(format!("--pbft-peers-keys={}", keys.display())).arg(url);
    let said = ended(&mut command).1;
    assert!(said.contains("cannot listen at") && said.contains("--listen-client-urls"), "{said}");
    let mut endpoints = nobody.clone();
    endpoints[0] = format!("127.0.0.1:{}", raft.members[0].client);
    let said = fails(&keys, &endpoints, &["--command-timeout=1"]);
    assert!(said.contains("protocol raft does not give signed answers"), "{said}");
    assert!(said.contains("it cannot be reached"), "{said}");
}
