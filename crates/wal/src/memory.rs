//! A disk in memory that knows what a power cut may take: for tests, and for the simulator to build upon.
//!
//! It keeps, beside what a running process sees, what would survive: for each file the synced bytes and the
//! changes since, for the folder the synced names and the changes since. [`MemoryDisk::crash`] asks the caller about
//! every unsynced change, in order, whether it survives: wholly, in parts, or not.
//!
//! Three more doors for faults: [`MemoryDisk::on_operation`] is asked before every operation and can make it fail, or
//! fail half-way; [`MemoryDisk::edit`] changes bytes that are on the disk (rot, misdirected and lost writes, old
//! contents coming back); [`MemoryDisk::contents`] reads them. Everything is decided by the caller and the order of
//! the calls, so that the same decisions give the same disk.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, DiskFile, Entry, EntryKind};
use crate::memory_file::{Change, Content, FileState};

/// A folder in memory. Clones are the same folder.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    shared: Arc<Mutex<State>>,
}

/// What is about to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Counts the operations of this disk, from 0.
    pub number: u64,
    /// What.
    pub kind: OperationKind,
    /// To which file; empty for the folder itself.
    pub name: String,
    /// From where on, for reads and writes; the new length, for changes of the length.
    pub offset: u64,
    /// How many bytes, for reads and writes.
    pub length: u64,
}

/// The operations that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "they are the methods of Disk and DiskFile, by name")]
pub enum OperationKind {
    List,
    Create,
    Open,
    Rename,
    Remove,
    SyncDir,
    Length,
    Preallocate,
    Shrink,
    Read,
    Write,
    Sync,
}

/// What becomes of an operation.
#[derive(Debug)]
pub enum Fault {
    /// It works.
    None,
    /// It fails and does nothing. A failed sync leaves everything unsynced, as far as a power cut is concerned.
    Fail(io::Error),
    /// A write fails after its first bytes; another operation fails as with [`Fault::Fail`].
    FailAfter(usize, io::Error),
    /// It says that it worked, and does nothing: a lost write, a sync that a lying disk confirms.
    Lie,
}

/// A change that no sync has made durable.
#[derive(Debug)]
pub enum Unsynced<'a> {
    /// Bytes.
    Write {
        /// The file, by its name at the moment or its last one.
        name: &'a str,
        /// Where.
        offset: u64,
        /// Which.
        bytes: &'a [u8],
    },
    /// A new length, longer or shorter.
    Length {
        /// The file.
        name: &'a str,
        /// The new length.
        length: u64,
    },
    /// A name that was created, or that stands for another file since a rename.
    Link {
        /// The name.
        name: &'a str,
    },
    /// A name that was removed, or renamed to another.
    Unlink {
        /// The name.
        name: &'a str,
    },
}

/// What a power cut does to an unsynced change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// As if it had never been made.
    Lost,
    /// It reached the disk in time.
    Kept,
    /// Of a write, only these parts reached the disk (offsets within it); any other change is lost.
    Torn(Vec<Range<usize>>),
}

impl Fate {
    /// A write whose first `bytes` alone reached the disk.
    #[must_use]
    pub fn cut_off(bytes: usize) -> Fate {
        Fate::Torn(std::iter::once(0..bytes).collect())
    }
}

/// Asked before every operation.
type Faults = Box<dyn FnMut(&Operation) -> Fault + Send>;

#[derive(Default)]
struct State {
    /// What a running process sees.
    names: BTreeMap<String, FileId>,
    /// What survives.
    durable_names: BTreeMap<String, FileId>,
    /// The changes of names since the folder was synced, in order.
    changes: Vec<NameChange>,
    files: BTreeMap<FileId, FileState>,
    next_file: FileId,
    operations: u64,
    faults: Option<Faults>,
    /// Files opened before a crash are closed by it.
    incarnation: u64,
}

type FileId = u64;

#[derive(Clone)]
enum NameChange {
    Link {
        name: String,
        file: FileId,
    },
    Unlink {
        name: String,
    },
    /// Both at once, as a file system's journal does it.
    Rename {
        from: String,
        to: String,
        file: FileId,
    },
}

impl State {
    /// Counts the operation and asks whether it works: `Ok(true)` to do it, `Ok(false)` to pretend.
    fn begin(
        &mut self,
        kind: OperationKind,
        name: &str,
        offset: u64,
        length: usize,
    ) -> Result<bool, (usize, io::Error)> {
        let number = self.operations;
        self.operations += 1;
        let Some(faults) = self.faults.as_mut() else { return Ok(true) };
        let operation = Operation { number, kind, name: name.to_owned(), offset, length: length as u64 };
        match faults(&operation) {
            Fault::None => Ok(true),
            Fault::Lie => Ok(false),
            Fault::Fail(error) => Err((0, error)),
            Fault::FailAfter(bytes, error) => Err((bytes.min(length), error)),
        }
    }

