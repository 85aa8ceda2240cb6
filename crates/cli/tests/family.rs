//! The family on real processes: the same story for every protocol, within what its contract gives.
//!
//! A line for each below; what may be asked of it comes from its row and its contract, so nothing here knows a protocol. Put, get, watch
//! and lease over the JSON gateway; `kill -9` of as many members as the row promises, with service going on; then of all, and
//! everything that was acknowledged is there again.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use common::{CallError, Client, Cluster, MemberProcess, PATIENCE, base64, until};
use serde_json::{Value, json};
use synod_server::contract::{Call, Contract, Level};
use synod_server::protocol::{self, Chosen, FAMILY, Kin, find};

/// For those that take their time by nature, and whatever else a test wants quicker than a person does.
const QUICK: [&str; 3] = ["--log-level=warn", "--heartbeat-interval=20", "--election-timeout=200"];

/// A test for each protocol, and their names.
macro_rules! family {
    ($($test:ident $name:literal $flags:expr,)*) => {
        const NAMES: &[&str] = &[$($name,)*];
        $(
            /// See the file's text.
            #[test]
            fn $test() {
                story($name, $flags);
            }
        )*
    };
}

family! {
    raft "raft" &[],
    multipaxos "multipaxos" &[],
    paxos "paxos" &[],
    causal "causal" &[],
    pbft "pbft" &[],
    primary_backup "primary-backup" &[("after-loss", "serve")],
    pow "pow" &[("block-spacing", "250ms")],
}

/// Nobody of the family is left out.
#[test]
fn everybody_is_here() {
    for kin in FAMILY {
        assert!(NAMES.contains(&kin.row.name), "{} has no line", kin.row.name);
    }
}

/// A cluster keeps its protocol: a folder that another one wrote is refused, a member that runs another one is not let in, and
/// a flag or a number of members that the protocol has not is told before anything is written.
#[test]
fn protocols_do_not_mix() {
    let mut cluster = Cluster::start(1, &QUICK);
    cluster.members[0].client().put("a", "b").expect("it serves");
    cluster.members[0].kill();
    // Whoever needs keys has not got them here, and says that first.
    let others = || FAMILY.iter().filter(|kin| kin.row.name != "raft" && kin.row.name != "pbft");
    for other in others() {
        let (status, said) = cluster.members[0].run_to_the_end(&format!("--protocol={}", other.row.name));
        assert!(!status.success() && said.contains("was written by --protocol=raft"), "{said}");
        for flag in other.row.flags.iter().filter(|flag| !protocol::owners(flag.name).contains(&"raft")) {
            let (status, said) = cluster.members[0].run_to_the_end(&format!("--{}=true", flag.name));
            assert!(!status.success() && said.contains("means nothing to --protocol=raft"), "{said}");
        }
    }
    for kin in FAMILY.iter().filter(|kin| !(kin.row.sizes.possible)(1)) {
        let alone = Cluster::prepare(1, &["--log-level=error"]);
        let (status, said) = alone.members[0].run_to_the_end(&format!("--protocol={}", kin.row.name));
        let why = format!(
            "--protocol={} cannot be founded with 1 member: allowed is {}",
            kin.row.name, kin.row.sizes.rule
        );
        assert!(!status.success() && said.contains(&why), "{said}");
    }
    // One of two runs another protocol: neither hears the other, and both say why.
    let Some(other) = others().find(|kin| (kin.row.sizes.possible)(2)) else { return };
    let mut two = Cluster::prepare(2, &["--log-level=warn"]);
    two.members[0].start();
    two.members[1].start_with(&format!("--protocol={}", other.row.name));
    let why = format!("protocol mismatch: \"{}\" met \"raft\"", other.row.name);
    until("it is refused", || two.members[0].log().replace("\\", "").contains(&why));
}

/// What one protocol is asked, and how it is started.
struct Story {
    cluster: Cluster,
    kin: &'static Kin,
    flags: Chosen,
    contract: Contract,
}

