//! What a replica keeps: the shipped log and snapshots, on a disk that takes time.
//!
//! Two workers, as in the server: one writes the log (everything queued becomes one batch and one sync), one writes
//! snapshots, its own and those of peers. A worker starts a write when it is free, and finishes it (the sync)
//! when the world says that the time is over; so a crash between the two meets bytes that are written and not synced.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use synod_core::{Frozen, Index, Lsn, NodeId, Protocol, Recovered, SnapshotRef, Wire};
use synod_replica::{Piece, TransferId};
use synod_wal::{Identity, Incoming, Log, LogError, LogOptions, OnDamage};

use crate::disk::SimDisk;
use crate::machine::FrozenAudited;

/// What the log's worker has to do.
pub(crate) enum LogJob<P: Protocol> {
    Records(Vec<P::Record>, Lsn),
    Checkpoint(SnapshotRef, Vec<P::Record>, Lsn),
}

/// What the snapshots' worker has to do.
pub(crate) enum SnapshotJob {
    Save(Index, FrozenAudited),
    Stage(Piece),
}

/// What came of it, for the replica.
pub(crate) enum Notice {
    Durable(Lsn),
    Checkpointed(Index, Lsn),
    Saved(SnapshotRef),
    SaveFailed,
    Staged { from: NodeId, transfer: TransferId, upto: u64 },
    Installed { from: NodeId, transfer: TransferId, snapshot: SnapshotRef },
    StageFailed { from: NodeId, transfer: TransferId },
}

/// Whether a worker has something to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Started {
    /// Nothing to do, or still at it.
    Idle,
    /// It began something, which will take a while.
    Busy,
    /// There is no room: try again later.
    NoRoom,
}

/// The log and snapshots of one running replica.
pub(crate) struct Storage<P: Protocol> {
    log: Log,
    pub(crate) log_jobs: VecDeque<LogJob<P>>,
    pub(crate) snapshot_jobs: VecDeque<SnapshotJob>,
    /// The records that were handed to the disk and are being synced.
    syncing: Option<Lsn>,
    records_syncing: usize,
    log_busy: bool,
    snapshot_busy: bool,
    kept: Kept,
    receiving: Option<(NodeId, TransferId, Incoming)>,
}

/// What a log has confirmed: so many records above that snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) snapshot: Index,
    pub(crate) records: usize,
    /// So many of them came after the last mark.
    pub(crate) unmarked: usize,
    /// So many of those are in the last batch, behind which nothing proves yet that it was ever whole.
    pub(crate) last: usize,
}

/// What a disk held.
pub(crate) struct Found<P: Protocol> {
    pub(crate) storage: Storage<P>,
    pub(crate) recovered: Recovered<P::Record>,
    pub(crate) fresh: bool,
    pub(crate) torn: bool,
}

/// The cluster's number in every simulated file.
pub const CLUSTER: u64 = 0x5170;

impl<P: Protocol> Storage<P> {
    /// Reads what the disk holds.
    pub(crate) fn open(disk: &SimDisk, node: NodeId, segment_bytes: u64) -> Result<Found<P>, LogError> {
        let identity = Identity { cluster: CLUSTER, node };
        let options = LogOptions {
            segment_bytes_first: segment_bytes,
            segment_bytes_max: segment_bytes * 4,
            on_damage: OnDamage::Refuse,
        };
        let (log, recovery) = Log::open(Arc::new(disk.clone()), identity, options)?;
        let decode = |bytes: Bytes| P::Record::decode_all(bytes);
        let records: Result<Vec<P::Record>, _> = recovery.records.into_iter().map(decode).collect();
        let records = records.expect("the log's checksums hold, so what it gives back is what it was given");
        let snapshot = recovery.snapshot.map(|snapshot| snapshot.to_ref());
        let kept = Kept {
            snapshot: snapshot.as_ref().map_or(Index::ZERO, |snapshot: &SnapshotRef| snapshot.at),
            records: records.len(),
            ..Kept::default()
        };
        let storage = Storage {
            log,
            kept,
            log_jobs: VecDeque::new(),
            snapshot_jobs: VecDeque::new(),
            syncing: None,
            records_syncing: 0,
            log_busy: false,
            snapshot_busy: false,
            receiving: None,
        };
        let recovered = Recovered { records, snapshot };
        Ok(Found { storage, recovered, fresh: recovery.fresh, torn: recovery.torn.is_some() })
    }

    /// Begins with the log jobs that wait, if the worker is free.
    pub(crate) fn start_log(&mut self) -> Result<Started, LogError> {
        if self.log_busy {
            return Ok(Started::Idle);
        }
        while let Some(LogJob::Records(..)) = self.log_jobs.front() {
            let Some(LogJob::Records(records, upto)) = self.log_jobs.pop_front() else { break };
            for record in &records {
                self.log.append(record)?;
            }
            self.records_syncing += records.len();
            self.syncing = Some(upto);
        }
        if self.syncing.is_some() {
            match self.log.write() {
                Err(LogError::NoSpace { .. }) => return Ok(Started::NoRoom),
                other => other?,
            }
        } else if self.log_jobs.is_empty() {
            return Ok(Started::Idle);
        }
        self.log_busy = true;
        Ok(Started::Busy)
    }

