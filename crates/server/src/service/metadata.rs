//! What a client says beside the message itself: gRPC metadata, or HTTP headers at the gateway.

use std::time::Duration;

use http::HeaderMap;

use crate::status::{self, Code, Status};

/// The level at which a read is answered (design section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Sees everything that was acknowledged anywhere before the call.
    Linearizable,
    /// What is here, now.
    Eventual,
}

/// The metadata of one call, as far as it means something here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// `hasleader: true`: fail at once, and end streams, while there is no leader.
    pub leader_required: bool,
    /// `synod-consistency`.
    pub consistency: Option<Consistency>,
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
            match name.strip_prefix("grpc-metadata-").unwrap_or(name) {
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
                "synod-session" => return Err(unsupported("synod-session")),
                "synod-max-staleness" => return Err(unsupported("synod-max-staleness")),
                _ => {}
            }
        }
        Ok(metadata)
    }

    /// `client-api-version`, or the beginning of it.
    #[must_use]
    pub fn client_version(&self) -> Option<&str> {
        let version = &self.client_version;
        if version.length == 0 { None } else { std::str::from_utf8(&version.bytes[..version.length]).ok() }
    }
}

fn unsupported(name: &str) -> Status {
    Status::new(Code::Unimplemented, format!("synod: {name} is not supported by this release"))
}

fn parse_consistency(value: &[u8]) -> Result<Consistency, Status> {
    match value {
        b"linearizable" => Ok(Consistency::Linearizable),
        b"eventual" => Ok(Consistency::Eventual),
        b"sequential" | b"causal" => Err(Status::new(
            Code::FailedPrecondition,
            format!(
                "synod: this release does not answer reads at the level {}; it offers linearizable and eventual",
                String::from_utf8_lossy(value)
            ),
        )),
        _ => Err(Status::new(
            Code::InvalidArgument,
            "synod: synod-consistency must be linearizable, sequential, causal or eventual",
        )),
    }
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

    /// A level that this release does not have is refused by name; nonsense is refused as nonsense; nothing is ignored.
    #[test]
    fn levels_are_honoured_or_refused() {
        let level = |text: &str| read("synod-consistency", text.as_bytes());
        assert_eq!(level("linearizable").unwrap().consistency, Some(Consistency::Linearizable));
        assert_eq!(level("eventual").unwrap().consistency, Some(Consistency::Eventual));
        assert!(level("causal").unwrap_err().message.contains("causal"));
        assert_eq!(level("sequential").unwrap_err().code, Code::FailedPrecondition);
        assert_eq!(level("Linearizable").unwrap_err().code, Code::InvalidArgument);
        assert_eq!(read("synod-session", b"x").unwrap_err().code, Code::Unimplemented);
        assert_eq!(read("synod-max-staleness", b"1s").unwrap_err().code, Code::Unimplemented);
        assert_eq!(read("client-api-version", b"\xff").unwrap_err(), status::invalid_client_api_version());
        assert!(read("hasleader", b"true").unwrap().leader_required);
    }
}
