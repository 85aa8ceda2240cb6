//! The clients that wait: for a command's reply, for a fence, for an answer from the leader.
//!
//! Everybody waits for the same span, so those who wait longest stand in front of one queue. What a protocol
//! refused although it was certainly not decided is tried again while its client waits: an election costs a
//! client time, not an error.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use synod_core::{ReadId, Time};

use super::ask::{Ask, Told};
use super::inbox::Answer;
use crate::service::admission::Admission;
use crate::service::backend::{Cause, Failure, Outcome, Waiter};

/// All who wait at this node.
pub(crate) struct Waiters {
    patience: Duration,
    admission: Arc<Admission>,
    commands: HashMap<u64, Waiting, FixedState>,
    reads: HashMap<u64, Vec<Answer<()>>, FixedState>,
    asks: HashMap<u64, (Ask, Answer<Told>), FixedState>,
    /// In the order of their deadlines, answered ones included.
    deadlines: VecDeque<(Time, Who)>,
    /// Commands and reads that want another try as soon as there is a leader.
    parked: Vec<Who>,
    next_read: u64,
    next_ask: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Command(u64),
    Read(u64),
    Ask(u64),
}

struct Waiting {
    waiter: Waiter,
    /// Kept for another try; shares the memory of what was proposed.
    payload: Bytes,
}

impl Waiters {
    pub(crate) fn new(patience: Duration, admission: Arc<Admission>) -> Waiters {
        Waiters {
            patience,
            admission,
            commands: HashMap::default(),
            reads: HashMap::default(),
            asks: HashMap::default(),
            deadlines: VecDeque::new(),
            parked: Vec::new(),
            next_read: 0,
            next_ask: 0,
        }
    }

    /// How long anybody waits.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// A client waits for the command of this number.
    pub(crate) fn command(&mut self, now: Time, number: u64, payload: Bytes, waiter: Waiter) {
        self.deadlines.push_back((now + self.patience, Who::Command(number)));
        self.commands.insert(number, Waiting { waiter, payload });
    }

    /// Clients wait for one fence.
    pub(crate) fn read(&mut self, now: Time, answers: Vec<Answer<()>>) -> ReadId {
        self.next_read += 1;
        self.deadlines.push_back((now + self.patience, Who::Read(self.next_read)));
        self.reads.insert(self.next_read, answers);
        ReadId(self.next_read)
    }

    /// A client waits for the leader's answer.
    pub(crate) fn ask(&mut self, now: Time, ask: Ask, answer: Answer<Told>) -> u64 {
        self.next_ask += 1;
        self.deadlines.push_back((now + self.patience, Who::Ask(self.next_ask)));
        self.asks.insert(self.next_ask, (ask, answer));
        self.next_ask
    }

