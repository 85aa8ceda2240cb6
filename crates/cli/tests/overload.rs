//! Twice as much as three members can carry out: how much they carry out then, and how long it takes, as `docs/figures.md` quotes it.
//!
//! `just overload`; not part of the ordinary run, because it measures for two minutes and wants the machine for itself. What belongs to
//! the ordinary run (that what is too much is refused, and changes nothing) is in `abuse/crowds.rs`.
//!
//! The members share one core and the load generator has another: a generator that takes the more of the members' time the more it
//! sends would measure itself. Reads are ranges of a hundred keys, and the members share their core with three threads that do nothing
//! but run: otherwise one core answers more than another can ask for twice, and take.

mod common;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};

use common::{Cluster, SYNOD};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::Value;

/// What this thread starts from now on runs on this core alone.
fn start_on(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).expect("two cores");
}

/// One run of the load generator against the leader.
fn load(port: u16, words: &[&str]) -> Value {
    let mut command = Command::new(SYNOD);
    command.args(["bench", "load"]).args(words).args([
        "--json",
        "--seconds=10",
        "--warmup=2",
        "--connections=20",
    ]);
    command.arg(format!("--endpoints=127.0.0.1:{port}")).stdin(Stdio::null());
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("a report")
}

struct Row {
    what: String,
    good: f64,
    refused: f64,
    median: f64,
    p99: f64,
}

impl Row {
    fn of(what: String, report: &Value) -> Row {
        let seconds = report["seconds"].as_f64().expect("seconds");
        let number = |name: &str| report[name].as_f64().expect(name);
        let millis = |name: &str| report["latency_us"][name].as_f64().expect(name) / 1e3;
        let (good, refused) = (number("succeeded") / seconds, number("failed") / seconds);
        Row { what, good, refused, median: millis("p50"), p99: millis("p99") }
    }
}

/// Takes a part of a core until it is dropped: with three of these beside it a member has a quarter.
struct Company {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Company {
    fn of(threads: usize, core: usize) -> Company {
        let stop = Arc::new(AtomicBool::new(false));
        let spin = |stop: Arc<AtomicBool>| {
            move || {
                start_on(core);
                while !stop.load(Relaxed) {
                    std::hint::spin_loop();
                }
            }
        };
        let threads = (0..threads).map(|_| thread::spawn(spin(stop.clone()))).collect();
        Company { stop, threads }
    }
}

impl Drop for Company {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().expect("it spins"));
    }
}

/// One run against three new members: what an earlier one left behind is not in its way.
fn load_anew(words: &[&str], company: usize) -> Value {
    start_on(0);
    let cluster = Cluster::start(3, &["--log-level=warn"]);
    let leader = cluster.members[cluster.leader().expect("a leader")].client;
    start_on(1);
    let _company = Company::of(company, 0);
    load(leader, words)
}

/// Half, all and twice of what can be carried out, each against new members. Latencies count from the moment at which a request was due.
fn overload(kind: &str, company: usize) {
    let closed = load_anew(&[kind, "--streams=50", "--fill"], company);
    let saturation = closed["rate"].as_f64().expect("a rate");
    let mut rows = vec![Row::of("closed loop, 1000 under way: saturation".to_owned(), &closed)];
    for factor in [0.5, 1.0, 2.0] {
        let rate = format!("--rate={:.0}", saturation * factor);
        let report = load_anew(&[kind, "--streams=5000", "--fill", &rate], company);
        rows.push(Row::of(format!("open loop at {factor} of that"), &report));
        println!("{factor}: dropped by the generator {}, errors {}", report["dropped"], report["errors"]);
    }
    println!("\n| {kind} | done a second | refused a second | median | p99 |\n|---|---|---|---|---|");
    for Row { what, good, refused, median, p99 } in &rows {
        println!("| {what} | {good:.0} | {refused:.0} | {median:.1} ms | {p99:.1} ms |");
    }
    let (full, twice) = (&rows[2], &rows[3]);
    println!(
        "\ngoodput at twice the saturation: {:.2} of it; p99: {:.2} times that at saturation\n",
        twice.good / saturation,
        twice.p99 / full.p99
    );
    assert!(twice.good > 0.8 * saturation, "goodput falls");
    // What is let in is half a second's work of a whole core; of a share it takes so much longer.
    assert!(twice.p99 < 2000.0 * (1 + company) as f64, "what is let in waits too long");
}

/// See the file's text.
#[test]
#[ignore = "a measurement of two minutes: `just overload`"]
fn twice_the_saturation() {
    overload("put", 0);
    overload("range", 3);
}
