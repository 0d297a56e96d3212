//! Which name is to be looked up when, and what is known of each. Pure: somebody else asks.
//!
//! A lookup blocks its thread for as long as the name server likes. So lookups are few at a time, one that is not
//! answered within [`LOOKUP_TIMEOUT`] is written off (its answer is still welcome when it comes), and a name that was
//! written off is asked again only on a lane of its own: names that never answer can hold up each other, not the rest.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::time::Instant;

/// The names somebody wants.
#[derive(Debug, Default)]
pub struct Names {
    names: HashMap<Arc<str>, Name>,
    /// Names waiting for their turn, by lane.
    due: [BTreeSet<(Instant, Arc<str>)>; 2],
    /// Lookups under way, those of names that nobody wants any more included.
    asked: Vec<Asked>,
}

#[derive(Debug)]
struct Name {
    /// The last good answer.
    known: Arc<[IpAddr]>,
    lane: Lane,
    /// In a row.
    failures: u32,
    /// When the next lookup may begin; `None` while one is under way.
    due: Option<Instant>,
}

#[derive(Debug)]
struct Asked {
    host: Arc<str>,
    since: Instant,
    lane: Lane,
    is_late: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Prompt,
    Suspect,
}

/// What a turn of events means for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It has these addresses now, in the resolver's order.
    Changed(Arc<str>, Arc<[IpAddr]>),
    /// Its first failure in a row: no answer in time, or no address. What was known stays.
    Failing(Arc<str>, String),
}

impl Names {
    /// Somebody wants `host`, which is looked up as soon as there is room and every [`REFRESH`] from then on.
    pub fn want(&mut self, host: &Arc<str>, now: Instant) {
        if self.names.contains_key(host) {
            return;
        }
        let is_asked = self.asked.iter().any(|asked| asked.host == *host);
        let due = (!is_asked).then_some(now);
        let name = Name { known: Arc::new([]), lane: Lane::Prompt, failures: 0, due };
        self.due[Lane::Prompt as usize].extend(due.map(|due| (due, Arc::clone(host))));
        self.names.insert(Arc::clone(host), name);
    }

    /// Forgets every name that `is_wanted` denies.
    pub fn retain(&mut self, is_wanted: impl Fn(&str) -> bool) {
        let due = &mut self.due;
        self.names.retain(|host, name| {
            let stays = is_wanted(host);
            if let (false, Some(at)) = (stays, name.due) {
                due[name.lane as usize].remove(&(at, Arc::clone(host)));
            }
            stays
        });
    }

    /// The last good answer; empty when there was none.
    pub fn known(&self, host: &str) -> &[IpAddr] {
        self.names.get(host).map_or(&[], |name| &name.known)
    }

    /// Whether a lookup of `host` has come to an end yet, good or bad.
    pub fn is_settled(&self, host: &str) -> bool {
        self.names.get(host).is_some_and(|name| name.failures > 0 || !name.known.is_empty())
    }

    /// A name to be looked up now; call until `None`. Each ends in [`answered`](Self::answered).
    pub fn start(&mut self, now: Instant) -> Option<Arc<str>> {
        for lane in [Lane::Prompt, Lane::Suspect] {
            if !self.has_room(lane) {
                continue;
            }
            let Some((at, host)) = self.due[lane as usize].first().cloned() else { continue };
            if at > now {
                continue;
            }
            self.due[lane as usize].pop_first();
            if let Some(name) = self.names.get_mut(&host) {
                name.due = None;
            }
            let asked = Asked { host: Arc::clone(&host), since: now, lane, is_late: false };
            self.asked.push(asked);
            return Some(host);
        }
        None
    }

    /// A lookup came to its end.
    pub fn answered(
        &mut self,
        host: &str,
        answer: Result<Vec<IpAddr>, String>,
        now: Instant,
    ) -> Option<Finding> {
        let at = self.asked.iter().position(|asked| asked.host.as_ref() == host)?;
        let asked = self.asked.swap_remove(at);
        let name = self.names.get_mut(host)?;
        // A lookup that went well but late tells nothing about the next one's manners.
        name.lane = if asked.is_late { Lane::Suspect } else { Lane::Prompt };
        let finding = match answer.map(without_duplicates) {
            Ok(addresses) if !addresses.is_empty() => {
                name.failures = 0;
                let is_news = *name.known != addresses[..];
                is_news.then(|| {
                    name.known = addresses.into();
                    Finding::Changed(Arc::clone(&asked.host), Arc::clone(&name.known))
                })
            }
            Ok(_) => name.failed(&asked, "it has no address".to_owned()),
            Err(why) => name.failed(&asked, why),
        };
        let due = now + name.pause();
        name.due = Some(due);
        self.due[name.lane as usize].insert((due, asked.host));
        finding
    }

