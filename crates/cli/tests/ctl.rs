//! `synod put`, `get` and the rest, and `synod bench`, against real members.

mod common;

use std::io::Write;
use std::process::{Command, Output, Stdio};

use common::{Cluster, SYNOD};

struct Shell {
    endpoints: String,
}

impl Shell {
    fn of(cluster: &Cluster) -> Shell {
        let ports = cluster.members.iter().map(|member| format!("127.0.0.1:{}", member.client));
        Shell { endpoints: ports.collect::<Vec<_>>().join(",") }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(SYNOD);
        // In front: what follows a command's own words belongs to the program that it runs.
        command.arg("--endpoints").arg(&self.endpoints).args(words).env_remove("ETCDCTL_ENDPOINTS");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("synod runs")
    }

    /// What a command that must succeed prints.
    fn says(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What a command that must fail complains of.
    fn fails(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(!output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn says_to(&self, words: &[&str], input: &str) -> String {
        let mut child = self.command(words).stdin(Stdio::piped()).spawn().expect("synod runs");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it listens");
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// Every command does what it says on three members, in every format, and says clearly what is wrong when it cannot.
#[test]
fn commands_on_three_members() {
    let cluster = Cluster::start(3, &[]);
    let shell = Shell::of(&cluster);
    assert_eq!(shell.says(&["put", "a", "1"]), "OK\n");
    assert_eq!(shell.says(&["put", "a", "2", "--prev-kv"]), "OK\na\n1\n");
    assert_eq!(shell.says_to(&["put", "b"], "from stdin"), "OK\n");
    assert_eq!(shell.says(&["get", "a"]), "a\n2\n");
    assert_eq!(shell.says(&["get", "", "--prefix", "--keys-only"]), "a\nb\n");
    assert_eq!(
        shell.says(&["get", "a", "z", "--print-value-only", "--sort-by", "key", "--order", "descend"]),
        "from stdin\n2\n"
    );
    assert_eq!(shell.says(&["get", "a", "--from-key", "--count-only"]), "2\n");
    assert_eq!(shell.says(&["get", "a", "--consistency", "eventual"]), "a\n2\n");
    assert_eq!(shell.says(&["get", "a", "--rev", "2", "--print-value-only"]), "1\n");
    let json: serde_json::Value =
        serde_json::from_str(&shell.says(&["get", "a", "-w", "json"])).expect("JSON");
    assert_eq!(json["kvs"][0]["value"], "Mg==");
    assert!(shell.says(&["get", "a", "-w", "table"]).contains("| a"));
    let txn = "value(\"a\") = \"2\"\n\nput a 3\nget b\n\nget a\n";
    assert_eq!(shell.says_to(&["txn"], txn), "SUCCESS\n\nOK\n\nb\nfrom stdin\n");
    assert_eq!(shell.says_to(&["txn"], txn), "FAILURE\n\na\n3\n");
    assert_eq!(
        shell.says(&["watch", "a", "--rev", "2", "--events", "3"]),
        "PUT\na\n1\nPUT\na\n2\nPUT\na\n3\n"
    );
    assert_eq!(shell.says(&["del", "b", "--prev-kv"]), "1\nb\nfrom stdin\n");

    let granted = shell.says(&["lease", "grant", "60"]);
    let lease = granted.split(' ').nth(1).expect("an id");
    shell.says(&["put", "leased", "x", "--lease", lease]);
    assert!(shell.says(&["lease", "timetolive", lease, "--keys"]).contains("attached keys([leased])"));
    assert!(shell.says(&["lease", "list"]).contains(lease));
    assert!(shell.says(&["lease", "keep-alive", lease, "--once"]).contains("keepalived with TTL(60)"));
    shell.says(&["lease", "revoke", lease]);
    assert_eq!(shell.says(&["get", "leased"]), "");
    assert!(shell.fails(&["lease", "timetolive", lease]).contains("there is no lease"));

    let held = shell.says(&["lock", "door", "sh", "-c", "echo $SYNOD_LOCK_KEY $SYNOD_LOCK_REV"]);
    assert!(held.starts_with("door/") && held.trim().split(' ').count() == 2, "{held}");
    assert_eq!(shell.says(&["get", "door/", "--prefix"]), "", "the lock is given up");
    assert_eq!(shell.run(&["lock", "door", "sh", "-c", "exit 7"]).status.code(), Some(7));

    assert!(shell.says(&["compact", "3"]).contains("compacted revision 3"));
    assert!(shell.fails(&["get", "a", "--rev", "2"]).contains("ask for a later revision"));
    assert!(shell.fails(&["watch", "a", "--rev", "1", "--events", "1"]).contains("given up"));
    let hashes = shell.says(&["hashkv"]);
    let mut hashes: Vec<&str> = hashes.lines().filter_map(|line| line.split(", ").nth(1)).collect();
    hashes.dedup();
    assert_eq!(hashes.len(), 1, "all members have the same history");
    let status = shell.says(&["status", "-w", "table"]);
    assert_eq!(status.matches("true").count(), 1, "{status}");
    assert_eq!(shell.says(&["member", "list"]).lines().count(), 3);
    assert!(shell.says(&["top", "--once", "--every", "0.2"]).contains("leads"));
    let file = cluster.folder.path().join("saved");
    assert!(shell.says(&["snapshot", "save", &file.to_string_lossy()]).contains("saved"));
    assert!(file.metadata().expect("it is there").len() > 0);

    assert!(shell.fails(&["get", ""]).contains("--prefix"));
    assert!(shell.fails(&["lease", "revoke", "xyz"]).contains("hexadecimal"));
    assert!(shell.fails(&["snapshot", "save", "/nowhere/at/all"]).contains("/nowhere/at/all"));
    let nobody =
        Command::new(SYNOD).args(["get", "a", "--endpoints", "127.0.0.1:1"]).output().expect("synod runs");
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("is a member running at 127.0.0.1:1?"));
}

/// Both loops and the watchers measure something, count what fails, and refuse what cannot be measured.
#[test]
fn bench_on_one_member() {
    let cluster = Cluster::start(1, &[]);
    let shell = Shell::of(&cluster);
    let json =
        |words: &[&str]| -> serde_json::Value { serde_json::from_str(&shell.says(words)).expect("JSON") };
    let closed =
        json(&["bench", "load", "put", "--requests", "500", "--warmup", "0", "--connections", "2", "--json"]);
    assert_eq!((closed["succeeded"].as_u64(), closed["failed"].as_u64()), (Some(500), Some(0)), "{closed}");
    let open = json(&[
        "bench",
        "load",
        "mixed",
        "--rate",
        "200",
        "--seconds",
        "1",
        "--warmup",
        "0",
        "--connections",
        "3",
        "--fill",
        "--keys",
        "100",
        "--choice",
        "zipf:0.9",
        "--json",
    ]);
    let all = open["succeeded"].as_u64().unwrap_or(0) + open["failed"].as_u64().unwrap_or(0);
    assert!((190..=210).contains(&all), "an open loop asks as often as it says: {open}");
    for kind in ["get", "get-serializable", "range", "txn", "lease"] {
        let run = json(&[
            "bench",
            "load",
            kind,
            "--requests",
            "50",
            "--warmup",
            "0",
            "--connections",
            "1",
            "--json",
        ]);
        assert_eq!(run["failed"], 0, "{run}");
    }
    let watched =
        json(&["bench", "watch", "--watchers", "50", "--connections", "3", "--seconds", "0.2", "--json"]);
    assert_eq!(watched["events_lost"], 0, "{watched}");
    assert_eq!(watched["events"].as_u64(), watched["puts"].as_u64().map(|puts| puts * 50));
    let page = cluster.folder.path().join("page.html");
    shell.says(&[
        "bench",
        "load",
        "put",
        "--requests",
        "50",
        "--warmup",
        "0",
        "--html",
        &page.to_string_lossy(),
    ]);
    assert!(std::fs::read_to_string(page).expect("a page").contains("</svg>"));

    assert!(
        shell.fails(&["bench", "load", "put", "--keys", "1000000", "--key-bytes", "3"]).contains("7 bytes")
    );
    assert!(shell.fails(&["bench", "load", "--choice", "worst"]).contains("allowed is uniform"));
    assert!(shell.fails(&["bench", "load", "--pids", "4294967295"]).contains("4294967295"));
    assert!(shell.fails(&["bench", "compare"]).contains("--etcd"));
    assert!(
        shell.fails(&["bench", "compare", "--etcd", "/bin/true"]).contains("does not say that it is etcd")
    );
}
