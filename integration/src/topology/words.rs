//! A command line cut into words as containerlab does it: quotes and backslashes, no variables, no pipes.

/// A command line that does not end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// A quote without its partner.
    #[error("{0} is opened and never closed")]
    OpenQuote(char),
    /// A backslash as the last character.
    #[error("a backslash at the end")]
    OpenEscape,
}

/// Cuts a command into words. Single quotes keep everything, double quotes let a backslash escape `"` and `\`.
/// A `#` at the beginning of a word makes the rest a comment.
pub fn split(text: &str) -> Result<Vec<String>, SplitError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err(SplitError::OpenQuote('\'')),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => word.push(chars.next().ok_or(SplitError::OpenEscape)?),
                        Some(c) => word.push(c),
                        None => return Err(SplitError::OpenQuote('"')),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(chars.next().ok_or(SplitError::OpenEscape)?),
            '#' if word.is_none() => break,
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_as_a_shell_would() {
        let cases: [(&str, &[&str]); 8] = [
            ("ip link set eth1 up", &["ip", "link", "set", "eth1", "up"]),
            ("  a \t b ", &["a", "b"]),
            ("sh -c 'echo \"x y\" | cat'", &["sh", "-c", "echo \"x y\" | cat"]),
            (r#"a "b \" c" d"#, &["a", "b \" c", "d"]),
            (r"a\ b", &["a b"]),
            ("a '' b", &["a", "", "b"]),
            ("a x#y # rest", &["a", "x#y"]),
            ("", &[]),
        ];
        for (text, want) in cases {
            assert_eq!(split(text).unwrap(), want, "{text:?}");
        }
    }

    #[test]
    fn what_does_not_end_is_refused() {
        assert_eq!(split("a 'b"), Err(SplitError::OpenQuote('\'')));
        assert_eq!(split("a \"b"), Err(SplitError::OpenQuote('"')));
        assert_eq!(split("a \\"), Err(SplitError::OpenEscape));
    }
}
