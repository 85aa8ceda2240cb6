//! The node's figures for the metrics page: protocol, disk, peers; under etcd's names.

use std::sync::atomic::Ordering::Relaxed;

use super::Shared;
use crate::metrics::{Kind, Page};
use crate::transport::PeerNumbers;

/// Reads one figure of a peer.
type Read = fn(&PeerNumbers) -> u64;

/// Writes all of them.
pub(super) fn write(shared: &Shared, page: &mut Page) {
    let standing = *shared.standing.lock();
    let flag = u8::from;
    page.gauge(
        "etcd_server_has_leader",
        "Whether or not a leader exists. 1 is existence, 0 is not.",
        flag(standing.keeper.is_some()),
    );
    let leads = standing.leader == Some(shared.identity.member);
    page.gauge(
        "etcd_server_is_leader",
        "Whether or not this member is a leader. 1 if is, 0 otherwise.",
        flag(leads),
    );
    let learner = shared.members.read().learners.contains(&shared.identity.member);
    page.gauge(
        "etcd_server_is_learner",
        "Whether or not this member is a learner. 1 if is, 0 otherwise.",
        flag(learner),
    );
    page.counter(
        "etcd_server_leader_changes_seen_total",
        "The number of leader changes seen.",
        shared.leader_changes.load(Relaxed),
    );
    page.gauge(
        "etcd_server_proposals_committed_total",
        "The total number of consensus proposals committed.",
        standing.decided,
    );
    page.gauge(
        "etcd_server_proposals_applied_total",
        "The total number of consensus proposals applied.",
        standing.applied,
    );
    page.gauge(
        "synod_proposals_in_flight",
        "Proposals accepted and not answered yet.",
        shared.admission.pending(),
    );
    page.counter(
        "etcd_debugging_server_lease_expired_total",
        "The total number of expired leases.",
        shared.leases_expired.load(Relaxed),
    );

    page.counter(
        "etcd_server_slow_apply_total",
        "The total number of slow apply requests (likely overloaded from slow disk).",
        shared.slow_applies.load(Relaxed),
    );

    page.histogram(
        "etcd_disk_wal_fsync_duration_seconds",
        "The latency distributions of fsync called by WAL.",
        &shared.disk.log_sync,
    );
    // There is no second store on disk to commit to: the log is all that a write waits for.
    page.histogram(
        "etcd_disk_backend_commit_duration_seconds",
        "The latency distributions of commit called by backend: here the log's.",
        &shared.disk.log_sync,
    );
    page.histogram(
        "etcd_disk_backend_snapshot_duration_seconds",
        "The latency distribution of backend snapshots.",
        &shared.disk.snapshot_save,
    );
    page.counter(
        "etcd_disk_wal_write_bytes_total",
        "Total number of bytes written in WAL.",
        shared.disk.log_bytes.load(Relaxed),
    );

    let peers = shared.peers.read();
    let me = format!("{:x}", shared.identity.member.0);
    let names: Vec<String> = peers.iter().map(|(id, _)| format!("{:x}", id.0)).collect();
    let figures: [(&str, Kind, &str, &str, Read); 3] = [
        (
            "etcd_network_peer_sent_bytes_total",
            Kind::Counter,
            "To",
            "The total number of bytes sent to peers.",
            |peer| peer.sent_bytes.load(Relaxed),
        ),
        (
            "etcd_network_peer_received_bytes_total",
            Kind::Counter,
            "From",
            "The total number of bytes received from peers.",
            |peer| peer.received_bytes.load(Relaxed),
        ),
        (
            "etcd_network_peer_sent_failures_total",
            Kind::Counter,
            "To",
            "The total number of send failures from peers.",
            |peer| peer.send_failures.load(Relaxed),
        ),
    ];
    for (name, kind, label, help, read) in figures {
        page.family(name, kind, help);
        for ((_, peer), id) in peers.iter().zip(&names) {
            page.sample(name, &[(label, id)], read(peer));
        }
    }
    page.family("etcd_network_active_peers", Kind::Gauge, "The current number of active peer connections.");
    for ((_, peer), id) in peers.iter().zip(&names) {
        let active = flag(peer.connected.load(Relaxed));
        page.sample("etcd_network_active_peers", &[("Local", &me), ("Remote", id)], active);
    }
    let name = "etcd_network_peer_round_trip_time_seconds";
    page.family(name, Kind::Histogram, "Round-Trip-Time histogram between peers.");
    for ((_, peer), id) in peers.iter().zip(&names) {
        page.histogram_samples(name, &[("To", id)], &peer.round_trips);
    }
}
