//! Which core serves a new connection.
//!
//! The kernel deals connections out by a hash: few and long ones end up unevenly, the busiest of 16 cores had twice the
//! mean of 64 connections. So a core that accepts one and has clearly more than the less loaded of two others, drawn
//! at random, gives it away before it has read a byte: the bare connection travels over the other core's channel. It
//! moves once and never back, so nothing goes to and fro. A core at its limit gives to whoever has room, instead of
//! leaving connections in its backlog.
//!
//! *Load* is how many connections a core has and how many are on their way to it, as of now; between cores that are
//! level it is how busy they were of late. Connections come first, because idle ones wake up.
//!
//! The crossing: one bounded channel per core, written by all others, and the number of places taken at a core, which
//! whoever sends a connection there counts up first ([`Published::take_place`]): a core is never overfull. A core that drains says so after it has given its last, and no core ends before all others have said so: no
//! connection is lost in a channel.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::client::Peer;
use super::per_ip::Counted;
use crate::io::{Bell, Io};
use crate::metrics::Published;

/// One core's end of the ways that connections move. Made for all cores at once by [`SteerMail::for_cores`].
pub struct SteerMail<M, B> {
    inbox: Receiver<Newcomer<M>>,
    own: Arc<Published>,
    others: Vec<Door<M, B>>,
}

impl<M, B: Bell> SteerMail<M, B> {
    /// The ends of all cores, in core order. `published[i]` is written by the core that `bells[i]` wakes.
    pub fn for_cores(bells: &[B], published: &[Arc<Published>]) -> Vec<Self> {
        let (senders, inboxes): (Vec<_>, Vec<_>) =
            bells.iter().map(|_| bounded(NEWCOMERS_MAX)).unzip();
        let door = |core: usize| Door {
            inbox: senders[core].clone(),
            bell: bells[core].clone(),
            published: published[core].clone(),
        };
        let end = |(own, inbox)| Self {
            inbox,
            own: Arc::clone(&published[own]),
            others: (0..bells.len()).filter(|core| *core != own).map(door).collect(),
        };
        inboxes.into_iter().enumerate().map(end).collect()
    }
}

/// A connection that was accepted and is not served yet, who is at its other end, and what it counts against.
pub(super) struct Newcomer<M> {
    pub movable: M,
    pub peer: Peer,
    /// Against its address.
    pub counted: Option<Counted>,
}

/// Another core.
struct Door<M, B> {
    inbox: Sender<Newcomer<M>>,
    bell: B,
    published: Arc<Published>,
}

impl<M, B> Door<M, B> {
    /// Whether it takes connections; `connections_max` is what each core may hold.
    fn has_room(&self, connections_max: u64) -> bool {
        self.published.is_open()
            && self.published.connections() < connections_max
            && !self.inbox.is_full()
    }

    fn load(&self) -> Load {
        Load::of(&self.published)
    }
}

/// How loaded a core is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Load {
    connections: u64,
    busy_percent: u64,
}

impl Load {
    fn of(published: &Published) -> Self {
        let connections = published.connections();
        Self { connections, busy_percent: published.busy_percent() }
    }

    /// Whether a connection is better off with `other`.
    fn is_clearly_above(self, other: Self) -> bool {
        let slack = other.connections / SLACK_PART;
        let is_level = self.connections + slack >= other.connections;
        self.connections > other.connections + slack
            || (is_level && self.busy_percent > other.busy_percent + BUSY_MARGIN_PERCENT)
    }
}

/// What one core knows of where connections may go.
pub(super) struct Steering<I: Io> {
    mail: SteerMail<I::Movable, I::Bell>,
    connections_max: u64,
}

impl<I: Io> Steering<I> {
    /// From here on the core takes and gives, unless it stands alone. Each core may hold `connections_max`.
    pub(super) fn new(mail: SteerMail<I::Movable, I::Bell>, connections_max: usize) -> Self {
        mail.own.store_is_open(true);
        Self { mail, connections_max: connections_max as u64 }
    }

    /// Gives `newcomer` to the less loaded of two others if this core is clearly above it. It comes back if not.
    pub(super) fn offer(
        &self,
        newcomer: Newcomer<I::Movable>,
        draw: u64,
    ) -> Result<(), Newcomer<I::Movable>> {
        let drawn = two_of(self.mail.others.len(), draw).into_iter().flatten();
        let best = self.emptiest(drawn.map(|n| &self.mail.others[n]));
        let own = Load::of(&self.mail.own);
        match best.filter(|door| own.is_clearly_above(door.load())) {
            Some(door) => self.give(newcomer, door),
            None => Err(newcomer),
        }
    }

    /// Gives `newcomer` to whoever has room, since this core has none. It comes back when nobody has.
    pub(super) fn offer_to_all(
        &self,
        newcomer: Newcomer<I::Movable>,
    ) -> Result<(), Newcomer<I::Movable>> {
        match self.emptiest(self.mail.others.iter()) {
            Some(door) => self.give(newcomer, door),
            None => Err(newcomer),
        }
    }

    fn give(
        &self,
        newcomer: Newcomer<I::Movable>,
        door: &Door<I::Movable, I::Bell>,
    ) -> Result<(), Newcomer<I::Movable>> {
        if !door.published.take_place(self.connections_max) {
            return Err(newcomer);
        }
        match door.inbox.try_send(newcomer) {
            Ok(()) => {
                door.bell.ring();
                Ok(())
            }
            Err(TrySendError::Full(back) | TrySendError::Disconnected(back)) => {
                door.published.give_place();
                Err(back)
            }
        }
    }