    /// The log's worker finishes what it began.
    pub(crate) fn finish_log(&mut self, notices: &mut Vec<Notice>) -> Result<(), LogError> {
        self.log_busy = false;
        if let Some(upto) = self.syncing.take() {
            self.log.sync_written()?;
            self.kept.last = std::mem::take(&mut self.records_syncing);
            self.kept.unmarked += self.kept.last;
            self.kept.records += self.kept.last;
            notices.push(Notice::Durable(upto));
            return Ok(());
        }
        if let Some(LogJob::Checkpoint(snapshot, records, upto)) = self.log_jobs.front() {
            match self.log.checkpoint(snapshot.at, records) {
                // The log is as it was: the worker tries again when it is asked to start.
                Err(LogError::NoSpace { .. }) => return Ok(()),
                Err(error) => return Err(error),
                Ok(superseded) => {
                    // What cannot be removed is a nuisance, and the next start removes it.
                    let _ = superseded.remove();
                }
            }
            self.kept = Kept { snapshot: snapshot.at, records: records.len(), ..Kept::default() };
            notices.push(Notice::Checkpointed(snapshot.at, *upto));
            self.log_jobs.pop_front();
        }
        Ok(())
    }

    /// What the log has confirmed so far.
    pub(crate) fn kept(&self) -> Kept {
        self.kept
    }

    /// Whether the log's worker is free, and has something to do.
    pub(crate) fn has_log_work(&self) -> bool {
        !self.log_busy && (self.syncing.is_some() || !self.log_jobs.is_empty())
    }

    /// Proves on disk that the last batch was durable: for an idle moment.
    pub(crate) fn mark(&mut self) -> Result<(), LogError> {
        match self.log.mark() {
            Err(LogError::NoSpace { .. }) => Ok(()),
            Ok(()) => {
                (self.kept.unmarked, self.kept.last) = (0, 0);
                Ok(())
            }
            other => other,
        }
    }

    /// Whether the log's worker has nothing to do.
    pub(crate) fn is_idle(&self) -> bool {
        !self.log_busy && self.log_jobs.is_empty() && self.syncing.is_none()
    }

    /// Begins with the next snapshot job, if the worker is free.
    pub(crate) fn start_snapshot(&mut self) -> Started {
        if self.snapshot_busy || self.snapshot_jobs.is_empty() {
            return Started::Idle;
        }
        self.snapshot_busy = true;
        Started::Busy
    }

    /// The snapshots' worker finishes what it began.
    pub(crate) fn finish_snapshot(&mut self, notices: &mut Vec<Notice>) -> Result<(), LogError> {
        self.snapshot_busy = false;
        match self.snapshot_jobs.pop_front() {
            Some(SnapshotJob::Save(at, frozen)) => match self.save(at, frozen) {
                Ok(snapshot) => notices.push(Notice::Saved(snapshot)),
                Err(LogError::NoSpace { .. }) => notices.push(Notice::SaveFailed),
                Err(error) => return Err(error),
            },
            Some(SnapshotJob::Stage(piece)) => {
                let (from, transfer) = (piece.from, piece.transfer);
                match self.stage(piece) {
                    Ok(notice) => notices.push(notice),
                    Err(
                        LogError::NoSpace { .. } | LogError::NotAsSent { .. } | LogError::TooLarge { .. },
                    ) => {
                        self.receiving = None;
                        notices.push(Notice::StageFailed { from, transfer });
                    }
                    Err(error) => return Err(error),
                }
            }
            None => {}
        }
        Ok(())
    }

    fn save(&mut self, at: Index, frozen: FrozenAudited) -> Result<SnapshotRef, LogError> {
        let mut writer = self.log.snapshots().create(at)?;
        // What went wrong inside is kept by the writer, and comes out of `finish`.
        let _ = frozen.write_to(&mut writer);
        Ok(writer.finish()?.to_ref())
    }

    fn stage(&mut self, piece: Piece) -> Result<Notice, LogError> {
        let Piece { from, transfer, at, total, offset, data, sum } = piece;
        if offset == 0 {
            self.receiving = None;
            self.receiving = Some((from, transfer, self.log.snapshots().receive(at, total)?));
        }
        match &mut self.receiving {
            Some((sender, name, incoming)) if (*sender, *name) == (from, transfer) => {
                incoming.append(offset, &data)?;
            }
            _ => return Ok(Notice::StageFailed { from, transfer }),
        }
        let Some(sum) = sum else {
            return Ok(Notice::Staged { from, transfer, upto: offset + data.len() as u64 });
        };
        match self.receiving.take() {
            Some((.., incoming)) => {
                Ok(Notice::Installed { from, transfer, snapshot: incoming.finish(sum)?.to_ref() })
            }
            None => Ok(Notice::StageFailed { from, transfer }),
        }
    }
}
