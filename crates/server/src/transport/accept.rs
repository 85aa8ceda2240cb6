//! The listening side: strangers introduce themselves, members are listened to, browsers get a page.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use synod_core::{NodeId, Wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::frame::{self, FRAME_BYTES_MAX, HELLO_BYTES_MAX, Kind};
use super::hello::{Hello, Lane, PREAMBLE};
use super::{CONNECT_MAX, SILENCE_MAX, STALL_MAX, Shared, http};

/// Connections at once on the peer port; more are closed unheard. Members need two each.
const CONNECTIONS_MAX: usize = 256;
/// How much room a read gets.
const READ_BYTES: usize = 128 << 10;

/// Accepts until the task is dropped; its connections end with it.
pub(super) async fn run(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, as a rule: the pause keeps this from becoming a busy loop.
                tracing::warn!(%error, "cannot accept a peer's connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if connections.len() >= CONNECTIONS_MAX {
            tracing::warn!(%address, max = CONNECTIONS_MAX, "too many connections on the peer port");
            continue;
        }
        let shared = shared.clone();
        connections.spawn(async move {
            if let Err(error) = serve(stream, address, &shared).await {
                tracing::warn!(%address, %error, "a connection on the peer port ended");
            }
        });
    }
}

async fn serve(mut stream: TcpStream, address: SocketAddr, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = BytesMut::new();
    let greeting = timeout(CONNECT_MAX, greet(&mut stream, &mut buffer));
    let hello = match greeting.await.map_err(|_| io::Error::other("no greeting in time"))?? {
        Greeting::Hello(hello) => hello,
        Greeting::Http => return http::answer(stream, buffer, shared.inbound.as_ref()).await,
        Greeting::Nothing => return Ok(()),
    };
    let identity = &shared.identity;
    let is_member = |id: NodeId| shared.peers.read().contains_key(&id);
    let has_left = |id: NodeId| shared.left.read().contains(&id);
    let objection = hello.objection(identity.me, identity.cluster, identity.protocol, is_member, has_left);
    if let Some(why) = objection {
        let addresses: Vec<_> = hello.addresses.iter().map(|a| String::from_utf8_lossy(a)).collect();
        tracing::warn!(%address, peer = %hello.from, ?addresses, reason = %why, "refused a peer's connection");
        let mut out = BytesMut::new();
        frame::encode(&mut out, Kind::Refused, |out| out.extend_from_slice(why.as_bytes()));
        return timeout(STALL_MAX, stream.write_all(&out)).await?;
    }
    let mut out = BytesMut::new();
    frame::encode(&mut out, Kind::Welcome, |_| {});
    stream.write_all(&out).await?;
    listen(stream, buffer, &hello, shared).await
}

enum Greeting {
    Hello(Hello),
    Http,
    /// The connection was closed before a word: a port check.
    Nothing,
}

async fn greet(stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<Greeting> {
    while buffer.len() < PREAMBLE.len() {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(Greeting::Nothing);
        }
        if buffer.first().is_some_and(u8::is_ascii_uppercase) {
            return Ok(Greeting::Http);
        }
    }
    if buffer[..PREAMBLE.len()] != PREAMBLE {
        return Err(io::Error::other("neither a member nor HTTP"));
    }
    buffer.advance(PREAMBLE.len());
    loop {
        match frame::decode(buffer, HELLO_BYTES_MAX).map_err(io::Error::other)? {
            Some((Kind::Hello, payload)) => {
                return Hello::decode_all(payload).map(Greeting::Hello).map_err(io::Error::other);
            }
            Some((kind, _)) => return Err(io::Error::other(format!("{kind:?} instead of a greeting"))),
            None => {}
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::Error::other("closed during the greeting"));
        }
    }
}

/// Hands everything that a member says to the node.
async fn listen(
    mut stream: TcpStream,
    mut buffer: BytesMut,
    hello: &Hello,
    shared: &Shared,
) -> io::Result<()> {
    let from = hello.from;
    let numbers = {
        let peers = shared.peers.read();
        let Some(peer) = peers.get(&from) else { return Ok(()) };
        if hello.lane == Lane::Talk {
            peer.talk.peer_is_up.notify_one();
        }
        peer.numbers.clone()
    };
    numbers.heard.store(true, Ordering::Relaxed);
    tracing::info!(peer = %from, lane = ?hello.lane, "a peer has connected");
    let mut messages = Vec::new();
    let mut pongs = BytesMut::new();
    let ended = loop {
        loop {
            match frame::decode(&mut buffer, FRAME_BYTES_MAX) {
                Ok(Some((Kind::Data, message))) => messages.push(message),
                Ok(Some((Kind::Ping, clock))) => {
                    frame::encode(&mut pongs, Kind::Pong, |out| out.extend_from_slice(&clock));
                }
                Ok(Some((kind, _))) => return Err(io::Error::other(format!("{kind:?} after the greeting"))),
                Ok(None) => break,
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        if !messages.is_empty() {
            // A member that was removed meanwhile is not listened to any longer.
            if !shared.peers.read().contains_key(&from) {
                break Ok(());
            }
            shared.inbound.deliver(from, &mut messages);
        }
        if !pongs.is_empty() {
            timeout(STALL_MAX, stream.write_all(&pongs)).await??;
            pongs.clear();
        }
        if buffer.capacity() - buffer.len() < READ_BYTES / 4 {
            buffer.reserve(READ_BYTES);
        }
        match timeout(SILENCE_MAX, stream.read_buf(&mut buffer)).await {
            Ok(Ok(0)) => break Ok(()),
            Ok(Ok(count)) => {
                numbers.received_bytes.fetch_add(count as u64, Ordering::Relaxed);
            }
            Ok(Err(error)) => break Err(error),
            Err(_) => break Err(io::Error::other(format!("silent for {SILENCE_MAX:?}"))),
        }
    };
    if hello.lane == Lane::Talk {
        numbers.heard.store(false, Ordering::Relaxed);
    }
    ended
}
