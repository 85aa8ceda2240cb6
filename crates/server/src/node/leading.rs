//! What only a leader does, or only a leader can answer: the leases' time, and giving leadership away.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use synod_core::{NodeId, Refusal, Time};
use synod_kv::op::Op;

use super::ask::{Ask, Envelope, Told};
use super::inbox::Answer;
use super::turn::Turn;
use super::waiters::Who;
use crate::protocol::Served;
use crate::service::backend::Failure;

/// Leases whose end is proposed in one go, and how often: at most a thousand a second.
const REVOKES_MAX: usize = 500;
pub(super) const REVOKE_EVERY: Duration = Duration::from_millis(500);

/// A change of leader that somebody waits for.
pub(crate) struct Moving {
    to: NodeId,
    pub(super) answer: Answer<()>,
    pub(super) deadline: Time,
}

impl<P: Served> Turn<P> {
    pub(super) fn on_ask(&mut self, now: Time, ask: Ask, answer: Answer<Told>) {
        let number = self.outside.waiters.ask(now, ask, answer);
        self.put_question(now, number, ask);
    }

    pub(super) fn put_question(&mut self, now: Time, number: u64, ask: Ask) {
        if let Ask::Change(change) = ask {
            return self.route_change(now, number, change);
        }
        let keeper = self.shared.standing.lock().keeper;
        match keeper {
            Some(keeper) if keeper == self.outside.me => {
                let told = self.answer(now, ask);
                self.outside.waiters.told(number, Ok(told));
            }
            Some(keeper) => self.outside.post(keeper, &Envelope::Ask(number, ask)),
            None => self.outside.waiters.park(Who::Ask(number)),
        }
    }

    /// Answers a question as the keeper of the leases' time.
    pub(super) fn answer(&mut self, now: Time, ask: Ask) -> Told {
        let mut store = self.shared.store.write();
        match ask {
            // These are not answered at once, and do not come here.
            Ask::Change(_) => Told::NotLeader,
            Ask::Renew(lease) => {
                let Some(renewed) = store.lessor().renew(lease, now) else { return Told::NoLease };
                drop(store);
                if let Some(checkpoint) = &renewed.checkpoint {
                    // It can but lengthen a lease, whoever leads when it is decided.
                    self.submit_unwatched(checkpoint);
                }
                let granted = renewed.ttl;
                Told::Lives { remaining: Duration::from_secs(granted.unsigned_abs()), granted }
            }
            Ask::TimeLeft(lease) => {
                let granted = store.leases().get(lease).map(|lease| lease.ttl);
                match (granted, store.lessor().remaining(lease, now)) {
                    (Some(granted), Some(remaining)) => Told::Lives { remaining, granted },
                    _ => Told::NoLease,
                }
            }
        }
    }

    /// Proposes the end of leases whose time is over, and notes what is left of long ones.
    pub(super) fn drive_leases(&mut self, now: Time) {
        let mut store = self.shared.store.write();
        let lessor = store.lessor();
        lessor.advance(now);
        let due = lessor.deadline().is_some_and(|deadline| deadline <= now);
        if !due || now.since(self.past.revoked_at) < REVOKE_EVERY {
            return;
        }
        self.past.revoked_at = now;
        let expired = lessor.expired(now, REVOKES_MAX);
        let checkpoint = lessor.checkpoint(now, REVOKES_MAX);
        drop(store);
        if !expired.is_empty() {
            self.shared.leases_expired.fetch_add(expired.len() as u64, Relaxed);
        }
        for id in expired {
            self.submit_as_leader(&Op::LeaseRevoke { id });
        }
        if let Some(checkpoint) = checkpoint {
            self.submit_as_leader(&checkpoint);
        }
    }

    pub(super) fn on_move(&mut self, now: Time, to: NodeId, answer: Answer<()>) {
        if !self.leads() {
            let _ = answer.send(Err(Failure::NotLeader));
        } else if to == self.outside.me {
            let _ = answer.send(Ok(()));
        } else if !self.replica.status().members.voters.contains(&to) {
            let _ = answer.send(Err(Failure::BadTransferee));
        } else if self.moving.is_some() {
            let _ = answer.send(Err(Failure::TransferTimedOut));
        } else {
            tracing::info!(%to, "leadership transfer starting");
            let deadline = now + self.election_timeout * 2;
            self.moving = Some(Moving { to, answer, deadline });
            self.replica.transfer_leadership(now, to);
        }
    }

    pub(super) fn settle_move(&mut self, now: Time) {
        let declined = self.outside.declined.take();
        let Some(moving) = &self.moving else { return };
        // Known only when the other's first message as leader has arrived.
        let leader = self.shared.standing.lock().leader;
        let outcome = match declined {
            _ if leader == Some(moving.to) => Ok(()),
            Some(Refusal::Busy) => Err(Failure::TransferTimedOut),
            Some(reason) => Err(Failure::from(reason)),
            None if now >= moving.deadline => Err(Failure::TransferTimedOut),
            None => return,
        };
        if let Some(moving) = self.moving.take() {
            tracing::info!(to = %moving.to, ?outcome, "leadership transfer ended");
            let _ = moving.answer.send(outcome);
        }
    }

    /// The voter that could take over fastest, when this member leads and there is another one.
    pub(super) fn best_successor(&self) -> Option<NodeId> {
        if !self.leads() {
            return None;
        }
        let status = self.replica.status();
        let alive = |silent: Option<Duration>| silent.is_some_and(|silent| silent < self.election_timeout);
        let voters =
            status.peers.iter().filter(|peer| status.members.voters.contains(&peer.id) && alive(peer.silent));
        voters.max_by_key(|peer| peer.matched).map(|peer| peer.id)
    }
}
