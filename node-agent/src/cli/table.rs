//! Tables for people: aligned columns without lines or colours, wrapped only on a terminal that is too narrow.

use std::io;

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width};

/// Rows under a header. `width` is the terminal's, `None` where it is none: then every row is one line, as
/// `grep` and `awk` like it.
pub(super) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    width: Option<u16>,
) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(header);
    for row in rows {
        table.add_row(row.map(|cell| if cell.is_empty() { "-".to_owned() } else { on_one_line(&cell) }));
    }
    match width {
        Some(width) => {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        }
        None => {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
        // A column is never squeezed to nothing.
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(6)));
    }
    table.trim_fmt() + "\n"
}

/// Width of the terminal on standard output, if it is one.
pub(super) fn terminal_width() -> Option<u16> {
    terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| width.0).filter(|width| *width > 0)
}

/// Lines of a text behind each other: a row stays a row.
fn on_one_line(text: &str) -> String {
    printable(
        &text
            .split(['\n', '\r', '\t'])
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(" "),
    )
}

/// Text that came from elsewhere (a store, a BGP peer) can't steer the terminal.
pub(super) fn printable(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(steers) {
        return text.to_owned();
    }
    text.chars().map(|c| if steers(c) { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// `yes` or `no`.
pub(super) fn yes(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

/// A duration for people: `12s`, `3m5s`, `1h2m`, `4d3h`.
pub(super) fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, ..) => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units() {
        let spans = [0, 59, 60, 3599, 3600, 86_399, 86_400, 1_000_000].map(span);
        assert_eq!(spans, ["0s", "59s", "1m0s", "59m59s", "1h0m", "23h59m", "1d0h", "11d13h"]);
    }

    #[test]
    fn a_cell_can_not_steer_the_terminal() {
        let text = table(["NAME"], [["a\u{1b}[2Jb\nc\u{202e}d".to_owned()]], None);
        assert_eq!(text, "NAME\na\\u{1b}[2Jb c\\u{202e}d\n");
    }

    #[test]
    fn narrow_terminals_wrap_and_pipes_do_not() {
        let rows = || [["n1".to_owned(), "a sentence that is rather long for this".to_owned()]];
        let wide = table(["NODE", "DETAIL"], rows(), None);
        assert_eq!(wide, "NODE  DETAIL\nn1    a sentence that is rather long for this\n");
        let narrow = table(["NODE", "DETAIL"], rows(), Some(30));
        assert!(narrow.lines().count() > 2, "{narrow}");
        assert!(narrow.lines().all(|line| line.chars().count() <= 30), "{narrow}");
        assert!(!table(["NODE", "DETAIL"], rows(), Some(1)).is_empty());
    }
}
