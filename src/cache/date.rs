//! HTTP dates (RFC 9110 §5.6.7): all three forms, in any letter case, and nothing that is almost one.
//!
//! Decides: which second a text means. Refuses what RFC 9111 §5.3 calls invalid: another zone, missing or
//! doubled blanks, one-digit hours. The weekday must be one but need not be the right one: it adds nothing,
//! and origins get it wrong. (The `httpdate` crate wants it right and knows one letter case only.)

/// Seconds since the Unix epoch; negative before it. `now_secs` settles the century of a two-digit year.
pub fn parse(text: &[u8], now_secs: u64) -> Option<i64> {
    match *text {
        [a, b, c, b',', b' ', ref rest @ ..] if is_one_of(&WEEKDAYS, &[a, b, c]) => fixdate(rest),
        [a, b, c, b' ', ref rest @ ..] if is_one_of(&WEEKDAYS, &[a, b, c]) => asctime(rest),
        _ => rfc850(text, now_secs),
    }
}

/// `06 Nov 1994 08:49:37 GMT`
fn fixdate(text: &[u8]) -> Option<i64> {
    let &[d1, d2, b' ', m1, m2, m3, b' ', y1, y2, y3, y4, b' ', ref rest @ ..] = text else {
        return None;
    };
    let (time, zone) = rest.split_at_checked(TIME_BYTES)?;
    if !zone.eq_ignore_ascii_case(b" GMT") {
        return None;
    }
    let year = number(&[y1, y2, y3, y4])?;
    seconds(year, month(&[m1, m2, m3])?, number(&[d1, d2])?, time)
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`. A year more than 50 years ahead is the last century's.
fn rfc850(text: &[u8], now_secs: u64) -> Option<i64> {
    let comma = text.iter().position(|&b| b == b',')?;
    let is_day = DAYS.iter().any(|day| day.eq_ignore_ascii_case(&text[..comma]));
    let &[b' ', d1, d2, b'-', m1, m2, m3, b'-', y1, y2, b' ', ref rest @ ..] = &text[comma + 1..]
    else {
        return None;
    };
    let (time, zone) = rest.split_at_checked(TIME_BYTES)?;
    if !is_day || !zone.eq_ignore_ascii_case(b" GMT") {
        return None;
    }
    let this_year = 1970 + i64::try_from(now_secs / SECS_PER_YEAR).ok()?.min(9999);
    let mut year = this_year - this_year % 100 + number(&[y1, y2])?;
    if year > this_year + 50 {
        year -= 100;
    } else if year <= this_year - 50 {
        year += 100;
    }
    seconds(year, month(&[m1, m2, m3])?, number(&[d1, d2])?, time)
}

/// `Nov  6 08:49:37 1994`
fn asctime(text: &[u8]) -> Option<i64> {
    let &[m1, m2, m3, b' ', d1, d2, b' ', ref rest @ ..] = text else { return None };
    let (time, year) = rest.split_at_checked(TIME_BYTES)?;
    let &[b' ', y1, y2, y3, y4] = year else { return None };
    let day = if d1 == b' ' { number(&[d2])? } else { number(&[d1, d2])? };
    seconds(number(&[y1, y2, y3, y4])?, month(&[m1, m2, m3])?, day, time)
}

fn is_one_of(names: &[[u8; 3]], name: &[u8; 3]) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// 1–12.
fn month(name: &[u8; 3]) -> Option<i64> {
    let at = MONTHS.iter().position(|known| known.eq_ignore_ascii_case(name))?;
    i64::try_from(at + 1).ok()
}

fn number(digits: &[u8]) -> Option<i64> {
    digits
        .iter()
        .try_fold(0, |number, &b| b.is_ascii_digit().then(|| number * 10 + i64::from(b - b'0')))
}

/// `time` is `08:49:37`; second 60 is a leap second and counts as the next one.
fn seconds(year: i64, month: i64, day: i64, time: &[u8]) -> Option<i64> {
    let &[h1, h2, b':', n1, n2, b':', s1, s2] = time else { return None };
    let (hour, minute, second) = (number(&[h1, h2])?, number(&[n1, n2])?, number(&[s1, s2])?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if !(1..=days_in_month).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days since 1970-01-01 with years that begin in March, so that the leap day is the last one.
    let march_year = if month <= 2 { year - 1 } else { year };
    let era = march_year.div_euclid(400);
    let year_of_era = march_year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * DAYS_PER_ERA + day_of_era - DAYS_TO_1970;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

const WEEKDAYS: [[u8; 3]; 7] = [*b"Mon", *b"Tue", *b"Wed", *b"Thu", *b"Fri", *b"Sat", *b"Sun"];
const DAYS: [&[u8]; 7] =
    [b"Monday", b"Tuesday", b"Wednesday", b"Thursday", b"Friday", b"Saturday", b"Sunday"];
const MONTHS: [[u8; 3]; 12] = [
    *b"Jan", *b"Feb", *b"Mar", *b"Apr", *b"May", *b"Jun", *b"Jul", *b"Aug", *b"Sep", *b"Oct",
    *b"Nov", *b"Dec",
];
/// `08:49:37`
const TIME_BYTES: usize = 8;
/// A mean Gregorian year.
const SECS_PER_YEAR: u64 = 31_556_952;
/// Days in 400 years.
const DAYS_PER_ERA: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const DAYS_TO_1970: i64 = 719_468;

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-01
    const NOW: u64 = 1_767_225_600;

    #[test]
    fn every_day_is_the_one_httpdate_prints() {
        let mut at = 0u64;
        while at < 253_402_300_800 {
            let text = httpdate::HttpDate::from(
                std::time::UNIX_EPOCH + std::time::Duration::from_secs(at),
            )
            .to_string();
            assert_eq!(parse(text.as_bytes(), NOW), i64::try_from(at).ok(), "{text}");
            // Nine days and some, so that every weekday, month end and hour has its turn.
            at += 9 * 86_400 + 3_671;
        }
    }

    #[test]
    fn forms() {
        // RFC 9110 §5.6.7; cache-tests expires-parse
        let second = Some(784_111_777);
        for (text, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", second),
            ("Sunday, 06-Nov-94 08:49:37 GMT", second),
            ("Sun Nov  6 08:49:37 1994", second),
            ("SUN, 06 nOV 1994 08:49:37 gmt", second),
            ("sUNDAY, 06-NOV-94 08:49:37 Gmt", second),
            ("sun NOV  6 08:49:37 1994", second),
            // The weekday is wrong
            ("Mon, 06 Nov 1994 08:49:37 GMT", second),
            ("Sun Nov 16 08:49:37 1994", Some(784_975_777)),
            ("Sun, 29 Feb 2032 00:00:00 GMT", Some(1_961_625_600)),
            ("Thu, 18 Aug 2050 02:01:18 GMT", Some(2_544_400_878)),
            ("Thursday, 18-Aug-50 02:01:18 GMT", Some(2_544_400_878)),
            ("Thu Aug  8 02:01:18 2050", Some(2_543_536_878)),
            ("Tue, 19 Jan 2038 14:14:08 GMT", Some(2_147_523_248)),
            ("Sun, 21 Nov 2286 04:46:39 GMT", Some(10_000_039_599)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Wed, 31 Dec 1969 23:59:59 GMT", Some(-1)),
            ("Fri, 01 Jan 0001 00:00:00 GMT", Some(-62_135_596_800)),
            // 50 years ahead, and one more
            ("Sunday, 01-Jan-76 00:00:00 GMT", Some(3_345_062_400)),
            ("Sunday, 01-Jan-77 00:00:00 GMT", Some(220_924_800)),
            ("Thu, 30 Jun 2016 23:59:60 GMT", Some(1_467_331_200)),
            ("Thu, 18 Aug 2050 02:01:18 UTC", None),
            ("Thu, 18 Aug 2050 02:01:18 AEST", None),
            ("Thu, 18 Aug 50 02:01:18 GMT", None),
            ("Thu 18 Aug 2050 02:01:18 GMT", None),
            ("Thu, 18  Aug  2050 02:01:18 GMT", None),
            ("Thu, 18-Aug-2050 02:01:18 GMT", None),
            ("Thu, 18 Aug 2050 02.01.18 GMT", None),
            ("Thu, 18 Aug 2050 2:01:18 GMT", None),
            ("Thu, 18 Aug 2050 02:01:18", None),
            ("Thu, 18 Aug 2050 02:01:18 GMT ", None),
            ("Thu, 18 Aug 2050 24:00:00 GMT", None),
            ("Thu, 18 Aug 2050 00:60:00 GMT", None),
            ("Thu, 29 Feb 2050 00:00:00 GMT", None),
            ("Thu, 00 Aug 2050 00:00:00 GMT", None),
            ("Xyz, 18 Aug 2050 02:01:18 GMT", None),
            ("0", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(parse(text.as_bytes(), NOW), expected, "{text}");
        }
    }
}
