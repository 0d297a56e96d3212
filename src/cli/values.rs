//! Text to values: ports, durations, sizes, addresses, backends. Pure; knows nothing of where the text came from.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::access_log::Format;
use crate::balance::{Balance, Score};
use crate::boot::plan::CoreChoice;
use crate::cache::CacheMode;
use crate::config::{StaticBackend, Steer, Takeover};
use crate::http::Network;
use crate::http::network::NoNetwork;
use crate::io::affinity::parse_list;

/// What is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It is not one of these at all.
    NotOne,
    /// It is one, below the range.
    TooSmall,
    /// It is one, above the range.
    TooLarge,
    /// Something more particular, to follow the name, the value and a comma.
    Because(&'static str),
}

/// 1–65535.
pub(super) fn port(text: &str) -> Result<u16, Wrong> {
    // The bounds are those of the type, so the number fits.
    number(text, 1, u64::from(u16::MAX)).map(|port| port as u16)
}

/// A whole number within `min..=max`.
pub(super) fn number(text: &str, min: u64, max: u64) -> Result<u64, Wrong> {
    let (is_negative, digits) =
        text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Wrong::NotOne);
    }
    match digits.parse::<u64>() {
        _ if is_negative => Err(Wrong::TooSmall),
        Ok(number) if number < min => Err(Wrong::TooSmall),
        Ok(number) if number <= max => Ok(number),
        _ => Err(Wrong::TooLarge),
    }
}

/// `off`, or a whole number within `min..=max`.
pub(super) fn number_or_off(text: &str, min: u64, max: u64) -> Result<Option<u64>, Wrong> {
    if text.eq_ignore_ascii_case("off") { Ok(None) } else { number(text, min, max).map(Some) }
}

/// A duration within `min..=max`: a number, fractions allowed, and `ms`, `s`, `m` or `h`; a bare number is seconds.
pub(super) fn duration(text: &str, min: Duration, max: Duration) -> Result<Duration, Wrong> {
    let (is_negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let seconds_per_unit = match unit.trim_start() {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(Wrong::NotOne),
    };
    // Digits and dots only: neither nan nor inf gets here, but `1.2.3` and `.` do.
    let count: f64 = digits.parse().map_err(|_| Wrong::NotOne)?;
    if is_negative {
        return Err(Wrong::TooSmall);
    }
    match Duration::try_from_secs_f64(count * seconds_per_unit) {
        Ok(duration) if duration < min => Err(Wrong::TooSmall),
        Ok(duration) if duration <= max => Ok(duration),
        _ => Err(Wrong::TooLarge),
    }
}

/// `MIN..MAX`, each within 1 ms–24 h, in this order.
pub(super) fn duration_range(text: &str) -> Result<(Duration, Duration), Wrong> {
    let (low, high) = text.split_once("..").ok_or(Wrong::NotOne)?;
    let low = duration(low.trim(), TIME_MIN, TIME_MAX)?;
    let high = duration(high.trim(), TIME_MIN, TIME_MAX)?;
    if low > high { Err(Wrong::Because("which ends before it begins")) } else { Ok((low, high)) }
}

/// Bytes within `min..=max`: a whole number and `KiB`, `MiB`, `GiB`, `TiB` (1024) or `kB`, `MB`, `GB`, `TB` (1000).
pub(super) fn size(text: &str, min: u64, max: u64) -> Result<u64, Wrong> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let unit = unit.trim_start();
    let (_, bytes_per_unit) =
        SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or(Wrong::NotOne)?;
    let count = number(digits, 0, u64::MAX)?;
    match count.checked_mul(*bytes_per_unit) {
        Some(bytes) if bytes < min => Err(Wrong::TooSmall),
        Some(bytes) if bytes <= max => Ok(bytes),
        _ => Err(Wrong::TooLarge),
    }
}

/// `unlimited`, or bytes.
pub(super) fn size_or_unlimited(text: &str) -> Result<Option<u64>, Wrong> {
    if text.eq_ignore_ascii_case("unlimited") {
        return Ok(None);
    }
    size(text, 0, i64::MAX.unsigned_abs()).map(Some)
}

/// `all`, or a list of cores and ranges.
pub(super) fn cores(text: &str) -> Result<CoreChoice, Wrong> {
    if text == "all" {
        return Ok(CoreChoice::All);
    }
    parse_list(text).map(CoreChoice::Listed).ok_or(Wrong::NotOne)
}

/// A policy's name.
pub(super) fn balance(text: &str) -> Result<Balance, Wrong> {
    match text {
        "bounded" => Ok(Balance::Bounded),
        "p2c" => Ok(Balance::P2c),
        "latency" => Ok(Balance::Latency),
        "weighted-random" => Ok(Balance::WeightedRandom),
        _ => Err(Wrong::NotOne),
    }
}

