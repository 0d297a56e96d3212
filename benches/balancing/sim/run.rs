//! The order of events: who asks whom when, in virtual time.
//!
//! Traffic, picks and the antagonist have random numbers of their own, so that all policies are asked the same.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use balancer::balance::{Category, Slot, Snapshot, Symptom};
use balancer::metrics::Published;
use balancer::time::Instant;
use balancer::worker::TICK;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::chooser::Policy;
use super::control::Control;
use super::core::{Core, Seat};
use super::scene::{
    Fault, Happening, SERVICE_MIDDLE_MS, SERVICE_MIN_MS, SERVICE_SPREAD_MS, Scene, Traffic,
};
use super::station::{Departure, Station};
use super::tally::Tally;

/// Plays `scene` under `policy`.
pub fn run(scene: &Scene, policy: Policy, seed: u64) -> Tally {
    let mut run = Run::new(scene, policy, seed);
    while let Some(Reverse((at, _, event))) = run.events.pop() {
        run.now = at;
        if run.is_over() {
            break;
        }
        run.happen(event);
    }
    let from = scene.warm_up.as_secs() as usize;
    let mut tally = run.tally;
    tally.close(from..run.ends_at.map_or(usize::MAX, |at| (at / 1_000_000_000) as usize));
    tally
}

struct Run<'a> {
    scene: &'a Scene,
    now: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    planned: u64,
    stations: Vec<Station>,
    faults: Vec<Option<Fault>>,
    /// When whoever joined did.
    joined_at: Vec<u64>,
    /// Requests in flight, of all cores.
    active: Vec<u32>,
    cores: Vec<Core>,
    /// The tick that holds, of each core.
    ticks: Vec<u32>,
    control: Control,
    assess_at: u64,
    newest: Arc<Snapshot>,
    requests: Vec<Request>,
    free: Vec<u32>,
    traffic: SmallRng,
    picks: SmallRng,
    antagonist: SmallRng,
    hinders: Vec<u32>,
    /// When the last request arrives; `None` when requests are counted.
    ends_at: Option<u64>,
    tally: Tally,
}

struct Request {
    came_at: u64,
    core: u32,
    work_ns: f64,
    seat: Option<Seat>,
    excluded: Vec<Slot>,
    retries: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival,
    Asks { core: u32 },
    Departure { station: u32, place: u32, stamp: u32 },
    Failure { request: u32, is_refused: bool },
    Tick { core: u32, stamp: u32 },
    Apply { core: u32 },
    Assess,
    Errand,
    Frame,
    Antagonist,
    Relief { station: u32, stamp: u32 },
    Warmer { station: u32 },
    Script { line: usize },
}

impl<'a> Run<'a> {
    fn new(scene: &'a Scene, policy: Policy, seed: u64) -> Self {
        let n = scene.speeds.len();
        let published: Vec<_> = (0..scene.cores).map(|_| Arc::new(Published::new(n))).collect();
        let (control, reporter) = Control::new(scene);
        let core = |worker| Core::new(worker, policy, reporter.clone(), &published);
        let stream = |number| SmallRng::seed_from_u64(seed << 8 | number);
        let mut run = Self {
            scene,
            now: START,
            events: BinaryHeap::new(),
            planned: 0,
            stations: scene.speeds.iter().map(|&speed| Station::new(speed, scene.slots)).collect(),
            faults: vec![None; n],
            joined_at: vec![0; n],
            active: vec![0; n],
            cores: (0..scene.cores as u32).map(core).collect(),
            ticks: vec![0; scene.cores],
            control,
            assess_at: u64::MAX,
            newest: Arc::new(Snapshot::empty()),
            requests: Vec::new(),
            free: Vec::new(),
            traffic: stream(1),
            picks: stream(2),
            antagonist: stream(3),
            hinders: vec![0; n],
            ends_at: None,
            tally: Tally::new(n),
        };
        run.begin();
        run
    }

