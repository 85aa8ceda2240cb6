//! How fast the log takes records: `cargo run --release -p synod-wal --example append [folder]`.
//!
//! Appends 300-byte records in batches of 1, 16 and 300 to a folder on the real disk (a temporary one by
//! default), and prints records and syncs a second, and how much of a processor a record takes. Then a
//! restart, a snapshot of 256 MiB beside a running log, and a checkpoint of 5,000 records.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a measurement needs a clock")]

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use synod_core::{Command, CommandId, Index, NodeId};
use synod_wal::{Fault, Identity, Log, LogOptions, MemoryDisk, OperationKind, RealDisk};

const IDENTITY: Identity = Identity { cluster: 1, node: NodeId(1) };

fn record(number: u64) -> Command {
    let payload = Bytes::from(vec![number as u8; 296]);
    Command { id: CommandId { origin: NodeId(1), number }, payload }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let temporary = tempfile::tempdir()?;
    let folder = std::env::args().nth(1).map_or_else(|| temporary.path().join("log"), PathBuf::from);
    let records: Vec<Command> = (0..300).map(record).collect();

    // Into memory: all that a record costs but the system calls.
    let nothing = MemoryDisk::new();
    let (mut log, _) = Log::open(Arc::new(nothing.clone()), IDENTITY, LogOptions::default())?;
    nothing.on_operation(|operation| match operation.kind {
        OperationKind::Write => Fault::Lie,
        _ => Fault::None,
    });
    let start = cpu_time();
    for _ in 0..4000 {
        for record in &records {
            log.append(record)?;
        }
        log.sync()?;
    }
    println!(
        "encode, copy and sum, batches of 300: {:.0} ns of CPU a record",
        nanoseconds(cpu_time() - start, 4000 * 300)
    );

    let disk = Arc::new(RealDisk::open(&folder)?);
    let (mut log, _) = Log::open(disk.clone(), IDENTITY, LogOptions::default())?;
    for batch in [1, 16, 300] {
        let before = log.statistics();
        let (mut syncs, cpu) = (Vec::new(), cpu_time());
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(2) {
            for record in &records[..batch] {
                log.append(record)?;
            }
            log.write()?;
            let written = Instant::now();
            log.sync_written()?;
            syncs.push(written.elapsed());
        }
        let (elapsed, after) = (start.elapsed().as_secs_f64(), log.statistics());
        let count = after.records - before.records;
        syncs.sort_unstable();
        println!(
            "batches of {batch}: {:.0} records/s, {:.0} syncs/s, {:.0} ns of CPU a record, the system's part included; sync p50 {:?} p99 {:?} max {:?}; {} segments",
            count as f64 / elapsed,
            (after.syncs - before.syncs) as f64 / elapsed,
            nanoseconds(cpu_time() - cpu, count),
            syncs[syncs.len() / 2],
            syncs[syncs.len() * 99 / 100],
            syncs[syncs.len() - 1],
            after.segments - before.segments,
        );
    }
    drop(log);

    let start = Instant::now();
    let (mut log, found) = Log::open(disk.clone(), IDENTITY, LogOptions::default())?;
    println!("reopening with {} records: {:?}", found.records.len(), start.elapsed());
    drop(found);

    let snapshots = log.snapshots();
    let start = Instant::now();
    let writer = std::thread::Builder::new().spawn(move || -> std::io::Result<Duration> {
        let mut writer = snapshots.create(Index(1))?;
        let piece: Vec<u8> = (0..1 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for _ in 0..256 {
            writer.write_all(&piece)?;
        }
        writer.finish()?;
        Ok(start.elapsed())
    })?;
    let mut waits = Vec::new();
    while !writer.is_finished() {
        let from = Instant::now();
        for record in &records[..16] {
            log.append(record)?;
        }
        log.sync()?;
        waits.push(from.elapsed());
    }
    let took = writer.join().expect("the writer does not panic")?;
    waits.sort_unstable();
    println!(
        "a snapshot of 256 MiB: {took:?}; meanwhile {} batches of 16: p50 {:?} p99 {:?} max {:?}",
        waits.len(),
        waits[waits.len() / 2],
        waits[waits.len() * 99 / 100],
        waits[waits.len() - 1]
    );

    let many: Vec<Command> = (0..5000).map(record).collect();
    let start = Instant::now();
    let superseded = log.checkpoint(Index(1), &many)?;
    println!("a checkpoint of 5,000 records: {:?}", start.elapsed());
    let start = Instant::now();
    superseded.remove()?;
    println!("removing what it stands for: {:?}", start.elapsed());
    log.append(&many[0])?;
    log.sync()?;
    let start = Instant::now();
    log.mark()?;
    println!("a mark: {:?}", start.elapsed());
    Ok(())
}

/// What this thread has used of its processor, by the kernel's account (zero where there is none): a busy
/// machine hardly changes it.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0))
}

fn nanoseconds(time: Duration, count: u64) -> f64 {
    time.as_nanos() as f64 / count as f64
}
