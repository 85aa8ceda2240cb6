//! A gRPC client that can also misbehave, and a plain HTTP/1.1 one.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use prost::Message;
use synod_api::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Nothing here takes long; what takes this long hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(PATIENCE, what).await.expect("it hangs")
}

/// What a call ended with.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    pub(crate) http: u16,
    pub(crate) code: Option<u32>,
    pub(crate) message: String,
    pub(crate) messages: Vec<Bytes>,
    /// `synod-session`, from the headers or the trailers.
    pub(crate) token: Option<String>,
    /// `synod-confirmations`, likewise.
    pub(crate) confirmations: Option<String>,
}

impl Ended {
    pub(crate) fn one<M: Message + Default>(&self) -> M {
        assert_eq!((self.code, self.messages.len()), (Some(0), 1), "{}", self.message);
        M::decode(self.messages[0].clone()).unwrap()
    }

    pub(crate) fn failed(&self) -> (u32, &str) {
        (self.code.expect("a gRPC status"), &self.message)
    }
}

pub(crate) struct Grpc {
    send: SendRequest<Bytes>,
}

pub(crate) fn framed(message: &[u8]) -> Bytes {
    let mut out = vec![0];
    out.extend_from_slice(&(message.len() as u32).to_be_bytes());
    out.extend_from_slice(message);
    out.into()
}

impl Grpc {
    pub(crate) async fn connect(address: SocketAddr) -> Grpc {
        let stream = TcpStream::connect(address).await.unwrap();
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(1 << 20)
            .initial_connection_window_size(16 << 20)
            .handshake(stream)
            .await
            .unwrap();
        tokio::spawn(connection);
        Grpc { send }
    }

    /// Opens a call with these headers beside the usual ones; `content-type` may be among them.
    pub(crate) async fn open(&self, path: &str, headers: &[(&str, &str)]) -> Call {
        let mut request = Request::post(format!("http://localhost{path}")).header("te", "trailers");
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/grpc");
        }
        for (name, value) in headers {
            request = request.header(*name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let mut send = soon(self.send.clone().ready()).await.unwrap();
        let (response, body) = send.send_request(request.body(()).unwrap(), false).unwrap();
        Call {
            response: Some(response),
            send: body,
            receive: None,
            held: BytesMut::new(),
            ended: Ended::default(),
        }
    }

    /// Calls a path with a body as it is.
    pub(crate) async fn raw(&self, path: &str, headers: &[(&str, &str)], body: Bytes) -> Ended {
        let mut call = self.open(path, headers).await;
        // The server may have answered before it has heard everything.
        let _ = call.send.send_data(body, true);
        call.end().await
    }

    pub(crate) async fn with(
        &self,
        method: Method,
        headers: &[(&str, &str)],
        message: &impl Message,
    ) -> Ended {
        self.raw(method.path(), headers, framed(&message.encode_to_vec())).await
    }

    pub(crate) async fn call(&self, method: Method, message: &impl Message) -> Ended {
        self.with(method, &[], message).await
    }
}

/// A call under way.
pub(crate) struct Call {
    response: Option<h2::client::ResponseFuture>,
    pub(crate) send: SendStream<Bytes>,
    receive: Option<RecvStream>,
    held: BytesMut,
    ended: Ended,
}

impl Call {
    pub(crate) fn say(&mut self, message: &impl Message) {
        self.send.send_data(framed(&message.encode_to_vec()), false).unwrap();
    }

    /// The next message; `None` at the end, which [`Call::end`] tells about.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        if let Some(response) = self.response.take() {
            let response = soon(response).await.unwrap();
            self.ended.http = response.status().as_u16();
            self.note(response.headers());
            self.receive = Some(response.into_body());
        }
        loop {
            if self.held.len() >= 5 {
                let length =
                    u32::from_be_bytes([self.held[1], self.held[2], self.held[3], self.held[4]]) as usize;
                if self.held.len() >= 5 + length {
                    let message = self.held.split_to(5 + length).freeze();
                    return Some(message.slice(5..));
                }
            }
            let receive = self.receive.as_mut()?;
            match soon(receive.data()).await {
                Some(Ok(data)) => {
                    let _ = receive.flow_control().release_capacity(data.len());
                    self.held.extend_from_slice(&data);
                }
                Some(Err(error)) => {
                    self.ended.message = error.to_string();
                    return None;
                }
                None => {
                    if let Some(trailers) = soon(receive.trailers()).await.unwrap() {
                        self.note(&trailers);
                    }
                    self.receive = None;
                    return None;
                }
            }
        }
    }

    pub(crate) async fn read<M: Message + Default>(&mut self) -> M {
        let message = self.next().await;
        M::decode(message.unwrap_or_else(|| panic!("the stream ended: {:?}", self.ended))).unwrap()
    }

    pub(crate) async fn end(mut self) -> Ended {
        while let Some(message) = self.next().await {
            self.ended.messages.push(message);
        }
        self.ended
    }

    fn note(&mut self, headers: &HeaderMap) {
        if let Some(code) = headers.get("grpc-status") {
            self.ended.code = Some(code.to_str().unwrap().parse().unwrap());
        }
        if let Some(token) = headers.get("synod-session") {
            self.ended.token = Some(token.to_str().unwrap().to_owned());
        }
        if let Some(confirmations) = headers.get("synod-confirmations") {
            self.ended.confirmations = Some(confirmations.to_str().unwrap().to_owned());
        }
        if let Some(message) = headers.get("grpc-message") {
            self.ended.message = message.to_str().unwrap().to_owned();
        }
    }
}

/// The answer to a plain HTTP request.
#[derive(Debug)]
pub(crate) struct Plain {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Plain {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }
}

/// Sends bytes as they are, and reads until the server closes.
pub(crate) async fn send(address: SocketAddr, request: impl AsRef<[u8]>) -> Plain {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may answer, and close, before it has taken everything.
    let _ = stream.write_all(request.as_ref()).await;
    let mut answer = Vec::new();
    let _ = soon(stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    // An interim answer is none.
    let answer = answer.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Plain { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Plain {
    send(address, format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")).await
}

pub(crate) async fn post(address: SocketAddr, path: &str, body: &str) -> Plain {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    send(address, head + body).await
}
