//! Every row of the benchmark can be measured, here with next to nothing: what the numbers are is not judged.

use std::collections::BTreeMap;

use integration::bench::{self, Size};

use crate::support::programs;

#[test]
fn every_row_gives_numbers() {
    // Builds the agent where that has not happened.
    let _ = programs();
    let rows = bench::run(&[], Size::Smoke).unwrap();
    let mut tables: BTreeMap<&str, usize> = BTreeMap::new();
    for row in &rows {
        *tables.entry(row.table).or_default() += 1;
        assert!(row.runs > 0, "{row:?}");
        for value in &row.values {
            assert!(value.number.is_finite() && value.number >= 0.0, "{} of {row:?}", value.name);
        }
        // Time on a processor is counted in steps that a small run may not reach.
        let nothing = row.values.iter().filter(|value| value.number == 0.0 && !value.name.starts_with("CPU"));
        let nothing: Vec<_> = nothing.map(|value| value.name).collect();
        assert!(nothing.is_empty() || nothing == ["processors busy"], "{nothing:?} of {row:?}");
    }
    let expected = [
        ("full audit", 1),
        ("peers that change", 1),
        ("programming from nothing", 1),
        ("repair of what was deleted", 2),
        ("switching a peer", 2),
        ("the agent from its start", 1),
    ];
    assert_eq!(tables, expected.into());
    // A switch is one message, however small the run.
    for row in rows.iter().filter(|row| row.table == "switching a peer") {
        let messages = row.values.iter().find(|value| value.name == "messages").unwrap();
        assert!((messages.number - 1.0).abs() < f64::EPSILON, "{row:?}");
    }
}
