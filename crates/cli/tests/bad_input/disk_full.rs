//! A disk that is full: a clear error, and when there is room again, everything that was acknowledged.
//!
//! On a file system of its own of a few megabytes, which only root may mount: elsewhere these tests say that they were skipped.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::{Cluster, PATIENCE, base64, until};
use crate::specimen::{QUICK, everything};

/// A mounted file system; unmounted at the end, whatever the test does.
struct Mounted(PathBuf);

impl Mounted {
    fn at(folder: &Path, size: &str) -> Option<Mounted> {
        std::fs::create_dir(folder).expect("made");
        let option = format!("size={size},mode=0700");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &option, "synod-test"]).arg(folder).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success()).then(|| Mounted(folder.to_owned()))
    }

    fn grow(&self, size: &str) {
        let option = format!("remount,size={size}");
        let status = Command::new("mount").args(["-o", &option]).arg(&self.0).status();
        assert!(status.expect("mount").success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: a failed test may leave a member running in there.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn skipped() {
    println!("skipped: only root may mount a small file system");
}

/// A log that cannot grow ends the member with an error that names the file; what was acknowledged comes back with the room.
#[test]
fn while_it_writes() {
    let mut cluster = Cluster::prepare(1, &QUICK);
    let Some(disk) = Mounted::at(&cluster.members[0].data, "16m") else { return skipped() };
    cluster.members[0].start();
    cluster.await_ready();
    let mut client = cluster.members[0].client();
    client.timeout = PATIENCE;
    let mut acknowledged = Vec::new();
    let value = "v".repeat(500_000);
    let refusal = loop {
        let key = format!("key-{:05}", acknowledged.len());
        match client.put(&key, &value) {
            Ok(revision) => acknowledged.push((base64(&key), base64(&value), revision)),
            Err(refusal) => break refusal,
        }
        assert!(acknowledged.len() < 100, "a disk of 16 MiB took 50 MB");
    };
    assert!(acknowledged.len() > 5, "full at once: {refusal:?}");
    let ended = cluster.members[0].ended_by_itself();
    assert!(!ended.success(), "{ended}");
    let log = cluster.members[0].log();
    assert!(log.contains("no room on the disk") && log.contains("/log-"), "{log}");
    assert!(!log.contains("panicked"), "{log}");

    // Still full: whether it can start or not, it loses nothing.
    disk.grow("64m");
    cluster.members[0].start();
    cluster.await_ready();
    let mut client = cluster.members[0].client();
    client.timeout = PATIENCE;
    let mut found = everything(&mut client);
    // The refused put was never promised, and may have happened all the same.
    found.truncate(acknowledged.len());
    assert!(found == acknowledged, "{} of {} are there", found.len(), acknowledged.len());
    client.put("again", "1").expect("there is room");
    assert!(cluster.members[0].terminate().success());
}

/// A folder without room for a log ends the start by name, and takes a member once there is some.
#[test]
fn before_it_begins() {
    let mut cluster = Cluster::prepare(1, &QUICK);
    let Some(disk) = Mounted::at(&cluster.members[0].data, "1m") else { return skipped() };
    let (status, said) = cluster.members[0].run_to_the_end("--log-level=info");
    assert!(!status.success() && said.contains("no room on the disk") && said.contains("log-"), "{said}");
    disk.grow("32m");
    cluster.members[0].start();
    cluster.await_ready();
    cluster.members[0].client().put("a", "1").expect("there is room");
    assert!(cluster.members[0].terminate().success());
}

/// A snapshot that finds no room is told and tried again; the member serves on.
#[test]
fn while_it_saves_a_snapshot() {
    // 4 MiB of log, and no room for a snapshot of 3 MB beside it until there is.
    let flags = [&QUICK[..], &["--snapshot-count=1", "--snapshot-bytes=2000000"]].concat();
    let mut cluster = Cluster::prepare(1, &flags);
    let Some(disk) = Mounted::at(&cluster.members[0].data, "5m") else { return skipped() };
    cluster.members[0].start();
    cluster.await_ready();
    let mut client = cluster.members[0].client();
    client.timeout = PATIENCE;
    let value = "v".repeat(500_000);
    for i in 0..6 {
        client.put(&format!("key-{i}"), &value).expect("the log has room");
    }
    until("it is told that there is no room", || cluster.members[0].log().contains("no room on the disk"));
    client.put("small", "1").expect("it serves on");
    disk.grow("64m");
    for i in 6..16 {
        client.put(&format!("key-{i}"), &value).expect("there is room");
    }
    until("a snapshot is saved", || cluster.members[0].log().contains("saved snapshot"));
    cluster.members[0].kill();
    cluster.members[0].start();
    cluster.await_ready();
    let mut client = cluster.members[0].client();
    client.timeout = PATIENCE;
    assert_eq!(everything(&mut client).len(), 17);
    assert!(!cluster.members[0].log().contains("panicked"));
    assert!(cluster.members[0].terminate().success());
}
