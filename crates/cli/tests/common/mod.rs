//! Members as real processes, and a client of their JSON gateway, for the tests of this folder.

#![allow(dead_code, unreachable_pub)] // Each test file uses its part.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The program under test.
pub const SYNOD: &str = env!("CARGO_BIN_EXE_synod");
/// Longer than anything here takes, on any machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Ports that nobody listens at, each given once: who is started again must find its own port free. So they lie below those that the
/// system takes for outgoing connections.
pub fn free_ports(count: usize) -> Vec<u16> {
    const LOWEST: u16 = 10_000;
    const PORTS: u32 = 22_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(97);
    let next = || LOWEST + (begin.wrapping_add(GIVEN.fetch_add(1, Relaxed)) % PORTS) as u16;
    // Asked, not taken: a socket that listens here would be inherited, for a moment, by whatever another test is about to start.
    let is_free = |port: &u16| TcpStream::connect(("127.0.0.1", *port)).is_err();
    std::iter::repeat_with(next).filter(is_free).take(count).collect()
}

/// Waits until `happened`, looking again and again; panics with `what` when it takes too long.
pub fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let started = Instant::now();
    while !happened() {
        assert!(started.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A cluster of processes on loopback, in a folder that is removed at the end.
pub struct Cluster {
    pub folder: tempfile::TempDir,
    pub members: Vec<MemberProcess>,
}

/// One process.
pub struct MemberProcess {
    pub name: String,
    pub client: u16,
    pub peer: u16,
    pub data: PathBuf,
    log: PathBuf,
    flags: Vec<String>,
    child: Option<Child>,
}

impl Cluster {
    /// Starts `count` members and waits until all of them serve.
    pub fn start(count: usize, extra: &[&str]) -> Cluster {
        let mut cluster = Cluster::prepare(count, extra);
        for member in &mut cluster.members {
            member.start();
        }
        cluster.await_ready();
        cluster
    }

    /// Lays a cluster out without starting it.
    pub fn prepare(count: usize, extra: &[&str]) -> Cluster {
        let folder = tempfile::tempdir().expect("a folder");
        let ports = free_ports(2 * count);
        let name = |i: usize| format!("m{i}");
        let list: Vec<String> =
            (0..count).map(|i| format!("{}=http://127.0.0.1:{}", name(i), ports[2 * i + 1])).collect();
        let members = (0..count).map(|i| {
            let (client, peer) = (ports[2 * i], ports[2 * i + 1]);
            let data = folder.path().join(name(i));
            let mut flags = vec![
                format!("--name={}", name(i)),
                format!("--data-dir={}", data.display()),
                format!("--listen-client-urls=http://127.0.0.1:{client}"),
                format!("--advertise-client-urls=http://127.0.0.1:{client}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-cluster={}", list.join(",")),
            ];
            flags.extend(extra.iter().map(|flag| (*flag).to_owned()));
            let log = folder.path().join(format!("{}.log", name(i)));
            MemberProcess { name: name(i), client, peer, data, log, flags, child: None }
        });
        let members = members.collect();
        Cluster { folder, members }
    }

    /// Lays out one member more, that is to join the running cluster: its flags name all members, itself included.
    pub fn lay_out_one_more(&mut self, extra: &[&str]) -> usize {
        let ports = free_ports(2);
        let (client, peer, name) = (ports[0], ports[1], format!("m{}", self.members.len()));
        let mut list: Vec<String> = self
            .members
            .iter()
            .map(|member| format!("{}=http://127.0.0.1:{}", member.name, member.peer))
            .collect();
        list.push(format!("{name}=http://127.0.0.1:{peer}"));
        let data = self.folder.path().join(&name);
        let mut flags = vec![
            format!("--name={name}"),
            format!("--data-dir={}", data.display()),
            format!("--listen-client-urls=http://127.0.0.1:{client}"),
            format!("--advertise-client-urls=http://127.0.0.1:{client}"),
            format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
            format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
            format!("--initial-cluster={}", list.join(",")),
            "--initial-cluster-state=existing".to_owned(),
        ];
        flags.extend(extra.iter().map(|flag| (*flag).to_owned()));
        let log = self.folder.path().join(format!("{name}.log"));
        self.members.push(MemberProcess { name, client, peer, data, log, flags, child: None });
        self.members.len() - 1
    }

    /// Waits until every running member answers a linearizable read.
    pub fn await_ready(&mut self) {
        for i in 0..self.members.len() {
            if self.members[i].child.is_none() {
                continue;
            }
            let started = Instant::now();
            while !self.members[i].is_healthy() {
                let member = &mut self.members[i];
                let ended = member.child.as_mut().and_then(|child| child.try_wait().expect("a child"));
                assert!(
                    ended.is_none() && started.elapsed() < PATIENCE,
                    "{} does not serve: {}",
                    member.name,
                    member.log()
                );
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// `host:port` of every member.
    pub fn endpoints(&self) -> String {
        let all: Vec<_> = self.members.iter().map(|member| format!("127.0.0.1:{}", member.client)).collect();
        all.join(",")
    }

    /// Which member leads, as a running member sees it.
    pub fn leader(&self) -> Option<usize> {
        self.members.iter().filter(|member| member.child.is_some()).find_map(|member| {
            let status = member.client().call("/v3/maintenance/status", &json!({})).ok()?;
            if status["leader"].as_str()? != status["header"]["member_id"].as_str()? {
                return None;
            }
            self.members.iter().position(|other| other.name == member.name)
        })
    }

    /// The members' HashKV at a revision.
    pub fn hashes(&self, revision: i64) -> Vec<Value> {
        self.members
            .iter()
            .map(|member| {
                let mut hash = Value::Null;
                until("a member has caught up", || {
                    match member.client().call("/v3/maintenance/hash", &json!({ "revision": revision })) {
                        Ok(reply) => {
                            hash = reply["hash"].clone();
                            true
                        }
                        Err(_) => false,
                    }
                });
                hash
            })
            .collect()
    }
}

impl MemberProcess {
    /// Starts the process; what it says is added to its log.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        self.child = Some(self.spawn());
    }

    fn spawn(&self) -> Child {
        let log = File::options().create(true).append(true).open(&self.log).expect("a log");
        let mut command = Command::new(SYNOD);
        command.arg("serve").args(&self.flags).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        quiet(&mut command).spawn().expect("the program starts")
    }

    /// Starts the process with one flag more, now and whenever it is started again.
    pub fn start_with(&mut self, flag: &str) {
        self.flags.push(flag.to_owned());
        self.start();
    }

    /// Adds flags for whenever it is started.
    pub fn add_flags(&mut self, flags: &[String]) {
        self.flags.extend_from_slice(flags);
    }

    /// Starts the process with one flag more, and gives what it said when it ended.
    pub fn run_to_the_end(&self, flag: &str) -> (ExitStatus, String) {
        let mut command = Command::new(SYNOD);
        command.arg("serve").args(&self.flags).arg(flag).stdin(Stdio::null());
        ended(&mut command)
    }

    /// Ends it without a warning.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("killed");
            child.wait().expect("gone");
        }
    }

    /// Stops or continues the process, as a machine that hangs would.
    pub fn signal(&self, name: &str) {
        let id = self.child.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().expect("kill").success());
    }

    /// Asks it to end, and gives its exit status.
    pub fn terminate(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let id = child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill").success());
        let mut status = None;
        until("the member ends", || {
            status = child.try_wait().expect("a child");
            status.is_some()
        });
        status.expect("it has ended")
    }

    /// Waits for an end that nobody asked for, and gives its exit status.
    pub fn ended_by_itself(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let mut status = None;
        until("the member ends", || {
            status = child.try_wait().expect("a child");
            status.is_some()
        });
        status.expect("it has ended")
    }

    /// The process's number.
    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    pub fn client(&self) -> Client {
        Client::at(self.client, Duration::from_secs(3))
    }

    pub fn is_healthy(&self) -> bool {
        self.client().get("/health").is_ok_and(|page| page.contains("\"true\""))
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for MemberProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Without the `ETCD_*` variables of whoever runs the tests.
pub fn quiet(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ETCD") || name == "SYNOD_LOG") {
        command.env_remove(name);
    }
    command
}

/// Runs a program that is to end by itself: its status, and all that it said.
pub fn ended(command: &mut Command) -> (ExitStatus, String) {
    let mut child = quiet(command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut status = None;
    until("the program ends", || {
        status = child.try_wait().expect("a child");
        status.is_some()
    });
    let mut said = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut said).expect("text");
    child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
    (status.expect("it has ended"), said)
}

/// A client of the JSON gateway, over one connection.
pub struct Client {
    port: u16,
    stream: Option<BufReader<TcpStream>>,
    pub timeout: Duration,
    /// Sent with every call.
    pub headers: Vec<(String, String)>,
    /// `synod-session` of the last reply.
    pub token: Option<String>,
    /// `synod-confirmations` of the last reply.
    pub confirmations: Option<String>,
}

/// Why a call gave no answer, or a bad one.
#[derive(Debug)]
pub enum CallError {
    /// The outcome is unknown.
    Lost(String),
    /// The server said no.
    Refused(Value),
}

impl Client {
    /// A client of the member at this port.
    pub fn at(port: u16, timeout: Duration) -> Client {
        Client { port, stream: None, timeout, headers: Vec::new(), token: None, confirmations: None }
    }

    /// Calls a method.
    pub fn call(&mut self, path: &str, request: &Value) -> Result<Value, CallError> {
        let body = request.to_string();
        let lost = |why: std::io::Error| CallError::Lost(why.to_string());
        let (status, text) = self.exchange("POST", path, &body).map_err(lost)?;
        let reply: Value = serde_json::from_str(&text).map_err(|why| CallError::Lost(why.to_string()))?;
        if status == 200 { Ok(reply) } else { Err(CallError::Refused(reply)) }
    }

    /// Gets a page.
    pub fn get(&mut self, path: &str) -> std::io::Result<String> {
        self.exchange("GET", path, "").map(|(_, text)| text)
    }

    /// Sets a key; its revision.
    pub fn put(&mut self, key: &str, value: &str) -> Result<i64, CallError> {
        let reply = self.call("/v3/kv/put", &json!({ "key": base64(key), "value": base64(value) }))?;
        Ok(number(&reply["header"]["revision"]))
    }

    /// Reads a key.
    pub fn read(&mut self, key: &str) -> Result<Option<String>, CallError> {
        let reply = self.call("/v3/kv/range", &json!({ "key": base64(key) }))?;
        Ok(reply["kvs"][0]["value"].as_str().map(str::to_owned))
    }

    fn exchange(&mut self, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
        let outcome = self.try_exchange(method, path, body);
        if outcome.is_err() {
            self.stream = None;
        }
        outcome
    }

    fn try_exchange(&mut self, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(self.timeout))?;
            stream.set_write_timeout(Some(self.timeout))?;
            stream.set_nodelay(true)?;
            self.stream = Some(BufReader::new(stream));
        }
        let stream = self.stream.as_mut().expect("it was just made");
        let headers: String =
            self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        (self.token, self.confirmations) = (None, None);
        stream.get_mut().write_all(request.as_bytes())?;
        let broken = |what: &str| std::io::Error::other(what.to_owned());
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(broken("the connection was closed"));
        }
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status: u16 = status.ok_or_else(|| broken("no status"))?;
        let mut length = None;
        let mut chunked = false;
        loop {
            line.clear();
            stream.read_line(&mut line)?;
            let header = line.trim().to_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse::<usize>().ok();
            }
            if let Some(value) = header.strip_prefix("synod-session:") {
                self.token = Some(value.trim().to_owned());
            }
            if let Some(value) = header.strip_prefix("synod-confirmations:") {
                self.confirmations = Some(value.trim().to_owned());
            }
            chunked |= header == "transfer-encoding: chunked";
        }
        let mut body = Vec::new();
        if chunked {
            loop {
                line.clear();
                stream.read_line(&mut line)?;
                let size = usize::from_str_radix(line.trim(), 16).map_err(|_| broken("no chunk"))?;
                let start = body.len();
                body.resize(start + size, 0);
                stream.read_exact(&mut body[start..])?;
                line.clear();
                stream.read_line(&mut line)?;
                if size == 0 {
                    // Trailers may stand before the last empty line.
                    while !line.trim().is_empty() {
                        line.clear();
                        stream.read_line(&mut line)?;
                    }
                    break;
                }
            }
        } else {
            body.resize(length.ok_or_else(|| broken("no length"))?, 0);
            stream.read_exact(&mut body)?;
        }
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

/// A number that the gateway wrote as text; 0 where it left it out.
pub fn number(value: &Value) -> i64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Base64, as the gateway wants its bytes.
pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in bytes.as_ref().chunks(3) {
        let bits =
            three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for i in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= three.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

/// Whether a program can be started.
pub fn is_installed(program: &str, argument: &str) -> bool {
    Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// A folder beside the checkout, if it is there.
pub fn shared(path: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared").join(path);
    root.exists().then_some(root)
}
