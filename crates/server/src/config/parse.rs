//! From words to values by flag name: Go's flag syntax, and the `ETCD_*` environment.
//!
//! `-name` and `--name`, `--name=value` and `--name value`; a switch takes a value only behind the equals
//! sign. The last of several wins. A flag that is set on the command line *and* in the environment is an
//! error, as upstream: one of the two would be silently lost.

use std::collections::BTreeMap;

use super::ConfigError;
use super::flag::{self, Flag, Kind, Support};
use super::units;

/// The values that somebody set, by flag name.
#[derive(Clone, Debug, Default)]
pub struct Values {
    set: BTreeMap<&'static str, (String, From)>,
    warnings: Vec<String>,
}

/// Who set a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    CommandLine,
    Environment,
}

/// What a command line asks for.
#[derive(Clone, Debug)]
pub enum Invocation {
    /// To run with these values.
    Run(Values),
    /// `--help`.
    Help,
    /// `--version`.
    Version,
}

impl Values {
    /// The value of a flag, or its default.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        match self.set.get(name) {
            Some((value, _)) => value,
            None => flag::find(name).map_or("", |flag| flag.default),
        }
    }

    /// Whether somebody set this flag.
    #[must_use]
    pub fn is_set(&self, name: &str) -> bool {
        self.set.contains_key(name)
    }

    /// What a person should know, to be logged once it is known where to.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Sets a flag as if it stood on the command line.
    ///
    /// # Errors
    /// When there is no such flag, or it is not supported at this value.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let flag = flag::find(name).ok_or_else(|| unknown(name))?;
        self.put(flag, value.to_owned(), From::CommandLine)
    }

    fn put(&mut self, flag: &'static Flag, value: String, from: From) -> Result<(), ConfigError> {
        if flag.kind == Kind::Switch {
            units::boolean(flag.name, &value)?;
        }
        match flag.support {
            Support::Honoured => {
                self.set.insert(flag.name, (value, from));
            }
            Support::Twin(of) => {
                self.set.insert(of, (value, from));
            }
            Support::Only { values, lacks } => check_only(flag, &value, values, lacks)?,
        }
        Ok(())
    }
}

/// Refuses a value that is not true of Synod.
fn check_only(flag: &Flag, value: &str, values: &[&str], lacks: &str) -> Result<(), ConfigError> {
    let same = |allowed: &&str| match flag.kind {
        Kind::Switch => units::boolean(flag.name, value) == units::boolean(flag.name, allowed),
        Kind::Value => *allowed == value,
    };
    if values.iter().any(same) {
        return Ok(());
    }
    let shown: Vec<_> = values.iter().map(|value| if value.is_empty() { "''" } else { value }).collect();
    Err(ConfigError::new(format!(
        "--{}={value} is not supported yet: {lacks} (accepted at: {})",
        flag.name,
        shown.join(", ")
    )))
}

fn unknown(name: &str) -> ConfigError {
    let hint = flag::nearest(name).map(|near| format!("; did you mean --{near}?")).unwrap_or_default();
    ConfigError::new(format!("flag provided but not defined: -{name}{hint} (--help lists all flags)"))
}

/// Reads a command line (without the program's name) and the environment.
///
/// # Errors
/// One sentence for the first thing that is wrong.
pub fn parse(
    arguments: &[String],
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Invocation, ConfigError> {
    let mut values = Values::default();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let Some(body) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).filter(|b| !b.is_empty())
        else {
            return Err(stray(word));
        };
        let (name, inline) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        match name {
            "h" | "help" => return Ok(Invocation::Help),
            "version" => return Ok(Invocation::Version),
            _ => {}
        }
        let flag = flag::find(name).ok_or_else(|| unknown(name))?;
        let value = match (flag.kind, inline) {
            (_, Some(value)) => value,
            (Kind::Switch, None) => "true".to_owned(),
            (Kind::Value, None) => words
                .next()
                .cloned()
                .ok_or_else(|| ConfigError::new(format!("flag needs an argument: --{name}")))?,
        };
        values.put(flag, value, From::CommandLine)?;
    }
    read_environment(&mut values, environment)?;
    Ok(Invocation::Run(values))
}

fn stray(word: &str) -> ConfigError {
    match word {
        "gateway" | "grpc-proxy" => ConfigError::new(format!("the '{word}' command is not supported")),
        _ => ConfigError::new(format!("'{word}' is not a valid flag (--help lists all flags)")),
    }
}