    /// The least loaded of those that have room.
    fn emptiest<'a>(
        &self,
        doors: impl Iterator<Item = &'a Door<I::Movable, I::Bell>>,
    ) -> Option<&'a Door<I::Movable, I::Bell>> {
        doors.filter(|door| door.has_room(self.connections_max)).min_by_key(|door| door.load())
    }

    /// Whether any other core has room.
    pub(super) fn has_room(&self) -> bool {
        self.mail.others.iter().any(|door| door.has_room(self.connections_max))
    }

    /// A connection that another core gave to this one, which has a place already.
    pub(super) fn take(&self) -> Option<Newcomer<I::Movable>> {
        self.mail.inbox.try_recv().ok()
    }

    /// This core has given its last.
    pub(super) fn close(&self) {
        self.mail.own.store_is_open(false);
        self.mail.others.iter().for_each(|door| door.bell.ring());
    }

    /// Whether nothing will come any more and nothing is left to take.
    pub(super) fn is_over(&self) -> bool {
        // In this order: what came before the last core closed is in the inbox.
        !self.mail.others.iter().any(|door| door.published.is_open()) && self.mail.inbox.is_empty()
    }
}

/// Two different numbers below `n`, as far as there are two.
fn two_of(n: usize, draw: u64) -> [Option<usize>; 2] {
    if n == 0 {
        return [None, None];
    }
    // Both halves of the draw, and n is small: the bias of a remainder is of no account.
    let (low, high) = (draw as u32 as usize, (draw >> 32) as usize);
    let first = low % n;
    let second = (n > 1).then(|| (first + 1 + high % (n - 1)) % n);
    [Some(first), second]
}

/// Connections on their way to one core. They count as its own, so that this fills only while it does not run.
pub(super) const NEWCOMERS_MAX: usize = 256;
/// A core may have an eighth more than another: with many connections, moving every second one buys nothing.
const SLACK_PART: u64 = 8;
/// Among cores that are level, this much more time awake makes one clearly busier.
const BUSY_MARGIN_PERCENT: u64 = 25;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clearly_above_means_more_connections_or_as_many_and_more_work() {
        let cases = [
            // own connections and busy, the other's, is it moved?
            ((0, 0), (0, 0), false),
            ((1, 0), (0, 0), true),
            ((1, 0), (1, 0), false),
            ((8, 90), (8, 80), false),
            ((8, 90), (8, 40), true),
            // Fewer connections are fewer, however busy.
            ((3, 100), (4, 0), false),
            ((4, 0), (3, 100), true),
            // An eighth more is level.
            ((9, 0), (8, 0), false),
            ((10, 0), (8, 0), true),
            ((112, 0), (100, 0), false),
            ((113, 0), (100, 0), true),
            ((90, 100), (100, 0), true),
            ((80, 100), (100, 0), false),
        ];
        for (own, other, is_moved) in cases {
            let load = |(connections, busy_percent)| Load { connections, busy_percent };
            assert_eq!(load(own).is_clearly_above(load(other)), is_moved, "{own:?} {other:?}");
        }
    }

    #[test]
    fn two_are_drawn_and_never_the_same() {
        assert_eq!(two_of(0, 7), [None, None]);
        assert_eq!(two_of(1, 7), [Some(0), None]);
        for n in 2..6_u64 {
            let mut seen = std::collections::BTreeSet::new();
            for (low, high) in (0..n).flat_map(|low| (0..n - 1).map(move |high| (low, high))) {
                let [Some(first), Some(second)] = two_of(n as usize, high << 32 | low) else {
                    panic!("two of {n}")
                };
                assert!(first != second && first.max(second) < n as usize);
                seen.insert((first, second));
            }
            assert_eq!(seen.len() as u64, n * (n - 1), "every pair can be drawn");
        }
    }

    /// Connections arrive at cores by chance and stay; whatever the order, the fullest has little more than the mean.
    #[test]
    fn sixteen_on_two_cores_and_more_on_more_end_up_level() {
        let mut draw = 1_u64;
        for (cores, connections) in [(2, 16), (2, 5), (4, 16), (16, 64), (64, 256), (16, 1024)] {
            for _ in 0..200 {
                let mut held = vec![0_u64; cores];
                for _ in 0..connections {
                    draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(97);
                    let at = (draw >> 33) as usize % cores;
                    let load = |core: usize| Load { connections: held[core], busy_percent: 0 };
                    draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(97);
                    let drawn = two_of(cores - 1, draw ^ draw >> 29);
                    let others = drawn.into_iter().flatten().map(|n| n + usize::from(n >= at));
                    let best = others.min_by_key(|&core| load(core)).unwrap();
                    let is_moved = load(at).is_clearly_above(load(best));
                    held[if is_moved { best } else { at }] += 1;
                }
                let fullest = *held.iter().max().unwrap();
                let mean = connections as f64 / cores as f64;
                let bound =
                    if cores == 2 { (1.25 * mean).max(mean + 0.5) } else { 1.25 * mean + 2.0 };
                assert!(fullest as f64 <= bound, "{connections} on {cores}: {held:?}");
            }
        }
    }
}
