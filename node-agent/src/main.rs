//! The `pairway` binary.

fn main() {}
