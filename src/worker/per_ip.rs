//! How many client connections one address may have in the whole process (`--max-connections-per-ip`).
//!
//! IPv6 clients are told apart by their /64: that is the least one network gets, and whoever has one has all addresses
//! in it (RFC 4291 §2.5.4, RFC 6177).
//!
//! The crossing: one table of fixed size in which every core counts a connection when it accepts it and again when it
//! ends, wherever it lives by then. No request comes near it, nobody waits in it. An address has its *line* of the table,
//! chosen by a keyed hash, so that nobody can choose his neighbours; in the line it takes a *place*, which carries the
//! count and 40 more bits of the hash, so that two addresses are never taken for one in practice. When sixteen other
//! addresses have the line already, a connection is let in uncounted: rather one too many than somebody refused for
//! what others do. The table is so large that this happens to five in a million if every connection the process may
//! have is open and each comes from another address.
//!
//! Two cores that meet an address for the first time in the same instant may take two places for it. So what counts is
//! the sum over the line, and it is taken again after a connection was counted: the limit is never exceeded; of two that
//! come in that instant, at the limit, both may be refused.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// One core's end of the table. Made for all cores at once by [`PerIp::for_cores`].
pub struct PerIp {
    limit: u64,
    keys: RandomState,
    table: Arc<[Line]>,
}

/// The places of the addresses that share a line: two cache lines, which processors fetch as one.
#[derive(Default)]
#[repr(align(128))]
struct Line([AtomicU64; PLACES]);

/// What becomes of a connection.
pub(super) enum Entry {
    /// It is counted for as long as this lives.
    Counted(Counted),
    /// Its address has no place.
    Uncounted,
    /// Its address has as many as it may.
    Refused,
}

/// A connection that counts against its address until dropped, on whatever core.
pub(super) struct Counted {
    // The reference count is that of one core's end: cores that accept do not meet in it.
    end: Arc<PerIp>,
    line: u32,
    place: u32,
}

impl PerIp {
    /// The ends of `cores` cores. One address may have `limit` of the `connections_max` connections of the process.
    /// `keys` are to be of this process alone.
    pub fn for_cores(
        limit: u32,
        connections_max: usize,
        cores: usize,
        keys: &RandomState,
    ) -> Vec<Self> {
        let table: Arc<[Line]> = (0..lines_for(connections_max)).map(|_| Line::default()).collect();
        let limit = u64::from(limit).min(COUNT_MASK);
        let end = |_| Self { limit, keys: keys.clone(), table: Arc::clone(&table) };
        (0..cores).map(end).collect()
    }

    /// Counts a connection of `address`, if it may have one more.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Entry {
        let hash = self.keys.hash_one(Party::of(address));
        // As many bits as there are lines, and others than those of the mark.
        let at = hash as usize & (self.table.len() - 1);
        match self.table[at].enter(hash >> COUNT_BITS, self.limit) {
            Ok(Some(place)) => {
                let (line, place) = (at as u32, place as u32);
                Entry::Counted(Counted { end: Arc::clone(self), line, place })
            }
            Ok(None) => Entry::Uncounted,
            Err(Full) => Entry::Refused,
        }
    }
}

fn lines_for(connections_max: usize) -> usize {
    let places = connections_max.saturating_mul(PLACES_PER_CONNECTION);
    places.div_ceil(PLACES).clamp(1, LINES_MOST).next_power_of_two()
}

impl Drop for Counted {
    fn drop(&mut self) {
        let place = &self.end.table[self.line as usize].0[self.place as usize];
        let before = place.fetch_sub(1, SeqCst);
        debug_assert!(before & COUNT_MASK > 0, "nobody was counted there");
    }
}

/// Who counts as one.
#[derive(Hash)]
enum Party {
    V4(u32),
    /// The /64.
    V6(u64),
}

impl Party {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.to_bits()),
            IpAddr::V6(v6) => Self::V6((v6.to_bits() >> 64) as u64),
        }
    }
}

