//! The log with one rule left out; see [`synod_core::planted!`]. Each is a mistake that some store has shipped.

synod_core::planted! {
    /// Confirms a batch without having synced it (etcd's --unsafe-no-fsync, NATS 2.12.1).
    ConfirmsUnsynced = "log-confirms-unsynced",
    /// Tries a failed sync again and believes the second answer (fsyncgate).
    RetriesSync = "log-retries-sync",
    /// Makes and renames files without syncing the folder (RocksDB 10573).
    ForgetsFolder = "log-forgets-folder",
    /// Gives a segment its name before its checkpoint is synced.
    RenamesUnsynced = "log-renames-unsynced",
    /// Takes damage in the middle of the log for a torn end, and drops what follows.
    DamageIsTorn = "log-damage-is-torn",
    /// Takes a torn end for damage, and refuses to open.
    TornIsDamage = "log-torn-is-damage",
    /// Believes a batch whose checksum does not match.
    ChecksNoSums = "log-checks-no-sums",
    /// A checkpoint removes the older segments before the new one has its name (etcd 18055).
    RemovesFirst = "log-removes-first",
    /// A checkpoint removes the snapshot that it stands on, too.
    RemovesItsSnapshot = "log-removes-its-snapshot",
}
