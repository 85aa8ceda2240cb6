//! One outgoing connection: dialled, greeted, written to, and dialled again when it breaks.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use synod_core::{NodeId, Rng, Wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::frame::{self, HELLO_BYTES_MAX, Kind};
use super::hello::{self, Hello, PREAMBLE, WIRE_VERSION};
use super::{CONNECT_MAX, Identity, Inbound, Lane, PING_EVERY, PeerNumbers, SILENCE_MAX, STALL_MAX};
use crate::config::Address;

/// Bytes that may wait for one talk connection. Past it messages are dropped: the peer does not keep up, and
/// the protocol will say again what matters.
const TALK_BYTES_MAX: usize = 64 << 20;
/// As above for snapshot chunks; larger than a transfer's window.
const BULK_BYTES_MAX: usize = 4 << 20;
/// The first pause after a failed dial, and the longest.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// So much is written by whoever [dispatches](Link::dispatch); more takes long enough that the own disk should not wait for it.
const DISPATCHED_BYTES_MAX: usize = 64 << 10;
/// A buffer that grew beyond this is given back to the allocator once it was written.
const BUFFER_KEPT_MAX: usize = 1 << 20;

/// One peer and lane: where to dial, and what waits to be written.
pub(super) struct Link {
    pub(super) addresses: Vec<Address>,
    to: NodeId,
    lane: Lane,
    queue: Mutex<Queue>,
    /// Something was queued.
    ready: Notify,
    /// The peer has just dialled us: it is up, so dial it without waiting any longer.
    pub(super) peer_is_up: Notify,
    numbers: Arc<PeerNumbers>,
}

#[derive(Default)]
struct Queue {
    /// Whole frames, back to back.
    frames: BytesMut,
    /// Whether somebody is there to write them; a lazy link queues in any case.
    open: bool,
    /// When they are to leave, while there are any.
    due: Due,
    /// The connection, while the link's task does not write to it: then others may.
    idle: Option<Arc<OwnedWriteHalf>>,
}

/// When queued frames leave; of several the most urgent counts for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// With the next message, or when the link is [hurried](Link::hurry).
    #[default]
    AtLeisure,
    /// When they are [dispatched](Link::dispatch).
    WithTheTurn,
    /// The link's task has been woken to write them.
    Now,
}

impl Queue {
    /// Writes what is queued, on the caller's thread, if it is little and the connection stands idle and takes it.
    fn write_out(&mut self, numbers: &PeerNumbers) {
        let Some(writer) = self.idle.as_ref().filter(|_| self.frames.len() <= DISPATCHED_BYTES_MAX) else {
            return;
        };
        // An error shows again when the link's task writes the rest.
        let written = writer.try_write(&self.frames).unwrap_or(0);
        self.frames.advance(written);
        numbers.sent_bytes.fetch_add(written as u64, Ordering::Relaxed);
    }
}

impl Link {
    pub(super) fn new(to: NodeId, lane: Lane, addresses: Vec<Address>, numbers: Arc<PeerNumbers>) -> Link {
        // A bulk link dials when there is something to send, so its queue is always open.
        let queue = Queue { frames: BytesMut::new(), open: lane == Lane::Bulk, ..Queue::default() };
        let (ready, peer_is_up) = (Notify::new(), Notify::new());
        Link { addresses, to, lane, queue: Mutex::new(queue), ready, peer_is_up, numbers }
    }

