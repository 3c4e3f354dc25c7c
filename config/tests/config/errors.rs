//! What an operator reads when the file is wrong. `UPDATE_EXPECT=1` writes the texts anew.

use config::ConfigFile;
use expect_test::Expect;

mod bgp;
mod brake;
mod document;
mod keys;
mod nodes;
mod places;
mod pools;

/// The errors of `text`.
fn check(text: &str, expected: Expect) {
    match ConfigFile::parse(text, "pairway.yaml") {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(errors) => expected.assert_eq(&format!("{errors}\n")),
    }
}

/// The errors of `rest` beside a sound pool.
fn beside_a_pool(rest: &str, expected: Expect) {
    check(&format!("pools: [{{ cidr: 10.244.0.0/16, blockPrefix: 24 }}]\n{rest}"), expected);
}
