//! The member's disk at work: one thread that owns the log, one that writes snapshots.
//!
//! The log's thread takes everything that has gathered, encodes it, and makes it durable with one write and one
//! sync; then it sends what was promised upon that, and tells the node up to which record. So there is one sync in flight, and
//! everything that comes meanwhile goes with the next. Snapshots have a thread of their own, for a sync must never wait for one.
//!
//! A write or a sync that failed is final (see [`synod_wal::LogError::is_fatal`]): the thread says so once and ends, and
//! nothing is acknowledged any more. A snapshot that finds no room is reported, and tried again when the next is due.

mod queue;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use synod_core::{Frozen, Index, Lsn, NodeId, Wire};
use synod_replica::{Piece, TransferId};
use synod_wal::{Incoming, Log, LogError, Snapshots, Superseded};

use self::queue::{Queue, Woken};
use crate::metrics::Histogram;
use crate::node::inbox::{Event, Inbox, Notice};
use crate::priority;

/// The log is synced at the latest when this much has gathered: bounds its buffer.
const UNSYNCED_BYTES_MAX: usize = 64 << 20;
/// After this long without work the log proves that its last batch was durable.
const IDLE: Duration = Duration::from_millis(300);

/// How far the snapshots' thread steps back: clients should not wait for a snapshot, but until it is saved the log grows, so it
/// gets a quarter of a core that one other thread wants, too.
const SAVER_NICENESS: i32 = 5;

/// What the log's thread is to do.
enum LogJob<R> {
    Append {
        records: Vec<R>,
        upto: Lsn,
    },
    Checkpoint {
        at: Index,
        records: Vec<R>,
        upto: Lsn,
    },
    /// What may be done only when everything before it is durable.
    Then(Box<dyn FnOnce() + Send>),
}

/// What the snapshots' thread is to do.
enum SnapshotJob<F> {
    Save {
        at: Index,
        frozen: F,
    },
    Stage(Piece),
    /// Freeing large files takes longer than a sync may wait.
    Remove(Superseded),
}

/// Both threads, as the node sees them. Dropping it ends them without waiting.
pub(crate) struct DiskThreads<R, F> {
    log: Arc<Queue<LogJob<R>>>,
    /// What the log's thread is given with the next [`DiskThreads::begin`].
    gathered: Vec<LogJob<R>>,
    snapshots: Arc<Queue<SnapshotJob<F>>>,
    threads: Vec<JoinHandle<()>>,
}

impl<R: Wire + Send + 'static, F: Frozen> DiskThreads<R, F> {
    /// Starts the threads of the member `name`, whose files are in `folder`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(
        name: &str,
        folder: &Path,
        log: Log,
        inbox: Arc<Inbox>,
        numbers: Arc<DiskNumbers>,
    ) -> std::io::Result<Self> {
        let (log_queue, snapshot_queue) = (Arc::new(Queue::default()), Arc::new(Queue::default()));
        let snapshots = log.snapshots();
        let mut keeper = LogKeeper {
            log,
            folder: folder.to_owned(),
            queue: log_queue.clone(),
            snapshots: snapshot_queue.clone(),
            inbox: inbox.clone(),
            numbers: numbers.clone(),
        };
        keeper.measure();
        let panicked = inbox.clone();
        let mut saver = Saver { snapshots, queue: snapshot_queue.clone(), inbox, numbers, incoming: None };
        let thread = |role: &str| std::thread::Builder::new().name(format!("{role}-{name}"));
        let threads = vec![
            thread("log").spawn(guarded(panicked.clone(), move || keeper.run()))?,
            thread("snap").spawn(guarded(panicked, move || {
                priority::lower(SAVER_NICENESS);
                saver.run();
            }))?,
        ];
        Ok(DiskThreads { log: log_queue, gathered: Vec::new(), snapshots: snapshot_queue, threads })
    }

    /// Appends records, in order, with the next [`DiskThreads::begin`]; `Durable(upto)` follows.
    pub(crate) fn append(&mut self, records: Vec<R>, upto: Lsn) {
        self.gathered.push(LogJob::Append { records, upto });
    }

    /// Does this, on the log's thread, once everything that was appended so far is durable.
    pub(crate) fn then(&mut self, what: impl FnOnce() + Send + 'static) {
        self.gathered.push(LogJob::Then(Box::new(what)));
    }

    /// Starts the log anew above the saved snapshot at `at`, with the next [`DiskThreads::begin`];
    /// `Checkpointed(at, upto)` follows.
    pub(crate) fn checkpoint(&mut self, at: Index, records: Vec<R>, upto: Lsn) {
        self.gathered.push(LogJob::Checkpoint { at, records, upto });
    }

    /// Gives the log's thread what has gathered, and wakes it once for all of that.
    pub(crate) fn begin(&mut self) {
        self.log.append(&mut self.gathered);
    }

    /// Writes a snapshot; `Saved` or `SaveFailed` follows.
    pub(crate) fn save(&self, at: Index, frozen: F) {
        self.snapshots.push(SnapshotJob::Save { at, frozen });
    }

    /// Writes a piece of a peer's snapshot; `Staged`, `Installed` or `StageFailed` follows.
    pub(crate) fn stage(&self, piece: Piece) {
        self.snapshots.push(SnapshotJob::Stage(piece));
    }

    /// Lets both threads finish what they were given, and waits for them.
    pub(crate) fn finish(mut self) {
        self.begin();
        self.log.close();
        self.snapshots.close();
        for thread in self.threads.drain(..) {
            // A panic in there has been reported by the panic's own message.
            let _ = thread.join();
        }
    }
}

