//! A data folder with promises in it, copies of it to spoil, and what a member makes of a spoilt one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::json;

use crate::common::{Client, Cluster, PATIENCE, SYNOD, base64, free_ports, number, quiet};

/// Short timeouts: a member alone elects itself within this.
pub(crate) const QUICK: [&str; 2] = ["--heartbeat-interval=5", "--election-timeout=25"];

/// What a stopped member has left, and what it had promised.
pub(crate) struct Specimen {
    /// Holds the folder in place.
    cluster: Cluster,
    data: PathBuf,
    /// Every acknowledged key with its value in base64 and its revision, ascending.
    acknowledged: Vec<(String, String, i64)>,
    token: &'static str,
}

/// A process that does not outlive its test.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn start(command: &mut Command) -> Running {
        Running(quiet(command).spawn().expect("it starts"))
    }

    /// Its exit status, when it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("a child")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How a specimen came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Orderly,
    Killed,
}

/// What became of a start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It serves, and everything acknowledged is there.
    Whole,
    /// It ended with an error, and said this.
    Refused(String),
}

impl Specimen {
    /// A member that took `puts` values of `bytes` bytes each, and ended so.
    pub(crate) fn make(token: &'static str, puts: usize, bytes: usize, extra: &[&str], end: End) -> Specimen {
        let flag = format!("--initial-cluster-token={token}");
        let flags = [&QUICK[..], extra, &[flag.as_str()]].concat();
        let mut cluster = Cluster::start(1, &flags);
        let mut client = cluster.members[0].client();
        client.timeout = PATIENCE;
        let acknowledged = (0..puts).map(|i| {
            let (key, value) = (format!("key-{i:05}"), format!("{i:08}{}", "v".repeat(bytes)));
            let revision = client.put(&key, &value).expect("acknowledged");
            (base64(&key), base64(&value), revision)
        });
        let acknowledged = acknowledged.collect();
        match end {
            End::Orderly => assert!(cluster.members[0].terminate().success()),
            End::Killed => cluster.members[0].kill(),
        }
        let data = cluster.members[0].data.clone();
        Specimen { cluster, data, acknowledged, token }
    }

    /// The names of the files in it whose name begins so, in order.
    pub(crate) fn files(&self, prefix: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&self.data)
            .expect("a folder")
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.starts_with(prefix))
            .collect();
        names.sort();
        names
    }

    /// The content of a file.
    pub(crate) fn content(&self, name: &str) -> Vec<u8> {
        fs::read(self.data.join(name)).expect("a file")
    }

    /// A copy of the folder, spoilt by `spoil`, which must leave the member with what it promised, or without a start.
    pub(crate) fn spoilt(&self, spoil: impl FnOnce(&Path)) -> Outcome {
        let home = tempfile::tempdir().expect("a folder");
        let data = home.path().join("data");
        fs::create_dir(&data).expect("made");
        for name in self.files("") {
            fs::copy(self.data.join(&name), data.join(&name)).expect("copied");
        }
        spoil(&data);
        self.judge(home.path(), &data)
    }

    /// Starts a member in the folder `data`, and looks until it serves or has ended.
    fn judge(&self, home: &Path, data: &Path) -> Outcome {
        let ports = free_ports(2);
        let said = home.join("said");
        let mut command = Command::new(SYNOD);
        command
            .arg("serve")
            .args(QUICK)
            // No identity beside the token: the peer addresses differ from start to start, and the folder remembers its own.
            .arg(format!("--data-dir={}", data.display()))
            .args(["--name=m0", "--log-format=console"])
            .arg(format!("--listen-client-urls=http://127.0.0.1:{}", ports[0]))
            .arg(format!("--advertise-client-urls=http://127.0.0.1:{}", ports[0]))
            .arg(format!("--listen-peer-urls=http://127.0.0.1:{}", ports[1]))
            .arg(format!("--initial-advertise-peer-urls=http://127.0.0.1:{}", self.cluster.members[0].peer))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&said).expect("a file"));
        let mut member = Running(
            quiet(&mut command).env("ETCD_INITIAL_CLUSTER_TOKEN", self.token).spawn().expect("it starts"),
        );
        let told = || fs::read_to_string(&said).unwrap_or_default();
        let started = std::time::Instant::now();
        let status = loop {
            if let Some(status) = member.ended() {
                break Some(status);
            }
            let mut client = Client::at(ports[0], PATIENCE);
            if client.get("/health").is_ok_and(|page| page.contains("\"true\"")) {
                break None;
            }
            assert!(started.elapsed() < PATIENCE, "neither serves nor ends: {}", told());
            std::thread::sleep(std::time::Duration::from_millis(2));
        };
        let found = status.is_none().then(|| everything(&mut Client::at(ports[0], PATIENCE)));
        drop(member);
        let told = told();
        assert!(!told.contains("panicked"), "{told}");
        match (status, found) {
            (Some(status), _) => {
                assert!(status.code().is_some_and(|code| code != 0), "{status}: {told}");
                Outcome::Refused(told)
            }
            (None, found) => {
                assert_eq!(found.as_ref(), Some(&self.acknowledged), "promises were broken: {told}");
                Outcome::Whole
            }
        }
    }

    pub(crate) fn acknowledged(&self) -> &[(String, String, i64)] {
        &self.acknowledged
    }
}

/// All keys of a member: key, value, revision.
pub(crate) fn everything(client: &mut Client) -> Vec<(String, String, i64)> {
    let all = json!({ "key": base64(b"\0"), "range_end": base64(b"\0") });
    let answer = client.call("/v3/kv/range", &all).expect("a range of everything");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    answer["kvs"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|kv| (text(&kv["key"]), text(&kv["value"]), number(&kv["mod_revision"])))
        .collect()
}
