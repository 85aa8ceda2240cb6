//! The replica with one rule left out; see [`synod_core::planted!`].

synod_core::planted! {
    /// A snapshot says that it was taken one delivery earlier than it was: state and position do not belong together (etcd 13766).
    SnapshotBehindItself = "snapshot-behind-itself",
    /// Messages do not wait for the records that they promise.
    PromisesEarly = "promises-early",
    /// Reads are answered when they are fenced, not when everything before the fence is applied.
    ReadsBeforeApplied = "reads-before-applied",
    /// A checkpoint leaves out its last record: a vote, or the newest entry.
    CheckpointForgets = "checkpoint-forgets",
}