    /// The set is known to all before the first request.
    fn begin(&mut self) {
        self.happen(Event::Frame);
        for core in 0..self.cores.len() as u32 {
            self.happen(Event::Apply { core });
            // They do not tick in step.
            let offset = TICK.as_nanos() as u64 * u64::from(core) / self.cores.len() as u64;
            self.plan(START + offset, Event::Tick { core, stamp: 0 });
        }
        match self.scene.traffic {
            Traffic::Open { length, .. } => {
                self.ends_at = Some(START + length.as_nanos() as u64);
                self.plan(START, Event::Arrival);
            }
            Traffic::Closed { clients, .. } => {
                for client in 0..clients {
                    let core = (client % self.cores.len()) as u32;
                    self.plan(START + 1000 * client as u64, Event::Asks { core });
                }
            }
        }
        if self.scene.has_antagonist {
            self.plan(START, Event::Antagonist);
        }
        for (line, (after, _)) in self.scene.script.iter().enumerate() {
            self.plan(after.as_nanos() as u64, Event::Script { line });
        }
    }

    fn is_over(&self) -> bool {
        match (self.ends_at, self.scene.traffic) {
            (Some(at), _) => self.now >= at && self.free.len() == self.requests.len(),
            (None, Traffic::Closed { requests, .. }) => self.tally.answers() >= requests,
            (None, Traffic::Open { .. }) => unreachable!("it has an end"),
        }
    }

    fn happen(&mut self, event: Event) {
        let now = self.instant();
        match event {
            Event::Arrival => self.arrive(),
            Event::Asks { core } => self.ask(core),
            Event::Departure { station, place, stamp } => self.depart(station, place, stamp),
            Event::Failure { request, is_refused } => self.fail(request, is_refused),
            Event::Tick { core, stamp } if self.ticks[core as usize] == stamp => {
                let next = self.cores[core as usize].tick(now);
                self.plan(next.as_ns(), Event::Tick { core, stamp });
                self.note_reports();
            }
            Event::Tick { .. } => {}
            Event::Apply { core } => self.cores[core as usize].apply(&self.newest, now),
            Event::Assess if self.assess_at == self.now => self.assess(),
            Event::Assess => {}
            Event::Errand => {
                let faults = &self.faults;
                self.control.end_errand(|slot| faults[slot.index()], now);
                self.assess();
            }
            Event::Frame => {
                self.control.frame(&mut self.stations, now);
                self.plan_in(FRAMES_EVERY, Event::Frame);
                self.assess();
            }
            Event::Antagonist => self.antagonize(),
            Event::Relief { station, stamp } if self.hinders[station as usize] == stamp => {
                let departures = self.stations[station as usize].hinder(1.0, self.now);
                self.plan_departures(station, departures);
            }
            Event::Relief { .. } => {}
            Event::Warmer { station } => self.warm(station),
            Event::Script { line } => self.play(self.scene.script[line].1),
        }
    }

    fn arrive(&mut self) {
        let Traffic::Open { load, .. } = self.scene.traffic else { return };
        if self.ends_at.is_some_and(|at| self.now >= at) {
            return;
        }
        let mean_ns = 1e9 / (load * self.scene.capacity());
        let pause = -(1.0 - self.traffic.random::<f64>()).ln() * mean_ns;
        self.plan(self.now + pause as u64, Event::Arrival);
        let core = self.traffic.random_range(0..self.cores.len() as u32);
        self.ask(core);
    }

    fn ask(&mut self, core: u32) {
        let now = self.instant();
        self.cores[core as usize].deposit(now);
        let work_ns = service_ns(&mut self.traffic);
        let request = self.free.pop().unwrap_or_else(|| {
            self.requests.push(Request {
                came_at: 0,
                core: 0,
                work_ns: 0.0,
                seat: None,
                excluded: Vec::new(),
                retries: 0,
            });
            self.requests.len() as u32 - 1
        });
        let entry = &mut self.requests[request as usize];
        (entry.came_at, entry.core, entry.work_ns, entry.retries) = (self.now, core, work_ns, 0);
        entry.excluded.clear();
        self.send(request);
    }

