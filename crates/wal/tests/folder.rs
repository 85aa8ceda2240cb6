//! The real disk: what a person or another program can do to a data folder, each with its own clear error.

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use support::{IDENTITY, Numbered, OPTIONS, row, snapshot_state};
use synod_core::{Index, NodeId};
use synod_wal::{Identity, Log, LogError, RealDisk, Recovery};

fn open(folder: &Path) -> Result<(Log, Recovery), LogError> {
    open_as(folder, IDENTITY)
}

fn open_as(folder: &Path, identity: Identity) -> Result<(Log, Recovery), LogError> {
    Log::open(Arc::new(RealDisk::open(folder)?), identity, OPTIONS)
}

/// A folder on the real disk with 40 records, 30 of them in a snapshot, in several segments.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let temporary = tempfile::tempdir().expect("a place for files");
    let folder = temporary.path().join("member");
    let (mut log, found) = open(&folder).expect("a new folder");
    assert!(found.fresh);
    let append = |log: &mut Log, numbers: std::ops::RangeInclusive<u64>| {
        for number in numbers {
            log.append(&Numbered(number)).and_then(|()| log.sync()).expect("there is room");
        }
    };
    append(&mut log, 1..=35);
    let mut writer = log.snapshots().create(Index(30)).expect("there is room");
    writer.append(&snapshot_state(30)).expect("there is room");
    writer.finish().expect("there is room");
    let kept: Vec<Numbered> = (31..=35).map(Numbered).collect();
    log.checkpoint(Index(30), &kept).expect("there is room").remove().expect("nothing is in the way");
    append(&mut log, 36..=50);
    drop(log);
    append(&mut open(&folder).expect("a whole folder").0, 51..=60);
    (temporary, folder)
}

fn message(folder: &Path) -> String {
    open(folder).map(|_| ()).expect_err("something is wrong with the folder").to_string()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .collect();
    names.sort();
    names
}

/// What was synced comes back on the real disk, after a checkpoint and a restart in the middle; the folder is for
/// its owner alone and holds nothing that is not needed.
#[test]
fn a_member_comes_back() {
    let (_temporary, folder) = folder();
    for restart in 0..3 {
        let (mut log, found) = open(&folder).expect("a whole folder");
        assert_eq!(row(&found), 60 + restart);
        assert!(!found.fresh && found.warnings.is_empty() && found.torn.is_none(), "{found:?}");
        log.append(&Numbered(61 + restart)).and_then(|()| log.sync()).expect("there is room");
        log.mark().expect("there is room");
    }
    assert_eq!(fs::metadata(&folder).expect("it is there").permissions().mode() & 0o777, 0o700);
    let names = names(&folder);
    let first = names.iter().map(String::as_str).find(|name| name.starts_with("log-")).expect("a log");
    assert!(first > "log-0000000000000001", "the checkpoint let the first segment go: {first}");
    assert!(names.iter().all(|name| !name.ends_with(".tmp")));
}

/// A folder that is in use is refused, with the process that uses it; and is free when that one has ended.
#[test]
fn a_folder_has_one_user() {
    let (_temporary, folder) = folder();
    let first = open(&folder).expect("nobody else has it");
    let error = message(&folder);
    assert!(error.contains("in use by another process (process "), "{error}");
    assert!(error.contains(&std::process::id().to_string()), "{error}");
    drop(first);
    open(&folder).expect("it is free again");
}

/// A folder that others may look into is used, with a warning.
#[test]
fn an_open_folder_is_warned_about() {
    let (_temporary, folder) = folder();
    assert!(RealDisk::open(&folder).expect("it opens").warnings().is_empty());
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let disk = RealDisk::open(&folder).expect("it opens all the same");
    assert!(disk.warnings()[0].contains("mode 0755"), "{:?}", disk.warnings());
}

/// Another cluster's or another member's folder is refused before anything in it is touched.
#[test]
fn a_folder_belongs_to_one_member() {
    let (_temporary, folder) = folder();
    let before = names(&folder);
    let error = open_as(&folder, Identity { cluster: 7, ..IDENTITY }).map(|_| ()).expect_err("not ours");
    assert!(error.to_string().contains("belongs to cluster 0000000000005ead"), "{error}");
    let error = open_as(&folder, Identity { node: NodeId(9), ..IDENTITY }).map(|_| ()).expect_err("not ours");
    assert!(error.to_string().contains("belongs to member 3, this is member 9"), "{error}");
    assert_eq!(names(&folder), before);
}

