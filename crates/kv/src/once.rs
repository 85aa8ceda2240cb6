//! Wishes of clients that trust no single replica, and that none of them is carried out twice.
//!
//! Such a client names itself by a random number, numbers its wishes, and may give the same wish to several replicas, because any one of them
//! may be mute. Each of them has it ordered; the first time that it comes out of the order it is carried out, and every further
//! time it is not. Which wishes were carried out is replicated state (it changes by what is applied and by nothing else, and travels with
//! snapshots). What came of them is not: every replica keeps that for a while by itself, if it is told to
//! ([`Store::keep_answers`]), and hands it to whoever stands between it and the client ([`Store::take_answers`]).
//!
//! The memory is bounded: for each client a floor, below which everything was carried out or never will be, and at most
//! [`ABOVE_MAX`] numbers above it; at most [`CLIENTS_MAX`] clients, of whom the one that was silent for longest is forgotten first. A
//! wish whose client was forgotten could be carried out again, if it was still under way after so many other clients had come.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use synod_core::wire::{Reader, put_u64};
use synod_core::{Audience, NodeId, Taken, Wire, WireError};

use crate::arena::mix;
use crate::error::OpError;
use crate::op::{Op, OpReply, RangeRequest, Reply, Txn, TxnOp};
use crate::store::Store;

/// Clients whose wishes are remembered, at most.
pub const CLIENTS_MAX: usize = 1024;

/// Numbers above a client's floor, at most; beyond it the floor rises, and what lies below is void.
pub const ABOVE_MAX: usize = 4096;

/// What the reads of one wish may give together; more is refused, because every replica keeps the answer for a while.
pub const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// A client that trusts no single replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u128);

/// A wish that is carried out once, however often it is ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    /// Whose.
    pub client: ClientId,
    /// Which of the client's; from 1 on.
    pub number: u64,
    /// What is wished.
    pub wish: Wish,
}

/// What such a client may wish for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// What every client may: a put, a deletion, a transaction (also one that only reads), a compaction, a lease.
    Op(Op),
    /// What all agree on about a lease.
    Lease(i64),
    /// Which leases there are.
    Leases,
}

/// What came of a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Whose it was.
    pub client: ClientId,
    /// Which.
    pub number: u64,
    /// The same at all replicas.
    pub reply: Reply,
}

const OP: u8 = 0;
const LEASE: u8 = 1;
const LEASES: u8 = 2;

impl ClientId {
    pub(crate) fn encode(self, out: &mut BytesMut) {
        put_u64(out, (self.0 >> 64) as u64);
        put_u64(out, self.0 as u64);
    }

    pub(crate) fn decode(from: &mut Reader) -> Result<ClientId, WireError> {
        let high = from.u64("client")?;
        Ok(ClientId(u128::from(high) << 64 | u128::from(from.u64("client")?)))
    }
}

impl Wire for Wish {
    fn encode(&self, out: &mut BytesMut) {
        match self {
            Wish::Op(op) => {
                out.put_u8(OP);
                op.encode(out);
            }
            Wish::Lease(id) => {
                out.put_u8(LEASE);
                put_u64(out, *id as u64);
            }
            Wish::Leases => out.put_u8(LEASES),
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        match from.u8("wish")? {
            OP => Ok(Wish::Op(crate::op_wire::decode_simple(from)?)),
            LEASE => Ok(Wish::Lease(from.u64("lease")? as i64)),
            LEASES => Ok(Wish::Leases),
            other => Err(WireError::Invalid { what: "wish", value: u64::from(other), allowed: "0, 1 or 2" }),
        }
    }
}

impl Wire for Once {
    fn encode(&self, out: &mut BytesMut) {
        self.client.encode(out);
        put_u64(out, self.number);
        self.wish.encode(out);
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        let client = ClientId::decode(from)?;
        Ok(Once { client, number: from.u64("wish's number")?, wish: Wish::decode(from)? })
    }
}

impl Wish {
    /// Whether a client may wish for this: what members say of themselves and of their cluster is their own business.
    #[must_use]
    pub fn is_a_clients(&self) -> bool {
        match self {
            Wish::Op(op) => matches!(
                op,
                Op::Put(_)
                    | Op::DeleteRange(_)
                    | Op::Txn(_)
                    | Op::Compact { .. }
                    | Op::LeaseGrant { .. }
                    | Op::LeaseRevoke { .. }
            ),
            Wish::Lease(_) | Wish::Leases => true,
        }
    }
}

/// Whose wishes were carried out, and which.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Clients(BTreeMap<ClientId, Seen>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    wishes: Taken,
    /// The position of the last wish that was carried out.
    last: u64,
}