/// How connections come to cores.
pub(super) fn steer(text: &str) -> Result<Steer, Wrong> {
    match text {
        "none" => Ok(Steer::None),
        "accept" => Ok(Steer::Accept),
        "cpu" => Ok(Steer::Cpu),
        _ => Err(Wrong::NotOne),
    }
}

/// `on` or `off`.
pub(super) fn on_or_off(text: &str) -> Result<bool, Wrong> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(Wrong::NotOne),
    }
}

/// `off` (None), `-` for standard output (no path), or a path.
pub(super) fn log_place(text: &str) -> Result<Option<Option<PathBuf>>, Wrong> {
    match text {
        "off" => Ok(None),
        "-" => Ok(Some(None)),
        _ if text.ends_with('/') => Err(Wrong::Because("which is a directory")),
        _ => Ok(Some(Some(text.into()))),
    }
}

/// `off`, `on`, or a path: what `on` comes to is called `name`.
pub(super) fn takeover(text: &str, name: &str) -> Result<Option<Takeover>, Wrong> {
    match text {
        "off" => Ok(None),
        "on" => Ok(Some(Takeover::Named(name.to_owned()))),
        _ if text.ends_with('/') => Err(Wrong::Because("which is a directory")),
        _ if text.len() > SOCKET_PATH_MAX => Err(Wrong::Because("which is too long for a socket")),
        _ => Ok(Some(Takeover::At(text.into()))),
    }
}

/// How a line of the access log looks.
pub(super) fn log_format(text: &str) -> Result<Format, Wrong> {
    match text {
        "short" => Ok(Format::Short),
        "common" => Ok(Format::Common),
        "combined" => Ok(Format::Combined),
        "json" => Ok(Format::Json),
        _ => Err(Wrong::NotOne),
    }
}

/// How far the rules for caches are used.
pub(super) fn cache_mode(text: &str) -> Result<CacheMode, Wrong> {
    match text {
        "safe" => Ok(CacheMode::Safe),
        "rfc" => Ok(CacheMode::Rfc),
        _ => Err(Wrong::NotOne),
    }
}

/// `IP:PORT`, `[IPv6]:PORT`, `:PORT` for all addresses, or an address without port, which takes `port`.
/// Port 0 takes a free one.
pub(super) fn listen(text: &str, port: u16) -> Result<SocketAddr, Wrong> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    if let Some(port) = text.strip_prefix(':').filter(|rest| !rest.contains(':')) {
        let port = number(port, 0, u64::from(u16::MAX))?;
        return Ok(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port as u16));
    }
    let ip = unbracketed(text).unwrap_or(text);
    if let Ok(ip) = ip.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, port));
    }
    match text.rsplit_once(':') {
        Some((host, digits)) if unbracketed(host).unwrap_or(host).parse::<IpAddr>().is_ok() => {
            number(digits, 0, u64::from(u16::MAX))?;
            Err(Wrong::NotOne)
        }
        Some((host, _)) if is_host(host) => Err(Wrong::Because("a name; an IP address is needed")),
        _ => Err(Wrong::NotOne),
    }
}

/// `IP/PREFIX`, or an IP address alone.
pub(super) fn network(text: &str) -> Result<Network, Wrong> {
    let (first, prefix) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
    let first: IpAddr = match first.parse() {
        Ok(first) => first,
        Err(_) if is_host(first) && first.bytes().any(|byte| byte.is_ascii_alphabetic()) => {
            return Err(Wrong::Because("a name; an IP address is needed"));
        }
        Err(_) => return Err(Wrong::NotOne),
    };
    let Some(prefix) = prefix else { return Ok(Network::of(first)) };
    let prefix_bits = match number(prefix, 0, u64::from(u8::MAX)) {
        // The bounds are those of the type, so the number fits.
        Ok(bits) => bits as u8,
        Err(Wrong::TooLarge) => u8::MAX,
        Err(_) => return Err(Wrong::NotOne),
    };
    Network::new(first, prefix_bits).map_err(|why| match why {
        NoNetwork::PrefixTooLong => Wrong::Because("whose prefix is too long"),
        NoNetwork::HostBits => Wrong::Because("whose address has bits set behind the prefix"),
    })
}

/// `off`, or an address as [`listen`] reads it.
pub(super) fn admin(text: &str) -> Result<Option<SocketAddr>, Wrong> {
    if text.eq_ignore_ascii_case("off") { Ok(None) } else { listen(text, ADMIN_PORT).map(Some) }
}

