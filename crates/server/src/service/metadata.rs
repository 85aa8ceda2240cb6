//! What a client says beside the message itself: gRPC metadata, or HTTP headers at the gateway.
//!
//! `synod-consistency`, `synod-session` and `synod-max-staleness` are ours. Whoever says any of them gets a token back; a stock client
//! says none, and pays for none.

use std::time::Duration;

use http::HeaderMap;

use super::session::{self, Token};
use crate::config::units;
use crate::contract::Level;
use crate::status::{self, Code, Status};

/// The metadata of one call, as far as it means something here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// `hasleader: true`: fail at once, and end streams, while there is no leader.
    pub leader_required: bool,
    /// `synod-consistency`.
    pub consistency: Option<Level>,
    /// `synod-session`: what the client has seen.
    pub session: Vec<Token>,
    /// `synod-max-staleness`.
    pub staleness_max: Option<Duration>,
    /// Whether the reply is to carry a token.
    pub wants_token: bool,
    /// `grpc-timeout`.
    pub timeout: Option<Duration>,
    client_version: ClientVersion,
}

/// The beginning of `client-api-version`, for the metrics alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ClientVersion {
    bytes: [u8; CLIENT_VERSION_MAX],
    length: usize,
}

/// Longer version names than this are cut for the metrics.
const CLIENT_VERSION_MAX: usize = 16;

impl Metadata {
    /// Reads the headers in one pass; unknown ones are not our business.
    ///
    /// # Errors
    /// For a value that would change the meaning of the call but is not understood: it is never silently ignored.
    pub fn read(headers: &HeaderMap) -> Result<Metadata, Status> {
        let mut metadata = Metadata::default();
        for (name, value) in headers {
            let name = name.as_str();
            // So the gateway's clients may say it, too.
            let name = name.strip_prefix("grpc-metadata-").unwrap_or(name);
            let ours = name.starts_with("synod-");
            match name {
                "hasleader" => metadata.leader_required = value == "true",
                "grpc-timeout" => metadata.timeout = Some(parse_timeout(value.as_bytes())?),
                "client-api-version" => {
                    let version = std::str::from_utf8(value.as_bytes())
                        .map_err(|_| status::invalid_client_api_version())?;
                    let cut = version.floor_char_boundary(CLIENT_VERSION_MAX);
                    metadata.client_version.length = cut;
                    metadata.client_version.bytes[..cut].copy_from_slice(&version.as_bytes()[..cut]);
                }
                "synod-consistency" => metadata.consistency = Some(parse_consistency(value.as_bytes())?),
                session::HEADER => session::read(value.as_bytes(), &mut metadata.session)?,
                "synod-max-staleness" => metadata.staleness_max = Some(parse_staleness(value.as_bytes())?),
                _ => continue,
            }
            metadata.wants_token |= ours;
        }
        Ok(metadata)
    }

    /// The level of a read, when the request itself says whether a stale answer will do (etcd's `serializable`).
    #[must_use]
    pub fn level(&self, serializable: bool) -> Level {
        match self.consistency {
            Some(level) => level,
            // Who bounds staleness is content with less than no staleness at all.
            None if serializable || self.staleness_max.is_some() => Level::Eventual,
            None => Level::Linearizable,
        }
    }

    /// `client-api-version`, or the beginning of it.
    #[must_use]
    pub fn client_version(&self) -> Option<&str> {
        let version = &self.client_version;
        if version.length == 0 { None } else { std::str::from_utf8(&version.bytes[..version.length]).ok() }
    }
}

fn parse_consistency(value: &[u8]) -> Result<Level, Status> {
    Level::named(value).ok_or_else(|| {
        Status::new(
            Code::InvalidArgument,
            "synod: synod-consistency must be linearizable, sequential, causal or eventual",
        )
    })
}

fn parse_staleness(value: &[u8]) -> Result<Duration, Status> {
    let text = std::str::from_utf8(value).unwrap_or("?");
    units::duration("synod-max-staleness", text).map_err(|_| {
        Status::new(
            Code::InvalidArgument,
            "synod: synod-max-staleness must be a span such as 500ms, 2s or 1m",
        )
    })
}

/// `grpc-timeout`: at most eight digits and a unit.
fn parse_timeout(value: &[u8]) -> Result<Duration, Status> {
    let wrong = || Status::new(Code::InvalidArgument, "malformed grpc-timeout");
    let (unit, digits) = value.split_last().ok_or_else(wrong)?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(wrong());
    }
    let number = digits.iter().fold(0u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    Ok(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return Err(wrong()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn read(name: &'static str, value: &[u8]) -> Result<Metadata, Status> {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_bytes(value).unwrap());
        Metadata::read(&headers)
    }

    /// Deadlines of every unit are understood, and nothing else is taken for one.
    #[test]
    fn timeouts() {
        for (text, nanos) in [
            ("1H", 3_600_000_000_000u64),
            ("2M", 120_000_000_000),
            ("3S", 3_000_000_000),
            ("4m", 4_000_000),
            ("5u", 5_000),
            ("6n", 6),
            ("99999999n", 99_999_999),
        ] {
            assert_eq!(
                read("grpc-timeout", text.as_bytes()).unwrap().timeout,
                Some(Duration::from_nanos(nanos))
            );
        }
        for bad in ["", "S", "1", "1s", "-1S", "999999999S", "1.5S"] {
            assert_eq!(
                read("grpc-timeout", bad.as_bytes()).unwrap_err().code,
                Code::InvalidArgument,
                "{bad}"
            );
        }
    }

    /// Levels, tokens and spans are understood, or refused as nonsense; nothing is ignored, and only who says one gets a token.
    #[test]
    fn levels_are_honoured_or_refused() {
        let level = |text: &str| read("synod-consistency", text.as_bytes());
        for wanted in Level::ALL {
            let metadata = level(wanted.name()).unwrap();
            assert_eq!((metadata.consistency, metadata.wants_token), (Some(wanted), true));
            assert_eq!(metadata.level(true), wanted, "who names a level means it");
        }
        assert_eq!(level("Linearizable").unwrap_err().code, Code::InvalidArgument);
        assert_eq!(read("synod-session", b"x").unwrap_err().code, Code::InvalidArgument);
        assert!(read("synod-session", b"").unwrap().wants_token);
        let bounded = read("synod-max-staleness", b"1s500ms").unwrap();
        assert_eq!(bounded.staleness_max, Some(Duration::from_millis(1500)));
        assert_eq!(bounded.level(false), Level::Eventual);
        for bad in ["", "5", "-1s", "soon", "\u{fc}"] {
            let wrong = read("synod-max-staleness", bad.as_bytes()).unwrap_err();
            assert_eq!(wrong.code, Code::InvalidArgument, "{bad}");
        }
        assert_eq!(read("client-api-version", b"\xff").unwrap_err(), status::invalid_client_api_version());
        let stock = read("hasleader", b"true").unwrap();
        assert!(stock.leader_required && !stock.wants_token);
        assert_eq!((stock.level(false), stock.level(true)), (Level::Linearizable, Level::Eventual));
    }
}
