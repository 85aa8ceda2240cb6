//! The node's turn: take all that has gathered, let the replica think once, let everything out.
//!
//! One task, on the same thread as the member's connections: a client's put wakes this task within the same
//! thread, and nobody else but the disk. While one turn's records are being synced the next turn's commands
//! gather; so batches form by themselves, the larger the busier.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use synod_core::{Command, CommandId, Machine, NodeId, ReadId, Role, Status, Time, Wire};
use synod_kv::op::Op;
use synod_replica::Replica;

use super::ask::{Ask, Envelope, Told};
use super::changing::Roster;
use super::folder::Membership;
use super::image;
use super::inbox::{Answer, Event, Notice};
use super::leading::{Moving, REVOKE_EVERY};
use super::reaching::Reaching;
use super::waiters::Who;
use super::world::{Outside, SharedMachine};
use super::{MemberError, Shared};
use crate::protocol::{House, Order, Served};
use crate::service::backend::{Cause, Failure, Standing};

/// How often the status is looked at while turn follows turn: it costs more than a turn's own work.
const STATUS_EVERY: Duration = Duration::from_millis(2);
/// Between two tries of what waits for a leader although there seems to be one.
const RETRY_EVERY: Duration = Duration::from_millis(20);
/// How long the thread stays awake for a lone client that reads: for its fence, since peers answer sooner than a sleeping
/// thread is woken; and for its next question, when it asked the last one that soon. With more clients there is work
/// to be done meanwhile; and for one that writes, whose answer waits for disks, the peers on the same machine make better use of the core.
/// Twice of it is what a fence may have taken the last time, threads that had to be woken included: peers that are farther away
/// do not answer while anybody looks.
const AWAKE_MAX: Duration = Duration::from_micros(200);
/// A client that asks again this soon after its answer will do so the next time.
const SOON: Duration = Duration::from_micros(300);
/// What peers are told at leisure waits no longer for something that it can go with.
const LEISURE_MAX: Duration = Duration::from_millis(1);
/// Versions that watchers who lag may look at, and keys that the scrubber may look at, in one turn.
const CATCH_UP_BUDGET: usize = 2_000;
const SCRUB_BUDGET: usize = 500;

/// So many watch streams woken at once are a crowd, and for each of them the next waking waits so long: about twice what
/// it takes to serve it.
const CROWD_MIN: usize = 64;
const CROWD_PAUSE: Duration = Duration::from_micros(4);

/// A monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock(Instant::now())
    }

    pub(crate) fn now(self) -> Time {
        Time(self.0.elapsed().as_nanos() as u64 + 1)
    }

    fn instant(self, at: Time) -> tokio::time::Instant {
        (self.0 + Duration::from_nanos(at.0)).into()
    }
}

/// The task's state.
pub(crate) struct Turn<P: Served> {
    pub(crate) replica: Replica<P, SharedMachine>,
    pub(crate) outside: Outside<P>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) clock: Clock,
    pub(crate) next_number: u64,
    pub(crate) election_timeout: Duration,
    pub(crate) warning_apply: Duration,
    pub(crate) reaching: Vec<Reaching>,
    pub(crate) roster: Roster,
    pub(crate) folder: Membership,
    pub(crate) moving: Option<Moving>,
    pub(crate) past: Past,
}

/// What the last turns saw: for what is due next, and for the causes of timeouts.
#[derive(Default)]
pub(crate) struct Past {
    events: Vec<Event>,
    fences: Vec<Answer<()>>,
    status_at: Time,
    status_due: bool,
    retried_at: Time,
    /// Whether clients wait; when the first of them began to, and when none was left last.
    waits: bool,
    asked_at: Time,
    /// How long the last read of a lone client took.
    read_took: Duration,
    answered_at: Time,
    /// How long after the answer before it the last question came, and whether it was to read.
    gap: Duration,
    reads: bool,
    pub(super) revoked_at: Time,
    more_to_do: bool,
    /// Before this no watch stream is woken again; and whether one is to be.
    ring_at: Time,
    ring_due: bool,
    /// When the present leader was first seen, and when there was none last.
    elected_at: Option<Time>,
    /// Since when there has been no connection to a majority.
    isolated_since: Option<Time>,
    /// Whether a turn was the last.
    stop: bool,
}