    fn send(&mut self, number: u32) {
        let now = self.instant();
        let request = &mut self.requests[number as usize];
        let core = &mut self.cores[request.core as usize];
        let picks = &mut self.picks;
        let choice = core.choose(|| picks.random(), &request.excluded, &self.active);
        let Some(slot) = choice.filter(|_| request.excluded.len() < FAILED_MAX) else {
            return self.give_up(number);
        };
        self.tally.strays += u64::from(!core.expects(slot));
        let (seat, is_woken) = core.begin(slot, now);
        request.seat = Some(seat);
        let at = slot.index();
        self.active[at] += 1;
        self.tally.note_sent(at, self.now);
        let (owner, work_ns) = (request.core, request.work_ns);
        if is_woken {
            self.ticks[owner as usize] += 1;
            let stamp = self.ticks[owner as usize];
            self.plan_in(TICK, Event::Tick { core: owner, stamp });
        }
        match self.faults[at] {
            None => {
                let departure = self.stations[at].accept(number, work_ns, self.now);
                self.plan_departures(slot.0, departure);
            }
            Some(fault) => {
                let is_refused = fault == Fault::Refuses;
                self.plan_in(FAILS_AFTER, Event::Failure { request: number, is_refused });
            }
        }
        self.note_reports();
    }

    fn depart(&mut self, station: u32, place: u32, stamp: u32) {
        let departed = self.stations[station as usize].depart(place, stamp, self.now);
        let Some((number, next)) = departed else { return };
        self.plan_departures(station, next);
        let seat = self.take_seat(number);
        let request = &self.requests[number as usize];
        let owner = request.core;
        if request.came_at >= START + self.scene.warm_up.as_nanos() as u64 {
            self.tally.note_answered(self.now - request.came_at);
        }
        let now = self.instant();
        self.cores[owner as usize].answered(seat, now);
        self.note_reports();
        self.end(number);
    }

    fn fail(&mut self, number: u32, is_refused: bool) {
        let seat = self.take_seat(number);
        let now = self.instant();
        let request = &mut self.requests[number as usize];
        request.excluded.push(seat.slot);
        let symptom = if is_refused { Symptom::Refused } else { Symptom::Reset };
        let core = &mut self.cores[request.core as usize];
        let is_retried = core.failed(seat, symptom, request.retries, now);
        request.retries += u32::from(!is_refused);
        self.note_reports();
        if is_retried { self.send(number) } else { self.give_up(number) }
    }

    fn give_up(&mut self, number: u32) {
        self.tally.failures += 1;
        self.end(number);
    }

    /// The client has its answer, or knows that there is none.
    fn end(&mut self, number: u32) {
        self.free.push(number);
        if let Traffic::Closed { .. } = self.scene.traffic {
            self.ask(self.requests[number as usize].core);
        }
    }

    fn take_seat(&mut self, number: u32) -> Seat {
        let seat = self.requests[number as usize].seat.take().expect("it was sent");
        self.active[seat.slot.index()] -= 1;
        seat
    }

    /// What a core has to tell reaches the control core soon.
    fn note_reports(&mut self) {
        if self.control.has_reports() {
            self.assess_by(self.now + ACROSS.as_nanos() as u64);
        }
    }

    fn assess_by(&mut self, at: u64) {
        if self.assess_at <= self.now || at < self.assess_at {
            self.assess_at = at;
            self.plan(at, Event::Assess);
        }
    }

    fn assess(&mut self) {
        self.assess_at = u64::MAX;
        let now = self.instant();
        let cores = &self.cores;
        let (new, errands) = self.control.assess(now, |core| cores[core as usize].requests);
        (0..errands).for_each(|_| self.plan_in(ACROSS, Event::Errand));
        if let Some(snapshot) = new {
            self.newest = snapshot;
            (0..self.cores.len() as u32)
                .for_each(|core| self.plan_in(ACROSS, Event::Apply { core }));
        }
        if let Some(at) = self.control.next_deadline() {
            self.assess_by(at.as_ns().max(self.now + 1));
        }
    }

