//! Clients that wait until this replica has come as far as their session has seen.

use synod_core::Time;

use super::inbox::Answer;
use super::turn::Turn;
use crate::protocol::Served;
use crate::service::backend::Failure;
use crate::service::session::Place;

/// More clients do not wait: whoever comes then is told that the node is busy.
const REACHING_MAX: usize = 10_000;

/// One of them.
pub(crate) struct Reaching {
    places: Vec<Place>,
    deadline: Time,
    answer: Answer<()>,
}

impl<P: Served> Turn<P> {
    pub(super) fn on_reach(&mut self, now: Time, places: Vec<Place>, answer: Answer<()>) {
        if self.reaching.len() >= REACHING_MAX {
            let _ = answer.send(Err(Failure::Busy));
            return;
        }
        let deadline = now + self.outside.waiters.patience();
        self.reaching.push(Reaching { places, deadline, answer });
    }

    /// Answers whoever waited for just that.
    pub(super) fn settle_reaching(&mut self, now: Time) {
        if self.reaching.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut self.reaching);
        for mut one in waiting {
            match self.left_of(&one.places) {
                // A client that went away does not want to know.
                Err(why) => drop(one.answer.send(Err(Failure::BadPlace(why)))),
                Ok(left) if left.is_empty() => drop(one.answer.send(Ok(()))),
                Ok(_) if one.deadline <= now => drop(one.answer.send(Err(Failure::Behind))),
                Ok(_) if one.answer.is_closed() => {}
                Ok(left) => {
                    one.places = left;
                    self.reaching.push(one);
                }
            }
        }
    }

    /// Those of the places that this replica has not come to yet.
    fn left_of(&self, places: &[Place]) -> Result<Vec<Place>, String> {
        let store = self.shared.store.read();
        let mut left = Vec::new();
        for place in places {
            let reached = match (place, store.vector()) {
                (Place::Index(index), None) => *index <= self.replica.applied().0,
                (Place::Vector(vector), Some(here)) => here.dominates(vector),
                (Place::Index(_), Some(_)) => return Err("it holds a position, not a vector".to_owned()),
                (Place::Vector(_), None) => return Err("it holds a vector, not a position".to_owned()),
            };
            if !reached {
                left.push(place.clone());
            }
        }
        Ok(left)
    }

    /// When the first of them has waited long enough.
    pub(super) fn reaching_deadline(&self) -> Option<Time> {
        self.reaching.iter().map(|one| one.deadline).min()
    }
}
