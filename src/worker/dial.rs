//! A connection to some backend: pooled if there is one, new otherwise.
//!
//! A backend that does not answer a connect within [`RACE_AFTER`] is raced by a second one, or where there is none by its
//! own next address; whoever is there first gets the request, the other is closed and counts as a fault. A refused connect
//! moves to the next address of the same name, then to another backend. Nothing of the request has been sent yet, so all
//! of this is safe for any method.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::credits::Credits;
use super::fault::{Cause, Fault, Phase};
use super::queue::Ticket;
use super::seat::Seat;
use super::shard::Shard;
use crate::balance::{self, Backend, Choice, Slot, Symptom};
use crate::io::{Interest, Io, Status, Stream, Timer, is_shortage};
use crate::metrics::Count;
use crate::time::Instant;

/// A connection that one request may use.
pub(super) struct Upstream<I: Io> {
    pub stream: I::Stream,
    pub seat: Seat<I>,
    /// It carried another request before.
    pub is_reused: bool,
    /// The silence we bear before the head of an answer.
    pub patience: Duration,
}

impl<I: Io> Upstream<I> {
    fn new(stream: I::Stream, seat: Seat<I>, is_reused: bool, tries: &Tries) -> Self {
        let patience = seat.patience(tries.is_repeatable);
        Self { stream, seat, is_reused, patience }
    }
}

/// Why there is none.
pub(super) enum Unreached {
    /// No backend may get a request.
    Nobody,
    /// Everybody who was asked failed; the last failure.
    Failed(Fault),
    /// The client reset its connection meanwhile.
    Gone,
    /// Everybody is busy, and so many wait already that this request may not.
    QueueFull,
    /// Everybody was busy until the queue's deadline.
    QueueTimeout,
}

/// What one request has tried so far.
#[derive(Default)]
pub(super) struct Tries {
    excluded: [Option<Slot>; FAILED_MAX],
    /// Whether the request may be sent to one backend after another, whatever becomes of it.
    is_repeatable: bool,
    /// Requests sent once more.
    pub retries: u32,
    /// The one backend that failed after a connection came about; a new connection to it will do where nobody else is.
    pub failed: Option<Slot>,
    /// A pooled connection has died under this request: no other pooled one is tried.
    pub is_fresh_only: bool,
    /// How many backends were asked, races and second times included, and which one was last.
    pub asked: u32,
    pub asked_last: Option<Slot>,
    /// Time spent in the queue.
    pub queued: Duration,
    last: Option<Fault>,
}

impl Tries {
    /// None yet, of a request that may or may not be sent to one backend after another.
    pub(super) fn of(is_repeatable: bool) -> Self {
        Self { is_repeatable, ..Self::default() }
    }

    /// Avoids `slot` from now on.
    pub(super) fn exclude(&mut self, slot: Slot, fault: Fault) {
        self.last = Some(fault);
        if let Some(free) = self.excluded.iter_mut().find(|tried| tried.is_none()) {
            *free = Some(slot);
        }
    }

    /// What the client is told when there is nobody left to ask.
    fn given_up(&self) -> Unreached {
        self.last.map_or(Unreached::Nobody, Unreached::Failed)
    }

    fn is_exhausted(&self) -> bool {
        self.excluded.last().is_some_and(Option::is_some)
    }

    /// Takes a seat at a backend that was not tried yet and is not `other`.
    fn pick<I: Io>(&mut self, shard: &Rc<Shard<I>>, other: Option<Slot>) -> Picked<I> {
        if self.is_exhausted() {
            return Picked::Nobody;
        }
        let mut exclude = [Slot(0); FAILED_MAX + 1];
        let mut n = 0;
        for slot in self.excluded.iter().flatten().copied().chain(other) {
            exclude[n] = slot;
            n += 1;
        }
        let mut spared = None;
        loop {
            let choice = shard.choose(&exclude[..n]);
            return match (choice, spared) {
                (Choice::Backend(slot), _) if n < exclude.len() && self.spares(shard, slot) => {
                    spared = spared.or(Some(slot));
                    exclude[n] = slot;
                    n += 1;
                    continue;
                }
                (Choice::Backend(slot), _) => self.take_seat(shard, slot),
                (Choice::Busy | Choice::Nobody, Some(slot)) => self.take_seat(shard, slot),
                (Choice::Busy, None) => Picked::Busy,
                (Choice::Nobody, None) if other.is_some() => Picked::Nobody,
                (Choice::Nobody, None) => self.pick_again(shard),
            };
        }
    }

    /// Whether anybody else had better take the request: `slot` may fail, and this one can be sent but once; or others are
    /// finding out whether it lives.
    fn spares<I: Io>(&self, shard: &Shard<I>, slot: Slot) -> bool {
        let may_fail = !self.is_repeatable && shard.health.wants_repeatable(slot, shard.now());
        may_fail || shard.health.is_crowded(slot)
    }

