//! The ways to wait. Each future is small and borrows what it waits for.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use crate::io::{Interest, Status, Stream};

/// Until something in `interest` may be tried, the stream was reset, or its deadline passed.
pub(super) async fn ready<S: Stream>(stream: &S, interest: Interest) -> Status {
    poll_fn(|cx| stream.poll_ready(cx, interest)).await
}

/// Until either is [`ready`]. `None` does not watch the backend at all, not even for a reset (which is sticky, and would
/// make a wait by somebody who does not act on it return at once for ever).
pub(super) async fn either<S: Stream>(
    client: &S,
    of_client: Interest,
    upstream: &S,
    of_upstream: Option<Interest>,
) -> (Status, Status) {
    poll_fn(|cx| {
        let client_ready = client.poll_ready(cx, of_client).is_ready();
        let upstream_ready =
            of_upstream.is_some_and(|interest| upstream.poll_ready(cx, interest).is_ready());
        if client_ready || upstream_ready {
            Poll::Ready((client.status(), upstream.status()))
        } else {
            Poll::Pending
        }
    })
    .await
}

/// Whether a peer that has let a deadline for writing pass takes anything at all. The kernel wakes us only when a third
/// of its buffer is free, and megabytes may lie there: a slow reader can need minutes for them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taker {
    unacknowledged: Option<u64>,
}

impl Taker {
    /// How long to wait on after a wait of `limit` was in vain; `None` if the peer took nothing since it was asked last.
    /// The first time there is nothing to compare with, so it gets a quarter more.
    pub(super) fn more_time<S: Stream>(&mut self, stream: &S, limit: Duration) -> Option<Duration> {
        let left = stream.unacknowledged()?;
        match self.unacknowledged.replace(left) {
            None => Some(limit / 4),
            Some(before) if left < before => Some(limit),
            Some(_) => None,
        }
    }
}

/// Lets every other task of the core run first.
pub(super) async fn for_a_turn() {
    futures_lite::future::yield_now().await;
}