    /// Queues one message, or drops it when the link is down or full.
    pub(super) fn send(&self, due: Due, write: impl FnOnce(&mut BytesMut)) {
        let max = match self.lane {
            Lane::Talk => TALK_BYTES_MAX,
            Lane::Bulk => BULK_BYTES_MAX,
        };
        let mut queue = self.queue.lock();
        if !queue.open || queue.frames.len() >= max {
            self.numbers.send_failures.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let before = if queue.frames.is_empty() { Due::AtLeisure } else { queue.due };
        frame::encode(&mut queue.frames, Kind::Data, write);
        queue.due = before.max(due);
        let wakes = queue.due == Due::Now && before != Due::Now;
        drop(queue);
        if wakes {
            self.ready.notify_one();
        }
    }

    /// Writes what is queued, unless all of it is at leisure: as far as the connection takes it at once, on the caller's thread,
    /// which may be any, so that nobody has to be woken for it. The link's task writes the rest. Whether something stays at
    /// leisure.
    pub(super) fn dispatch(&self) -> bool {
        let mut queue = self.queue.lock();
        if queue.frames.is_empty() || queue.due == Due::Now {
            return false;
        }
        if queue.due == Due::AtLeisure {
            return true;
        }
        queue.write_out(&self.numbers);
        if !queue.frames.is_empty() {
            queue.due = Due::Now;
            drop(queue);
            self.ready.notify_one();
        }
        false
    }

    /// Has the link's task write whatever is queued, in its turn.
    pub(super) fn hurry(&self) {
        let mut queue = self.queue.lock();
        if !queue.frames.is_empty() && std::mem::replace(&mut queue.due, Due::Now) != Due::Now {
            drop(queue);
            self.ready.notify_one();
        }
    }

    /// Behind whatever is queued: it may be the rest of a frame.
    fn queue_ping(&self, clock: u64) {
        let mut queue = self.queue.lock();
        frame::encode(&mut queue.frames, Kind::Ping, |out| out.extend_from_slice(&clock.to_le_bytes()));
    }

    fn set_open(&self, open: bool) {
        let mut queue = self.queue.lock();
        queue.open = open || self.lane == Lane::Bulk;
        queue.frames.clear();
        queue.idle = None;
        if self.lane == Lane::Talk {
            self.numbers.connected.store(open, Ordering::Relaxed);
        }
    }

    /// Everything queued, with `spare` in its place; while there is nothing, others may write to the connection.
    fn take(&self, spare: &mut BytesMut, writer: &Arc<OwnedWriteHalf>) {
        let mut queue = self.queue.lock();
        std::mem::swap(&mut queue.frames, spare);
        queue.idle = spare.is_empty().then(|| writer.clone());
    }

    fn has_nothing(&self) -> bool {
        self.queue.lock().frames.is_empty()
    }
}

/// Keeps the link standing until the task is dropped.
pub(super) async fn run(link: Arc<Link>, identity: Identity, inbound: Arc<dyn Inbound>) {
    let mut jitter = Rng::new(identity.me.0 ^ link.to.0.rotate_left(32) ^ link.lane as u64);
    let mut backoff = BACKOFF_MIN;
    let mut last_trouble = String::new();
    for attempt in 0usize.. {
        if link.lane == Lane::Bulk {
            while link.has_nothing() {
                link.ready.notified().await;
            }
        }
        let address = &link.addresses[attempt % link.addresses.len()];
        let trouble = match timeout(CONNECT_MAX, dial(&link, &identity, inbound.as_ref(), address)).await {
            Ok(Ok(stream)) => {
                backoff = BACKOFF_MIN;
                last_trouble.clear();
                tracing::info!(peer = %link.to, %address, lane = ?link.lane, "connected to a peer");
                if link.lane == Lane::Talk {
                    link.set_open(true);
                }
                let ended = pump(&link, stream).await;
                link.set_open(false);
                match ended {
                    Ended::Idle => continue,
                    Ended::Lost(error) => error.to_string(),
                }
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no connection within {CONNECT_MAX:?}"),
        };
        // The same trouble over and over is one line: a member that is down for a day fills no disk.
        if trouble != last_trouble {
            tracing::warn!(peer = %link.to, %address, lane = ?link.lane, error = %trouble, "no connection to a peer");
            last_trouble = trouble;
        }
        let pause = jitter.span(backoff / 2, backoff);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = link.peer_is_up.notified() => {}
        }
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

async fn dial(
    link: &Link,
    identity: &Identity,
    inbound: &dyn Inbound,
    address: &Address,
) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address.authority()).await?;
    stream.set_nodelay(true)?;
    let hello = Hello {
        version: WIRE_VERSION,
        protocol: Bytes::from_static(identity.protocol.as_bytes()),
        cluster: identity.cluster,
        from: identity.me,
        to: link.to,
        lane: link.lane,
        addresses: identity.addresses.iter().map(|address| Bytes::from(address.to_string())).collect(),
    };
    let mut out = BytesMut::from(&PREAMBLE[..]);
    frame::encode(&mut out, Kind::Hello, |out| hello.encode(out));
    stream.write_all(&out).await?;
    let mut answer = BytesMut::new();
    loop {
        match frame::decode(&mut answer, HELLO_BYTES_MAX).map_err(io::Error::other)? {
            Some((Kind::Welcome, _)) => return Ok(stream),
            Some((Kind::Refused, why)) => {
                if why == hello::removed(identity.me).as_bytes() {
                    inbound.told_removed(link.to);
                }
                return Err(io::Error::other(format!("the peer refused: {}", String::from_utf8_lossy(&why))));
            }
            Some((kind, _)) => return Err(io::Error::other(format!("{kind:?} instead of a welcome"))),
            None => {}
        }
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(io::Error::other("the peer closed the connection during the handshake"));
        }
    }
}