impl<P: Served> Turn<P> {
    /// Turn after turn, until the member is told to stop or cannot go on.
    pub(crate) async fn run(mut self) -> Result<(), MemberError> {
        let outcome = self.turns().await;
        self.shared.inbox.close();
        self.outside.waiters.stop();
        if let Some(moving) = self.moving.take() {
            let _ = moving.answer.send(Err(Failure::Stopped));
        }
        self.outside.disk.finish();
        outcome
    }

    async fn turns(&mut self) -> Result<(), MemberError> {
        let sleep = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(sleep);
        while !self.past.stop {
            let now = self.clock.now();
            self.hurry_if_due(now);
            let deadline = self.deadline(now);
            if self.stays_awake(now) {
                tokio::select! {
                    biased;
                    () = self.shared.inbox.rung() => {}
                    () = tokio::task::yield_now() => continue,
                }
            } else if deadline.is_some_and(|deadline| deadline <= now) {
                // Whoever else wants this thread gets it once, sockets included.
                tokio::task::yield_now().await;
            } else {
                // The timer is moved only when it would come too late: early wake-ups are harmless.
                let wanted = self.clock.instant(deadline.unwrap_or(now + Duration::from_secs(1)));
                if sleep.deadline() > wanted || sleep.is_elapsed() {
                    sleep.as_mut().reset(wanted);
                }
                tokio::select! {
                    biased;
                    () = self.shared.inbox.rung() => {}
                    () = &mut sleep => {}
                }
            }
            self.turn()?;
        }
        Ok(())
    }

    /// Whether what comes next is so near that sleeping would only make it late.
    fn stays_awake(&self, now: Time) -> bool {
        let past = &self.past;
        let fence = self.outside.waiters.is_one_read()
            && past.read_took < 2 * AWAKE_MAX
            && now.since(past.asked_at) < AWAKE_MAX;
        let question =
            past.reads && past.gap < AWAKE_MAX && !past.waits && now.since(past.answered_at) < AWAKE_MAX;
        fence || question
    }

    /// Lets out what was sent at leisure, unless it will go with what the clients ask for next.
    fn hurry_if_due(&mut self, now: Time) {
        let Some(since) = self.outside.at_leisure else { return };
        let past = &self.past;
        let more_comes = past.waits || past.gap < SOON && now.since(past.answered_at) < LEISURE_MAX;
        if !more_comes || since.elapsed() >= LEISURE_MAX {
            self.outside.at_leisure = None;
            self.outside.transport.hurry();
        }
    }

    /// Notes whether a lone client has asked, and was answered.
    fn note_clients(&mut self, now: Time) {
        let past = &mut self.past;
        let waits = !self.outside.waiters.is_empty();
        if waits && !past.waits {
            past.gap = now.since(past.answered_at);
            past.reads = self.outside.waiters.is_one_read();
            past.asked_at = now;
        } else if !waits && past.waits {
            past.answered_at = self.clock.now();
            if past.reads {
                past.read_took = past.answered_at.since(past.asked_at);
            }
        }
        past.waits = waits;
    }

    fn deadline(&mut self, now: Time) -> Option<Time> {
        if self.past.more_to_do {
            return Some(now);
        }
        let status = self.past.status_due.then(|| self.past.status_at + STATUS_EVERY);
        let retry = self.outside.waiters.has_parked().then(|| self.past.retried_at + RETRY_EVERY);
        let leases = self.shared.store.write().lessor().deadline();
        let leases = leases.map(|due| due.max(self.past.revoked_at + REVOKE_EVERY));
        let moving = self.moving.as_ref().map(|moving| moving.deadline);
        let waiting = self.outside.waiters.next_deadline();
        let ring = self.past.ring_due.then_some(self.past.ring_at);
        let leisure = self.outside.at_leisure.map(|_| now + LEISURE_MAX);
        let reaching = self.reaching_deadline();
        let changes = self.changes_deadline();
        [self.replica.deadline(), status, retry, leases, moving, waiting, ring, leisure, reaching, changes]
            .into_iter()
            .flatten()
            .min()
    }

