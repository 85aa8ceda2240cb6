//! What a member works with: every value checked, on its own and against the others.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::ConfigError;
use super::address::{self, Address};
use super::cluster::InitialCluster;
use super::parse::Values;
use super::units;
use crate::protocol::{self, Chosen, Kin};

/// Everything that one member is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This member's name.
    pub name: String,
    /// Where its data lives.
    pub data_dir: PathBuf,
    /// Where it listens for clients.
    pub listen_clients: Vec<Address>,
    /// Where clients reach it.
    pub advertise_clients: Vec<Address>,
    /// Where it listens for the other members.
    pub listen_peers: Vec<Address>,
    /// Where it serves metrics and health in addition.
    pub listen_metrics: Vec<Address>,
    /// The members to start with; used only when the data folder is new.
    pub initial_cluster: InitialCluster,
    /// Whether somebody wrote the initial cluster or token down, rather than leaving it to the default.
    pub cluster_given: bool,
    /// Whether the cluster is being founded.
    pub cluster_state: ClusterState,
    /// Between a leader's heartbeats.
    pub heartbeat: Duration,
    /// Without a leader until an election.
    pub election_timeout: Duration,
    /// The replication protocol.
    pub protocol: &'static Kin,
    /// What was chosen for the protocol's own flags.
    pub protocol_flags: Chosen,
    /// Deliveries between snapshots, at least.
    pub snapshot_count: u64,
    /// Bytes of commands between snapshots, at least.
    pub snapshot_bytes: u64,
    /// The size that raises NOSPACE; none means no bound.
    pub quota_bytes: Option<u64>,
    /// Operations in a transaction, at most.
    pub txn_ops_max: usize,
    /// Bytes in a request, at most.
    pub request_bytes_max: usize,
    /// Streams on a client's connection, at most.
    pub streams_max: u32,
    /// What to compact without being asked.
    pub auto_compaction: AutoCompaction,
    /// Between two progress notices of an idle watch.
    pub watch_progress_interval: Duration,
    /// Origins that the gateway allows; `*` alone means all.
    pub cors: Vec<String>,
    /// Host names that the gateway answers to; `*` alone means all.
    pub host_whitelist: Vec<String>,
    /// How much `/metrics` tells.
    pub metrics: MetricsDetail,
    /// Applying for longer than this is logged.
    pub warning_apply: Duration,
    /// Whether listeners share their port.
    pub reuse_port: bool,
    /// Whether changes of the members that leave too few running ones are refused.
    pub strict_reconfig: bool,
    /// The least important level that is logged, in tracing's words.
    pub log_level: &'static str,
    /// How lines look.
    pub log_format: LogFormat,
    /// Where lines go.
    pub log_output: LogOutput,
}

/// Whether a cluster is being founded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterState {
    /// All members start together.
    New,
    /// The members are running already.
    Existing,
}

/// What to compact without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// Nothing.
    Off,
    /// Whatever is older than this.
    Periodic(Duration),
    /// All but this many newest revisions.
    Revision(i64),
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Console,
}

/// Where log lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogOutput {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
}

/// How much `/metrics` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsDetail {
    /// Without histograms of every method.
    Basic,
    /// With them.
    Extensive,
}

/// Largest quota that a signed flag can say.
const BYTES_MAX: i64 = 1 << 62;
/// etcd's own bound on `--election-timeout`.
const ELECTION_MS_MAX: i64 = 50_000;
/// A request larger than this would not fit into a peer frame with others.
const REQUEST_BYTES_MAX: i64 = 64 << 20;
/// The quota behind `--quota-backend-bytes=0`.
const QUOTA_DEFAULT: u64 = 2 << 30;

