//! One core's traffic: accept, serve, drain. Generic over [`Io`].
//!
//! | file | decides |
//! |---|---|
//! | `steer` | which core a new connection goes to |
//! | `per_ip` | how many connections one address may have |
//! | `conn` | when a request has come, and when a connection ends |
//! | `exchange` | where the request goes and what becomes of failures |
//! | `caching` | what of it all the cache does |
//! | `dial` | which connection it gets |
//! | `seat` | what a try says of its backend |
//! | `health` | whom this core sends nothing, and what it tells the control core |
//! | `credits` | how many requests each core may have in flight to a backend |
//! | `queue` | who goes next when everybody is busy |
//! | `talk` | who moves when, who waits for whom and how long |
//! | `relay` | body bytes across, backpressure |
//! | `upstream` | which idle connections are kept |
//! | `access` | how lines of the access log leave the core |
//! | `sharing` | which of them other cores may have |
//! | `shard` | nothing: it keeps what the core owns |

mod access;
mod answer;
mod buffer;
mod caching;
mod client;
mod conn;
mod credits;
mod desk;
mod dial;
mod exchange;
mod fault;
mod health;
mod limits;
mod per_ip;
mod queue;
mod record;
mod recycle;
mod relay;
mod seat;
mod shard;
mod sharing;
mod steer;
mod talk;
mod tick;
mod tunnel;
mod upstream;
mod wait;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crossbeam_channel::Receiver;
use futures_lite::FutureExt;

use crate::balance::Snapshot;
use crate::config::ShardConfig;
use crate::http::PeerTrust;
use crate::io::listen::BACKLOG;
use crate::io::{Bell as _, Io, Listener, Timer, is_shortage};
use crate::metrics::{Count, Published};
pub use access::{Batch, LogMail, LogOutlet, Spare, lines_in};
use caching::Caching;
pub use caching::{CacheMail, Purger};
pub use health::{Health, Noted, Reporter};
pub use limits::LIMITS;
pub use per_ip::PerIp;

use client::{Client, Peer};
use conn::{Bursts, burst, serve};
pub use credits::Credits;
use per_ip::Entry;
pub use shard::TICK;
use shard::{Admitted, DESKS_KEPT_MAX, Shard};
pub use sharing::Share;
pub use steer::SteerMail;
use steer::{Newcomer, Steering};
pub use tick::{IDLE_TICK, Looks, REST_AFTER};

/// What reaches a worker from other cores, and what it lets them see. After a send, ring the worker's bell.
pub struct Mail<I: Io> {
    /// Newest snapshot wins; the channel holds one.
    pub snapshots: Receiver<Arc<Snapshot>>,
    /// Orders of the process.
    pub orders: Receiver<Order>,
    /// Where to say how the backends are.
    pub reporter: Reporter<I::Bell>,
    /// This core's figures.
    pub published: Arc<Published>,
    /// Those of the other worker cores.
    pub peers: Vec<Arc<Published>>,
    /// What the cores tell each other of the cache; None when there is none.
    pub cache: Option<CacheMail<I::Bell>>,
    /// The in-flight limit of each backend; None without one, and when the core is alone.
    pub credits: Option<Credits<I::Bell>>,
    /// Idle connections to backends that any core may have; None when the core is alone.
    pub share: Option<Share<I::Movable>>,
    /// How connections move between the cores; None when they do not.
    pub steer: Option<SteerMail<I::Movable, I::Bell>>,
    /// The connections of each address; None without a limit on them.
    pub per_ip: Option<PerIp>,
    /// Where lines of the access log go; None when there is none.
    pub access: Option<LogMail>,
}

/// What the process wants of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Another process has the listeners now: accept what is queued and then no more, and end each connection with its next
    /// answer. A silent one is not closed yet: its client may be about to ask.
    Retire,
    /// Take no new connections, finish what is in flight, then end.
    Drain,
    /// End now.
    Stop,
}

/// One core's traffic.
pub struct Worker<I: Io> {
    shard: Rc<Shard<I>>,
    listeners: Vec<I::Listener>,
    mail: Mail<I>,
}

impl<I: Io> Worker<I> {
    /// A worker that accepts from `listeners`. Before the first snapshot it answers 503.
    pub fn new(io: I, config: ShardConfig, listeners: Vec<I::Listener>, mut mail: Mail<I>) -> Self {
        let shard = Rc::new(Shard::new(io, config, &mut mail));
        Self { shard, listeners, mail }
    }

