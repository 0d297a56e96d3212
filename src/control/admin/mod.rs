//! The admin listener: what an operator, a browser or Prometheus asks, answered on the control core.
//!
//! | file | decides |
//! |---|---|
//! | `conn` | one connection: deadlines, bounds, the stream of `/live` |
//! | `route` | what is done about a request |
//! | `guard` | who may ask it |
//! | `tally` | what all cores have counted, once a second |
//! | `look`, `frame` | what is shown of it, as values |
//! | `exposition`, `tables`, `page.html` | as metrics, as text, as a page |
//! | `purge` | what the cache is told to forget |
//!
//! No worker waits for anything here: figures are read from the blocks that their ticks write. Connections, bytes and
//! times are bounded; a reader that is slow delays nobody but itself.

mod conn;
mod exposition;
pub mod frame;
mod guard;
mod hall;
mod look;
mod purge;
mod reply;
mod route;
mod tables;
mod tally;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

pub use guard::PURGE_FIELD;
pub use purge::Purger;
pub use tables::aligned;

use super::board::Board;
use crate::config::{Limit, Stated};
use crate::io::{Io, Listener, Timer};
use crate::metrics::Published;
use hall::Hall;
use tally::Tally;

/// Where it listens, and what it tells and does.
pub struct Desk<L> {
    /// The socket.
    pub listener: L,
    /// Whether another process answers there until this one is ready.
    pub awaits_ready: bool,
    /// The rest.
    pub opening: Opening,
}

/// What the admin listener knows from the start.
pub struct Opening {
    /// The address really bound.
    pub listens_on: SocketAddr,
    /// The settings in force.
    pub values: Vec<Stated>,
    /// The way to the cache, if there is one.
    pub purge: Option<Purger>,
    /// The agent's URL, if there is an agent.
    pub agent_url: Option<String>,
}

/// Begins to serve; `cores` are the workers with the kernel's numbers of their cores.
pub(super) fn open<I: Io>(
    io: &I,
    desk: Desk<I::Listener>,
    board: Rc<Board>,
    cores: Vec<(usize, Arc<Published>)>,
) {
    let Desk { listener, opening, .. } = desk;
    let tally = Tally::new(cores, io.now());
    let hall = Rc::new(Hall::new(io.clone(), board, tally, opening));
    io.spawn(count(Rc::clone(&hall)));
    io.spawn(accept(hall, listener));
}

/// Reads the cores once a second, one at a step.
async fn count<I: Io>(hall: Rc<Hall<I>>) {
    let timer = hall.io.timer();
    let mut next = hall.io.now();
    loop {
        let snapshot = hall.board.snapshot();
        hall.tally.borrow_mut().begin(&snapshot);
        let cores = hall.tally.borrow().cores.len();
        for n in 0..cores {
            hall.tally.borrow_mut().read(n);
            futures_lite::future::yield_now().await;
        }
        hall.tally.borrow_mut().finish(hall.io.now(), hall.io.wall());
        hall.announce();
        // A second that was missed is not made up for.
        next = (next + INTERVAL).max(hall.io.now());
        timer.set(Some(next));
        poll_fn(|cx| timer.poll_expired(cx)).await;
    }
}

async fn accept<I: Io>(hall: Rc<Hall<I>>, listener: I::Listener) {
    let pause = hall.io.timer();
    loop {
        let accepted = poll_fn(|cx| match listener.poll_accept(cx) {
            // What was queued is answered before.
            Poll::Pending if hall.board.has_given_desk() => Poll::Ready(None),
            accepted => accepted.map(Some),
        });
        let Some(accepted) = accepted.await else { return };
        match accepted.and_then(|(movable, _)| hall.io.adopt(movable)) {
            Ok(stream) => {
                let hall = Rc::clone(&hall);
                hall.io.clone().spawn(admit(hall, stream));
                // The core has other duties than a flood of connections.
                futures_lite::future::yield_now().await;
            }
            // Descriptors come back only with time, and an edge gives no second event.
            Err(_) => {
                pause.set(Some(hall.io.now() + ACCEPT_PAUSE));
                poll_fn(|cx| pause.poll_expired(cx)).await;
                pause.set(None);
            }
        }
    }
}

async fn admit<I: Io>(hall: Rc<Hall<I>>, stream: I::Stream) {
    match hall.admit() {
        Some(_place) => conn::serve(Rc::clone(&hall), stream).await,
        None => conn::turn_away(&hall, &stream).await,
    }
}

/// Every limit of the admin listener, for `check --show-config`.
pub const LIMITS: &[Limit] = &[
    Limit::count("admin connections", hall::CONNECTIONS_MAX),
    Limit::count("admin connections that listen to /live", hall::STREAMS_MAX),
    Limit::bytes("admin answers not yet taken", hall::OWED_BYTES_MAX),
    Limit::time("an admin request head", conn::HEAD_MAX),
    Limit::time("an admin reader that takes nothing", conn::WRITE_MAX),
    Limit::time("an idle admin connection", conn::IDLE_MAX),
];

/// Between two readings of the cores.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long accepting rests when it failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