impl Settings {
    /// Checks the values. `suffix` names the default data folder: `NAME.suffix`.
    ///
    /// # Errors
    /// One sentence for the first thing that is wrong.
    pub fn from_values(values: &Values, suffix: &str) -> Result<Settings, ConfigError> {
        let name = values.get("name").to_owned();
        if name.is_empty() || name.contains([',', '=']) || name.chars().any(char::is_control) {
            return Err(ConfigError::new(format!(
                "--name='{name}': allowed is a non-empty name without commas, equals signs and control characters"
            )));
        }
        let (listen_clients, advertise_clients) = client_addresses(values)?;
        let (listen_peers, advertise_peers) = peer_addresses(values)?;
        let listen_metrics = address::list("listen-metrics-urls", values.get("listen-metrics-urls"))?;
        for metrics in &listen_metrics {
            metrics.to_bind("listen-metrics-urls")?;
        }
        no_port_twice(&listen_clients, &listen_peers, &listen_metrics)?;
        let initial_cluster = initial_cluster(values, &name, advertise_peers)?;
        let (heartbeat, election_timeout) = timeouts(values)?;
        let data_dir = match values.get("data-dir") {
            "" => PathBuf::from(format!("{name}.{suffix}")),
            given => PathBuf::from(given),
        };
        let (protocol, protocol_flags) = protocol(values)?;
        let number = |flag: &str, min: i64, max: i64| units::integer(flag, values.get(flag), min, max);
        let max_snapshots = number("max-snapshots", 0, i64::MAX)?;
        if max_snapshots == 1 {
            return Err(ConfigError::new(
                "--max-snapshots=1: allowed is 0 (no bound) or at least 2, for one may be on its way to disk",
            ));
        }
        let quota = match number("quota-backend-bytes", i64::MIN, BYTES_MAX)? {
            0 => Some(QUOTA_DEFAULT),
            below if below < 0 => None,
            bytes => Some(bytes.unsigned_abs()),
        };
        let watch_progress_interval = span(values, "watch-progress-notify-interval")?;
        if watch_progress_interval < Duration::from_millis(100) {
            return Err(ConfigError::new("--watch-progress-notify-interval: allowed is at least 100ms"));
        }
        Ok(Settings {
            name,
            data_dir,
            listen_clients,
            advertise_clients,
            listen_peers,
            listen_metrics,
            cluster_given: values.is_set("initial-cluster") || values.is_set("initial-cluster-token"),
            initial_cluster,
            cluster_state: match values.get("initial-cluster-state") {
                "new" => ClusterState::New,
                "existing" => ClusterState::Existing,
                other => return Err(one_of("initial-cluster-state", other, "new or existing")),
            },
            heartbeat,
            election_timeout,
            protocol,
            protocol_flags,
            snapshot_count: number("snapshot-count", 1, i64::MAX)?.unsigned_abs(),
            snapshot_bytes: number("snapshot-bytes", 1, i64::MAX)?.unsigned_abs(),
            quota_bytes: quota,
            txn_ops_max: number("max-txn-ops", 1, 1 << 20)? as usize,
            request_bytes_max: number("max-request-bytes", 1, REQUEST_BYTES_MAX)? as usize,
            streams_max: number("max-concurrent-streams", 1, u32::MAX.into())? as u32,
            auto_compaction: auto_compaction(values)?,
            watch_progress_interval,
            cors: words(values.get("cors")),
            host_whitelist: words(values.get("host-whitelist")),
            metrics: match values.get("metrics") {
                "basic" => MetricsDetail::Basic,
                "extensive" => MetricsDetail::Extensive,
                other => return Err(one_of("metrics", other, "basic or extensive")),
            },
            warning_apply: span(values, "warning-apply-duration")?,
            strict_reconfig: units::boolean("strict-reconfig-check", values.get("strict-reconfig-check"))?,
            reuse_port: units::boolean("socket-reuse-port", values.get("socket-reuse-port"))?,
            log_level: match values.get("log-level") {
                "debug" => "debug",
                "info" => "info",
                "warn" => "warn",
                "error" | "dpanic" | "panic" | "fatal" => "error",
                other => return Err(one_of("log-level", other, "debug, info, warn, error, panic or fatal")),
            },
            log_format: match values.get("log-format") {
                "json" => LogFormat::Json,
                "console" => LogFormat::Console,
                other => return Err(one_of("log-format", other, "json or console")),
            },
            log_output: match values.get("log-outputs") {
                "default" | "stderr" => LogOutput::Stderr,
                "stdout" => LogOutput::Stdout,
                other => return Err(one_of("log-outputs", other, "default, stderr or stdout")),
            },
        })
    }
}

fn one_of(flag: &str, value: &str, allowed: &str) -> ConfigError {
    ConfigError::new(format!("--{flag}={value}: allowed is {allowed}"))
}

fn span(values: &Values, flag: &str) -> Result<Duration, ConfigError> {
    units::duration(flag, values.get(flag))
}

fn words(text: &str) -> Vec<String> {
    let words: Vec<String> =
        text.split(',').map(str::trim).filter(|w| !w.is_empty()).map(str::to_owned).collect();
    if words.is_empty() { vec!["*".to_owned()] } else { words }
}

fn client_addresses(values: &Values) -> Result<(Vec<Address>, Vec<Address>), ConfigError> {
    let listen = address::bind_list("listen-client-urls", values.get("listen-client-urls"))?;
    if values.is_set("listen-client-urls") && !values.is_set("advertise-client-urls") {
        return Err(ConfigError::new(
            "--advertise-client-urls is required when --listen-client-urls is set: where do clients reach this member?",
        ));
    }
    let advertise = address::list("advertise-client-urls", values.get("advertise-client-urls"))?;
    if advertise.is_empty() {
        return Err(ConfigError::new(
            "--advertise-client-urls: there is no address; allowed is http://HOST:PORT,...",
        ));
    }
    Ok((listen, advertise))
}

fn peer_addresses(values: &Values) -> Result<(Vec<Address>, Vec<Address>), ConfigError> {
    let listen = address::bind_list("listen-peer-urls", values.get("listen-peer-urls"))?;
    let advertise = address::list("initial-advertise-peer-urls", values.get("initial-advertise-peer-urls"))?;
    if advertise.is_empty() {
        return Err(ConfigError::new(
            "--initial-advertise-peer-urls: there is no address; allowed is http://HOST:PORT,...",
        ));
    }
    Ok((listen, advertise))
}

