//! Clusters of real processes on loopback: ours, or a real etcd's, started by the same flags.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use synod_api::Method;
use synod_api::etcdserverpb as pb;
use tempfile::TempDir;

use crate::client::call;
use crate::process::{Usage, usage};

/// How long a cluster may take to serve.
const START_MAX: Duration = Duration::from_secs(120);

/// Whose members they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contender {
    /// What it is called in tables.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Words between the program and the flags.
    pub words: Vec<String>,
    /// Further flags.
    pub flags: Vec<String>,
    /// Whether its members prove with keys who they are: they are made with the program's `keygen`.
    pub needs_keys: bool,
}

impl Contender {
    /// Ours: this very program.
    ///
    /// # Errors
    /// When the system does not tell which program this is.
    pub fn synod() -> Result<Contender> {
        let program = std::env::current_exe().context("which program is this?")?;
        let version = env!("CARGO_PKG_VERSION");
        Ok(Contender {
            name: format!("synod {version}"),
            program,
            words: vec!["serve".to_owned()],
            flags: Vec::new(),
            needs_keys: false,
        })
    }

    /// A real etcd, asked for its version.
    ///
    /// # Errors
    /// When there is no such program, or it is not etcd.
    pub fn etcd(program: &Path) -> Result<Contender> {
        let output = Command::new(program)
            .arg("--version")
            .output()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.lines().find_map(|line| line.strip_prefix("etcd Version: "));
        let Some(version) = version else { bail!("{} does not say that it is etcd", program.display()) };
        Ok(Contender {
            name: format!("etcd {}", version.trim()),
            program: program.to_owned(),
            words: Vec::new(),
            flags: Vec::new(),
            needs_keys: false,
        })
    }
}

/// A running cluster; its processes end and its folder goes with it.
pub struct Cluster {
    folder: TempDir,
    members: Vec<Member>,
}

struct Member {
    client: SocketAddr,
    command: Vec<String>,
    child: Option<Child>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.members.iter_mut().for_each(Member::kill);
    }
}

impl Member {
    fn start(&mut self, log: &Path) -> Result<()> {
        let log = File::options().create(true).append(true).open(log)?;
        let child = Command::new(&self.command[0])
            .args(&self.command[1..])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {}", self.command[0]))?;
        self.child = Some(child);
        Ok(())
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Makes each member's folder, with its secret key and everybody's public ones where it looks for them.
fn make_keys(contender: &Contender, count: usize, folder: &Path) -> Result<()> {
    let made = folder.join("keys");
    let names: Vec<String> = (0..count).map(|i| format!("m{i}")).collect();
    let keygen =
        Command::new(&contender.program).arg("keygen").args(&names).arg("--into").arg(&made).output();
    let keygen = keygen.with_context(|| format!("cannot run {}", contender.program.display()))?;
    if !keygen.status.success() {
        bail!("no keys: {}", String::from_utf8_lossy(&keygen.stderr));
    }
    for name in &names {
        let own = folder.join(name);
        fs::DirBuilder::new().mode(0o700).create(&own)?;
        fs::copy(made.join(format!("{name}.key")), own.join("pbft.key"))?;
        fs::copy(made.join("pbft.keys"), own.join("pbft.keys"))?;
    }
    Ok(())
}

impl Cluster {
    /// Starts `count` members with their data below `folder` (a real disk's, for honest syncs), and waits until all serve.
    ///
    /// # Errors
    /// When they cannot be started, or do not serve in two minutes.
    pub async fn start(contender: &Contender, count: usize, folder: &Path) -> Result<Cluster> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        // What a cluster before left to be written is not written at this one's cost.
        rustix::fs::sync();
        let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(folder)?;
        let held: Vec<TcpListener> =
            (0..2 * count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
        let ports: Vec<u16> = held
            .iter()
            .map(|listener| listener.local_addr().map(|at| at.port()))
            .collect::<Result<_, _>>()?;
        drop(held);
        let list: Vec<String> =
            (0..count).map(|i| format!("m{i}=http://127.0.0.1:{}", ports[2 * i + 1])).collect();
        let members = (0..count).map(|i| {
            let (client, peer) = (ports[2 * i], ports[2 * i + 1]);
            let mut command = vec![contender.program.to_string_lossy().into_owned()];
            command.extend(contender.words.iter().cloned());
            command.extend([
                format!("--name=m{i}"),
                format!("--data-dir={}", folder.path().join(format!("m{i}")).display()),
                format!("--listen-client-urls=http://127.0.0.1:{client}"),
                format!("--advertise-client-urls=http://127.0.0.1:{client}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-cluster={}", list.join(",")),
                "--quota-backend-bytes=8589934592".to_owned(),
            ]);
            command.extend(contender.flags.iter().cloned());
            Member { client: SocketAddr::from(([127, 0, 0, 1], client)), command, child: None }
        });
        let members = members.collect();
        if contender.needs_keys {
            make_keys(contender, count, folder.path())?;
        }
        let mut cluster = Cluster { folder, members };
        for at in 0..count {
            cluster.start_member(at)?;
        }
        cluster.wait_until_served().await?;
        Ok(cluster)
    }

    /// Starts a member that is down.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_member(&mut self, at: usize) -> Result<()> {
        let log = self.folder.path().join(format!("m{at}.log"));
        self.members[at].start(&log)
    }

    /// `kill -9` of a member.
    pub fn kill(&mut self, at: usize) {
        self.members[at].kill();
    }

    /// `kill -9` of all.
    pub fn kill_all(&mut self) {
        self.members.iter_mut().for_each(Member::kill);
    }

    /// Where clients reach the members.
    #[must_use]
    pub fn endpoints(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|member| member.client).collect()
    }

    /// The processes that run.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.members.iter().filter_map(|member| member.child.as_ref().map(Child::id)).collect()
    }

    /// What the members have used.
    ///
    /// # Errors
    /// When one of them has ended.
    pub fn usage(&self) -> Result<Usage> {
        usage(&self.pids()).map_err(|why| anyhow::anyhow!(why))
    }

    /// The member that leads, as the others see it too.
    ///
    /// # Errors
    /// When nobody answers, or nobody leads.
    pub async fn leader(&self) -> Result<usize> {
        let mut last = None;
        for (at, member) in self.members.iter().enumerate().filter(|(_, member)| member.child.is_some()) {
            match call::<pb::StatusResponse>(member.client, Method::Status, &pb::StatusRequest {}).await {
                Ok(status) => {
                    let own = status.header.as_ref().map_or(0, |header| header.member_id);
                    if status.leader != 0 && status.leader == own {
                        return Ok(at);
                    }
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no member leads")))
    }

    /// Waits until every member that runs has carried out a put.
    ///
    /// # Errors
    /// When that takes two minutes; with the end of a member's log.
    pub async fn wait_until_served(&self) -> Result<()> {
        let deadline = Instant::now() + START_MAX;
        let put = pb::PutRequest { key: "served".into(), ..pb::PutRequest::default() };
        for (at, member) in self.members.iter().enumerate().filter(|(_, member)| member.child.is_some()) {
            while let Err(error) = call::<pb::PutResponse>(member.client, Method::Put, &put).await {
                if Instant::now() > deadline {
                    let log = fs::read_to_string(self.folder.path().join(format!("m{at}.log")));
                    let log = log.unwrap_or_default();
                    let tail: Vec<&str> = log.lines().rev().take(5).collect();
                    let tail: Vec<&str> = tail.into_iter().rev().collect();
                    bail!("member {at} does not serve ({error:#}); its log ends:\n{}", tail.join("\n"));
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(())
    }
}
