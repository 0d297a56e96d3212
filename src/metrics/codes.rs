//! Answers by status code, with a bounded number of labels whatever the backends invent.
//!
//! The codes an operator looks for stand alone; every other one counts for its class.

use std::cell::Cell;

/// One core's answers.
#[derive(Debug)]
pub struct Codes([Cell<u64>; CODES]);

impl Codes {
    /// None yet.
    pub const fn new() -> Self {
        Self([const { Cell::new(0) }; CODES])
    }

    /// Counts an answer.
    pub fn count(&self, status: u16) {
        let cell = &self.0[code_of(status)];
        cell.set(cell.get().wrapping_add(1));
    }

    /// The totals, in the order of [`LABELS`].
    pub fn totals(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().map(Cell::get)
    }
}

impl Default for Codes {
    fn default() -> Self {
        Self::new()
    }
}

/// The index of a status code in [`LABELS`].
pub fn code_of(status: u16) -> usize {
    INDEX.get(usize::from(status)).map_or(CLASSES - 1, |&index| usize::from(index))
}

/// 0 to 4: the class of a status code, 1xx to 5xx; what is no status code counts as 5xx.
pub const fn class_of(status: u16) -> usize {
    match status / 100 {
        class @ 1..=5 => class as usize - 1,
        _ => CLASSES - 1,
    }
}

/// The class, 0 to 4, of what [`LABELS`] names at `index`.
pub const fn class_at(index: usize) -> usize {
    if index < CLASSES { index } else { class_of(KNOWN[index - CLASSES]) }
}

/// Status codes that are counted alone.
const KNOWN: [u16; 34] = [
    101, 200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 408, 409,
    410, 412, 413, 414, 415, 416, 417, 429, 431, 500, 501, 502, 503, 504, 505,
];

/// By status code, since a request must not search.
static INDEX: [u8; 600] = index();

const fn index() -> [u8; 600] {
    let mut index = [0; 600];
    let mut status = 0;
    while status < index.len() {
        index[status] = class_of(status as u16) as u8;
        status += 1;
    }
    let mut at = 0;
    while at < KNOWN.len() {
        index[KNOWN[at] as usize] = (CLASSES + at) as u8;
        at += 1;
    }
    index
}

/// Classes of status codes: 1xx to 5xx.
pub const CLASSES: usize = 5;
/// Labels there are.
pub const CODES: usize = CLASSES + KNOWN.len();

/// What each index is called in a `code` label.
#[rustfmt::skip]
pub const LABELS: [&str; CODES] = [
    "1xx", "2xx", "3xx", "4xx", "5xx",
    "101", "200", "201", "202", "204", "206", "301", "302", "303", "304", "307", "308", "400", "401", "403", "404",
    "405", "408", "409", "410", "412", "413", "414", "415", "416", "417", "429", "431", "500", "501", "502", "503",
    "504", "505",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_the_codes_or_their_class() {
        for status in 0..=u16::MAX {
            let label = LABELS[code_of(status)];
            let is_known = KNOWN.contains(&status);
            let class = format!("{}xx", status / 100);
            match status {
                _ if is_known => assert_eq!(label, status.to_string()),
                100..600 => assert_eq!(label, class),
                _ => assert_eq!(label, "5xx"),
            }
            assert_eq!(class_at(code_of(status)), class_of(status));
        }
    }

    #[test]
    fn answers_are_counted() {
        let codes = Codes::new();
        [200, 200, 299, 599, 0].iter().for_each(|&status| codes.count(status));
        let totals: Vec<u64> = codes.totals().collect();
        assert_eq!((totals[code_of(200)], totals[code_of(298)], totals[code_of(598)]), (2, 1, 2));
    }
}
