//! Two and three transports on loopback.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::*;

#[derive(Default)]
struct Ear {
    heard: Mutex<Vec<(NodeId, Bytes)>>,
    removed_by: Mutex<Vec<NodeId>>,
    news: Notify,
}

impl Inbound for Ear {
    fn deliver(&self, from: NodeId, messages: &mut Vec<Bytes>) {
        self.heard.lock().extend(messages.drain(..).map(|message| (from, message)));
        self.news.notify_one();
    }
    fn version_json(&self) -> String {
        r#"{"etcdserver":"3.5.99"}"#.to_owned()
    }
    fn members_json(&self) -> String {
        "[]".to_owned()
    }
    fn cluster_json(&self) -> String {
        "{}".to_owned()
    }
    fn told_removed(&self, by: NodeId) {
        self.removed_by.lock().push(by);
        self.news.notify_one();
    }
}

async fn listener() -> (TcpListener, Address) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    (listener, Address { host: "127.0.0.1".to_owned(), port })
}

fn start(me: u64, cluster: u64, listener: TcpListener, address: &Address) -> (Transport, Arc<Ear>) {
    let ear = Arc::new(Ear::default());
    let identity = Identity { me: NodeId(me), cluster, protocol: "raft", addresses: vec![address.clone()] };
    (Transport::start(identity, vec![listener], ear.clone()), ear)
}

fn test(story: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { timeout_of_the_test(story).await });
}

async fn timeout_of_the_test(story: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(30), story).await.expect("the story ends");
}