    /// The backend that failed after a connection came about, on a fresh one: where nobody else is, it will do.
    fn pick_again<I: Io>(&mut self, shard: &Rc<Shard<I>>) -> Picked<I> {
        let is_eligible =
            |slot: &Slot| shard.with_backend(*slot, Backend::is_eligible).unwrap_or(false);
        let Some(again) = self.failed.take().filter(is_eligible) else { return Picked::Nobody };
        self.is_fresh_only = true;
        self.take_seat(shard, again)
    }

    fn take_seat<I: Io>(&mut self, shard: &Rc<Shard<I>>, slot: Slot) -> Picked<I> {
        self.asked += 1;
        self.asked_last = Some(slot);
        Picked::Seat(Seat::at(shard, slot))
    }
}

enum Picked<I: Io> {
    Seat(Seat<I>),
    Busy,
    Nobody,
}

/// One connect under way.
struct Lane<I: Io> {
    stream: I::Stream,
    seat: Seat<I>,
    address: usize,
    addresses_left: usize,
    began: Instant,
}

/// For whom a connection is sought: who lends the deadline, and whose leaving ends the search.
pub(super) enum Host<'a, I: Io> {
    Client(&'a I::Stream),
    Nobody(&'a I::Timer),
}

impl<I: Io> Clone for Host<'_, I> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<I: Io> Copy for Host<'_, I> {}

impl<I: Io> Host<'_, I> {
    fn set_deadline(self, deadline: Option<Instant>) {
        match self {
            Self::Client(stream) => stream.set_deadline(deadline),
            Self::Nobody(timer) => timer.set(deadline),
        }
    }

    /// Ready when the client has reset its connection or the deadline has passed.
    fn poll(self, cx: &mut Context<'_>) -> Poll<Status> {
        match self {
            Self::Client(stream) => stream.poll_ready(cx, Interest::NONE),
            Self::Nobody(timer) => {
                timer.poll_expired(cx).map(|()| Status { is_expired: true, ..Status::default() })
            }
        }
    }
}

/// Finds a connection for a request. Uses the host's deadline for the queue and for the race.
pub(super) async fn reach<I: Io>(
    shard: &Rc<Shard<I>>,
    client: Host<'_, I>,
    tries: &mut Tries,
) -> Result<Upstream<I>, Unreached> {
    let outcome = race(shard, client, tries).await;
    client.set_deadline(None);
    outcome
}

async fn race<I: Io>(
    shard: &Rc<Shard<I>>,
    client: Host<'_, I>,
    tries: &mut Tries,
) -> Result<Upstream<I>, Unreached> {
    let mut lanes: [Option<Lane<I>>; 2] = [None, None];
    let mut is_rival_due = false;
    loop {
        if lanes[0].is_none() {
            lanes.swap(0, 1);
        }
        let runner = lanes[0].as_ref().map(|lane| lane.seat.slot);
        let seat = match runner {
            None => Some(seat(shard, client, tries).await?),
            Some(runner) if is_rival_due && lanes[1].is_none() => {
                match tries.pick(shard, Some(runner)) {
                    Picked::Seat(seat) => Some(seat),
                    Picked::Busy | Picked::Nobody => {
                        let [runner, rival] = &mut lanes;
                        *rival = runner.as_mut().and_then(|lane| fork(shard, lane));
                        None
                    }
                }
            }
            Some(_) => None,
        };
        is_rival_due = false;
        if let Some(seat) = seat {
            if let Some(stream) = pooled(shard, tries, seat.slot) {
                lose(shard, &mut lanes, seat.slot);
                return Ok(Upstream::new(stream, seat, true, tries));
            }
            match open(shard, seat) {
                Ok(lane) => lanes[usize::from(runner.is_some())] = Some(lane),
                Err(missed) => {
                    miss(shard, missed, tries);
                    is_rival_due = runner.is_some();
                    continue;
                }
            }
            if runner.is_none() {
                client.set_deadline(Some(shard.now() + RACE_AFTER));
            }
        }
        match next_event(client, &lanes).await {
            Event::ClientGone => return Err(Unreached::Gone),
            Event::RivalDue => {
                client.set_deadline(None);
                is_rival_due = true;
            }
            Event::Settled(n) => {
                let Some(lane) = lanes[n].take() else { continue };
                match settle(shard, lane, tries) {
                    Settled::Connected(upstream) => {
                        lose(shard, &mut lanes, upstream.seat.slot);
                        return Ok(upstream);
                    }
                    Settled::NextAddress(lane) => lanes[n] = Some(lane),
                    Settled::Failed(missed) => {
                        let mut others = lanes.iter().flatten().map(|lane| lane.seat.slot);
                        // Another address of the same backend may still be connected to.
                        if others.all(|slot| slot != missed.seat.slot) {
                            miss(shard, missed, tries);
                        }
                        // Whoever still runs has had its head start.
                        is_rival_due = true;
                    }
                }
            }
        }
    }
}

