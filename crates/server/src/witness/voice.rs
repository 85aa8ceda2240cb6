//! A member's voice: what it keeps of answers to proxies, and its signature.
//!
//! Answers are kept for those who come back after a broken connection, or give the same wish to another member; they are no part of the
//! replicated state, and bounded: beyond it the oldest go. Who asks for one that is gone is told so, and the client that its outcome is unknown.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use synod_core::Wire as _;
use synod_kv::once::{Answered, ClientId};
use tokio::sync::Notify;

use super::words::{Item, Testimony, encode_items, statement};

/// Answers kept for one proxy, at most, by number and by bytes.
const ANSWERS_MAX: usize = 8192;
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// Proxies for whom answers are kept, at most; the one that was silent for longest goes first.
const PROXIES_MAX: usize = 32;

/// Signs a SHA-256 with the member's secret key.
pub type Signing = Arc<dyn Fn([u8; 32]) -> [u8; 64] + Send + Sync>;

/// A member's voice.
pub struct Voice {
    name: String,
    cluster: u64,
    signing: Signing,
    proxies: Mutex<HashMap<ClientId, Kept>>,
}

#[derive(Default)]
struct Kept {
    /// With a number each, by which a listener knows what it has heard.
    answers: VecDeque<(u64, Item)>,
    bytes: usize,
    next: u64,
    heard: u64,
    rung: Arc<Notify>,
}

impl Kept {
    fn keep(&mut self, number: u64, bytes: Bytes) {
        self.bytes += bytes.len();
        self.answers.push_back((self.next, Item::Answer { number, bytes }));
        self.next += 1;
        while self.answers.len() > ANSWERS_MAX || self.bytes > ANSWER_BYTES_MAX && self.answers.len() > 1 {
            if let Some((_, Item::Answer { bytes, .. })) = self.answers.pop_front() {
                self.bytes -= bytes.len();
            }
        }
    }
}

/// One connection's ear for the answers to a proxy.
pub(crate) struct Ear {
    client: ClientId,
    heard: u64,
    pub(crate) rung: Arc<Notify>,
}

impl Voice {
    /// The voice of the member of this name.
    #[must_use]
    pub fn new(name: String, cluster: u64, signing: Signing) -> Voice {
        Voice { name, cluster, signing, proxies: Mutex::default() }
    }

    /// Keeps what came of wishes, and wakes whoever passes it on.
    pub(crate) fn keep(&self, answers: Vec<Answered>) {
        let mut proxies = self.proxies.lock();
        for answered in answers {
            let newest = proxies.values().map(|kept| kept.heard).max().unwrap_or_default();
            if !proxies.contains_key(&answered.client) && proxies.len() >= PROXIES_MAX {
                let silent = proxies.iter().min_by_key(|(_, kept)| kept.heard).map(|(client, _)| *client);
                silent.map(|client| proxies.remove(&client));
            }
            let kept = proxies.entry(answered.client).or_default();
            kept.heard = newest + 1;
            kept.keep(answered.number, answered.reply.to_bytes());
            kept.rung.notify_waiters();
            kept.rung.notify_one();
        }
    }

    /// Listens for answers to this proxy from now on.
    pub(crate) fn listen(&self, client: ClientId) -> Ear {
        let mut proxies = self.proxies.lock();
        let kept = proxies.entry(client).or_default();
        Ear { client, heard: kept.next, rung: kept.rung.clone() }
    }

    /// What came since the last call.
    pub(crate) fn hear(&self, ear: &mut Ear, items: &mut Vec<Item>) {
        let proxies = self.proxies.lock();
        let Some(kept) = proxies.get(&ear.client) else { return };
        let fresh = kept.answers.iter().rev().take_while(|(place, _)| *place >= ear.heard).count();
        items.extend(kept.answers.iter().skip(kept.answers.len() - fresh).map(|(_, item)| item.clone()));
        ear.heard = kept.next;
        // A proxy that was forgotten meanwhile, and came back, is another one to the bell.
        ear.rung = kept.rung.clone();
    }

    /// What came of a wish, if it is still known.
    pub(crate) fn recall(&self, client: ClientId, wanted: u64) -> Option<Item> {
        let proxies = self.proxies.lock();
        let mut answers = proxies.get(&client)?.answers.iter().rev();
        answers
            .find(|(_, item)| matches!(item, Item::Answer { number, .. } if *number == wanted))
            .map(|(_, item)| item.clone())
    }

    /// Says something at this place of a connection.
    pub(crate) fn say(&self, client: ClientId, nonce: u64, place: u64, items: &[Item]) -> Testimony {
        let items = encode_items(items);
        let signature = (self.signing)(statement(client, nonce, place, &items));
        Testimony { name: self.name.clone(), cluster: self.cluster, place, items, signature }
    }
}
