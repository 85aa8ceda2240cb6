//! The Watch service: one stream, many watches.
//!
//! Order and completeness are the hub's work: what it queues for a stream is sent in that order, one response each, and
//! the fragments of one response with nothing between them. The stream takes from the hub only what its client has room for;
//! what the hub holds for it is bounded there, and whoever falls behind catches up from the history.

use std::sync::Arc;
use std::time::Duration;

use synod_api::etcdserverpb as pb;
use synod_api::etcdserverpb::watch_create_request::FilterType;
use synod_api::etcdserverpb::watch_request::RequestUnion;
use synod_kv::watch::{EventBatch, StreamId, TAKEN_BACK, WatchFlags, WatchOutput, WatchRequest};

use super::backend::Backend;
use super::payload::{Framed, Payload};
use super::stream::{Inbox, Outbox, poll_once};
use super::{Service, decode};
use crate::contract::{Call, Level};
use crate::convert::reply::{self, Header, Watched};
use crate::status::Status;

/// Responses taken from the hub at a time, at most.
const TAKEN_MAX: usize = 16;

/// No more are taken once so many bytes of events have been.
const TAKEN_BYTES: usize = 64 * 1024;

/// A response to a watch that asked for fragments may be larger than the largest request by this much.
const FRAGMENT_OVERHEAD: usize = 512 * 1024;

/// The message of events that was encoded last: ten thousand watchers of one key are told the same, byte for byte.
#[derive(Default)]
pub(crate) struct Told(Option<Message>);

/// A message, and what it was made of.
struct Message {
    header: Header,
    watch_id: i64,
    batches: Vec<Arc<EventBatch>>,
    framed: Framed,
}

impl Told {
    /// A message without fragments: the last one, if this is the same again.
    fn again_or_encoded(&mut self, header: Header, watch_id: i64, batches: Vec<Arc<EventBatch>>) -> Payload {
        if let Some(last) = &self.0
            && (last.header, last.watch_id) == (header, watch_id)
            && last.batches.len() == batches.len()
            && last.batches.iter().zip(&batches).all(|(one, other)| Arc::ptr_eq(one, other))
        {
            return Payload::Whole(last.framed.clone());
        }
        let events = batches.iter().map(|batch| batch.bytes.clone()).collect();
        let payload = reply::watch(&header, &Watched { watch_id, ..Watched::default() }, events);
        if let Payload::Whole(framed) = &payload {
            self.0 = Some(Message { header, watch_id, batches, framed: framed.clone() });
        }
        payload
    }
}

/// The stream at the hub; dropping it forgets its watches.
pub(super) struct Open<'a, B: Backend> {
    pub(super) service: &'a Service<B>,
    pub(super) stream: StreamId,
}

impl<B: Backend> Drop for Open<'_, B> {
    fn drop(&mut self) {
        self.service.backend.store().write().hub().close_stream(self.stream);
    }
}

impl<B: Backend> Service<B> {
    pub(super) async fn watch(&self, mut inbox: Inbox, outbox: Outbox) -> Result<(), Status> {
        let stream = self.backend.store().write().hub().open_stream();
        let _open = Open { service: self, stream };
        if let Some(place) = outbox.lane.clone() {
            let _rope = self.backend.bell().hang_on_lane(stream, place);
            while let Some(body) = inbox.next().await? {
                self.obey(stream, decode(body)?)?;
                self.backend.bell().ring([stream]);
            }
            // A client that will ask nothing more still gets its events, until it goes.
            return std::future::pending().await;
        }
        let rope = self.backend.bell().hang(stream);
        // A client that will ask nothing more still gets its events, until it goes.
        let mut asking = true;
        loop {
            let mut payloads = Vec::new();
            let more = self.carry(stream, &mut Told::default(), |payload| payloads.push(payload));
            for payload in payloads {
                outbox.send(payload).await;
            }
            let asked = match (asking, more) {
                (false, true) => continue,
                (false, false) => {
                    rope.rung().await;
                    continue;
                }
                // However much happens, the client's requests have their turn.
                (true, true) => match poll_once(inbox.next()).await {
                    Some(asked) => asked,
                    None => continue,
                },
                (true, false) => {
                    tokio::select! {
                        biased;
                        asked = inbox.next() => asked,
                        () = rope.rung() => continue,
                    }
                }
            };
            match asked? {
                Some(body) => self.obey(stream, decode(body)?)?,
                None => asking = false,
            }
        }
    }

    /// Gives some of what the hub has for a stream to whoever carries it; whether the hub has more.
    pub(crate) fn carry(&self, stream: StreamId, told: &mut Told, mut put: impl FnMut(Payload)) -> bool {
        let (taken, more) = self.take(stream);
        for output in taken {
            self.say(output, told, &mut put);
        }
        more
    }

    /// What the hub has for the stream, some of it; and whether it has more.
    fn take(&self, stream: StreamId) -> (Vec<WatchOutput>, bool) {
        let mut taken = Vec::new();
        let mut bytes = 0;
        let mut store = self.backend.store().write();
        let hub = store.hub();
        while taken.len() < TAKEN_MAX && bytes < TAKEN_BYTES {
            let Some(output) = hub.poll(stream) else { break };
            if let WatchOutput::Events { batches, .. } = &output {
                bytes += batches.iter().map(|batch| batch.bytes.len()).sum::<usize>();
            }
            taken.push(output);
        }
        let (more, lagging) = (hub.has_more(stream), hub.is_lagging());
        drop(store);
        if lagging {
            self.backend.nudge();
        }
        (taken, more)
    }

