//! A disk that keeps no promise that it did not make.
//!
//! It implements [`synod_wal::Disk`] in memory and remembers, for every file and for the folder, what was synced and
//! what only *looks* written. When the power fails ([`SimDisk::power_cut`]), what was not synced may be lost in
//! any of the ways that real disks and file systems lose it: all of it, a suffix (torn at any byte), any set of
//! 512-byte sectors, folder entries without their files or files without their names ([`Loss`]). A killed
//! process alone ([`SimDisk::process_ended`]) loses nothing: the page cache outlives it.
//!
//! Every call passes a *gate* ([`gate`]), which counts it by site and may be set to cut the power there, to fail once or for
//! ever, or to tear the write: so every write, sync, rename and removal is a crash point, and coverage is counted.
//!
//! Lasting damage (rot, misdirected and lost writes, a wiped disk) is in [`damage`]. Left out: reads that
//! fail now and differ later; permissions; anything that is not one flat folder.

mod content;
mod damage;
mod gate;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use synod_core::Rng;
use synod_wal::{Disk, DiskFile, Entry, EntryKind};

use content::Content;
pub use damage::Damage;
pub use gate::{Call, Coverage, Effect, Gate, Site, Trap};

/// The atom of a disk: a sector is written whole or not at all.
pub const SECTOR: usize = 512;

/// What the running system forgets of a file at once.
const PAGE: usize = 4096;

/// How much of what was not synced is lost when the power fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing: it had all reached the platter by luck.
    Nothing,
    /// Everything.
    Everything,
    /// Writes reached the disk in order up to some byte; the one under way is torn there.
    Suffix,
    /// Any set of sectors reached the disk.
    Sectors,
    /// Whole writes and folder changes survive or are lost independently of one another.
    Reordered,
    /// File contents survive, but the folder's changes are lost.
    Names,
}

impl Loss {
    /// All of them.
    pub const ALL: [Loss; 6] =
        [Loss::Nothing, Loss::Everything, Loss::Suffix, Loss::Sectors, Loss::Reordered, Loss::Names];
}

/// A simulated disk; clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

pub(crate) struct State {
    files: BTreeMap<u64, File>,
    names: BTreeMap<String, u64>,
    names_durable: BTreeMap<String, u64>,
    name_changes: Vec<NameChange>,
    next_inode: u64,
    /// Bytes that fit; more is refused with "no space".
    capacity: u64,
    rng: Rng,
    gate: Gate,
}

#[derive(Default)]
struct File {
    /// What survives a power cut.
    durable: Content,
    /// What the running system reads.
    now: Content,
    /// What was written since the last sync, in order.
    writes: Vec<Write>,
    /// How many have it open: until the last one closes it, a removed file can be read.
    open: usize,
}