/// The address has as many as it may.
#[derive(Debug, PartialEq, Eq)]
struct Full;

impl Line {
    /// Counts one more in a place with this mark, which is returned; None if there is no room for one.
    fn enter(&self, mark: u64, limit: u64) -> Result<Option<usize>, Full> {
        loop {
            let (mut count, mut own, mut free) = (0, None, None);
            for (at, place) in self.0.iter().enumerate() {
                let seen = place.load(SeqCst);
                match seen & COUNT_MASK {
                    // Whoever was counted there last has left its mark.
                    0 if free.is_none() => free = Some((at, seen)),
                    0 => {}
                    n if seen >> COUNT_BITS == mark => {
                        count += n;
                        own = own.or(Some((at, seen)));
                    }
                    _ => {}
                }
            }
            if count >= limit {
                return Err(Full);
            }
            let Some((at, seen)) = own.or(free) else { return Ok(None) };
            let more = (mark << COUNT_BITS) | ((seen & COUNT_MASK) + 1);
            // When it fails somebody else got on: look again.
            if self.0[at].compare_exchange(seen, more, SeqCst, SeqCst).is_err() {
                continue;
            }
            // Of those that are inside at any moment, the one counted last has seen all others here.
            if self.count(mark) <= limit {
                return Ok(Some(at));
            }
            self.0[at].fetch_sub(1, SeqCst);
            return Err(Full);
        }
    }

    fn count(&self, mark: u64) -> u64 {
        let seen = self.0.iter().map(|place| place.load(SeqCst));
        seen.filter(|seen| seen >> COUNT_BITS == mark).map(|seen| seen & COUNT_MASK).sum()
    }
}