    /// Runs until an order ends it.
    pub async fn run(self) {
        let Self { shard, listeners, mut mail } = self;
        let bursts = Rc::new(Bursts::new(|(shard, client)| burst(shard, client), DESKS_KEPT_MAX));
        let open_listeners = Rc::new(Cell::new(listeners.len()));
        take_snapshots(&shard, &mail);
        let peers = std::mem::take(&mut mail.peers);
        shard.io.spawn(tick::run(shard.clone(), mail.published.clone(), peers));
        shard.io.spawn(keep_pool(shard.clone()));
        for listener in listeners {
            let task = accept(shard.clone(), listener, bursts.clone(), open_listeners.clone());
            shard.io.spawn(task);
        }
        let is_stopped = poll_fn(|cx| {
            loop {
                take_newcomers(&shard, &bursts);
                if shard.is_draining.get()
                    && open_listeners.get() == 0
                    && shard.steering.as_ref().is_none_or(Steering::is_over)
                    && shard.connections() == 0
                    && shard.caching.as_ref().is_none_or(Caching::is_over)
                {
                    return Poll::Ready(());
                }
                shard.await_room(cx.waker());
                if shard.io.poll_rung(cx).is_pending() {
                    return Poll::Pending;
                }
                // Whoever rang may have given back what a request waits for.
                shard.queue.borrow().wake_front();
                take_snapshots(&shard, &mail);
                take_parcels(&shard);
                for order in mail.orders.try_iter() {
                    match order {
                        Order::Stop => return Poll::Ready(()),
                        Order::Retire | Order::Drain => {
                            shard.is_draining.set(true);
                            shard.spares_silent.set(order == Order::Retire);
                            shard.steering.iter().for_each(Steering::close);
                            shard.pool.borrow_mut().clear();
                            shard.share.as_ref().map(Share::clear_all);
                            shard.io.rouse();
                            // An accept loop that waits for room waits on no stream.
                            shard.wake_waiters();
                        }
                    }
                }
            }
        });
        is_stopped.await;
        if let Some(access) = &shard.access {
            access.flush(&shard.counters);
        }
        tick::publish(&shard, &mail.published);
    }
}

fn take_parcels<I: Io>(shard: &Shard<I>) {
    if let Some(caching) = &shard.caching
        && !caching.take_mail(shard.now(), shard.io.wall())
    {
        // The rest after whoever else wants to run.
        shard.io.bell().ring();
    }
}

/// Serves what other cores gave to this one.
fn take_newcomers<I, F, M>(shard: &Rc<Shard<I>>, bursts: &Rc<Bursts<I, F, M>>)
where
    I: Io,
    F: Future<Output = Option<Client<I>>> + 'static,
    M: Fn((Rc<Shard<I>>, Client<I>)) -> F + 'static,
{
    let Some(steering) = &shard.steering else { return };
    for _ in 0..ACCEPT_BURST_MAX {
        let Some(newcomer) = steering.take() else { return };
        welcome(shard, bursts, newcomer, shard.admit_taken());
    }
    // The rest after whoever else wants to run.
    shard.io.bell().ring();
}

fn take_snapshots<I: Io>(shard: &Shard<I>, mail: &Mail<I>) {
    if let Some(snapshot) = mail.snapshots.try_iter().last() {
        shard.apply(snapshot, &mail.published);
        // At once: the control core waits for the epoch, and departing backends for their last request.
        tick::publish(shard, &mail.published);
        shard.note_work();
    }
}

/// Drops idle backend connections on which something happened.
async fn keep_pool<I: Io>(shard: Rc<Shard<I>>) {
    let mut tags = Vec::with_capacity(64);
    loop {
        poll_fn(|cx| shard.io.poll_stirred(cx, &mut tags)).await;
        for tag in tags.drain(..) {
            let Some(slot) = shard.pool.borrow_mut().stirred(tag) else { continue };
            shard.counters.add(Count::PoolEvictions, 1);
            shard.health.doubt(slot);
        }
    }
}

/// Takes connections from one listener until the worker drains and the backlog is empty.
async fn accept<I, F, M>(
    shard: Rc<Shard<I>>,
    listener: I::Listener,
    bursts: Rc<Bursts<I, F, M>>,
    open_listeners: Rc<Cell<usize>>,
) where
    I: Io,
    F: Future<Output = Option<Client<I>>> + 'static,
    M: Fn((Rc<Shard<I>>, Client<I>)) -> F + 'static,
{
    let pause = shard.io.timer();
    let mut in_burst = 0;
    let mut in_retirement = 0;
    while in_retirement < ACCEPT_RETIRED_MAX {
        let accepted = poll_fn(|cx| {
            ready!(poll_room(&shard, &pause, cx));
            match listener.poll_accept(cx) {
                Poll::Pending if shard.is_draining.get() => Poll::Ready(None),
                other => other.map(Some),
            }
        });
        match accepted.await {
            None => break,
            Some(Ok((movable, peer))) => {
                shard.counters.add(Count::Accepted, 1);
                in_retirement += usize::from(shard.spares_silent.get());
                if let Some(newcomer) = greet(&shard, movable, peer.ip())
                    && let Some((newcomer, place)) = steer(&shard, newcomer, &pause).await
                {
                    welcome(&shard, &bursts, newcomer, place);
                }
            }
            Some(Err(error)) => {
                shard.counters.add(Count::AcceptErrors, 1);
                if is_shortage(&error) {
                    // An edge gives no second event, and the descriptors come back only with time.
                    pause.set(Some(shard.now() + ACCEPT_PAUSE));
                    poll_fn(|cx| pause.poll_expired(cx)).await;
                    pause.set(None);
                }
            }
        }
        in_burst += 1;
        if in_burst == ACCEPT_BURST_MAX {
            in_burst = 0;
            wait::for_a_turn().await;
        }
    }
    drop(listener);
    open_listeners.set(open_listeners.get() - 1);
    shard.wake_waiters();
}

