//! One client connection: wait for a request, serve what has come, wait again.
//!
//! While it waits, a connection is its task and its slot in the readiness table. A *burst* (everything from the first
//! byte of a request until nothing more has been read) lives in a recycled box and works at a desk of its own.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::answer;
use super::client::{Client, Next};
use super::desk::Desk;
use super::exchange::exchange;
use super::recycle::Recycler;
use super::shard::Shard;
use super::wait;
use crate::http::Reject;
use crate::io::{Interest, Io, Stream};
use crate::metrics::Count;

/// Where the bursts of a core live. `F` is the future of [`burst`], `M` what makes it.
pub(super) type Bursts<I, F, M> = Recycler<(Rc<Shard<I>>, Client<I>), F, M>;

/// Serves one client until it or we have had enough.
pub(super) async fn serve<I, F, M>(
    shard: Rc<Shard<I>>,
    bursts: Rc<Bursts<I, F, M>>,
    client: Client<I>,
) where
    I: Io,
    F: Future<Output = Option<Client<I>>>,
    M: Fn((Rc<Shard<I>>, Client<I>)) -> F,
{
    let mut next = Some(client);
    while let Some(client) = next {
        if !has_input(&shard, &client.stream).await {
            return;
        }
        next = bursts.run((shard.clone(), client)).await;
    }
}

/// Waits for the next request. False when the connection ends without one: silent for too long, or silent while
/// the process drains, unless another process has taken over: then its client may be about to ask, and gets its answer.
async fn has_input<I: Io>(shard: &Shard<I>, stream: &I::Stream) -> bool {
    if stream.status().is_readable {
        return true;
    }
    stream.set_deadline(Some(shard.now() + shard.config.timeouts.idle));
    let is_begun = Cell::new(false);
    poll_fn(|cx| {
        let status = match stream.poll_ready(cx, Interest::READ) {
            Poll::Ready(status) => status,
            Poll::Pending if shard.closes_silent() => stream.status(),
            Poll::Pending => return Poll::Pending,
        };
        is_begun.set(status.is_readable && !status.is_reset);
        Poll::Ready(())
    })
    .await;
    stream.set_deadline(None);
    is_begun.get()
}

/// Serves requests for as long as there is input; the client comes back when it is only to be waited for.
pub(super) async fn burst<I: Io>(shard: Rc<Shard<I>>, client: Client<I>) -> Option<Client<I>> {
    let mut desk = shard.desk();
    let mut served = 0_u32;
    loop {
        desk.record.begin(shard.now());
        match read_head(&shard, &client.stream, &mut desk).await {
            Heading::Whole => {
                shard.counters.add(Count::Requests, 1);
                desk.record.is_whole = true;
            }
            Heading::Idle => return Some(client),
            Heading::Over => return None,
            Heading::Refused(reject) => {
                let next = answer::refuse(&shard, &client, &mut desk, None, reject).await;
                end(&shard, &client, &mut desk);
                if next == Next::Linger {
                    close(&shard, &client.stream, &mut desk, true).await;
                }
                return None;
            }
        }
        let next = exchange(&shard, &client, &mut desk).await;
        end(&shard, &client, &mut desk);
        desk.inbound.release();
        match next {
            Next::Request => {}
            Next::Close | Next::Linger => {
                close(&shard, &client.stream, &mut desk, next == Next::Linger).await;
                return None;
            }
            Next::Drop => return None,
            Next::Cut => {
                client.stream.abort();
                return None;
            }
        }
        served += 1;
        if served.is_multiple_of(REQUESTS_PER_TURN) {
            wait::for_a_turn().await;
        }
    }
}

/// A request is over, whatever has become of it.
fn end<I: Io>(shard: &Shard<I>, client: &Client<I>, desk: &mut Desk) {
    let sent = desk.down.bytes_out();
    shard.note_sent(&mut desk.record, sent);
    shard.note_end(&desk.record);
    shard.log(client, desk);
}

/// How the search for a request head ended.
enum Heading {
    /// A head was read, is held in the buffer, and parsed.
    Whole,
    /// Nothing of a request has come.
    Idle,
    /// The client ended, broke or abandoned the connection.
    Over,
    /// What came is no request.
    Refused(Reject),
}

async fn read_head<I: Io>(shard: &Shard<I>, stream: &I::Stream, desk: &mut Desk) -> Heading {
    desk.scan.reset();
    let mut is_timed = false;
    let heading = loop {
        match desk.scan.scan(desk.inbound.unread(), &shard.config.head) {
            Ok(Some(length)) => {
                desk.inbound.hold(length);
                break match desk.request.parse(desk.inbound.held()) {
                    Ok(()) => Heading::Whole,
                    Err(reject) => Heading::Refused(reject),
                };
            }
            Ok(None) => {}
            Err(reject) => break Heading::Refused(reject),
        }
        match stream.recv(desk.inbound.spare()) {
            Ok(0) => break Heading::Over,
            Ok(n) => {
                desk.inbound.filled(n);
                shard.counters.add(Count::BytesFromClients, n as u64);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                // The CR alone may be half of that line: its LF must find it.
                if !desk.scan.has_begun() && desk.inbound.unread() != b"\r" {
                    // At most a stray empty line; it has been tolerated.
                    desk.inbound.clear();
                    break Heading::Idle;
                }
                if !is_timed {
                    is_timed = true;
                    stream.set_deadline(Some(shard.now() + shard.config.timeouts.header));
                }
                let status = wait::ready(stream, Interest::READ).await;
                if status.is_expired {
                    break match desk.scan.has_begun() {
                        true => Heading::Refused(Reject::HeadTimeout),
                        false => Heading::Over,
                    };
                }
            }
            Err(_) => break Heading::Over,
        }
    };
    if is_timed {
        stream.set_deadline(None);
    }
    if matches!(heading, Heading::Over) && desk.scan.has_begun() {
        shard.counters.add(Count::ClientsGone, 1);
    }
    heading
}

/// Closes after a complete response. With input left unread, or still to come, a plain close would send a reset, and
/// that may destroy the response on its way (RFC 9112 §9.6): then we end our direction first and read on for a little
/// while. `is_sending`: the client's message had not ended.
async fn close<I: Io>(shard: &Shard<I>, stream: &I::Stream, desk: &mut Desk, is_sending: bool) {
    stream.finish();
    let mut lingers = is_sending || !desk.inbound.is_empty();
    if !lingers && !stream.status().is_readable {
        return;
    }
    stream.set_deadline(Some(shard.now() + LINGER));
    let mut drained = 0;
    while drained < LINGER_BYTES_MAX {
        desk.inbound.clear();
        match stream.recv(desk.inbound.spare()) {
            Ok(0) => return,
            Ok(n) => {
                lingers = true;
                drained += n;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && lingers => {
                let status = wait::ready(stream, Interest::READ).await;
                if status.is_expired || status.is_reset {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

/// Pipelined requests served before other tasks of the core have their turn.
pub(super) const REQUESTS_PER_TURN: u32 = 16;
/// How long we read on after our last byte.
pub(super) const LINGER: Duration = Duration::from_secs(1);
/// How much we read on after our last byte.
pub(super) const LINGER_BYTES_MAX: usize = 256 * 1024;