#[derive(Clone)]
enum Write {
    Bytes { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

enum NameChange {
    Create { name: String, inode: u64 },
    Rename { from: String, to: String, inode: u64 },
    Remove { name: String },
}

impl Write {
    fn apply(&self, to: &mut Content) {
        match self {
            Write::Bytes { offset, bytes } => to.put(*offset, bytes),
            Write::Length(length) => to.set_len(*length),
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            NameChange::Create { name, inode } => {
                names.insert(name.clone(), *inode);
            }
            NameChange::Rename { from, to, inode } => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
            NameChange::Remove { name } => {
                names.remove(name);
            }
        }
    }
}

impl SimDisk {
    /// An empty disk; `seed` decides what its power cuts lose.
    #[must_use]
    pub fn new(seed: u64) -> SimDisk {
        SimDisk {
            state: Arc::new(Mutex::new(State {
                files: BTreeMap::new(),
                names: BTreeMap::new(),
                names_durable: BTreeMap::new(),
                name_changes: Vec::new(),
                next_inode: 1,
                capacity: u64::MAX,
                rng: Rng::new(seed),
                gate: Gate::default(),
            })),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // One thread runs a world: a poisoned lock can only follow a panic that is already on its way out.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The power fails: what was not synced is lost as `loss` says, and the disk answers again.
    pub fn power_cut(&self, loss: Loss) {
        let mut state = self.state();
        let State { files, names, names_durable, name_changes, rng, gate, .. } = &mut *state;
        for file in files.values_mut() {
            let writes = std::mem::take(&mut file.writes);
            survive(&mut file.durable, &writes, loss, rng);
            file.now.clone_from(&file.durable);
        }
        let changes = std::mem::take(name_changes);
        let kept = match loss {
            Loss::Nothing => changes.len(),
            Loss::Everything | Loss::Names => 0,
            Loss::Suffix => rng.below(changes.len() as u64 + 1) as usize,
            Loss::Sectors | Loss::Reordered => changes.len(),
        };
        for change in &changes[..kept] {
            if !matches!(loss, Loss::Sectors | Loss::Reordered) || rng.chance(0.5) {
                change.apply(names_durable);
            }
        }
        names.clone_from(names_durable);
        let live: Vec<u64> = names.values().copied().collect();
        files.retain(|inode, _| live.contains(inode));
        gate.restore_power();
    }

    /// The process ended and the system lives on: everything written is still there, synced or not.
    pub fn process_ended(&self) {
        self.state().gate.restore_power();
    }

    /// Sets what the gate does; the earlier trap, if any, is replaced.
    pub fn arm(&self, trap: Trap) {
        self.state().gate.arm(trap);
    }

    /// Takes all traps away, and makes a failing disk whole again.
    pub fn disarm(&self) {
        self.state().gate.disarm();
    }

    /// Whether it fails at some call until somebody replaces it.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.state().gate.is_failing()
    }

    /// Whether a kind of call fails until the disk is replaced, or will: a trap for it is set, and waits.
    #[must_use]
    pub fn is_to_fail(&self) -> bool {
        self.state().gate.is_to_fail()
    }

    /// Whether a trap cut the power, and at which site: whoever uses the disk is dead from there on.
    #[must_use]
    pub fn died_at(&self) -> Option<Site> {
        self.state().gate.died_at()
    }

    /// How often each site was passed, and how often the power was cut there.
    #[must_use]
    pub fn coverage(&self) -> Coverage {
        self.state().gate.coverage.clone()
    }

    /// From now on no more than this fits; `u64::MAX` for no limit.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// The bytes of all files.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// The bytes of all files without the zeros at their ends, which segments have in store.
    #[must_use]
    pub fn written(&self) -> usize {
        let state = self.state();
        state.names.values().map(|inode| state.files[inode].durable.used()).sum()
    }

    /// Does lasting damage; what was hit, in words, if anything could be.
    pub fn harm(&self, damage: Damage) -> Option<String> {
        self.state().harm(damage)
    }

    /// A second disk with the same content, synced or not, for trying something out.
    #[must_use]
    pub fn copy(&self, seed: u64) -> SimDisk {
        let copy = SimDisk::new(seed);
        {
            let (state, mut target) = (self.state(), copy.state());
            target.names.clone_from(&state.names);
            target.names_durable.clone_from(&state.names_durable);
            target.next_inode = state.next_inode;
            for (inode, file) in &state.files {
                let (durable, now, writes) = (file.durable.clone(), file.now.clone(), file.writes.clone());
                let same = File { durable, now, writes, open: 0 };
                target.files.insert(*inode, same);
            }
        }
        copy
    }

    /// The names and durable lengths of all files.
    #[must_use]
    pub fn files(&self) -> Vec<(String, usize)> {
        let state = self.state();
        state.names.iter().map(|(name, inode)| (name.clone(), state.files[inode].durable.len())).collect()
    }

    /// How many bytes of a file are written and not synced.
    #[must_use]
    pub fn unsynced(&self, name: &str) -> usize {
        let state = self.state();
        let file = state.names.get(name).and_then(|inode| state.files.get(inode));
        file.map_or(0, |file| file.writes.iter().map(Write::length).sum())
    }

    /// Flips one bit of what a file holds, durably.
    pub fn flip(&self, name: &str, bit: usize) {
        let mut state = self.state();
        let Some(&inode) = state.names.get(name) else { return };
        if let Some(file) = state.files.get_mut(&inode) {
            for copy in [&mut file.durable, &mut file.now] {
                copy.flip(bit);
            }
        }
    }

    /// Of the unsynced writes of a file only the first `keep` bytes survive: for tearing a record at every byte.
    pub fn tear(&self, name: &str, keep: usize) {
        let mut state = self.state();
        let Some(&inode) = state.names.get(name) else { return };
        let Some(file) = state.files.get_mut(&inode) else { return };
        let writes = std::mem::take(&mut file.writes);
        keep_prefix(&mut file.durable, &writes, keep);
        file.now.clone_from(&file.durable);
    }
}

impl Write {
    fn length(&self) -> usize {
        match self {
            Write::Bytes { bytes, .. } => bytes.len(),
            Write::Length(_) => 0,
        }
    }
}

/// Applies the first `keep` bytes of the writes, and every change of length among them.
fn keep_prefix(durable: &mut Content, writes: &[Write], mut keep: usize) {
    for write in writes {
        match write {
            Write::Bytes { offset, bytes } => {
                let kept = keep.min(bytes.len());
                durable.put(*offset, &bytes[..kept]);
                keep -= kept;
                if kept < bytes.len() {
                    return;
                }
            }
            Write::Length(length) => durable.set_len(*length),
        }
    }
}

fn survive(durable: &mut Content, writes: &[Write], loss: Loss, rng: &mut Rng) {
    match loss {
        Loss::Nothing | Loss::Names => writes.iter().for_each(|write| write.apply(durable)),
        Loss::Everything => {}
        Loss::Suffix => {
            let total: usize = writes.iter().map(Write::length).sum();
            keep_prefix(durable, writes, rng.below(total as u64 + 1) as usize);
        }
        Loss::Sectors => {
            for write in writes {
                match write {
                    Write::Bytes { offset, bytes } => {
                        let mut from = 0;
                        while from < bytes.len() {
                            // Up to the end of the sector that this byte lies in.
                            let to = bytes.len().min((offset + from) / SECTOR * SECTOR + SECTOR - offset);
                            if rng.chance(0.5) {
                                durable.put(offset + from, &bytes[from..to]);
                            }
                            from = to;
                        }
                    }
                    Write::Length(_) if rng.chance(0.5) => write.apply(durable),
                    Write::Length(_) => {}
                }
            }
        }
        Loss::Reordered => {
            for write in writes {
                if rng.chance(0.5) {
                    write.apply(durable);
                }
            }
        }
    }
}

impl State {
    fn used(&self) -> u64 {
        self.files.values().map(|file| file.now.len() as u64).sum()
    }

    /// The bytes that are taken, and those that there are. Nobody counts while there is no limit.
    fn room(&self) -> (u64, u64) {
        if self.capacity == u64::MAX { (0, u64::MAX) } else { (self.used(), self.capacity) }
    }

    /// Whatever has no name, and that nobody has open, is gone.
    fn forget_the_nameless(&mut self) {
        let State { files, names, names_durable, name_changes, .. } = self;
        if files.len() > names.len() && name_changes.is_empty() {
            let named =
                |inode: &u64| names.values().chain(names_durable.values()).any(|known| known == inode);
            files.retain(|inode, file| file.open > 0 || named(inode));
        }
    }

    fn opened(&mut self, inode: u64) {
        if let Some(file) = self.files.get_mut(&inode) {
            file.open += 1;
        }
    }

    fn missing(name: &str) -> io::Error {
        io::Error::new(io::ErrorKind::NotFound, format!("{name}: no such file"))
    }
}

impl Disk for SimDisk {
    fn path(&self, name: &str) -> String {
        format!("disk/{name}")
    }

    fn list(&self) -> io::Result<Vec<Entry>> {
        let mut state = self.state();
        state.gate.pass(Call::List, "")?;
        let entry = |(name, inode): (&String, &u64)| Entry {
            name: name.clone(),
            kind: EntryKind::File,
            length: state.files[inode].now.len() as u64,
        };
        Ok(state.names.iter().map(entry).collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.gate.pass(Call::Create, name)?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.next_inode;
        state.next_inode += 1;
        state.files.insert(inode, File { open: 1, ..File::default() });
        state.names.insert(name.to_owned(), inode);
        state.name_changes.push(NameChange::Create { name: name.to_owned(), inode });
        state.gate.leave()?;
        Ok(Box::new(SimFile { disk: self.clone(), inode, name: name.to_owned() }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.gate.pass(Call::Open, name)?;
        let inode = *state.names.get(name).ok_or_else(|| State::missing(name))?;
        state.opened(inode);
        Ok(Box::new(SimFile { disk: self.clone(), inode, name: name.to_owned() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.gate.pass(Call::Rename, to)?;
        let inode = state.names.remove(from).ok_or_else(|| State::missing(from))?;
        state.names.insert(to.to_owned(), inode);
        state.name_changes.push(NameChange::Rename { from: from.to_owned(), to: to.to_owned(), inode });
        state.gate.leave()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.gate.pass(Call::Remove, name)?;
        state.names.remove(name).ok_or_else(|| State::missing(name))?;
        state.name_changes.push(NameChange::Remove { name: name.to_owned() });
        state.gate.leave()
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        let State { gate, name_changes, names_durable, rng, .. } = &mut *state;
        let passed = gate.pass(Call::SyncDir, "");
        let fails = passed.is_err();
        if gate.died_at().is_some() {
            return passed;
        }
        for change in std::mem::take(name_changes) {
            if !fails || rng.chance(0.5) {
                change.apply(names_durable);
            }
        }
        passed?;
        state.forget_the_nameless();
        state.gate.leave()
    }
}

struct SimFile {
    disk: SimDisk,
    inode: u64,
    name: String,
}

impl Drop for SimFile {
    fn drop(&mut self) {
        if let Some(file) = self.disk.state().files.get_mut(&self.inode) {
            file.open -= 1;
        }
    }
}

impl SimFile {
    fn sync(&self, call: Call) -> io::Result<()> {
        let mut state = self.disk.state();
        let passed = state.gate.pass(call, &self.name);
        if state.gate.died_at().is_some() {
            return passed;
        }
        let State { files, rng, gate, .. } = &mut *state;
        let Some(file) = files.get_mut(&self.inode) else { return passed };
        let writes = std::mem::take(&mut file.writes);
        match passed {
            Ok(()) => writes.iter().for_each(|write| write.apply(&mut file.durable)),
            // The pages are marked clean all the same: what did not reach the disk never will.
            Err(_) => survive(&mut file.durable, &writes, Loss::Sectors, rng),
        }
        passed?;
        gate.leave()
    }
}

impl DiskFile for SimFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.state().files.get(&self.inode).map_or(0, |file| file.now.len() as u64))
    }

    fn preallocate(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.gate.pass(Call::Preallocate, &self.name)?;
        let (used, capacity) = state.room();
        let Some(file) = state.files.get_mut(&self.inode) else { return Ok(()) };
        let length = length as usize;
        if length > file.now.len() {
            if used.saturating_add((length - file.now.len()) as u64) > capacity {
                return Err(io::ErrorKind::StorageFull.into());
            }
            file.now.set_len(length);
            file.writes.push(Write::Length(length));
        }
        state.gate.leave()
    }

    fn shrink(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.gate.pass(Call::Shrink, &self.name)?;
        if let Some(file) = state.files.get_mut(&self.inode) {
            let length = file.now.len().min(length as usize);
            file.now.set_len(length);
            file.writes.push(Write::Length(length));
        }
        state.gate.leave()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let state = self.disk.state();
        state.gate.alive()?;
        let file = state.files.get(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        if file.now.read(offset as usize, buffer) { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        let passed = state.gate.pass(Call::Write, &self.name);
        let (used, capacity) = state.room();
        let State { files, rng, gate, .. } = &mut *state;
        let Some(file) = files.get_mut(&self.inode) else { return passed };
        let offset = offset as usize;
        // A write that fails, or that the power cut meets, has got as far as it has got.
        let kept = if passed.is_ok() { bytes.len() } else { rng.below(bytes.len() as u64 + 1) as usize };
        let grows = (offset + kept).saturating_sub(file.now.len()) as u64;
        if used.saturating_add(grows) > capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.now.put(offset, &bytes[..kept]);
        file.writes.push(Write::Bytes { offset, bytes: bytes[..kept].to_vec() });
        passed?;
        gate.leave()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync(Call::SyncData)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync(Call::SyncAll)
    }

    fn settle(&self, from: u64) -> io::Result<()> {
        self.sync(Call::Settle)?;
        let mut state = self.disk.state();
        if let Some(file) = state.files.get_mut(&self.inode) {
            file.now.take_from(&file.durable, from as usize / PAGE * PAGE);
        }
        Ok(())
    }
}
