//! OM(m), oral messages (section 3).
//!
//! OM(0): the commander sends his order to every lieutenant, who does what he heard. OM(m): the commander sends his order; each lieutenant then is
//! the commander of an OM(m - 1) in which he tells the others what he heard; and each does what most of the n - 1 values say that he has then: his own,
//! and one from each other lieutenant's game.
//!
//! The recursion is unrolled into a tree of *paths*. The path 0, 3, 5 stands for "5 said that 3 said that the commander said"; whoever is not on it hears
//! that from 5. There are (n - 1)(n - 2)...(n - 1 - k) messages of orders passed on k times, and nothing hides the m + 1 levels in one another.

use std::ops::Range;

use super::{GENERALS_MAX, General, Group, Order, Outcome, Plot, Rules};

/// One path: who said that who said.
pub(super) struct Path {
    /// Who speaks.
    pub(super) speaker: General,
    /// Everybody on it.
    passed: Group,
    /// The path without its last; the first is its own.
    pub(super) parent: usize,
    /// Those that are one longer.
    longer: Range<usize>,
}

/// All paths of a game, shorter ones first, and what was said along them in the latest.
pub struct Council {
    generals: Group,
    pub(super) paths: Vec<Path>,
    /// What each general heard along each path; none: nothing.
    pub(super) heard: Vec<[Option<Order>; GENERALS_MAX]>,
    /// What each makes of all that was said beyond it.
    pub(super) decided: Vec<[Order; GENERALS_MAX]>,
}

impl Council {
    /// The paths of an OM(`rounds`) among so many generals.
    #[must_use]
    pub(super) fn new(generals: usize, rounds: usize) -> Council {
        let everybody = Group::all(generals);
        let first = Group::default().with(General::COMMANDER);
        let mut paths = vec![Path { speaker: General::COMMANDER, passed: first, parent: 0, longer: 0..0 }];
        let mut level = 0..1;
        for _ in 0..rounds {
            for parent in level.clone() {
                let begin = paths.len();
                let passed = paths[parent].passed;
                for speaker in everybody.without(passed).iter() {
                    paths.push(Path { speaker, passed: passed.with(speaker), parent, longer: 0..0 });
                }
                paths[parent].longer = begin..paths.len();
            }
            level = level.end..paths.len();
        }
        let count = paths.len();
        Council {
            generals: everybody,
            paths,
            heard: vec![[None; GENERALS_MAX]; count],
            decided: vec![[Order::Retreat; GENERALS_MAX]; count],
        }
    }

    /// Who hears what is said along a path: everybody who is not on it.
    pub(super) fn listeners(&self, path: usize) -> Group {
        self.generals.without(self.paths[path].passed)
    }

    /// What a loyal speaker says along a path: what he heard himself.
    pub(super) fn truth(&self, path: usize, order: Order) -> Order {
        let Path { speaker, parent, .. } = self.paths[path];
        if path == 0 { order } else { self.heard[parent][speaker.place()].unwrap_or(Order::Retreat) }
    }

    /// How many messages of traitors to loyal generals there are.
    pub(super) fn lies(&self, traitors: Group) -> usize {
        let lying = (0..self.paths.len()).filter(|path| traitors.contains(self.paths[*path].speaker));
        lying.map(|path| self.listeners(path).without(traitors).len()).sum()
    }

    /// Plays a game.
    pub(super) fn play(&mut self, rules: &Rules, mut plot: Plot) -> Outcome {
        let (traitors, order) = (plot.traitors(), plot.order());
        let mut messages = 0;
        for path in 0..self.paths.len() {
            let truth = self.truth(path, order);
            let speaker = self.paths[path].speaker;
            for listener in self.listeners(path).iter() {
                let said =
                    if traitors.contains(speaker) { plot.say(speaker, listener, truth) } else { Some(truth) };
                messages += u64::from(said.is_some());
                self.heard[path][listener.place()] = said;
            }
        }
        for path in (0..self.paths.len()).rev() {
            for listener in self.listeners(path).without(traitors).iter() {
                self.decided[path][listener.place()] = self.decide(path, listener);
            }
        }
        let mut decisions = [None; GENERALS_MAX];
        for lieutenant in rules.lieutenants().without(traitors).iter() {
            decisions[lieutenant.place()] = Some(self.decided[0][lieutenant.place()]);
        }
        let order = (!traitors.contains(General::COMMANDER)).then_some(order);
        Outcome { traitors, order, decisions, messages }
    }

    /// What a listener has of the others when a path's speaker commands: who, and what their own games came to.
    pub(super) fn others(&self, path: usize, listener: General) -> impl Iterator<Item = (General, Order)> {
        let longer = self.paths[path].longer.clone().map(|longer| (self.paths[longer].speaker, longer));
        let others = longer.filter(move |(speaker, _)| *speaker != listener);
        others.map(move |(speaker, longer)| (speaker, self.decided[longer][listener.place()]))
    }

    /// The majority of what he heard himself and what he has of the others; on equal votes, retreat.
    fn decide(&self, path: usize, listener: General) -> Order {
        let own = self.heard[path][listener.place()].unwrap_or(Order::Retreat);
        let mut votes = [0, 0];
        votes[own as usize] += 1;
        self.others(path, listener).for_each(|(_, order)| votes[order as usize] += 1);
        if votes[Order::Attack as usize] > votes[Order::Retreat as usize] {
            Order::Attack
        } else {
            Order::Retreat
        }
    }
}