/// `NAME[:PORT][=SCORE]`; an IPv6 address stands in brackets.
pub(super) fn backend(text: &str) -> Result<StaticBackend, Wrong> {
    let (place, score) = match text.split_once('=') {
        Some((place, score)) => (place.trim_end(), backend_score(score.trim_start())?),
        None => (text, backend_score("100")?),
    };
    let (host, port) = host_and_port(place)?;
    Ok(StaticBackend { host, port, score })
}

/// A deployment agent's URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AgentUrl {
    /// Without brackets.
    pub host: String,
    /// If the URL names one.
    pub port: Option<u16>,
    /// Path and query, if the URL has any.
    pub path: Option<String>,
}

/// `ws://HOST[:PORT][/PATH]`.
pub(super) fn agent(text: &str) -> Result<AgentUrl, Wrong> {
    let scheme_end = text.find("://").ok_or(Wrong::NotOne)?;
    let rest = &text[scheme_end + 3..];
    match text[..scheme_end].to_ascii_lowercase().as_str() {
        "ws" => {}
        "wss" => return Err(Wrong::Because("and TLS is not spoken to the agent")),
        _ => return Err(Wrong::NotOne),
    }
    if !rest.bytes().all(|byte| byte.is_ascii_graphic()) || rest.contains('#') {
        return Err(Wrong::NotOne);
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.contains('@') {
        return Err(Wrong::Because("and a user name has no place there"));
    }
    let (host, port) = host_and_port(authority)?;
    let path = match path {
        "" => None,
        path if path.starts_with('?') => Some(format!("/{path}")),
        path => Some(path.to_owned()),
    };
    Ok(AgentUrl { host, port, path })
}

/// A path and query as they stand in a request line.
pub(super) fn path(text: &str) -> Result<String, Wrong> {
    let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if text.starts_with('/') && is_visible { Ok(text.to_owned()) } else { Err(Wrong::NotOne) }
}

/// A log filter: a level, or `target=level` items, separated by commas.
pub(super) fn log_filter(text: &str) -> Result<String, Wrong> {
    let is_item = |item: &str| {
        let (target, level) =
            item.trim().rsplit_once('=').map_or((None, item.trim()), |(t, l)| (Some(t), l));
        target != Some("") && LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level))
    };
    if text.split(',').all(is_item) { Ok(text.to_owned()) } else { Err(Wrong::NotOne) }
}

fn host_and_port(text: &str) -> Result<(String, Option<u16>), Wrong> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(inner) => {
            let (host, rest) = inner.split_once(']').ok_or(Wrong::NotOne)?;
            host.parse::<Ipv6Addr>().map_err(|_| Wrong::NotOne)?;
            (host, rest)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    match rest.strip_prefix(':') {
        Some(port) if port.contains(':') && text.parse::<Ipv6Addr>().is_ok() => {
            Err(Wrong::Because("and an IPv6 address needs brackets"))
        }
        _ if !text.starts_with('[') && !is_host(host) => Err(Wrong::NotOne),
        Some(digits) => match port(digits) {
            Ok(port) => Ok((host.to_owned(), Some(port))),
            Err(Wrong::TooSmall) => Err(Wrong::Because("whose port is too small")),
            Err(Wrong::TooLarge) => Err(Wrong::Because("whose port is too large")),
            Err(other) => Err(other),
        },
        None if rest.is_empty() => Ok((host.to_owned(), None)),
        None => Err(Wrong::NotOne),
    }
}

fn backend_score(text: &str) -> Result<Score, Wrong> {
    let value: f64 = text.parse().map_err(|_| Wrong::NotOne)?;
    Score::new(value).ok_or(match value {
        value if value < 0.0 => Wrong::Because("whose score is too small"),
        value if value > 100.0 => Wrong::Because("whose score is too large"),
        _ => Wrong::NotOne,
    })
}

/// A DNS name or an IPv4 address: letters, digits, `-`, `_` and dots; no label is empty, too long
/// (RFC 1035 §2.3.4) or begins with a hyphen (RFC 1123 §2.1), which also keeps a forgotten value from eating a flag.
fn is_host(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

fn unbracketed(text: &str) -> Option<&str> {
    text.strip_prefix('[')?.strip_suffix(']')
}

/// Of the admin listener, unless somebody says otherwise.
pub(super) const ADMIN_PORT: u16 = 9900;
/// Shortest time that can be set.
pub(super) const TIME_MIN: Duration = Duration::from_millis(1);
/// Longest time that can be set.
pub(super) const TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// A socket's path has room for 107 bytes (unix(7)); beside it there is one with a process number, for a moment.
const SOCKET_PATH_MAX: usize = 107 - 11;
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

const SIZE_UNITS: [(&str, u64); 10] = [
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

#[cfg(test)]
#[path = "values_tests.rs"]
mod tests;
