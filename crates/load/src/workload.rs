//! Requests: which method, which keys, which values.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use synod_api::Method;
use synod_api::etcdserverpb as pb;
use synod_core::Rng;

use crate::plan::{Choice, Kind, Plan};

/// A request that is ready to be sent.
pub struct Ask {
    /// Its method.
    pub method: Method,
    /// Its message, with gRPC's prefix.
    pub framed: Bytes,
}

/// Makes one request after the other.
#[derive(Clone)]
pub struct Workload {
    kind: Kind,
    keys: u64,
    key_bytes: usize,
    value: Bytes,
    choice: Picker,
    rng: Rng,
    next: u64,
    /// Leases go in pairs: those that are still to be revoked.
    granted: VecDeque<i64>,
    /// What tells this run's leases from those that another left behind.
    salt: u64,
}

#[derive(Clone)]
enum Picker {
    Uniform,
    Sequential,
    Zipf(Zipf),
}

/// A lease is revoked when so many were granted after it: more than are under way at a time, so its own grant has been answered.
const GRANTED_MAX: usize = 256;

/// Draws ranks by Hörmann and Derflinger's rejection-inversion (1996): no table, whatever the number of keys.
#[derive(Clone)]
struct Zipf {
    exponent: f64,
    low: f64,
    high: f64,
    keys: f64,
    shortcut: f64,
}

impl Zipf {
    fn new(keys: u64, exponent: f64) -> Zipf {
        let mut zipf = Zipf { exponent, low: 0.0, high: 0.0, keys: keys as f64, shortcut: 0.0 };
        zipf.low = zipf.area(1.5) - 1.0;
        zipf.high = zipf.area(zipf.keys + 0.5);
        zipf.shortcut = 2.0 - zipf.inverse(zipf.area(2.5) - 2f64.powf(-exponent));
        zipf
    }

    /// The integral of x^-s from 1 to x.
    fn area(&self, x: f64) -> f64 {
        let rest = 1.0 - self.exponent;
        if rest.abs() < 1e-9 { x.ln() } else { (x.powf(rest) - 1.0) / rest }
    }

    fn inverse(&self, area: f64) -> f64 {
        let rest = 1.0 - self.exponent;
        if rest.abs() < 1e-9 { area.exp() } else { (1.0 + area * rest).max(0.0).powf(1.0 / rest) }
    }

    /// A rank from 0 on.
    fn draw(&self, rng: &mut Rng) -> u64 {
        loop {
            let area = self.high + rng.unit() * (self.low - self.high);
            let x = self.inverse(area);
            let rank = x.round().clamp(1.0, self.keys);
            if rank - x <= self.shortcut || area >= self.area(rank + 0.5) - rank.powf(-self.exponent) {
                return rank as u64 - 1;
            }
        }
    }
}

impl Workload {
    /// The requests of `plan`; each connection has a `lane` of its own.
    #[must_use]
    pub fn new(plan: &Plan, lane: u64) -> Workload {
        let mut rng = Rng::new(plan.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(lane));
        // Values that do not compress, and that are the same in every run.
        let value: Vec<u8> = (0..plan.value_bytes).map(|_| rng.below(256) as u8).collect();
        let choice = match plan.choice {
            Choice::Uniform => Picker::Uniform,
            Choice::Sequential => Picker::Sequential,
            Choice::Zipf(exponent) => Picker::Zipf(Zipf::new(plan.keys, exponent)),
        };
        Workload {
            kind: plan.kind,
            keys: plan.keys,
            key_bytes: plan.key_bytes,
            value: value.into(),
            choice,
            rng,
            // Lanes begin apart, so that they do not all write the same key.
            next: lane.wrapping_mul(plan.keys / plan.connections.max(1) as u64),
            granted: VecDeque::new(),
            salt: RandomState::new().hash_one(lane),
        }
    }

