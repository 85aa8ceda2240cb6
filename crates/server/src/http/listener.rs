//! Connections: taking them, telling HTTP/2 from HTTP/1, and ending them in order.
//!
//! The limits are there to hold off abuse without cutting off good clients: a client that cancels thousands of calls a second
//! is a good client, one that opens a connection and says nothing is not.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use synod_http2::frame::PREFACE;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{Front, route};
use crate::service::backend::Backend;

/// What one connection, and all of them, may use.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Streams at once on one HTTP/2 connection (`--max-concurrent-streams`).
    pub streams_max: u32,
    /// Connections at once on one listener; further ones are closed at once.
    pub connections_max: usize,
    /// How long requests in flight may take after the member was told to stop.
    pub drain: Duration,
    /// A connection must show within this time what it speaks, and a request over HTTP/1 must have its headers complete.
    pub header_timeout: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        ConnectionLimits {
            streams_max: u32::MAX,
            connections_max: 65_536,
            drain: Duration::from_secs(5),
            header_timeout: Duration::from_secs(30),
        }
    }
}

/// What a refused `accept` costs: usually there are no file descriptors left, and trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A client that was silent for so long is asked whether it lives, again and again at this distance.
const IDLE: Duration = Duration::from_secs(60);
const ASKING: Duration = Duration::from_secs(10);

/// A client of HTTP/1 that takes nothing of what waits for it is given up after this time: an answer that is never taken holds what it
/// is read from. (HTTP/2 sees to its own streams.)
#[cfg(target_os = "linux")]
const UNTAKEN: Duration = Duration::from_secs(600);

/// Takes connections until the member stops, then waits for those that are open, each at most the drain time.
pub async fn serve_listener<B: Backend>(
    front: Arc<Front<B>>,
    listener: TcpListener,
    mut stopping: watch::Receiver<bool>,
) {
    let open = Arc::new(AtomicUsize::new(0));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => break,
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) if open.load(Ordering::Relaxed) >= front.limits.connections_max => drop(stream),
            Ok((stream, peer)) => {
                let count = Counted::new(&open);
                let (front, stopping) = (front.clone(), stopping.clone());
                connections.spawn(async move {
                    serve_connection(&front, stream, peer, stopping).await;
                    drop(count);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Serves one connection to its end.
pub async fn serve_connection<B: Backend>(
    front: &Arc<Front<B>>,
    mut stream: TcpStream,
    peer: SocketAddr,
    stopping: watch::Receiver<bool>,
) {
    // Small replies must not wait for company.
    let _ = stream.set_nodelay(true);
    // A client whose machine is gone never says so. HTTP/2 asks by itself; for the rest the system does, or a stream that
    // has nothing to tell would stay for ever.
    let asking = TcpKeepalive::new().with_time(IDLE).with_interval(ASKING).with_retries(3);
    let _ = SockRef::from(&stream).set_tcp_keepalive(&asking);
    let mut said = Vec::new();
    let deciding = tokio::time::timeout(front.limits.header_timeout, speaks_http2(&mut stream, &mut said));
    let outcome = match deciding.await {
        // Whoever does not show in time what it speaks is shown out.
        Err(_) | Ok(Err(_)) => return,
        Ok(Ok(true)) => {
            let begun = said.split_off(PREFACE.len());
            // What was read is one buffer's worth; the connection reads by its own from here on. It shares its thread fairly by itself.
            let serving = crate::http2::serve(front, stream, &begun, stopping);
            tokio::task::unconstrained(serving).await.map_err(|fault| fault.to_string())
        }
        Ok(Ok(false)) => serve_http1(front, Begun { said: said.into(), stream }, stopping).await,
    };
    if let Err(error) = outcome {
        tracing::debug!(%peer, error, "a client's connection ended badly");
    }
}

/// Reads until it is clear which version of HTTP this is; what was read stands in `said`.
async fn speaks_http2(stream: &mut TcpStream, said: &mut Vec<u8>) -> io::Result<bool> {
    loop {
        if stream.read_buf(said).await? == 0 {
            return Ok(false);
        }
        let seen = said.len().min(PREFACE.len());
        if said[..seen] != PREFACE[..seen] {
            return Ok(false);
        }
        if seen == PREFACE.len() {
            return Ok(true);
        }
    }
}

async fn serve_http1<B: Backend>(
    front: &Arc<Front<B>>,
    stream: Begun,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), String> {
    #[cfg(target_os = "linux")]
    let _ = SockRef::from(&stream.stream).set_tcp_user_timeout(Some(UNTAKEN));
    let front_of_requests = front.clone();
    let service = service_fn(move |request| {
        let front = front_of_requests.clone();
        async move { Ok::<_, std::convert::Infallible>(route(&front, request).await) }
    });
    let mut builder = http1::Builder::new();
    // Date is told in `route`, which bears any clock.
    builder.auto_date_header(false).timer(TokioTimer::new()).header_read_timeout(front.limits.header_timeout);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        biased;
        ended = connection.as_mut() => return ended.map_err(|error| error.to_string()),
        _ = stopping.wait_for(|stop| *stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    // What is still under way then is cut off.
    let _ = tokio::time::timeout(front.limits.drain, connection).await;
    Ok(())
}

/// Counts a connection while it is open.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(open: &Arc<AtomicUsize>) -> Counted {
        open.fetch_add(1, Ordering::Relaxed);
        Counted(open.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream of which something was read already.
struct Begun {
    said: Bytes,
    stream: TcpStream,
}

impl AsyncRead for Begun {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.said.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let now = self.said.len().min(buffer.remaining());
        buffer.put_slice(&self.said.split_to(now));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Begun {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
