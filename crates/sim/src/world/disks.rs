//! The disks' workers: when they begin, how long they take, and what the replica hears of it.

use std::time::Duration;

use synod_core::{Lsn, NodeId};

use super::storage::{Notice, Started};
use super::{Event, MARK_AFTER, Worker, World};
use crate::family::Family;
use crate::faults::Cue;
use crate::machine::mix;
use crate::trace::What;

impl<F: Family> World<F> {
    pub(super) fn start_workers(&mut self, id: NodeId) {
        let (disk_min, disk_max) = self.plan.disk;
        let now = self.now;
        let latency = self.disk_rng.span(disk_min, disk_max);
        let node = &mut self.nodes[id.0 as usize - 1];
        let life = node.life;
        let Some(running) = &mut node.running else { return };
        let slow = if node.slow_until > now { node.slow } else { Duration::ZERO };
        let done = (now + latency + slow).max(node.stuck_until);
        if running.storage.start_snapshot() == Started::Busy {
            self.events.push(done + latency, Event::SnapshotDone { node: id, life });
        }
        if !running.storage.has_log_work() || running.waits_for_room {
            return;
        }
        match running.storage.start_log() {
            Ok(Started::Idle) => {}
            Ok(Started::Busy) => {
                running.mark_due = true;
                self.events.push(done, Event::LogDone { node: id, life });
            }
            Ok(Started::NoRoom) => {
                running.waits_for_room = true;
                self.events.push(now + self.plan.election / 10, Event::LogRetry { node: id, life });
            }
            Err(error) => self.disk_failed(id, &error),
        }
    }

    /// There may be room by now.
    pub(super) fn try_for_room(&mut self, id: NodeId, life: u64) {
        let node = self.node(id);
        let Some(running) = node.running.as_mut().filter(|_| node.life == life) else { return };
        running.waits_for_room = false;
        self.start_workers(id);
    }

    pub(super) fn disk_done(&mut self, id: NodeId, life: u64, worker: Worker) {
        let now = self.now;
        let paused = self.paused(id);
        let node = &mut self.nodes[id.0 as usize - 1];
        let Some(running) = node.running.as_mut().filter(|_| node.life == life) else { return };
        let later = paused.or((node.stuck_until > now).then_some(node.stuck_until));
        if let Some(until) = later {
            let event = match worker {
                Worker::Log => Event::LogDone { node: id, life },
                Worker::Snapshot => Event::SnapshotDone { node: id, life },
            };
            return self.events.push(super::turn_after_pause(until, super::Waits::Disk), event);
        }
        let mut notices = Vec::new();
        let result = match worker {
            Worker::Log => running.storage.finish_log(&mut notices),
            Worker::Snapshot => running.storage.finish_snapshot(&mut notices),
        };
        if let Err(error) = result {
            return self.disk_failed(id, &error);
        }
        node.kept = running.storage.kept();
        if node.disk.died_at().is_some() {
            return self.disk_failed_with(id, "the power is off");
        }
        let own = node.clock.shows(now);
        // A replica that says that it does not wait for its disk may learn later what the disk has done: nothing may come of it.
        let is_due = running.replica.deadline().is_some_and(|deadline| deadline <= own);
        let nothing_else = notices.iter().all(|notice| matches!(notice, Notice::Durable(_)));
        let expects_nothing = nothing_else && !is_due && !running.replica.awaits_disk();
        let mut installed = false;
        for notice in notices {
            match notice {
                Notice::Durable(upto) | Notice::Checkpointed(_, upto) => {
                    self.hash = mix(self.hash, upto.0);
                    let Lsn(number) = upto;
                    self.recorder.note(now, Some(id), || What::Synced(number));
                    match notice {
                        Notice::Checkpointed(at, _) => running.replica.checkpointed(own, at, upto),
                        _ => running.replica.durable(own, upto),
                    }
                }
                Notice::Saved(snapshot) => {
                    self.counts.saved += 1;
                    self.recorder.note(now, Some(id), || What::Note(format!("saved {snapshot:?}")));
                    running.replica.saved(own, snapshot);
                }
                Notice::SaveFailed => running.replica.save_failed(),
                Notice::Staged { from, transfer, upto } => running.replica.staged(from, transfer, upto),
                Notice::Installed { from, transfer, snapshot } => {
                    self.counts.installed += 1;
                    self.recorder.note(now, Some(id), || What::Note(format!("received {snapshot:?}")));
                    running.replica.installed(own, from, transfer, snapshot);
                    installed = true;
                }
                Notice::StageFailed { from, transfer } => running.replica.stage_failed(from, transfer),
            }
        }
        if running.mark_due && running.storage.is_idle() {
            running.mark_due = false;
            self.events.push(now + MARK_AFTER, Event::Mark { node: id, life });
        }
        if installed {
            self.cue(Cue::Snapshot, id);
        }
        self.flush_and_judge(id, expects_nothing);
    }

    /// The log was idle for a moment, if nothing came meanwhile.
    pub(super) fn mark(&mut self, id: NodeId, life: u64) {
        let node = self.node(id);
        let Some(running) = node.running.as_mut().filter(|_| node.life == life) else { return };
        if !running.storage.is_idle() {
            return;
        }
        let marked = running.storage.mark();
        node.kept = running.storage.kept();
        if let Err(error) = marked {
            self.disk_failed(id, &error);
        }
    }
}
