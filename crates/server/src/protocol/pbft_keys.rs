//! The key files of PBFT: a secret key of 64 hex digits, and the public keys of all, a line `NAME KEY` for each member.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use synod_protocols::pbft::Keys;

use crate::config::ConfigError;

/// A key file is small: whatever is longer is something else.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Makes a secret key and its public key from the system's randomness.
///
/// # Errors
/// When there is none.
pub fn generate() -> std::io::Result<([u8; 32], [u8; 32])> {
    let mut secret = [0; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut secret)?;
    Ok((secret, Keys::public_of(secret)))
}

/// Writes a secret key, for its owner's eyes alone; never over another one.
///
/// # Errors
/// When the file is there already, or cannot be written.
pub fn write_secret(path: &Path, secret: &[u8; 32]) -> std::io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all((hex(secret) + "\n").as_bytes())?;
    file.sync_all()
}

/// The file of public keys.
#[must_use]
pub fn public_text(keys: &BTreeMap<String, [u8; 32]>) -> String {
    let mut text =
        "# The public keys of all members, the same file for each. See `synod keygen`.\n".to_owned();
    for (name, key) in keys {
        let _ = writeln!(text, "{name} {}", hex(key));
    }
    text
}

/// Reads a member's secret key.
///
/// # Errors
/// One sentence: which file, what is wrong, and what is allowed.
pub fn read_secret(path: &Path) -> Result<[u8; 32], ConfigError> {
    let text = read(path, "the secret key")?;
    let mode = fs::metadata(path).map(|metadata| metadata.permissions().mode()).unwrap_or_default();
    if mode & 0o077 != 0 {
        return Err(ConfigError::new(format!(
            "{}: others may read this secret key (mode {:03o}); allowed is 600",
            path.display(),
            mode & 0o777
        )));
    }
    unhex(text.trim()).ok_or_else(|| {
        ConfigError::new(format!("{}: a secret key of 64 hex digits was expected", path.display()))
    })
}

/// Reads the public keys of all members.
///
/// # Errors
/// One sentence: which file and line, what is wrong, and what is allowed.
pub fn read_public(path: &Path) -> Result<BTreeMap<String, [u8; 32]>, ConfigError> {
    let text = read(path, "the public keys of all members")?;
    let mut keys = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |what: &str| ConfigError::new(format!("{}:{}: {what}", path.display(), number + 1));
        let key = line.split_once(' ').and_then(|(name, key)| Some((name, unhex(key.trim())?)));
        let Some((name, key)) = key else {
            return Err(wrong("a member's name and 64 hex digits were expected"));
        };
        if keys.values().any(|known| *known == key) {
            return Err(wrong("two members have the same key; each needs its own"));
        }
        if keys.insert(name.to_owned(), key).is_some() {
            return Err(wrong(&format!("{name} is there twice")));
        }
    }
    Ok(keys)
}

fn read(path: &Path, what: &str) -> Result<String, ConfigError> {
    let wrong = |why: &str| {
        ConfigError::new(format!(
            "{}: {what} cannot be read: {why}; `synod keygen` makes both files",
            path.display()
        ))
    };
    let metadata = fs::metadata(path).map_err(|error| wrong(&error.to_string()))?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return Err(wrong("it is no small file"));
    }
    fs::read_to_string(path).map_err(|error| wrong(&error.to_string()))
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[place * 2..place * 2 + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys come back as they were written; a file that is missing, open to others or malformed is refused with the reason.
    #[test]
    fn key_files_are_read_back_or_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("n1.key");
        let (secret, public) = generate().expect("the system has randomness");
        write_secret(&path, &secret).expect("it can be written");
        assert!(write_secret(&path, &secret).is_err(), "a key is never overwritten");
        assert_eq!(read_secret(&path).expect("it can be read"), secret);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("it is ours");
        assert!(read_secret(&path).expect_err("others may read it").to_string().contains("mode 644"));
        let missing = read_secret(&folder.path().join("none")).expect_err("it is not there").to_string();
        assert!(missing.contains("synod keygen"), "{missing}");

        let all = folder.path().join("pbft.keys");
        let keys = BTreeMap::from([("n1".to_owned(), public), ("n2".to_owned(), Keys::public_of([2; 32]))]);
        fs::write(&all, public_text(&keys)).expect("it can be written");
        assert_eq!(read_public(&all).expect("it can be read"), keys);
        let says = |text: &str| {
            fs::write(&all, text).expect("it can be written");
            read_public(&all).expect_err("it is malformed").to_string()
        };
        assert!(says("n1 abc").contains("pbft.keys:1: a member's name and 64 hex digits"));
        let twice = format!("n1 {0}\nn2 {0}\n", hex(&public));
        assert!(says(&twice).contains("pbft.keys:2: two members have the same key"));
    }
}
