//! Who betrays, and how: drawn from a seed, or one possibility after the other.
//!
//! Drawn: in half of the games with a traitor the commander is one; the others are drawn evenly. Each traitor has a manner, in half of the
//! games the same for all (a conspiracy): he says anything or nothing, tells one half of the generals this and the other half that, says
//! the opposite to all or to some, or is silent. With signatures see [`signed`](super::signed).
//!
//! Numbered ([`Space`]): every choice of traitors, both orders of a loyal commander, and every way to lie to loyal generals. Silence is
//! not among the ways, because *retreat* is taken for it and is one; nor is what traitors say to one another, because no loyal general acts by it.

use synod_core::Rng;

use super::oral::Council;
use super::signed;
use super::{Algorithm, GENERALS_MAX, General, Group, Order, Rules};

/// A game's traitors, what a loyal commander orders, and everything that the traitors do.
#[derive(Clone, Debug)]
pub struct Plot {
    traitors: Group,
    order: Order,
    will: Will,
}

#[derive(Clone, Debug)]
enum Will {
    /// Manners by general, and chance for the rest.
    Drawn { rng: Rng, manners: [Manner; GENERALS_MAX] },
    /// A number in mixed radix: each choice takes a digit.
    Numbered(u64),
}

/// How a traitor lies with oral messages.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// Attack, retreat or nothing, each time anew.
    Any,
    /// Attack to these, retreat to the others.
    Split(Group),
    /// The opposite of the truth to these, the truth to the others.
    Contrary(Group),
    /// Nothing.
    Silent,
}

impl Manner {
    fn draw(rng: &mut Rng) -> Manner {
        let some = Group(rng.below(1 << GENERALS_MAX) as u16);
        match rng.below(8) {
            0 | 1 => Manner::Any,
            2..5 => Manner::Split(some),
            5 => Manner::Contrary(some),
            6 => Manner::Contrary(Group::all(GENERALS_MAX)),
            _ => Manner::Silent,
        }
    }
}

impl Plot {
    /// What a seed draws.
    #[must_use]
    pub fn drawn(rules: &Rules, seed: u64) -> Plot {
        let mut rng = Rng::new(seed);
        let mut traitors = Group::default();
        if rules.traitors() > 0 && rng.chance(0.5) {
            traitors = traitors.with(General::COMMANDER);
        }
        while traitors.len() < rules.traitors() {
            traitors = traitors.with(General(rng.between(1, rules.generals() as u64 - 1) as u8));
        }
        let order = Order::ALL[rng.below(2) as usize];
        let shared = rng.chance(0.5).then(|| Manner::draw(&mut rng));
        let manners = std::array::from_fn(|_| shared.unwrap_or_else(|| Manner::draw(&mut rng)));
        Plot { traitors, order, will: Will::Drawn { rng, manners } }
    }

    /// Who betrays.
    pub(super) fn traitors(&self) -> Group {
        self.traitors
    }

    /// What a loyal commander orders.
    pub(super) fn order(&self) -> Order {
        self.order
    }

    /// What a traitor says to somebody, where a loyal general would say `truth`.
    pub(super) fn say(&mut self, speaker: General, listener: General, truth: Order) -> Option<Order> {
        let is_to_traitor = self.traitors.contains(listener);
        match &mut self.will {
            Will::Numbered(_) if is_to_traitor => Some(truth),
            Will::Numbered(left) => Some(Order::ALL[digit(left, 2) as usize]),
            Will::Drawn { rng, manners } => match manners[speaker.place()] {
                Manner::Any => [None, Some(Order::Retreat), Some(Order::Attack)][rng.below(3) as usize],
                Manner::Split(these) => Some(Order::ALL[usize::from(these.contains(listener))]),
                Manner::Contrary(these) if these.contains(listener) => Some(truth.other()),
                Manner::Contrary(_) => Some(truth),
                Manner::Silent => None,
            },
        }
    }

