//! Files as no member left them (group 12): cut, flipped, swapped, replaced, lost, of another cluster, of a later version.
//!
//! One rule for all: a member either refuses to start, with an error that names the file (or the folder, where a file
//! is not there), or it serves everything that was acknowledged. `synod-wal`'s own tests go through every byte; here the
//! built program goes through a sample: every boundary of every structure, and some places between.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::specimen::{End, Outcome, Specimen};

const LOG_HEADER: usize = 128;
const BATCH_HEADER: usize = 40;

/// A few hundred values, and snapshots on the way.
fn with_snapshot(end: End) -> Specimen {
    let specimen = Specimen::make("a", 300, 100, &["--snapshot-count=1", "--snapshot-bytes=30000"], end);
    snapshot_of(&specimen);
    assert_eq!(specimen.files("log-").len(), 1);
    specimen
}

/// The name of the snapshot on which the log rests: its header says which. There may be a later one, whole or in the making, that no
/// checkpoint names yet.
fn snapshot_of(specimen: &Specimen) -> String {
    let log = specimen.content(&specimen.files("log-").remove(0));
    let at = u64::from_le_bytes(log[56..64].try_into().expect("eight bytes"));
    let name = format!("snapshot-{at:016x}");
    assert!(specimen.files("snapshot-").contains(&name), "there is no {name}");
    name
}

/// The files that a restart needs.
fn needed(specimen: &Specimen) -> Vec<String> {
    let snapshot = snapshot_of(specimen);
    let files = specimen.files("").into_iter();
    files.filter(|name| !name.starts_with("snapshot-") || *name == snapshot).collect()
}

/// Spoils one file and demands one of the two outcomes.
fn spoil(specimen: &Specimen, file: &str, what: &str, how: impl FnOnce(&Path)) -> Outcome {
    let outcome = specimen.spoilt(|data| how(&data.join(file)));
    if let Outcome::Refused(said) = &outcome {
        // For whoever wants to see what people get to read: cargo test ... -- --show-output.
        println!("{file} {what}: {}", said.lines().last().unwrap_or_default());
        assert!(said.contains(file), "{file} {what}: the error does not name the file: {said}");
    }
    outcome
}

fn must_refuse(specimen: &Specimen, file: &str, why: &str, how: impl FnOnce(&Path)) {
    match spoil(specimen, file, why, how) {
        Outcome::Refused(said) => assert!(said.contains(why), "{file}: expected '{why}' in {said}"),
        Outcome::Whole => panic!("{file}: a start where '{why}' was expected"),
    }
}

/// Where the bytes of a log that mean anything end.
fn data_end(content: &[u8]) -> usize {
    content.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1)
}

/// Where the batches of a log begin.
fn batches(content: &[u8]) -> Vec<usize> {
    let end = data_end(content);
    (LOG_HEADER + 36..end.saturating_sub(3))
        .filter(|at| &content[*at..at + 4] == b"BTCH")
        .map(|at| at - 36)
        .collect()
}

/// Whether the byte at `at` of a log belongs to its header or to a batch of records: marks and the zeros around them hold none.
fn holds_records(content: &[u8], at: usize) -> bool {
    const MARK: u8 = 3;
    let ends = |start: usize| {
        let body = u32::from_le_bytes(content[start + 4..start + 8].try_into().expect("four bytes"));
        start + BATCH_HEADER + body as usize
    };
    at < LOG_HEADER
        || batches(content).into_iter().any(|it| content[it] != MARK && (it..ends(it)).contains(&at))
}

/// Every boundary of the structures of a file, and some offsets between them.
fn places(name: &str, content: &[u8]) -> Vec<usize> {
    let length = content.len();
    let mut places: Vec<usize> = if name.starts_with("log-") {
        let end = data_end(content);
        let batches = batches(content);
        let middle = batches[batches.len() / 2];
        let last = *batches.last().expect("a batch");
        let header = [0, 8, 12, 16, 24, 32, 40, 48, 56, 64, 72, 100, 124];
        let batch = [0, 4, 8, 16, 20, 24, 28, 32, 36, BATCH_HEADER, BATCH_HEADER + 5];
        let of = |start: usize| batch.iter().map(move |offset| start + offset);
        header
            .into_iter()
            .chain(of(LOG_HEADER))
            .chain(of(middle))
            .chain(of(last))
            .chain([end - 1, end, end + 5000])
            .collect()
    } else if name.starts_with("snapshot-") && !name.ends_with(".tmp") {
        let footer = length - 32;
        let parts = [0, 8, 12, 16, 24, 40, 60, 64, 65, length / 2, footer - 4];
        parts.into_iter().chain([0, 8, 16, 20, 24, 28].map(|offset| footer + offset)).collect()
    } else {
        (0..length).step_by(length.div_ceil(12).max(1)).collect()
    };
    places.extend([1, length.saturating_sub(1)]);
    places.retain(|at| *at < length);
    places.sort_unstable();
    places.dedup();
    places
}

