//! The ledger: what was applied, once and for all.
//!
//! Where a protocol promises one order for good ([`Judging::Places`]), the first replica to apply something at a place writes it into the ledger; whoever comes to that place later must apply
//! the same. Nothing is ever taken out, so a decision that a crash made everybody forget shows as soon as
//! anything else is decided in its place. Where orders may differ, or decisions be taken back, every machine remembers which commands
//! it contains ([`Judging::Sets`]), and the sets are compared when everything is quiet.

use std::collections::{BTreeMap, BTreeSet};

use synod_core::{CommandId, Index, Members, NodeId, Vector};

use crate::machine::{Applied, Audited};

/// By what applying is judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Judging {
    /// Every place holds one command, for good.
    #[default]
    Places,
    /// Every replica applies commands that were submitted, each once in its own history.
    Sets,
}

/// What one client's command has come to.
#[derive(Clone, Debug)]
struct Submitted {
    payload: u64,
    fate: Fate,
    /// Whether a client was told that it is done.
    acknowledged: bool,
    /// What its replica had applied when it was submitted, where there is no single order: its client may have seen that.
    seen: Option<Box<Vector>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Decided,
    Refused,
}

/// A command in its place.
#[derive(Clone, Copy, Debug)]
struct Decided {
    applied: Applied,
    first: NodeId,
}