    fn turn(&mut self) -> Result<(), MemberError> {
        let now = self.clock.now();
        self.take_events(now)?;
        self.drive_leases(now);
        self.replica.tick(now);
        let before = Instant::now();
        self.replica.flush(now, &mut self.outside).map_err(MemberError::Restore)?;
        let took = before.elapsed();
        if took > self.warning_apply {
            self.shared.slow_applies.fetch_add(1, Relaxed);
            tracing::warn!(
                took_ms = took.as_millis() as u64,
                expected_ms = self.warning_apply.as_millis() as u64,
                "apply request took too long"
            );
        }
        self.serve_watchers(now);
        self.note_standing(now);
        self.settle_move(now);
        self.settle_changes(now);
        self.leave_if_out(now)?;
        self.settle_reaching(now);
        self.retry_parked(now);
        let (elected, isolated, election) =
            (self.past.elected_at, self.past.isolated_since, self.election_timeout);
        self.outside.waiters.expire(now, |since| cause(since, elected, isolated, election));
        self.note_clients(now);
        self.shared.inbox.await_disk(self.replica.awaits_disk());
        Ok(())
    }

    fn take_events(&mut self, now: Time) -> Result<(), MemberError> {
        let mut events = std::mem::take(&mut self.past.events);
        self.shared.inbox.drain(&mut events);
        for event in events.drain(..) {
            match event {
                Event::Propose { payload, waiter } => {
                    let number = self.take_number();
                    self.outside.waiters.command(now, number, payload.clone(), waiter);
                    self.submit(number, payload);
                }
                Event::Fence(answer) => self.past.fences.push(answer),
                Event::Peer(from, messages) => {
                    for message in messages {
                        self.on_message(now, from, message);
                    }
                }
                Event::Disk(notice) => self.on_notice(now, notice)?,
                Event::Reach(places, answer) => self.on_reach(now, places, answer),
                Event::Ask(ask, answer) => self.on_ask(now, ask, answer),
                Event::ToldRemoved(by) => self.on_told_removed(by)?,
                Event::MoveLeader(to, answer) => self.on_move(now, to, answer),
                Event::HandOver(answer) => match self.best_successor() {
                    Some(to) => self.on_move(now, to, answer),
                    None => {
                        let _ = answer.send(Ok(()));
                    }
                },
                Event::Image(answer) => {
                    let store = self.shared.store.read();
                    image::stream(store.freeze(), store.freeze(), answer);
                }
                // Every turn looks after the watchers.
                Event::Nudge => {}
                Event::Stop => self.past.stop = true,
            }
        }
        self.past.events = events;
        if !self.past.fences.is_empty() {
            let read = self.outside.waiters.read(now, std::mem::take(&mut self.past.fences));
            self.replica.read(read);
        }
        Ok(())
    }

    /// Names for commands; never used twice, not by an earlier run either.
    fn take_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn submit(&mut self, number: u64, payload: Bytes) {
        let id = CommandId { origin: self.outside.me, number };
        if let Err(reason) = self.replica.submit(Command { id, payload }) {
            self.outside.waiters.reply(number, Err(Failure::from(reason)));
        }
    }

    /// Proposes something that nobody waits for.
    pub(super) fn submit_unwatched(&mut self, op: &Op) {
        let number = self.take_number();
        self.submit(number, op.to_bytes());
    }

    /// Proposes what only the keeper of the leases' time knows, and what holds only while it keeps it. Nobody waits for it.
    pub(super) fn submit_as_leader(&mut self, op: &Op) {
        let id = CommandId { origin: self.outside.me, number: self.take_number() };
        // Too much waits: the lessor asks again.
        let _ = self.replica.submit_as_leader(Command { id, payload: op.to_bytes() });
    }

