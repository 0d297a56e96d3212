//! Texts of strangers, written so that they stay within their place.
//!
//! Outside of JSON no quote, backslash, control byte or byte beyond ASCII is ever written as it came, but as `\xHH`
//! (nginx's way): a reader need not even know how to unescape to find where a text ends. In JSON what is UTF-8 stays
//! readable, and every other byte is taken for Latin-1.
//!
//! A text takes at most `max` bytes; what does not fit ends in [`CUT`].

/// A text between double quotes.
pub(super) fn quoted(out: &mut Vec<u8>, text: &[u8], max: usize) {
    hexed(out, text, max, is_plain);
}

/// A text that stands alone between blanks.
pub(super) fn word(out: &mut Vec<u8>, text: &[u8], max: usize) {
    hexed(out, text, max, |byte| is_plain(byte) && byte != b' ');
}

fn hexed(out: &mut Vec<u8>, text: &[u8], max: usize, is_plain: impl Fn(u8) -> bool) {
    let mut room = max - CUT.len();
    let mut rest = text;
    while !rest.is_empty() {
        let plain = plain_run(rest, &is_plain);
        if plain > room {
            out.extend_from_slice(&rest[..room]);
            return out.extend_from_slice(CUT);
        }
        out.extend_from_slice(&rest[..plain]);
        room -= plain;
        let Some(&byte) = rest.get(plain) else { return };
        if room < 4 {
            return out.extend_from_slice(CUT);
        }
        out.extend_from_slice(&[b'\\', b'x', hex(byte >> 4), hex(byte & 15)]);
        room -= 4;
        rest = &rest[plain + 1..];
    }
}

/// How many bytes at the front are plain. Most texts are to their end, so blocks are looked at as a whole, which
/// compiles to a few vector instructions.
fn plain_run(text: &[u8], is_plain: impl Fn(u8) -> bool) -> usize {
    let (blocks, _) = text.as_chunks::<BLOCK>();
    let all = |block: &&[u8; BLOCK]| block.iter().fold(true, |all, byte| all & is_plain(*byte));
    let whole = BLOCK * blocks.iter().take_while(all).count();
    let rest = &text[whole..];
    whole + rest.iter().position(|byte| !is_plain(*byte)).unwrap_or(rest.len())
}

/// The inside of a JSON string.
pub(super) fn json(out: &mut Vec<u8>, text: &[u8], max: usize) {
    let room = max - CUT.len();
    if text.len() <= room && plain_run(text, is_plain) == text.len() {
        return out.extend_from_slice(text);
    }
    let end = out.len() + room;
    let is_whole = match std::str::from_utf8(text) {
        Ok(text) => text.chars().all(|letter| json_letter(out, letter, end)),
        Err(_) => text.iter().all(|byte| json_letter(out, char::from(*byte), end)),
    };
    if !is_whole {
        out.extend_from_slice(CUT);
    }
}

/// False if there was no room up to `end`.
fn json_letter(out: &mut Vec<u8>, letter: char, end: usize) -> bool {
    let mut utf8 = [0; 4];
    let mut control = *b"\\u0000";
    let text: &[u8] = match letter {
        '"' => b"\\\"",
        '\\' => b"\\\\",
        // All of them are below U+00A0.
        letter if letter.is_control() => {
            control[4] = hex(letter as u8 >> 4);
            control[5] = hex(letter as u8 & 15);
            &control
        }
        letter => letter.encode_utf8(&mut utf8).as_bytes(),
    };
    let has_room = out.len() + text.len() <= end;
    if has_room {
        out.extend_from_slice(text);
    }
    has_room
}

/// Bytes that mean themselves everywhere.
const fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

const fn hex(digit: u8) -> u8 {
    b"0123456789abcdef"[digit as usize & 15]
}

const BLOCK: usize = 16;
/// The end of a text that was too long.
const CUT: &[u8] = b"...";

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: fn(&mut Vec<u8>, &[u8], usize), text: &[u8], max: usize) -> String {
        let mut out = Vec::new();
        write(&mut out, text, max);
        assert!(out.len() <= max, "{} bytes of {max}", out.len());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn texts_stay_within_their_place() {
        for (text, in_quotes, in_json) in [
            (&b"plain /a?b=c;d'e"[..], "plain /a?b=c;d'e", "plain /a?b=c;d'e"),
            (b"a\"b\\c", "a\\x22b\\x5cc", "a\\\"b\\\\c"),
            (b"a\r\nb\0", "a\\x0d\\x0ab\\x00", "a\\u000d\\u000ab\\u0000"),
            ("gr\u{fc}n".as_bytes(), "gr\\xc3\\xbcn", "gr\u{fc}n"),
            (b"gr\xfcn", "gr\\xfcn", "gr\u{fc}n"),
            // C1 controls move a terminal's cursor as well as ESC does.
            ("\u{9b}2J\x7f".as_bytes(), "\\xc2\\x9b2J\\x7f", "\\u009b2J\\u007f"),
        ] {
            assert_eq!(written(quoted, text, 100), in_quotes);
            assert_eq!(written(json, text, 100), in_json);
        }
        assert_eq!(written(word, b"a b", 100), "a\\x20b");
    }

    #[test]
    fn the_first_byte_that_is_not_plain_is_found_wherever_it_stands() {
        for length in 0..3 * BLOCK {
            let mut text = vec![b'a'; length];
            assert_eq!(plain_run(&text, is_plain), length);
            for at in 0..length {
                text[at] = b'"';
                assert_eq!(plain_run(&text, is_plain), at);
                text[at] = b'a';
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_cut_between_letters() {
        assert_eq!(written(quoted, b"abcdefgh", 8), "abcde...");
        assert_eq!(written(quoted, b"abcde", 8), "abcde");
        assert_eq!(written(quoted, b"ab\nde", 8), "ab...");
        assert_eq!(written(json, b"abcdefgh", 8), "abcde...");
        assert_eq!(written(json, "abcd\u{fc}".as_bytes(), 8), "abcd...");
        assert_eq!(written(json, b"\0a", 8), "...");
        for max in 3..40 {
            for text in ["\"\"\"\"\"\"\"\"\"\"", "\u{fc}\u{20ac}\u{1f980}\n\u{fc}\u{20ac}\u{1f980}"]
            {
                written(quoted, text.as_bytes(), max);
                written(json, text.as_bytes(), max);
            }
        }
    }
}
