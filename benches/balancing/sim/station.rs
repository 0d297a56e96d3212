//! A backend: a few slots that serve in the order of arrival, at a speed that others take from it now and then.

use std::collections::VecDeque;

/// A backend as it is, whatever anybody says of it.
pub struct Station {
    /// Next to a backend of speed 1.
    speed: f64,
    /// What an antagonist and a cold start leave of it.
    hindrance: f64,
    warmth: f64,
    is_stuck: bool,
    slots: usize,
    places: Vec<Place>,
    free: Vec<u32>,
    queue: VecDeque<Job>,
    busy: usize,
    /// Time it could have computed and did not, and until when that is added up.
    free_ns: f64,
    seen_at: u64,
    asked_at: u64,
}

/// Who is served, how much is left to be done at speed 1, and as of when.
#[derive(Clone, Copy)]
struct Job {
    request: u32,
    left_ns: f64,
    since: u64,
}

#[derive(Default)]
struct Place {
    job: Option<Job>,
    /// Counts departures that were planned: only the last one holds.
    stamp: u32,
}

/// When a request will be through, unless the speed changes before.
pub struct Departure {
    pub at: u64,
    pub place: u32,
    pub stamp: u32,
}

impl Station {
    /// An idle one.
    pub fn new(speed: f64, slots: usize) -> Self {
        Self {
            speed,
            hindrance: 1.0,
            warmth: 1.0,
            is_stuck: false,
            slots,
            places: Vec::new(),
            free: Vec::new(),
            queue: VecDeque::new(),
            busy: 0,
            free_ns: 0.0,
            seen_at: 0,
            asked_at: 0,
        }
    }

    /// A request arrives; it is served at once or waits.
    pub fn accept(&mut self, request: u32, work_ns: f64, now: u64) -> Option<Departure> {
        let job = Job { request, left_ns: work_ns, since: now };
        if self.busy == self.slots {
            self.queue.push_back(job);
            return None;
        }
        self.look(now);
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            self.places.len() as u32 - 1
        });
        self.busy += 1;
        self.serve(place, job, now)
    }

    /// What was planned comes to pass: which request is through, and who is next. `None` when the plan was changed.
    pub fn depart(&mut self, place: u32, stamp: u32, now: u64) -> Option<(u32, Option<Departure>)> {
        let seat = &mut self.places[place as usize];
        let job = seat.job.take_if(|_| seat.stamp == stamp)?;
        self.look(now);
        let next = match self.queue.pop_front() {
            Some(next) => self.serve(place, next, now),
            None => {
                self.busy -= 1;
                self.free.push(place);
                None
            }
        };
        Some((job.request, next))
    }

    /// An antagonist leaves it so much of its speed.
    pub fn hinder(&mut self, part: f64, now: u64) -> Vec<Departure> {
        self.change(now, |station| station.hindrance = part)
    }

    /// It has so much of its speed because it has just started.
    pub fn warm(&mut self, part: f64, now: u64) -> Vec<Departure> {
        self.change(now, |station| station.warmth = part)
    }

    /// It does nothing, or goes on.
    pub fn stick(&mut self, is_stuck: bool, now: u64) -> Vec<Departure> {
        self.change(now, |station| station.is_stuck = is_stuck)
    }

    /// The part of its computing time that was nobody's since it was asked last. Who is stuck does not compute.
    pub fn free_cpu(&mut self, now: u64) -> f64 {
        self.look(now);
        let time = (now - std::mem::replace(&mut self.asked_at, now)) as f64;
        std::mem::take(&mut self.free_ns) / time.max(1.0)
    }

    fn rate(&self) -> f64 {
        if self.is_stuck { 0.0 } else { self.speed * self.hindrance * self.warmth }
    }

    fn serve(&mut self, place: u32, mut job: Job, now: u64) -> Option<Departure> {
        job.since = now;
        self.places[place as usize].job = Some(job);
        self.plan(place)
    }

    fn plan(&mut self, place: u32) -> Option<Departure> {
        let rate = self.rate();
        let seat = &mut self.places[place as usize];
        seat.stamp += 1;
        let job = seat.job.filter(|_| rate > 0.0)?;
        let at = job.since + (job.left_ns / rate).ceil() as u64;
        Some(Departure { at, place, stamp: seat.stamp })
    }

    fn change(&mut self, now: u64, change: impl FnOnce(&mut Self)) -> Vec<Departure> {
        self.look(now);
        let rate = self.rate();
        for job in self.places.iter_mut().filter_map(|place| place.job.as_mut()) {
            job.left_ns = (job.left_ns - (now - job.since) as f64 * rate).max(0.0);
            job.since = now;
        }
        change(self);
        (0..self.places.len() as u32).filter_map(|place| self.plan(place)).collect()
    }

    fn look(&mut self, now: u64) {
        let time = (now - std::mem::replace(&mut self.seen_at, now)) as f64;
        let busy = if self.is_stuck { 0.0 } else { self.busy as f64 / self.slots as f64 };
        self.free_ns += time * self.hindrance * (1.0 - busy);
    }
}