    fn obey(&self, stream: StreamId, request: pb::WatchRequest) -> Result<(), Status> {
        if let Some(RequestUnion::CreateRequest(create)) = &request.request_union {
            let call = if create.start_revision > 0 { Call::WatchFrom } else { Call::Watch };
            self.allow(call, Level::Linearizable)?;
        }
        let mut store = self.backend.store().write();
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => store.hub().create(stream, &watch_request(create)),
            Some(RequestUnion::CancelRequest(cancel)) => store.hub().cancel(stream, cancel.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => store.hub().progress(stream),
            // Nothing was asked: upstream passes over it, too.
            None => {}
        }
        Ok(())
    }

    /// One response, in fragments if it is large and the client can put them together.
    fn say(&self, output: WatchOutput, told: &mut Told, put: &mut impl FnMut(Payload)) {
        let header = |revision| self.header(revision);
        let (header, watched) = match output {
            WatchOutput::Created { watch_id, revision } => {
                (header(revision), Watched { watch_id, created: true, ..Watched::default() })
            }
            WatchOutput::Refused { revision, reason } => {
                let reason = reason.to_string();
                let refused =
                    Watched { watch_id: -1, created: true, canceled: true, reason, ..Watched::default() };
                (header(revision), refused)
            }
            WatchOutput::Canceled { watch_id, revision } => {
                (header(revision), Watched { watch_id, canceled: true, ..Watched::default() })
            }
            WatchOutput::TakenBack { watch_id, revision } => {
                let reason = TAKEN_BACK.to_owned();
                (header(revision), Watched { watch_id, canceled: true, reason, ..Watched::default() })
            }
            WatchOutput::Compacted { watch_id, compact_revision } => {
                let canceled = Watched { watch_id, canceled: true, compact_revision, ..Watched::default() };
                (header(0), canceled)
            }
            WatchOutput::Progress { watch_id, revision } => {
                (header(revision), Watched { watch_id, ..Watched::default() })
            }
            WatchOutput::Events { watch_id, revision, batches, fragment } => {
                let header = header(revision);
                let bytes_max = self.options.request_bytes_max + FRAGMENT_OVERHEAD;
                let bytes: usize = batches.iter().map(|batch| batch.bytes.len()).sum();
                if !fragment || bytes < bytes_max {
                    return put(told.again_or_encoded(header, watch_id, batches));
                }
                let pieces = EventBatch::fragments(&batches, bytes_max);
                let last = pieces.len() - 1;
                for (place, piece) in pieces.into_iter().enumerate() {
                    let watched = Watched { watch_id, fragment: place < last, ..Watched::default() };
                    put(reply::watch(&header, &watched, vec![piece]));
                }
                return;
            }
        };
        put(reply::watch(&header, &watched, Vec::new()));
    }

    /// Tells idle watches now and then how far they have come, as long as the service lives.
    pub(super) fn notify_progress(self: &Arc<Self>, interval: Duration) {
        let service = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(interval).await;
                let Some(service) = service.upgrade() else { return };
                let ready = {
                    let mut store = service.backend.store().write();
                    store.hub().notify_progress();
                    store.hub().take_ready()
                };
                service.backend.bell().ring(ready);
            }
        });
    }
}

pub(super) fn watch_request(create: pb::WatchCreateRequest) -> WatchRequest {
    let filters = |filter: FilterType| create.filters.contains(&(filter as i32));
    let flags = WatchFlags {
        progress_notify: create.progress_notify,
        prev_kv: create.prev_kv,
        no_put: filters(FilterType::Noput),
        no_delete: filters(FilterType::Nodelete),
        fragment: create.fragment,
    };
    WatchRequest {
        key: create.key,
        range_end: create.range_end,
        start_revision: create.start_revision,
        watch_id: create.watch_id,
        flags,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn batch(text: &'static [u8]) -> Arc<EventBatch> {
        Arc::new(EventBatch { revision: 7, bytes: Bytes::from_static(text), ends: vec![text.len() as u32] })
    }

    fn whole(payload: Payload) -> Framed {
        match payload {
            Payload::Whole(framed) => framed,
            Payload::Pieces(_) => panic!("a small message is whole"),
        }
    }

    /// Who is told the same shares the last message; whatever differs (the events, the watcher's name, the header) is encoded.
    #[test]
    fn the_same_is_encoded_once() {
        let header = Header { cluster: 1, member: 2, revision: 7, term: 3 };
        let (one, other) = (batch(b"one"), batch(b"one"));
        let mut told = Told::default();
        let mut say = |header, watch_id, batches: &[&Arc<EventBatch>]| {
            whole(told.again_or_encoded(header, watch_id, batches.iter().map(|it| Arc::clone(it)).collect()))
        };
        let first = say(header, 0, &[&one]);
        assert_eq!(say(header, 0, &[&one]).as_ref().as_ptr(), first.as_ref().as_ptr());
        let later = Header { term: 4, ..header };
        let others = [say(header, 0, &[&one, &other]), say(header, 5, &[&one]), say(later, 0, &[&one])];
        for framed in &others {
            assert_ne!(framed, &first);
        }
        let apart = say(header, 0, &[&other]);
        assert_eq!(apart, first, "the same bytes");
        assert_ne!(apart.as_ref().as_ptr(), first.as_ref().as_ptr(), "and another message");
    }
}