/// Variables that tools set beside a server's, without meaning a flag.
const FOREIGN_VARIABLES: [&str; 2] = ["ETCD_UNSUPPORTED_ARCH", "ETCD_VERIFY"];

fn read_environment(
    values: &mut Values,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<(), ConfigError> {
    let by_variable: BTreeMap<String, &'static Flag> =
        flag::all().map(|flag| (flag::variable(flag.name), flag)).collect();
    for (variable, value) in environment {
        if !variable.starts_with("ETCD_") || value.is_empty() {
            continue;
        }
        let Some(flag) = by_variable.get(&variable) else {
            if !FOREIGN_VARIABLES.contains(&variable.as_str()) {
                values.warnings.push(format!("unrecognized environment variable {variable}={value}"));
            }
            continue;
        };
        let target = if let Support::Twin(of) = flag.support { of } else { flag.name };
        let conflict = match values.set.get(target) {
            Some((_, From::CommandLine)) => format!("is shadowed by the command-line flag --{target}"),
            // Only an older spelling can meet another variable.
            Some((_, From::Environment)) => format!("sets --{target} a second time"),
            None => {
                values.put(flag, value, From::Environment).map_err(|wrong| wrong.through(&variable))?;
                continue;
            }
        };
        return Err(ConfigError::new(format!(
            "conflicting environment variable {variable} {conflict} (unset one of the two)"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &[&str], environment: &[(&str, &str)]) -> Result<Values, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        match parse(&words, environment) {
            Ok(Invocation::Run(values)) => Ok(values),
            Ok(other) => Err(format!("{other:?}")),
            Err(wrong) => Err(wrong.to_string()),
        }
    }

    /// All spellings that Go knows give the same value, and the last one wins.
    #[test]
    fn go_flag_syntax() {
        for words in [&["-name", "a"][..], &["--name", "a"], &["-name=a"], &["--name=b", "--name=a"]] {
            assert_eq!(run(words, &[]).unwrap().get("name"), "a", "{words:?}");
        }
        assert_eq!(run(&["--pre-vote"], &[]).unwrap().get("pre-vote"), "true");
        assert_eq!(run(&["--pre-vote=false", "--name=x"], &[]).unwrap().get("pre-vote"), "false");
        assert!(run(&["--pre-vote", "false"], &[]).unwrap_err().contains("not a valid flag"));
        assert!(run(&["--name"], &[]).unwrap_err().contains("needs an argument"));
        assert!(run(&["--nmae=x"], &[]).unwrap_err().contains("did you mean --name?"));
    }

    /// The environment counts where the command line is silent; both at once is an error.
    #[test]
    fn environment_and_conflicts() {
        assert_eq!(run(&[], &[("ETCD_NAME", "e")]).unwrap().get("name"), "e");
        assert!(run(&["--name=a"], &[("ETCD_NAME", "e")]).unwrap_err().contains("shadowed"));
        assert_eq!(run(&["--name=a"], &[("ETCD_NAME", "")]).unwrap().get("name"), "a");
        let twice =
            [("ETCD_WARNING_APPLY_DURATION", "1s"), ("ETCD_EXPERIMENTAL_WARNING_APPLY_DURATION", "2s")];
        assert!(run(&[], &twice).unwrap_err().contains("--warning-apply-duration a second time"));
        assert!(
            run(&["--warning-apply-duration=1s"], &twice[1..]).unwrap_err().contains("flag --warning-apply")
        );
        assert_eq!(run(&[], &[("ETCD_NMAE", "e")]).unwrap().warnings().len(), 1);
        let refused = run(&[], &[("ETCD_CERT_FILE", "x.pem")]).unwrap_err();
        assert!(
            refused.contains("TLS is not supported yet") && refused.contains("ETCD_CERT_FILE"),
            "{refused}"
        );
    }

    /// What Synod does not do is refused by name; the value that changes nothing is accepted.
    #[test]
    fn unsupported_flags_are_refused_by_name() {
        for (flag, fine, refused) in [
            ("auto-tls", "false", "true"),
            ("logger", "zap", "capnslog"),
            ("enable-v2", "0", "1"),
            ("discovery", "", "https://discovery.example"),
            ("unsafe-no-fsync", "false", "true"),
        ] {
            assert!(run(&[&format!("--{flag}={fine}")], &[]).is_ok(), "{flag}");
            let wrong = run(&[&format!("--{flag}={refused}")], &[]).unwrap_err();
            assert!(wrong.contains(flag) && wrong.contains("not supported"), "{wrong}");
        }
    }
}
