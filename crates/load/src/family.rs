//! What each protocol gives and costs: the same clusters of ours, the same load, one protocol after the other.
//!
//! Whoever leads is asked; where nobody does, the first member. So one column means the same in every row: what clients of one member
//! get, and what all members together spend.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::stream::{FuturesUnordered, StreamExt};
use synod_api::Method;
use synod_api::etcdserverpb as pb;

use crate::client::call;
use crate::cluster::{Cluster, Contender};
use crate::compare::measured;
use crate::plan::{End, Kind, Plan};

/// Failures of the leader that are measured.
const FAILURES: usize = 3;
/// How often survivors are asked.
const AGAIN_EVERY: Duration = Duration::from_millis(20);
/// How long a survivor may take to answer a put.
const RECOVERY_MAX: Duration = Duration::from_secs(60);

/// What was measured of one protocol with so many members.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Puts a second, a thousand at once.
    pub rate: f64,
    /// CPU of all members for each of them.
    pub cpu: Duration,
    /// The median of a single client's puts.
    pub alone: Duration,
    /// Bytes between members for each put of a single client, what they say beside it included.
    pub bytes: f64,
    /// Syncs of all members for each of them.
    pub syncs: f64,
    /// From `kill -9` of the member that was asked to the first put that a survivor answers: the median of three.
    pub recovery: Duration,
}

/// Starts a cluster of `members`, measures (each for so long, or twice as long as its first put took), and ends it.
///
/// # Errors
/// When it does not serve.
pub async fn figures(
    contender: &Contender,
    members: usize,
    folder: &Path,
    measure: Duration,
) -> Result<Figures> {
    let mut cluster = Cluster::start(contender, members, folder).await?;
    let asked = asked(&cluster).await;
    let started = Instant::now();
    let put = pb::PutRequest { key: "first".into(), ..pb::PutRequest::default() };
    let _: pb::PutResponse = call(cluster.endpoints()[asked], Method::Put, &put).await?;
    // Where an answer takes seconds (proof of work waits for blocks), a short measurement would see none.
    let measure = measure.max(started.elapsed() * 2);
    let closed = |connections, streams| Plan {
        endpoints: vec![cluster.endpoints()[asked]],
        connections,
        streams,
        kind: Kind::Put,
        end: End { after: measure, requests: u64::MAX },
        ..Plan::default()
    };
    let many = measured(&cluster, &closed(20, 50)).await?;
    let plan = closed(1, 1);
    let before = spent(&cluster)?;
    let alone = measured(&cluster, &plan).await?;
    let after = spent(&cluster)?;
    // The warm-up counts on both sides of the division: it lasts as long as one measured second.
    let puts = alone.rate() * (plan.warmup + measure).as_secs_f64();
    let each = |name: fn(&Spent) -> f64| (name(&after) - name(&before)) / puts.max(1.0);
    let recovery = match members {
        1 | 2 => Duration::ZERO,
        _ => recovery(&mut cluster).await?,
    };
    Ok(Figures {
        rate: many.rate(),
        cpu: many.cpu_per_request().unwrap_or_default(),
        alone: alone.outcome.meter.percentile(50.0),
        bytes: each(|spent| spent.bytes),
        syncs: each(|spent| spent.syncs),
        recovery,
    })
}

/// The member that leads, or the first that runs where nobody does.
async fn asked(cluster: &Cluster) -> usize {
    cluster.leader().await.unwrap_or(0)
}

async fn recovery(cluster: &mut Cluster) -> Result<Duration> {
    let mut times = Vec::new();
    for _ in 0..FAILURES {
        let dead = asked(cluster).await;
        let survivors: Vec<SocketAddr> = (0..cluster.endpoints().len())
            .filter(|at| *at != dead)
            .map(|at| cluster.endpoints()[at])
            .collect();
        cluster.kill(dead);
        let killed = Instant::now();
        let recovered = tokio::time::timeout(RECOVERY_MAX, first_answer(&survivors)).await.is_ok();
        ensure!(recovered, "no survivor answered a put within {RECOVERY_MAX:?}");
        times.push(killed.elapsed());
        cluster.start_member(dead)?;
        cluster.wait_until_served().await?;
    }
    times.sort_unstable();
    Ok(times[FAILURES / 2])
}

/// Puts at each of them, again and again, without waiting for the earlier ones: what was on its way to the dead member gets its
/// answer late or never.
async fn first_answer(endpoints: &[SocketAddr]) {
    let put = pb::PutRequest { key: "recovered".into(), ..pb::PutRequest::default() };
    let mut puts = FuturesUnordered::new();
    let mut again = tokio::time::interval(AGAIN_EVERY);
    loop {
        tokio::select! {
            Some(answer) = puts.next() => if answer { return },
            _ = again.tick() => {
                for endpoint in endpoints {
                    let put = &put;
                    puts.push(async move { call::<pb::PutResponse>(*endpoint, Method::Put, put).await.is_ok() });
                }
            }
        }
    }
}

/// What the members' own counters say, together.
struct Spent {
    bytes: f64,
    syncs: f64,
}

fn spent(cluster: &Cluster) -> Result<Spent> {
    let mut spent = Spent { bytes: 0.0, syncs: 0.0 };
    for endpoint in cluster.endpoints() {
        let page = metrics(endpoint).with_context(|| format!("the metrics of {endpoint}"))?;
        let sum = |name: &str| -> f64 {
            let lines = page.lines().filter(|line| line.starts_with(name));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
        };
        spent.bytes += sum("etcd_network_peer_sent_bytes_total{");
        spent.syncs += sum("etcd_disk_wal_fsync_duration_seconds_count");
    }
    Ok(spent)
}

fn metrics(endpoint: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(endpoint)?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {endpoint}\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}
