//! The member's end of a proxy's stream: see `witness`.
//!
//! Everything that gathered goes out under one signature, so that a busy proxy costs a member no more signatures than a quiet one.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use synod_api::{etcdserverpb as pb, synod as witness};
use synod_core::Wire as _;
use synod_kv::OpError;
use synod_kv::once::{ClientId, Once, Wish};
use synod_kv::op::Op;
use synod_kv::watch::{StreamId, WatchOutput};
use tokio::sync::mpsc;

use super::Service;
use super::backend::Backend;
use super::payload::Payload;
use super::stream::{Inbox, Outbox, no_request};
use super::watch::Open;
use crate::status::{Code, Status};
use crate::witness::voice::{Ear, Voice};
use crate::witness::words::{Ask, Item};

/// No more is said at once when there are so many bytes.
const SAID_BYTES_MAX: usize = 1 << 20;

/// A proxy's connection.
struct Witness {
    voice: Arc<Voice>,
    client: ClientId,
    tell: mpsc::UnboundedSender<Item>,
}

impl<B: Backend> Service<B> {
    pub(super) async fn testify(&self, mut inbox: Inbox, outbox: Outbox) -> Result<(), Status> {
        let Some(voice) = self.backend.voice().cloned() else {
            let protocol = self.backend.contract().protocol;
            let sentence = format!(
                "synod: protocol {protocol} does not give signed answers: its members have no keys; a proxy needs --protocol=pbft"
            );
            return Err(Status::new(Code::FailedPrecondition, sentence));
        };
        let Some(first) = inbox.next().await? else { return Err(no_request()) };
        let Ask::Hello { client, nonce } = understood(first)? else { return Err(malformed()) };
        let mut ear = voice.listen(client);
        let stream = self.backend.store().write().hub().open_stream();
        let _open = Open { service: self, stream };
        let rope = self.backend.bell().hang(stream);
        let (tell, mut told) = mpsc::unbounded_channel();
        let witness = Witness { voice, client, tell };
        // The first word shows who is there.
        let mut items = Vec::new();
        for place in 0.. {
            let said = witness.voice.say(client, nonce, place, &items);
            outbox.send(Payload::encode(&witness::Words { words: said.to_bytes() })).await;
            items.clear();
            loop {
                self.gather(&witness, &mut ear, stream, &mut items);
                if !items.is_empty() {
                    break;
                }
                tokio::select! {
                    biased;
                    Some(item) = told.recv() => items.push(item),
                    asked = inbox.next() => match asked? {
                        Some(body) => self.heed(&witness, stream, understood(body)?, &mut items),
                        None => return Ok(()),
                    },
                    () = rope.rung() => {}
                    () = ear.rung.notified() => {}
                }
                while let Ok(item) = told.try_recv() {
                    items.push(item);
                }
            }
        }
        Ok(())
    }

    /// What the machine and the hub have to say.
    fn gather(&self, witness: &Witness, ear: &mut Ear, stream: StreamId, items: &mut Vec<Item>) {
        witness.voice.hear(ear, items);
        let mut bytes = 0;
        let mut outputs = Vec::new();
        let lagging = {
            let mut store = self.backend.store().write();
            let hub = store.hub();
            while bytes < SAID_BYTES_MAX
                && let Some(output) = hub.poll(stream)
            {
                if let WatchOutput::Events { batches, .. } = &output {
                    bytes += batches.iter().map(|batch| batch.bytes.len()).sum::<usize>();
                }
                outputs.push(output);
            }
            if hub.has_more(stream) {
                self.backend.bell().ring([stream]);
            }
            hub.is_lagging()
        };
        if lagging {
            self.backend.nudge();
        }
        for output in outputs {
            match output {
                WatchOutput::Created { watch_id, .. } => items.push(Item::Watching(watch_id)),
                WatchOutput::Compacted { watch_id, compact_revision } => {
                    items.push(Item::Compacted { watch: watch_id, revision: compact_revision });
                }
                WatchOutput::Progress { revision, .. } => items.push(Item::Progress(revision)),
                WatchOutput::Events { watch_id, batches, .. } => {
                    batches.iter().for_each(|batch| by_revision(watch_id, &batch.bytes, &batch.ends, items));
                }
                // The proxy looked at the request before; and PBFT takes nothing back.
                WatchOutput::Refused { .. }
                | WatchOutput::Canceled { .. }
                | WatchOutput::TakenBack { .. } => {}
            }
        }
    }

