//! Names: what Kubernetes calls a DNS label and a DNS subdomain (RFC 1123).

/// Lower-case letters, digits and `-`, at most 63, a letter or digit at both ends.
pub(crate) fn is_label(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.starts_with(edge)
        && text.ends_with(edge)
        && text.chars().all(|c| edge(c) || c == '-')
}

/// Longest name of a node in bytes: a file is named after it, `NAME.json`, in 255 bytes (`NAME_MAX`).
pub(crate) const NODE_NAME_BYTES: usize = 250;

/// What can be a node's name: a subdomain that leaves room for the name of a file.
pub(crate) fn is_node(text: &str) -> bool {
    is_subdomain(text) && text.len() <= NODE_NAME_BYTES
}

/// Labels with dots between, at most 253 bytes.
pub(crate) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_name_leaves_room_for_that_of_a_file() {
        let of = |bytes: usize| {
            let labels = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(bytes - 3 * 64)];
            labels.join(".")
        };
        assert!(is_node(&of(250)) && is_subdomain(&of(253)));
        assert!(format!("{}.json", of(250)).len() == 255, "NAME_MAX");
        for bytes in 251..=253 {
            assert!(!is_node(&of(bytes)), "{bytes}");
        }
    }
}
