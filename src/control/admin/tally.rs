//! What all cores have counted, once a second, and how that changes: rates, shares, quantiles, five minutes of history.
//!
//! It reads the cores' published blocks, one core at a step, so that the control core's other duties get their turn in
//! between; no worker waits for it or knows of it. What is *lately* fades by [`KEEP`] a second: after five seconds a
//! third of it is left. A backend is known by its name and slot; figures that a core counted for the slot's tenant
//! before are left out by looking at the core's epoch.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::balance::{Backend, Snapshot};
use crate::metrics::codes::{CLASSES, CODES, class_at};
use crate::metrics::histogram::{COARSE, Reading};
use crate::metrics::slots::{FadingWaits, SlotReading};
use crate::metrics::{FAULTS, Gauges, METRICS, Published, REFUSALS_MAX, SPANS, Span};
use crate::time::{Instant, WallTime};

/// Everything that is known of the cores.
pub struct Tally {
    /// When it was completed last.
    pub at: Instant,
    /// In core order.
    pub cores: Vec<CoreTally>,
    /// By slot; only those of the last snapshot.
    pub backends: Vec<Option<BackendTally>>,
    /// Durations since the start, by [`Span`].
    pub spans: [Reading; SPANS],
    /// Durations of requests lately.
    pub requests_lately: Reading,
    /// Answers by class, lately, a second.
    pub classes_lately: [Fading; CLASSES],
    /// The last [`SECONDS_KEPT`] seconds, oldest first.
    pub seconds: VecDeque<Second>,
    /// What is being read.
    sums: Sums,
}

/// One core.
pub struct CoreTally {
    /// The kernel's number of it.
    pub core: usize,
    /// What it publishes.
    pub block: Arc<Published>,
    /// Its counters, in the order of [`METRICS`].
    pub counts: [u64; METRICS.len()],
    /// Its answers by code.
    pub codes: [u64; CODES],
    /// What it has at the moment.
    pub gauges: Gauges,
    /// The epoch it applies.
    pub epoch: u64,
    /// Answers a second, lately.
    pub rate: Fading,
    /// The part of the time it was busy, 0 to 1, lately.
    pub busy: Fading,
    beat_ns: u64,
    slept_ns: u64,
}

/// One backend, all cores together.
pub struct BackendTally {
    /// Whose figures these are.
    pub name: Arc<str>,
    /// Totals since it was listed.
    pub total: SlotReading,
    /// Requests in flight.
    pub in_flight: u32,
    /// Answers a second, lately.
    pub rate: Fading,
    /// Faults and 5xx answers a second, lately.
    pub errors: Fading,
    /// Waits for its response heads, lately.
    pub waits: FadingWaits,
    /// Cores that apply an older snapshot count for its predecessor.
    since_epoch: u64,
}

/// One second of the whole process.
#[derive(Clone, Debug)]
pub struct Second {
    /// Its end.
    pub at: WallTime,
    /// Answers in it.
    pub answers: u64,
    /// Answers with 5xx in it.
    pub errors: u64,
    /// Quantiles of its request durations in µs.
    pub p50_us: Option<f64>,
    /// The same.
    pub p99_us: Option<f64>,
    /// Its request durations in coarse buckets.
    pub heat: [u32; COARSE],
    /// Answers of each core in it.
    pub by_core: Vec<u32>,
}

/// Something a second, where old seconds count for less and less.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fading {
    sum: f64,
    weight: f64,
}

impl Fading {
    /// A further second.
    pub fn add(&mut self, value: f64) {
        self.sum = self.sum * KEEP + value;
        self.weight = self.weight * KEEP + 1.0;
    }

    /// The weighted mean so far.
    pub fn get(self) -> f64 {
        if self.weight > 0.0 { self.sum / self.weight } else { 0.0 }
    }
}

#[derive(Default)]
struct Sums {
    spans: [Reading; SPANS],
    slots: Vec<SlotReading>,
    in_flight: Vec<u32>,
    by_core: Vec<u32>,
    classes: [u64; CLASSES],
}

impl Tally {
    /// Of these cores, which have counted nothing yet.
    pub fn new(cores: Vec<(usize, Arc<Published>)>, now: Instant) -> Self {
        let core = |(core, block): (usize, Arc<Published>)| CoreTally {
            core,
            beat_ns: block.beat_ns(),
            slept_ns: block.slept_ns(),
            block,
            counts: [0; METRICS.len()],
            codes: [0; CODES],
            gauges: Gauges::default(),
            epoch: 0,
            rate: Fading::default(),
            busy: Fading::default(),
        };
        Self {
            at: now,
            cores: cores.into_iter().map(core).collect(),
            backends: Vec::new(),
            spans: Default::default(),
            requests_lately: Reading::default(),
            classes_lately: Default::default(),
            seconds: VecDeque::with_capacity(SECONDS_KEPT),
            sums: Sums::default(),
        }
    }