    /// Writes off lookups that took too long.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Finding> {
        let mut findings = Vec::new();
        let overdue = |asked: &&mut Asked| !asked.is_late && asked.since + LOOKUP_TIMEOUT <= now;
        for asked in self.asked.iter_mut().filter(overdue) {
            if let Some(name) = self.names.get_mut(&asked.host) {
                let why = format!("no answer within {} s", LOOKUP_TIMEOUT.as_secs());
                findings.extend(name.failed(asked, why));
            }
            asked.is_late = true;
        }
        findings
    }

    /// When [`start`](Self::start) or [`handle_timeout`](Self::handle_timeout) is next to be called.
    pub fn next_deadline(&self) -> Option<Instant> {
        let waiting = self.asked.iter().filter(|asked| !asked.is_late);
        let lanes = [Lane::Prompt, Lane::Suspect].into_iter().filter(|&lane| self.has_room(lane));
        let due = lanes.filter_map(|lane| self.due[lane as usize].first().map(|&(at, _)| at));
        waiting.map(|asked| asked.since + LOOKUP_TIMEOUT).chain(due).min()
    }

    /// Lookups under way, each of which occupies a thread.
    pub const fn asked(&self) -> usize {
        self.asked.len()
    }

    fn has_room(&self, lane: Lane) -> bool {
        let in_lane = self.asked.iter().filter(|asked| asked.lane == lane && !asked.is_late);
        let (lane_max, asked_max) = match lane {
            Lane::Prompt => (PROMPT_MAX, ASKED_MAX),
            Lane::Suspect => (SUSPECT_MAX, ASKED_MAX - PROMPT_MAX),
        };
        self.asked.len() < asked_max && in_lane.count() < lane_max
    }
}

impl Name {
    fn failed(&mut self, asked: &Asked, why: String) -> Option<Finding> {
        // One that was written off has been counted.
        self.failures += u32::from(!asked.is_late);
        (self.failures == 1 && !asked.is_late)
            .then(|| Finding::Failing(Arc::clone(&asked.host), why))
    }

    fn pause(&self) -> Duration {
        match self.failures {
            0 => REFRESH,
            n => (RETRY_MIN * (1 << (n - 1).min(8))).min(REFRESH),
        }
    }
}

fn without_duplicates(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut kept = Vec::with_capacity(addresses.len().min(ADDRESSES_MAX));
    for address in addresses {
        if kept.len() < ADDRESSES_MAX && !kept.contains(&address) {
            kept.push(address);
        }
    }
    kept
}

