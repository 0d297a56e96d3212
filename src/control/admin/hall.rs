//! What all connections to the admin listener share, and the bounds on them.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Waker;

use super::exposition;
use super::frame::Frame;
use super::look::Look;
use super::purge::Purger;
use super::reply::{Body, Reply};
use super::tally::Tally;
use crate::config::Stated;
use crate::control::board::Board;
use crate::io::{Io, host};
use crate::time::{DateText, Instant};

/// Everything the admin's tasks look at. They run on one core, and none keeps a borrow while it waits.
pub(super) struct Hall<I: Io> {
    pub io: I,
    pub board: Rc<Board>,
    pub tally: RefCell<Tally>,
    pub values: Vec<Stated>,
    pub listens_on: SocketAddr,
    pub purge: Option<Purger>,
    pub agent_url: Option<String>,
    pub date: RefCell<DateText>,
    began: Instant,
    connections: Cell<usize>,
    streams: Cell<usize>,
    /// Bytes of answers that were made and not yet taken.
    owed: Cell<usize>,
    live: RefCell<Live>,
    /// The metrics of the last reading, once somebody has asked, and its number.
    metrics: RefCell<Option<(u64, Rc<[u8]>)>>,
}

/// The last frame, for everybody who listens.
#[derive(Default)]
struct Live {
    number: u64,
    /// Of the last event that a frame told.
    told: u64,
    event: Rc<[u8]>,
    waiting: Vec<Waker>,
}

/// A place that is given back when dropped.
pub(super) struct Place<'a> {
    cell: &'a Cell<usize>,
    n: usize,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.cell.set(self.cell.get() - self.n);
    }
}

impl<I: Io> Hall<I> {
    pub fn new(io: I, board: Rc<Board>, tally: Tally, desk: super::Opening) -> Self {
        let super::Opening { listens_on, values, purge, agent_url } = desk;
        Self {
            board,
            tally: RefCell::new(tally),
            values,
            listens_on,
            purge,
            agent_url,
            date: RefCell::default(),
            began: io.now(),
            connections: Cell::new(0),
            streams: Cell::new(0),
            owed: Cell::new(0),
            live: RefCell::default(),
            metrics: RefCell::default(),
            io,
        }
    }

    /// Shows how things stand to `see`.
    pub fn look<T>(&self, see: impl FnOnce(Look<'_>) -> T) -> T {
        see(Look {
            board: &self.board,
            tally: &self.tally.borrow(),
            agent_url: self.agent_url.as_deref(),
            has_cache: self.purge.is_some(),
            now: self.io.now(),
            wall: self.io.wall(),
            began: self.began,
        })
    }

    /// The metrics, written once for each reading of the cores: a crowd of scrapers costs no more than one.
    pub fn metrics(&self) -> Reply {
        let number = self.live.borrow().number;
        let mut kept = self.metrics.borrow_mut();
        let page = match &*kept {
            Some((of, page)) if *of == number => Rc::clone(page),
            _ => {
                let page = self.look(|look| exposition::page(&look, &host::usage()));
                let page: Rc<[u8]> = page.into_bytes().into();
                *kept = Some((number, Rc::clone(&page)));
                page
            }
        };
        Reply {
            content_type: exposition::CONTENT_TYPE,
            body: Body::Shared(page),
            ..Reply::text(200, "")
        }
    }

    /// A place for a connection, if there is one.
    pub fn admit(&self) -> Option<Place<'_>> {
        place(&self.connections, 1, CONNECTIONS_MAX)
    }

    /// A place for a connection that listens for ever, if there is one: lookers always have room beside them.
    pub fn admit_stream(&self) -> Option<Place<'_>> {
        place(&self.streams, 1, STREAMS_MAX)
    }

    /// Room for an answer of `bytes`. A single one always has it.
    pub fn owe(&self, bytes: usize) -> Option<Place<'_>> {
        let max = if self.owed.get() == 0 { usize::MAX } else { OWED_BYTES_MAX };
        place(&self.owed, bytes, max)
    }

    /// Makes the next frame, if anybody listens, and wakes who waits for it.
    pub fn announce(&self) {
        let mut live = self.live.borrow_mut();
        live.number += 1;
        if self.streams.get() > 0 {
            let told = live.told;
            live.event = self.look(|look| event("frame", &look.frame(told)));
        }
        live.told = self.board.last_event();
        live.waiting.drain(..).for_each(Waker::wake);
    }

    /// The past, and the number of the frame that comes before the first one to be told.
    pub fn history(&self) -> (Rc<[u8]>, u64) {
        let number = self.live.borrow().number;
        (self.look(|look| event("history", &look.history())), number)
    }

    /// The present, for who has just come.
    pub fn first_frame(&self) -> Rc<[u8]> {
        let frame = self.look(|look| Frame { events: Vec::new(), ..look.frame(u64::MAX) });
        event("frame", &frame)
    }

    /// The newest frame when it is not number `seen`; else `waker` is woken when there is one.
    pub fn next_frame(&self, seen: u64, waker: &Waker) -> Option<(u64, Rc<[u8]>)> {
        let mut live = self.live.borrow_mut();
        if live.number > seen && !live.event.is_empty() {
            return Some((live.number, Rc::clone(&live.event)));
        }
        if !live.waiting.iter().any(|known| known.will_wake(waker)) {
            live.waiting.push(waker.clone());
        }
        None
    }
}

fn place(cell: &Cell<usize>, n: usize, max: usize) -> Option<Place<'_>> {
    let taken = cell.get().checked_add(n).filter(|&taken| taken <= max)?;
    cell.set(taken);
    Some(Place { cell, n })
}

/// One event of a stream (text/event-stream of the HTML standard): JSON has no line breaks.
fn event(name: &str, value: &impl serde::Serialize) -> Rc<[u8]> {
    // Numbers, texts and maps with texts as keys: they all have a JSON form.
    let json = serde_json::to_string(value).unwrap_or_default();
    format!("event: {name}\ndata: {json}\n\n").into_bytes().into()
}

/// Connections at one time.
pub(super) const CONNECTIONS_MAX: usize = 64;
/// Of those, connections that listen to `/live`.
pub(super) const STREAMS_MAX: usize = 32;
/// Bytes of answers that slow readers may leave with us, all together.
pub(super) const OWED_BYTES_MAX: usize = 32 << 20;
