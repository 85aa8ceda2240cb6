//! Flags, variables and folders as nobody should give them (group 13); `tests/serve.rs` has the commoner ones.
//!
//! A wrong flag ends the program with status 2 and one sentence, a wrong folder or port with status 1 and a line of the
//! log; the sentences are compared word by word, for they are what somebody reads at night.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::common::{Client, Cluster, PATIENCE, SYNOD, base64, ended, free_ports, until};
use crate::specimen::{QUICK, Running};

const WHOLE: &str = "allowed is a whole number from";
const URL: &str = "allowed is http://HOST:PORT with a port from 1 to 65535";
const SPAN: &str = "allowed is a span such as 500ms, 10s, 5m or 1h30m";

/// Every sentence, word by word.
#[test]
fn wrong_flags() {
    let table: Vec<(&[&str], String)> = vec![
        // Sizes and numbers.
        (&["--max-request-bytes=-1"], format!("--max-request-bytes=-1: {WHOLE} 1 to 67108864")),
        (&["--max-request-bytes=0"], format!("--max-request-bytes=0: {WHOLE} 1 to 67108864")),
        (&["--max-txn-ops=-1"], format!("--max-txn-ops=-1: {WHOLE} 1 to 1048576")),
        (&["--snapshot-count=-1"], format!("--snapshot-count=-1: {WHOLE} 1 to 9223372036854775807")),
        (&["--snapshot-bytes=0"], format!("--snapshot-bytes=0: {WHOLE} 1 to 9223372036854775807")),
        (&["--max-snapshots=-1"], format!("--max-snapshots=-1: {WHOLE} 0 to 9223372036854775807")),
        (
            &["--max-snapshots=1"],
            "--max-snapshots=1: allowed is 0 (no bound) or at least 2, for one may be on its way to disk".into(),
        ),
        (&["--max-concurrent-streams=-1"], format!("--max-concurrent-streams=-1: {WHOLE} 1 to 4294967295")),
        (
            &["--quota-backend-bytes=9223372036854775808"],
            format!("--quota-backend-bytes=9223372036854775808: {WHOLE} -9223372036854775808 to 4611686018427387904"),
        ),
        (
            &["--max-learners=-1"],
            "--max-learners=-1 is not supported yet: the guards of changes of the members cannot be moved yet (accepted at: 1)".into(),
        ),
        (&["--heartbeat-interval=0"], format!("--heartbeat-interval=0: {WHOLE} 1 to 50000")),
        (&["--election-timeout=-1"], format!("--election-timeout=-1: {WHOLE} 1 to 50000")),
        (&["--election-timeout=50001"], format!("--election-timeout=50001: {WHOLE} 1 to 50000")),
        (
            &["--election-timeout=499"],
            "--election-timeout[499ms] should be at least as 5 times as --heartbeat-interval[100ms]".into(),
        ),
        // Spans.
        (
            &["--auto-compaction-retention=-1"],
            "--auto-compaction-retention=-1: allowed is a number of hours from 0 on, or a span such as 5m".into(),
        ),
        (
            &["--auto-compaction-retention=-1h"],
            format!("--auto-compaction-retention=-1h: a span cannot be negative; {SPAN}"),
        ),
        (
            &["--auto-compaction-mode=revision", "--auto-compaction-retention=-1"],
            format!("--auto-compaction-retention=-1: {WHOLE} 0 to 9223372036854775807"),
        ),
        (&["--auto-compaction-mode=never"], "--auto-compaction-mode=never: allowed is periodic or revision".into()),
        (&["--warning-apply-duration=-1s"], format!("--warning-apply-duration=-1s: a span cannot be negative; {SPAN}")),
        (&["--watch-progress-notify-interval=1ms"], "--watch-progress-notify-interval: allowed is at least 100ms".into()),
        // Ports and addresses.
        (&["--listen-peer-urls=http://127.0.0.1:0"], url("http://127.0.0.1:0", "the port is out of range")),
        (&["--listen-peer-urls=http://127.0.0.1:65536"], url("http://127.0.0.1:65536", "the port is out of range")),
        (&["--listen-peer-urls=http://127.0.0.1:-1"], url("http://127.0.0.1:-1", "the port is out of range")),
        (&["--listen-peer-urls=http://127.0.0.1"], url("http://127.0.0.1", "the port is missing")),
        (&["--listen-peer-urls=127.0.0.1:2380"], url("127.0.0.1:2380", "the scheme is missing")),
        (&["--listen-peer-urls=http://::1:2380"], url("http://::1:2380", "an IPv6 address needs brackets")),
        (&["--listen-peer-urls=http://[::1]"], url("http://[::1]", "the port is missing")),
        (&["--listen-peer-urls=http://[::1]2380"], url("http://[::1]2380", "the port is missing")),
        (&["--listen-peer-urls=http://[::1:2380"], url("http://[::1:2380", "the ']' is missing")),
        (&["--listen-peer-urls=http://[::g]:2380"], url("http://[::g]:2380", "this is not an IPv6 address")),
        (&["--listen-peer-urls=http://[fe80::1%25lo]:2380"], url("http://[fe80::1%25lo]:2380", "this is not an IPv6 address")),
        (&["--listen-peer-urls=http://[]:2380"], url("http://[]:2380", "this is not an IPv6 address")),
        (
            &["--listen-peer-urls=http://a.example:2380"],
            "--listen-peer-urls: 'http://a.example:2380': expected an IP address or localhost to listen at, not a name".into(),
        ),
        (&["--listen-peer-urls="], "--listen-peer-urls: there is no address; allowed is http://HOST:PORT,...".into()),
        // One port twice, also where one address covers the other.
        (
            &["--listen-peer-urls=http://127.0.0.1:2380,http://127.0.0.1:2380"],
            "--listen-peer-urls: 'http://127.0.0.1:2380' stands there twice".into(),
        ),
        (&["--listen-peer-urls=http://127.0.0.1:2379"], taken("listen-peer-urls", "http://127.0.0.1:2379", 2379, "listen-client-urls")),
        (&["--listen-peer-urls=http://0.0.0.0:2379"], taken("listen-peer-urls", "http://0.0.0.0:2379", 2379, "listen-client-urls")),
        (&["--listen-peer-urls=http://[::]:2379"], taken("listen-peer-urls", "http://[::]:2379", 2379, "listen-client-urls")),
        (&["--listen-metrics-urls=http://127.0.0.1:2380"], taken("listen-metrics-urls", "http://127.0.0.1:2380", 2380, "listen-peer-urls")),
        (
            &["--listen-client-urls=http://127.0.0.1:2379"],
            "--advertise-client-urls is required when --listen-client-urls is set: where do clients reach this member?".into(),
        ),
        // Lists of members that contradict themselves, or the other flags.
        (&["--initial-cluster=default"], "--initial-cluster: 'default': allowed is NAME=http://HOST:PORT,...".into()),
        (&["--initial-cluster=,"], "--initial-cluster: there is no member; allowed is NAME=http://HOST:PORT,...".into()),
        (
            &["--initial-cluster=default=http://localhost:2380,default=http://localhost:2380"],
            "--initial-cluster: 'default=http://localhost:2380' stands there twice".into(),
        ),
        (
            &["--initial-cluster=default=http://localhost:2380,b=http://localhost:2380"],
            "--initial-cluster: both 'default' and 'b' claim http://localhost:2380: each URL belongs to one member".into(),
        ),
        (
            &["--initial-cluster=b=http://localhost:2380"],
            "couldn't find local name \"default\" in the initial cluster configuration: --initial-cluster names b".into(),
        ),
        (
            &["--initial-cluster=default=http://localhost:9999"],
            "--initial-cluster says [http://localhost:9999] for \"default\" but --initial-advertise-peer-urls says \
             [http://localhost:2380]: the two must be the same".into(),
        ),
        (&["--initial-cluster-state=old"], "--initial-cluster-state=old: allowed is new or existing".into()),
        // Flags that are none.
        (&["--frobnicate"], "flag provided but not defined: -frobnicate (--help lists all flags)".into()),
        (&["--nmae=x"], "flag provided but not defined: -nmae; did you mean --name? (--help lists all flags)".into()),
        (&["-"], "'-' is not a valid flag (--help lists all flags)".into()),
        (&["x"], "'x' is not a valid flag (--help lists all flags)".into()),
        (&["--name"], "flag needs an argument: --name".into()),
        (&["--pre-vote=maybe"], "--pre-vote=maybe: not a boolean; allowed is true or false".into()),
        (
            &["--name=a,b"],
            "--name='a,b': allowed is a non-empty name without commas, equals signs and control characters".into(),
        ),
        (&["--log-level=loud"], "--log-level=loud: allowed is debug, info, warn, error, panic or fatal".into()),
    ];
    for (flags, sentence) in table {
        expect(flags, &[], &sentence);
    }
}

