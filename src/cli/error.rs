//! What is wrong with the command line, the environment or `.env`: what happened, where it came from, what is wanted.

use std::fmt;

/// A refusal of the configuration. Its `Display` is the whole message, `error: ` included. Exit code 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    what: String,
    /// Follows on the same line, for errors that need no more: the words in question.
    aside: Option<String>,
    from: Option<String>,
    want: Option<String>,
}

impl Error {
    /// What the process ends with.
    pub const EXIT_CODE: u8 = 2;

    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), aside: None, from: None, want: None }
    }

    pub(super) fn aside(mut self, text: impl Into<String>) -> Self {
        self.aside = Some(text.into());
        self
    }

    pub(super) fn from(mut self, text: impl Into<String>) -> Self {
        self.from = Some(text.into());
        self
    }

    pub(super) fn want(mut self, text: impl Into<String>) -> Self {
        self.want = Some(text.into());
        self
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = format!("error: {}", self.what);
        match &self.aside {
            Some(aside) => write!(out, "{:<61}{aside}", what + "   ")?,
            None => out.write_str(&what)?,
        }
        for (label, text) in [("from", &self.from), ("want", &self.want)] {
            if let Some(text) = text {
                write!(out, "\n  {label}   {text}")?;
            }
        }
        Ok(())
    }
}

/// What a user wrote, safe to print back: quoted, control characters escaped, cut when long.
pub(super) fn quoted(text: &str) -> String {
    let mut shown = String::from("\"");
    for (count, character) in text.chars().enumerate() {
        if count == QUOTED_CHARS_MAX {
            shown.push('…');
            break;
        }
        match character {
            '"' | '\\' => shown.extend(['\\', character]),
            _ if character.is_control() => shown.extend(character.escape_default()),
            _ => shown.push(character),
        }
    }
    shown + "\""
}

/// How much of a wrong value is repeated.
const QUOTED_CHARS_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shapes() {
        let error = Error::new("X is \"80a\", not a port").from(".env line 1").want("a number");
        assert_eq!(
            error.to_string(),
            "error: X is \"80a\", not a port\n  from   .env line 1\n  want   a number"
        );
        let error =
            Error::new("core 12 is not available; this host offers 0-7").aside("(--cores 2-7,12)");
        assert_eq!(
            error.to_string(),
            "error: core 12 is not available; this host offers 0-7        (--cores 2-7,12)"
        );
    }

    #[test]
    fn a_wrong_value_cannot_dress_up_as_our_own_words() {
        assert_eq!(quoted("80a"), "\"80a\"");
        assert_eq!(quoted("a\"b\\\n\x1b[31m"), "\"a\\\"b\\\\\\n\\u{1b}[31m\"");
        assert_eq!(quoted(&"x".repeat(61)), format!("\"{}…\"", "x".repeat(60)));
    }
}