    /// The command has an outcome.
    pub(crate) fn reply(&mut self, number: u64, outcome: Outcome) {
        if let Some(waiting) = self.commands.remove(&number) {
            self.admission.leave(waiting.payload.len());
            if outcome.is_err() {
                self.admission.failed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            waiting.waiter.tell(outcome);
        }
    }

    /// The fence stands, or cannot.
    pub(crate) fn fenced(&mut self, read: ReadId, outcome: &Result<(), Failure>) {
        for answer in self.reads.remove(&read.0).into_iter().flatten() {
            let _ = answer.send(outcome.clone());
        }
    }

    /// The leader has answered.
    pub(crate) fn told(&mut self, number: u64, told: Result<Told, Failure>) {
        if let Some((_, answer)) = self.asks.remove(&number) {
            let _ = answer.send(told);
        }
    }

    /// Tries again when there is a leader.
    pub(crate) fn park(&mut self, who: Who) {
        self.parked.push(who);
    }

    /// Whether anything waits for a leader.
    pub(crate) fn has_parked(&self) -> bool {
        !self.parked.is_empty()
    }

    /// All that waits for a leader; each must be tried again.
    pub(crate) fn unpark(&mut self) -> Vec<Who> {
        std::mem::take(&mut self.parked)
    }

    /// What to propose again; nothing when its client has gone.
    pub(crate) fn payload(&mut self, number: u64) -> Option<Bytes> {
        if self.commands.get(&number)?.waiter.is_gone() {
            self.reply(number, Err(Failure::Stopped));
            return None;
        }
        self.commands.get(&number).map(|waiting| waiting.payload.clone())
    }

    /// What to ask again.
    pub(crate) fn question(&self, number: u64) -> Option<Ask> {
        self.asks.get(&number).map(|(ask, _)| *ask)
    }

    /// Whether nobody waits for a command or a fence.
    pub(crate) fn is_empty(&self) -> bool {
        self.commands.is_empty() && self.reads.is_empty()
    }

    /// Whether a single client waits, and for a fence.
    pub(crate) fn is_one_read(&self) -> bool {
        self.commands.is_empty()
            && self.reads.len() == 1
            && self.reads.values().all(|answers| answers.len() == 1)
    }

    /// Whether clients wait behind this read.
    pub(crate) fn awaits(&self, read: u64) -> bool {
        self.reads.contains_key(&read)
    }

    /// Tells those who waited too long; `cause` is asked once for each, with the moment it began to wait.
    pub(crate) fn expire(&mut self, now: Time, cause: impl Fn(Time) -> Cause) {
        while let Some((deadline, who)) = self.deadlines.front().copied() {
            let open = match who {
                Who::Command(number) => self.commands.contains_key(&number),
                Who::Read(number) => self.reads.contains_key(&number),
                Who::Ask(number) => self.asks.contains_key(&number),
            };
            if open && deadline > now {
                return;
            }
            self.deadlines.pop_front();
            let failure = Failure::TimedOut(cause(deadline - self.patience));
            match who {
                _ if !open => {}
                Who::Command(number) => self.reply(number, Err(failure)),
                Who::Read(number) => self.fenced(ReadId(number), &Err(failure)),
                Who::Ask(number) => self.told(number, Err(failure)),
            }
        }
    }

    /// When [`Waiters::expire`] is due at the latest.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.deadlines.front().map(|(deadline, _)| *deadline)
    }

    /// How many commands and reads wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.commands.len() + self.reads.len() + self.asks.len()
    }

    /// Tells everybody that the member stops.
    pub(crate) fn stop(&mut self) {
        for number in self.commands.keys().copied().collect::<Vec<_>>() {
            self.reply(number, Err(Failure::Stopped));
        }
        for (_, answers) in self.reads.drain() {
            for answer in answers {
                let _ = answer.send(Err(Failure::Stopped));
            }
        }
        for (_, (_, answer)) in self.asks.drain() {
            let _ = answer.send(Err(Failure::Stopped));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    /// Who waits too long is told so, in order; who was answered is not told twice.
    #[test]
    fn waiting_ends_in_time() {
        let mut waiters = Waiters::new(Duration::from_secs(7), Arc::new(Admission::new(9)));
        let at = |seconds: u64| Time(seconds * 1_000_000_000);
        let (answer, mut answered) = oneshot::channel();
        waiters.admission.enter(1).expect("room");
        waiters.command(at(0), 1, Bytes::from_static(b"x"), Waiter::Future(answer));
        let (fence, mut fenced) = oneshot::channel();
        let read = waiters.read(at(1), vec![fence]);
        waiters.expire(at(6), |_| Cause::Plain);
        assert_eq!(waiters.len(), 2);
        waiters.fenced(read, &Ok(()));
        waiters.expire(at(60), |since| if since == at(0) { Cause::LeaderLost } else { Cause::Plain });
        assert_eq!(fenced.try_recv(), Ok(Ok(())));
        assert_eq!(answered.try_recv(), Ok(Err(Failure::TimedOut(Cause::LeaderLost))));
        assert_eq!((waiters.len(), waiters.deadlines.len(), waiters.admission.pending()), (0, 0, 0));
    }
}
