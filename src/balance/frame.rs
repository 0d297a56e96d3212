//! One text frame of the deployment agent: bytes in, good items out.
//!
//! A frame is a JSON array of objects `{"dns_name", "score", "utilization_category"}`, the whole set each time. It is
//! judged item by item: what is wrong with one item costs that item alone. Only a frame that is no JSON array, or one
//! beyond [`BACKENDS_MAX`], is refused whole. Items are cut out of the array unparsed and fields out of the item
//! likewise, so that a wrong type, a number beyond all range or a thousand brackets stay where they are. Time and
//! memory are linear in the text, which the link bounds at 1 MiB.
//!
//! It refuses to know what is in force: keeping the entries of skipped items is the roster's part.

use std::collections::HashMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Category, Score};

/// What a frame said, after the rules.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Frame {
    /// The good items in the order of their last mention, no name twice.
    pub items: Vec<Item>,
    /// Names of items that were skipped and that no good item mentions: what is in force for them stays.
    pub kept: Vec<String>,
    /// How many items were skipped, by [`Flaw`].
    pub flaws: [usize; FLAWS],
    /// The first word of `utilization_category` that is none of the five, if any; its item counts as
    /// [`Category::Medium`].
    pub unknown_category: Option<String>,
    /// Whether the array had no items at all.
    pub is_empty: bool,
}

/// One backend as the agent sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// As written.
    pub name: String,
    /// Where that is.
    pub host: String,
    /// TCP port, from the name or the default.
    pub port: u16,
    /// The weight.
    pub score: Score,
    /// The state.
    pub category: Category,
}

/// Why a frame was refused as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not valid JSON.
    NotJson,
    /// JSON, but no array.
    NotAnArray,
    /// More than [`BACKENDS_MAX`] different good names.
    TooMany,
}

/// Why an item was skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Flaw {
    /// Not a JSON object, or one that names a field twice.
    NotAnObject,
    /// `dns_name` is missing, not a string, empty or no host.
    Name,
    /// `score` is missing, not a number, not finite or outside 0 to 100.
    Score,
    /// `utilization_category` is missing or not a string.
    Category,
    /// The name carries no port and there is no default one.
    NoPort,
}

impl Refusal {
    /// A few words for logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotJson => "not valid JSON",
            Self::NotAnArray => "not a JSON array",
            Self::TooMany => "more than 10000 backends",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl Flaw {
    /// All of them, in the order of [`Frame::flaws`].
    pub const ALL: [Self; FLAWS] =
        [Self::NotAnObject, Self::Name, Self::Score, Self::Category, Self::NoPort];

    /// A few words for logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotAnObject => "not an object",
            Self::Name => "bad dns_name",
            Self::Score => "bad score",
            Self::Category => "bad utilization_category",
            Self::NoPort => "no port",
        }
    }
}

impl Frame {
    /// Reads a frame. `default_port` serves names that carry none.
    pub fn parse(text: &str, default_port: Option<u16>) -> Result<Self, Refusal> {
        match serde_json::from_str::<Vec<&RawValue>>(text) {
            Ok(raws) => Self::judge(&raws, default_port),
            Err(_) => {
                let text = without_bare_words(text).ok_or_else(|| refusal(text))?;
                let raws = serde_json::from_str::<Vec<&RawValue>>(&text);
                Self::judge(&raws.map_err(|_| refusal(&text))?, default_port)
            }
        }
    }

    /// How many items were skipped.
    pub fn skipped(&self) -> usize {
        self.flaws.iter().sum()
    }

    fn judge(raws: &[&RawValue], default_port: Option<u16>) -> Result<Self, Refusal> {
        let mut frame = Self { is_empty: raws.is_empty(), ..Self::default() };
        // The last good mention of each name, by its place in `items`.
        let mut last: HashMap<String, usize> = HashMap::new();
        let mut items: Vec<Option<Item>> = Vec::new();
        let mut flawed: Vec<String> = Vec::new();
        for raw in raws {
            let fields = match Fields::cut(raw.get()) {
                Some(fields) => fields,
                None => {
                    frame.flaws[Flaw::NotAnObject as usize] += 1;
                    continue;
                }
            };
            let name = fields.name();
            match fields.item(name.as_deref(), default_port, &mut frame.unknown_category) {
                Ok(item) => {
                    if let Some(earlier) = last.insert(item.name.clone(), items.len()) {
                        items[earlier] = None;
                    }
                    items.push(Some(item));
                }
                Err(flaw) => {
                    frame.flaws[flaw as usize] += 1;
                    flawed.extend(name);
                }
            }
            if last.len() > BACKENDS_MAX {
                return Err(Refusal::TooMany);
            }
        }
        frame.items = items.into_iter().flatten().collect();
        flawed.retain(|name| !last.contains_key(name));
        flawed.sort_unstable();
        flawed.dedup();
        frame.kept = flawed;
        Ok(frame)
    }
}

/// The fields of one item, unparsed.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    dns_name: Option<&'a RawValue>,
    #[serde(borrow)]
    score: Option<&'a RawValue>,
    #[serde(borrow)]
    utilization_category: Option<&'a RawValue>,
}

