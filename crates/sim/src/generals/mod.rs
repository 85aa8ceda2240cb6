//! The Byzantine generals as a game: Lamport, Shostak and Pease, "The Byzantine Generals Problem" (TOPLAS, 1982).
//!
//! A commander orders n - 1 lieutenants to attack or to retreat; some of the n are traitors, and nobody knows who. The loyal ones follow an
//! algorithm, the traitors say what they like. Two conditions, together *interactive consistency* (section 1):
//!
//! - **IC1**: all loyal lieutenants obey the same order;
//! - **IC2**: if the commander is loyal, every loyal lieutenant obeys the order that he sends.
//!
//! | part | what | section |
//! |---|---|---|
//! | [`oral`] | OM(m), oral messages: more than 3m generals cope with m traitors | 3 |
//! | [`signed`], [`signature`] | SM(m), signed messages: any number of generals copes with m traitors | 4 |
//! | [`impossible`] | three generals cannot cope with one traitor, whatever they make of oral messages | 2 |
//! | [`plot`] | who betrays and how: drawn from a seed, or every possibility in turn | |
//! | [`every`] | all games of oral messages at once | |
//! | `story` | what was said in a game, for people | |
//!
//! The paper's assumptions are the game's: what is sent arrives (A1), the receiver knows who sent it (A2), silence is noticed (A3), and
//! with signatures a loyal general's cannot be forged and everybody can check it (A4). Where nothing was said, *retreat* is
//! taken for it. A game is wholly decided by its [`Rules`] and its [`Plot`]: no clock, no threads.
//!
//! Left out: orders other than the two (the paper allows any set of values; two suffice for its theorems and for what breaks), missing
//! paths, that is, generals who cannot reach one another, with p-regular graphs for oral messages and connected loyal generals for signed ones
//! (section 5), and what the paper says of building reliable systems from this (section 6): that is PBFT's part here.

pub mod every;
pub mod impossible;
pub mod oral;
pub mod plot;
pub mod signature;
pub mod signed;
mod story;

use std::fmt;

pub use plot::{Plot, Space};

/// At most so many generals, the commander included: OM's messages grow as a factorial.
pub const GENERALS_MAX: usize = 10;

/// What can be ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Also what is done where nothing was said, and where votes are equal (the paper's default).
    Retreat,
    /// The other.
    Attack,
}

impl Order {
    /// Both.
    pub const ALL: [Order; 2] = [Order::Retreat, Order::Attack];

    /// Not this one.
    #[must_use]
    pub fn other(self) -> Order {
        match self {
            Order::Retreat => Order::Attack,
            Order::Attack => Order::Retreat,
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Order::Retreat => "retreat",
            Order::Attack => "attack",
        })
    }
}

/// One of the generals: 0 commands, the others are his lieutenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct General(u8);

impl General {
    /// The one whose order the game is about.
    pub const COMMANDER: General = General(0);

    fn place(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for General {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("the commander"),
            number => write!(f, "lieutenant {number}"),
        }
    }
}

/// A set of generals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Group(u16);

impl Group {
    /// The commander and all lieutenants of a game with so many generals.
    fn all(generals: usize) -> Group {
        Group(((1u32 << generals) - 1) as u16)
    }

    /// Whether this one belongs to it.
    #[must_use]
    pub fn contains(self, general: General) -> bool {
        self.0 >> general.0 & 1 == 1
    }

    /// The same with this one.
    #[must_use]
    pub fn with(self, general: General) -> Group {
        Group(self.0 | 1 << general.0)
    }

    /// Those of it that are not in the other.
    #[must_use]
    pub fn without(self, other: Group) -> Group {
        Group(self.0 & !other.0)
    }

    /// How many.
    #[must_use]
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether nobody is in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each, in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = General> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let next = (left != 0).then(|| General(left.trailing_zeros() as u8));
            left &= left.wrapping_sub(1);
            next
        })
    }
}

/// How the loyal generals come to an agreement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// OM(m): a message is worth what its sender is worth.
    Oral,
    /// SM(m): a message shows who has signed it.
    Signed,
}

/// A game before anybody has betrayed anybody. Invariant: the numbers are possible, as [`Rules::new`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    generals: usize,
    traitors: usize,
    rounds: usize,
    algorithm: Algorithm,
}

/// A number that is not possible: its name, what it is, and what would be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} {given}: {allowed}")]
pub struct RulesError {
    name: &'static str,
    given: usize,
    allowed: String,
}

impl Rules {
    /// So many generals with so many traitors among them; `rounds` is the m of OM(m) or SM(m), how often an order is passed on.
    ///
    /// # Errors
    /// Unless there are 2 to [`GENERALS_MAX`] generals, fewer traitors than generals, and at most `generals - 2` rounds: an order that was passed on
    /// m times has been through m + 1 generals, and one more must be there to hear it.
    pub fn new(
        generals: usize,
        traitors: usize,
        rounds: usize,
        algorithm: Algorithm,
    ) -> Result<Rules, RulesError> {
        let error = |name, given, allowed| Err(RulesError { name, given, allowed });
        if !(2..=GENERALS_MAX).contains(&generals) {
            return error("generals", generals, format!("2 to {GENERALS_MAX} are possible"));
        }
        if traitors >= generals {
            let allowed =
                format!("0 to {} are possible among {generals} generals: somebody is loyal", generals - 1);
            return error("traitors", traitors, allowed);
        }
        if rounds > generals - 2 {
            let allowed = format!(
                "0 to {} are possible among {generals} generals: an order is passed on to somebody who has not had it",
                generals - 2
            );
            return error("rounds", rounds, allowed);
        }
        Ok(Rules { generals, traitors, rounds, algorithm })
    }