impl Clients {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Carries out a wish: whether it is the first time.
    fn enter(&mut self, client: ClientId, number: u64, at: u64) -> bool {
        if number == 0 {
            return false;
        }
        if !self.0.contains_key(&client) && self.0.len() >= CLIENTS_MAX {
            let silent = self.0.iter().min_by_key(|(client, seen)| (seen.last, **client));
            if let Some(silent) = silent.map(|(client, _)| *client) {
                self.0.remove(&silent);
            }
        }
        let seen = self.0.entry(client).or_default();
        let is_first = seen.wishes.take(number, ABOVE_MAX);
        if is_first {
            seen.last = at;
        }
        is_first
    }

    /// A number that differs when the tables differ.
    pub(crate) fn digest(&self) -> u64 {
        let mut sum = 0;
        for (client, seen) in &self.0 {
            for part in [(client.0 >> 64) as u64, client.0 as u64, seen.wishes.floor(), seen.last] {
                sum = mix(sum ^ part);
            }
            sum = seen.wishes.above().fold(sum, |sum, number| mix(sum ^ number));
        }
        sum
    }
}

impl Wire for Clients {
    fn encode(&self, out: &mut BytesMut) {
        put_u64(out, self.0.len() as u64);
        for (client, seen) in &self.0 {
            client.encode(out);
            put_u64(out, seen.last);
            seen.wishes.encode(out);
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        let mut clients = BTreeMap::new();
        for _ in 0..from.count("clients", CLIENTS_MAX as u64)? {
            let client = ClientId::decode(from)?;
            let last = from.u64("position")?;
            let wishes = Taken::decode(from, ABOVE_MAX, |from| from.u64("wish's number"))?;
            clients.insert(client, Seen { wishes, last });
        }
        Ok(Clients(clients))
    }
}

impl Store {
    /// From now on, what comes of clients' wishes is kept until it is taken.
    pub fn keep_answers(&mut self) {
        self.answers.get_or_insert_default();
    }

