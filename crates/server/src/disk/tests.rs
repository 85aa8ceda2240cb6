//! Both threads over a disk in memory.

use std::io;

use bytes::Bytes;
use synod_wal::{Fate, Fault, Identity, LogOptions, MemoryDisk, OperationKind};

use super::*;

#[derive(Clone)]
struct Text(&'static [u8]);

impl Frozen for Text {
    fn write_to(self, out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(self.0)
    }
}

fn notices(inbox: &Inbox, wanted: usize) -> Vec<Notice> {
    let mut all = Vec::new();
    while all.len() < wanted {
        let mut events = Vec::new();
        inbox.drain(&mut events);
        all.extend(events.into_iter().filter_map(|event| match event {
            Event::Disk(notice) => Some(notice),
            _ => None,
        }));
        std::thread::yield_now();
    }
    all
}

const IDENTITY: Identity = Identity { cluster: 7, node: NodeId(1) };

/// Both threads over this disk.
fn start(disk: &Arc<MemoryDisk>) -> (DiskThreads<u64, Text>, Arc<Inbox>) {
    let (log, _) = Log::open(disk.clone(), IDENTITY, LogOptions::default()).expect("opened");
    let inbox = Arc::new(Inbox::default());
    let threads = DiskThreads::start("t", Path::new("."), log, inbox.clone(), Arc::default());
    (threads.expect("threads"), inbox)
}

/// What was reported durable is there after the threads ended, above the snapshot that was checkpointed.
#[test]
fn records_snapshots_and_checkpoints_are_kept() {
    let disk = Arc::new(MemoryDisk::new());
    let (mut threads, inbox) = start(&disk);
    threads.append(vec![1, 2], Lsn(2));
    threads.begin();
    assert!(matches!(notices(&inbox, 1)[..], [Notice::Durable(Lsn(2))]));
    threads.save(Index(5), Text(b"state"));
    assert!(matches!(&notices(&inbox, 1)[..], [Notice::Saved(it)] if it.at == Index(5) && it.bytes == 5));
    threads.checkpoint(Index(5), vec![3], Lsn(2));
    threads.append(vec![4], Lsn(3));
    threads.begin();
    let heard = notices(&inbox, 2);
    assert!(
        matches!(heard[..], [Notice::Checkpointed(Index(5), Lsn(2)), Notice::Durable(Lsn(3))]),
        "{heard:?}"
    );
    threads.finish();
    let (_, found) = Log::open(disk, IDENTITY, LogOptions::default()).expect("opened again");
    assert_eq!(found.records, [&[3u8][..], &[4]]);
    assert_eq!(found.snapshot.map(|it| it.at()), Some(Index(5)));
}

/// What was promised upon records is said when a power cut could not take them back any more, and never when the disk fails.
#[test]
fn promises_wait_for_the_disk() {
    let disk = Arc::new(MemoryDisk::new());
    let (mut threads, inbox) = start(&disk);
    let (say, said) = std::sync::mpsc::channel();
    for number in 1..=3u64 {
        threads.append(vec![number], Lsn(number));
        let (say, disk) = (say.clone(), disk.clone());
        threads.then(move || say.send(disk.duplicate()).expect("the test listens"));
        threads.begin();
        let kept = said.recv().expect("the promise is kept");
        kept.crash(|_| Fate::Lost);
        let (_, found) = Log::open(Arc::new(kept), IDENTITY, LogOptions::default()).expect("opened again");
        assert_eq!(found.records.len() as u64, number, "what it was promised upon is there");
    }
    // Nothing new to sync: it is said at once.
    let at_once = say.clone();
    threads.then(move || at_once.send(MemoryDisk::new()).expect("the test listens"));
    threads.begin();
    said.recv().expect("the promise is kept");

    notices(&inbox, 3);
    disk.on_operation(|operation| match operation.kind {
        OperationKind::Sync => Fault::Fail(io::Error::other("no")),
        _ => Fault::None,
    });
    threads.append(vec![4], Lsn(4));
    threads.then(move || say.send(MemoryDisk::new()).expect("the test listens"));
    threads.begin();
    assert!(matches!(notices(&inbox, 1)[..], [Notice::Dead(_)]));
    threads.finish();
    assert!(said.recv().is_err(), "dropped unsaid");
}

/// A peer's snapshot is installed when it is whole and its sum is right, and refused otherwise.
#[test]
fn pieces_become_a_snapshot() {
    let disk = Arc::new(MemoryDisk::new());
    let (threads, inbox) = start(&disk);
    let piece = |transfer, offset, data: &'static [u8], sum| Piece {
        from: NodeId(2),
        transfer,
        at: Index(9),
        total: 6,
        offset,
        data: Bytes::from_static(data),
        sum,
    };
    threads.stage(piece(1, 0, b"abc", None));
    threads.stage(piece(1, 3, b"def", Some(crc32c::crc32c(b"abcdef"))));
    let heard = notices(&inbox, 2);
    assert!(matches!(heard[0], Notice::Staged(NodeId(2), 1, 3)));
    assert!(matches!(&heard[1], Notice::Installed(NodeId(2), 1, it) if it.bytes == 6));
    threads.stage(piece(2, 0, b"abcdef", Some(1)));
    threads.stage(piece(3, 3, b"def", None));
    let heard = notices(&inbox, 2);
    assert!(heard.iter().all(|notice| matches!(notice, Notice::StageFailed(..))), "{heard:?}");
}