/// Addresses in a line.
const PLACES: usize = 16;
/// Places in the table for each connection that the process may have: 32 bytes.
const PLACES_PER_CONNECTION: usize = 4;
/// Of a place; the mark has the rest.
const COUNT_BITS: u32 = 24;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
/// The hash's bits that choose a line are none of the mark's.
const LINES_MOST: usize = 1 << COUNT_BITS;
const _: () = assert!(size_of::<Line>() == PLACES * 8);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64};

    use super::*;

    fn one(limit: u32, connections_max: usize) -> Arc<PerIp> {
        let mut ends = PerIp::for_cores(limit, connections_max, 1, &RandomState::new());
        Arc::new(ends.pop().unwrap())
    }

    fn counted(end: &Arc<PerIp>, address: &str) -> Option<Counted> {
        match end.enter(address.parse().unwrap()) {
            Entry::Counted(counted) => Some(counted),
            Entry::Uncounted => panic!("{address} has no place"),
            Entry::Refused => None,
        }
    }

    fn is_empty(end: &PerIp) -> bool {
        end.table.iter().flat_map(|line| &line.0).all(|place| place.load(SeqCst) & COUNT_MASK == 0)
    }

    #[test]
    fn an_address_has_so_many_and_no_more_until_one_ends() {
        let end = one(3, 1000);
        let mut held: Vec<_> =
            (0..3).map(|_| counted(&end, "192.0.2.1").expect("room for it")).collect();
        for _ in 0..2 {
            assert!(counted(&end, "192.0.2.1").is_none());
            // The same address in other words.
            assert!(counted(&end, "::ffff:192.0.2.1").is_none());
            let other = counted(&end, "192.0.2.2").expect("another has its own");
            drop(held.pop());
            held.push(counted(&end, "192.0.2.1").expect("room again"));
            drop(other);
        }
        drop(held);
        assert!(is_empty(&end));
    }

    #[test]
    fn a_64_counts_as_one() {
        let end = one(2, 1000);
        let held = ["2001:db8:0:1::1", "2001:db8:0:1:ffff::2"].map(|text| counted(&end, text));
        assert!(held.iter().all(Option::is_some));
        assert!(counted(&end, "2001:db8:0:1:8000::").is_none());
        assert!(counted(&end, "2001:db8:0:2::1").is_some());
        assert!(counted(&end, "2001:db8::1").is_some());
    }

    #[test]
    fn all_cores_count_in_one_table() {
        let ends = PerIp::for_cores(2, 100, 3, &RandomState::new());
        let ends: Vec<_> = ends.into_iter().map(Arc::new).collect();
        let held = [counted(&ends[0], "::1"), counted(&ends[1], "::1")];
        assert!(counted(&ends[2], "::1").is_none());
        // It ends on another core than the one that accepted it.
        let [first, second] = held;
        std::thread::spawn(move || drop(first)).join().unwrap();
        assert!(counted(&ends[2], "::1").is_some());
        drop(second);
        assert!(is_empty(&ends[0]));
    }

    #[test]
    fn where_a_line_is_full_nobody_is_refused_for_others() {
        let end = one(1, 1);
        assert_eq!(end.table.len(), 1);
        let address = |n: u32| IpAddr::V4((0x0a00_0000 + n).into());
        let held: Vec<_> = (0..PLACES as u32).map(|n| end.enter(address(n))).collect();
        assert!(held.iter().all(|entry| matches!(entry, Entry::Counted(_))));
        assert!(matches!(end.enter(address(99)), Entry::Uncounted));
        assert!(matches!(end.enter(address(3)), Entry::Refused));
        drop(held);
        assert!(is_empty(&end));
        assert!(matches!(end.enter(address(99)), Entry::Counted(_)));
    }

    #[test]
    fn the_table_grows_with_the_connections_and_has_an_end() {
        for (connections, lines) in
            [(0, 1), (1, 1), (5, 2), (1000, 256), (10_000_000, 1 << 22), (usize::MAX, LINES_MOST)]
        {
            assert_eq!(lines_for(connections), lines);
        }
        assert_eq!(one(1, 1000).table.len(), 256);
    }

    /// Cores that come and go at the same places: nobody sees more than the limit, and in the end all is given back.
    #[test]
    fn cores_that_meet_never_let_in_too_many() {
        const LIMIT: u64 = 3;
        const ADDRESSES: usize = 20;
        let ends = PerIp::for_cores(LIMIT as u32, 1, 4, &RandomState::new());
        let ends: Vec<_> = ends.into_iter().map(Arc::new).collect();
        let inside: [AtomicU64; ADDRESSES] = std::array::from_fn(|_| AtomicU64::new(0));
        let (is_exceeded, let_in) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for (core, end) in (1_u64..).zip(&ends) {
                let (inside, is_exceeded, let_in) = (&inside, &is_exceeded, &let_in);
                scope.spawn(move || {
                    let mut held = Vec::new();
                    let mut draw = core;
                    for _ in 0..100_000 {
                        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(97);
                        let n = (draw >> 33) as usize % ADDRESSES;
                        if (draw >> 60) % 2 == 0 && !held.is_empty() {
                            let (n, counted): (usize, Counted) = held.swap_remove(n % held.len());
                            inside[n].fetch_sub(1, SeqCst);
                            drop(counted);
                        } else if let Entry::Counted(counted) =
                            end.enter(IpAddr::V4((n as u32).into()))
                        {
                            // Counted before it is seen inside, and seen outside before it is given back.
                            let before = inside[n].fetch_add(1, SeqCst);
                            is_exceeded.fetch_or(before >= LIMIT, SeqCst);
                            let_in.fetch_add(1, SeqCst);
                            held.push((n, counted));
                        }
                    }
                    for (n, counted) in held {
                        inside[n].fetch_sub(1, SeqCst);
                        drop(counted);
                    }
                });
            }
        });
        assert!(!is_exceeded.load(SeqCst), "more than {LIMIT} at once");
        assert!(let_in.load(SeqCst) > 1000, "hardly anybody came in");
        assert!(is_empty(&ends[0]));
    }
}
