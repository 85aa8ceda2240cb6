//! What a protocol tells the simulator about itself.
//!
//! The simulator is generic over protocols and imports none: whoever knows one (the command line, a test) describes it by
//! implementing [`Family`] for an empty type.

use std::ops::RangeInclusive;
use std::time::Duration;

use synod_check::verdict::Level;
use synod_core::{Index, Members, Protocol, Rng, Role};

use crate::byzantine::{Lie, States, Zeal};
use crate::script::Order;

/// One protocol, as the simulator sees it. Types that implement it are never instantiated.
pub trait Family: Sized + 'static {
    /// The protocol itself.
    type Protocol: Protocol;

    /// Its name on the command line.
    const NAME: &'static str;

    /// What it promises about the order of deliveries.
    const ORDER: Order;

    /// By which order replicas are compared at every step of a script.
    const SCRIPTS: Order = Self::ORDER;

    /// The consistency level that it promises to clients whose reads it fences (or, if it fences none, serves).
    const LEVEL: Level;

    /// How reads are answered.
    const READS: Reads = Reads::Fenced;

    /// How far the clocks of machines are apart when they are switched on.
    const CLOCKS_APART: Duration = Duration::from_nanos(1 << 40);

    /// Whether any replica is elected whose log is as new as those of a majority (Raft 5.4.1). Then whatever is decided must be in every log
    /// with which its owner could be elected, and the simulator need not wait until it is.
    const ELECTS_BY_LOG: bool = false;

    /// Whether a replica tells a false state from a true one.
    const STATES: States = States::True;

    /// What this message promises that its sender, as it stands now, must remember whatever happens.
    fn promise(
        _message: &<Self::Protocol as Protocol>::Message,
        _sender: &Self::Protocol,
    ) -> Option<Promise> {
        None
    }

    /// What a replica has forgotten of a promise, if anything: when it is back from its disk, and whenever it promises something else.
    fn forgot(_promised: &Promise, _protocol: &Self::Protocol) -> Option<String> {
        None
    }

    /// Up to where a replica's log is on its disk, and the configuration there. For protocols that [elect by log](Family::ELECTS_BY_LOG).
    fn durable(_protocol: &Self::Protocol) -> Option<(Index, Members)> {
        None
    }

    /// How many replicas may take part.
    fn nodes() -> RangeInclusive<u64> {
        1..=9
    }

    /// How many of `nodes` may be lost for ever, or damaged beyond use, while the rest still decides.
    fn losses_max(nodes: usize) -> usize {
        nodes.saturating_sub(1) / 2
    }

    /// How many of `nodes` may lie.
    fn liars_max(_nodes: usize) -> usize {
        0
    }

    /// The level that is promised with these options; the family's own, unless they change it.
    fn level(_options: &<Self::Protocol as Protocol>::Options) -> Level {
        Self::LEVEL
    }

    /// Whether what a replica applied stays applied.
    fn finality(_options: &<Self::Protocol as Protocol>::Options) -> Finality {
        Finality::Certain
    }

    /// Whether a client that goes to another replica takes along what it has seen.
    fn sessions(_options: &<Self::Protocol as Protocol>::Options) -> Sessions {
        Sessions::Forgotten
    }

    /// Options for a run; draws what may differ from run to run.
    fn options(rng: &mut Rng) -> <Self::Protocol as Protocol>::Options;

    /// Sets an option by its name; false when there is no such option or no such value.
    fn set(options: &mut <Self::Protocol as Protocol>::Options, name: &str, value: &str) -> bool;

    /// The longest time that a replica waits before it acts on its leader's silence. Recovery is measured in it.
    fn election_timeout(options: &<Self::Protocol as Protocol>::Options) -> Duration;

    /// How long a healthy core takes to answer, at the longest: what clients wait for, and liveness is measured in.
    fn answer_within(options: &<Self::Protocol as Protocol>::Options) -> Duration {
        Self::election_timeout(options)
    }

    /// Whether replicas outside a healthy core may disturb it for ever with these options.
    fn disruption(_options: &<Self::Protocol as Protocol>::Options) -> Disruption {
        Disruption::Harmless
    }

    /// Whether a linearizable read by this protocol depends on clocks that run alike.
    fn clocks(_options: &<Self::Protocol as Protocol>::Options) -> Clocks {
        Clocks::Free
    }

    /// Whether this replica says that decided writes may have been lost. Where decisions are [revocable](Finality::Revocable), a
    /// loss that nobody admits is a violation; where they are [probable](Finality::Probable), one that the replica does not admit which
    /// answered.
    fn admits_loss(_protocol: &Self::Protocol) -> bool {
        true
    }

    /// Whether this replica says that it cannot follow the others any more: it is counted, and not compared.
    fn is_estranged(_protocol: &Self::Protocol) -> bool {
        false
    }

    /// What must hold of a replica whenever its role or term has changed, or it has applied something.
    ///
    /// # Errors
    /// Says what does not hold.
    fn examine(_protocol: &Self::Protocol) -> Result<(), String> {
        Ok(())
    }

    /// Role and term, if there is a cheap way to tell them.
    fn standing(protocol: &Self::Protocol) -> (Role, u64) {
        let status = protocol.status();
        (status.role, status.term)
    }

    /// Appends what the replica's log holds in memory, ascending by index: for log matching and leader completeness.
    fn log(_protocol: &Self::Protocol, _entries: &mut Vec<LogEntry>) {}

    /// The values of the option `mutant` with which the protocol leaves out one of its rules, each with a story. The option exists
    /// only with the cargo feature `mutants`.
    fn mutants() -> Vec<(&'static str, &'static str)> {
        Vec::new()
    }

    /// How much a liar means it when it bends this message.
    fn zeal(_message: &<Self::Protocol as Protocol>::Message) -> Zeal {
        Zeal::Usual
    }

    /// A state that a liar gives away unasked beside this message: of which place, and what it says behind it.
    fn unasked_state(
        _message: &<Self::Protocol as Protocol>::Message,
        _lie: Lie<'_, <Self::Protocol as Protocol>::Message>,
        _rng: &mut Rng,
    ) -> Option<(Index, <Self::Protocol as Protocol>::Message)> {
        None
    }

    /// Another message in this one's place, as a liar would send it; none when this message cannot be bent.
    fn bend(
        _message: &<Self::Protocol as Protocol>::Message,
        _lie: Lie<'_, <Self::Protocol as Protocol>::Message>,
        _rng: &mut Rng,
    ) -> Option<<Self::Protocol as Protocol>::Message> {
        None
    }
}

