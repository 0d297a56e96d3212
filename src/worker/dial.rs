//! A connection to some backend: pooled if there is one, new otherwise.
//!
//! A backend that does not answer a connect within [`RACE_AFTER`] is raced by a second one; whoever is there first
//! gets the request, the other is closed and counts as a fault. A refused connect moves to the next address of the same
//! name, then to another backend. Nothing of the request has been sent yet, so all of this is safe for any method.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::fault::{Cause, Fault, Phase};
use super::queue::Ticket;
use super::seat::Seat;
use super::shard::Shard;
use crate::balance::{self, Backend, Choice, Slot};
use crate::io::{Interest, Io, Status, Stream, Timer};
use crate::metrics::Count;
use crate::time::Instant;

/// A connection that one request may use.
pub(super) struct Upstream<I: Io> {
    pub stream: I::Stream,
    pub seat: Seat<I>,
    /// It carried another request before.
    pub is_reused: bool,
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
        let choice = shard.picker.borrow().pick(|| shard.io.draw(), &exclude[..n]);
        match choice {
            Choice::Backend(slot) => self.take_seat(shard, slot),
            Choice::Busy => Picked::Busy,
            Choice::Nobody if other.is_some() => Picked::Nobody,
            Choice::Nobody => self.pick_again(shard),
        }
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
                    Picked::Busy | Picked::Nobody => None, // nobody to race with
                }
            }
            Some(_) => None,
        };
        is_rival_due = false;
        if let Some(seat) = seat {
            if let Some(stream) = pooled(shard, tries, seat.slot) {
                lose(shard, &mut lanes);
                return Ok(Upstream { stream, seat, is_reused: true });
            }
            match open(shard, seat) {
                Ok(lane) => lanes[usize::from(runner.is_some())] = Some(lane),
                Err((slot, fault)) => {
                    tries.exclude(slot, fault);
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
                        lose(shard, &mut lanes);
                        return Ok(upstream);
                    }
                    Settled::NextAddress(lane) => lanes[n] = Some(lane),
                    // Whoever still runs has had its head start.
                    Settled::Failed => is_rival_due = true,
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
    let Some(ticket) = shard.queue.borrow_mut().enter() else { return Err(Unreached::QueueFull) };
    let place = Place { shard, ticket, since: shard.now() };
    shard.counters.add(Count::Queued, 1);
    client.set_deadline(Some(shard.now() + shard.config.timeouts.queue));
    let outcome = poll_fn(|cx| {
        if shard.queue.borrow().is_front(place.ticket) {
            match tries.pick(shard, None) {
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
    let stream = shard.pool.borrow_mut().checkout(slot, &mut evicted);
    shard.counters.add(Count::PoolEvictions, evicted);
    shard.counters.add(Count::PoolHits, u64::from(stream.is_some()));
    stream
}

fn open<I: Io>(shard: &Shard<I>, seat: Seat<I>) -> Result<Lane<I>, (Slot, Fault)> {
    let addresses = shard.with_backend(seat.slot, |b| b.addresses.len()).unwrap_or(0);
    let first = shard.first_address(seat.slot, addresses);
    connect(shard, seat, first, addresses)
}

/// Tries addresses from number `address` on, `left` of them at most, until one connect is under way.
fn connect<I: Io>(
    shard: &Shard<I>,
    seat: Seat<I>,
    mut address: usize,
    mut left: usize,
) -> Result<Lane<I>, (Slot, Fault)> {
    let slot = seat.slot;
    let mut fault = Fault::new(Phase::Connect, Cause::Unreachable);
    while left > 0 {
        left -= 1;
        let to = shard
            .with_backend(slot, |b| b.addresses.get(address % b.addresses.len().max(1)).copied());
        let Some(Some(to)) = to else { break };
        shard.counters.add(Count::Connects, 1);
        match shard.io.connect(to) {
            Ok(stream) => {
                stream.set_deadline(Some(shard.now() + shard.config.timeouts.connect));
                return Ok(Lane { stream, seat, address, addresses_left: left });
            }
            Err(error) => {
                fault = Fault::from_io(Phase::Connect, &error);
                shard.counters.add(Count::ConnectsFailed, 1);
                shard.skip_address(slot, address);
                address += 1;
            }
        }
    }
    shard.note_fault(&seat, fault);
    Err((slot, fault))
}

enum Settled<I: Io> {
    Connected(Upstream<I>),
    NextAddress(Lane<I>),
    Failed,
}

fn settle<I: Io>(shard: &Shard<I>, lane: Lane<I>, tries: &mut Tries) -> Settled<I> {
    let status = lane.stream.status();
    let fault = if !status.is_writable && !status.is_reset {
        Fault::new(Phase::Connect, Cause::Timeout)
    } else {
        match lane.stream.connected() {
            Ok(()) if !status.is_reset => {
                lane.stream.set_deadline(None);
                return Settled::Connected(Upstream {
                    stream: lane.stream,
                    seat: lane.seat,
                    is_reused: false,
                });
            }
            Ok(()) => Fault::new(Phase::Connect, Cause::Reset),
            Err(error) => Fault::from_io(Phase::Connect, &error),
        }
    };
    shard.counters.add(Count::ConnectsFailed, 1);
    let slot = lane.seat.slot;
    shard.skip_address(slot, lane.address);
    match connect(shard, lane.seat, lane.address + 1, lane.addresses_left) {
        Ok(next) => Settled::NextAddress(next),
        Err((slot, _)) => {
            tries.exclude(slot, fault);
            Settled::Failed
        }
    }
}

/// Closes the lanes that did not win.
fn lose<I: Io>(shard: &Shard<I>, lanes: &mut [Option<Lane<I>>; 2]) {
    for lane in lanes.iter_mut().filter_map(Option::take) {
        shard.counters.add(Count::ConnectsFailed, 1);
        shard.note_fault(&lane.seat, Fault::new(Phase::Connect, Cause::Timeout));
        shard.skip_address(lane.seat.slot, lane.address);
    }
}

/// A connect that takes longer than this is raced by one to another backend.
pub(super) const RACE_AFTER: Duration = Duration::from_millis(200);
/// Backends one request may fail on before it is given up.
pub(super) const FAILED_MAX: usize = 8;
const _: () = assert!(FAILED_MAX < balance::EXCLUDED_MAX, "the rival's opponent is left out, too");