    /// Does what a proxy asks.
    fn heed(&self, witness: &Witness, stream: StreamId, ask: Ask, items: &mut Vec<Item>) {
        match ask {
            Ask::Hello { .. } => {}
            Ask::Wish { number, wish } => self.have_ordered(witness, number, wish, items),
            Ask::Lacking(numbers) => {
                items.extend(numbers.iter().filter_map(|it| witness.voice.recall(witness.client, *it)));
            }
            Ask::Renew { number, lease } => {
                let (backend, tell) = (self.backend.clone(), witness.tell.clone());
                tokio::spawn(async move {
                    let outcome = backend.renew_lease(lease).await;
                    // A proxy that has gone wants no answer.
                    let _ = tell.send(seconds(number, outcome.map_err(Status::from)));
                });
            }
            Ask::TimeLeft { number, lease } => {
                let (backend, tell) = (self.backend.clone(), witness.tell.clone());
                tokio::spawn(async move {
                    let outcome = backend.lease_time(lease).await.map_err(Status::from);
                    let left = outcome.map(|time| time.map(|time| time.remaining.as_secs() as i64));
                    let _ = tell.send(seconds(number, left));
                });
            }
            Ask::Watch(request) => self.backend.store().write().hub().create(stream, &request),
            Ask::Unwatch(watch) => self.backend.store().write().hub().cancel(stream, watch),
            Ask::Progress => self.backend.store().write().hub().progress(stream),
        }
    }

    fn have_ordered(&self, witness: &Witness, number: u64, wish: Bytes, items: &mut Vec<Item>) {
        if let Some(known) = witness.voice.recall(witness.client, number) {
            return items.push(known);
        }
        let bytes = wish.len();
        let wish = match Wish::decode_all(wish) {
            Ok(wish) if wish.is_a_clients() => wish,
            _ => return items.push(refused(number, "no client may wish for this")),
        };
        if bytes > self.options.request_bytes_max + crate::grpc::OVERHEAD {
            return items.push(refused(number, "it is larger than --max-request-bytes"));
        }
        let (backend, tell) = (self.backend.clone(), witness.tell.clone());
        let (voice, client) = (witness.voice.clone(), witness.client);
        tokio::spawn(async move {
            let why = match backend.propose(Op::Once(Box::new(Once { client, number, wish }))).await {
                Err(failure) => Status::from(failure).message.into_owned(),
                Ok(reply) => match voice.recall(client, number) {
                    // It goes its way with all others' answers.
                    Some(known) => return drop(tell.send(known)),
                    None if reply.result == Err(OpError::AlreadyDone) => OpError::AlreadyDone.to_string(),
                    None => return,
                },
            };
            let _ = tell.send(refused(number, &why));
        });
    }
}

fn refused(number: u64, why: &str) -> Item {
    Item::Refused { number, why: why.to_owned() }
}

/// An answer in seconds, one more than there are; 0: there is no such lease.
fn seconds(number: u64, outcome: Result<Option<i64>, Status>) -> Item {
    match outcome {
        Ok(seconds) => {
            let bytes = Bytes::copy_from_slice(&seconds.map_or(0, |seconds| seconds + 1).to_le_bytes());
            Item::Answer { number, bytes }
        }
        Err(status) => refused(number, &status.message),
    }
}

fn malformed() -> Status {
    Status::new(Code::InvalidArgument, "synod: this is not what a proxy of this version says")
}

fn understood(body: Bytes) -> Result<Ask, Status> {
    let words = witness::Words::decode(body).map_err(|_| malformed())?;
    Ask::decode_all(words.words).map_err(|_| malformed())
}

/// Cuts a batch of events by their revisions: batches differ from member to member, revisions do not.
fn by_revision(watch: i64, bytes: &Bytes, ends: &[u32], items: &mut Vec<Item>) {
    let Ok(response) = pb::WatchResponse::decode(bytes.clone()) else { return };
    let mut start = 0;
    for (place, event) in response.events.iter().enumerate() {
        let revision = |event: &synod_api::mvccpb::Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
        let now = revision(event);
        if response.events.get(place + 1).map(revision) != Some(now) {
            let end = ends[place] as usize;
            items.push(Item::Event { watch, revision: now, bytes: bytes.slice(start..end) });
            start = end;
        }
    }
}