fn story(name: &str, extra: &[(&'static str, &'static str)]) {
    let kin = find(name).expect("it is in the family");
    let variants: Vec<Vec<(&str, &str)>> = match kin.row.variants {
        [] => vec![Vec::new()],
        variants => variants.iter().map(|variant| variant.flags.to_vec()).collect(),
    };
    for variant in variants {
        let given: Vec<(&str, &str)> = variant.iter().chain(extra).copied().collect();
        let flags = Chosen::of(&kin.row, &given).expect("its own flags");
        let mut words: Vec<String> = given.iter().map(|(flag, value)| format!("--{flag}={value}")).collect();
        words.push(format!("--protocol={name}"));
        words.extend(QUICK.map(str::to_owned));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut cluster = Cluster::prepare(kin.row.sizes.usual, &words);
        if kin.row.flags.iter().any(|flag| flag.name == "pbft-key") {
            make_keys(&cluster);
        }
        cluster.members.iter_mut().for_each(MemberProcess::start);
        cluster.await_ready();
        let contract = Contract::of(kin, &flags);
        Story { cluster, kin, flags, contract }.tell();
    }
}

/// Gives each member its secret key and the public keys of all, where it looks for them.
fn make_keys(cluster: &Cluster) {
    let made = cluster.folder.path().join("keys");
    let names = cluster.members.iter().map(|member| member.name.as_str());
    let status = Command::new(common::SYNOD).arg("keygen").args(names).arg("--into").arg(&made).output();
    assert!(status.expect("keygen runs").status.success());
    for member in &cluster.members {
        fs::create_dir_all(&member.data).expect("the folder");
        fs::set_permissions(&member.data, fs::Permissions::from_mode(0o700)).expect("ours");
        fs::copy(made.join(format!("{}.key", member.name)), member.data.join("pbft.key")).expect("the key");
        fs::copy(made.join("pbft.keys"), member.data.join("pbft.keys")).expect("the keys");
    }
}

impl Story {
    fn tell(mut self) {
        self.keys();
        self.watch();
        self.lease();
        self.refusals();
        self.losses();
        self.all_killed();
    }

    fn count(&self) -> usize {
        self.cluster.members.len()
    }

    fn gives(&self, call: Call, level: Level) -> bool {
        self.contract.check(call, level).is_ok()
    }

    fn client(&self, member: usize) -> Client {
        let mut client = Client::at(self.cluster.members[member].client, PATIENCE);
        // The strongest level that there is.
        let level =
            Level::ALL.into_iter().find(|level| self.gives(Call::Read, *level)).expect("one at least");
        client.headers = vec![("synod-consistency".to_owned(), level.name().to_owned())];
        client
    }

    /// Puts a key at a member, trying again while there is nobody who orders.
    fn put(&self, member: usize, key: &str, value: &str) {
        until("a put is acknowledged", || match self.client(member).put(key, value) {
            Ok(_) => true,
            Err(CallError::Refused(why)) if why["code"] != 14 => panic!("{}: {why}", self.kin.row.name),
            Err(_) => false,
        });
    }

    /// Reads a key at a member until it is as expected: at once where reads are linearizable, some time later elsewhere.
    fn shows(&self, member: usize, key: &str, value: Option<&str>) {
        let wanted = value.map(base64);
        let once = self.gives(Call::Read, Level::Linearizable);
        until("a read shows it", || match self.client(member).read(key) {
            Ok(found) => {
                assert!(!once || found == wanted, "{key}: {found:?} instead of {wanted:?}");
                found == wanted
            }
            Err(CallError::Refused(why)) if why["code"] != 14 => panic!("{}: {why}", self.kin.row.name),
            Err(_) => false,
        });
    }

    /// What any member acknowledges every member shows.
    fn keys(&self) {
        for member in 0..self.count() {
            self.put(member, &format!("from-{member}"), "1");
        }
        for member in 0..self.count() {
            for other in 0..self.count() {
                self.shows(member, &format!("from-{other}"), Some("1"));
            }
        }
    }

