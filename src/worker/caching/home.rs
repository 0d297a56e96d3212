//! A key's home at work: it answers what other cores ask, takes back leases, and passes on whose waiting is over.

use crossbeam_channel::Sender;

use super::parcel::{Parcel, Question};
use super::waits::{News, Ticket};
use super::{Caching, Held, Scratch};
use crate::cache::store::{Answer, End, Fill, Handle, Key, Lease, Put};
use crate::cache::{Purge, Query, Representation};
use crate::http::Fields;
use crate::io::Io;
use crate::time::{Instant, WallTime};

impl<I: Io> Caching<I> {
    /// Reads the mail. False when some is left for the next turn.
    pub(in crate::worker) fn take_mail(&self, now: Instant, wall: WallTime) -> bool {
        // Whoever rang may have done so for a body.
        self.waits.borrow_mut().wake_readers();
        for parcel in self.inbox.try_iter().take(PARCELS_PER_TURN) {
            match parcel {
                Parcel::Ask(question) => self.answer(&question, now, wall),
                Parcel::Answered { ticket, answer, has_variants } => {
                    self.take_answer(ticket, answer, has_variants);
                }
                Parcel::Released(ticket) => {
                    self.waits.borrow_mut().tell(ticket, News::Released);
                }
                Parcel::Open(lease, object) => {
                    self.store.borrow_mut().open(lease, object);
                    self.tell_released();
                }
                Parcel::End(lease, end) => self.end_here(lease, end),
                Parcel::Put(object) => {
                    self.store.borrow_mut().put(object);
                    self.tell_released();
                }
                Parcel::Forget(hash, key) => self.forget_here(hash, &key),
                Parcel::Touched(hash) => self.store.borrow_mut().touch(hash),
                Parcel::Purge(purge, count) => self.purge(&purge, &count),
            }
        }
        self.inbox.is_empty()
    }

    /// Puts a response where its home is, in exchange for the lease if there is one. At home the fill's name comes back.
    pub(super) fn place(&self, lease: Option<Lease>, object: &Handle<Representation>) -> Placed {
        let hash = object.terms().hash;
        self.marks.borrow_mut().unmark(hash);
        if !self.is_home(hash) {
            let object = object.clone();
            let parcel = lease.map_or_else(
                || Parcel::Put(object.clone()),
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

    /// Gives a lease back without a response.
    pub(super) fn end(&self, lease: Lease, end: End) {
        if self.is_home(lease.hash) {
            self.end_here(lease, end);
        } else {
            self.cores[self.home_of(lease.hash)].send(Parcel::End(lease, end));
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
        let mut has_variants = false;
        let answer =
            self.store.borrow_mut().seek(question.seek, key, question.waiter, now, |object| {
                has_variants = true;
                let stored = object.policy();
                // What is selected by nothing needs no second look at the request.
                if !is_parsed && !stored.selection().is_empty() {
                    // It was parsed before, on its own core.
                    is_parsed = parsed.parse(head).is_ok();
                }
                let fields = if is_parsed { &parsed.fields } else { &none };
                let mode = self.settings.mode;
                let query = Query { asked: &question.asked, fields, bytes: head, mode, now: wall };
                query.judge(stored, selection)
            });
        drop(scratch);
        self.tell_released();
        let ticket = Ticket(question.waiter.ticket);
        let back = Parcel::Answered { ticket, answer, has_variants };
        self.cores[question.waiter.core as usize].send(back);
    }

    fn take_answer(&self, ticket: Ticket, answer: Answer<Representation>, has_variants: bool) {
        let lease = match &answer {
            Answer::Lease { lease, .. } | Answer::Hit { refill: Some(lease), .. } => Some(*lease),
            _ => None,
        };
        let is_told = self.waits.borrow_mut().tell(ticket, News::Answered(answer, has_variants));
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
                    store.remove(Key { hash, bytes: key })
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

/// Parcels read before other tasks of the core have their turn.
const PARCELS_PER_TURN: usize = 1024;