    fn on_message(&mut self, now: Time, from: NodeId, message: Bytes) {
        match Envelope::<P::Message>::decode_all(message) {
            Ok(Envelope::Packet(packet)) => self.replica.receive(now, from, packet),
            Ok(Envelope::Ask(number, Ask::Change(change))) => self.on_peers_change(now, from, number, change),
            Ok(Envelope::Ask(number, ask)) => {
                let told = if self.keeps_house() { self.answer(now, ask) } else { Told::NotLeader };
                self.outside.post(from, &Envelope::Told(number, told));
            }
            // The question goes to whoever leads now, as soon as that is known.
            Ok(Envelope::Told(number, Told::NotLeader)) => self.outside.waiters.park(Who::Ask(number)),
            Ok(Envelope::Told(number, told)) => self.outside.waiters.told(number, Ok(told)),
            Err(error) => {
                tracing::warn!(peer = %from, %error, "a peer's message does not decode; it is ignored")
            }
        }
    }

    fn on_notice(&mut self, now: Time, notice: Notice) -> Result<(), MemberError> {
        match notice {
            Notice::Durable(upto) => self.replica.durable(now, upto),
            Notice::Checkpointed(at, upto) => self.replica.checkpointed(now, at, upto),
            Notice::Saved(snapshot) => self.replica.saved(now, snapshot),
            Notice::SaveFailed(why) => {
                tracing::error!(error = %why, "cannot save a snapshot; trying again when the next is due");
                self.replica.save_failed();
            }
            Notice::Staged(from, transfer, upto) => self.replica.staged(from, transfer, upto),
            Notice::Installed(from, transfer, snapshot) => {
                self.replica.installed(now, from, transfer, snapshot)
            }
            Notice::StageFailed(from, transfer, why) => {
                tracing::error!(peer = %from, error = %why, "cannot take a peer's snapshot");
                self.replica.stage_failed(from, transfer);
            }
            Notice::Dead(why) => return Err(MemberError::Disk(why)),
        }
        Ok(())
    }

    pub(super) fn leads(&self) -> bool {
        self.shared.standing.lock().leader == Some(self.outside.me)
    }

    pub(super) fn past_more_to_do(&mut self) {
        self.past.more_to_do = true;
    }

    fn keeps_house(&self) -> bool {
        self.shared.standing.lock().keeper == Some(self.outside.me)
    }

    /// Brings watchers forward, and wakes the streams that have something to say. After a crowd of them commands have their
    /// turn first: what happens meanwhile goes to each stream in one message.
    fn serve_watchers(&mut self, now: Time) {
        let mut store = self.shared.store.write();
        let lagging = store.catch_up(CATCH_UP_BUDGET);
        let scrubbing = store.scrub(SCRUB_BUDGET);
        let hub = store.hub();
        let due = now >= self.past.ring_at;
        let ready = if due { hub.take_ready() } else { Vec::new() };
        self.past.ring_due = hub.is_ready();
        let compacted = store.compacted();
        let answers = store.take_answers();
        drop(store);
        if let Some(voice) = self.shared.voice.get()
            && !answers.is_empty()
        {
            voice.keep(answers);
        }
        if !scrubbing {
            self.shared.scrubbed.send_if_modified(|done| std::mem::replace(done, compacted) != compacted);
        }
        self.past.more_to_do = lagging || scrubbing;
        // Outside the lock: whoever wakes wants to read.
        if !ready.is_empty() {
            self.past.ring_at = match ready.len() {
                0..CROWD_MIN => Time::ZERO,
                crowd => now + CROWD_PAUSE * crowd as u32,
            };
            self.shared.bell.ring(ready);
        }
    }