    /// What came of wishes since the last call, in order.
    pub fn take_answers(&mut self) -> Vec<Answered> {
        self.answers.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Carries out a wish, if this is the first time that it comes.
    pub(crate) fn apply_once(&mut self, once: &Once, origin: NodeId, audience: Audience) -> Reply {
        if !once.wish.is_a_clients() {
            return self.reply(Err(OpError::Malformed));
        }
        if !self.clients.enter(once.client, once.number, self.applied.0) {
            return self.reply(Err(OpError::AlreadyDone));
        }
        // All replicas answer, whoever was asked.
        let audience = if self.answers.is_some() { Audience::Client } else { audience };
        let reply = match &once.wish {
            Wish::Op(op) if self.gives(op) > ANSWER_BYTES_MAX => self.reply(Err(OpError::AnswerTooLarge)),
            Wish::Op(op) => self.apply_op(op, origin, audience),
            Wish::Lease(id) => {
                let lease = self.leases().get(*id);
                let lease = lease.map(|lease| {
                    (lease.ttl, lease.keys.iter().map(|key| Bytes::copy_from_slice(key)).collect())
                });
                self.reply(self.check_readable().map(|()| OpReply::Lease(lease)))
            }
            Wish::Leases => {
                let ids = self.leases().iter().map(|(id, _)| id).collect();
                self.reply(self.check_readable().map(|()| OpReply::Leases(ids)))
            }
        };
        if let Some(answers) = &mut self.answers {
            answers.push(Answered { client: once.client, number: once.number, reply: reply.clone() });
        }
        reply
    }

    /// The bytes that an operation's reads would give now.
    fn gives(&self, op: &Op) -> u64 {
        match op {
            Op::DeleteRange(delete) if delete.prev_kv => self.view().range_bytes(&RangeRequest {
                key: delete.key.clone(),
                range_end: delete.range_end.clone(),
                ..RangeRequest::default()
            }),
            Op::Txn(txn) => self.txn_gives(txn),
            _ => 0,
        }
    }

    fn txn_gives(&self, txn: &Txn) -> u64 {
        let each = txn.success.iter().chain(&txn.failure).map(|op| match op {
            TxnOp::Range(range) => self.view().range_bytes(range),
            TxnOp::DeleteRange(delete) => self.gives(&Op::DeleteRange(delete.clone())),
            TxnOp::Txn(inner) => self.txn_gives(inner),
            TxnOp::Put(_) | TxnOp::Empty => 0,
        });
        each.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::Put;
    use synod_core::{Command, CommandId, Frozen, Index, Machine, SnapshotRef};

    fn command(client: u128, number: u64, value: &'static str) -> Command {
        let put = Op::Put(Put { key: "k".into(), value: value.into(), ..Put::default() });
        let once = Once { client: ClientId(client), number, wish: Wish::Op(put) };
        let id = CommandId { origin: NodeId(number % 3), number };
        Command { id, payload: Op::Once(Box::new(once)).payload() }
    }

    fn copy(store: &Store) -> Store {
        let mut bytes = Vec::new();
        store.freeze().write_to(&mut bytes).expect("memory takes it");
        let mut copy = Store::new();
        copy.restore(&SnapshotRef::in_memory(store.applied(), bytes.into())).expect("it was just written");
        assert_eq!(copy.digest(), store.digest());
        copy
    }

    /// A wish that two replicas had ordered is carried out once, also where a snapshot came in between, and both replicas have its answer.
    #[test]
    fn a_wish_is_carried_out_once() {
        let mut store = Store::new();
        store.keep_answers();
        let first = store.apply(Index(1), &command(7, 1, "a"), Audience::Nobody);
        assert_eq!(first.revision, 2);
        assert_eq!(
            store.take_answers(),
            [Answered { client: ClientId(7), number: 1, reply: first }],
            "whoever was asked, all answer"
        );
        for mut store in [copy(&store), store] {
            let again = store.apply(Index(2), &command(7, 1, "a"), Audience::Client);
            assert_eq!(again, Reply { revision: 2, result: Err(OpError::AlreadyDone) });
            assert_eq!(store.take_answers(), []);
            // Others' numbers are their own, and the order of numbers is free.
            assert_eq!(store.apply(Index(3), &command(8, 1, "b"), Audience::Client).revision, 3);
            assert_eq!(store.apply(Index(4), &command(7, 3, "c"), Audience::Client).revision, 4);
            assert_eq!(store.apply(Index(5), &command(7, 2, "d"), Audience::Client).revision, 5);
            assert_eq!(
                store.apply(Index(6), &command(7, 3, "c"), Audience::Client).result,
                Err(OpError::AlreadyDone)
            );
        }
    }

    /// The table stays small whatever clients do, forgets the same clients everywhere, and comes back from its encoding.
    #[test]
    fn the_table_is_bounded() {
        let mut clients = Clients::default();
        for number in 1..3 * ABOVE_MAX as u64 {
            assert!(clients.enter(ClientId(0), number * 2, number));
        }
        assert!(clients.0[&ClientId(0)].wishes.above().len() <= ABOVE_MAX);
        assert!(!clients.enter(ClientId(0), 3, 9_999), "what lies far below is void");
        for client in 1..2 * CLIENTS_MAX as u128 {
            assert!(clients.enter(ClientId(client), 1, 100_000 + client as u64));
        }
        assert_eq!(clients.0.len(), CLIENTS_MAX);
        assert!(!clients.0.contains_key(&ClientId(0)) && clients.0.contains_key(&ClientId(2000)));
        assert!(!clients.enter(ClientId(1), 0, 0), "numbers begin at 1");
        assert_eq!(Clients::decode_all(clients.to_bytes()), Ok(clients));
    }

    /// A wish in a wish, and what only members may say, is refused and remembered by nobody.
    #[test]
    fn not_everything_may_be_wished() {
        let mut store = Store::new();
        let forbidden = Wish::Op(Op::SetQuota { bytes: 1 });
        let once = Once { client: ClientId(1), number: 1, wish: forbidden };
        let reply = store.apply_op(&Op::Once(Box::new(once.clone())), NodeId(1), Audience::Client);
        assert_eq!(reply.result, Err(OpError::Malformed));
        assert!(store.clients.is_empty());
        let nested = Once { wish: Wish::Op(Op::Once(Box::new(once))), client: ClientId(1), number: 1 };
        assert!(Once::decode_all(nested.to_bytes()).is_err());
    }
}
