//! SM(m), signed messages (section 4).
//!
//! The commander signs his order and sends it to every lieutenant. A lieutenant who receives an order that he has not had adds it to his set
//! V, and, when it has at most m signatures, adds his own and sends it to everybody who has not signed it. When no more can come he
//! obeys what V holds, if that is one order, and retreats otherwise. Nobody can deny what he signed: a commander who
//! ordered two things is found out, because each loyal lieutenant shows all others what he has.
//!
//! Time passes in m + 1 rounds: what is sent in a round is there at its end. An order that arrives in round r counts if it has at least r
//! signatures, if the commander's is the first, and if all are different; what comes later than that is late (the paper's time-out, section 4).
//!
//! What traitors can do: be silent, withhold, send different orders that a traitorous commander signed, sign for one another (they put
//! their [`Pen`]s together, so one can send what all of them signed), send early, late, again, and what loyal generals signed. They cannot sign for a
//! loyal general: they have no pen of his. Drawn games do all of it. Numbered games plan only what can have an effect: whether
//! a loyal lieutenant gets an order that traitors alone have signed, in which round, with how many signatures. That is everything, because
//! a loyal lieutenant signs an order only to send it to everybody who has not: the other loyal ones have it when the traitors
//! have it; and a loyal commander signs one order, which everybody has after the first round.

use synod_core::Rng;

use super::signature::{Pen, Signed};
use super::{GENERALS_MAX, General, Group, Order, Outcome, Plot, Rules};

/// A signed order on its way, and what became of it.
#[derive(Clone, Debug)]
pub struct Letter {
    /// In which round, from 1.
    pub round: usize,
    /// Who sends it, which need not be who signed last.
    pub from: General,
    /// To whom.
    pub to: General,
    /// What it says.
    pub signed: Signed,
    /// What the receiver makes of it.
    pub fate: Fate,
}

/// What a receiver makes of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The order is new to him.
    New,
    /// He has it already.
    Known,
    /// It has fewer signatures than the round asks for.
    Late,
    /// It is no order of the commander's, somebody signed twice, it has too many signatures, or his own.
    Improper,
    /// The receiver is a traitor.
    Betrayed,
}

/// When a loyal lieutenant gets an order from the traitors: the round, and the number of signatures.
type Appointment = Option<(usize, usize)>;

/// All appointments, by lieutenant and order.
type Plan = [[Appointment; 2]; GENERALS_MAX];

/// So many signatures can be the traitors' alone and still count.
fn signatures_max(rules: &Rules) -> usize {
    rules.traitors().min(rules.rounds() + 1)
}

/// The possible appointments: never, or in a round with at least as many signatures.
fn appointments(rules: &Rules) -> Vec<Appointment> {
    let most = signatures_max(rules);
    let pairs = (1..=most).flat_map(|round| (round..=most).map(move |signatures| Some((round, signatures))));
    std::iter::once(None).chain(pairs).collect()
}

/// How many possibilities each choice of these traitors has, and how many choices they have.
pub(super) fn choices(rules: &Rules, traitors: Group) -> (u64, usize) {
    if !traitors.contains(General::COMMANDER) {
        return (1, 0);
    }
    (appointments(rules).len() as u64, 2 * rules.lieutenants().without(traitors).len())
}

/// The traitors, who act as one.
struct Conspiracy {
    pens: Vec<Pen>,
    plan: Plan,
    /// Every letter that one of them got.
    pool: Vec<Signed>,
}

impl Conspiracy {
    /// An order of a traitorous commander under as many of the traitors' signatures.
    fn forge(&self, order: Order, signatures: usize) -> Signed {
        // Pens are in the order of their owners: the commander's is the first.
        let opened = self.pens[0].open(order);
        self.pens[1..signatures].iter().fold(opened, |signed, pen| pen.countersign(&signed))
    }

    /// What is sent by plan in a round.
    fn by_plan(&self, round: usize, loyal: Group) -> Vec<(General, Signed)> {
        let mut sent = Vec::new();
        for to in loyal.iter() {
            for order in Order::ALL {
                if let Some((_, signatures)) =
                    self.plan[to.place()][order as usize].filter(|(when, _)| *when == round)
                {
                    sent.push((to, self.forge(order, signatures)));
                }
            }
        }
        sent
    }

