//! A response on its way into the store, as long as its body is coming: who still wants it, and who must hear of it.

use std::sync::Arc;

use super::Caching;
use crate::cache::Representation;
use crate::cache::store::{Fill, Handle};
use crate::io::Io;

/// A response on its way into the store.
pub(super) struct Filling {
    pub object: Handle<Representation>,
    pub fill: Option<Fill>,
    /// Purges by name before anything was sent.
    pub purges: u64,
    /// The backend's connection can carry another request once the body is through.
    pub is_reusable: bool,
}

impl Filling {
    /// Rings the readers; at the end the home of the key counts what has come.
    pub(super) fn advance<I: Io>(&self, caching: &Caching<I>, io: &I, is_ended: bool) {
        self.object.note_growth(io.now());
        caching.ring_readers(self.object.body());
        if !is_ended {
            return;
        }
        if let Some(fill) = self.fill {
            caching.settle(fill);
        }
        caching.move_to_file(io, self);
    }

    /// Whether anybody but the one who fetches can still want the body: it is stored, a request holds it, or a freshened
    /// response shares it.
    pub(super) fn is_wanted(&self) -> bool {
        !self.object.is_gone() || self.has_readers()
    }

    /// Whether somebody has hold of it besides the store and whoever fetches.
    pub(super) fn has_readers(&self) -> bool {
        let in_store = usize::from(!self.object.is_gone());
        Arc::strong_count(&self.object) > 1 + in_store
            || self.object.body().handles() > WRITER_HANDLES + 1
    }
}

/// A writer has two handles to its body; the object has one.
const WRITER_HANDLES: usize = 2;