    /// A watch at one member hears of a put at another.
    fn watch(&self) {
        let (at, from) = (self.count() - 1, 0);
        let stream = TcpStream::connect(("127.0.0.1", self.cluster.members[at].client)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut reader = BufReader::new(stream);
        let body = json!({ "create_request": { "key": base64("watched") } }).to_string();
        let request = format!(
            "POST /v3/watch HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        reader.get_mut().write_all(request.as_bytes()).expect("asked");
        let mut wait_for = |what: &str| loop {
            let mut line = String::new();
            assert!(
                reader.read_line(&mut line).expect("a line in time") > 0,
                "the watch ended before {what}"
            );
            if line.contains(what) {
                break;
            }
        };
        wait_for("\"created\":true");
        self.put(from, "watched", "seen");
        wait_for(&base64("seen"));
    }

    /// A key under a lease lives while the lease is renewed, and goes with it.
    fn lease(&self) {
        let granted = self.client(0).call("/v3/lease/grant", &json!({ "TTL": "3600" }));
        if !self.gives(Call::Lease, Level::Linearizable) {
            self.is_refusal(Call::Lease, granted);
            return;
        }
        let id = granted.expect("a lease")["ID"].clone();
        let put = json!({ "key": base64("leased"), "value": base64("1"), "lease": id });
        self.client(0).call("/v3/kv/put", &put).expect("put");
        let alive = self.client(1).call("/v3/lease/keepalive", &json!({ "ID": id })).expect("renewed");
        assert_eq!(alive["result"]["TTL"], "3600", "{alive}");
        self.shows(1, "leased", Some("1"));
        self.client(1).call("/v3/lease/revoke", &json!({ "ID": id })).expect("revoked");
        self.shows(0, "leased", None);
        // Nobody renews this one.
        let short =
            self.client(0).call("/v3/lease/grant", &json!({ "TTL": "1" })).expect("a lease")["ID"].clone();
        let put = json!({ "key": base64("short"), "value": base64("1"), "lease": short });
        self.client(0).call("/v3/kv/put", &put).expect("put");
        until("the lease ends", || self.client(0).read("short").is_ok_and(|found| found.is_none()));
    }

    /// What the contract refuses the server refuses, in its words.
    fn refusals(&self) {
        let read = json!({ "key": base64("from-0") });
        for level in Level::ALL.into_iter().filter(|level| !self.gives(Call::Read, *level)) {
            let mut client = self.client(0);
            client.headers = vec![("synod-consistency".to_owned(), level.name().to_owned())];
            self.is(self.contract.check(Call::Read, level), client.call("/v3/kv/range", &read));
        }
        if !self.gives(Call::Compare, Level::Linearizable) {
            let txn = json!({ "compare": [{ "key": base64("a"), "target": "VERSION" }] });
            self.is_refusal(Call::Compare, self.client(0).call("/v3/kv/txn", &txn));
        }
        if !self.gives(Call::Compact, Level::Linearizable) {
            self.is_refusal(
                Call::Compact,
                self.client(0).call("/v3/kv/compaction", &json!({ "revision": "1" })),
            );
        }
    }

    fn is_refusal(&self, call: Call, outcome: Result<Value, CallError>) {
        self.is(self.contract.check(call, Level::Linearizable), outcome);
    }

    fn is(&self, expected: Result<(), synod_server::status::Status>, outcome: Result<Value, CallError>) {
        let expected = expected.expect_err("the contract refuses it");
        match outcome {
            Err(CallError::Refused(reply)) => {
                assert_eq!(reply["code"], expected.code as u16, "{reply}");
                assert_eq!(reply["message"], *expected.message, "{reply}");
            }
            other => panic!("{}: {other:?}", expected.message),
        }
    }

    /// As many as the row promises are lost, the leader among them; the others serve on; they come back and catch up.
    fn losses(&mut self) {
        let losses = (self.kin.row.losses)(self.count(), &self.flags);
        let first = self.cluster.leader().unwrap_or(0);
        let lost: Vec<usize> = (first..first + losses).map(|member| member % self.count()).collect();
        for member in &lost {
            self.cluster.members[*member].kill();
        }
        let there: Vec<usize> = (0..self.count()).filter(|member| !lost.contains(member)).collect();
        for member in &there {
            self.put(*member, &format!("without-{member}"), "1");
        }
        for member in &lost {
            self.cluster.members[*member].start();
        }
        self.cluster.await_ready();
        for member in 0..self.count() {
            for from in &there {
                self.shows(member, &format!("without-{from}"), Some("1"));
            }
        }
    }

    /// After all were killed at once, all that was acknowledged is there.
    fn all_killed(&mut self) {
        self.put(0, "last", "1");
        for member in 0..self.count() {
            self.shows(member, "last", Some("1"));
        }
        for member in &mut self.cluster.members {
            member.kill();
        }
        for member in &mut self.cluster.members {
            member.start();
        }
        self.cluster.await_ready();
        for member in 0..self.count() {
            for key in ["from-0", "watched", "last"] {
                let value = if key == "watched" { "seen" } else { "1" };
                self.shows(member, key, Some(value));
            }
        }
        self.put(0, "afterwards", "1");
    }
}
