//! A body taken into the store when no client carries it: its client reads more slowly than the backend sends, has
//! left, or wants only a part of it.
//!
//! A task of its own with a desk of its own; it ends with the body. Rare on purpose: a client that keeps pace has its
//! body taken in on the way past ([`crate::worker::relay`]).

use std::rc::Rc;
use std::time::Duration;

use super::FILLS_MAX;
use super::errand::Errand;
use super::filling::Filling;
use crate::io::{Interest, Io, Stream};
use crate::metrics::Count;
use crate::worker::contained;
use crate::worker::desk::Desk;
use crate::worker::dial::Upstream;
use crate::worker::exchange::put_back;
use crate::worker::relay::Pump;
use crate::worker::shard::{DeskInUse, Shard};
use crate::worker::wait;

/// Sees the response through that `errand` stores: `desk.down` has been begun with its framing and has the writer. The
/// backend's side of `desk` is gone afterwards; its client's is untouched.
pub(in crate::worker) fn take_over<I: Io>(
    shard: &Rc<Shard<I>>,
    upstream: Upstream<I>,
    desk: &mut Desk,
    errand: &mut Errand<I>,
) {
    let Some(caching) = &shard.caching else { return };
    if caching.fills.get() >= FILLS_MAX || !errand.can_be_taken_over() {
        return;
    }
    let Some(filling) = errand.take_filling() else { return };
    let mut own = shard.desk();
    std::mem::swap(&mut own.outbound, &mut desk.outbound);
    std::mem::swap(&mut own.down, &mut desk.down);
    spawn(shard, upstream, own, filling);
}

/// As [`take_over`], with the desk itself.
pub(super) fn spawn<I: Io>(
    shard: &Rc<Shard<I>>,
    upstream: Upstream<I>,
    desk: DeskInUse<I>,
    filling: Filling,
) {
    if let Some(caching) = &shard.caching {
        caching.fills.set(caching.fills.get() + 1);
    }
    let task = run(shard.clone(), upstream, desk, Guard { shard: shard.clone(), filling });
    shard.io.spawn(contained(shard.clone(), task));
}

/// Tells the readers that no more will come, whatever happens.
struct Guard<I: Io> {
    shard: Rc<Shard<I>>,
    filling: Filling,
}

impl<I: Io> Drop for Guard<I> {
    fn drop(&mut self) {
        if let Some(caching) = &self.shard.caching {
            self.filling.advance(caching, &self.shard.io, true);
            caching.fills.set(caching.fills.get() - 1);
        }
        if self.shard.is_draining.get() {
            self.shard.wake_waiters();
        }
    }
}

async fn run<I: Io>(
    shard: Rc<Shard<I>>,
    upstream: Upstream<I>,
    mut desk: DeskInUse<I>,
    guard: Guard<I>,
) {
    let is_whole = take_in(&shard, &upstream, &mut desk, &guard.filling).await;
    // Before the guard rings: who is rung finds the body ended.
    desk.down.untee();
    upstream.stream.set_deadline(None);
    if is_whole && guard.filling.is_reusable && desk.outbound.is_empty() {
        put_back(&shard, upstream);
    } else if !is_whole {
        shard.counters.add(Count::CacheFillsBroken, 1);
    }
}

async fn take_in<I: Io>(
    shard: &Shard<I>,
    upstream: &Upstream<I>,
    desk: &mut Desk,
    filling: &Filling,
) -> bool {
    let Some(caching) = &shard.caching else { return false };
    let stream = &upstream.stream;
    let alone_until = shard.now() + ALONE_MAX;
    loop {
        let pump = desk.down.absorb(stream, &mut desk.outbound);
        filling.advance(caching, &shard.io, false);
        match pump {
            Pump::Done => return true,
            _ if !desk.down.is_teeing() || !filling.is_wanted() => return false,
            _ if shard.now() > alone_until && !filling.has_readers() => return false,
            Pump::Yields => wait::for_a_turn().await,
            Pump::AwaitsSource => {
                stream.set_deadline(Some(shard.now() + shard.config.timeouts.request));
                let status = wait::ready(stream, Interest::READ).await;
                if status.is_expired {
                    return false;
                }
            }
            _ => return false,
        }
    }
}

/// How long a body is taken in that nobody reads.
const ALONE_MAX: Duration = Duration::from_secs(60);