/// A seat at some backend; waits in the queue while everybody is busy. Uses the host's deadline.
async fn seat<I: Io>(
    shard: &Rc<Shard<I>>,
    client: Host<'_, I>,
    tries: &mut Tries,
) -> Result<Seat<I>, Unreached> {
    if shard.queue.borrow().is_empty() {
        match tries.pick(shard, None) {
            Picked::Seat(seat) => return Ok(seat),
            Picked::Nobody => return Err(tries.given_up()),
            Picked::Busy => {}
        }
    }
    if matches!(client, Host::Nobody(_)) {
        // Nobody waits for it: those who do come first.
        return Err(Unreached::QueueFull);
    }
    let Some(ticket) = shard.queue.borrow_mut().enter() else { return Err(Unreached::QueueFull) };
    let place = Place { shard, ticket, since: shard.now() };
    shard.counters.add(Count::Queued, 1);
    // What others do not use any more is found by the tick.
    shard.note_work();
    client.set_deadline(Some(shard.now() + shard.config.timeouts.queue));
    let outcome = poll_fn(|cx| {
        if shard.queue.borrow().is_front(place.ticket) {
            let mut picked = tries.pick(shard, None);
            if matches!(picked, Picked::Busy) && shard.credits.as_ref().is_some_and(Credits::wait) {
                picked = tries.pick(shard, None);
            }
            match picked {
                Picked::Seat(seat) => return Poll::Ready(Ok(seat)),
                Picked::Nobody => return Poll::Ready(Err(tries.given_up())),
                Picked::Busy => {}
            }
        }
        shard.queue.borrow_mut().await_turn(place.ticket, cx.waker());
        match client.poll(cx) {
            Poll::Ready(status) if status.is_reset => Poll::Ready(Err(Unreached::Gone)),
            Poll::Ready(_) => Poll::Ready(Err(Unreached::QueueTimeout)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    tries.queued += shard.now().since(place.since);
    outcome
}

/// A place in the queue, given up when dropped.
struct Place<'a, I: Io> {
    shard: &'a Shard<I>,
    ticket: Ticket,
    since: Instant,
}

impl<I: Io> Drop for Place<'_, I> {
    fn drop(&mut self) {
        self.shard.queue.borrow_mut().leave(self.ticket);
        if self.shard.queue.borrow().is_empty() {
            self.shard.credits.iter().for_each(Credits::stop_waiting);
        }
        self.shard.note_queued(self.shard.now().since(self.since));
    }
}

enum Event {
    ClientGone,
    RivalDue,
    /// The lane of that number is connected, failed, or late.
    Settled(usize),
}

async fn next_event<I: Io>(client: Host<'_, I>, lanes: &[Option<Lane<I>>; 2]) -> Event {
    poll_fn(|cx| {
        for (n, lane) in lanes.iter().enumerate() {
            if let Some(lane) = lane
                && lane.stream.poll_ready(cx, Interest::WRITE).is_ready()
            {
                return Poll::Ready(Event::Settled(n));
            }
        }
        match client.poll(cx) {
            Poll::Ready(status) if status.is_reset => Poll::Ready(Event::ClientGone),
            Poll::Ready(_) => Poll::Ready(Event::RivalDue),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

fn pooled<I: Io>(shard: &Shard<I>, tries: &Tries, slot: Slot) -> Option<I::Stream> {
    if tries.is_fresh_only {
        return None;
    }
    let mut evicted = 0;
    let mut stream = shard.pool.borrow_mut().checkout(slot, &mut evicted);
    if stream.is_none()
        && let Some(share) = &shard.share
    {
        stream = share.take(&shard.io, slot, &mut evicted);
        shard.counters.add(Count::PoolAdopted, u64::from(stream.is_some()));
    }
    shard.counters.add(Count::PoolEvictions, evicted);
    if evicted > 0 {
        shard.health.doubt(slot);
    }
    shard.counters.add(Count::PoolHits, u64::from(stream.is_some()));
    stream
}

/// A backend to which no connection came about.
struct Missed<I: Io> {
    seat: Seat<I>,
    /// How it went at the last address.
    fault: Fault,
    /// Something ran out here: that says nothing of the backend.
    is_ours: bool,
}

fn open<I: Io>(shard: &Shard<I>, seat: Seat<I>) -> Result<Lane<I>, Missed<I>> {
    let addresses = shard.with_backend(seat.slot, |b| b.addresses.len()).unwrap_or(0);
    let first = shard.first_address(seat.slot, addresses);
    let fault = Fault::new(Phase::Connect, Cause::Unreachable);
    connect(shard, Missed { seat, fault, is_ours: false }, first, addresses)
}

/// One more connect beside `lane`, to the next address of the same backend, if there is one.
fn fork<I: Io>(shard: &Rc<Shard<I>>, lane: &mut Lane<I>) -> Option<Lane<I>> {
    let left = std::mem::take(&mut lane.addresses_left);
    if left == 0 {
        return None;
    }
    let seat = Seat::at(shard, lane.seat.slot);
    let fault = Fault::new(Phase::Connect, Cause::Unreachable);
    connect(shard, Missed { seat, fault, is_ours: false }, lane.address + 1, left).ok()
}

/// Tries addresses from number `address` on, `left` of them at most, until one connect is under way. `so_far` is how it
/// went at those before.
fn connect<I: Io>(
    shard: &Shard<I>,
    mut so_far: Missed<I>,
    mut address: usize,
    mut left: usize,
) -> Result<Lane<I>, Missed<I>> {
    let slot = so_far.seat.slot;
    while left > 0 {
        left -= 1;
        let to = shard
            .with_backend(slot, |b| b.addresses.get(address % b.addresses.len().max(1)).copied());
        let Some(Some(to)) = to else { break };
        shard.counters.add(Count::Connects, 1);
        match shard.io.connect(to) {
            Ok(stream) => {
                let began = shard.now();
                stream.set_deadline(Some(began + shard.config.timeouts.connect));
                so_far.seat.set_opening(true);
                return Ok(Lane {
                    stream,
                    seat: so_far.seat,
                    address,
                    addresses_left: left,
                    began,
                });
            }
            Err(error) => {
                so_far.fault = Fault::from_io(Phase::Connect, &error);
                so_far.is_ours |= is_shortage(&error);
                shard.counters.add(Count::ConnectsFailed, 1);
                shard.skip_address(slot, address);
                address += 1;
            }
        }
    }
    Err(so_far)
}

enum Settled<I: Io> {
    Connected(Upstream<I>),
    NextAddress(Lane<I>),
    Failed(Missed<I>),
}

fn settle<I: Io>(shard: &Shard<I>, lane: Lane<I>, tries: &Tries) -> Settled<I> {
    let status = lane.stream.status();
    let fault = if !status.is_writable && !status.is_reset {
        Fault::new(Phase::Connect, Cause::Timeout)
    } else {
        match lane.stream.connected() {
            Ok(()) if !status.is_reset => {
                lane.stream.set_deadline(None);
                lane.seat.set_opening(false);
                return Settled::Connected(Upstream::new(lane.stream, lane.seat, false, tries));
            }
            Ok(()) => Fault::new(Phase::Connect, Cause::Reset),
            Err(error) => Fault::from_io(Phase::Connect, &error),
        }
    };
    shard.counters.add(Count::ConnectsFailed, 1);
    shard.skip_address(lane.seat.slot, lane.address);
    let so_far = Missed { seat: lane.seat, fault, is_ours: false };
    match connect(shard, so_far, lane.address + 1, lane.addresses_left) {
        Ok(next) => Settled::NextAddress(next),
        Err(missed) => Settled::Failed(missed),
    }
}

/// No connection to that backend: it is avoided from now on.
fn miss<I: Io>(shard: &Shard<I>, missed: Missed<I>, tries: &mut Tries) {
    let Missed { seat, fault, is_ours } = missed;
    shard.note_fault(&seat, fault);
    if !is_ours {
        seat.failed(fault.symptom(), false);
    }
    tries.exclude(seat.slot, fault);
}

/// Closes the lanes that did not win.
fn lose<I: Io>(shard: &Shard<I>, lanes: &mut [Option<Lane<I>>; 2], winner: Slot) {
    for lane in lanes.iter_mut().filter_map(Option::take) {
        shard.counters.add(Count::ConnectsFailed, 1);
        shard.skip_address(lane.seat.slot, lane.address);
        if lane.seat.slot == winner {
            continue; // one address of it was slow, no more
        }
        shard.note_fault(&lane.seat, Fault::new(Phase::Connect, Cause::Timeout));
        // One that began only just now has not been overtaken.
        if shard.now().since(lane.began) >= RACE_AFTER {
            lane.seat.failed(Symptom::Overtaken, false);
        }
    }
}

/// A connect that takes longer than this is raced by one to another backend.
pub(super) const RACE_AFTER: Duration = Duration::from_millis(200);
/// Backends one request may fail on before it is given up.
pub(super) const FAILED_MAX: usize = 8;
const _: () = assert!(FAILED_MAX < balance::EXCLUDED_MAX, "the rival's opponent is left out, too");