/// After this a lookup is written off.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two lookups of a name that resolves.
pub const REFRESH: Duration = Duration::from_secs(10);
/// After a first failure, doubling up to [`REFRESH`].
const RETRY_MIN: Duration = Duration::from_secs(1);
/// Lookups under way, written off or not.
pub const ASKED_MAX: usize = 32;
/// Of names that behaved last time, not yet written off.
const PROMPT_MAX: usize = 8;
/// Of names that did not.
const SUSPECT_MAX: usize = 4;
/// Addresses kept of one name.
pub const ADDRESSES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_ns(ms * 1_000_000)
    }

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    fn names(hosts: impl IntoIterator<Item = &'static str>) -> Names {
        let mut names = Names::default();
        hosts.into_iter().for_each(|host| names.want(&host.into(), at(0)));
        names
    }

    fn start_all(names: &mut Names, ms: u64) -> Vec<String> {
        std::iter::from_fn(|| names.start(at(ms))).map(|host| host.to_string()).collect()
    }

    #[test]
    fn answers_keep_their_order_without_duplicates_and_are_refreshed() {
        let mut names = names(["a"]);
        names.want(&"a".into(), at(0));
        assert_eq!(start_all(&mut names, 0), ["a"]);
        assert!(!names.is_settled("a"));
        let v6: IpAddr = "::1".parse().unwrap();
        let finding = names.answered("a", Ok(vec![ip(2), v6, ip(1), v6, ip(2)]), at(5));
        assert_eq!(finding, Some(Finding::Changed("a".into(), [ip(2), v6, ip(1)].into())));
        assert_eq!(names.known("a"), [ip(2), v6, ip(1)]);
        assert_eq!(names.next_deadline(), Some(at(10_005)));
        assert_eq!(start_all(&mut names, 10_004), [""; 0]);
        assert_eq!(start_all(&mut names, 10_005), ["a"]);
        assert_eq!(names.answered("a", Ok(vec![ip(2), v6, ip(1)]), at(10_010)), None);
    }

    #[test]
    fn a_failure_keeps_the_last_good_answer_and_is_retried_soon() {
        let mut names = names(["a"]);
        start_all(&mut names, 0);
        names.answered("a", Ok(vec![ip(1)]), at(0));
        let mut now = 10_000;
        for pause in [1000, 2000, 4000, 8000, 10_000, 10_000] {
            assert_eq!(start_all(&mut names, now), ["a"]);
            let finding = names.answered("a", Err("gone".into()), at(now));
            let is_first = pause == 1000;
            assert_eq!(finding, is_first.then(|| Finding::Failing("a".into(), "gone".into())));
            assert_eq!(names.known("a"), [ip(1)]);
            assert_eq!(names.next_deadline(), Some(at(now + pause)));
            now += pause;
        }
        start_all(&mut names, now);
        assert_eq!(names.answered("a", Ok(vec![ip(1)]), at(now)), None);
        assert_eq!(names.next_deadline(), Some(at(now + 10_000)));
        assert_eq!(names.answered("nobody", Ok(vec![]), at(0)), None);
    }

    #[test]
    fn no_address_is_a_failure() {
        let mut names = names(["a"]);
        start_all(&mut names, 0);
        assert!(matches!(names.answered("a", Ok(vec![]), at(0)), Some(Finding::Failing(..))));
        assert!(names.is_settled("a"));
    }

    #[test]
    fn a_late_answer_is_used() {
        let mut names = names(["a"]);
        start_all(&mut names, 0);
        assert_eq!(names.handle_timeout(at(1999)), []);
        assert!(matches!(&names.handle_timeout(at(2000))[..], [Finding::Failing(..)]));
        assert_eq!(names.handle_timeout(at(2001)), []);
        assert!(names.is_settled("a"));
        // While it is under way it is not asked again.
        assert_eq!(names.next_deadline(), None);
        assert_eq!(start_all(&mut names, 60_000), [""; 0]);
        assert!(matches!(
            names.answered("a", Ok(vec![ip(1)]), at(60_000)),
            Some(Finding::Changed(..))
        ));
        assert_eq!(names.asked(), 0);
    }

    #[test]
    fn names_that_never_answer_stall_nobody_else() {
        let mute: Vec<&'static str> = (0..40).map(|n| &*format!("mute-{n:02}").leak()).collect();
        let mut names = names(mute);
        names.want(&"zz-good".into(), at(0));
        let (mut now, mut good, mut widest) = (0, 0, 0);
        // The mute ones are answered for after 20 s each, with an error: as name servers that are down.
        let mut under_way: Vec<(u64, String)> = Vec::new();
        while now < 120_000 {
            names.handle_timeout(at(now));
            for host in start_all(&mut names, now) {
                match host.as_str() {
                    "zz-good" => {
                        names.answered("zz-good", Ok(vec![ip(1)]), at(now));
                        good += 1;
                    }
                    _ => under_way.push((now + 20_000, host)),
                }
            }
            widest = widest.max(names.asked());
            now += 100;
            let (done, rest) = under_way.into_iter().partition(|&(at, _)| at <= now);
            under_way = rest;
            let done: Vec<(u64, String)> = done;
            for (_, host) in done {
                names.answered(&host, Err("down".into()), at(now));
            }
        }
        assert!(widest <= ASKED_MAX, "{widest}");
        // Its first turn waits at worst for the mute ones before it; from then on every 10 s.
        assert!(good >= 9, "{good}");
        assert_eq!(names.known("zz-good"), [ip(1)]);
    }

    #[test]
    fn who_is_not_wanted_is_forgotten_though_its_lookup_is_under_way() {
        let mut names = names(["a", "b", "c"]);
        assert_eq!(start_all(&mut names, 0).len(), 3);
        names.answered("b", Ok(vec![ip(1)]), at(0));
        names.retain(|host| host == "c");
        assert_eq!(names.answered("a", Ok(vec![ip(1)]), at(1)), None);
        assert_eq!(start_all(&mut names, 20_000), [""; 0]);
        assert_eq!(names.asked(), 1);
        // Wanted again while still under way: one lookup, one answer.
        names.retain(|_| false);
        names.want(&"c".into(), at(20_000));
        assert_eq!(start_all(&mut names, 20_000), [""; 0]);
        assert!(names.answered("c", Ok(vec![ip(3)]), at(20_001)).is_some());
    }
}
