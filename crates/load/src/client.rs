//! One call at a time: what commands need.
//!
//! A call is made once and never again by itself: whether a write that got no answer was carried out is unknown, and only its caller can
//! say what to do then (the lesson of clients that retried transactions).

use std::future::poll_fn;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Result, anyhow};
use prost::Message;
use synod_api::Method;

use crate::drive::Line;
use crate::wire::{Heard, Wants};
use crate::workload::framed;

/// How long [`call`] waits for an answer.
const CALL_MAX: Duration = Duration::from_secs(60);

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The server's refusal, in its own words.
    #[error("{0}")]
    Refused(String),
    /// The connection was lost, or what came is no answer; a write may have been carried out.
    #[error("{0:#}")]
    Lost(anyhow::Error),
}

/// A connection for one call after the other.
pub struct Client {
    line: Line,
    endpoint: SocketAddr,
}

impl Client {
    /// Connects to the first endpoint that takes connections; every request carries `metadata`.
    ///
    /// # Errors
    /// When none of them does.
    pub async fn connect(endpoints: &[SocketAddr], metadata: Vec<(String, String)>) -> Result<Client> {
        let mut last = anyhow!("no endpoint is given");
        for endpoint in endpoints {
            match Line::connect(*endpoint).await {
                Ok(mut line) => {
                    line.wire.set_metadata(metadata);
                    return Ok(Client { line, endpoint: *endpoint });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Where this goes.
    #[must_use]
    pub fn endpoint(&self) -> SocketAddr {
        self.endpoint
    }

    /// A call with one answer.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn call<M: Message + Default>(
        &mut self,
        method: Method,
        request: &impl Message,
    ) -> Result<M, CallError> {
        self.line.wire.begin(&framed(method, request), 0, Wants::Answer);
        let mut answer = Vec::new();
        self.listen(|heard| match heard {
            Heard::Message { .. } => ControlFlow::Continue(()),
            Heard::Ended { failure, message, .. } => {
                answer = message;
                ControlFlow::Break(failure)
            }
        })
        .await?;
        M::decode(&answer[..]).map_err(|error| CallError::Lost(error.into()))
    }

    /// A call with many answers, until it ends or `on` has heard enough.
    ///
    /// # Errors
    /// How it ended, if not well.
    pub async fn stream<M: Message + Default>(
        &mut self,
        method: Method,
        request: &impl Message,
        mut on: impl FnMut(M) -> ControlFlow<()>,
    ) -> Result<(), CallError> {
        self.line.wire.begin(&framed(method, request), 0, Wants::Messages);
        let mut wrong = None;
        self.listen(|heard| match heard {
            Heard::Message { message } => match M::decode(message) {
                Ok(message) => on(message).map_break(|()| None),
                Err(error) => {
                    wrong = Some(error);
                    ControlFlow::Break(None)
                }
            },
            Heard::Ended { failure, .. } => ControlFlow::Break(failure),
        })
        .await?;
        wrong.map_or(Ok(()), |error| Err(CallError::Lost(error.into())))
    }

    /// Reads and writes until `on` breaks off, with the server's refusal or without.
    async fn listen(
        &mut self,
        mut on: impl FnMut(Heard<'_>) -> ControlFlow<Option<String>>,
    ) -> Result<(), CallError> {
        let line = &mut self.line;
        let mut ended = None;
        let lost = poll_fn(|context| -> Poll<Result<()>> {
            loop {
                if let Err(error) = line.poll_write(context) {
                    return Poll::Ready(Err(error));
                }
                let read = line.poll_read(context, &mut |heard| {
                    if ended.is_none()
                        && let ControlFlow::Break(how) = on(heard)
                    {
                        ended = Some(how);
                    }
                });
                match read {
                    // What was heard before the connection was lost counts.
                    _ if ended.is_some() => return Poll::Ready(Ok(())),
                    Err(error) => return Poll::Ready(Err(error)),
                    Ok(true) => {}
                    Ok(false) => return Poll::Pending,
                }
            }
        });
        lost.await.map_err(CallError::Lost)?;
        match ended.flatten() {
            None => Ok(()),
            Some(refusal) => Err(CallError::Refused(refusal)),
        }
    }
}

/// One unary call on a connection of its own.
///
/// # Errors
/// When there is no answer in a minute, or it is a failure; in the server's words.
pub async fn call<M: Message + Default>(
    endpoint: SocketAddr,
    method: Method,
    request: &impl Message,
) -> Result<M> {
    let mut client = Client::connect(&[endpoint], Vec::new()).await?;
    match tokio::time::timeout(CALL_MAX, client.call(method, request)).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(anyhow!("{endpoint} did not answer {} in a minute", method.name())),
    }
}
