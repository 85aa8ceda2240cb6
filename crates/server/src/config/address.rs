//! Addresses as etcd writes them: `http://host:port`, lists of them, and where they may be bound.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::ConfigError;

/// One `http://host:port`.
///
/// Invariant: the port is not 0 and nothing follows it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl Address {
    /// Reads one URL of the flag `flag`.
    ///
    /// # Errors
    /// One sentence: what is wrong, and what would be right.
    pub fn parse(flag: &str, text: &str) -> Result<Address, ConfigError> {
        let wrong = |why: &str| {
            ConfigError::new(format!(
                "--{flag}: '{text}': {why}; allowed is http://HOST:PORT with a port from 1 to 65535"
            ))
        };
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(wrong("the scheme is missing"));
        };
        match scheme {
            "http" => {}
            "https" | "unixs" => return Err(wrong("TLS is not supported yet")),
            "unix" => return Err(wrong("unix sockets are not supported yet")),
            _ => return Err(wrong("the scheme is unknown")),
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@']) {
            return Err(wrong("nothing may stand around host and port"));
        }
        let (host, port) = match rest.strip_prefix('[') {
            Some(bracketed) => {
                let (host, port) = bracketed.split_once(']').ok_or_else(|| wrong("the ']' is missing"))?;
                host.parse::<Ipv6Addr>().map_err(|_| wrong("this is not an IPv6 address"))?;
                (host, port.strip_prefix(':').ok_or_else(|| wrong("the port is missing"))?)
            }
            None => {
                let (host, port) = rest.rsplit_once(':').ok_or_else(|| wrong("the port is missing"))?;
                if host.contains(':') {
                    return Err(wrong("an IPv6 address needs brackets"));
                }
                (host, port)
            }
        };
        if host.is_empty() {
            return Err(wrong("the host is missing"));
        }
        if host.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(wrong("the host holds white space"));
        }
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        match port.parse::<u16>() {
            Ok(port) if digits && port > 0 => Ok(Address { host: host.to_owned(), port }),
            _ => Err(wrong("the port is out of range")),
        }
    }

    /// The socket addresses to listen at; for `localhost` the loopback.
    ///
    /// # Errors
    /// When the host is a name: one listens at addresses.
    pub fn to_bind(&self, flag: &str) -> Result<SocketAddr, ConfigError> {
        if self.host == "localhost" {
            return Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.port));
        }
        match self.host.parse::<IpAddr>() {
            Ok(ip) => Ok(SocketAddr::new(ip, self.port)),
            Err(_) => Err(ConfigError::new(format!(
                "--{flag}: '{self}': expected an IP address or localhost to listen at, not a name"
            ))),
        }
    }

    /// `host:port`, with brackets around IPv6: what connecting wants.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// A comma-separated list of URLs; empty text is an empty list.
///
/// # Errors
/// For the first bad URL, and for one that stands there twice.
pub(crate) fn list(flag: &str, text: &str) -> Result<Vec<Address>, ConfigError> {
    let mut addresses = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let address = Address::parse(flag, part)?;
        if addresses.contains(&address) {
            return Err(ConfigError::new(format!("--{flag}: '{address}' stands there twice")));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

/// As [`list`], of addresses to listen at; at least one.
///
/// # Errors
/// As [`list`], and for an empty list or a host that is a name.
pub(crate) fn bind_list(flag: &str, text: &str) -> Result<Vec<Address>, ConfigError> {
    let addresses = list(flag, text)?;
    if addresses.is_empty() {
        return Err(ConfigError::new(format!(
            "--{flag}: there is no address; allowed is http://HOST:PORT,..."
        )));
    }
    for address in &addresses {
        address.to_bind(flag)?;
    }
    Ok(addresses)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Good addresses come back as they were written; bad ones get a sentence that names the fault.
    #[test]
    fn addresses_good_and_bad() {
        for good in
            ["http://127.0.0.1:2379", "http://localhost:1", "http://[::1]:65535", "http://a.example:80"]
        {
            assert_eq!(Address::parse("f", good).unwrap().to_string(), good);
        }
        for (bad, why) in [
            ("127.0.0.1:2379", "scheme is missing"),
            ("ftp://a:1", "scheme is unknown"),
            ("https://a:1", "TLS"),
            ("unix://a:1", "unix sockets"),
            ("http://a", "port is missing"),
            ("http://a:0", "out of range"),
            ("http://a:65536", "out of range"),
            ("http://a:+1", "out of range"),
            ("http://:2379", "host is missing"),
            ("http://::1:2379", "brackets"),
            ("http://[::1:2379", "']' is missing"),
            ("http://[zz]:2379", "not an IPv6"),
            ("http://a:1/path", "around host and port"),
        ] {
            let wrong = Address::parse("f", bad).unwrap_err().to_string();
            assert!(wrong.contains(why), "{bad}: {wrong}");
        }
        assert!(Address::parse("f", "http://a.example:80").unwrap().to_bind("f").is_err());
        assert!(list("f", "http://a:1,http://a:1").unwrap_err().to_string().contains("twice"));
    }
}
