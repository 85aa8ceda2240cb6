//! `synod demo`: three members in one process, to try things out.
//!
//! Their data stays in a folder that is printed; the ports that the members reach one another at are part of
//! the cluster's identity, so they are chosen once and kept there. The clients' ports may differ from run to run.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use synod_server::Member;
use synod_server::config::{LogFormat, LogOutput, Settings, Values};

use crate::logging;
use crate::serve::stop_on_signals;

/// Run three members in this process
#[derive(Args, Default)]
pub(crate) struct Options {
    /// Where the data lives [default: synod/demo in the user's data folder]
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// What to log: error, warn, info or debug [default: warn]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

const MEMBERS: usize = 3;
/// etcd's own ports for the first member, and the habit of its examples for the others.
const CLIENT_PORTS: [u16; MEMBERS] = [2379, 22379, 32379];
const PEER_PORTS: [u16; MEMBERS] = [2380, 22380, 32380];
const PORTS_FILE: &str = "peer-ports";

/// Runs the demo until a signal ends it.
pub(crate) fn run(options: &Options) -> ExitCode {
    match try_run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(wrong) => {
            eprintln!("synod demo: {wrong:#}");
            ExitCode::FAILURE
        }
    }
}

fn try_run(options: &Options) -> Result<()> {
    let level = options.log_level.as_deref().unwrap_or("warn");
    if !["error", "warn", "info", "debug"].contains(&level) {
        bail!("--log-level={level}: allowed is error, warn, info or debug");
    }
    logging::start(level, LogFormat::Console, LogOutput::Stderr);
    let folder = options.data_dir.clone().unwrap_or_else(default_folder);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let peers = peer_ports(&folder)?;
    let clients = free_ports(CLIENT_PORTS, &peers).context("no free ports for clients")?;
    let settings: Result<Vec<_>> = (0..MEMBERS).map(|i| settings(&folder, i, &peers, &clients)).collect();

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut members: Vec<Member> = settings?.into_iter().map(Member::start).collect();
        tokio::spawn(stop_on_signals(members.iter().map(Member::stopper).collect()));
        let ready: Vec<_> = members.iter_mut().filter_map(Member::take_ready).collect();
        let greeting = greeting(&folder, &clients);
        tokio::spawn(async move {
            for member in ready {
                if member.await.is_err() {
                    return;
                }
            }
            println!("{greeting}");
        });
        // Whatever ends one member ends the demo: a cluster of three that misses one would only confuse.
        let mut trouble = None;
        for at in 0..members.len() {
            if let Err(wrong) = members[at].ended().await {
                members.iter().for_each(|member| member.stopper().stop());
                trouble.get_or_insert(wrong);
            }
        }
        match trouble {
            None => {
                println!("All members have ended in good order. Starting again finds the data.");
                Ok(())
            }
            Some(wrong) => Err(wrong.into()),
        }
    })
}

fn default_folder() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = variable("XDG_DATA_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/share")));
    data.unwrap_or_else(std::env::temp_dir).join("synod").join("demo")
}

/// The peers' ports: those of the first run, or free ones that are written down.
fn peer_ports(folder: &Path) -> Result<[u16; MEMBERS]> {
    let file = folder.join(PORTS_FILE);
    match fs::read_to_string(&file) {
        Ok(text) => {
            let ports: Vec<u16> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            let ports = <[u16; MEMBERS]>::try_from(ports);
            let Ok(ports) = ports else {
                bail!("{} does not hold {MEMBERS} ports: delete the folder to start afresh", file.display());
            };
            if let Some(taken) = ports.iter().find(|port| !is_free(**port)) {
                bail!(
                    "port {taken} is in use, and the data in {} belongs to it: is another demo running? \
                     (--data-dir chooses another folder)",
                    folder.display()
                );
            }
            Ok(ports)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let ports = free_ports(PEER_PORTS, &[]).context("no free ports for the members")?;
            let text = ports.map(|port| port.to_string()).join(" ");
            fs::write(&file, text + "\n").with_context(|| format!("cannot write {}", file.display()))?;
            Ok(ports)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// The preferred ports where they are free, others elsewhere.
fn free_ports(preferred: [u16; MEMBERS], taken: &[u16]) -> Result<[u16; MEMBERS]> {
    let mut chosen = preferred;
    // Held until all are chosen, so that the system does not hand out one of them twice.
    let mut held = Vec::new();
    for port in &mut chosen {
        let listener = match TcpListener::bind(("127.0.0.1", *port)) {
            Ok(listener) if !taken.contains(port) => listener,
            _ => loop {
                let other = TcpListener::bind(("127.0.0.1", 0))?;
                if !taken.contains(&other.local_addr()?.port()) {
                    break other;
                }
            },
        };
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(chosen)
}

fn name(i: usize) -> String {
    format!("m{}", i + 1)
}

fn settings(folder: &Path, i: usize, peers: &[u16], clients: &[u16]) -> Result<Settings> {
    let cluster: Vec<_> =
        peers.iter().enumerate().map(|(i, port)| format!("{}=http://127.0.0.1:{port}", name(i))).collect();
    let client = format!("http://127.0.0.1:{}", clients[i]);
    let peer = format!("http://127.0.0.1:{}", peers[i]);
    let flags = BTreeMap::from([
        ("name", name(i)),
        ("data-dir", folder.join(name(i)).to_string_lossy().into_owned()),
        ("listen-client-urls", client.clone()),
        ("advertise-client-urls", client),
        ("listen-peer-urls", peer.clone()),
        ("initial-advertise-peer-urls", peer),
        ("initial-cluster", cluster.join(",")),
        ("initial-cluster-token", "synod-demo".to_owned()),
    ]);
    let mut values = Values::default();
    for (flag, value) in flags {
        values.set(flag, &value)?;
    }
    Ok(Settings::from_values(&values, "synod")?)
}

fn greeting(folder: &Path, clients: &[u16]) -> String {
    let endpoints: Vec<_> = clients.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let (all, first) = (endpoints.join(","), &endpoints[0]);
    format!(
        "\nThree members are running in this process: a cluster that survives the loss of any one.\n\
         \n  clients   {}\n  data      {}\n\
         \nTry, in another terminal:\n\
         \n  export ETCDCTL_API=3 ETCDCTL_ENDPOINTS={all}\n\
         \n  etcdctl put greeting hello\
         \n  etcdctl get greeting\
         \n  etcdctl watch --prefix g\
         \n  etcdctl endpoint status -w table\n\
         \n  curl -s http://{first}/v3/kv/put   -d '{{\"key\":\"Z3JlZXRpbmc=\",\"value\":\"aGVsbG8=\"}}'\
         \n  curl -s http://{first}/v3/kv/range -d '{{\"key\":\"Z3JlZXRpbmc=\"}}'\
         \n  curl -s http://{first}/health\n\
         \nCtrl-C ends it; starting it again finds the data. To start afresh, delete the data folder.",
        endpoints.iter().map(|endpoint| format!("http://{endpoint}")).collect::<Vec<_>>().join("  "),
        folder.display(),
    )
}
