//! The family: which protocols `synod serve` offers, each as one line of [`FAMILY`] and one file beside this one.
//!
//! Everything around a replica is generic over [`synod_core::Protocol`]. What a server has to know beyond that, before it can run a
//! protocol for people, is [`Served`]: a name, flags of its own, which numbers of members make sense and how many of them may be lost,
//! who keeps house, what it cannot give. Nothing else in this crate names a protocol.

mod backup;
mod causal;
mod chosen;
mod multipaxos;
mod paxos;
mod pbft;
pub mod pbft_keys;
mod pow;
mod raft;

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use synod_core::{Members, NodeId, Protocol};
use synod_protocols as protocols;
use tokio::sync::{oneshot, watch};

pub use self::chosen::Chosen;
use crate::config::{ConfigError, Flag, Settings};
use crate::contract::Offer;
use crate::node::MemberError;
use crate::witness::voice::Signing;

/// A protocol that `synod serve` can run.
pub trait Served: Protocol + Send + 'static {
    /// What is said of it in tables, help and refusals.
    const ROW: Row;
    /// Whether replicas deliver in one order.
    const ORDER: Order = Order::Single;
    /// What becomes of a member that has lost its disk.
    const AMNESIA: Amnesia = Amnesia::Forbidden;

    /// Whether the values of the protocol's own flags fit together; called before anything is opened.
    ///
    /// # Errors
    /// One sentence for the first thing that is wrong.
    fn check(_flags: &Chosen) -> Result<(), ConfigError> {
        Ok(())
    }

    /// The protocol's options, from what the member was told.
    ///
    /// # Errors
    /// One sentence: what is wrong or missing (a key, an identity), where, and what is allowed.
    fn options(told: &Told<'_>) -> Result<Self::Options, ConfigError>;

    /// Whether what the log holds was written under options that these may follow; called before the replica is opened.
    ///
    /// # Errors
    /// One sentence: what is different.
    fn check_found(_options: &Self::Options, _records: &[Self::Record]) -> Result<(), ConfigError> {
        Ok(())
    }

    /// What signs this member's answers to a proxy, where members have keys.
    fn signing(_options: &Self::Options) -> Option<Signing> {
        None
    }

    /// How long a proposal or a fence may take, beside two election timeouts.
    fn patience(_flags: &Chosen) -> Duration {
        PATIENCE
    }

    /// What clients may rely on, with these flags.
    fn offer(flags: &Chosen) -> Offer;
}

/// How long a proposal or a fence may take as a rule, beside two election timeouts.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is said of a protocol.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name: on command lines, in the data folder, in the peers' handshake, and in `crates/protocols`.
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    /// The flags that it has for itself. Two protocols may share a name; one that belongs to neither is refused.
    pub flags: &'static [Flag],
    /// Numbers of members that it can be founded with.
    pub sizes: Sizes,
    /// How many of so many members may be lost, for good, while the others go on serving. May depend on the flags.
    pub losses: fn(members: usize, flags: &Chosen) -> usize,
    /// Who keeps house.
    pub house: House,
    /// The settings that `synod contract` tells apart, each with a word for it; empty when there is but one.
    pub variants: &'static [Variant],
}

/// A setting of a protocol's flags that changes what it offers.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// How tables call it, behind the protocol's name.
    pub name: &'static str,
    /// The flags that make it.
    pub flags: &'static [(&'static str, &'static str)],
}

/// With how many members a cluster can be founded.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// How many `synod demo` starts.
    pub usual: usize,
    /// Whether so many are possible.
    pub possible: fn(usize) -> bool,
    /// The rule in words, for the refusal: `3f + 1, that is 4, 7, 10, ...`.
    pub rule: &'static str,
}

impl Sizes {
    /// Any number from one on, three as a rule.
    pub const ANY: Sizes = Sizes { usual: 3, possible: |count| count >= 1, rule: "one or more" };
}

/// Who does what one member at a time should do: note the quota, compact unasked, and keep the leases' time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum House {
    /// The leader or primary of [`synod_core::Status`]. Nothing is ordered while there is none.
    Leader,
    /// All are equal, and a majority must be reached for anything to be ordered: the first member that is there keeps house.
    Majority,
    /// All are equal, and each goes on alone: the first member that is there keeps house; without a single order each its own.
    Anyone,
}

/// Whether all replicas deliver in one order; the store is one that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Position i holds the same batch everywhere: a session's place is an index.
    Single,
    /// Deliveries carry stamps, and the store converges by them: a session's place is a vector clock.
    Stamped,
}

/// Whether a member that has run before may start again under its old name with an empty folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amnesia {
    /// No: its votes and promises are gone, and it would give others.
    Forbidden,
    /// Yes: it has promised nothing to anybody, and catches up.
    Harmless,
}

