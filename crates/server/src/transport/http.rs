//! The few HTTP pages on the peer port that tools look at: `GET /version` and `GET /members`; and the one that a
//! member which joins asks first.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{CONNECT_MAX, Inbound, STALL_MAX};

/// No request line and headers are longer.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// Answers one request and closes.
pub(super) async fn answer(
    mut stream: TcpStream,
    mut head: BytesMut,
    inbound: &dyn Inbound,
) -> io::Result<()> {
    let reading = async {
        while !head.windows(4).any(|four| four == b"\r\n\r\n") {
            if head.len() > HEAD_BYTES_MAX {
                return Ok(false);
            }
            if stream.read_buf(&mut head).await? == 0 {
                return Ok(false);
            }
        }
        Ok::<bool, io::Error>(true)
    };
    let whole = timeout(CONNECT_MAX, reading).await??;
    let line = head[..].split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line).into_owned();
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let (status, body) = match (whole, method, path) {
        (false, _, _) => ("431 Request Header Fields Too Large", String::new()),
        (_, "GET" | "HEAD", "/version") => ("200 OK", inbound.version_json()),
        (_, "GET" | "HEAD", "/synod/cluster") => ("200 OK", inbound.cluster_json()),
        (_, "GET" | "HEAD", "/members") => ("200 OK", inbound.members_json()),
        (_, "GET" | "HEAD", _) => ("404 Not Found", "404 page not found\n".to_owned()),
        _ => ("405 Method Not Allowed", "Method Not Allowed\n".to_owned()),
    };
    let shown = if method == "HEAD" { "" } else { body.as_str() };
    let reply = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{shown}",
        body.len()
    );
    timeout(STALL_MAX, stream.write_all(reply.as_bytes())).await??;
    stream.shutdown().await
}
