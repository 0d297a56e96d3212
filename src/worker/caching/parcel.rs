//! What cores say to each other about cached responses, and the ways it goes.
//!
//! Every key has a home core. The others ask it, give it what they fetched, and are told when their waiting ends. The
//! channels are unbounded so that nothing that must arrive is ever lost; what is in them is bounded all the same: an
//! answer or a release per request that waits, a return per lease, and questions only while the home's inbox is
//! short ([`INBOX_MAX`]). A body never travels: a handle does.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::waits::{Sighting, Ticket};
use crate::cache::store::{
    Answer, End, Files, Generations, Handle, KeyHasher, Lease, Seek, Waiter,
};
use crate::cache::{Purge, Representation, RequestDirectives};
use crate::io::Bell;
use crate::metrics::Published;
use crate::time::Instant;

/// One core's end of the cache's mail. Made for all cores at once by [`CacheMail::for_cores`].
pub struct CacheMail<B> {
    pub(super) core: usize,
    pub(super) generations: Arc<Generations>,
    pub(super) files: Arc<Files>,
    /// Cores that drain and have nothing left to do for themselves.
    pub(super) done: Arc<AtomicUsize>,
    pub(super) hasher: KeyHasher,
    pub(super) inbox: Receiver<Parcel>,
    pub(super) cores: Vec<Neighbour<B>>,
}

impl<B: Bell> CacheMail<B> {
    /// The ends of all cores, in core order. `published[i]` is written by the core that `bells[i]` wakes.
    /// At most `files_max` bodies lie in files.
    pub fn for_cores(
        bells: &[B],
        published: &[Arc<Published>],
        hasher: &KeyHasher,
        files_max: usize,
    ) -> Vec<Self> {
        let files = Files::new(files_max);
        let generations = Arc::new(Generations::new());
        let done = Arc::new(AtomicUsize::new(0));
        let (senders, inboxes): (Vec<_>, Vec<_>) = bells.iter().map(|_| unbounded()).unzip();
        let cores: Vec<_> = (senders.iter().zip(bells).zip(published))
            .map(|((parcels, bell), published)| Neighbour {
                parcels: parcels.clone(),
                bell: bell.clone(),
                published: published.clone(),
                stuck_beat_ns: Cell::new(u64::MAX),
            })
            .collect();
        let end = |(core, inbox)| Self {
            core,
            generations: generations.clone(),
            files: files.clone(),
            done: done.clone(),
            hasher: hasher.clone(),
            inbox,
            cores: cores.clone(),
        };
        inboxes.into_iter().enumerate().map(end).collect()
    }

    /// A way to all cores for the operator.
    pub fn purger(&self) -> Purger<B> {
        Purger { cores: self.cores.clone() }
    }
}

/// Lets an operator have things forgotten, from any thread.
pub struct Purger<B> {
    cores: Vec<Neighbour<B>>,
}

impl<B: Bell> Purger<B> {
    /// Asks every core to forget. Each core that has done so sends `count` the number of responses that were. How many
    /// cores were asked.
    pub fn purge(&self, purge: Purge, count: &Sender<usize>) -> usize {
        let purge = Arc::new(purge);
        for core in &self.cores {
            core.send(Parcel::Purge(purge.clone(), count.clone()));
        }
        self.cores.len()
    }
}

/// Another core, or the own one, as the cache sees it.
#[derive(Clone)]
pub(super) struct Neighbour<B> {
    parcels: Sender<Parcel>,
    bell: B,
    published: Arc<Published>,
    /// The beat it showed when it last left a question unanswered.
    stuck_beat_ns: Cell<u64>,
}

impl<B: Bell> Neighbour<B> {
    /// What must arrive. No core ends before all have drained, but for one that is told to stop at once.
    pub(super) fn send(&self, parcel: Parcel) {
        if self.parcels.send(parcel).is_ok() {
            self.bell.ring();
        }
    }

    /// Shows a sign of life, on the own core.
    pub(super) fn beat(&self, now: Instant) {
        self.published.store_beat(now.as_ns());
    }

    pub(super) fn ring(&self) {
        self.bell.ring();
    }

    /// Whether a question would be answered soon, as far as one can see.
    pub(super) fn takes_questions(&self) -> bool {
        self.parcels.len() < INBOX_MAX && self.published.beat_ns() != self.stuck_beat_ns.get()
    }

    /// Whether the core has not shown a sign of life for long; then it gets no question until it does. To be asked only
    /// of one that was rung some time ago: an idle core sleeps.
    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        let beat_ns = self.published.beat_ns();
        let is_stuck = now.as_ns().saturating_sub(beat_ns) > BEAT_AGE_MAX_NS;
        if is_stuck {
            self.stuck_beat_ns.set(beat_ns);
        }
        is_stuck
    }
}

/// One message.
#[derive(Debug)]
pub(super) enum Parcel {
    /// To a key's home: what is this request to do?
    Ask(Question),
    /// From there.
    Answered { ticket: Ticket, answer: Answer<Representation>, sighting: Sighting },
    /// The waiting that was the answer is over.
    Released(Ticket),
    /// A lease comes back, with a response.
    Open(Lease, Handle<Representation>),
    /// A lease comes back, without.
    End(Lease, End),
    /// A response that was fetched without a lease, or freshened; and the number of purges by name before that began.
    Put(Handle<Representation>, u64),
    /// Until then requests for this hash had better not wait for each other.
    Pause(u64, Instant),
    /// Nothing of this key may be kept.
    Forget(u64, Box<[u8]>),
    /// Keys of this hash were served elsewhere.
    Touched(u64),
    /// The operator wants something forgotten; the count of responses that were goes back.
    Purge(Arc<Purge>, Sender<usize>),
}

/// A request as a key's home needs to see it.
#[derive(Debug)]
pub(super) struct Question {
    pub waiter: Waiter,
    pub seek: Seek,
    pub hash: u64,
    pub asked: RequestDirectives,
    /// The key, then the request's head.
    pub text: Box<[u8]>,
    pub key_bytes: usize,
}

/// Parcels a core may have before it before further questions go past it.
const INBOX_MAX: usize = 4096;
/// A core that was rung and shows an older beat is stuck.
const BEAT_AGE_MAX_NS: u64 = 100_000_000;