/// A broken property and what shows it.
pub type Broken = (&'static str, String);

/// What was submitted, and what was applied where.
#[derive(Default)]
pub struct Ledger {
    judging: Judging,
    decided: Vec<Decided>,
    /// How many different commands were decided, where places say nothing.
    different: usize,
    members: BTreeMap<Index, (NodeId, Members)>,
    /// Everybody who ever was a member.
    known: BTreeSet<NodeId>,
    /// By origin, then by number.
    submitted: BTreeMap<NodeId, Vec<Submitted>>,
}

impl Ledger {
    /// An empty ledger.
    #[must_use]
    pub fn new(judging: Judging) -> Ledger {
        Ledger { judging, ..Ledger::default() }
    }

    /// By what it judges.
    #[must_use]
    pub fn judging(&self) -> Judging {
        self.judging
    }

    /// How many commands were decided.
    #[must_use]
    pub fn len(&self) -> usize {
        self.decided.len() + self.different
    }

    /// Whether nothing was decided yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A client is told that its command is done.
    pub fn acknowledge(&mut self, id: CommandId) {
        if let Some(submitted) = self.submitted(id) {
            submitted.acknowledged = true;
        }
    }

    /// What clients were told is done.
    pub fn acknowledged(&self) -> impl Iterator<Item = CommandId> {
        self.submitted.iter().flat_map(|(origin, numbers)| {
            let done = numbers.iter().enumerate().filter(|(_, submitted)| submitted.acknowledged);
            done.map(|(place, _)| CommandId { origin: *origin, number: place as u64 + 1 })
        })
    }

    /// The place of the last decided command.
    #[must_use]
    pub fn last(&self) -> Index {
        self.decided.last().map_or(Index::ZERO, |decided| decided.applied.at)
    }

    /// The digest over all that was decided.
    #[must_use]
    pub fn chain(&self) -> u64 {
        self.decided.last().map_or(0, |decided| decided.applied.chain)
    }

    /// The newest decided configuration.
    #[must_use]
    pub fn members(&self) -> Option<&Members> {
        self.members.values().next_back().map(|(_, members)| members)
    }

    /// Whether a machine ever belonged to a decided configuration.
    #[must_use]
    pub fn has_known(&self, id: NodeId) -> bool {
        self.known.contains(&id)
    }

    /// A client submits its command number `id.number`, which continues the numbers of its origin.
    pub fn submit(&mut self, id: CommandId, payload: u64) {
        let numbers = self.submitted.entry(id.origin).or_default();
        assert_eq!(numbers.len() as u64 + 1, id.number, "commands are numbered without gaps");
        numbers.push(Submitted { payload, fate: Fate::Open, acknowledged: false, seen: None });
    }

    /// The replica that a command is submitted to has applied this.
    pub fn submitted_after(&mut self, id: CommandId, seen: &Vector) {
        if let Some(submitted) = self.submitted(id) {
            submitted.seen = Some(Box::new(seen.clone()));
        }
    }

    /// A machine that had applied `past` applies a command.
    ///
    /// # Errors
    /// When whoever submitted it may have seen what is not in `past`: causal delivery is broken.
    pub fn depends(&mut self, node: NodeId, id: CommandId, past: &Vector) -> Result<(), Broken> {
        match self.submitted(id).and_then(|submitted| submitted.seen.as_deref()) {
            Some(seen) if !past.dominates(seen) => Err((
                "causal delivery",
                format!("{node:?} applies {id:?} behind {past:?}, but its client may have seen {seen:?}"),
            )),
            _ => Ok(()),
        }
    }

    fn submitted(&mut self, id: CommandId) -> Option<&mut Submitted> {
        self.submitted.get_mut(&id.origin)?.get_mut(usize::try_from(id.number).ok()?.checked_sub(1)?)
    }

    /// A replica says that a command is certainly not decided and never will be.
    ///
    /// # Errors
    /// When it was decided.
    pub fn refuse(&mut self, id: CommandId) -> Result<(), Broken> {
        let Some(submitted) = self.submitted(id) else { return Ok(()) };
        if submitted.fate == Fate::Decided {
            return Err(("validity", format!("{id:?} was refused, but it is decided")));
        }
        submitted.fate = Fate::Refused;
        Ok(())
    }

    /// A machine applied something.
    ///
    /// # Errors
    /// When the ledger says otherwise.
    pub fn apply(&mut self, node: NodeId, applied: &Applied) -> Result<(), Broken> {
        if self.judging == Judging::Sets {
            return self.first_time(node, applied);
        }
        let place = applied.count as usize - 1;
        match self.decided.get(place) {
            Some(known) => {
                let said = known.applied;
                if (said.at, said.id, said.payload) != (applied.at, applied.id, applied.payload) {
                    return Err((
                        "agreement",
                        format!(
                            "{node:?} applies {:?} at {:?} as command {}, {:?} applied {:?} at {:?}",
                            applied.id, applied.at, applied.count, known.first, said.id, said.at
                        ),
                    ));
                }
                if said.chain != applied.chain {
                    return Err((
                        "state machine safety",
                        format!(
                            "{node:?} and {:?} are in different states behind {:?}",
                            known.first, applied.at
                        ),
                    ));
                }
                Ok(())
            }
            None => {
                assert_eq!(place, self.decided.len(), "machines count without gaps");
                self.first_time(node, applied)?;
                self.decided.push(Decided { applied: *applied, first: node });
                Ok(())
            }
        }
    }

    fn first_time(&mut self, node: NodeId, applied: &Applied) -> Result<(), Broken> {
        let (id, payload, judging) = (applied.id, applied.payload, self.judging);
        let Some(submitted) = self.submitted(id) else {
            return Err(("validity", format!("{node:?} applies {id:?}, which no client submitted")));
        };
        if submitted.payload != payload {
            return Err((
                "validity",
                format!("{node:?} applies {id:?} with another payload than was submitted"),
            ));
        }
        match submitted.fate {
            // Among sets, every replica applies every command, each once: its own machine sees to that.
            Fate::Decided if judging == Judging::Sets => Ok(()),
            Fate::Decided => {
                Err(("integrity", format!("{node:?} applies {id:?} at {:?} for the second time", applied.at)))
            }
            Fate::Refused => Err(("validity", format!("{node:?} applies {id:?}, which was refused"))),
            Fate::Open => {
                submitted.fate = Fate::Decided;
                self.different += usize::from(judging == Judging::Sets);
                Ok(())
            }
        }
    }

    /// A machine stands somewhere: after a restore it got there without applying.
    ///
    /// # Errors
    /// When nobody ever was in that state.
    pub fn stands(&self, node: NodeId, machine: &Audited) -> Result<(), Broken> {
        if self.judging == Judging::Sets {
            return match machine.doubled {
                Some(id) => Err(("integrity", format!("{node:?} applies {id:?} for the second time"))),
                None => Ok(()),
            };
        }
        let Some(place) = (machine.count as usize).checked_sub(1) else { return Ok(()) };
        match self.decided.get(place) {
            Some(known) if known.applied.chain == machine.chain => Ok(()),
            Some(_) => Err((
                "state machine safety",
                format!(
                    "{node:?} stands behind {} commands in a state that nobody else was in",
                    machine.count
                ),
            )),
            None => Err(("validity", format!("{node:?} stands behind more commands than were ever decided"))),
        }
    }

    /// A replica delivered a configuration.
    ///
    /// # Errors
    /// When another one was delivered at this place.
    pub fn configure(&mut self, node: NodeId, at: Index, members: &Members) -> Result<(), Broken> {
        if self.judging == Judging::Sets {
            return Ok(());
        }
        match self.members.get(&at) {
            Some((first, known)) if known != members => {
                Err(("agreement", format!("{node:?} and {first:?} deliver different members at {at:?}")))
            }
            Some(_) => Ok(()),
            None => {
                self.known.extend(members.all());
                self.members.insert(at, (node, members.clone()));
                Ok(())
            }
        }
    }
}
