//! Durations as an operator writes them: `9s`, `10m`, `1h30m`, `500ms`.

use std::time::Duration;

/// Units in the order that they are written in, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// No duration of a configuration is longer than a year.
pub(crate) const MAX: Duration = Duration::from_secs(365 * 86_400);

/// Reads numbers with units, larger units first, each unit once.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    if text.is_empty() || text.chars().all(|c| c.is_ascii_digit()) {
        return Err(format!("`{text}` has no unit"));
    }
    let wrong = || format!("`{text}` is not a duration");
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut total = 0_u64;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.len() - tail.trim_start_matches(|c: char| c.is_ascii_lowercase()).len();
        let (unit, tail) = tail.split_at(letters);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let (_, milliseconds) = units.find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        total = number.checked_mul(*milliseconds).and_then(|n| total.checked_add(n)).ok_or_else(wrong)?;
        rest = tail;
    }
    let duration = Duration::from_millis(total);
    if duration > MAX { Err(format!("`{text}` is longer than a year")) } else { Ok(duration) }
}

/// The shortest text that [`parse`] reads as this duration (whole milliseconds).
pub(crate) fn format(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, milliseconds) in UNITS {
        if rest >= milliseconds {
            text.push_str(&format!("{}{unit}", rest / milliseconds));
            rest %= milliseconds;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn readable_texts() {
        for (text, milliseconds) in [
            ("9s", 9000),
            ("10m", 600_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("1m500ms", 60_500),
            ("0s", 0),
            ("90s", 90_000),
            ("2d", 172_800_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn refused_texts() {
        for text in [
            "",
            "9",
            "s",
            "9 s",
            "-9s",
            "1.5h",
            "9S",
            "30m1h",
            "1s1s",
            "9sec",
            "1h30",
            "99999999999999999999s",
            "9999999999999h",
            "366d",
            "٩s",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(milliseconds in 0..=31_536_000_000_u64) {
            let duration = Duration::from_millis(milliseconds);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }
    }
}
