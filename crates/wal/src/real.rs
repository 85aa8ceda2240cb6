//! The real disk: a folder of the operating system, locked while it is in use.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::disk::{Disk, DiskFile, Entry, EntryKind};
use crate::error::LogError;

/// The file whose lock says that a folder is in use.
const LOCK_NAME: &str = "lock";

/// A folder of the operating system. Nobody else can open it so while this lives.
#[derive(Debug)]
pub struct RealDisk {
    folder: PathBuf,
    /// The open folder itself: what `sync_dir` syncs.
    handle: File,
    /// Holds the lock; it ends with the process, however that ends.
    _lock: File,
    warnings: Vec<String>,
}

impl RealDisk {
    /// Opens a data folder, and makes it (for its owner alone, mode 0700) when there is none.
    ///
    /// # Errors
    /// [`LogError::InUse`] when another process has it open; [`LogError::NotAFile`] when something else than a folder
    /// has this name; [`LogError::Io`] when it cannot be made or entered.
    pub fn open(folder: impl Into<PathBuf>) -> Result<RealDisk, LogError> {
        let folder = folder.into();
        let shown = folder.display().to_string();
        let failed = |action| {
            let shown = shown.clone();
            move |error: io::Error| LogError::io(action, shown, error)
        };
        let existed = folder.exists();
        if existed && !folder.is_dir() {
            return Err(LogError::NotAFile { file: shown, what: "not a folder" });
        }
        if !existed {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .map_err(failed("making the data folder"))?;
            // The folder's own name must survive a power cut, too.
            let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new(".")))
                .and_then(|parent| parent.sync_all())
                .map_err(failed("syncing the folder above"))?;
        }
        let handle = File::open(&folder).map_err(failed("opening the data folder"))?;
        let lock = lock(&folder, &shown)?;
        let mode =
            handle.metadata().map_err(failed("looking at the data folder"))?.permissions().mode() & 0o777;
        let mut warnings = Vec::new();
        if mode & 0o077 != 0 {
            warnings.push(format!("{shown} has mode {mode:04o}: others may look into it; 0700 is advised"));
        }
        Ok(RealDisk { folder, handle, _lock: lock, warnings })
    }

    /// What a person should know about the folder.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Takes the folder's lock and leaves the process's number in it, for the message that others get.
fn lock(folder: &Path, shown: &str) -> Result<File, LogError> {
    let path = folder.join(LOCK_NAME);
    let failed = |error| LogError::io("locking", path.display().to_string(), error);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            let known = (&mut file).take(20).read_to_string(&mut owner).is_ok() && !owner.trim().is_empty();
            let by = if known { format!(" (process {})", owner.trim()) } else { String::new() };
            return Err(LogError::InUse { folder: shown.to_owned(), by });
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
    Ok(file)
}

impl Disk for RealDisk {
    fn path(&self, name: &str) -> String {
        let path = if name.is_empty() { self.folder.clone() } else { self.folder.join(name) };
        path.display().to_string()
    }

    fn list(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            // Names that are not text are not ours.
            let Ok(name) = entry.file_name().into_string() else { continue };
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let kind = match metadata.file_type() {
                kind if kind.is_file() => EntryKind::File,
                kind if kind.is_dir() => EntryKind::Folder,
                kind if kind.is_symlink() => EntryKind::Link,
                _ => EntryKind::Special,
            };
            entries.push(Entry { name, kind, length: metadata.len() });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.folder.join(name))?;
        Ok(Box::new(RealFile(file)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            // A link may lead anywhere, and a pipe would keep us waiting for ever.
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
            .open(self.folder.join(name))?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Box::new(RealFile(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.folder.join(from), self.folder.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.folder.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

/// An open file of the operating system (close-on-exec, as the standard library opens them all).
struct RealFile(File);

impl DiskFile for RealFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn preallocate(&self, length: u64) -> io::Result<()> {
        use rustix::fs::FallocateFlags;
        use rustix::io::Errno;
        loop {
            match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, length) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                // A file system that cannot reserve room can still make the file as long.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                    return if self.length()? < length { self.0.set_len(length) } else { Ok(()) };
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn shrink(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn settle(&self, from: u64) -> io::Result<()> {
        self.0.sync_data()?;
        // A page that is forgotten in part is not forgotten; the largest pages there are have 64 KiB.
        #[cfg(target_os = "linux")]
        rustix::fs::fadvise(&self.0, from / (64 << 10) * (64 << 10), None, rustix::fs::Advice::DontNeed)?;
        Ok(())
    }
}