    /// How many generals, the commander included.
    #[must_use]
    pub fn generals(&self) -> usize {
        self.generals
    }

    /// How many of them are traitors.
    #[must_use]
    pub fn traitors(&self) -> usize {
        self.traitors
    }

    /// The m of OM(m) or SM(m).
    #[must_use]
    pub fn rounds(&self) -> usize {
        self.rounds
    }

    /// Which algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether the paper promises IC1 and IC2: theorem 1 for oral messages (more than 3m generals, at most m traitors), theorem 2 for signed ones
    /// (at most m traitors).
    #[must_use]
    pub fn is_promised(&self) -> bool {
        let enough = self.traitors <= self.rounds;
        match self.algorithm {
            Algorithm::Oral => enough && self.generals > 3 * self.rounds,
            Algorithm::Signed => enough,
        }
    }

    /// How many messages a game takes when everybody speaks and nobody lies.
    ///
    /// OM(m): n - 1 from the commander, and each level of the recursion multiplies by one general fewer. SM(m): n - 1 from the commander, and with m > 0
    /// each lieutenant passes the one order on to the n - 2 others once, (n - 1)² in all.
    #[must_use]
    pub fn messages(&self) -> u64 {
        let others = self.generals as u64 - 1;
        match self.algorithm {
            Algorithm::Oral => (0..=self.rounds).map(|level| self.messages_at(level)).sum(),
            Algorithm::Signed if self.rounds == 0 => others,
            Algorithm::Signed => others * others,
        }
    }

    /// OM's messages of orders that were passed on so many times: (n - 1)(n - 2)...(n - 1 - level).
    #[must_use]
    pub fn messages_at(&self, level: usize) -> u64 {
        (0..=level).map(|step| (self.generals - 1 - step) as u64).product()
    }

    /// The commander's lieutenants.
    fn lieutenants(&self) -> Group {
        Group::all(self.generals).without(Group::default().with(General::COMMANDER))
    }
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.algorithm {
            Algorithm::Oral => "OM",
            Algorithm::Signed => "SM",
        };
        write!(f, "{name}({}), ", self.rounds)?;
        let ending = if self.traitors == 1 { "" } else { "s" };
        write!(f, "{} generals, {} traitor{ending}", self.generals, self.traitors)
    }
}

/// How a game ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Who betrayed.
    pub traitors: Group,
    /// What the commander ordered; none: he is a traitor, and his order is whatever he told each.
    pub order: Option<Order>,
    /// What each loyal lieutenant does, by number.
    pub decisions: [Option<Order>; GENERALS_MAX],
    /// How many messages were sent; silence is none.
    pub messages: u64,
}

impl Outcome {
    /// Whether IC1 holds: all loyal lieutenants do the same.
    #[must_use]
    pub fn agrees(&self) -> bool {
        let mut all = self.decisions.iter().flatten();
        let first = all.next();
        all.all(|order| Some(order) == first)
    }

    /// Whether IC2 holds: they do what a loyal commander ordered.
    #[must_use]
    pub fn obeys(&self) -> bool {
        self.order.is_none_or(|order| self.decisions.iter().flatten().all(|decided| *decided == order))
    }
}

/// A game that can be played again and again, each time with another plot.
pub struct Game {
    rules: Rules,
    council: oral::Council,
}

impl Game {
    /// Draws up who speaks to whom.
    #[must_use]
    pub fn new(rules: Rules) -> Game {
        // SM has no fixed scheme of who passes on what.
        let rounds = if rules.algorithm == Algorithm::Oral { rules.rounds } else { 0 };
        Game { rules, council: oral::Council::new(rules.generals, rounds) }
    }

    /// Plays once.
    pub fn play(&mut self, plot: Plot) -> Outcome {
        match self.rules.algorithm {
            Algorithm::Oral => self.council.play(&self.rules, plot),
            Algorithm::Signed => signed::play(&self.rules, plot).0,
        }
    }

    /// Plays once, and tells who betrayed, who said what to whom, what each loyal lieutenant did, and whether IC1 and IC2 hold.
    pub fn tell(&mut self, plot: Plot) -> String {
        match self.rules.algorithm {
            Algorithm::Oral => {
                let outcome = self.council.play(&self.rules, plot);
                story::oral(&self.rules, &self.council, &outcome)
            }
            Algorithm::Signed => {
                let (outcome, letters) = signed::play(&self.rules, plot);
                story::signed(&self.rules, &letters, &outcome)
            }
        }
    }
}

#[cfg(test)]
mod tests;
