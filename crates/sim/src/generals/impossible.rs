//! Three generals cannot cope with one traitor (section 2, figures 1 and 2).
//!
//! Whatever a lieutenant does with what he hears, he must obey a loyal commander although the other lieutenant reports the opposite (figure 1); but a
//! traitorous commander can let both hear just that (figure 2). So no pair of rules holds, not only OM(1)'s: here all 256 pairs are tried
//! for orders that are passed on once. The paper shows it for any number of rounds, and reduces n = 3m to it: each of three generals plays the
//! parts of m, so that an algorithm for 3m generals with m traitors would be one for three with one.

use super::{General, Order};

/// What a lieutenant makes of what he heard from the commander and what the other says that he heard: one bit for each of the four cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule(u8);

impl Rule {
    /// How many there are.
    pub const COUNT: u8 = 16;

    /// Each of them, by number.
    #[must_use]
    pub fn numbered(number: u8) -> Rule {
        assert!(number < Rule::COUNT, "there is no rule {number}");
        Rule(number)
    }

    fn decide(self, view: View) -> Order {
        Order::ALL[usize::from(self.0 >> (2 * view.told as u8 + view.reported as u8) & 1)]
    }
}

/// What a lieutenant has heard when nobody says any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// By the commander.
    pub told: Order,
    /// By the other lieutenant, of the commander.
    pub reported: Order,
}

/// A game of three generals with one traitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scene {
    /// What the commander tells each of the lieutenants: the same, unless he is the traitor.
    pub told: [Order; 2],
    /// A traitorous lieutenant, and what he reports.
    pub liar: Option<(General, Order)>,
}

impl Scene {
    /// All of them: two orders of a loyal commander, either lieutenant a traitor, either report; or two orders of a traitorous one.
    #[must_use]
    pub fn all() -> Vec<Scene> {
        let mut all = Vec::new();
        for first in Order::ALL {
            for second in Order::ALL {
                all.push(Scene { told: [first, second], liar: None });
                let liars = [General(1), General(2)];
                all.extend(liars.map(|liar| Scene { told: [first, first], liar: Some((liar, second)) }));
            }
        }
        all
    }

    /// What the lieutenants have heard in the end.
    #[must_use]
    pub fn views(&self) -> [View; 2] {
        let says = |general: General, heard: Order| match self.liar {
            Some((liar, report)) if liar == general => report,
            _ => heard,
        };
        let [first, second] = self.told;
        [
            View { told: first, reported: says(General(2), second) },
            View { told: second, reported: says(General(1), first) },
        ]
    }

    /// Whether IC1 and IC2 hold when the lieutenants follow these rules.
    #[must_use]
    pub fn holds(&self, rules: [Rule; 2]) -> bool {
        let views = self.views();
        let decided = [rules[0].decide(views[0]), rules[1].decide(views[1])];
        match self.liar {
            None => decided[0] == decided[1],
            Some((General(1), _)) => decided[1] == self.told[1],
            Some(_) => decided[0] == self.told[0],
        }
    }
}

/// How many pairs of rules there are, and how many of them hold in every scene.
#[must_use]
pub fn pairs() -> (usize, usize) {
    let scenes = Scene::all();
    let rules = || (0..Rule::COUNT).map(Rule::numbered);
    let pairs = rules().flat_map(|first| rules().map(move |second| [first, second]));
    let (mut all, mut holding) = (0, 0);
    for pair in pairs {
        all += 1;
        holding += usize::from(scenes.iter().all(|scene| scene.holds(pair)));
    }
    (all, holding)
}
