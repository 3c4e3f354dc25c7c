//! Rows of numbers, and how they are printed.

use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;
use serde::Serialize;

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// A second's share of something.
    PerSecond,
    /// How many times.
    Ratio,
    /// Pieces.
    Count,
    /// 2^20 bytes.
    MiB,
}

impl Unit {
    fn text(self, number: f64) -> String {
        match self {
            Self::Seconds if number >= 9.995 => format!("{number:.1} s"),
            Self::Seconds if number >= 0.9995 => format!("{number:.2} s"),
            Self::Seconds if number >= 0.000_999_5 => format!("{} ms", three_digits(number * 1e3)),
            Self::Seconds => format!("{} µs", three_digits(number * 1e6)),
            Self::PerSecond if number >= 999.5 => format!("{}k/s", three_digits(number / 1e3)),
            Self::PerSecond => format!("{}/s", three_digits(number)),
            Self::Ratio => format!("{number:.2}"),
            Self::Count => format!("{number:.0}"),
            Self::MiB => format!("{number:.1} MiB"),
        }
    }
}

fn three_digits(number: f64) -> String {
    let digits = if number >= 100.0 {
        0
    } else if number >= 10.0 {
        1
    } else {
        2
    };
    format!("{number:.digits$}")
}

/// A number with its name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Value {
    /// What was measured.
    pub name: &'static str,
    /// In what.
    pub unit: Unit,
    /// How much: the median, where it was measured several times.
    pub number: f64,
}

/// What was measured of one case.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Table that the row belongs to.
    pub table: &'static str,
    /// The case: `200,000 routes, 256 gateways`.
    pub case: String,
    /// How often it was measured.
    pub runs: usize,
    /// What was measured.
    pub values: Vec<Value>,
}

impl Row {
    pub(super) fn new(table: &'static str, case: impl Into<String>, runs: usize) -> Self {
        Self { table, case: case.into(), runs, values: Vec::new() }
    }

    pub(super) fn with(mut self, name: &'static str, unit: Unit, number: f64) -> Self {
        self.values.push(Value { name, unit, number });
        self
    }
}

/// The rows of one table, as Markdown.
pub(super) fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    let Some(first) = rows.first() else { return table };
    let names = first.values.iter().map(|value| value.name.to_owned());
    table.set_header([first.table.to_owned()].into_iter().chain(names).chain(["runs".to_owned()]));
    for row in rows {
        let numbers = row.values.iter().map(|value| value.unit.text(value.number));
        table.add_row([row.case.clone()].into_iter().chain(numbers).chain([row.runs.to_string()]));
    }
    table
}

/// A number of pieces, with commas: `1,000,000`.
pub(super) fn thousands(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The value in the middle; the mean of the two in the middle. 0 of nothing.
pub(super) fn median(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}

/// The value that this share of all does not exceed, between neighbours in proportion.
pub(super) fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    #[expect(clippy::cast_precision_loss, reason = "samples are few")]
    let place = last as f64 * share;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the list")]
    let below = place.floor() as usize;
    let low = sorted.get(below).copied().unwrap_or_default();
    let high = sorted.get(below + 1).copied().unwrap_or(low);
    low + (high - low) * (place - place.floor())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_their_neighbours() {
        let near = |one: f64, other: f64| (one - other).abs() < 1e-9;
        assert!(near(median(&[3.0, 1.0, 2.0]), 2.0));
        assert!(near(median(&[4.0, 1.0, 2.0, 3.0]), 2.5));
        assert!(near(quantile(&[0.0, 10.0], 0.99), 9.9));
        assert!(near(quantile(&[7.0], 0.99), 7.0));
        assert!(near(median(&[]), 0.0));
    }

    #[test]
    fn numbers_have_three_digits_and_the_unit_that_fits() {
        let texts = [
            Unit::Seconds.text(12.34),
            Unit::Seconds.text(1.0),
            Unit::Seconds.text(0.0123),
            Unit::Seconds.text(0.000_012_34),
            Unit::PerSecond.text(376_400.0),
            Unit::Ratio.text(0.934),
            thousands(1_000_000),
            thousands(256),
        ];
        assert_eq!(texts, ["12.3 s", "1.00 s", "12.3 ms", "12.3 µs", "376k/s", "0.93", "1,000,000", "256"]);
    }
}
