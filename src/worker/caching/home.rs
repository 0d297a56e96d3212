//! A key's home at work: it answers what other cores ask, takes back leases, and passes on whose waiting is over.

use crossbeam_channel::Sender;

use super::filling::Filling;
use super::parcel::{Parcel, Question};
use super::waits::{News, Sighting, Ticket};
use super::{Caching, Held, Scratch};
use crate::cache::store::{
    Answer, Body, BodyState, End, Fill, Handle, Key, Lease, Object, Put, Use,
};
use crate::cache::{Purge, Query, Representation};
use crate::http::Fields;
use crate::io::Io;
use crate::time::{Instant, WallTime};

impl<I: Io> Caching<I> {
    /// Reads the mail. False when some is left for the next turn.
    pub(in crate::worker) fn take_mail(&self, now: Instant, wall: WallTime) -> bool {
        // A core with no traffic of its own shows only here that it lives.
        self.cores[self.core].beat(now);
        // Whoever rang may have done so for a body.
        self.waits.borrow_mut().wake_readers();
        for parcel in self.inbox.try_iter().take(PARCELS_PER_TURN) {
            match parcel {
                Parcel::Ask(question) => self.answer(&question, now, wall),
                Parcel::Answered { ticket, answer, sighting } => {
                    self.take_answer(ticket, answer, sighting);
                }
                Parcel::Released(ticket) => {
                    self.waits.borrow_mut().tell(ticket, News::Released);
                }
                Parcel::Open(lease, object) => {
                    self.store.borrow_mut().open(lease, object);
                    self.tell_released();
                }
                Parcel::End(lease, end) => self.end_here(lease, end),
                // A purge by name may have come between.
                Parcel::Put(object, purges) if purges == self.generations.purges() => {
                    self.store.borrow_mut().put(object);
                    self.tell_released();
                }
                Parcel::Put(object, _) => object.give_up(),
                Parcel::Pause(hash, until) => self.store.borrow_mut().pause(hash, until),
                Parcel::Forget(hash, key) => self.forget_here(hash, &key),
                Parcel::Touched(hash) => self.store.borrow_mut().touch(hash),
                Parcel::Purge(purge, count) => self.purge(&purge, &count),
            }
        }
        self.inbox.is_empty()
    }

    /// Puts a response where its home is, in exchange for the lease if there is one. At home the fill's name comes back.
    /// Without one it is not put after a purge by name since `purges`.
    pub(super) fn place(
        &self,
        lease: Option<Lease>,
        object: &Handle<Representation>,
        purges: u64,
    ) -> Placed {
        let hash = object.terms().hash;
        if lease.is_none() && purges != self.generations.purges() {
            return Placed::Refused;
        }
        self.marks.borrow_mut().unmark(hash);
        if !self.is_home(hash) {
            let object = object.clone();
            let parcel = lease.map_or_else(
                || Parcel::Put(object.clone(), purges),
                |lease| Parcel::Open(lease, object.clone()),
            );
            self.cores[self.home_of(hash)].send(parcel);
            return Placed::Away;
        }
        let put = match lease {
            Some(lease) => self.store.borrow_mut().open(lease, object.clone()),
            None => self.store.borrow_mut().put(object.clone()),
        };
        self.tell_released();
        match put {
            Put::Filling(fill) => Placed::Filling(fill),
            Put::Stored => Placed::Stored,
            Put::Refused(_) => Placed::Refused,
        }
    }

    /// Moves a whole body into a file of its own, if it is large enough to be worth a descriptor: the response takes the
    /// place of the one it is a copy of. What does not succeed stays as it is.
    pub(super) fn move_to_file(&self, io: &I, filling: &Filling) {
        let object = &filling.object;
        let published = object.body().published();
        let is_eligible = published.state == BodyState::Complete
            && published.bytes >= FILE_BYTES_MIN
            && object.body().file().is_none()
            && object.is_usable(&self.generations);
        let Some(place) = is_eligible.then(|| self.files.take()).flatten() else { return };
        let Ok(file) = io.set_aside(object.body().slices(0..published.bytes)) else { return };
        let body = Body::in_file(file, published.bytes, place);
        let moved = Object::new(*object.terms(), object.key(), object.policy().clone(), body);
        self.place(None, &moved, filling.purges);
    }

    /// Gives a lease back without a response.
    pub(super) fn end(&self, lease: Lease, end: End) {
        if self.is_home(lease.hash) {
            self.end_here(lease, end);
        } else {
            self.cores[self.home_of(lease.hash)].send(Parcel::End(lease, end));
        }
    }

    /// Until then requests for this hash had better not wait for each other, on any core.
    pub(super) fn pause(&self, hash: u64, until: Instant) {
        if self.is_home(hash) {
            self.store.borrow_mut().pause(hash, until);
        } else {
            self.cores[self.home_of(hash)].send(Parcel::Pause(hash, until));
        }
    }

