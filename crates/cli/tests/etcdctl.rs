//! etcd's own command-line client against three members: Debian's `etcd-client`, skipped where it is absent.

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use common::Cluster;

/// etcdctl, pointed at a cluster.
struct Ctl {
    endpoints: String,
}

impl Ctl {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("etcdctl");
        common::quiet(&mut command).env("ETCDCTL_API", "3");
        command.arg(format!("--endpoints={}", self.endpoints)).args(words);
        command
    }

    /// Runs a command that must succeed; what it printed.
    fn ok(&self, words: &[&str]) -> String {
        let out = self.command(words).output().expect("etcdctl runs");
        let (said, wrong) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{words:?}: {said}{wrong}");
        said.trim_end().to_owned()
    }

    /// Runs a command that must fail; what it said.
    fn fails(&self, words: &[&str]) -> String {
        let out = self.command(words).output().expect("etcdctl runs");
        assert!(!out.status.success(), "{words:?} should fail");
        String::from_utf8_lossy(&out.stderr).into_owned()
    }

    /// Runs a transaction that is read from standard input.
    fn txn(&self, script: &str) -> String {
        use std::io::Write;
        let mut command = self.command(&["txn"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("etcdctl runs");
        child.stdin.take().expect("piped").write_all(script.as_bytes()).expect("written");
        let out = child.wait_with_output().expect("it ends");
        assert!(out.status.success(), "{script}");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    fn watch(&self, words: &[&str]) -> Watch {
        let mut all = vec!["watch"];
        all.extend_from_slice(words);
        let mut child =
            self.command(&all).stdout(Stdio::piped()).stdin(Stdio::piped()).spawn().expect("etcdctl runs");
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        Watch { child, lines }
    }
}

struct Watch {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Watch {
    /// The next lines; waits for them.
    fn next(&mut self, count: usize) -> Vec<String> {
        (0..count)
            .map(|_| {
                let mut line = String::new();
                self.lines.read_line(&mut line).expect("a line");
                line.trim_end().to_owned()
            })
            .collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("gone");
    }
}

/// Puts, gets with every flag, deletions, transactions, compaction, leases, watches, the state of the endpoints, an image of
/// the state and a change of leader, each as etcdctl does it.
#[test]
fn etcdctl_works() {
    if !common::is_installed("etcdctl", "--help") {
        eprintln!("skipped: etcdctl is not installed (Debian: etcd-client)");
        return;
    }
    let cluster = Cluster::start(3, &["--log-level=warn"]);
    let ctl = Ctl { endpoints: cluster.endpoints() };
    keys(&ctl);
    transactions(&ctl);
    watches(&ctl);
    compaction(&ctl);
    leases(&ctl);
    maintenance(&cluster, &ctl);
}

fn keys(ctl: &Ctl) {
    assert_eq!(ctl.ok(&["put", "k1", "b"]), "OK");
    assert_eq!(ctl.ok(&["put", "k1", "c", "--prev-kv"]), "OK\nk1\nb");
    for (key, value) in [("k2", "a"), ("k3", "d"), ("other", "x")] {
        ctl.ok(&["put", key, value]);
    }
    assert_eq!(ctl.ok(&["get", "k1"]), "k1\nc");
    assert_eq!(ctl.ok(&["get", "k1", "--print-value-only"]), "c");
    assert_eq!(ctl.ok(&["get", "k", "--prefix", "--keys-only"]).replace("\n\n", " "), "k1 k2 k3");
    assert_eq!(ctl.ok(&["get", "k1", "k3"]), "k1\nc\nk2\na");
    assert_eq!(ctl.ok(&["get", "k3", "--from-key"]), "k3\nd\nother\nx");
    assert_eq!(ctl.ok(&["get", "k", "--prefix", "--limit=1"]), "k1\nc");
    assert_eq!(ctl.ok(&["get", "k", "--prefix", "--sort-by=value", "--order=DESCEND", "--limit=1"]), "k3\nd");
    assert_eq!(ctl.ok(&["get", "k", "--prefix", "--sort-by=modify", "--order=ASCEND", "--limit=1"]), "k1\nc");
    assert_eq!(ctl.ok(&["get", "k1", "--rev=2"]), "k1\nb");
    assert_eq!(ctl.ok(&["get", "k1", "--consistency=s"]), "k1\nc");
    assert!(ctl.ok(&["get", "k", "--prefix", "-w=json"]).contains("\"count\":3"));
    assert!(ctl.ok(&["get", "k", "--prefix", "-w=fields"]).contains("\"Count\" : 3"));
    assert!(ctl.fails(&["get", "k1", "--rev=1000000"]).contains("required revision is a future revision"));
    assert_eq!(ctl.ok(&["put", "k1", "--ignore-value", "--lease=0"]), "OK");
    assert!(ctl.fails(&["put", "absent", "--ignore-value"]).contains("key not found"));
    assert_eq!(ctl.ok(&["del", "k2", "--prev-kv"]), "1\nk2\na");
    assert_eq!(ctl.ok(&["del", "k2"]), "0");
    assert_eq!(ctl.ok(&["del", "k", "--prefix"]), "2");
}

fn transactions(ctl: &Ctl) {
    let said = ctl.txn("create(\"t\") = \"0\"\n\nput t one\n\nget t\n\n");
    assert!(said.contains("SUCCESS"), "{said}");
    let said = ctl.txn("value(\"t\") = \"two\"\nver(\"t\") > \"0\"\n\nput t three\n\nget t\n\n");
    assert!(said.contains("FAILURE") && said.contains("one"), "{said}");
}

fn watches(ctl: &Ctl) {
    let mut prefix = ctl.watch(&["w", "--prefix", "--prev-kv", "--rev=1"]);
    ctl.ok(&["put", "w1", "a"]);
    ctl.ok(&["put", "w1", "b"]);
    ctl.ok(&["del", "w1"]);
    assert_eq!(prefix.next(3), ["PUT", "w1", "a"]);
    let before = prefix.next(5);
    assert_eq!(before, ["PUT", "w1", "a", "w1", "b"]);
    assert_eq!(prefix.next(4), ["DELETE", "w1", "b", "w1"]);
    // From the past on, without earlier values.
    let mut past = ctl.watch(&["w1", "--rev=1"]);
    assert_eq!(past.next(6), ["PUT", "w1", "a", "PUT", "w1", "b"]);
    // A question for progress is answered on an idle stream.
    let mut interactive = ctl.watch(&["-i"]);
    {
        use std::io::Write;
        let words = interactive.child.stdin.as_mut().expect("piped");
        words.write_all(b"watch --rev=1 w1\n").expect("written");
        words.flush().expect("flushed");
    }
    assert_eq!(interactive.next(3), ["PUT", "w1", "a"]);
    interactive.next(3);
    interactive.next(3);
    {
        use std::io::Write;
        let words = interactive.child.stdin.as_mut().expect("piped");
        words.write_all(b"progress\n").expect("written");
        words.flush().expect("flushed");
    }
    let progress = interactive.next(1);
    assert!(progress[0].starts_with("progress notify:"), "{progress:?}");
}

fn compaction(ctl: &Ctl) {
    ctl.ok(&["put", "c", "1"]);
    let json = ctl.ok(&["put", "c", "2", "-w=json"]);
    let revision: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let revision = revision["header"]["revision"].as_i64().expect("a revision").to_string();
    assert_eq!(ctl.ok(&["compaction", &revision, "--physical"]), format!("compacted revision {revision}"));
    assert!(ctl.fails(&["compaction", &revision]).contains("required revision has been compacted"));
    assert!(ctl.fails(&["get", "c", "--rev=2"]).contains("required revision has been compacted"));
    assert_eq!(ctl.ok(&["get", "c"]), "c\n2");
}

fn leases(ctl: &Ctl) {
    let granted = ctl.ok(&["lease", "grant", "100"]);
    let id = granted.split(' ').nth(1).expect("an id").to_owned();
    assert!(granted.ends_with("granted with TTL(100s)"), "{granted}");
    ctl.ok(&["put", "leased", "x", &format!("--lease={id}")]);
    assert!(ctl.ok(&["lease", "timetolive", &id, "--keys"]).contains("attached keys([leased])"));
    assert!(ctl.ok(&["lease", "list"]).contains(&id));
    assert!(ctl.ok(&["lease", "keep-alive", "--once", &id]).contains("keepalived with TTL(100)"));
    assert_eq!(ctl.ok(&["lease", "revoke", &id]), format!("lease {id} revoked"));
    assert_eq!(ctl.ok(&["get", "leased"]), "");
    assert!(ctl.fails(&["lease", "revoke", &id]).contains("requested lease not found"));
    assert!(ctl.ok(&["lease", "timetolive", &id]).contains("already expired"));
    // A short one ends by itself, and its key with it.
    let granted = ctl.ok(&["lease", "grant", "1"]);
    let id = granted.split(' ').nth(1).expect("an id").to_owned();
    let mut watch = ctl.watch(&["short", "--rev=1"]);
    // The watch from revision 1 on is cancelled, for that is compacted: so from now on.
    drop(std::mem::replace(&mut watch, ctl.watch(&["short"])));
    ctl.ok(&["put", "short", "x", &format!("--lease={id}")]);
    common::until("the lease ends", || ctl.ok(&["get", "short"]).is_empty());
}

fn maintenance(cluster: &Cluster, ctl: &Ctl) {
    let status = ctl.ok(&["endpoint", "status", "-w=json"]);
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(status.as_array().map(Vec::len), Some(3));
    // It prints its verdicts on standard error.
    ctl.ok(&["endpoint", "health"]);
    let hashes = ctl.ok(&["endpoint", "hashkv"]);
    let hashes: Vec<&str> = hashes.lines().filter_map(|line| line.split(", ").nth(1)).collect();
    assert!(hashes.len() == 3 && hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    assert_eq!(ctl.ok(&["member", "list"]).lines().count(), 3);

    // Old clients dial a URL and say it as the authority.
    let one = Ctl { endpoints: format!("http://127.0.0.1:{}", cluster.members[0].client) };
    one.ok(&["endpoint", "hashkv"]);
    one.ok(&["endpoint", "status"]);
    let file = cluster.folder.path().join("image.db");
    one.ok(&["snapshot", "save", &file.to_string_lossy()]);
    let length = std::fs::metadata(&file).expect("saved").len();
    assert_eq!(length % 512, 32, "etcdctl's own rule of size");
    assert!(ctl.ok(&["alarm", "list"]).is_empty());
    one.ok(&["defrag"]);

    let leader = status[0]["Status"]["leader"].as_u64().expect("a leader");
    let header = |at: usize| status[at]["Status"]["header"]["member_id"].as_u64().expect("an id");
    let target = (0..3).map(header).find(|id| *id != leader).expect("another member");
    let said = ctl.ok(&["move-leader", &format!("{target:x}")]);
    assert!(said.contains("Leadership transferred"), "{said}");
    let after: serde_json::Value =
        serde_json::from_str(&ctl.ok(&["endpoint", "status", "-w=json"])).expect("JSON");
    assert_eq!(after[0]["Status"]["leader"].as_u64(), Some(target));
}