async fn until(mut happened: impl FnMut() -> bool) {
    while !happened() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Members 1 and 2 of a cluster, connected to one another.
struct Two {
    one: (Transport, Arc<Ear>),
    other: (Transport, Arc<Ear>),
    peers: BTreeMap<NodeId, Vec<Address>>,
}

async fn two() -> Two {
    let ((la, a), (lb, b)) = (listener().await, listener().await);
    let (one, other) = (start(1, 7, la, &a), start(2, 7, lb, &b));
    let peers = BTreeMap::from([(NodeId(1), vec![a]), (NodeId(2), vec![b])]);
    one.0.set_peers(&peers);
    other.0.set_peers(&peers);
    until(|| one.0.connected() == 1 && other.0.connected() == 1).await;
    Two { one, other, peers }
}

/// Messages arrive once, whole and in order, on both lanes and in both directions; a restarted peer is
/// found again.
#[test]
fn members_talk() {
    test(async {
        let Two { one: (ta, ear_a), other: (tb, ear_b), peers } = two().await;
        let b = peers[&NodeId(2)][0].clone();
        for i in 0u32..1000 {
            ta.send(NodeId(2), Lane::Talk, |out| out.extend_from_slice(&i.to_le_bytes()));
        }
        tb.send(NodeId(1), Lane::Bulk, |out| out.extend_from_slice(&[7; 300_000]));
        until(|| ear_b.heard.lock().len() == 1000 && ear_a.heard.lock().len() == 1).await;
        for (i, (from, message)) in ear_b.heard.lock().iter().enumerate() {
            assert_eq!((*from, &message[..]), (NodeId(1), &(i as u32).to_le_bytes()[..]));
        }
        assert_eq!(ear_a.heard.lock()[0].1.len(), 300_000);

        drop(tb);
        until(|| ta.connected() == 0).await;
        ta.send(NodeId(2), Lane::Talk, |out| out.extend_from_slice(b"lost"));
        let again = loop {
            match TcpListener::bind(b.authority()).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        let (tb, ear_b) = start(2, 7, again, &b);
        tb.set_peers(&peers);
        until(|| ta.connected() == 1).await;
        ta.send(NodeId(2), Lane::Talk, |out| out.extend_from_slice(b"back"));
        until(|| !ear_b.heard.lock().is_empty()).await;
        assert_eq!(ear_b.heard.lock()[0].1, Bytes::from_static(b"back"));
        let failures = ta.numbers()[0].1.send_failures.load(Ordering::Relaxed);
        assert_eq!(failures, 1, "what was said while the link was down is counted");
    });
}

/// What is at leisure goes with the next message, before it, or when it is hurried.
#[test]
fn what_is_at_leisure_goes_with_the_next() {
    test(async {
        let Two { one: (ta, _), other: (_tb, ear), .. } = two().await;
        let heard = || ear.heard.lock().iter().map(|(_, message)| message.clone()).collect::<Vec<_>>();

        ta.send_at_leisure(NodeId(2), |out| out.extend_from_slice(b"notice"));
        assert!(ta.dispatch(), "it stays");
        ta.send_with_the_turn(NodeId(2), |out| out.extend_from_slice(b"append"));
        assert!(!ta.dispatch(), "both have left");
        until(|| heard().len() == 2).await;
        assert_eq!(heard(), [&b"notice"[..], b"append"]);

        ta.send_at_leisure(NodeId(2), |out| out.extend_from_slice(b"late"));
        ta.hurry();
        until(|| heard().len() == 3).await;
        assert_eq!(heard()[2], &b"late"[..]);
    });
}

/// Two threads write to one connection, and more than it takes at once: every message arrives whole, and each thread's in order.
#[test]
fn frames_of_several_threads_do_not_mix() {
    const EACH: u32 = 300;
    test(async {
        let Two { one: (ta, _), other: (_tb, ear), .. } = two().await;
        let write = |who: u8, number: u32, out: &mut BytesMut| {
            out.extend_from_slice(&[who]);
            out.extend_from_slice(&number.to_le_bytes());
            out.resize(out.len() + 50_000 * (number % 5) as usize, who);
        };
        let prepared: Vec<_> = (0..EACH)
            .map(|number| ta.prepare(NodeId(2), |out| write(b'd', number, out)).expect("a peer"))
            .collect();
        let disk = std::thread::spawn(move || prepared.into_iter().for_each(Prepared::send));
        for number in 0..EACH {
            ta.send_with_the_turn(NodeId(2), |out| write(b'm', number, out));
            ta.dispatch();
            tokio::task::yield_now().await;
        }
        until(|| ear.heard.lock().len() == 2 * EACH as usize).await;
        disk.join().expect("no panic");
        let heard = ear.heard.lock();
        for who in [b'd', b'm'] {
            let of_one = heard.iter().filter(|(_, message)| message[0] == who);
            for (number, (_, message)) in of_one.enumerate() {
                assert_eq!(message[1..5], (number as u32).to_le_bytes());
                assert_eq!(message.len(), 5 + 50_000 * (number % 5));
                assert!(message[5..].iter().all(|byte| *byte == who), "nothing of another message is in it");
            }
        }
    });
}

/// A member of another cluster is refused and never heard.
#[test]
fn another_cluster_is_refused() {
    test(async {
        let ((la, a), (lb, b)) = (listener().await, listener().await);
        let (ta, ear_a) = start(1, 7, la, &a);
        let (tb, _ear) = start(2, 8, lb, &b);
        let peers = BTreeMap::from([(NodeId(1), vec![a.clone()]), (NodeId(2), vec![b])]);
        ta.set_peers(&peers);
        tb.set_peers(&peers);
        let mut stream = TcpStream::connect(a.authority()).await.expect("listening");
        let hello = hello::Hello {
            version: 1,
            protocol: Bytes::from_static(b"raft"),
            cluster: 8,
            from: NodeId(2),
            to: NodeId(1),
            lane: Lane::Talk,
            addresses: Vec::new(),
        };
        let mut out = BytesMut::from(&hello::PREAMBLE[..]);
        frame::encode(&mut out, frame::Kind::Hello, |out| synod_core::Wire::encode(&hello, out));
        stream.write_all(&out).await.expect("written");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("answered");
        assert!(String::from_utf8_lossy(&answer).contains("cluster ID mismatch: 8 met 7"));
        assert_eq!((ta.connected(), tb.connected(), ear_a.heard.lock().len()), (0, 0, 0));
    });
}

/// A former member that dials is told that it was removed, and by whom; a stranger is only refused. Peers come and go at runtime.
#[test]
fn a_former_member_is_told() {
    test(async {
        let ((la, a), (lb, b)) = (listener().await, listener().await);
        let (ta, _ear_a) = start(1, 7, la, &a);
        let (tb, ear_b) = start(2, 7, lb, &b);
        let both = BTreeMap::from([(NodeId(1), vec![a.clone()]), (NodeId(2), vec![b.clone()])]);
        tb.set_peers(&both);
        ta.set_peers(&BTreeMap::from([(NodeId(1), vec![a])]));
        assert!(ear_b.removed_by.lock().is_empty());
        ta.set_peers(&both);
        until(|| ta.connected() == 1 && tb.connected() == 1).await;
        ta.set_peers(&BTreeMap::new());
        ta.set_left(&BTreeSet::from([NodeId(2)]));
        // The old connection is not listened to any more; a word on it ends it, and the next one is refused.
        until(|| {
            tb.send(NodeId(1), Lane::Talk, |out| out.extend_from_slice(b"hello?"));
            ear_b.removed_by.lock().first() == Some(&NodeId(1))
        })
        .await;
    });
}

/// The peer port answers tools that speak HTTP, and closes on noise.
#[test]
fn http_on_the_peer_port() {
    test(async {
        let (la, a) = listener().await;
        let (_transport, _ear) = start(1, 7, la, &a);
        let cases: [(&[u8], &str); 5] = [
            (b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n", "3.5.99"),
            (b"GET /members HTTP/1.1\r\n\r\n", "[]"),
            (b"GET /nowhere HTTP/1.1\r\n\r\n", "404"),
            (b"POST /raft HTTP/1.1\r\n\r\n", "405"),
            (b"\x93nonsense that is no preamble", ""),
        ];
        for (request, expected) in cases {
            let mut stream = TcpStream::connect(a.authority()).await.expect("listening");
            stream.write_all(request).await.expect("written");
            let mut answer = Vec::new();
            // Closing with unread bytes may show as a reset: that is an answer, too.
            let _ = stream.read_to_end(&mut answer).await;
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(answer.contains(expected) && (answer.is_empty() == expected.is_empty()), "{answer}");
        }
    });
}
