//! Every game of oral messages at once, where there are too many to play one by one.
//!
//! What traitors say along one path has no bearing on what they say along another, so the games into which OM(m) falls apart are independent of
//! one another once it is known what their commanders have said. Of each it is enough to know which decisions of the loyal lieutenants can come out, and
//! how often; the votes are then added up, lieutenant by lieutenant, over all ways to combine them. For seven generals with two
//! traitors that decides 2^45 games in no time, and leaves none out.
//!
//! *How often* is a share, the traitors' words being drawn evenly among attack and retreat; whether a game can come out so at all does not
//! depend on how exact a double is. Left out: a number for each broken game. Where many outcomes are possible the combinations
//! grow beyond `STATES_MAX`, and no answer is given; that happens where the theorem does not hold, and there seeds find a broken game at once.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Algorithm, Order, Rules};

/// So many combinations of votes are looked at, in all.
const STATES_MAX: u64 = 4_000_000;

/// The share of all games in which IC1 or IC2 is broken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shares {
    /// Whether there is a broken game.
    pub is_broken: bool,
    /// Loyal lieutenants do different things.
    pub split: f64,
    /// Somebody does not obey a loyal commander.
    pub disobeyed: f64,
}

/// What loyal lieutenants decide, a bit for each (set: attack), with how often.
type Spread = Rc<Vec<(u16, f64)>>;

/// A game within the game: how many more rounds, how many loyal and how many traitorous lieutenants, and what each loyal one heard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    rounds: usize,
    loyal: usize,
    traitors: usize,
    heard: u16,
}

#[derive(Default)]
struct Every {
    known: BTreeMap<Part, Spread>,
    /// The same for a traitorous commander, who may say anything; `heard` is 0.
    betrayed: BTreeMap<Part, Spread>,
    states: u64,
}

/// The shares of all games under these rules; none: they are not to be had so, because the algorithm is another or too much can come out.
#[must_use]
pub fn shares(rules: &Rules) -> Option<Shares> {
    if rules.algorithm() != Algorithm::Oral {
        return None;
    }
    let mut every = Every::default();
    let (generals, traitors, rounds) = (rules.generals(), rules.traitors(), rules.rounds());
    // Each set of traitors, each order and each way to lie is a game, so the two kinds of commanders weigh by how many games they have.
    let (loyal_bits, traitor_bits) = super::plot::bits(rules);
    let most = loyal_bits.max(traitor_bits);
    let weigh = |bits: f64| if bits.is_finite() { (bits - most).exp2() } else { 0.0 };
    let all = weigh(loyal_bits) + weigh(traitor_bits);
    let mut shares = Shares { is_broken: false, split: 0.0, disobeyed: 0.0 };
    if weigh(loyal_bits) > 0.0 {
        let loyal = generals - 1 - traitors;
        for order in Order::ALL {
            let right = unanimous(order, loyal);
            let spread = every.spread(Part { rounds, loyal, traitors, heard: right })?;
            let weight = weigh(loyal_bits) / all / 2.0;
            for (decided, share) in spread.iter().filter(|(decided, _)| *decided != right) {
                shares.is_broken = true;
                shares.disobeyed += share * weight;
                let is_split = *decided != unanimous(order.other(), loyal);
                shares.split += if is_split { share * weight } else { 0.0 };
            }
        }
    }
    if weigh(traitor_bits) > 0.0 {
        let loyal = generals - traitors;
        let weight = weigh(traitor_bits) / all;
        let spread = every.any(Part { rounds, loyal, traitors: traitors - 1, heard: 0 })?;
        let is_split = |decided: u16| Order::ALL.iter().all(|order| decided != unanimous(*order, loyal));
        for (_, share) in spread.iter().filter(|(decided, _)| is_split(*decided)) {
            shares.is_broken = true;
            shares.split += share * weight;
        }
    }
    Some(shares)
}

/// All of so many do this.
fn unanimous(order: Order, loyal: usize) -> u16 {
    match order {
        Order::Attack => (1 << loyal) - 1,
        Order::Retreat => 0,
    }
}

/// A count of votes for each lieutenant, four bits each: at most nine vote.
fn votes(decided: u16) -> u64 {
    (0..16).fold(0, |votes, place| votes | u64::from(decided >> place & 1) << (4 * place))
}

impl Every {
    /// What can come out of a part.
    fn spread(&mut self, part: Part) -> Option<Spread> {
        if let Some(known) = self.known.get(&part) {
            return Some(known.clone());
        }
        let Part { rounds, loyal, traitors, heard } = part;
        let spread = if rounds == 0 {
            vec![(heard, 1.0)]
        } else {
            let mut states = BTreeMap::from([(votes(heard), 1.0)]);
            for speaker in 0..loyal {
                let order = Order::ALL[usize::from(heard >> speaker & 1)];
                let others = loyal - 1;
                let below =
                    Part { rounds: rounds - 1, loyal: others, traitors, heard: unanimous(order, others) };
                let spread = self.spread(below)?;
                // He has no vote from himself beside what he heard.
                let low = (1u16 << speaker) - 1;
                let room = |decided: u16| decided & low | (decided & !low) << 1;
                states = self.add(&states, spread.iter().map(|(decided, share)| (room(*decided), *share)))?;
            }
            for _ in 0..traitors {
                let spread =
                    self.any(Part { rounds: rounds - 1, traitors: traitors - 1, heard: 0, ..part })?;
                states = self.add(&states, spread.iter().copied())?;
            }
            // His own, and one from each of the other lieutenants.
            let cast = (loyal + traitors) as u64;
            let mut decided = BTreeMap::new();
            for (votes, share) in states {
                let attacks = (0..loyal).filter(|place| 2 * (votes >> (4 * place) & 15) > cast);
                *decided.entry(attacks.fold(0u16, |all, place| all | 1 << place)).or_insert(0.0) += share;
            }
            decided.into_iter().collect()
        };
        let spread = Rc::new(spread);
        self.known.insert(part, spread.clone());
        Some(spread)
    }

    /// What can come out when the part's commander is a traitor, and tells each loyal lieutenant anything.
    fn any(&mut self, part: Part) -> Option<Spread> {
        if let Some(known) = self.betrayed.get(&part) {
            return Some(known.clone());
        }
        let mut decided = BTreeMap::new();
        for heard in 0..1u16 << part.loyal {
            for (outcome, share) in self.spread(Part { heard, ..part })?.iter() {
                *decided.entry(*outcome).or_insert(0.0) += share / f64::from(1u16 << part.loyal);
            }
        }
        let spread = Rc::new(decided.into_iter().collect::<Vec<_>>());
        self.betrayed.insert(part, spread.clone());
        Some(spread)
    }

    /// Adds one more vote for each lieutenant, in all combinations.
    fn add(
        &mut self,
        states: &BTreeMap<u64, f64>,
        spread: impl Iterator<Item = (u16, f64)> + Clone,
    ) -> Option<BTreeMap<u64, f64>> {
        let mut sums = BTreeMap::new();
        for (sum, share) in states {
            for (decided, often) in spread.clone() {
                self.states += 1;
                *sums.entry(sum + votes(decided)).or_insert(0.0) += share * often;
            }
            if self.states > STATES_MAX {
                return None;
            }
        }
        Some(sums)
    }
}
