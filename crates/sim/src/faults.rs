//! What can go wrong: the kinds, by the names of `--faults`, and the single faults of a plan.
//!
//! A plan is drawn once per seed ([`crate::swarm`]) and then carried out; so a fault can be left out without changing the
//! others, which is what shrinking does. Faults name their victim loosely ([`Target`]): who leads is known
//! only when the time has come.

use std::fmt;
use std::time::Duration;

use synod_core::{NodeId, Time};

use crate::disk::{Damage, Loss, Trap};
use crate::partition::Shape;

macro_rules! kinds {
    ($($kind:ident $name:literal $story:literal,)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum FaultKind {
            $(#[doc = $story] $kind,)*
        }

        impl FaultKind {
            /// All kinds.
            pub const ALL: &'static [FaultKind] = &[$(FaultKind::$kind,)*];

            /// The name on the command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(FaultKind::$kind => $name,)* }
            }

            /// One line for people.
            #[must_use]
            pub fn story(self) -> &'static str {
                match self { $(FaultKind::$kind => $story,)* }
            }
        }
    };
}

kinds! {
    Delay "delay" "Packets take long, some very long.",
    Loss "loss" "Packets vanish, up to two in five.",
    Duplicate "duplicate" "Packets come twice, up to every other one.",
    Reorder "reorder" "Later packets overtake earlier ones.",
    Corrupt "corrupt" "Packets arrive with flipped bits.",
    Clog "clog" "A link holds everything back for a while.",
    Partition "partition" "The network falls apart in one of eight shapes.",
    Kill "kill" "A process ends and starts again; the system's memory survives.",
    Power "power" "A machine loses its power, and what was not synced.",
    Blackout "blackout" "All machines lose their power at once.",
    CrashPoint "crash-point" "The power fails in the middle of one write, sync, rename or send.",
    Pause "pause" "A process stands still for a while.",
    Drift "drift" "Clocks run at different speeds.",
    Jump "jump" "A clock leaps ahead.",
    SlowDisk "slow-disk" "Syncs take seconds.",
    StuckDisk "stuck-disk" "A disk finishes nothing for a while.",
    FullDisk "full-disk" "There is no room left for a while.",
    DiskError "disk-error" "A write or a sync fails, once or until the disk is replaced.",
    Rot "rot" "A bit on a disk flips.",
    Misdirect "misdirect" "A sector is written in another one's place.",
    Stale "stale" "A sector goes back to what it was.",
    Wipe "wipe" "A disk is replaced by an empty one, and the replica comes back under its old name.",
    Members "members" "Replicas are added, promoted and removed.",
    Transfer "transfer" "Leadership is handed over.",
    Snapshots "snapshots" "Snapshots are taken every few entries, and race against everything else.",
    Byzantine "byzantine" "Replicas lie, as many as the protocol claims to tolerate.",
}

/// A set of kinds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FaultSet(u64);

impl FaultSet {
    /// No faults.
    pub const NONE: FaultSet = FaultSet(0);

    /// Every kind.
    #[must_use]
    pub fn all() -> FaultSet {
        FaultKind::ALL.iter().fold(FaultSet::NONE, |set, kind| set.with(*kind))
    }

    /// This set and `kind`.
    #[must_use]
    pub fn with(self, kind: FaultKind) -> FaultSet {
        FaultSet(self.0 | 1 << kind as u64)
    }

    /// This set without `kind`.
    #[must_use]
    pub fn without(self, kind: FaultKind) -> FaultSet {
        FaultSet(self.0 & !(1 << kind as u64))
    }

    /// Whether `kind` is among them.
    #[must_use]
    pub fn has(self, kind: FaultKind) -> bool {
        self.0 & (1 << kind as u64) != 0
    }

    /// The kinds, in order.
    pub fn kinds(self) -> impl Iterator<Item = FaultKind> {
        FaultKind::ALL.iter().copied().filter(move |kind| self.has(*kind))
    }

    /// Reads `all`, `none`, or names with commas between them; `-name` takes one out of what came before (of all,
    /// when it comes first).
    ///
    /// # Errors
    /// The name that there is not, with its column.
    pub fn parse(text: &str) -> Result<FaultSet, UnknownFault> {
        let mut set = if text.starts_with('-') { FaultSet::all() } else { FaultSet::NONE };
        let mut column = 1;
        for word in text.split(',') {
            let (name, removes) = match word.strip_prefix('-') {
                Some(name) => (name, true),
                None => (word, false),
            };
            set = match (name, FaultKind::ALL.iter().find(|kind| kind.name() == name)) {
                ("all", _) => FaultSet::all(),
                ("none" | "", _) => FaultSet::NONE,
                (_, Some(kind)) if removes => set.without(*kind),
                (_, Some(kind)) => set.with(*kind),
                (_, None) => return Err(UnknownFault { name: name.to_owned(), column }),
            };
            column += word.len() + 1;
        }
        Ok(set)
    }
}

