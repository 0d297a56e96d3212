//! The `.env` file: `KEY=value` lines. Pure.
//!
//! Understood: comments, blank lines, `export `, single quotes (literal), double quotes (`\n \r \t \" \\ \$`), a comment
//! after a value (` #`), CRLF, a byte-order mark. `$NAME` is not expanded: it stays as written. The last of several
//! lines with one key wins, as in a shell.

/// One assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    /// The variable's name.
    pub key: String,
    /// Its value without quotes.
    pub value: String,
    /// Counted from 1.
    pub line: usize,
}

/// A line that is no assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadLine {
    /// Counted from 1.
    pub line: usize,
    /// The fault, to follow `line N `.
    pub fault: &'static str,
}

/// All assignments in file order.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Assignment>, BadLine> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let mut assignments = Vec::new();
    for (line, text) in (1..).zip(bytes.split(|&byte| byte == b'\n')) {
        let assignment = std::str::from_utf8(text).map_err(|_| "is not UTF-8").and_then(parse_line);
        match assignment {
            Ok(Some((key, value))) => assignments.push(Assignment { key, value, line }),
            Ok(None) => {}
            Err(fault) => return Err(BadLine { line, fault }),
        }
    }
    Ok(assignments)
}

fn parse_line(text: &str) -> Result<Option<(String, String)>, &'static str> {
    let text = text.trim();
    if text.is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    let text = text.strip_prefix("export ").or(text.strip_prefix("export\t")).unwrap_or(text);
    let (key, value) = text.split_once('=').ok_or("is not KEY=value")?;
    let key = key.trim();
    if !is_key(key) {
        return Err("does not begin with a variable's name");
    }
    Ok(Some((key.to_owned(), unquote(value.trim())?)))
}

fn is_key(key: &str) -> bool {
    key.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

fn unquote(text: &str) -> Result<String, &'static str> {
    let (value, rest) = match text.as_bytes().first() {
        Some(b'\'') => {
            let (value, rest) = text[1..].split_once('\'').ok_or(OPEN_QUOTE)?;
            (value.to_owned(), rest)
        }
        Some(b'"') => unescape(&text[1..])?,
        Some(b'#') => (String::new(), ""),
        _ => {
            let end = text.find(" #").or(text.find("\t#")).unwrap_or(text.len());
            (text[..end].trim_end().to_owned(), "")
        }
    };
    match rest.trim_start() {
        rest if rest.is_empty() || rest.starts_with('#') => Ok(value),
        _ => Err("goes on after the closing quote"),
    }
}

/// The text up to the closing double quote, and what follows it.
fn unescape(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[index + 1..])),
            '\\' => value.push(match characters.next().ok_or(OPEN_QUOTE)?.1 {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                literal @ ('"' | '\\' | '$') => literal,
                _ => return Err("has an unknown escape"),
            }),
            _ => value.push(character),
        }
    }
    Err(OPEN_QUOTE)
}

const OPEN_QUOTE: &str = "has a quote that is not closed";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let table: &[(&str, &str)] = &[
            ("A=1", "1"),
            ("  A = 1  ", "1"),
            ("A=", ""),
            ("A=#x", ""),
            ("A=a#b", "a#b"),
            ("A=a # b", "a"),
            ("A=a\t# b", "a"),
            ("export A=1", "1"),
            ("A=1\r", "1"),
            ("A=a=b", "a=b"),
            ("A='a # $b \\n'", "a # $b \\n"),
            ("A='a' # b", "a"),
            ("A=\"a \\\"b\\\" \\\\ \\n\\t\\r\\$x # y\"", "a \"b\" \\ \n\t\r$x # y"),
            ("A=\"\"", ""),
            ("A=it's", "it's"),
            ("A=$B", "$B"),
            ("A=größe", "größe"),
        ];
        for (text, value) in table {
            let wanted = [Assignment { key: "A".into(), value: (*value).into(), line: 1 }];
            assert_eq!(parse(text.as_bytes()).as_deref(), Ok(&wanted[..]), "{text:?}");
        }
    }

    #[test]
    fn files() {
        let text = "\u{feff}# head\r\n\r\nA=1\r\n  # more\nexport B='2'\nA=3";
        let read: Vec<_> =
            parse(text.as_bytes()).unwrap().into_iter().map(|a| (a.key, a.value, a.line)).collect();
        let wanted = [("A", "1", 3), ("B", "2", 5), ("A", "3", 6)];
        assert_eq!(read, wanted.map(|(key, value, line)| (key.to_owned(), value.to_owned(), line)));
        assert_eq!(parse(b""), Ok(vec![]));
    }

    #[test]
    fn a_bad_line_is_named() {
        let table: &[(&[u8], usize, &str)] = &[
            (b"A=1\nnonsense", 2, "is not KEY=value"),
            (b"\n\n=1", 3, "does not begin with a variable's name"),
            (b"1A=1", 1, "does not begin with a variable's name"),
            (b"A B=1", 1, "does not begin with a variable's name"),
            (b"A='x", 1, OPEN_QUOTE),
            (b"A=\"x", 1, OPEN_QUOTE),
            (b"A=\"x\\", 1, OPEN_QUOTE),
            (b"A=\"\\q\"", 1, "has an unknown escape"),
            (b"A='x' y", 1, "goes on after the closing quote"),
            (b"A=1\nB=\xff", 2, "is not UTF-8"),
        ];
        for &(bytes, line, fault) in table {
            assert_eq!(
                parse(bytes),
                Err(BadLine { line, fault }),
                "{:?}",
                String::from_utf8_lossy(bytes)
            );
        }
    }
}
