//! systemd's readiness protocol: one datagram to the socket that `NOTIFY_SOCKET` names.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Tells systemd that this unit is ready, or about to stop; nothing happens where nobody listens.
pub(crate) fn tell(state: State) {
    if let Some(path) = env::var_os("NOTIFY_SOCKET")
        && let Err(error) = send(&path.to_string_lossy(), state)
    {
        tracing::warn!(%error, "cannot tell systemd about the state");
    }
}

/// What systemd wants to know.
#[derive(Clone, Copy, Debug)]
pub(crate) enum State {
    /// Serving.
    Ready,
    /// Leaving.
    Stopping,
}

fn send(path: &str, state: State) -> io::Result<()> {
    let words = match state {
        State::Ready => "READY=1",
        State::Stopping => "STOPPING=1",
    };
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(words.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The datagram that systemd waits for arrives at the socket that it names.
    #[test]
    fn readiness_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("bound");
        send(&path.to_string_lossy(), State::Ready).expect("sent");
        let mut word = [0; 32];
        let length = socket.recv(&mut word).expect("received");
        assert_eq!(&word[..length], b"READY=1");
    }
}