fn url(url: &str, why: &str) -> String {
    format!("--listen-peer-urls: '{url}': {why}; {URL}")
}

fn taken(flag: &str, url: &str, port: u16, other: &str) -> String {
    format!("--{flag}: '{url}': port {port} is taken by --{other} already; each needs its own")
}

/// Starts the program with these flags and variables, and demands status 2 and this sentence, and nothing else.
fn expect(flags: &[&str], variables: &[(&str, &str)], sentence: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(SYNOD);
    command.arg("serve").args(flags).current_dir(folder.path()).stdin(Stdio::null());
    crate::common::quiet(&mut command).envs(variables.iter().copied());
    let output = command.output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said, format!("synod serve: {sentence}\n"), "{flags:?} {variables:?}");
    assert_eq!(output.status.code(), Some(2), "{flags:?} {variables:?}");
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0, "{flags:?}: something was made");
}

/// A variable beside a flag, or beside its older spelling, is never silently lost; nor is one that means nothing.
#[test]
fn variables_that_conflict() {
    let shadowed = |variable: &str, flag: &str| {
        format!(
            "conflicting environment variable {variable} is shadowed by the command-line flag --{flag} (unset one of the two)"
        )
    };
    const OLD: &str = "ETCD_EXPERIMENTAL_WATCH_PROGRESS_NOTIFY_INTERVAL";
    const NEW: &str = "ETCD_WATCH_PROGRESS_NOTIFY_INTERVAL";
    const FLAG: &str = "watch-progress-notify-interval";
    expect(&["--name=a"], &[("ETCD_NAME", "b")], &shadowed("ETCD_NAME", "name"));
    expect(&["--name=a"], &[("ETCD_NAME", "a")], &shadowed("ETCD_NAME", "name"));
    expect(&["--watch-progress-notify-interval=1m"], &[(OLD, "1m")], &shadowed(OLD, FLAG));
    expect(&["--experimental-watch-progress-notify-interval=1m"], &[(NEW, "1m")], &shadowed(NEW, FLAG));
    expect(
        &[],
        &[("ETCD_PRE_VOTE", "maybe")],
        "ETCD_PRE_VOTE in the environment: --pre-vote=maybe: not a boolean; allowed is true or false",
    );
    expect(
        &[],
        &[("ETCD_CERT_FILE", "x.pem")],
        "ETCD_CERT_FILE in the environment: --cert-file=x.pem is not supported yet: TLS is not supported yet (accepted at: '')",
    );
    expect(&[], &[("ETCD_ELECTION_TIMEOUT", "x")], &format!("--election-timeout=x: {WHOLE} 1 to 50000"));
    expect(&[], &[("ETCD_LISTEN_PEER_URLS", "http://h:0")], &url("http://h:0", "the port is out of range"));
    // Which of the two comes first is up to the system.
    let mut command = Command::new(SYNOD);
    crate::common::quiet(command.arg("serve")).envs([(OLD, "1m"), (NEW, "2m")]);
    let said = String::from_utf8_lossy(&command.output().expect("it ends").stderr).into_owned();
    assert!(
        said.ends_with("sets --watch-progress-notify-interval a second time (unset one of the two)\n"),
        "{said}"
    );
    // An unknown one may belong to somebody else: said, and no more.
    let port = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = format!("http://{}", port.local_addr().expect("bound"));
    let mut command = Command::new(SYNOD);
    command.args([
        "serve",
        &format!("--listen-client-urls={taken}"),
        &format!("--advertise-client-urls={taken}"),
    ]);
    let output = crate::common::quiet(&mut command).env("ETCD_NMAE", "b").output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("unrecognized environment variable ETCD_NMAE=b"), "{said}");
    assert_eq!(output.status.code(), Some(1), "{said}");
}