    /// The next request.
    pub fn ask(&mut self) -> Ask {
        match self.kind {
            Kind::Put => self.put(),
            Kind::Get => self.get(false),
            Kind::SerializableGet => self.get(true),
            Kind::Mixed { reads } => {
                if self.rng.below(100) < u64::from(reads) {
                    self.get(false)
                } else {
                    self.put()
                }
            }
            Kind::Range { limit } => {
                let key = self.key();
                let range = pb::RangeRequest {
                    key,
                    range_end: Bytes::from_static(b"\0"),
                    limit: i64::try_from(limit).unwrap_or(0),
                    ..pb::RangeRequest::default()
                };
                framed(Method::Range, &range)
            }
            Kind::Txn => self.txn(),
            Kind::Lease if self.granted.len() >= GRANTED_MAX => {
                let id = self.granted.pop_front().unwrap_or_default();
                framed(Method::LeaseRevoke, &pb::LeaseRevokeRequest { id })
            }
            Kind::Lease => {
                let id = ((self.rng.next_u64() ^ self.salt) >> 2) as i64 | 1;
                self.granted.push_back(id);
                framed(Method::LeaseGrant, &pb::LeaseGrantRequest { ttl: 60, id })
            }
        }
    }

    fn pick(&mut self) -> u64 {
        match &self.choice {
            Picker::Uniform => self.rng.below(self.keys),
            Picker::Zipf(zipf) => zipf.draw(&mut self.rng),
            Picker::Sequential => {
                self.next = self.next.wrapping_add(1);
                self.next % self.keys
            }
        }
    }

    fn key(&mut self) -> Bytes {
        let number = self.pick();
        key_name(number, self.key_bytes)
    }

    fn put(&mut self) -> Ask {
        let number = self.pick();
        put(number, self.key_bytes, &self.value)
    }

    fn get(&mut self, is_serializable: bool) -> Ask {
        let number = self.pick();
        // The hot requests are written by hand: what the generator saves, the store may use.
        let mut out = BytesMut::with_capacity(self.key_bytes + 16);
        out.put_bytes(0, 5);
        put_field(&mut out, 1, self.key_bytes);
        put_key(&mut out, number, self.key_bytes);
        if is_serializable {
            out.put_slice(&[7 << 3, 1]);
        }
        finish(Method::Range, out)
    }

    fn txn(&mut self) -> Ask {
        let key = self.key();
        let put = pb::PutRequest { key: key.clone(), value: self.value.clone(), ..pb::PutRequest::default() };
        let get = pb::RangeRequest { key: key.clone(), ..pb::RangeRequest::default() };
        let compare = pb::Compare {
            result: pb::compare::CompareResult::Greater.into(),
            target: pb::compare::CompareTarget::Version.into(),
            key,
            target_union: Some(pb::compare::TargetUnion::Version(-1)),
            ..pb::Compare::default()
        };
        let op = |request| pb::RequestOp { request: Some(request) };
        let txn = pb::TxnRequest {
            compare: vec![compare],
            success: vec![op(pb::request_op::Request::RequestPut(put))],
            failure: vec![op(pb::request_op::Request::RequestRange(get))],
        };
        framed(Method::Txn, &txn)
    }
}

/// A key's name: its number, filled up with zeros in front.
#[must_use]
pub fn key_name(number: u64, bytes: usize) -> Bytes {
    let mut out = BytesMut::with_capacity(bytes);
    put_key(&mut out, number, bytes);
    out.freeze()
}