/// Whether what was applied, and acknowledged, stays so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finality {
    /// It does, whatever happens: anything else is a violation.
    Certain,
    /// It may be taken back, by a failover that loses the window (asynchronous primary-backup). What was acknowledged and is
    /// gone in the end is counted and reported.
    Revocable,
    /// It may be taken back, by a chain with more work (proof of work); then the replica that answered sees to it that it is done
    /// again. What is gone all the same is counted, too.
    Probable,
}

/// What a replica told others of its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// Where each place has terms (ballots) of its own: of which place this is said. Else it is said of all.
    pub place: Option<Index>,
    /// It has come to this term, and goes back to none before it.
    pub term: u64,
    /// While it is in that term, its log holds everything up to this place, where there is an entry of that term.
    pub holds: Option<(Index, u64)>,
}

/// One entry of a replica's log, as far as an oracle needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its position.
    pub at: Index,
    /// The term that it was made in.
    pub term: u64,
    /// A digest of what it holds.
    pub digest: u64,
}

/// What replicas outside a healthy core can do to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disruption {
    /// Nothing for long: the core must decide whatever they say.
    Harmless,
    /// They may keep it from deciding: they are cut off wholly before progress is asked for.
    Harmful,
}

/// How far clocks may differ before a promise breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clocks {
    /// As they like.
    Free,
    /// They must run alike to about this many parts in a million.
    Bounded(u32),
}

/// What a client's session is worth at another replica, where there is no single order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sessions {
    /// Nothing: it goes on as somebody else.
    Forgotten,
    /// It carries a token, and is served once the replica has applied whatever the token names.
    Carried,
    /// It believes that it carries one, and nobody looks: a mistake that must be found.
    Ignored,
}

/// How a client's reads are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// Behind a fence that the protocol gives.
    Fenced,
    /// At once, from whichever replica is asked.
    Local,
}
