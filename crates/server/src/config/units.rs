//! Values as Go writes them: durations such as `1h15m30.5s`, booleans, and whole numbers with a range.

use std::time::Duration;

use super::ConfigError;

/// A Go duration: numbers with units `ns us ms s m h`, added up; a bare `0` is allowed, nothing below zero.
///
/// # Errors
/// One sentence that says what is allowed.
pub(crate) fn duration(flag: &str, text: &str) -> Result<Duration, ConfigError> {
    let wrong = |why: &str| {
        ConfigError::new(format!("--{flag}={text}: {why}; allowed is a span such as 500ms, 10s, 5m or 1h30m"))
    };
    if text.starts_with('-') {
        return Err(wrong("a span cannot be negative"));
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(wrong("there is no value"));
    }
    let mut total = 0.0f64;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(|| wrong("the unit is missing"))?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong("this is not a span"))?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let nanos = match &rest[..letters] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(wrong("the unit is unknown")),
        };
        total += number * nanos;
        rest = &rest[letters..];
    }
    // Go's durations are 63 bits of nanoseconds: 292 years.
    if total > i64::MAX as f64 {
        return Err(wrong("this is more than 292 years"));
    }
    Ok(Duration::from_nanos(total as u64))
}

/// A Go boolean.
///
/// # Errors
/// One sentence that says what is allowed.
pub(crate) fn boolean(flag: &str, text: &str) -> Result<bool, ConfigError> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(ConfigError::new(format!("--{flag}={text}: not a boolean; allowed is true or false"))),
    }
}

/// A whole number in `min..=max`.
///
/// # Errors
/// One sentence that says what is allowed.
pub(crate) fn integer(flag: &str, text: &str, min: i64, max: i64) -> Result<i64, ConfigError> {
    text.parse::<i64>().ok().filter(|number| (min..=max).contains(number)).ok_or_else(|| {
        ConfigError::new(format!("--{flag}={text}: allowed is a whole number from {min} to {max}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Go's own examples of durations mean what they mean there.
    #[test]
    fn durations_are_gos() {
        let ms = |text| duration("x", text).map(|d| d.as_millis());
        assert_eq!(ms("300ms"), Ok(300));
        assert_eq!(ms("1.5h"), Ok(5_400_000));
        assert_eq!(ms("2h45m"), Ok(9_900_000));
        assert_eq!(ms("0"), Ok(0));
        for bad in ["", "5", "-1s", "1x", "s", "1..5s", "999999999h"] {
            assert!(duration("x", bad).is_err(), "{bad}");
        }
    }
}