impl<'a> Fields<'a> {
    fn cut(raw: &'a str) -> Option<Self> {
        // An array would be taken for the fields in their order.
        if !raw.starts_with('{') {
            return None;
        }
        serde_json::from_str(raw).ok()
    }

    fn name(&self) -> Option<String> {
        serde_json::from_str(self.dns_name?.get()).ok()
    }

    fn item(
        &self,
        name: Option<&str>,
        default_port: Option<u16>,
        unknown: &mut Option<String>,
    ) -> Result<Item, Flaw> {
        let name = name.ok_or(Flaw::Name)?;
        let (host, port) = split_name(name).ok_or(Flaw::Name)?;
        let port = port.or(default_port).ok_or(Flaw::NoPort)?;
        let score = self.score.and_then(|raw| number(raw.get())).ok_or(Flaw::Score)?;
        let word: String = self
            .utilization_category
            .and_then(|raw| serde_json::from_str(raw.get()).ok())
            .ok_or(Flaw::Category)?;
        let category = category(&word).unwrap_or_else(|| {
            unknown.get_or_insert_with(|| word.chars().take(WORD_CHARS_LOGGED).collect());
            Category::Medium
        });
        Ok(Item { name: name.to_owned(), host: host.to_owned(), port, score, category })
    }
}

/// Takes `host`, `host:port`, `[v6]`, `[v6]:port` or a bare IPv6 address apart. `None` for what cannot be one.
pub fn split_name(name: &str) -> Option<(&str, Option<u16>)> {
    if name.parse::<Ipv6Addr>().is_ok() {
        return Some((name, None));
    }
    if let Some(rest) = name.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        host.parse::<Ipv6Addr>().ok()?;
        return match port.strip_prefix(':') {
            Some(port) => Some((host, Some(parse_port(port)?))),
            None => port.is_empty().then_some((host, None)),
        };
    }
    let (host, port) = match name.split_once(':') {
        Some((host, port)) => (host, Some(parse_port(port)?)),
        None => (name, None),
    };
    is_host(host).then_some((host, port))
}

fn parse_port(text: &str) -> Option<u16> {
    let is_plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_plain.then(|| text.parse().ok()).flatten().filter(|&port| port > 0)
}

/// Letters, digits, hyphens and underscores in labels of 1 to 63, 253 in all (RFC 1035 §2.3.4; underscores since
/// container names have them). A name whose last label is a number must be an IPv4 address (WHATWG URL, "ends in a
/// number"): resolvers take `1.2` and `0x7f.1` for addresses.
fn is_host(host: &str) -> bool {
    let bare = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    let ends_in_number = bare.rsplit('.').next().is_some_and(|label| {
        let digits = label.strip_prefix("0x").or(label.strip_prefix("0X"));
        match digits {
            Some(hex) => hex.bytes().all(|b| b.is_ascii_hexdigit()),
            None => label.bytes().all(|b| b.is_ascii_digit()),
        }
    });
    host.len() <= HOST_BYTES_MAX
        && bare.split('.').all(is_label)
        && (!ends_in_number || host.parse::<Ipv4Addr>().is_ok())
}

/// A JSON number that is a score. Rust reads what is beyond the range of `f64` as infinite, which no score is.
fn number(raw: &str) -> Option<Score> {
    let is_number = raw.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    is_number.then(|| raw.parse().ok()).flatten().and_then(Score::new)
}

fn category(word: &str) -> Option<Category> {
    Some(match word {
        "INIT" => Category::Init,
        "LU" => Category::Low,
        "MU" => Category::Medium,
        "HU" => Category::High,
        "SUNDOWN" => Category::Sundown,
        _ => return None,
    })
}

fn refusal(text: &str) -> Refusal {
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => Refusal::NotAnArray,
        Err(_) => Refusal::NotJson,
    }
}

/// The text with `NaN`, `Infinity` and `-Infinity` outside strings replaced by `null`; `None` when there are none.
/// They are no JSON, but common encoders write them (Python's by default), and one score that is no number should
/// cost one item, not the SUNDOWN of all the others.
fn without_bare_words(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(word) = next_bare_word(text, at) {
        out.push_str(&text[copied..word.start]);
        out.push_str("null");
        copied = word.end;
        at = word.end;
    }
    out.push_str(&text[copied..]);
    (copied > 0).then_some(out)
}

/// Where the next such word stands; `from` is outside strings.
fn next_bare_word(text: &str, from: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let mut at = from;
    let mut in_string = false;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'N' | b'I' | b'-' if !in_string => {
                let rest = &bytes[at..];
                if let Some(word) = BARE_WORDS.iter().find(|w| rest.starts_with(w.as_bytes())) {
                    return Some(at..at + word.len());
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Backends of one frame.
pub const BACKENDS_MAX: usize = 10_000;
const FLAWS: usize = 5;
const HOST_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;
const WORD_CHARS_LOGGED: usize = 32;
const BARE_WORDS: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