    fn begin_name(&mut self, kind: OperationKind, name: &str) -> io::Result<bool> {
        self.begin(kind, name, 0, 0).map_err(|(_, error)| error)
    }

    fn apply(names: &mut BTreeMap<String, FileId>, change: &NameChange) {
        match change {
            NameChange::Link { name, file } => {
                names.insert(name.clone(), *file);
            }
            NameChange::Unlink { name } => {
                names.remove(name);
            }
            NameChange::Rename { from, to, file } => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
        }
    }

    fn change_name(&mut self, change: NameChange) {
        State::apply(&mut self.names, &change);
        self.changes.push(change);
    }

    fn find(&self, name: &str) -> io::Result<FileId> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl MemoryDisk {
    /// An empty folder.
    #[must_use]
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks `faults` before every operation from now on. It must not use this disk itself.
    pub fn on_operation(&self, faults: impl FnMut(&Operation) -> Fault + Send + 'static) {
        self.state().faults = Some(Box::new(faults));
    }

    /// Everything works again.
    pub fn heal(&self) {
        self.state().faults = None;
    }

    /// How many operations there were.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// The power fails: `fate` decides about every unsynced change, the names first, then each file's, in the
    /// order in which they were made. Open files are closed.
    pub fn crash(&self, mut fate: impl FnMut(&Unsynced<'_>) -> Fate) {
        let mut state = self.state();
        state.incarnation += 1;
        let changes = std::mem::take(&mut state.changes);
        for change in changes {
            let asked = match &change {
                NameChange::Link { name, .. } | NameChange::Rename { to: name, .. } => {
                    Unsynced::Link { name }
                }
                NameChange::Unlink { name } => Unsynced::Unlink { name },
            };
            if fate(&asked) == Fate::Kept {
                State::apply(&mut state.durable_names, &change);
            }
        }
        for file in state.files.values_mut() {
            for change in std::mem::take(&mut file.changes) {
                let asked = match &change {
                    Change::Write { offset, bytes } => {
                        Unsynced::Write { name: &file.name, offset: *offset, bytes }
                    }
                    Change::Length(length) => Unsynced::Length { name: &file.name, length: *length },
                };
                match (fate(&asked), &change) {
                    (Fate::Lost, _) | (Fate::Torn(_), Change::Length(_)) => {}
                    (Fate::Kept, change) => change.apply(&mut file.durable),
                    (Fate::Torn(parts), Change::Write { offset, bytes }) => {
                        for part in parts {
                            let at = offset + part.start as u64;
                            file.durable
                                .write(at, &bytes[part.start.min(bytes.len())..part.end.min(bytes.len())]);
                        }
                    }
                }
            }
            file.visible = file.durable.clone();
        }
        state.names = state.durable_names.clone();
        let named: Vec<FileId> = state.names.values().copied().collect();
        state.files.retain(|id, _| named.contains(id));
    }

    /// The process ends, but the power stays on: open files are closed, nothing is lost.
    pub fn kill(&self) {
        self.state().incarnation += 1;
    }

    /// What a file holds, as a reader sees it.
    #[must_use]
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        let id = state.names.get(name)?;
        Some(state.files.get(id)?.visible.to_vec())
    }

    /// Changes a file on the disk itself, past all syncs: rot, or somebody's editor. Makes the file when there is
    /// none of this name.
    pub fn edit(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let id = match state.names.get(name) {
            Some(id) => *id,
            None => {
                let id = state.next_file;
                state.next_file += 1;
                state.names.insert(name.to_owned(), id);
                state.durable_names.insert(name.to_owned(), id);
                state.files.insert(id, FileState { name: name.to_owned(), ..FileState::default() });
                id
            }
        };
        if let Some(file) = state.files.get_mut(&id) {
            let mut bytes = file.visible.to_vec();
            change(&mut bytes);
            let content = Content { length: bytes.len() as u64, bytes };
            (file.visible, file.durable) = (content.clone(), content);
            file.changes.clear();
        }
    }

    /// Takes a name away, past all syncs.
    pub fn unlink(&self, name: &str) {
        let mut state = self.state();
        state.names.remove(name);
        state.durable_names.remove(name);
    }

    /// An independent copy of the folder as a power cut would leave it if everything survived.
    #[must_use]
    pub fn duplicate(&self) -> MemoryDisk {
        let copy = MemoryDisk::new();
        let state = self.state();
        for (name, id) in &state.names {
            let bytes = state.files[id].visible.to_vec();
            copy.edit(name, |content| *content = bytes);
        }
        drop(state);
        copy
    }

    /// The names in the folder.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }
}

impl Disk for MemoryDisk {
    fn path(&self, name: &str) -> String {
        format!("memory/{name}")
    }