    /// Looks at the protocol's status, and acts upon what has changed.
    fn note_standing(&mut self, now: Time) {
        if let Some(members) = self.outside.members.take() {
            self.note_members(now, members);
        }
        let applied = self.replica.applied().0;
        if now.since(self.past.status_at) < STATUS_EVERY && self.past.status_at != Time::ZERO {
            self.past.status_due = true;
            self.shared.standing.lock().applied = applied;
            return;
        }
        self.past.status_at = now;
        self.past.status_due = false;
        let status = self.replica.status();
        let before = *self.shared.standing.lock();
        let disk_bytes = self.shared.disk.folder_bytes.load(Relaxed);
        let quorum = status.members.voters.len() / 2 + 1;
        let reached = self.outside.transport.connected() + 1 >= quorum;
        let standing = Standing {
            role: status.role,
            leader: status.leader,
            keeper: self.keeper(&status, reached),
            term: status.term,
            decided: status.decided.0,
            applied,
            disk_bytes,
        };
        *self.shared.standing.lock() = standing;
        self.look_at_peers_if_due(now);
        if reached {
            self.past.isolated_since = None;
        } else {
            self.past.isolated_since.get_or_insert(now);
        }
        let leads =
            status.leader == Some(self.outside.me) && matches!(status.role, Role::Leader | Role::Primary);
        let mut store = self.shared.store.write();
        if leads && !store.lessor().is_leading() {
            store.promote_lessor(now, self.election_timeout);
        } else if !leads && store.lessor().is_leading() {
            store.lessor().demote();
        }
        drop(store);
        if before.keeper != standing.keeper {
            self.note_keeper(now, &standing);
        }
    }

    /// Who keeps house now, as far as is known here; `reached`: a majority of the voters, with this member, is connected.
    fn keeper(&self, status: &Status, reached: bool) -> Option<NodeId> {
        match P::ROW.house {
            House::Leader => return status.leader,
            House::Majority if !reached => return None,
            // What one does about its own revisions and quota does not reach the others' order.
            House::Anyone if P::ORDER == Order::Stamped => return Some(self.outside.me),
            House::Majority | House::Anyone => {}
        }
        let first = self.outside.transport.first_connected(|id| status.members.voters.contains(&id));
        Some(first.map_or(self.outside.me, |first| first.min(self.outside.me)))
    }

    fn note_keeper(&mut self, now: Time, standing: &Standing) {
        match (P::ROW.house, standing.keeper) {
            (House::Leader, Some(leader)) => {
                self.past.elected_at = Some(now);
                self.shared.leader_changes.fetch_add(1, Relaxed);
                tracing::info!(%leader, term = standing.term, "raft.node: elected leader");
            }
            (House::Leader, None) => tracing::warn!(term = standing.term, "raft.node: lost leader"),
            (_, Some(keeper)) => tracing::info!(%keeper, "another member keeps house"),
            (_, None) => tracing::warn!("no majority is connected"),
        }
        self.past.retried_at = Time::ZERO;
        self.shared.keeper.send_replace(standing.keeper);
    }

    fn retry_parked(&mut self, now: Time) {
        if !self.outside.waiters.has_parked() || now.since(self.past.retried_at) < RETRY_EVERY {
            return;
        }
        if self.shared.standing.lock().keeper.is_none() {
            // Looked at again when there is one, or when they expire.
            self.past.retried_at = now;
            return;
        }
        self.past.retried_at = now;
        for who in self.outside.waiters.unpark() {
            match who {
                Who::Command(number) => {
                    if let Some(payload) = self.outside.waiters.payload(number) {
                        self.submit(number, payload);
                    }
                }
                Who::Read(number) if self.outside.waiters.awaits(number) => self.replica.read(ReadId(number)),
                Who::Read(_) => {}
                Who::Ask(number) => {
                    if let Some(ask) = self.outside.waiters.question(number) {
                        self.put_question(now, number, ask);
                    }
                }
            }
        }
        self.past.more_to_do = true;
    }
}

/// What probably kept someone who has waited since `since`.
fn cause(since: Time, elected: Option<Time>, isolated: Option<Time>, election_timeout: Duration) -> Cause {
    if elected.is_some_and(|elected| since <= elected && since >= elected - election_timeout * 2) {
        Cause::LeaderLost
    } else if isolated.is_some_and(|isolated| isolated <= since) {
        Cause::ConnectionLost
    } else {
        Cause::Plain
    }
}