enum Ended {
    /// A bulk connection that was not needed any more.
    Idle,
    /// The connection broke.
    Lost(io::Error),
}

/// Writes what gathers, and listens for the answers to its pings, until something breaks.
async fn pump(link: &Link, stream: TcpStream) -> Ended {
    let (reader, writer) = stream.into_split();
    let writer = Arc::new(writer);
    let started = Instant::now();
    // When the oldest unanswered ping was sent.
    let waiting: Mutex<Option<Instant>> = Mutex::new(None);
    let hearing = hear(link, reader, started, &waiting);
    tokio::pin!(hearing);
    let mut pings = tokio::time::interval(PING_EVERY);
    let mut written = started;
    let mut buffer = BytesMut::new();
    loop {
        buffer.clear();
        if buffer.capacity() > BUFFER_KEPT_MAX {
            buffer = BytesMut::new();
        }
        // What was queued before the connection stood, or during the last write, goes without waiting.
        link.take(&mut buffer, &writer);
        tokio::select! {
            biased;
            error = &mut hearing => return Ended::Lost(error),
            _ = pings.tick() => {
                if waiting.lock().is_some_and(|since| since.elapsed() > SILENCE_MAX) {
                    return Ended::Lost(io::Error::other(format!("the peer was silent for {SILENCE_MAX:?}")));
                }
                if link.lane == Lane::Bulk && buffer.is_empty() && written.elapsed() > SILENCE_MAX {
                    return Ended::Idle;
                }
                waiting.lock().get_or_insert_with(Instant::now);
                let clock = started.elapsed().as_nanos() as u64;
                link.queue_ping(clock);
                if buffer.is_empty() {
                    continue;
                }
            }
            () = std::future::ready(()), if !buffer.is_empty() => written = Instant::now(),
            () = link.ready.notified() => continue,
        }
        if let Err(error) = write(link, &writer, &buffer).await {
            return Ended::Lost(error);
        }
    }
}

async fn write(link: &Link, writer: &OwnedWriteHalf, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    timeout(STALL_MAX, write_all(writer, bytes))
        .await
        .map_err(|_| io::Error::other(format!("the peer took nothing for {STALL_MAX:?}")))??;
    link.numbers.sent_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    Ok(())
}

/// The writer is shared, so it is not ours alone to write to as `AsyncWrite` wants it.
async fn write_all(writer: &OwnedWriteHalf, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match writer.try_write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => writer.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads pongs; ends only with an error.
async fn hear(
    link: &Link,
    mut reader: OwnedReadHalf,
    started: Instant,
    waiting: &Mutex<Option<Instant>>,
) -> io::Error {
    let mut buffer = BytesMut::new();
    loop {
        match reader.read_buf(&mut buffer).await {
            Ok(0) => return io::Error::other("the peer closed the connection"),
            Ok(_) => {}
            Err(error) => return error,
        }
        loop {
            match frame::decode(&mut buffer, HELLO_BYTES_MAX) {
                Ok(Some((Kind::Pong, clock))) => {
                    *waiting.lock() = None;
                    if let Ok(clock) = <[u8; 8]>::try_from(&clock[..]) {
                        let now = started.elapsed().as_nanos() as u64;
                        let trip = now.saturating_sub(u64::from_le_bytes(clock));
                        link.numbers.round_trips.observe(Duration::from_nanos(trip));
                    }
                }
                Ok(Some((kind, _))) => {
                    return io::Error::other(format!("{kind:?} on a connection that only sends"));
                }
                Ok(None) => break,
                Err(error) => return io::Error::other(error),
            }
        }
    }
}