/// Cut off anywhere, every file is missed by name; only what holds nothing may be cut without harm.
#[test]
fn truncated() {
    let specimen = with_snapshot(End::Killed);
    for file in needed(&specimen) {
        let content = specimen.content(&file);
        for at in places(&file, &content) {
            let outcome = spoil(&specimen, &file, &format!("cut at {at}"), |path| {
                fs::write(path, &content[..at]).expect("written");
            });
            let empty_of_promises = file == "lock" || file.ends_with(".tmp");
            assert!(empty_of_promises || outcome != Outcome::Whole, "{file} cut at {at} was not noticed");
        }
    }
}

/// A flipped bit anywhere is either noticed, by the file's name, or where nothing is kept.
#[test]
fn flipped() {
    let specimen = with_snapshot(End::Orderly);
    for file in needed(&specimen) {
        let content = specimen.content(&file);
        for (turn, at) in places(&file, &content).into_iter().enumerate() {
            let mut spoilt = content.clone();
            spoilt[at] ^= [0x01, 0x80, 0xff][turn % 3];
            let outcome = spoil(&specimen, &file, &format!("flipped at {at}"), |path| {
                fs::write(path, spoilt).expect("written");
            });
            let kept = match &file {
                log if log.starts_with("log-") => holds_records(&content, at),
                name => name != "lock" && !name.ends_with(".tmp"),
            };
            assert!(!kept || outcome != Outcome::Whole, "{file} flipped at {at} was not noticed");
        }
    }
}

/// Something else under a file's name is refused as what it is, and never waited for, followed or emptied.
#[test]
fn replaced() {
    let specimen = with_snapshot(End::Killed);
    let outside = tempfile::tempdir().expect("a folder");
    let log = specimen.files("log-").remove(0);
    let snapshot = snapshot_of(&specimen);
    let fifo = |path: &Path| assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
    let remove = |path: &Path| {
        if path.exists() {
            fs::remove_file(path).expect("removed");
        }
    };
    // The files that a member writes aside before it gives them their names are ours, too.
    let asides = [
        "member.new",
        "log-00000000000000ff.tmp",
        "snapshot-00000000000000ff.tmp",
        "incoming-00000000000000ff.tmp",
    ];
    for file in ["member", "lock", &log, &snapshot].into_iter().chain(asides) {
        let refuse = |what: &str, how: &dyn Fn(&Path)| {
            let outcome = spoil(&specimen, file, what, |path| {
                remove(path);
                how(path);
            });
            assert!(
                outcome != Outcome::Whole || asides.contains(&file),
                "{file} as {what} was taken for the file"
            );
        };
        refuse("a folder", &|path| {
            fs::create_dir(path).expect("made");
            fs::write(path.join("x"), "x").expect("written");
        });
        refuse("a pipe", &fifo);
        let target = outside.path().join("precious");
        fs::write(&target, "precious").expect("written");
        refuse("a link to another file", &|path| symlink(&target, path).expect("linked"));
        assert_eq!(fs::read(&target).expect("still there"), b"precious", "{file}: a link was followed");
        refuse("a link to nothing", &|path| symlink(outside.path().join("nothing"), path).expect("linked"));
        assert!(!outside.path().join("nothing").exists(), "{file}: a link was followed");
    }
    for file in ["member", &log, &snapshot] {
        let empty = spoil(&specimen, file, "emptied", |path| fs::write(path, "").expect("written"));
        assert_ne!(empty, Outcome::Whole, "{file} emptied");
    }
    // Root reads files of any mode.
    let probe = outside.path().join("probe");
    fs::write(&probe, "x").expect("written");
    let closed = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o0)).expect("closed");
    closed(&probe);
    if fs::read(&probe).is_ok() {
        println!("skipped: files of mode 0, for this user may read them all the same");
    } else {
        for file in ["member", &log, &snapshot] {
            assert_ne!(spoil(&specimen, file, "of mode 0", closed), Outcome::Whole, "{file} of mode 0");
        }
    }
}

/// A file that is not there is missed by its name; one that holds no promise is made anew.
#[test]
fn missing() {
    let specimen = with_snapshot(End::Orderly);
    let remove = |path: &Path| fs::remove_file(path).expect("removed");
    let snapshot = snapshot_of(&specimen);
    must_refuse(&specimen, &snapshot, "is missing, though the log rests on it", remove);
    let log = specimen.files("log-").remove(0);
    match specimen.spoilt(|data| remove(&data.join(&log))) {
        Outcome::Refused(said) => assert!(said.contains("but no log"), "{said}"),
        Outcome::Whole => panic!("a start without the log"),
    }
    assert_eq!(specimen.spoilt(|data| remove(&data.join("lock"))), Outcome::Whole);
}