/// Finds out once and for all who it is. One that has as many connections as an address may have is let go: closed
/// before a byte of it was read.
fn greet<I: Io>(
    shard: &Shard<I>,
    movable: I::Movable,
    address: IpAddr,
) -> Option<Newcomer<I::Movable>> {
    let trust = PeerTrust::of(address, &shard.config.trusted_proxies);
    let counted = match &shard.per_ip {
        // A proxy of ours comes in the name of everybody.
        Some(per_ip) if trust != PeerTrust::Trusted => match per_ip.enter(address) {
            Entry::Counted(counted) => Some(counted),
            Entry::Uncounted => None,
            Entry::Refused => {
                shard.counters.add(Count::RefusedPerIp, 1);
                // It will come again: each doubling is told, the rest counted.
                let n = shard.counters.get(Count::RefusedPerIp);
                if n.is_power_of_two() {
                    let address = address.to_canonical();
                    log::warn!(
                        "{address} has as many connections as --max-connections-per-ip allows; a further one was closed, \
                         number {n} on this core, of all addresses"
                    );
                }
                return None;
            }
        },
        _ => None,
    };
    Some(Newcomer { movable, peer: Peer { address, trust }, counted })
}

/// Ready when a connection can be served, here or elsewhere.
fn poll_room<I: Io>(shard: &Shard<I>, pause: &I::Timer, cx: &mut Context<'_>) -> Poll<()> {
    let is_elsewhere = || shard.steering.as_ref().is_some_and(Steering::has_room);
    if shard.has_room() || shard.is_draining.get() || is_elsewhere() {
        return Poll::Ready(());
    }
    shard.await_room(cx.waker());
    if shard.steering.is_none() {
        return Poll::Pending;
    }
    // Nobody tells of room that others have again.
    pause.set(Some(shard.now() + ROOM_PAUSE));
    pause.poll_expired(cx)
}

/// Gives a connection to a core where it is better off. Otherwise it comes back with a place on this one.
async fn steer<I: Io>(
    shard: &Rc<Shard<I>>,
    mut newcomer: Newcomer<I::Movable>,
    pause: &I::Timer,
) -> Option<(Newcomer<I::Movable>, Admitted<I>)> {
    loop {
        let steering = shard.steering.as_ref().filter(|_| !shard.is_draining.get());
        if let Some(steering) = steering {
            newcomer = match steering.offer(newcomer, shard.io.draw()) {
                Ok(()) => break,
                Err(back) => back,
            };
        }
        if let Some(place) = shard.admit() {
            return Some((newcomer, place));
        }
        if let Some(steering) = steering {
            newcomer = match steering.offer_to_all(newcomer) {
                Ok(()) => break,
                Err(back) => back,
            };
        }
        // Others were quicker to take the last places.
        wait::for_a_turn().await;
        poll_fn(|cx| poll_room(shard, pause, cx)).await;
    }
    shard.counters.add(Count::Steered, 1);
    None
}

/// Serves a connection on this core.
fn welcome<I, F, M>(
    shard: &Rc<Shard<I>>,
    bursts: &Rc<Bursts<I, F, M>>,
    newcomer: Newcomer<I::Movable>,
    place: Admitted<I>,
) where
    I: Io,
    F: Future<Output = Option<Client<I>>> + 'static,
    M: Fn((Rc<Shard<I>>, Client<I>)) -> F + 'static,
{
    match shard.io.adopt(newcomer.movable) {
        Ok(stream) => {
            let Newcomer { peer, counted, .. } = newcomer;
            let client = Client { stream, peer, _counted: counted, _admitted: place };
            let task = serve(shard.clone(), bursts.clone(), client);
            shard.io.spawn(contained(shard.clone(), task));
        }
        Err(_) => shard.counters.add(Count::AcceptErrors, 1),
    }
}

/// A panic ends the connection it happened on and nothing else.
async fn contained<I: Io>(shard: Rc<Shard<I>>, connection: impl Future<Output = ()>) {
    if AssertUnwindSafe(connection).catch_unwind().await.is_err() {
        shard.counters.add(Count::PanicsContained, 1);
        // Whoever found out how may do it again: each doubling is told, the rest counted.
        let n = shard.counters.get(Count::PanicsContained);
        if n.is_power_of_two() {
            log::error!(
                "a connection ended in a panic, number {n} on this core; the process goes on"
            );
        }
    }
}

/// Connections taken in a row before other tasks of the core have their turn.
const ACCEPT_BURST_MAX: u32 = 64;
/// Connections taken from one listener after its successor was told to serve: a whole backlog. Where more come, it is the
/// successor's turn, who shares it.
const ACCEPT_RETIRED_MAX: usize = BACKLOG as usize;
/// How long accepting rests when descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often a full core looks whether another has room for what waits at its door.
const ROOM_PAUSE: Duration = Duration::from_millis(20);
