//! Primary-backup as real processes: what synchronous replication keeps when members are killed, and what asynchronous
//! replication says and does when it has lost something.

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::{CallError, Client, Cluster, base64, until};
use serde_json::{Value, json};

const FLAGS: [&str; 6] = [
    "--protocol=primary-backup",
    "--heartbeat-interval=50",
    "--election-timeout=500",
    "--snapshot-count=100",
    "--snapshot-bytes=4096",
    "--log-level=warn",
];

fn flags(more: &'static str) -> Vec<&'static str> {
    FLAGS.iter().copied().chain([more]).collect()
}

/// Keys whose writes were acknowledged, by name.
type Acknowledged = Arc<Mutex<BTreeMap<String, String>>>;

/// Writers that ask one member after the other, until they are dropped.
struct Load {
    acknowledged: Acknowledged,
    stop: Arc<AtomicBool>,
    writers: Vec<thread::JoinHandle<()>>,
}

impl Load {
    fn start(ports: &[u16]) -> Load {
        let (acknowledged, stop) = (Acknowledged::default(), Arc::new(AtomicBool::new(false)));
        let writers = (0..4).map(|number| {
            let (ports, acknowledged, stop) = (ports.to_vec(), acknowledged.clone(), stop.clone());
            thread::spawn(move || write(number, &ports, &acknowledged, &stop))
        });
        let writers = writers.collect();
        Load { acknowledged, stop, writers }
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().expect("sound").len()
    }

    fn goes_on(&self) {
        let before = self.count();
        until("writes are acknowledged", || self.count() > before + 50);
    }

    fn end(self) -> BTreeMap<String, String> {
        self.stop.store(true, Ordering::Relaxed);
        self.writers.into_iter().for_each(|writer| writer.join().expect("a writer ends"));
        self.acknowledged.lock().expect("sound").clone()
    }
}

fn write(number: usize, ports: &[u16], acknowledged: &Acknowledged, stop: &AtomicBool) {
    let mut place = number;
    let mut client = Client::at(ports[place % ports.len()], Duration::from_secs(2));
    for turn in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let (key, value) = (format!("w{number}-{turn:08}"), format!("value {turn}"));
        match client.put(&key, &value) {
            Ok(_) => {
                acknowledged.lock().expect("sound").insert(key, value);
            }
            // Unknown, or refused: in both cases nothing was promised, and the key is not used again.
            Err(CallError::Lost(_) | CallError::Refused(_)) => {
                thread::sleep(Duration::from_millis(5));
                place += 1;
                client = Client::at(ports[place % ports.len()], Duration::from_secs(2));
            }
        }
    }
}

fn primary(cluster: &Cluster) -> usize {
    let mut primary = None;
    until("a primary shows", || {
        primary = cluster.leader();
        primary.is_some()
    });
    primary.expect("it showed")
}

/// Everything that a member holds, without a fence.
fn contents(client: &mut Client) -> BTreeMap<String, String> {
    let all = json!({ "key": "AA==", "range_end": "AA==", "serializable": true });
    let reply = client.call("/v3/kv/range", &all).expect("a range of everything");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pairs = reply["kvs"].as_array().into_iter().flatten();
    pairs.map(|kv| (text(&kv["key"]), text(&kv["value"]))).collect()
}

fn lost(acknowledged: &BTreeMap<String, String>, held: &BTreeMap<String, String>) -> usize {
    acknowledged.iter().filter(|(key, value)| held.get(&base64(key)) != Some(&base64(value))).count()
}

/// Synchronous: a backup, the primary, and all three are killed under load, and every acknowledged write is at every member.
#[test]
fn sync_loses_nothing() {
    let mut cluster = Cluster::start(3, &flags("--replication=sync"));
    let ports: Vec<u16> = cluster.members.iter().map(|member| member.client).collect();
    let load = Load::start(&ports);
    load.goes_on();
    for round in 0..3 {
        let primary = primary(&cluster);
        let victims = [vec![(primary + 1) % 3], vec![primary], vec![0, 1, 2]][round].clone();
        victims.iter().for_each(|victim| cluster.members[*victim].kill());
        if victims.len() < 3 {
            load.goes_on();
        }
        victims.iter().for_each(|victim| cluster.members[*victim].start());
        cluster.await_ready();
        load.goes_on();
    }
    let acknowledged = load.end();
    for member in &cluster.members {
        let mut client = member.client();
        until("the member holds all", || lost(&acknowledged, &contents(&mut client)) == 0);
    }
    println!("{} acknowledged writes, none lost", acknowledged.len());
}

/// Asynchronous: the primary is killed under load, and with its disk unreachable another takes over. Linearizable reads are then
/// refused in words; the old primary comes back, and all hold the same. What was lost is counted.
#[test]
fn async_says_what_it_may_have_lost() {
    let mut cluster = Cluster::start(3, &flags("--replication=async"));
    let ports: Vec<u16> = cluster.members.iter().map(|member| member.client).collect();
    let load = Load::start(&ports);
    load.goes_on();
    let old = primary(&cluster);
    assert!(
        cluster.members[old].client().read("w0-00000000").is_ok(),
        "nothing is lost: reads are linearizable"
    );
    cluster.members[old].kill();
    until("another takes over", || cluster.leader().is_some_and(|leader| leader != old));
    load.goes_on();
    let acknowledged = load.end();
    let survivor = (old + 1) % 3;
    match cluster.members[survivor].client().read("w0-00000000") {
        Err(CallError::Refused(said)) => assert!(format!("{said:?}").contains("after-loss"), "{said:?}"),
        other => panic!("a linearizable read after a loss was answered: {other:?}"),
    }
    cluster.members[old].start();
    cluster.await_ready();
    let held: Vec<_> = {
        let mut held = Vec::new();
        until("all hold the same", || {
            held = cluster.members.iter().map(|member| contents(&mut member.client())).collect();
            held.iter().all(|other| *other == held[0])
        });
        held
    };
    println!("{} acknowledged writes, {} of them lost", acknowledged.len(), lost(&acknowledged, &held[0]));
}