    /// Begins to read: the rows of `snapshot`'s backends are those that count.
    pub fn begin(&mut self, snapshot: &Snapshot) {
        let mut known = std::mem::take(&mut self.backends);
        self.backends.resize_with(snapshot.slots, || None);
        for Backend { slot, name, .. } in &snapshot.backends {
            let before = known.get_mut(slot.index()).and_then(Option::take);
            let row = before.filter(|row| row.name == *name).unwrap_or_else(|| BackendTally {
                name: Arc::clone(name),
                total: SlotReading::default(),
                in_flight: 0,
                rate: Fading::default(),
                errors: Fading::default(),
                waits: FadingWaits::default(),
                since_epoch: snapshot.epoch,
            });
            self.backends[slot.index()] = Some(row);
        }
        let sums = &mut self.sums;
        sums.spans = Default::default();
        sums.slots.clear();
        sums.slots.resize(snapshot.slots, SlotReading::default());
        sums.in_flight.clear();
        sums.in_flight.resize(snapshot.slots, 0);
        sums.by_core.clear();
        sums.classes = [0; CLASSES];
    }

    /// Reads core number `n`, counted from 0.
    pub fn read(&mut self, n: usize) {
        let Self { cores, backends, sums, .. } = self;
        let core = &mut cores[n];
        let block = Arc::clone(&core.block);
        // First: what was stored before it is then visible.
        core.epoch = block.epoch();
        for ((count, ..), total) in METRICS.iter().zip(&mut core.counts) {
            *total = block.count(*count);
        }
        let codes = block.codes();
        let mut answers = 0;
        for (code, (now, before)) in codes.iter().zip(core.codes).enumerate() {
            sums.classes[class_at(code)] += now - before;
            answers += now - before;
        }
        core.codes = codes;
        core.gauges = block.gauges();
        core.rate.add(answers as f64);
        sums.by_core.push(u32::try_from(answers).unwrap_or(u32::MAX));
        let (beat_ns, slept_ns) = (block.beat_ns(), block.slept_ns());
        if beat_ns > core.beat_ns {
            let slept = slept_ns.saturating_sub(core.slept_ns) as f64;
            core.busy.add((1.0 - slept / (beat_ns - core.beat_ns) as f64).clamp(0.0, 1.0));
            (core.beat_ns, core.slept_ns) = (beat_ns, slept_ns);
        }
        for (span, reading) in Span::ALL.into_iter().zip(&mut sums.spans) {
            block.add_span(span, reading);
        }
        block.read_in_flight(|slot, n| {
            if let Some(sum) = sums.in_flight.get_mut(slot as usize) {
                *sum += n;
            }
        });
        for (slot, row) in backends.iter().enumerate() {
            if row.as_ref().is_some_and(|row| row.since_epoch <= core.epoch)
                && let Some(reading) = block.slot(slot)
            {
                sums.slots[slot].add(&reading);
            }
        }
    }

    /// All cores were read: takes the sums over.
    pub fn finish(&mut self, now: Instant, wall: WallTime) {
        let Self { sums, backends, .. } = self;
        for ((row, sum), in_flight) in backends.iter_mut().zip(&sums.slots).zip(&sums.in_flight) {
            if let Some(row) = row {
                row.take(sum, *in_flight);
            }
        }
        let request = &sums.spans[Span::Request as usize];
        let news = request.since(&self.spans[Span::Request as usize]);
        self.requests_lately.fade_in(KEEP, &news);
        for (lately, answers) in self.classes_lately.iter_mut().zip(sums.classes) {
            lately.add(answers as f64);
        }
        if self.seconds.len() == SECONDS_KEPT {
            self.seconds.pop_front();
        }
        self.seconds.push_back(Second {
            at: wall,
            answers: sums.classes.iter().sum(),
            errors: sums.classes[CLASSES - 1],
            p50_us: news.quantile_us(0.5),
            p99_us: news.quantile_us(0.99),
            heat: news.coarse().map(|count| count as u32),
            by_core: sums.by_core.clone(),
        });
        self.spans.clone_from(&sums.spans);
        self.at = now;
    }

    /// A counter of all cores together.
    pub fn count(&self, at: usize) -> u64 {
        self.cores.iter().map(|core| core.counts[at]).sum()
    }

    /// What a backend's figures are, if it is known.
    pub fn backend(&self, backend: &Backend) -> Option<&BackendTally> {
        let row = self.backends.get(backend.slot.index())?.as_ref()?;
        (row.name == backend.name).then_some(row)
    }

    /// Answers of all backends a second, lately.
    pub fn backends_rate(&self) -> f64 {
        self.backends.iter().flatten().map(|row| row.rate.get()).sum()
    }

    /// Answers of our own and failures of backends, by reason, all cores together.
    pub fn reasons(&self) -> ([u64; REFUSALS_MAX], [u64; FAULTS.len()]) {
        let (mut refusals, mut faults) = ([0; REFUSALS_MAX], [0; FAULTS.len()]);
        for core in &self.cores {
            refusals.iter_mut().zip(core.block.refusals()).for_each(|(sum, n)| *sum += n);
            faults.iter_mut().zip(core.block.faults()).for_each(|(sum, n)| *sum += n);
        }
        (refusals, faults)
    }
}