    /// Nothing of this key may be kept any longer.
    pub(super) fn forget(&self, key: Key<'_>) {
        self.generations.bump(key.hash);
        if self.is_home(key.hash) {
            self.forget_here(key.hash, key.bytes);
        } else {
            self.cores[self.home_of(key.hash)].send(Parcel::Forget(key.hash, key.bytes.into()));
        }
    }

    /// The fill of a key of this core has come to its end.
    pub(super) fn settle(&self, fill: Fill) {
        self.store.borrow_mut().poll(fill);
        self.tell_released();
    }

    /// Tells those whose waiting has ended.
    pub(super) fn tell_released(&self) {
        let mut store = self.store.borrow_mut();
        for waiter in store.take_released() {
            let (core, ticket) = (waiter.core as usize, Ticket(waiter.ticket));
            if core == self.core {
                self.waits.borrow_mut().tell(ticket, News::Released);
            } else {
                self.cores[core].send(Parcel::Released(ticket));
            }
        }
    }

    fn answer(&self, question: &Question, now: Instant, wall: WallTime) {
        let (key, head) = question.text.split_at(question.key_bytes);
        let key = Key { hash: question.hash, bytes: key };
        let mut scratch = self.scratch.borrow_mut();
        let Scratch { selection, head: parsed } = &mut *scratch;
        let none = Fields::default();
        let mut is_parsed = false;
        let mut sighting = Sighting::default();
        let answer =
            self.store.borrow_mut().seek(question.seek, key, question.waiter, now, |object| {
                sighting.has_variants = true;
                let stored = object.policy();
                // What is selected by nothing needs no second look at the request.
                if !is_parsed && !stored.selection().is_empty() {
                    // It was parsed before, on its own core.
                    is_parsed = parsed.parse(head).is_ok();
                }
                let fields = if is_parsed { &parsed.fields } else { &none };
                let mode = self.settings.mode;
                let query = Query { asked: &question.asked, fields, bytes: head, mode, now: wall };
                let used = query.judge(stored, selection);
                sighting.has_match |= used != Use::No;
                used
            });
        drop(scratch);
        self.tell_released();
        let ticket = Ticket(question.waiter.ticket);
        let back = Parcel::Answered { ticket, answer, sighting };
        self.cores[question.waiter.core as usize].send(back);
    }

    fn take_answer(&self, ticket: Ticket, answer: Answer<Representation>, sighting: Sighting) {
        let lease = match &answer {
            Answer::Lease { lease, .. } | Answer::Hit { refill: Some(lease), .. } => Some(*lease),
            _ => None,
        };
        let is_told = self.waits.borrow_mut().tell(ticket, News::Answered(answer, sighting));
        // The client left meanwhile: somebody else fetches.
        if let (false, Some(lease)) = (is_told, lease) {
            self.end(lease, End::Abandoned);
        }
    }

    fn end_here(&self, lease: Lease, end: End) {
        self.store.borrow_mut().end(lease, end);
        self.tell_released();
    }

    fn forget_here(&self, hash: u64, key: &[u8]) {
        self.store.borrow_mut().remove(Key { hash, bytes: key });
        self.tell_released();
    }

    fn purge(&self, purge: &Purge, count: &Sender<usize>) {
        let removed = {
            let mut store = self.store.borrow_mut();
            match purge {
                Purge::Exact(key) => {
                    let hash = self.hasher.hash(key);
                    self.generations.bump(hash);
                    let removed = store.remove(Key { hash, bytes: key });
                    // What a trusted proxy says of the host stands behind the URL, in keys of their own.
                    let behind = self.has_proxies.then(|| [key, b"\n".as_slice()].concat());
                    removed
                        + behind.map_or(0, |prefix| {
                            self.generations.count_purge();
                            store.remove_prefix(&prefix)
                        })
                }
                // What is stored is let go one by one, so that the rest stays in use; what is being fetched under a
                // lease loses it, and what is fetched without one notices the count.
                Purge::Prefix(prefix) => {
                    self.generations.count_purge();
                    store.remove_prefix(prefix)
                }
                Purge::All => {
                    self.generations.bump_all();
                    store.remove_prefix(b"")
                }
            }
        };
        self.tell_released();
        // Whoever asked may have given up.
        let _ = count.send(removed);
    }
}

/// What became of a response that was put where its home is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    /// The home is another core.
    Away,
    Filling(Fill),
    Stored,
    Refused,
}

impl Held {
    pub(super) fn handle(&self) -> &Handle<Representation> {
        match self {
            Self::Own(handle) => handle,
            Self::Kept(kept) => kept,
        }
    }
}

/// Shorter bodies are copied sooner than the kernel finds their pages (see scripts/bench-cache.sh).
const FILE_BYTES_MIN: u64 = 32 * 1024;
/// Parcels read before other tasks of the core have their turn.
const PARCELS_PER_TURN: usize = 1024;