impl fmt::Display for FaultSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == FaultSet::all() {
            return f.write_str("all");
        }
        let names: Vec<&str> = self.kinds().map(FaultKind::name).collect();
        f.write_str(if names.is_empty() { "none" } else { "" })?;
        f.write_str(&names.join(","))
    }
}

impl fmt::Debug for FaultSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A fault that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: there is no fault `{name}`; there are: all, none, {}", FaultKind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", "))]
pub struct UnknownFault {
    /// What was asked for.
    pub name: String,
    /// Where, counted from 1.
    pub column: usize,
}

/// Whom a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Whoever leads when the time has come; without a leader, as `Any`.
    Leader(u64),
    /// One of those that are up, by this number.
    Any(u64),
    /// This one.
    Node(NodeId),
}

/// What a fault waits for. The worst moments are those at which something else has just happened, and the clock alone meets them seldom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cue {
    /// Nothing: it strikes when its time has come.
    Clock,
    /// The next time that somebody takes the lead.
    Lead,
    /// The next time that a replica has received a snapshot.
    Snapshot,
    /// The next time that a replica's configuration changes.
    Members,
    /// The next time that the network falls apart.
    Apart,
    /// The next time that an operator asks a leader for other members, or to hand over.
    Asked,
}

/// One fault of a plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Planned {
    /// When; with a cue: from when on.
    pub at: Time,
    /// What it waits for then.
    pub cue: Cue,
    /// How long after the cue it strikes.
    pub after: Duration,
    /// Which kind it belongs to.
    pub kind: FaultKind,
    /// What happens.
    pub fault: Fault,
}

/// On which side of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Nobody hears it.
    Before,
    /// It is on its way.
    After,
}

/// Which packets count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packets {
    /// All.
    Any,
    /// Those of a kind that makes up less than a fiftieth of all packets so far: votes, say, among heartbeats.
    Rare,
}

/// When a fault is over that lasts for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// When its time is up.
    Clock,
    /// When somebody has taken the lead: whoever led before is back just then, and does not know. If nobody does, when its time is up.
    Lead,
}

/// What happens. `target`: whom it hits; `lasts`, `down`: for how long; `draw`: a number that decides what is left open;
/// `loss`: what a power cut loses; `skip`: how much passes before.
#[allow(missing_docs, reason = "the fields mean the same in every variant, and are told above")]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// The network falls apart for so long, or until so long after the next time that somebody takes the lead.
    Partition { shape: Shape, lasts: Duration, until: Until, draw: u64 },
    /// Whoever was just asked for something does not learn what comes of it for so long; or, when the members have changed, those who
    /// need not know of it are parted from the leader and the newcomer.
    LeaveOut { lasts: Duration },
    /// A link holds everything back for so long.
    Clog { draw: u64, lasts: Duration },
    /// The process ends, and starts again after so long.
    Kill { target: Target, down: Duration },
    /// The machine loses its power.
    Power { target: Target, loss: Loss, down: Duration },
    /// All machines lose their power.
    Blackout { loss: Loss, down: Duration },
    /// The power fails at the disk's next call but `skip`.
    CrashAtDisk { target: Target, trap: DiskTrap, loss: Loss, down: Duration },
    /// The process ends at a packet that it sends: the next one but `skip`, or but `skip` of those of a rare kind. With a `loss` its
    /// machine loses its power, too.
    CrashAtSend {
        target: Target,
        side: Side,
        packets: Packets,
        skip: u64,
        loss: Option<Loss>,
        down: Duration,
    },
    /// The process stands still.
    Pause { target: Target, lasts: Duration },
    /// The clock leaps ahead.
    Jump { target: Target, by: Duration },
    /// Every sync takes so much longer, for so long.
    SlowDisk { target: Target, extra: Duration, lasts: Duration },
    /// The disk finishes nothing.
    StuckDisk { target: Target, lasts: Duration },
    /// No room.
    FullDisk { target: Target, lasts: Duration },
    /// A call to the disk fails; a replica that stops for it starts again after so long.
    DiskError { target: Target, trap: DiskTrap, down: Duration },
    /// The power fails, and what was durable is harmed meanwhile.
    Harm { target: Target, damage: Damage, down: Duration },
    /// The configuration changes.
    Members { draw: u64 },
    /// Leadership is handed over.
    Transfer { draw: u64 },
}

/// A trap that can be compared and copied into plans.
pub type DiskTrap = Trap;

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}: {:?}", self.at, self.kind.name(), self.fault)?;
        match self.cue {
            Cue::Clock => Ok(()),
            cue => write!(f, " {:?} after the next {cue:?}", self.after),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names are read and written alike, removal works, and an unknown one is named with its column.
    #[test]
    fn sets_are_named() {
        let set = FaultSet::parse("loss,partition").expect("both exist");
        assert_eq!(set.to_string(), "loss,partition");
        assert_eq!(FaultSet::parse("all"), Ok(FaultSet::all()));
        assert!(!FaultSet::parse("-rot").expect("rot exists").has(FaultKind::Rot));
        let wrong = FaultSet::parse("loss,lss").expect_err("there is no lss");
        assert_eq!((wrong.name.as_str(), wrong.column), ("lss", 6));
    }
}
