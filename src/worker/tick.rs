//! The core's own heartbeat: every [`TICK`] while there is work, every [`IDLE_TICK`] while there is none.
//!
//! It publishes what the other cores may know, and takes over what they have in flight and, less often, the response
//! times they saw: a pick knows the state of a backend and not only this core's part of it. One look at all the others
//! costs a cache line per idle core and three per busy one with 20 backends; a tick reads [`ENTRIES_PER_TICK`] entries and
//! leaves the rest of a larger look to the next. Deadlines are not its business (the driver keeps them), nor are snapshots
//! (the bell brings them at once).
//!
//! Work counts until [`REST_AFTER`] it was seen last: a core that gets a request now and then still knows of the others.
//! At rest it knows nothing of them rather than something old. A core that has requests in flight and does not tick
//! hangs; what it was sent is answered long since, so its figures count for [`SILENCE_MAX`] and then no more.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::shard::{Shard, TICK};
use super::sharing::{self, Share};
use crate::balance::{Pace, Picker, Slot};
use crate::io::{Io, Timer};
use crate::metrics::{Count, Gauges, Published};
use crate::time::Instant;

/// Publishes for ever.
pub(super) async fn run<I: Io>(
    shard: Rc<Shard<I>>,
    published: Arc<Published>,
    peers: Vec<Arc<Published>>,
) {
    let (timer, is_ticking) = shard.tick();
    let mut requests = 0;
    let mut work = Work { since: shard.now(), slept: shard.io.slept() };
    let (mut rest_at, mut cool_at) = (shard.now(), shard.now());
    let mut looks = Looks::default();
    loop {
        let is_busy = is_ticking.get();
        if let Some(caching) = &shard.caching {
            caching.tick(shard.now(), is_busy);
        }
        if let Some(access) = &shard.access {
            access.tick(shard.now(), &shard.counters);
        }
        if let Some(credits) = &shard.credits {
            credits.tick();
            shard.queue.borrow().wake_front();
        }
        if shard.now() >= cool_at {
            sharing::cool(&shard);
            cool_at = shard.now() + COOL_EVERY;
        }
        publish(&shard, &published);
        let now = shard.now();
        if let Some(percent) = work.busy_percent(now, shard.io.slept()) {
            published.store_busy_percent(percent);
        }
        shard.heed(shard.health.sweep(now));
        let requests_now = shard.counters.get(Count::Requests);
        let is_waiting = !shard.queue.borrow().is_empty();
        let in_flight = shard.picker.borrow().total_in_flight();
        if in_flight > 0 || is_waiting || requests_now != requests {
            rest_at = now + REST_AFTER;
        }
        requests = requests_now;
        let is_busy = now < rest_at;
        if is_busy {
            looks.go_on(&mut shard.picker.borrow_mut(), &peers, now);
        } else {
            looks = Looks::default();
            shard.picker.borrow_mut().forget_others();
        }
        shard.picker.borrow_mut().tick(now);
        is_ticking.set(is_busy);
        timer.set(Some(now + if is_busy { TICK } else { IDLE_TICK }));
        poll_fn(|cx| timer.poll_expired(cx)).await;
    }
}

/// How busy the core was of late.
struct Work {
    since: Instant,
    slept: Duration,
}

impl Work {
    /// The share of the time since it was told last in which the core did not sleep, once that is long enough ago.
    fn busy_percent(&mut self, now: Instant, slept: Duration) -> Option<u64> {
        let length = now.since(self.since);
        if length < WORK_WINDOW {
            return None;
        }
        let awake = length.saturating_sub(slept.saturating_sub(self.slept));
        *self = Self { since: now, slept };
        Some((awake.as_nanos() * 100 / length.as_nanos()) as u64)
    }
}