    /// What is sent by chance: anything that can be made of their pens and of what they got.
    fn by_chance(&self, loyal: Group, rng: &mut Rng) -> Vec<(General, Signed)> {
        let mut sent = Vec::new();
        for to in loyal.iter() {
            for _ in 0..rng.below(3) {
                let order = Order::ALL[rng.below(2) as usize];
                let mut signed = if !self.pool.is_empty() && rng.chance(0.5) {
                    self.pool[rng.below(self.pool.len() as u64) as usize].clone()
                } else if self.pens[0].owner() == General::COMMANDER && rng.chance(0.9) {
                    self.pens[0].open(order)
                } else {
                    // No order of the commander's, for he did not sign first.
                    self.pens[rng.below(self.pens.len() as u64) as usize].open(order)
                };
                for pen in &self.pens {
                    if rng.chance(0.5) && !signed.signers().contains(pen.owner()) {
                        signed = pen.countersign(&signed);
                    }
                }
                sent.push((to, signed));
            }
        }
        sent
    }

    /// Who of them sends a letter: who signed last, if he is one of them.
    fn sender(&self, signed: &Signed) -> General {
        let last = signed.last();
        if self.pens.iter().any(|pen| pen.owner() == last) { last } else { self.pens[0].owner() }
    }
}

/// What a loyal lieutenant makes of an order under these signatures that arrives in a round.
fn judge(rules: &Rules, to: General, known: &[bool; 2], round: usize, signed: &Signed) -> Fate {
    if !signed.is_proper() || signed.signatures() > rules.rounds() + 1 || signed.signers().contains(to) {
        Fate::Improper
    } else if signed.signatures() < round {
        Fate::Late
    } else if known[signed.order() as usize] {
        Fate::Known
    } else {
        Fate::New
    }
}

/// Plays a game, and shows every letter.
pub(super) fn play(rules: &Rules, mut plot: Plot) -> (Outcome, Vec<Letter>) {
    let (traitors, order) = (plot.traitors(), plot.order());
    let loyal = rules.lieutenants().without(traitors);
    let (pens, loyal_pens): (Vec<Pen>, Vec<Pen>) =
        Pen::deal(rules.generals()).into_iter().partition(|pen| traitors.contains(pen.owner()));
    let mut plan = Plan::default();
    if traitors.contains(General::COMMANDER) {
        let appointments = appointments(rules);
        for to in loyal.iter() {
            plan[to.place()] =
                Order::ALL.map(|_| appointments[plot.choose(appointments.len() as u64) as usize]);
        }
    }
    // Half of the drawn games keep to a plan, the others leave everything to chance.
    let mut chance = plot.chance().and_then(|rng| (!traitors.is_empty() && rng.chance(0.5)).then_some(rng));
    let mut conspiracy = Conspiracy { pens, plan, pool: Vec::new() };
    let mut known = [[false; 2]; GENERALS_MAX];
    let mut letters: Vec<Letter> = Vec::new();
    // What loyal generals send next.
    let mut next: Vec<(General, General, Signed)> = Vec::new();
    if let Some(pen) = loyal_pens.first().filter(|pen| pen.owner() == General::COMMANDER) {
        let to_all = rules.lieutenants().iter().map(|to| (pen.owner(), to, pen.open(order)));
        next.extend(to_all);
    }
    for round in 1..=rules.rounds() + 1 {
        let lies = match &mut chance {
            Some(rng) => conspiracy.by_chance(loyal, rng),
            None => conspiracy.by_plan(round, loyal),
        };
        // The traitors' letters come first: what has many signatures then is not passed on, though others bring it with fewer.
        let lies = lies.into_iter().map(|(to, signed)| (conspiracy.sender(&signed), to, signed));
        let sent: Vec<_> = lies.chain(std::mem::take(&mut next)).collect();
        for (from, to, signed) in sent {
            let fate = if traitors.contains(to) {
                conspiracy.pool.push(signed.clone());
                Fate::Betrayed
            } else {
                judge(rules, to, &known[to.place()], round, &signed)
            };
            if fate == Fate::New {
                known[to.place()][signed.order() as usize] = true;
                if signed.signatures() <= rules.rounds() {
                    let pen =
                        loyal_pens.iter().find(|pen| pen.owner() == to).expect("who is loyal keeps his pen");
                    let own = pen.countersign(&signed);
                    let others = rules.lieutenants().without(own.signers());
                    next.extend(others.iter().map(|other| (to, other, own.clone())));
                }
            }
            letters.push(Letter { round, from, to, signed, fate });
        }
    }
    let mut decisions = [None; GENERALS_MAX];
    for lieutenant in loyal.iter() {
        let [_, attack] = known[lieutenant.place()];
        let alone = attack && !known[lieutenant.place()][Order::Retreat as usize];
        decisions[lieutenant.place()] = Some(if alone { Order::Attack } else { Order::Retreat });
    }
    let order = (!traitors.contains(General::COMMANDER)).then_some(order);
    let outcome = Outcome { traitors, order, decisions, messages: letters.len() as u64 };
    (outcome, letters)
}