/// What a protocol's options are made of.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// All flags of the member.
    pub settings: &'a Settings,
    /// The protocol's own.
    pub flags: &'a Chosen,
    /// The cluster's id: what is signed should name it.
    pub cluster: u64,
    /// This member.
    pub me: NodeId,
    /// The members that the cluster was founded with; a restart finds the same.
    pub founders: &'a Members,
    /// The data folder, locked. What a protocol keeps there beside the log (a key) has a name of its own.
    pub folder: &'a Path,
    /// The time since 1970 at the replica's time zero: for protocols that need the time of day.
    pub zero: Duration,
}

/// A protocol as one line of the table.
#[derive(Clone, Copy)]
pub struct Kin {
    /// What is said of it.
    pub row: Row,
    /// See [`Served::AMNESIA`].
    pub amnesia: Amnesia,
    /// See [`Served::check`].
    pub check: fn(&Chosen) -> Result<(), ConfigError>,
    /// See [`Served::offer`].
    pub offer: fn(&Chosen) -> Offer,
    pub(crate) serve: Serve,
}

/// Runs a member to its end.
pub(crate) type Serve = for<'a> fn(
    &'a Settings,
    oneshot::Sender<()>,
    watch::Receiver<bool>,
) -> Pin<Box<dyn Future<Output = Result<(), MemberError>> + 'a>>;

/// Every protocol that this program can run; the first is the default.
pub static FAMILY: &[Kin] = &[
    kin::<protocols::raft::Raft>(),
    kin::<protocols::multipaxos::MultiPaxos>(),
    kin::<protocols::paxos::Paxos>(),
    kin::<protocols::pbft::Pbft>(),
    kin::<protocols::backup::PrimaryBackup>(),
    kin::<protocols::causal::Causal>(),
    kin::<protocols::pow::Pow>(),
];

const fn kin<P: Served>() -> Kin {
    Kin {
        row: P::ROW,
        amnesia: P::AMNESIA,
        check: P::check,
        offer: P::offer,
        serve: |settings, ready, stopped| Box::pin(crate::member::serve::<P>(settings, ready, stopped)),
    }
}

impl std::fmt::Debug for Kin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.row.name)
    }
}

/// The protocol of this name.
///
/// # Errors
/// One sentence that lists what there is.
pub fn find(name: &str) -> Result<&'static Kin, ConfigError> {
    FAMILY.iter().find(|kin| kin.row.name == name).ok_or_else(|| {
        let names: Vec<_> = FAMILY.iter().map(|kin| kin.row.name).collect();
        ConfigError::new(format!("--protocol={name}: allowed is {}", names.join(", ")))
    })
}

/// The flags of all protocols.
pub(crate) fn flags() -> impl Iterator<Item = &'static Flag> {
    FAMILY.iter().flat_map(|kin| kin.row.flags)
}

/// The protocols that have a flag of this name.
#[must_use]
pub fn owners(flag: &str) -> Vec<&'static str> {
    let owns = |kin: &&Kin| kin.row.flags.iter().any(|own| own.name == flag);
    FAMILY.iter().filter(owns).map(|kin| kin.row.name).collect()
}

impl Row {
    /// Whether a cluster of so many members can be founded.
    ///
    /// # Errors
    /// One sentence with the rule.
    pub fn check_size(&self, members: usize) -> Result<(), ConfigError> {
        if (self.sizes.possible)(members) {
            return Ok(());
        }
        Err(ConfigError::new(format!(
            "--protocol={} cannot be founded with {members} member{}: allowed is {}",
            self.name,
            if members == 1 { "" } else { "s" },
            self.sizes.rule
        )))
    }
}

/// A minority of the voters.
#[must_use]
pub fn minority(members: usize, _flags: &Chosen) -> usize {
    members.saturating_sub(1) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every row can be founded at its usual size, and loses fewer than all; its defaults and variants are good.
    #[test]
    fn rows_make_sense() {
        for kin in FAMILY {
            let (row, flags) = (&kin.row, Chosen::defaults(&kin.row));
            assert!((row.sizes.possible)(row.sizes.usual), "{}", row.name);
            assert!((row.losses)(row.sizes.usual, &flags) < row.sizes.usual, "{}", row.name);
            assert!(!(row.sizes.possible)(0), "{}", row.name);
            (kin.check)(&flags).expect("the defaults are good");
            for flag in row.flags {
                let mut same = flags_named(flag.name);
                assert!(same.all(|other| other.kind == flag.kind), "--{} is of two kinds", flag.name);
            }
            for variant in row.variants {
                let flags = Chosen::of(row, variant.flags).expect("a variant's flags are the protocol's own");
                (kin.check)(&flags).expect("variants are good");
            }
        }
    }

    fn flags_named(name: &'static str) -> impl Iterator<Item = &'static Flag> {
        flags().filter(move |flag| flag.name == name)
    }

    /// A name that is none gets the list of names.
    #[test]
    fn unknown_names_are_refused_with_the_list() {
        assert_eq!(find("raft").expect("it exists").row.name, "raft");
        assert!(find("zab").expect_err("no such").to_string().contains("allowed is raft"));
    }
}