    fn list(&self) -> io::Result<Vec<Entry>> {
        let mut state = self.state();
        state.begin_name(OperationKind::List, "")?;
        let entry = |(name, id): (&String, &FileId)| Entry {
            name: name.clone(),
            kind: EntryKind::File,
            length: state.files[id].visible.length,
        };
        Ok(state.names.iter().map(entry).collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.begin_name(OperationKind::Create, name)?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = state.next_file;
        state.next_file += 1;
        state.files.insert(id, FileState { name: name.to_owned(), ..FileState::default() });
        state.change_name(NameChange::Link { name: name.to_owned(), file: id });
        Ok(Box::new(MemoryFile { disk: self.clone(), id, incarnation: state.incarnation }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.begin_name(OperationKind::Open, name)?;
        let id = state.find(name)?;
        Ok(Box::new(MemoryFile { disk: self.clone(), id, incarnation: state.incarnation }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        if state.begin_name(OperationKind::Rename, from)? {
            let file = state.find(from)?;
            state.change_name(NameChange::Rename { from: from.to_owned(), to: to.to_owned(), file });
            if let Some(file) = state.files.get_mut(&file) {
                to.clone_into(&mut file.name);
            }
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        if state.begin_name(OperationKind::Remove, name)? {
            state.find(name)?;
            state.change_name(NameChange::Unlink { name: name.to_owned() });
        }
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.begin_name(OperationKind::SyncDir, "")? {
            state.durable_names = state.names.clone();
            state.changes.clear();
        }
        Ok(())
    }
}

/// An open file; removing its name does not take its bytes away until the disk crashes.
struct MemoryFile {
    disk: MemoryDisk,
    id: FileId,
    incarnation: u64,
}

impl MemoryFile {
    /// Runs `work` on the file if the operation is to work; `half` when it fails after some bytes.
    fn run<T>(
        &self,
        (kind, offset, length): (OperationKind, u64, usize),
        pretended: T,
        half: impl FnOnce(&mut FileState, usize),
        work: impl FnOnce(&mut FileState) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.disk.state();
        if state.incarnation != self.incarnation {
            return Err(io::Error::other("the file was closed by a crash"));
        }
        let name = state.files.get(&self.id).map(|file| file.name.clone()).unwrap_or_default();
        let begun = state.begin(kind, &name, offset, length);
        let file = state.files.get_mut(&self.id).ok_or(io::ErrorKind::NotFound)?;
        match begun {
            Ok(true) => work(file),
            Ok(false) => Ok(pretended),
            Err((bytes, error)) => {
                half(file, bytes);
                Err(error)
            }
        }
    }
}

impl DiskFile for MemoryFile {
    fn length(&self) -> io::Result<u64> {
        self.run((OperationKind::Length, 0, 0), 0, |_, _| {}, |file| Ok(file.visible.length))
    }

    fn preallocate(&self, length: u64) -> io::Result<()> {
        let operation = (OperationKind::Preallocate, length, 0);
        self.run(
            operation,
            (),
            |_, _| {},
            |file| {
                if file.visible.length < length {
                    file.change(Change::Length(length));
                }
                Ok(())
            },
        )
    }

    fn shrink(&self, length: u64) -> io::Result<()> {
        let operation = (OperationKind::Shrink, length, 0);
        self.run(
            operation,
            (),
            |_, _| {},
            |file| {
                file.change(Change::Length(length));
                Ok(())
            },
        )
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let operation = (OperationKind::Read, offset, buffer.len());
        self.run(operation, (), |_, _| {}, |file| file.visible.read(offset, buffer))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let write = |bytes: &[u8]| Change::Write { offset, bytes: bytes.to_vec() };
        let half = |file: &mut FileState, count: usize| file.change(write(&bytes[..count]));
        self.run((OperationKind::Write, offset, bytes.len()), (), half, |file| {
            file.change(write(bytes));
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.run(
            (OperationKind::Sync, 0, 0),
            (),
            |_, _| {},
            |file| {
                file.sync();
                Ok(())
            },
        )
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn settle(&self, _from: u64) -> io::Result<()> {
        self.sync_data()
    }
}
