//! The core's own heartbeat: every [`TICK`] while there is work, every [`IDLE_TICK`] while there is none.
//!
//! It publishes what the other cores may know. Deadlines are not its business (the driver keeps them), nor are
//! snapshots (the bell brings them at once).

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::shard::{Shard, TICK};
use crate::balance::Slot;
use crate::io::{Io, Timer};
use crate::metrics::{Count, Published};

/// Publishes for ever.
pub(super) async fn run<I: Io>(shard: Rc<Shard<I>>, published: Arc<Published>) {
    let (timer, is_ticking) = shard.tick();
    let mut requests = 0;
    loop {
        publish(&shard, &published);
        let requests_now = shard.counters.get(Count::Requests);
        let is_busy = shard.picker.borrow().total_in_flight() > 0 || requests_now != requests;
        requests = requests_now;
        is_ticking.set(is_busy);
        timer.set(Some(shard.now() + if is_busy { TICK } else { IDLE_TICK }));
        poll_fn(|cx| timer.poll_expired(cx)).await;
    }
}

/// Writes the core's totals where others read them. The epoch comes last: who sees it sees the rest.
pub(super) fn publish<I: Io>(shard: &Shard<I>, published: &Published) {
    published.store_counters(&shard.counters);
    published.store_connections(shard.connections() as u64);
    published.store_beat(shard.now().as_ns());
    let picker = shard.picker.borrow();
    for index in 0..picker.slots() {
        let slot = Slot(u32::try_from(index).expect("slots are u32"));
        published.store_in_flight(index, picker.in_flight(slot));
    }
    published.store_epoch(shard.epoch());
}

/// Pause while nothing happens: a sign of life.
const IDLE_TICK: Duration = Duration::from_secs(1);