    fn antagonize(&mut self) {
        self.plan_in(ANTAGONIST_EVERY, Event::Antagonist);
        let founders = self.scene.founders();
        let chosen = ANTAGONIZED.min(founders / 2);
        for station in rand::seq::index::sample(&mut self.antagonist, founders, chosen) {
            let ns = self.antagonist.random_range(1_000_000_000..5_000_000_000u64);
            self.hinders[station] += 1;
            let relief = Event::Relief { station: station as u32, stamp: self.hinders[station] };
            self.plan(self.now + ns, relief);
            let departures = self.stations[station].hinder(LEFT_BY_ANTAGONIST, self.now);
            self.plan_departures(station as u32, departures);
        }
    }

    fn play(&mut self, happening: Happening) {
        let now = self.now;
        match happening {
            Happening::AgentLost(is_lost) => self.control.is_lost = is_lost,
            Happening::AgentErrs(errs) => self.control.errs = errs,
            Happening::Stuck(station, is_stuck) => {
                let departures = self.stations[station].stick(is_stuck, now);
                self.plan_departures(station as u32, departures);
            }
            Happening::Fails(station, fault) => self.faults[station] = fault,
            Happening::Joins(station) => {
                self.joined_at[station] = now;
                self.control.list(station, Category::Init);
                self.warm(station as u32);
            }
            Happening::Sundown(station, is_down) => {
                let category = if is_down { Category::Sundown } else { Category::Low };
                self.control.list(station, category);
            }
        }
    }

    fn warm(&mut self, station: u32) {
        let at = station as usize;
        let since = Duration::from_nanos(self.now - self.joined_at[at]);
        let part = since.as_secs_f64() / WARMS_FOR.as_secs_f64();
        let departures = self.stations[at].warm(COLD + (1.0 - COLD) * part.min(1.0), self.now);
        self.plan_departures(station, departures);
        if part < 1.0 {
            self.plan_in(WARMER_EVERY, Event::Warmer { station });
        } else {
            self.control.list(at, Category::Low);
        }
    }

    fn plan_departures(&mut self, station: u32, departures: impl IntoIterator<Item = Departure>) {
        for Departure { at, place, stamp } in departures {
            self.plan(at.max(self.now), Event::Departure { station, place, stamp });
        }
    }

    fn plan_in(&mut self, after: Duration, event: Event) {
        self.plan(self.now + after.as_nanos() as u64, event);
    }

    fn plan(&mut self, at: u64, event: Event) {
        self.planned += 1;
        self.events.push(Reverse((at, self.planned, event)));
    }

    const fn instant(&self) -> Instant {
        Instant::from_ns(self.now)
    }
}

/// What a request takes at speed 1.
fn service_ns(rng: &mut SmallRng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * rng.random::<f64>()).cos();
    (SERVICE_MIDDLE_MS + SERVICE_SPREAD_MS * normal).max(SERVICE_MIN_MS) * 1e6
}

/// The origin of time stands for never.
const START: u64 = 1;
const FRAMES_EVERY: Duration = Duration::from_secs(2);
const ANTAGONIST_EVERY: Duration = Duration::from_secs(5);
const ANTAGONIZED: usize = 3;
const LEFT_BY_ANTAGONIST: f64 = 0.35;
/// From one core to another, with its bell, or to a backend and back.
const ACROSS: Duration = Duration::from_millis(1);
const FAILS_AFTER: Duration = Duration::from_millis(1);
/// Backends one request may fail on.
const FAILED_MAX: usize = 8;
/// What a backend has of its speed when it has just started, and until when.
const COLD: f64 = 0.2;
const WARMS_FOR: Duration = Duration::from_secs(10);
const WARMER_EVERY: Duration = Duration::from_millis(500);