/// Records and files that are whole, but not where they were written, are found out.
#[test]
fn swapped() {
    let specimen = with_snapshot(End::Orderly);
    let log = specimen.files("log-").remove(0);
    let snapshot = snapshot_of(&specimen);
    let content = specimen.content(&log);
    // Two neighbours of the same length.
    let starts = batches(&content);
    let pair =
        starts.windows(3).find(|it| it[2] - it[1] == it[1] - it[0]).expect("two batches of one length");
    let (a, b, c) = (pair[0], pair[1], pair[2]);
    let swapped = [&content[..a], &content[b..c], &content[a..b], &content[c..]].concat();
    must_refuse(&specimen, &log, "is damaged", |path| fs::write(path, swapped).expect("written"));
    let repeated = [&content[..b], &content[a..b], &content[c..]].concat();
    must_refuse(&specimen, &log, "is damaged", |path| fs::write(path, repeated).expect("written"));

    must_refuse(&specimen, &log, "is damaged", |path| {
        fs::write(path, specimen.content(&snapshot)).expect("written")
    });
    must_refuse(&specimen, &snapshot, "is damaged", |path| fs::write(path, &content).expect("written"));
    must_refuse(&specimen, "member", "is damaged", |path| {
        fs::write(path, &content[..4096]).expect("written")
    });

    let later = "snapshot-00000000ffffffff";
    // Alone it is not the one on which the log rests; beside that one it is of no use, and does no harm.
    must_refuse(&specimen, &snapshot, "is missing, though the log rests on it", |path| {
        fs::rename(path, path.with_file_name(later)).expect("renamed");
    });
    let beside = specimen.spoilt(|data| {
        fs::copy(data.join(&snapshot), data.join(later)).expect("copied");
    });
    assert_eq!(beside, Outcome::Whole);
    must_refuse(&specimen, "log-00000000000000ee", "number", |path| {
        fs::rename(path.with_file_name(&log), path).expect("renamed");
    });
}

/// A log of two files with one of them lost, or both exchanged, is not half a log.
#[test]
fn two_segments() {
    let specimen = Specimen::make("a", 6, 1_000_000, &[], End::Orderly);
    let logs = specimen.files("log-");
    assert_eq!(logs.len(), 2);
    for lost in &logs {
        let outcome = specimen.spoilt(|data| fs::remove_file(data.join(lost)).expect("removed"));
        assert!(matches!(&outcome, Outcome::Refused(said) if said.contains("log-")), "{lost}: {outcome:?}");
    }
    let exchanged = specimen.spoilt(|data| {
        fs::write(data.join(&logs[0]), specimen.content(&logs[1])).expect("written");
        fs::write(data.join(&logs[1]), specimen.content(&logs[0])).expect("written");
    });
    assert!(matches!(&exchanged, Outcome::Refused(said) if said.contains("log-")), "{exchanged:?}");
    let twice = specimen.spoilt(|data| {
        fs::copy(data.join(&logs[0]), data.join(&logs[1])).expect("copied");
    });
    assert!(matches!(&twice, Outcome::Refused(said) if said.contains("log-")), "{twice:?}");
    assert_eq!(specimen.spoilt(|_| {}), Outcome::Whole);
    assert_eq!(specimen.acknowledged().len(), 6);
}

/// Files of another cluster, and files of a later version, are refused as such.
#[test]
fn foreign_and_later() {
    let ours = with_snapshot(End::Orderly);
    let theirs =
        Specimen::make("b", 300, 100, &["--snapshot-count=1", "--snapshot-bytes=30000"], End::Orderly);
    let (log, their_log) = (ours.files("log-").remove(0), theirs.files("log-").remove(0));
    must_refuse(&ours, &log, "", |path| fs::write(path, theirs.content(&their_log)).expect("written"));
    let alone = ours.spoilt(|data| {
        fs::remove_file(data.join(&log)).expect("removed");
        fs::write(data.join(&their_log), theirs.content(&their_log)).expect("written");
    });
    assert!(matches!(&alone, Outcome::Refused(said) if said.contains("belongs to cluster")), "{alone:?}");
    let snapshot = snapshot_of(&ours);
    let their_snapshot = snapshot_of(&theirs);
    must_refuse(&ours, &snapshot, "", |path| {
        fs::write(path, theirs.content(&their_snapshot)).expect("written")
    });
    must_refuse(&ours, "member", "belongs to", |path| {
        fs::write(path, theirs.content("member")).expect("written")
    });

    // With a sum that fits, so that it is the version that is refused.
    let later = |content: &[u8], sum_at: usize| {
        let mut content = content.to_vec();
        content[8..12].copy_from_slice(&2u32.to_le_bytes());
        let sum = crc32c::crc32c(&content[..sum_at]);
        content[sum_at..sum_at + 4].copy_from_slice(&sum.to_le_bytes());
        content
    };
    let version = "has format version 2, this program knows up to 1";
    must_refuse(&ours, &log, version, |path| {
        fs::write(path, later(&ours.content(&log), 124)).expect("written")
    });
    must_refuse(&ours, &snapshot, version, |path| {
        fs::write(path, later(&ours.content(&snapshot), 60)).expect("written");
    });
    let text =
        String::from_utf8(ours.content("member")).expect("text").replace("synod-member 1", "synod-member 2");
    let (body, _) = text.rsplit_once("sum ").expect("a sum");
    let text = format!("{body}sum {:08x}\n", crc32c::crc32c(body.as_bytes()));
    must_refuse(&ours, "member", "'synod-member 2' is not a format that this version knows", |path| {
        fs::write(path, text).expect("written");
    });
}