impl<R, F> Drop for DiskThreads<R, F> {
    fn drop(&mut self) {
        self.log.close();
        self.snapshots.close();
    }
}

/// Runs a thread's work; a bug in there ends the member instead of leaving it waiting for ever.
fn guarded(inbox: Arc<Inbox>, work: impl FnOnce()) -> impl FnOnce() {
    move || {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err() {
            let _ = inbox.push(Event::Disk(Notice::Dead("its thread panicked".to_owned())));
        }
    }
}

/// What the disk has done, for the metrics page.
#[derive(Debug)]
pub(crate) struct DiskNumbers {
    /// How long a write with its sync took.
    pub(crate) log_sync: Histogram,
    /// How long saving a snapshot took.
    pub(crate) snapshot_save: Histogram,
    /// Bytes written to the log.
    pub(crate) log_bytes: AtomicU64,
    /// Bytes of all files in the data folder, as last measured: when the log falls idle or starts anew.
    pub(crate) folder_bytes: AtomicU64,
}

impl Default for DiskNumbers {
    fn default() -> Self {
        DiskNumbers {
            log_sync: Histogram::of_disk(),
            snapshot_save: Histogram::of_disk(),
            log_bytes: AtomicU64::new(0),
            folder_bytes: AtomicU64::new(0),
        }
    }
}

/// The owner of the log.
struct LogKeeper<R, F> {
    log: Log,
    folder: PathBuf,
    queue: Arc<Queue<LogJob<R>>>,
    snapshots: Arc<Queue<SnapshotJob<F>>>,
    inbox: Arc<Inbox>,
    numbers: Arc<DiskNumbers>,
}

impl<R: Wire, F> LogKeeper<R, F> {
    fn run(&mut self) {
        let mut jobs = Vec::new();
        let mut marked = true;
        loop {
            let patience = (!marked).then_some(IDLE);
            let result = match self.queue.take(&mut jobs, patience) {
                Woken::Work => {
                    marked = false;
                    self.work(&mut jobs)
                }
                Woken::Idle => {
                    marked = true;
                    self.measure();
                    match self.log.mark() {
                        // A proof more would be good to have, and there is no room for it: nothing is lost by that.
                        Err(LogError::NoSpace { .. }) => Ok(()),
                        other => other,
                    }
                }
                Woken::Closed => {
                    if let Err(error) = self.log.mark() {
                        tracing::error!(%error, "the log could not be closed in good order");
                    }
                    return;
                }
            };
            if let Err(error) = result {
                tracing::error!(%error, "the log has failed: nothing is acknowledged any more");
                self.report(Notice::Dead(error.to_string()));
                return;
            }
        }
    }

