//! What happened, for people: a list of events that can be read, filtered, drawn and replayed.
//!
//! A recorded run is the list of [`Happening`]s of one seed. As text it has the form of the golden traces' effects, one line
//! each, with the time in front; [`crate::diagram`] draws it, and [`shiviz`] writes it for ShiViz. Recording costs a line of text for
//! each event, so a sweep does not record: a failing seed is run again, and happens again exactly so.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use synod_core::{NodeId, Time};

/// One thing that happened.
#[derive(Clone, Debug)]
pub struct Happening {
    /// When.
    pub at: Time,
    /// At which replica; none for what happens to the world.
    pub node: Option<NodeId>,
    /// What it was.
    pub what: What,
}

/// What can happen.
#[derive(Clone, Debug)]
pub enum What {
    /// A packet leaves.
    Sent {
        /// Its number.
        flight: u64,
        /// The receiver.
        to: NodeId,
        /// What it says.
        text: String,
    },
    /// A packet arrives.
    Arrived {
        /// Its number.
        flight: u64,
        /// The sender.
        from: NodeId,
        /// What it says.
        text: String,
    },
    /// A packet is lost.
    Lost {
        /// Its number.
        flight: u64,
        /// The sender.
        from: NodeId,
        /// The receiver.
        to: NodeId,
        /// Why.
        why: &'static str,
    },
    /// Records go to the disk.
    Records(String),
    /// The disk confirms.
    Synced(u64),
    /// Role and term change.
    Stands {
        /// The role's name.
        role: String,
        /// The term.
        term: u64,
    },
    /// A command is decided and applied.
    Applied {
        /// Where.
        at: u64,
        /// Which.
        text: String,
    },
    /// A client calls or hears.
    Client(String),
    /// Something goes wrong, or right again.
    Fault(String),
    /// Anything else of note: starts, snapshots, checkpoints, members.
    Note(String),
}

impl What {
    /// The name that filters use.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            What::Sent { .. } => "sent",
            What::Arrived { .. } => "arrived",
            What::Lost { .. } => "lost",
            What::Records(_) => "records",
            What::Synced(_) => "synced",
            What::Stands { .. } => "stands",
            What::Applied { .. } => "applied",
            What::Client(_) => "client",
            What::Fault(_) => "fault",
            What::Note(_) => "note",
        }
    }

    /// In words, without time and place; in the form of the golden traces.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            What::Sent { to, text, .. } => format!("-> {to:?} {text}"),
            What::Arrived { from, text, .. } => format!("<= {from:?} {text}"),
            What::Lost { to, why, .. } => format!("-> {to:?} lost ({why})"),
            What::Records(text) => format!("records {text}"),
            What::Synced(upto) => format!("synced up to lsn{upto}"),
            What::Stands { role, term } => format!("is {role} in term {term}"),
            What::Applied { at, text } => format!("applies {text} at @{at}"),
            What::Client(text) | What::Fault(text) | What::Note(text) => text.clone(),
        }
    }
}

/// Writes happenings down, or not.
#[derive(Debug, Default)]
pub struct Recorder {
    happenings: Option<Vec<Happening>>,
}

impl Recorder {
    /// A recorder that records.
    #[must_use]
    pub fn recording() -> Recorder {
        Recorder { happenings: Some(Vec::new()) }
    }

    /// Whether it records: worth asking before text is made.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.happenings.is_some()
    }

    /// Notes what `what` says, if anybody wants to know.
    pub fn note(&mut self, at: Time, node: Option<NodeId>, what: impl FnOnce() -> What) {
        if let Some(happenings) = &mut self.happenings
            && happenings.len() < HAPPENINGS_MAX
        {
            happenings.push(Happening { at, node, what: what() });
        }
    }

    /// Everything so far.
    #[must_use]
    pub fn into_happenings(self) -> Vec<Happening> {
        self.happenings.unwrap_or_default()
    }
}

/// No more than this is recorded: a day's worth of a diagram.
pub const HAPPENINGS_MAX: usize = 2_000_000;

/// Which happenings a person wants to see.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only these replicas; none: all.
    pub nodes: Vec<NodeId>,
    /// Only these kinds; none: all.
    pub kinds: Vec<String>,
    /// Only from here on.
    pub from: Option<Time>,
    /// Only up to here.
    pub to: Option<Time>,
    /// Only those whose text holds this.
    pub text: Option<String>,
}

impl Filter {
    /// Whether a happening is wanted.
    #[must_use]
    pub fn shows(&self, happening: &Happening) -> bool {
        (self.nodes.is_empty() || happening.node.is_some_and(|node| self.nodes.contains(&node)))
            && (self.kinds.is_empty() || self.kinds.iter().any(|kind| kind == happening.what.kind()))
            && self.from.is_none_or(|from| happening.at >= from)
            && self.to.is_none_or(|to| happening.at <= to)
            && self.text.as_ref().is_none_or(|text| happening.what.text().contains(text.as_str()))
    }
}

/// The happenings as text, one line each.
#[must_use]
pub fn text(happenings: &[Happening], filter: &Filter) -> String {
    let mut out = String::new();
    for happening in happenings.iter().filter(|happening| filter.shows(happening)) {
        let at = happening.at.0;
        let node = happening.node.map_or_else(|| "--".to_owned(), |node| format!("{node:?}"));
        let _ = writeln!(
            out,
            "{}.{:09} {node} {}",
            at / 1_000_000_000,
            at % 1_000_000_000,
            happening.what.text()
        );
    }
    out
}

/// The happenings in the form that ShiViz reads: a vector clock for each, advanced along messages.
#[must_use]
pub fn shiviz(happenings: &[Happening], filter: &Filter) -> String {
    let mut clocks: BTreeMap<NodeId, BTreeMap<NodeId, u64>> = BTreeMap::new();
    let mut flights: BTreeMap<u64, BTreeMap<NodeId, u64>> = BTreeMap::new();
    let mut out = String::from("(?<host>\\S*) (?<clock>{.*})\\n(?<event>.*)\n\n");
    for happening in happenings {
        let Some(node) = happening.node else { continue };
        if matches!(happening.what, What::Lost { .. }) {
            continue;
        }
        let clock = clocks.entry(node).or_default();
        if let What::Arrived { flight, .. } = &happening.what
            && let Some(sent) = flights.get(flight)
        {
            for (peer, count) in sent {
                let known = clock.entry(*peer).or_default();
                *known = (*known).max(*count);
            }
        }
        // A happening that is not shown must not advance its clock, or ShiViz misses an event.
        if filter.shows(happening) {
            *clock.entry(node).or_default() += 1;
            let entries: Vec<String> =
                clock.iter().map(|(peer, count)| format!("\"{peer:?}\": {count}")).collect();
            let text = happening.what.text().replace('\n', " ");
            let _ = writeln!(out, "{node:?} {{{}}}\n{text}", entries.join(", "));
        }
        if let What::Sent { flight, .. } = &happening.what {
            flights.insert(*flight, clock.clone());
        }
    }
    out
}