fn no_port_twice(clients: &[Address], peers: &[Address], metrics: &[Address]) -> Result<(), ConfigError> {
    let lists =
        [("listen-client-urls", clients), ("listen-peer-urls", peers), ("listen-metrics-urls", metrics)];
    let mut seen: Vec<(std::net::SocketAddr, &str)> = Vec::new();
    for (flag, addresses) in lists {
        for address in addresses {
            let socket = address.to_bind(flag)?;
            let clash = seen.iter().find(|(other, _)| {
                other.port() == socket.port()
                    && (other.ip() == socket.ip()
                        || other.ip().is_unspecified()
                        || socket.ip().is_unspecified())
            });
            if let Some((_, other)) = clash {
                return Err(ConfigError::new(format!(
                    "--{flag}: '{address}': port {} is taken by --{other} already; each needs its own",
                    socket.port()
                )));
            }
            seen.push((socket, flag));
        }
    }
    Ok(())
}

fn initial_cluster(
    values: &Values,
    name: &str,
    mut advertise: Vec<Address>,
) -> Result<InitialCluster, ConfigError> {
    let token = values.get("initial-cluster-token");
    advertise.sort();
    let text = values.get("initial-cluster");
    if text.is_empty() {
        let alone = std::collections::BTreeMap::from([(name.to_owned(), advertise)]);
        return Ok(InitialCluster { token: token.to_owned(), members: alone });
    }
    let cluster = InitialCluster::parse(text, token)?;
    let Some(ours) = cluster.members.get(name) else {
        let names: Vec<_> = cluster.members.keys().map(String::as_str).collect();
        return Err(ConfigError::new(format!(
            "couldn't find local name \"{name}\" in the initial cluster configuration: --initial-cluster names {}",
            names.join(", ")
        )));
    };
    if *ours != advertise {
        return Err(ConfigError::new(format!(
            "--initial-cluster says {ours:?} for \"{name}\" but --initial-advertise-peer-urls says {advertise:?}: the two must be the same"
        )));
    }
    Ok(cluster)
}

fn timeouts(values: &Values) -> Result<(Duration, Duration), ConfigError> {
    let ms = |flag: &str| units::integer(flag, values.get(flag), 1, ELECTION_MS_MAX);
    let (heartbeat, election) = (ms("heartbeat-interval")?, ms("election-timeout")?);
    if election < 5 * heartbeat {
        return Err(ConfigError::new(format!(
            "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]"
        )));
    }
    Ok((Duration::from_millis(heartbeat.unsigned_abs()), Duration::from_millis(election.unsigned_abs())))
}

fn auto_compaction(values: &Values) -> Result<AutoCompaction, ConfigError> {
    const FLAG: &str = "auto-compaction-retention";
    let text = match values.get(FLAG) {
        "" => "0",
        text => text,
    };
    match values.get("auto-compaction-mode") {
        "periodic" | "" => {
            let span = match text.parse::<i64>() {
                Ok(hours) if (0..=24 * 365 * 100).contains(&hours) => {
                    Duration::from_secs(hours.unsigned_abs() * 3600)
                }
                Ok(_) => {
                    return Err(ConfigError::new(format!(
                        "--{FLAG}={text}: allowed is a number of hours from 0 on, or a span such as 5m"
                    )));
                }
                Err(_) => units::duration(FLAG, text)?,
            };
            Ok(if span.is_zero() { AutoCompaction::Off } else { AutoCompaction::Periodic(span) })
        }
        "revision" => match units::integer(FLAG, text, 0, i64::MAX)? {
            0 => Ok(AutoCompaction::Off),
            revisions => Ok(AutoCompaction::Revision(revisions)),
        },
        other => Err(one_of("auto-compaction-mode", other, "periodic or revision")),
    }
}

/// The protocol, with its own flags; those of others are refused rather than ignored.
fn protocol(values: &Values) -> Result<(&'static Kin, Chosen), ConfigError> {
    let kin = protocol::find(values.get("protocol"))?;
    let set: BTreeSet<_> =
        protocol::flags().map(|flag| flag.name).filter(|name| values.is_set(name)).collect();
    let stranger = |name: &&str| !kin.row.flags.iter().any(|flag| flag.name == *name);
    if let Some(flag) = set.iter().copied().find(stranger) {
        return Err(ConfigError::new(format!(
            "--{flag} is a flag of --protocol={}, and means nothing to --protocol={}",
            protocol::owners(flag).join(", "),
            kin.row.name
        )));
    }
    let given: Vec<_> = set.into_iter().map(|name| (name, values.get(name))).collect();
    let chosen = Chosen::of(&kin.row, &given)?;
    (kin.check)(&chosen)?;
    Ok((kin, chosen))
}