    fn work(&mut self, jobs: &mut Vec<LogJob<R>>) -> Result<(), LogError> {
        let mut reached = None;
        let mut promised = Vec::new();
        for job in jobs.drain(..) {
            match job {
                LogJob::Then(what) => promised.push(what),
                LogJob::Append { records, upto } => {
                    for record in &records {
                        self.log.append(record)?;
                    }
                    reached = Some(upto);
                    if self.log.pending_bytes() >= UNSYNCED_BYTES_MAX {
                        self.sync()?;
                        self.inbox.durable(upto);
                        reached = None;
                    }
                }
                LogJob::Checkpoint { at, records, upto } => {
                    // It stands for what was appended before it, and makes that durable with itself.
                    let superseded = self.log.checkpoint(at, &records)?;
                    self.snapshots.push(SnapshotJob::Remove(superseded));
                    self.measure();
                    self.report(Notice::Checkpointed(at, upto));
                    reached = None;
                }
            }
        }
        if reached.is_some() {
            self.sync()?;
        }
        promised.into_iter().for_each(|what| what());
        if let Some(upto) = reached {
            self.inbox.durable(upto);
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), LogError> {
        self.numbers.log_bytes.fetch_add(self.log.pending_bytes() as u64, Ordering::Relaxed);
        let started = Instant::now();
        self.log.sync()?;
        self.numbers.log_sync.observe(started.elapsed());
        Ok(())
    }

    /// Looks how much room the files take. For people, so what cannot be read counts as nothing.
    fn measure(&self) {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let bytes =
            entries.filter_map(|entry| entry.metadata().ok()).filter(|it| it.is_file()).map(|it| it.len());
        self.numbers.folder_bytes.store(bytes.sum(), Ordering::Relaxed);
    }

    fn report(&self, notice: Notice) {
        // A node that has gone needs no notice.
        let _ = self.inbox.push(Event::Disk(notice));
    }
}

/// The writer of snapshots.
struct Saver<F> {
    snapshots: Snapshots,
    queue: Arc<Queue<SnapshotJob<F>>>,
    inbox: Arc<Inbox>,
    numbers: Arc<DiskNumbers>,
    /// The peer's snapshot that is being received.
    incoming: Option<(NodeId, TransferId, Incoming)>,
}

impl<F: Frozen> Saver<F> {
    fn run(&mut self) {
        let mut jobs = Vec::new();
        while let Woken::Work = self.queue.take(&mut jobs, None) {
            for job in jobs.drain(..) {
                let notice = match job {
                    SnapshotJob::Save { at, frozen } => {
                        self.save(at, frozen).unwrap_or_else(|why| Notice::SaveFailed(why.to_string()))
                    }
                    SnapshotJob::Stage(piece) => {
                        let (from, transfer) = (piece.from, piece.transfer);
                        self.stage(piece).unwrap_or_else(|why| {
                            self.incoming = None;
                            Notice::StageFailed(from, transfer, why.to_string())
                        })
                    }
                    SnapshotJob::Remove(superseded) => {
                        if let Err(error) = superseded.remove() {
                            tracing::warn!(%error, "old files stay until the next start");
                        }
                        continue;
                    }
                };
                let _ = self.inbox.push(Event::Disk(notice));
            }
        }
    }

    fn save(&self, at: Index, frozen: F) -> std::io::Result<Notice> {
        let started = Instant::now();
        let mut writer = self.snapshots.create(at)?;
        frozen.write_to(&mut writer)?;
        let file = writer.finish()?;
        self.numbers.snapshot_save.observe(started.elapsed());
        tracing::info!(
            index = at.0,
            bytes = file.bytes(),
            took_ms = started.elapsed().as_millis() as u64,
            "saved snapshot"
        );
        Ok(Notice::Saved(file.to_ref()))
    }

    fn stage(&mut self, piece: Piece) -> Result<Notice, LogError> {
        let (from, transfer) = (piece.from, piece.transfer);
        if piece.offset == 0 {
            self.incoming = None;
            self.incoming = Some((from, transfer, self.snapshots.receive(piece.at, piece.total)?));
        }
        let current = self.incoming.take_if(|(who, which, _)| *who == from && *which == transfer);
        let Some((_, _, mut incoming)) = current else {
            let what = "a piece without its beginning".to_owned();
            return Err(LogError::NotAsSent { at: piece.at, what });
        };
        incoming.append(piece.offset, &piece.data)?;
        match piece.sum {
            Some(sum) => {
                let file = incoming.finish(sum)?;
                tracing::info!(index = piece.at.0, bytes = file.bytes(), %from, "received a peer's snapshot");
                Ok(Notice::Installed(from, transfer, file.to_ref()))
            }
            None => {
                let upto = incoming.received();
                self.incoming = Some((from, transfer, incoming));
                Ok(Notice::Staged(from, transfer, upto))
            }
        }
    }
}

#[cfg(test)]
mod tests;