fn put_key(out: &mut BytesMut, number: u64, bytes: usize) {
    let start = out.len();
    out.put_bytes(b'0', bytes);
    let (mut rest, mut at) = (number, out.len());
    while rest > 0 && at > start {
        at -= 1;
        out[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

/// A put of a key by its number.
#[must_use]
pub fn put(number: u64, key_bytes: usize, value: &[u8]) -> Ask {
    let mut out = BytesMut::with_capacity(key_bytes + value.len() + 24);
    out.put_bytes(0, 5);
    put_field(&mut out, 1, key_bytes);
    put_key(&mut out, number, key_bytes);
    put_field(&mut out, 2, value.len());
    out.put_slice(value);
    finish(Method::Put, out)
}

/// The head of a length-delimited protobuf field.
fn put_field(out: &mut BytesMut, field: u8, length: usize) {
    out.put_u8(field << 3 | 2);
    prost::encoding::encode_varint(length as u64, out);
}

fn finish(method: Method, mut out: BytesMut) -> Ask {
    let length = (out.len() - 5) as u32;
    out[1..5].copy_from_slice(&length.to_be_bytes());
    Ask { method, framed: out.freeze() }
}

/// A request from a message.
pub fn framed(method: Method, message: &impl Message) -> Ask {
    let mut out = BytesMut::with_capacity(message.encoded_len() + 5);
    out.put_bytes(0, 5);
    message.encode(&mut out).expect("the buffer grows as needed");
    finish(method, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written by hand is what the generated messages would write.
    #[test]
    fn requests_by_hand_are_right() {
        let plan = Plan { value_bytes: 300, ..Plan::default() };
        for kind in [Kind::Put, Kind::Get, Kind::SerializableGet] {
            let ask = Workload::new(&Plan { kind, ..plan.clone() }, 3).ask();
            assert_eq!(
                u32::from_be_bytes(ask.framed[1..5].try_into().unwrap()) as usize,
                ask.framed.len() - 5
            );
            let message = &ask.framed[5..];
            if kind == Kind::Put {
                let put = pb::PutRequest::decode(message).unwrap();
                assert_eq!((put.key.len(), put.value.len()), (16, 300));
                assert!(put.key.iter().all(u8::is_ascii_digit));
            } else {
                let range = pb::RangeRequest::decode(message).unwrap();
                assert_eq!(range.serializable, kind == Kind::SerializableGet);
                assert_eq!(range.key.len(), 16);
            }
        }
    }

    /// Popular keys are as popular as the law says: the first is drawn twice as often as the second, for s = 1.
    #[test]
    fn zipf_is_zipf() {
        let (zipf, mut rng) = (Zipf::new(1000, 1.0), Rng::new(7));
        let mut counts = [0u32; 1000];
        for _ in 0..200_000 {
            counts[zipf.draw(&mut rng) as usize] += 1;
        }
        let harmonic: f64 = (1..=1000).map(|k| 1.0 / f64::from(k)).sum();
        for rank in [1u32, 2, 10, 100] {
            let expected = 200_000.0 / harmonic / f64::from(rank);
            let seen = f64::from(counts[rank as usize - 1]);
            assert!((seen - expected).abs() < 5.0 * expected.sqrt(), "rank {rank}: {seen}, not {expected}");
        }
    }

    /// A lease is revoked long after it was granted, and once; no two runs grant the same.
    #[test]
    fn leases_are_revoked_late() {
        let plan = Plan { kind: Kind::Lease, ..Plan::default() };
        let grants = || {
            let mut workload = Workload::new(&plan, 0);
            let asks: Vec<Ask> = (0..GRANTED_MAX + 3).map(|_| workload.ask()).collect();
            let (early, late) = asks.split_at(GRANTED_MAX);
            assert!(early.iter().all(|ask| ask.method == Method::LeaseGrant));
            let methods: Vec<Method> = late.iter().map(|ask| ask.method).collect();
            assert_eq!(methods, [Method::LeaseRevoke, Method::LeaseGrant, Method::LeaseRevoke]);
            let first = pb::LeaseGrantRequest::decode(&early[0].framed[5..]).unwrap().id;
            assert_eq!(pb::LeaseRevokeRequest::decode(&late[0].framed[5..]).unwrap().id, first);
            first
        };
        assert_ne!(grants(), grants());
    }

    /// Sequential lanes go round all keys and begin apart.
    #[test]
    fn lanes_begin_apart() {
        let plan = Plan { choice: Choice::Sequential, connections: 4, keys: 100, ..Plan::default() };
        let first = |lane| Workload::new(&plan, lane).pick();
        assert_eq!([first(0), first(1), first(2), first(3)], [1, 26, 51, 76]);
    }
}
