//! The one door to the file system: everything that the log and the snapshots do to files goes through
//! [`Disk`], so that a simulator can stand in the doorway.
//!
//! A disk is one flat folder. The calls are few and synchronous, and each says what it promises when the
//! power fails:
//!
//! - [`DiskFile::write_at`] promises nothing until [`DiskFile::sync_data`] or [`DiskFile::sync_all`] returned. Of what was
//!   not synced any part may survive: nothing, everything, a prefix cut at any byte, or any set of whole
//!   512-byte sectors. What did not survive reads as it did before: in a file that only ever grows into
//!   preallocated room, as zeros.
//! - [`Disk::create`], [`Disk::rename`] and [`Disk::remove`] promise nothing until [`Disk::sync_dir`] returned;
//!   any subset of the changes since then may be lost, in any order (RocksDB issue 10573: a rename without
//!   a directory sync). A file's bytes and its name are two things: syncing one does not sync the other.
//! - A failed sync leaves the unsynced bytes of that file unknown for ever; a second sync that succeeds
//!   proves nothing (the "fsyncgate" of 2018; Rebello et al., ATC 2020). Nobody calls it twice here.
//!
//! Slow and stuck disks need no hook: a simulator calls [`Log::write`](crate::Log::write) when the write
//! starts and [`Log::sync_written`](crate::Log::sync_written) when it chooses to let it end.

use std::io;

/// A folder of files.
pub trait Disk: Send + Sync {
    /// The full name of a file, for messages.
    fn path(&self, name: &str) -> String;

    /// What the folder holds, in the order of the names.
    ///
    /// # Errors
    /// When the folder cannot be read.
    fn list(&self) -> io::Result<Vec<Entry>>;

    /// Makes a new, empty file.
    ///
    /// # Errors
    /// When there is something of this name already, or the file cannot be made.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a regular file for reading and writing.
    ///
    /// # Errors
    /// When there is none, when it is a symbolic link or something else than a file, or when it may not be opened.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file another name; a file that has that name already is replaced, at once.
    ///
    /// # Errors
    /// When it could not be done.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name; whoever has the file open can go on reading it.
    ///
    /// # Errors
    /// When it could not be done.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes every creation, renaming and removal so far survive a power cut.
    ///
    /// # Errors
    /// When it may not have been done: then nobody knows which of them survive.
    fn sync_dir(&self) -> io::Result<()>;
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Its length in bytes, preallocated room included.
    ///
    /// # Errors
    /// When the length cannot be found out.
    fn length(&self) -> io::Result<u64>;

    /// Reserves room up to `length` and makes the file that long; what was not there reads as zeros.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] when there is not enough room: better now than in the middle of a write.
    fn preallocate(&self, length: u64) -> io::Result<()>;

    /// Cuts the file off at `length`, which gives the room behind it back.
    ///
    /// # Errors
    /// When it could not be done.
    fn shrink(&self, length: u64) -> io::Result<()>;

    /// Fills all of `buffer` from `offset` on.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the file ends earlier; or when it cannot be read.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`; interruptions and short writes are the disk's business.
    ///
    /// # Errors
    /// When not everything was written; some of it may have been.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes every byte written so far survive a power cut, and the length, if it grew.
    ///
    /// # Errors
    /// When it may not have been done: then nobody knows which bytes survive, and asking again proves nothing.
    fn sync_data(&self) -> io::Result<()>;

    /// As [`DiskFile::sync_data`], with everything else that is known of the file: for a new one.
    ///
    /// # Errors
    /// As [`DiskFile::sync_data`].
    fn sync_all(&self) -> io::Result<()>;

    /// Syncs, then forgets what memory holds of the file from `from` on, so that the next read tells what the *disk* holds:
    /// after a failed sync the operating system may serve bytes that never got there.
    ///
    /// # Errors
    /// As [`DiskFile::sync_data`].
    fn settle(&self, from: u64) -> io::Result<()>;
}

/// A name in the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name, without the folder.
    pub name: String,
    /// What it names.
    pub kind: EntryKind,
    /// The length of a file in bytes.
    pub length: u64,
}

/// What a name can stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// An ordinary file: all that the log ever makes.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A pipe, a socket, a device.
    Special,
}