/// Each file of the folder replaced by something else: a folder, a pipe, a link, nothing inside, another file's
/// content. The error says which file and what it is; nothing hangs, and no file is changed by it.
#[test]
fn something_else_stands_in_a_files_place() {
    let (_temporary, folder) = folder();
    let files: Vec<String> = names(&folder)
        .into_iter()
        .filter(|name| name.starts_with("log-") || name.starts_with("snapshot-"))
        .collect();
    assert!(files.len() >= 3, "{files:?}");
    for name in &files {
        let (path, kept) = (folder.join(name), folder.join("kept"));
        fs::rename(&path, &kept).expect("it is there");
        fs::create_dir(&path).expect("the name is free");
        assert!(message(&folder).contains("is a folder, not a regular file"), "{}", message(&folder));
        fs::remove_dir(&path).expect("it is empty");
        symlink(&kept, &path).expect("the name is free");
        assert!(message(&folder).contains("is a symbolic link"), "{}", message(&folder));
        fs::remove_file(&path).expect("it is a link");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .expect("a pipe");
        assert!(message(&folder).contains("is a pipe"), "{}", message(&folder));
        fs::remove_file(&path).expect("it is a pipe");
        fs::write(&path, b"").expect("the name is free");
        assert!(
            message(&folder).contains("it has 0 bytes") || message(&folder).contains("the file has 0 bytes")
        );
        fs::write(&path, [b'x'; 5000]).expect("it is ours");
        assert!(message(&folder).contains("does not begin like"), "{}", message(&folder));
        for other in files.iter().filter(|other| *other != name && other[..4] == name[..4]) {
            fs::copy(folder.join(other), &path).expect("both are files");
            assert!(message(&folder).contains("says inside that it is number"), "{}", message(&folder));
        }
        fs::rename(&kept, &path).expect("back to where it was");
        assert_eq!(row(&open(&folder).expect("whole again").1), 60);
    }
}

/// A file that may not be read is an error that says so (root may read everything, so it is skipped there).
#[test]
fn a_file_without_permission() {
    let (_temporary, folder) = folder();
    if rustix::process::geteuid().is_root() {
        return;
    }
    let name = names(&folder).into_iter().rfind(|name| name.starts_with("log-")).expect("a log");
    fs::set_permissions(folder.join(&name), fs::Permissions::from_mode(0o000)).expect("it is ours");
    let error = message(&folder);
    assert!(error.contains(&name) && error.contains("ermission"), "{error}");
}

/// A newer program's file is named as such; a version that has merely rotted is damage.
#[test]
fn a_newer_format_is_refused() {
    let (_temporary, folder) = folder();
    for prefix in ["log-", "snapshot-"] {
        let name = names(&folder).into_iter().rfind(|name| name.starts_with(prefix)).expect("there is one");
        let original = fs::read(folder.join(&name)).expect("a file");
        let mut bytes = original.clone();
        bytes[8] = 2;
        fs::write(folder.join(&name), &bytes).expect("it is ours");
        assert!(message(&folder).contains("damaged at offset 0"), "{}", message(&folder));
        let header = if prefix == "log-" { 128 } else { 64 };
        let sum = crc32c::crc32c(&bytes[..header - 4]);
        bytes[header - 4..header].copy_from_slice(&sum.to_le_bytes());
        fs::write(folder.join(&name), &bytes).expect("it is ours");
        let error = message(&folder);
        assert!(error.contains("has format version 2, this program knows up to 1"), "{error}");
        fs::write(folder.join(&name), original).expect("it is ours");
    }
}

/// A log without the snapshot it rests on, and a snapshot without a log: files were lost, and the error says which.
#[test]
fn a_log_and_its_snapshot_belong_together() {
    let (_temporary, folder) = folder();
    let snapshot = folder.join("snapshot-000000000000001e");
    let kept = folder.join("kept");
    fs::rename(&snapshot, &kept).expect("it is there");
    assert!(message(&folder).contains("snapshot-000000000000001e is missing"), "{}", message(&folder));
    fs::rename(&kept, &snapshot).expect("it was there");
    for name in names(&folder).into_iter().filter(|name| name.starts_with("log-")) {
        fs::remove_file(folder.join(name)).expect("it is there");
    }
    assert!(message(&folder).contains("but no log"), "{}", message(&folder));
}

/// A data folder that is a file, or that cannot be made, is told so.
#[test]
fn a_folder_that_is_none() {
    let temporary = tempfile::tempdir().expect("a place for files");
    let file = temporary.path().join("file");
    fs::write(&file, b"x").expect("there is room");
    assert!(message(&file).contains("is not a folder"), "{}", message(&file));
    assert!(
        message(&file.join("below")).contains("making the data folder failed"),
        "{}",
        message(&file.join("below"))
    );
}