/// Folders and ports that cannot be had end the start with status 1 and their name; a folder in use stays whole.
#[test]
fn folders_and_ports() {
    let cluster = Cluster::start(1, &QUICK);
    cluster.members[0].client().put("a", "1").expect("put");
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("file"), "x").expect("written");
    let data = cluster.members[0].data.display().to_string();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let in_use = format!("{data} is in use by another process (process ");
    let rows = [
        (data.clone(), in_use),
        (path("file"), format!("--data-dir={}: this is not a folder", path("file"))),
        (
            path("file/below"),
            format!(
                "{}: looking at the data folder failed: Not a directory (os error 20)",
                path("file/below")
            ),
        ),
        (
            "/proc/synod".into(),
            "/proc/synod: making the data folder failed: No such file or directory (os error 2)".into(),
        ),
    ];
    for (data, sentence) in rows {
        let ports = free_ports(2);
        let flags = [
            format!("--data-dir={data}"),
            format!("--listen-client-urls=http://127.0.0.1:{}", ports[0]),
            format!("--advertise-client-urls=http://127.0.0.1:{}", ports[0]),
            format!("--listen-peer-urls=http://127.0.0.1:{}", ports[1]),
            "--log-format=console".to_owned(),
        ];
        let (status, said) = ended(Command::new(SYNOD).arg("serve").args(flags));
        assert!(
            status.code() == Some(1) && said.contains(&sentence),
            "{data}: expected '{sentence}' in {said}"
        );
    }
    let port = cluster.members[0].client;
    let flags = [
        format!("--listen-client-urls=http://[::ffff:127.0.0.1]:{port}"),
        format!("--advertise-client-urls=http://127.0.0.1:{port}"),
    ];
    let (status, said) = ended(Command::new(SYNOD).arg("serve").args(flags).current_dir(folder.path()));
    assert!(status.code() == Some(1) && said.contains("(--listen-client-urls): "), "{said}");
    assert_eq!(cluster.members[0].client().read("a").expect("it serves on"), Some(base64("1")));
}

