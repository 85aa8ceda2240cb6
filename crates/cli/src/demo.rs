//! `synod demo`: a few members in one process, to try things out, with any protocol of the family.
//!
//! Their data stays in a folder that is printed; the ports that the members reach one another at are part of
//! the cluster's identity, so they are chosen once and kept there. The clients' ports may differ from run to run.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Arg, ArgMatches, Args, FromArgMatches};
use synod_server::Member;
use synod_server::config::{LogFormat, LogOutput, Settings, Values};
use synod_server::contract::{Call, Contract, Level};
use synod_server::protocol::{self, FAMILY, Kin};

use crate::serve::stop_on_signals;
use crate::{keygen, logging};

/// Run a few members in this process
#[derive(Args, Default)]
pub(crate) struct Options {
    /// The replication protocol [default: raft]
    #[arg(long, value_name = "NAME")]
    protocol: Option<String>,
    /// How many members [default: what is usual for the protocol]
    #[arg(long, value_name = "COUNT")]
    members: Option<usize>,
    /// Where the data lives [default: synod/demo in the user's data folder]
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// What to log: error, warn, info or debug [default: warn]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    #[command(flatten)]
    flags: ProtocolFlags,
}

/// The flags that protocols have for themselves, as `synod serve` has them.
#[derive(Default)]
struct ProtocolFlags(Vec<(&'static str, String)>);

impl Args for ProtocolFlags {
    fn augment_args(mut command: clap::Command) -> clap::Command {
        let mut seen = Vec::new();
        for flag in FAMILY.iter().flat_map(|kin| kin.row.flags) {
            if seen.contains(&flag.name) {
                continue;
            }
            seen.push(flag.name);
            let help = format!("{} [of {}]", flag.help, protocol::owners(flag.name).join(", "));
            let argument = Arg::new(flag.name).long(flag.name).value_name("VALUE").help(help);
            command = command.arg(argument.help_heading("Flags that some protocols have for themselves"));
        }
        command
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ProtocolFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given: Vec<(&'static str, String)> = Vec::new();
        for flag in FAMILY.iter().flat_map(|kin| kin.row.flags) {
            if let Some(value) = matches.get_one::<String>(flag.name)
                && given.iter().all(|(name, _)| *name != flag.name)
            {
                given.push((flag.name, value.clone()));
            }
        }
        Ok(ProtocolFlags(given))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// More members than this in one process would only be slow.
const MEMBERS_MAX: usize = 15;
/// etcd's own ports for the first member, and the habit of its examples for the others.
const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
const PORT_STEP: u16 = 10_000;
const PORT_OFFSET: u16 = 10_000;
const PORTS_FILE: &str = "peer-ports";

/// Where member `i` would like to be: 2379, 22379, 32379, 42379, 52379; anywhere from the sixth on.
fn preferred(first: u16, count: usize) -> Vec<u16> {
    let port = |i: u16| match i {
        0 => first,
        1..=4 => first + PORT_OFFSET + PORT_STEP * i,
        _ => 0,
    };
    (0..count).map(|i| port(u16::try_from(i).unwrap_or(u16::MAX))).collect()
}

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
    let kin = protocol::find(options.protocol.as_deref().unwrap_or("raft"))?;
    let count = options.members.unwrap_or(kin.row.sizes.usual);
    if !(1..=MEMBERS_MAX).contains(&count) {
        bail!("--members={count}: allowed is a whole number from 1 to {MEMBERS_MAX}");
    }
    kin.row.check_size(count).with_context(|| format!("--members={count}"))?;
    let folder = options.data_dir.clone().unwrap_or_else(|| default_folder(kin));
    fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let peers = peer_ports(&folder, count)?;
    let clients = free_ports(&preferred(CLIENT_PORT, count), &peers).context("no free ports for clients")?;
    let settings: Result<Vec<_>> =
        (0..count).map(|i| settings(options, kin, &folder, i, &peers, &clients)).collect();
    let settings = settings?;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let greeting = greeting(&settings[0], &folder, &clients);
        let mut members: Vec<Member> = settings.into_iter().map(Member::start).collect();
        tokio::spawn(stop_on_signals(members.iter().map(Member::stopper).collect()));
        let ready: Vec<_> = members.iter_mut().filter_map(Member::take_ready).collect();
        tokio::spawn(async move {
            for member in ready {
                if member.await.is_err() {
                    return;
                }
            }
            println!("{greeting}");
        });
        // Whatever ends one member ends the demo: a cluster that misses one would only confuse.
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

fn default_folder(kin: &Kin) -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = variable("XDG_DATA_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/share")));
    let folder = match kin.row.name {
        "raft" => "demo".to_owned(),
        other => format!("demo-{other}"),
    };
    data.unwrap_or_else(std::env::temp_dir).join("synod").join(folder)
}

/// The peers' ports: those of the first run, or free ones that are written down.
fn peer_ports(folder: &Path, count: usize) -> Result<Vec<u16>> {
    let file = folder.join(PORTS_FILE);
    match fs::read_to_string(&file) {
        Ok(text) => {
            let ports: Result<Vec<u16>, _> = text.split_whitespace().map(str::parse).collect();
            let Ok(ports) = ports else {
                bail!("{} does not hold ports: delete the folder to start afresh", file.display());
            };
            if ports.len() != count {
                bail!(
                    "the data in {} belongs to {} members, not to {count}: say --members={} or choose another --data-dir",
                    folder.display(),
                    ports.len(),
                    ports.len()
                );
            }
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
            let ports =
                free_ports(&preferred(PEER_PORT, count), &[]).context("no free ports for the members")?;
            let text = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(" ");
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
fn free_ports(preferred: &[u16], taken: &[u16]) -> Result<Vec<u16>> {
    let mut chosen = preferred.to_vec();
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

fn settings(
    options: &Options,
    kin: &Kin,
    folder: &Path,
    i: usize,
    peers: &[u16],
    clients: &[u16],
) -> Result<Settings> {
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
        ("protocol", kin.row.name.to_owned()),
    ]);
    let mut values = Values::default();
    for (flag, value) in flags {
        values.set(flag, &value)?;
    }
    if kin.row.flags.iter().any(|flag| flag.name == "pbft-key") {
        let names: Vec<String> = (0..peers.len()).map(name).collect();
        for (flag, value) in keygen::flags_for(&name(i), &names, &folder.join("keys"))? {
            values.set(flag, &value)?;
        }
    }
    for (flag, value) in &options.flags.0 {
        values.set(flag, value)?;
    }
    Ok(Settings::from_values(&values, "synod")?)
}

fn greeting(settings: &Settings, folder: &Path, clients: &[u16]) -> String {
    let row = &settings.protocol.row;
    let survives = match (row.losses)(clients.len(), &settings.protocol_flags) {
        0 => "needs all of them".to_owned(),
        1 => "survives the loss of any one".to_owned(),
        many => format!("survives the loss of any {many}"),
    };
    let (count, about) = (clients.len(), row.about);
    let endpoints: Vec<_> = clients.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let (all, first) = (endpoints.join(","), &endpoints[0]);
    let contract = Contract::of(settings.protocol, &settings.protocol_flags);
    // Within what the protocol gives.
    let (stale, json) = match contract.check(Call::Read, Level::Linearizable) {
        Ok(()) => ("", ""),
        Err(_) => (" --consistency=s", ",\"serializable\":true"),
    };
    let patient = if contract.offer.confirmations.is_some() { " --command-timeout=2m" } else { "" };
    format!(
        "\n{count} member{} of one cluster run in this process; it {survives}.\n\
         {about}.\n\
         \n  clients   {}\n  data      {}\n\
         \nTry, in another terminal:\n\
         \n  export ETCDCTL_API=3 ETCDCTL_ENDPOINTS={all}\n\
         \n  etcdctl put{patient} greeting hello\
         \n  etcdctl get greeting{stale}\
         \n  etcdctl watch --prefix g\
         \n  etcdctl endpoint status -w table\n\
         \n  curl -s http://{first}/v3/kv/put   -d '{{\"key\":\"Z3JlZXRpbmc=\",\"value\":\"aGVsbG8=\"}}'\
         \n  curl -s http://{first}/v3/kv/range -d '{{\"key\":\"Z3JlZXRpbmc=\"{json}}}'\
         \n  curl -s http://{first}/health\n\
         \nCtrl-C ends it; starting it again finds the data. To start afresh, delete the data folder.",
        if count == 1 { "" } else { "s" },
        endpoints.iter().map(|endpoint| format!("http://{endpoint}")).collect::<Vec<_>>().join("  "),
        folder.display(),
    )
}
