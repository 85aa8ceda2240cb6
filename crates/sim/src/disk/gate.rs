//! The gate that every call to a simulated disk passes: it counts, and springs traps.

use std::fmt;
use std::io;

/// What is asked of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// The folder is read.
    List,
    /// A file is made.
    Create,
    /// A file is opened.
    Open,
    /// A file gets another name.
    Rename,
    /// A name goes.
    Remove,
    /// The folder is synced.
    SyncDir,
    /// Room is reserved.
    Preallocate,
    /// A file is cut off.
    Shrink,
    /// Bytes are written.
    Write,
    /// Bytes are synced.
    SyncData,
    /// Bytes and all else of a file are synced.
    SyncAll,
    /// A file is synced and memory forgets it.
    Settle,
}

impl Call {
    /// Whether a trap for "any write or sync" may spring here; reads change nothing.
    #[must_use]
    pub fn changes(self) -> bool {
        !matches!(self, Call::List | Call::Open)
    }

    /// Whether this call makes promises.
    #[must_use]
    pub fn syncs(self) -> bool {
        matches!(self, Call::SyncDir | Call::SyncData | Call::SyncAll | Call::Settle)
    }
}

/// A place where the power can fail: a call, the kind of file that it is about, and whether before or after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Site {
    /// What was asked.
    pub call: Call,
    /// The kind of file.
    pub file: &'static str,
    /// Before the call took effect, or behind it.
    pub moment: Moment,
}

/// On which side of a call's effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// The call has no effect, or only a part of one.
    Before,
    /// The call took effect, but nobody heard of it.
    After,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = match self.moment {
            Moment::Before => "before",
            Moment::After => "after",
        };
        write!(f, "{moment} {:?} {}", self.call, self.file)
    }
}

/// What a trap does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The power fails before the call takes effect (of a write, any part may have been done).
    CutBefore,
    /// The power fails when the call has taken effect.
    CutAfter,
    /// The call fails; the next one does not.
    FailOnce,
    /// The call and every later one of its kind fail, until the disk is disarmed.
    FailForEver,
}

/// Springs at one of the calls to come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trap {
    /// How many changing calls pass before it.
    pub skip: u64,
    /// Which calls count; none: all that change anything.
    pub only: Option<Call>,
    /// What it does.
    pub effect: Effect,
}

/// How often each site was passed, and how often the power was cut there.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// Ascending by site.
    pub sites: Vec<(Site, u64, u64)>,
}

impl Coverage {
    fn entry(&mut self, site: Site) -> &mut (Site, u64, u64) {
        let place = match self.sites.iter().position(|(known, ..)| *known == site) {
            Some(place) => place,
            None => {
                self.sites.push((site, 0, 0));
                self.sites.len() - 1
            }
        };
        &mut self.sites[place]
    }

    /// Adds another disk's counts.
    pub fn add(&mut self, other: &Coverage) {
        for (site, passed, cut) in &other.sites {
            let entry = self.entry(*site);
            entry.1 += passed;
            entry.2 += cut;
        }
    }
}

/// The state of the gate.
#[derive(Default)]
pub struct Gate {
    trap: Option<Trap>,
    failing: Option<Call>,
    /// Set between the two halves of a call behind which the power fails.
    cut_behind: Option<Site>,
    died_at: Option<Site>,
    /// What was passed so far.
    pub coverage: Coverage,
}

/// What a file is for, by its name: the log's files, snapshots, and what is on its way to be either.
fn kind_of(name: &str) -> &'static str {
    match name {
        "" => "folder",
        name if name.ends_with(".tmp") || name.ends_with(".part") || name.ends_with(".new") => "temporary",
        name if name.contains("snap") => "snapshot",
        name if name.contains("lock") => "lock",
        name if name.contains("incoming") => "incoming",
        _ => "segment",
    }
}

fn dead() -> io::Error {
    io::Error::other("the power is off")
}

impl Gate {
    pub(super) fn arm(&mut self, trap: Trap) {
        self.trap = Some(trap);
    }

    pub(super) fn disarm(&mut self) {
        self.trap = None;
        self.failing = None;
    }

    pub(super) fn died_at(&self) -> Option<Site> {
        self.died_at
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failing.is_some()
    }

    /// Whether it fails already, or will once a trap springs that nobody can foresee.
    pub(super) fn is_to_fail(&self) -> bool {
        self.is_failing() || self.trap.is_some_and(|trap| trap.effect == Effect::FailForEver)
    }

    pub(super) fn restore_power(&mut self) {
        self.died_at = None;
        self.cut_behind = None;
        self.trap = None;
    }

    /// Fails when the power is off.
    pub(super) fn alive(&self) -> io::Result<()> {
        if self.died_at.is_some() { Err(dead()) } else { Ok(()) }
    }

    /// In front of a call's effect.
    pub(super) fn pass(&mut self, call: Call, name: &str) -> io::Result<()> {
        self.alive()?;
        if !call.changes() {
            return Ok(());
        }
        let site = Site { call, file: kind_of(name), moment: Moment::Before };
        self.coverage.entry(site).1 += 1;
        if self.failing == Some(call) {
            return Err(io::Error::other("simulated: the disk fails"));
        }
        let Some(trap) = &mut self.trap else { return Ok(()) };
        if trap.only.is_some_and(|only| only != call) {
            return Ok(());
        }
        if trap.skip > 0 {
            trap.skip -= 1;
            return Ok(());
        }
        let effect = trap.effect;
        self.trap = None;
        match effect {
            Effect::CutBefore => {
                self.coverage.entry(site).2 += 1;
                self.died_at = Some(site);
                Err(dead())
            }
            Effect::CutAfter => {
                self.cut_behind = Some(Site { moment: Moment::After, ..site });
                Ok(())
            }
            Effect::FailOnce => Err(io::Error::other("simulated: the disk fails once")),
            Effect::FailForEver => {
                self.failing = Some(call);
                Err(io::Error::other("simulated: the disk fails"))
            }
        }
    }

    /// Behind a call's effect.
    pub(super) fn leave(&mut self) -> io::Result<()> {
        match self.cut_behind.take() {
            Some(site) => {
                let entry = self.coverage.entry(site);
                entry.1 += 1;
                entry.2 += 1;
                self.died_at = Some(site);
                Err(dead())
            }
            None => Ok(()),
        }
    }
}
