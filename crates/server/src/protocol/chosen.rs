//! What a person chose for a protocol's own flags: a value for each of them, given or default.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Row;
use crate::config::{ConfigError, Kind, units};

/// The values of one protocol's flags. Asking for a flag that its row does not have is a bug, and says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen(BTreeMap<&'static str, String>);

impl Chosen {
    /// What nobody has touched.
    #[must_use]
    pub fn defaults(row: &Row) -> Chosen {
        Chosen(row.flags.iter().map(|flag| (flag.name, flag.default.to_owned())).collect())
    }

    /// The defaults but for these.
    ///
    /// # Errors
    /// When a flag is not one of this protocol's.
    pub fn of(row: &Row, given: &[(&str, &str)]) -> Result<Chosen, ConfigError> {
        let mut chosen = Chosen::defaults(row);
        for (name, value) in given {
            let Some(flag) = row.flags.iter().find(|flag| flag.name == *name) else {
                return Err(ConfigError::new(format!("--{name} is no flag of --protocol={}", row.name)));
            };
            if flag.kind == Kind::Switch {
                units::boolean(name, value)?;
            }
            chosen.0.insert(flag.name, (*value).to_owned());
        }
        Ok(chosen)
    }

    /// The value as it was written.
    ///
    /// # Panics
    /// When the row has no such flag.
    #[must_use]
    pub fn text(&self, flag: &str) -> &str {
        self.0.get(flag).unwrap_or_else(|| panic!("the protocol's row has no flag --{flag}"))
    }

    /// A switch.
    ///
    /// # Errors
    /// One sentence that says what is allowed.
    pub fn switch(&self, flag: &str) -> Result<bool, ConfigError> {
        units::boolean(flag, self.text(flag))
    }

    /// A whole number in `min..=max`.
    ///
    /// # Errors
    /// One sentence that says what is allowed.
    pub fn integer(&self, flag: &str, min: i64, max: i64) -> Result<i64, ConfigError> {
        units::integer(flag, self.text(flag), min, max)
    }

    /// A span such as `500ms`.
    ///
    /// # Errors
    /// One sentence that says what is allowed.
    pub fn span(&self, flag: &str) -> Result<Duration, ConfigError> {
        units::duration(flag, self.text(flag))
    }

    /// One of these words.
    ///
    /// # Errors
    /// One sentence that says what is allowed.
    pub fn word<T: Copy>(&self, flag: &str, allowed: &[(&str, T)]) -> Result<T, ConfigError> {
        let value = self.text(flag);
        allowed.iter().find(|(word, _)| *word == value).map(|(_, meaning)| *meaning).ok_or_else(|| {
            let words: Vec<_> = allowed.iter().map(|(word, _)| *word).collect();
            ConfigError::new(format!("--{flag}={value}: allowed is {}", words.join(" or ")))
        })
    }
}
