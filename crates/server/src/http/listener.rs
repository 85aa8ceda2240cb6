//! Connections: taking them, telling HTTP/2 from HTTP/1, and ending them in order.
//!
//! The limits are there to hold off abuse without cutting off good clients: a client that cancels thousands of calls a second
//! is a good client, one that opens a connection and says nothing is not.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::authority::Repairer;
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

/// The headers of one request, decoded. Larger ones get status 431.
const HEADERS_MAX: u32 = 64 * 1024;

/// Bytes on their way in that a stream may have unread: a whole request of the usual size.
const STREAM_WINDOW: u32 = 1 << 20;

/// The same for all streams of a connection together.
const CONNECTION_WINDOW: u32 = 8 << 20;

/// Bytes on their way out that a stream may have unsent.
const SEND_BUFFER_MAX: usize = 256 * 1024;

/// Streams that a client opened and reset before they were answered. hyper's own limit of 20 cuts off clients that
/// merely cancel a lot; the answers that are still being made for them are bounded by this.
const RESET_STREAMS_MAX: usize = 4096;

/// An idle HTTP/2 connection is asked whether its client still lives.
const PING_INTERVAL: Duration = Duration::from_secs(60);

/// The client must answer within this time.
const PING_TIMEOUT: Duration = Duration::from_secs(30);

/// What a refused `accept` costs: usually there are no file descriptors left, and trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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
    stream: TcpStream,
    peer: SocketAddr,
    mut stopping: watch::Receiver<bool>,
) {
    // Small replies must not wait for company.
    let _ = stream.set_nodelay(true);
    let spoken = Arc::new(AtomicBool::new(false));
    let io =
        TokioIo::new(Incoming { stream, received: 0, spoken: spoken.clone(), repairer: Repairer::new() });
    let front_of_requests = front.clone();
    let service = service_fn(move |request| {
        let front = front_of_requests.clone();
        async move { Ok::<_, std::convert::Infallible>(route(&front, request).await) }
    });
    let builder = builder(front.limits);
    let mut connection = std::pin::pin!(builder.serve_connection(io, service));
    let mut silent = std::pin::pin!(tokio::time::sleep(front.limits.header_timeout));
    let mut watching_silence = true;
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%peer, %error, "a client's connection ended badly");
                }
                return;
            }
            () = silent.as_mut(), if watching_silence => {
                if !spoken.load(Ordering::Relaxed) {
                    return;
                }
                watching_silence = false;
            }
            _ = stopping.wait_for(|stop| *stop) => break,
        }
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(front.limits.drain, connection).await;
}

fn builder(limits: ConnectionLimits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Date is told in `route`, which bears any clock.
    builder.http1().auto_date_header(false);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.header_timeout);
    builder
        .http2()
        .auto_date_header(false)
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .max_local_error_reset_streams(RESET_STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER_MAX)
        .max_header_list_size(HEADERS_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
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

/// A client's bytes, as hyper gets to see them: it notices when the client has said enough to tell what it speaks (hyper waits
/// for that without a timer), and repairs what old clients get wrong.
struct Incoming {
    stream: TcpStream,
    received: usize,
    spoken: Arc<AtomicBool>,
    repairer: Repairer,
}

/// The length of HTTP/2's preface.
const PREFACE: usize = 24;

impl AsyncRead for Incoming {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let kept = this.repairer.take(buffer.remaining());
            if !kept.is_empty() {
                buffer.put_slice(&kept);
                return Poll::Ready(Ok(()));
            }
            let before = buffer.filled().len();
            match Pin::new(&mut this.stream).poll_read(context, buffer) {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
            let arrived = buffer.filled().len() - before;
            if this.received < PREFACE {
                this.received += arrived;
                if this.received >= PREFACE {
                    this.spoken.store(true, Ordering::Relaxed);
                }
            }
            if this.repairer.is_blind() {
                return Poll::Ready(Ok(()));
            }
            if arrived == 0 {
                // The end; unless something was kept, and then the end is read again after it.
                this.repairer.end();
                let kept = this.repairer.take(buffer.remaining());
                buffer.put_slice(&kept);
                return Poll::Ready(Ok(()));
            }
            let pass = this.repairer.look(&buffer.filled()[before..]);
            buffer.set_filled(before + pass);
            if pass > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Incoming {
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