/// IPv6 is served where the system has it.
#[test]
fn ipv6() {
    if TcpListener::bind("[::1]:0").is_err() {
        println!("skipped: this system has no IPv6");
        return;
    }
    let ports = free_ports(2);
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(SYNOD);
    command
        .arg("serve")
        .args(QUICK)
        .arg(format!("--data-dir={}", folder.path().display()))
        .arg(format!("--listen-client-urls=http://[::1]:{0},http://127.0.0.1:{0}", ports[0]))
        .arg(format!("--advertise-client-urls=http://[::1]:{}", ports[0]))
        .arg(format!("--listen-peer-urls=http://[::1]:{}", ports[1]))
        .arg(format!("--initial-advertise-peer-urls=http://[::1]:{}", ports[1]))
        .stderr(Stdio::null());
    let _member = Running::start(&mut command);
    until("it serves over IPv4", || Client::at(ports[0], PATIENCE).put("a", "1").is_ok());
    assert!(std::net::TcpStream::connect(("::1", ports[0])).is_ok(), "and over IPv6");
}

/// A clock before 1970, or one that goes back between two runs, changes no promise.
#[test]
#[ignore = "before 1970 hyper's HTTP/1 panics in its own cache of the date, whatever auto_date_header says: the connection ends, the member goes on (gRPC is not concerned)"]
fn clocks_out_of_their_minds() {
    let places = [
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib",
        "/usr/lib64",
        "/usr/local/lib",
    ];
    let libraries = places.map(|place| PathBuf::from(place).join("faketime/libfaketime.so.1"));
    let Some(library) = libraries.iter().find(|library| library.exists()) else {
        println!("skipped: libfaketime is not installed");
        return;
    };
    let ports = free_ports(2);
    let folder = tempfile::tempdir().expect("a folder");
    let clocks = ["2030-01-01", "1969-12-31", "1970-01-01", "2026-01-01"];
    for (round, clock) in clocks.iter().enumerate() {
        let log = folder.path().join("said");
        let mut command = Command::new(SYNOD);
        command
            .arg("serve")
            .args(QUICK)
            .arg(format!("--data-dir={}", folder.path().join("data").display()))
            .arg(format!("--listen-client-urls=http://127.0.0.1:{}", ports[0]))
            .arg(format!("--advertise-client-urls=http://127.0.0.1:{}", ports[0]))
            .arg(format!("--listen-peer-urls=http://127.0.0.1:{}", ports[1]))
            .env("LD_PRELOAD", library)
            .env("FAKETIME", format!("@{clock} 00:00:00"))
            .env("DONT_FAKE_MONOTONIC", "1")
            .env("TZ", "UTC")
            .stderr(fs::File::create(&log).expect("a log"));
        let member = Running::start(&mut command);
        let mut client = Client::at(ports[0], PATIENCE);
        until("it serves", || client.put(&format!("round-{round}"), "1").is_ok());
        for before in 0..=round {
            let read = client.read(&format!("round-{before}")).expect("a read");
            assert_eq!(read, Some(base64("1")), "round {before} at {clock}");
        }
        drop(member);
        let said = fs::read_to_string(&log).expect("a log");
        assert!(!said.contains("panicked"), "{said}");
    }
}

/// A member whose log lines nobody reads any more serves on, and ends when asked to.
#[test]
fn nobody_reads_the_log() {
    let ports = free_ports(2);
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(SYNOD);
    command
        .arg("serve")
        .args(QUICK)
        .arg(format!("--data-dir={}", folder.path().display()))
        .arg(format!("--listen-client-urls=http://127.0.0.1:{}", ports[0]))
        .arg(format!("--advertise-client-urls=http://127.0.0.1:{}", ports[0]))
        .arg(format!("--listen-peer-urls=http://127.0.0.1:{}", ports[1]))
        .stderr(Stdio::piped());
    let mut member = Running::start(&mut command);
    drop(member.0.stderr.take());
    let mut client = Client::at(ports[0], PATIENCE);
    until("it serves", || client.put("a", "1").is_ok());
    assert!(
        Command::new("kill").args(["-TERM", &member.0.id().to_string()]).status().expect("kill").success()
    );
    let mut status = None;
    until("it ends", || {
        status = member.ended();
        status.is_some()
    });
    assert!(status.expect("it has ended").success());
}