impl BackendTally {
    fn take(&mut self, now: &SlotReading, in_flight: u32) {
        let is_new_life = now.answers() < self.total.answers() || now.faults < self.total.faults;
        let before = if is_new_life { SlotReading::default() } else { self.total };
        let failed = |reading: &SlotReading| reading.faults + reading.classes[CLASSES - 1];
        self.rate.add((now.answers() - before.answers()) as f64);
        self.errors.add(failed(now).saturating_sub(failed(&before)) as f64);
        self.waits.fade_in(KEEP as f32, &before, now);
        self.total = *now;
        self.in_flight = in_flight;
    }
}

/// What counts of the past in each further second.
const KEEP: f64 = 0.8;
/// Five minutes.
pub const SECONDS_KEPT: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::{Category, Score, Slot, Source, Standings};
    use crate::metrics::Figures;
    use std::time::Duration;

    fn snapshot(epoch: u64, names: &[(&str, u32)]) -> Snapshot {
        let backend = |&(name, slot): &(&str, u32)| Backend {
            slot: Slot(slot),
            name: name.into(),
            authority: name.into(),
            score: Score::new(50.0).unwrap(),
            category: Category::Medium,
            addresses: [].into(),
            warming_since: None,
        };
        let backends: Vec<Backend> = names.iter().map(backend).collect();
        Snapshot { epoch, source: Source::Agent, slots: 4, backends, health: Standings::new() }
    }

    fn look(tally: &mut Tally, snapshot: &Snapshot) {
        tally.begin(snapshot);
        (0..tally.cores.len()).for_each(|n| tally.read(n));
        tally.finish(Instant::from_ns(1), WallTime::from_ms(1));
    }

    #[test]
    fn cores_add_up_and_a_slot_with_a_new_tenant_begins_anew() {
        let blocks: Vec<_> = (0..2).map(|_| Arc::new(Published::new(4))).collect();
        let figures: Vec<Figures> = (0..2).map(|_| Figures::default()).collect();
        let mut tally =
            Tally::new(blocks.iter().cloned().enumerate().collect(), Instant::from_ns(0));
        let apply = |n: usize, epoch: u64| {
            figures[n].slots.borrow_mut().list([2].into_iter(), blocks[n].slots());
            blocks[n].store_figures(&figures[n]);
            blocks[n].store_epoch(epoch);
        };
        (0..2).for_each(|n| apply(n, 1));
        for (n, figures) in figures.iter().enumerate() {
            for _ in 0..=n {
                figures.codes.count(200);
                figures.request.observe(Duration::from_millis(5));
                figures.slots.borrow_mut().answered(2, 200, Duration::from_millis(4));
            }
            blocks[n].store_figures(figures);
        }
        let first = snapshot(1, &[("a", 2)]);
        look(&mut tally, &first);
        let row = tally.backend(&first.backends[0]).unwrap();
        assert_eq!((row.total.answers(), row.rate.get()), (3, 3.0));
        assert!(row.waits.quantile_us(0.5).is_some());
        let second = tally.seconds.back().unwrap();
        assert_eq!((second.answers, second.errors, &second.by_core[..]), (3, 0, &[1, 2][..]));
        assert_eq!(second.heat.iter().sum::<u32>(), 3);
        assert_eq!(tally.cores[1].rate.get(), 2.0);

        // The slot belongs to somebody else now, and only one core knows.
        let next = snapshot(3, &[("b", 2)]);
        figures[0].slots.borrow_mut().list([].into_iter(), blocks[0].slots());
        apply(0, 3);
        look(&mut tally, &next);
        assert!(tally.backend(&first.backends[0]).is_none());
        assert_eq!(tally.backend(&next.backends[0]).unwrap().total.answers(), 0);
        assert_eq!(tally.seconds.back().unwrap().answers, 0);
    }

    #[test]
    fn a_core_is_busy_when_it_does_not_sleep() {
        let block = Arc::new(Published::new(4));
        let mut tally = Tally::new(vec![(0, Arc::clone(&block))], Instant::from_ns(0));
        for (beat, slept, busy) in [(1_000, 1_000, 0.0), (2_000, 1_000, 1.0)] {
            block.store_slept(slept);
            block.store_beat(beat);
            tally.cores[0].busy = Fading::default();
            look(&mut tally, &snapshot(1, &[]));
            assert_eq!(tally.cores[0].busy.get(), busy);
        }
    }

    #[test]
    fn history_is_bounded() {
        let mut tally = Tally::new(vec![], Instant::from_ns(0));
        (0..SECONDS_KEPT + 5).for_each(|_| look(&mut tally, &snapshot(1, &[])));
        assert_eq!(tally.seconds.len(), SECONDS_KEPT);
    }
}
