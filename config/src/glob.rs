//! Patterns for node names: `*` stands for any characters, `?` for one.

/// A pattern over whole names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Glob(String);

impl Glob {
    /// A pattern, if its characters can occur in a node name or are wildcards.
    pub(crate) fn new(pattern: &str) -> Option<Self> {
        let legal =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.' | '*' | '?');
        (!pattern.is_empty() && pattern.len() <= 253 && pattern.chars().all(legal))
            .then(|| Self(pattern.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the pattern is nothing but `*`.
    pub(crate) fn matches_everything(&self) -> bool {
        self.0.chars().all(|c| c == '*')
    }

    /// Linear but for the last `*`: on a mismatch only that one takes a character more.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while n < name.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    star = Some((p + 1, n));
                    p += 1;
                }
                Some(c) if *c == b'?' || *c == name[n] => {
                    p += 1;
                    n += 1;
                }
                _ => match star {
                    Some((after, from)) => {
                        star = Some((after, from + 1));
                        p = after;
                        n = from + 1;
                    }
                    None => return false,
                },
            }
        }
        pattern[p..].iter().all(|c| *c == b'*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        for (pattern, name, expected) in [
            ("gpu-*", "gpu-7", true),
            ("gpu-*", "gpu-", true),
            ("gpu-*", "cpu-7", false),
            ("*", "anything", true),
            ("n?", "n1", true),
            ("n?", "n", false),
            ("n?", "n12", false),
            ("*-a-*", "x-a-b-a-y", true),
            ("*a", "ba", true),
            ("*a", "ab", false),
            ("n1", "n1", true),
            ("n1", "n10", false),
            ("a*b*c", "aXbXbc", true),
            ("a*b*c", "aXcXb", false),
        ] {
            assert_eq!(Glob::new(pattern).unwrap().matches(name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_hostile_pattern_ends_soon() {
        let glob = Glob::new(&"*a".repeat(126)).unwrap();
        assert!(!glob.matches(&"a".repeat(125)));
        assert!(glob.matches(&"a".repeat(253)));
    }

    #[test]
    fn illegal_patterns() {
        for pattern in ["", "GPU-*", "a/b", "[ab]", "a b", "ä*"] {
            assert_eq!(Glob::new(pattern), None, "{pattern}");
        }
    }
}
