//! The store with one rule left out; see [`synod_core::planted!`]. Most are etcd's own, by their numbers there.

synod_core::planted! {
    /// A snapshot holds no leases (of etcd: no users, 14571).
    SnapshotForgetsLeases = "snapshot-forgets-leases",
    /// A restored store takes its revision from the newest pair that is left, and forgets deletions (etcd 17780).
    RevisionOfPairs = "revision-of-pairs",
    /// Half of the checks of a transaction happen only where a client waits for the answer (etcd 18667).
    ChecksForClients = "checks-for-clients",
    /// A restored store keeps the leases that it had.
    RestoreKeepsLeases = "restore-keeps-leases",
    /// A snapshot holds what memory still has of compacted versions, though other replicas have removed it (etcd 20650).
    SnapshotHoldsCompacted = "snapshot-holds-compacted",
    /// A watcher whose queue is full misses what did not fit (etcd 17529).
    WatchLosesWhenFull = "watch-loses-when-full",
    /// A watcher that catches up is given the last revision of each pass twice (etcd 15271).
    WatchTellsTwice = "watch-tells-twice",
    /// A watcher that catches up misses the first revision of each further pass (etcd 17529).
    WatchSkips = "watch-skips",
    /// A watcher from a future revision hears of what comes before it (etcd 20221).
    WatchHearsThePast = "watch-hears-the-past",
    /// Progress is told to watchers that still lag (etcd 15220).
    WatchProgressAhead = "watch-progress-ahead",
    /// A deletion at the compacted revision is not told (etcd 19179).
    WatchLosesDeletion = "watch-loses-deletion",
    /// A watcher hears nothing of what a restored snapshot brought.
    WatchForgetsRestore = "watch-forgets-restore",
    /// A pass of catching up ends within a revision, and the rest of the revision is not told.
    WatchTearsRevisions = "watch-tears-revisions",
    /// A lease whose time is over is renewed all the same (etcd 20615).
    LeaseRenewsWhenOver = "lease-renews-when-over",
    /// A new leader takes leases to be half over.
    LeaseHalfOver = "lease-half-over",
    /// A revoked lease leaves its keys behind.
    LeaseLeavesKeys = "lease-leaves-keys",
}
