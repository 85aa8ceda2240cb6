//! What a member does beside its turns, each as a task of its own: publish itself, keep the quota, compact.
//!
//! All of it goes through the log as any client's command would, and all of it may fail and be tried again.

use std::collections::VecDeque;
use std::time::Duration;

use synod_core::NodeId;
use synod_kv::op::MemberAttributes;
use synod_kv::op::Op;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::Node;
use crate::config::AutoCompaction;
use crate::service::backend::{Backend, Failure};

/// Between two tries of something that failed.
const RETRY: Duration = Duration::from_millis(500);

/// Waits until the cluster works, and makes this member's name and addresses known to it. False: the member stops.
///
/// Peer addresses that the store has already stay: they may have been updated since the flags were written.
pub(crate) async fn publish(node: &Node, flags: MemberAttributes) -> bool {
    let member = node.identity().member;
    loop {
        // Only what is up to date tells whether publishing is needed at all; or what is here, where that is all there is.
        let fenced = node.fence().await;
        let attributes = attributes_of(node, &flags);
        let outcome = match fenced {
            Ok(()) | Err(Failure::Unsupported(_)) if is_published(node, &attributes) => return true,
            Ok(()) | Err(Failure::Unsupported(_)) => {
                let op = Op::MemberPublish { node: member.0, attributes: attributes.clone() };
                node.propose(op).await.map(|_| ())
            }
            Err(failure) => Err(failure),
        };
        match outcome {
            Ok(()) => return true,
            Err(Failure::Stopped) => return false,
            Err(failure) => tracing::warn!(?failure, "cannot publish this member yet; trying again"),
        }
        sleep(RETRY).await;
    }
}

fn attributes_of(node: &Node, flags: &MemberAttributes) -> MemberAttributes {
    let store = node.store().read();
    let known = store.members().get(&node.identity().member.0).filter(|known| !known.peer_urls.is_empty());
    let peer_urls = known.map_or(&flags.peer_urls, |known| &known.peer_urls).clone();
    MemberAttributes { peer_urls, ..flags.clone() }
}

fn is_published(node: &Node, attributes: &MemberAttributes) -> bool {
    node.store().read().members().get(&node.identity().member.0) == Some(attributes)
}

/// While this member keeps house, sees to it that the cluster's quota is what this member was told.
pub(crate) async fn keep_quota(node: Node, bytes: u64) {
    let me = node.identity().member;
    let mut keeper = node.keeper();
    while keeper.wait_for(|keeper| *keeper == Some(me)).await.is_ok() {
        let in_force = match node.fence().await {
            Ok(()) | Err(Failure::Unsupported(_)) => node.store().read().quota(),
            Err(Failure::Stopped) => return,
            Err(_) => {
                sleep(RETRY).await;
                continue;
            }
        };
        if in_force != bytes && node.propose(Op::SetQuota { bytes }).await.is_err() {
            sleep(RETRY).await;
            continue;
        }
        if keeper.wait_for(|keeper| *keeper != Some(me)).await.is_err() {
            return;
        }
    }
}

/// Revision mode looks this often.
const REVISION_EVERY: Duration = Duration::from_secs(300);
/// Periodic mode compacts at most this often.
const PERIOD_MAX: Duration = Duration::from_secs(3600);
/// Periodic mode looks at the revision this often within a period.
const SAMPLES: u32 = 10;

/// Compacts without being asked, while this member keeps house.
pub(crate) async fn compact(node: Node, mode: AutoCompaction) {
    match mode {
        AutoCompaction::Off => {}
        AutoCompaction::Revision(keep) => {
            let mut ticks = ticking(REVISION_EVERY);
            loop {
                ticks.tick().await;
                let revision = node.store().read().revision() - keep;
                compact_to(&node, revision).await;
            }
        }
        AutoCompaction::Periodic(keep) => {
            let period = keep.min(PERIOD_MAX);
            let mut ticks = ticking(period / SAMPLES);
            let mut window = Window { keep, samples: VecDeque::new() };
            let mut compacted_at = Instant::now();
            loop {
                let now = ticks.tick().await;
                window.note(now, node.store().read().revision());
                if now.duration_since(compacted_at) >= period
                    && let Some(revision) = window.oldest_kept(now)
                {
                    compacted_at = now;
                    compact_to(&node, revision).await;
                }
            }
        }
    }
}

fn ticking(every: Duration) -> tokio::time::Interval {
    let mut ticks = interval(every.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Which revision was the newest when.
struct Window {
    keep: Duration,
    samples: VecDeque<(Instant, i64)>,
}

impl Window {
    fn note(&mut self, now: Instant, revision: i64) {
        self.samples.push_back((now, revision));
    }

    /// The newest revision that is older than what must be kept; none while the window is not full.
    fn oldest_kept(&mut self, now: Instant) -> Option<i64> {
        let mut oldest = None;
        while let Some((at, revision)) = self.samples.front().copied() {
            if now.duration_since(at) < self.keep {
                break;
            }
            oldest = Some(revision);
            self.samples.pop_front();
        }
        oldest
    }
}

async fn compact_to(node: &Node, revision: i64) {
    let keeps_house =
        node.standing().keeper == Some(node.identity().member) && node.identity().member != NodeId(0);
    let compacted = node.store().read().compacted();
    if !keeps_house || revision <= compacted.max(0) {
        return;
    }
    tracing::info!(revision, "starting auto compaction");
    match node.propose(Op::Compact { revision }).await {
        Ok(reply) if reply.result.is_ok() => tracing::info!(revision, "completed auto compaction"),
        outcome => tracing::warn!(revision, ?outcome, "failed auto compaction"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The window gives back the newest revision that is old enough, and nothing before it is full.
    #[test]
    fn the_window_keeps_what_is_young() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut window = Window { keep: Duration::from_secs(10), samples: VecDeque::new() };
        for second in 0..8 {
            window.note(after(second), second as i64 * 100);
        }
        assert_eq!(window.oldest_kept(after(9)), None);
        assert_eq!(window.oldest_kept(after(15)), Some(500));
        assert_eq!(window.oldest_kept(after(15)), None, "once is enough");
        assert_eq!(window.oldest_kept(after(100)), Some(700));
    }
}