    /// One of so many possibilities.
    pub(super) fn choose(&mut self, possibilities: u64) -> u64 {
        match &mut self.will {
            Will::Numbered(left) => digit(left, possibilities),
            Will::Drawn { rng, .. } => rng.below(possibilities),
        }
    }

    /// Where to draw what is not among the numbered possibilities.
    pub(super) fn chance(&mut self) -> Option<&mut Rng> {
        match &mut self.will {
            Will::Numbered(_) => None,
            Will::Drawn { rng, .. } => Some(rng),
        }
    }
}

/// The lowest digit of a number, which is divided by the radix.
fn digit(left: &mut u64, radix: u64) -> u64 {
    let digit = *left % radix;
    *left /= radix;
    digit
}

/// Everything that the traitors of a game could do, numbered from 0.
pub struct Space {
    casts: Vec<Cast>,
}

/// Some traitors, an order, and so many choices among so many possibilities.
struct Cast {
    traitors: Group,
    order: Order,
    radix: u64,
    choices: usize,
}

impl Cast {
    fn bits(&self) -> f64 {
        (self.radix as f64).log2() * self.choices as f64
    }

    fn size(&self) -> Option<u64> {
        self.radix.checked_pow(u32::try_from(self.choices).ok()?)
    }
}

impl Space {
    /// All plots under these rules.
    #[must_use]
    pub fn new(rules: &Rules) -> Space {
        // How many choices there are depends on whether the commander is a traitor, and on nobody else's name.
        let first = (1..=rules.traitors() as u8).fold(Group::default(), |group, it| group.with(General(it)));
        let loyal = choices(rules, first);
        let commands =
            (0..rules.traitors() as u8).fold(Group::default(), |group, it| group.with(General(it)));
        let traitorous = choices(rules, commands);
        let mut casts = Vec::new();
        for traitors in (0..1u16 << rules.generals()).map(Group).filter(|it| it.len() == rules.traitors()) {
            if traitors.contains(General::COMMANDER) {
                let (radix, choices) = traitorous;
                casts.push(Cast { traitors, order: Order::Retreat, radix, choices });
            } else {
                let (radix, choices) = loyal;
                casts.extend(Order::ALL.map(|order| Cast { traitors, order, radix, choices }));
            }
        }
        Space { casts }
    }

    /// How many plots; none: 2^64 or more.
    #[must_use]
    pub fn count(&self) -> Option<u64> {
        self.casts.iter().try_fold(0u64, |sum, cast| sum.checked_add(cast.size()?))
    }

    /// The logarithm of that to the base of two.
    #[must_use]
    pub fn bits(&self) -> f64 {
        let most = self.casts.iter().map(Cast::bits).fold(0.0, f64::max);
        most + self.casts.iter().map(|cast| (cast.bits() - most).exp2()).sum::<f64>().log2()
    }

    /// The plot with this number; none: there are not so many.
    #[must_use]
    pub fn plot(&self, mut number: u64) -> Option<Plot> {
        for cast in &self.casts {
            match cast.size() {
                Some(size) if size <= number => number -= size,
                _ => {
                    let will = Will::Numbered(number);
                    return Some(Plot { traitors: cast.traitors, order: cast.order, will });
                }
            }
        }
        None
    }
}

/// How many games have a loyal commander, and how many a traitorous one, as logarithms to the base of two.
pub(super) fn bits(rules: &Rules) -> (f64, f64) {
    let (mut loyal, mut traitorous) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
    for cast in Space::new(rules).casts {
        let sum = if cast.traitors.contains(General::COMMANDER) { &mut traitorous } else { &mut loyal };
        let most = sum.max(cast.bits());
        *sum = most + ((*sum - most).exp2() + (cast.bits() - most).exp2()).log2();
    }
    (loyal, traitorous)
}

/// How many possibilities each choice of these traitors has, and how many choices they have.
fn choices(rules: &Rules, traitors: Group) -> (u64, usize) {
    match rules.algorithm() {
        Algorithm::Oral => (2, Council::new(rules.generals(), rules.rounds()).lies(traitors)),
        Algorithm::Signed => signed::choices(rules, traitors),
    }
}