/// Writes the core's totals where others read them. The epoch comes last: who sees it sees the rest.
pub(super) fn publish<I: Io>(shard: &Shard<I>, published: &Published) {
    let held = shard.caching.as_ref().map(|caching| {
        let (counted, held) = caching.figures();
        for (count, total) in [
            (Count::CacheEvicted, counted.evicted),
            (Count::CacheExpired, counted.expired),
            (Count::CacheRemoved, counted.removed),
            (Count::CacheRefused, counted.refused),
        ] {
            shard.counters.set(count, total);
        }
        held
    });
    let held = held.unwrap_or_default();
    published.store_counters(&shard.counters);
    published.store_figures(&shard.figures);
    let picker = shard.picker.borrow();
    published.store_gauges(Gauges {
        connections: shard.connections(),
        in_flight: picker.total_in_flight(),
        queue_depth: shard.queue.borrow().len() as u64,
        pool_idle: shard.pool.borrow().idle() as u64 + shard.share.as_ref().map_or(0, Share::seen),
        cache_bytes: held.bytes + held.lingering_bytes,
        cache_entries: held.entries as u64,
        cache_fills: held.fills as u64,
    });
    published.store_slept(u64::try_from(shard.io.slept().as_nanos()).unwrap_or(u64::MAX));
    published.store_beat(shard.now().as_ns());
    published.store_in_flight(picker.loads().map(|(slot, n)| (slot.0, n)));
    published.store_paces(picker.paces().map(|(slot, pace)| (slot.0, pace.pack())));
    published.store_epoch(shard.epoch());
}

/// How far this core has come in looking at the others.
#[derive(Default)]
pub struct Looks {
    /// The peer whose figures are next.
    loads: usize,
    paces: usize,
    paces_at: Instant,
}

impl Looks {
    /// Takes in what the others have in flight and, less often, what they know of response times. What changes while it is
    /// read is an estimate as good as any.
    pub fn go_on(&mut self, picker: &mut Picker, peers: &[Arc<Published>], now: Instant) {
        let mut left = ENTRIES_PER_TICK;
        let is_alive = |peer: &Published| now.since(Instant::from_ns(peer.beat_ns())) < SILENCE_MAX;
        while left > 0 && self.loads < peers.len() {
            let peer = &peers[self.loads];
            self.loads += 1;
            if is_alive(peer) {
                peer.read_in_flight(|slot, n| {
                    left = left.saturating_sub(1);
                    picker.hear_load(Slot(slot), n);
                });
            }
        }
        if self.loads == peers.len() {
            self.loads = 0;
            picker.take_loads();
        }
        if self.paces == 0 && now.since(self.paces_at) < PACES_EVERY {
            return;
        }
        while left > 0 && self.paces < peers.len() {
            let peer = &peers[self.paces];
            self.paces += 1;
            if is_alive(peer) {
                peer.read_paces(|slot, bits| {
                    left = left.saturating_sub(1);
                    picker.hear_pace(Slot(slot), Pace::unpack(bits));
                });
            }
        }
        if self.paces == peers.len() {
            self.paces = 0;
            self.paces_at = now;
            picker.take_paces();
        }
    }
}

/// Pause while nothing happens: a sign of life.
pub const IDLE_TICK: Duration = Duration::from_secs(1);
/// Entries of other cores' lists read in one tick, a list begun being read to its end: about 100 µs.
pub(super) const ENTRIES_PER_TICK: usize = 16_384;
/// How often response times are taken over.
const PACES_EVERY: Duration = Duration::from_millis(50);
/// How long after the last request the core goes on as if there were work.
pub const REST_AFTER: Duration = Duration::from_millis(250);
/// Pause between two looks for connections that lie idle.
const COOL_EVERY: Duration = Duration::from_millis(50);
/// Over how long it is measured how busy the core is.
const WORK_WINDOW: Duration = Duration::from_millis(100);
/// How long a core that does not tick is believed.
const SILENCE_MAX: Duration = Duration::from_millis(500);
const _: () = assert!(SILENCE_MAX.as_millis() >= 10 * TICK.as_millis());
