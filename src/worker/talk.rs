//! One try of a request on one connection: the request goes up while the answer comes down.
//!
//! Both directions move in one loop and neither waits for the other: an early answer is delivered at once and does not
//! stop the upload, a slow reader holds its own side only. Every turn of the loop moves what can be moved, then waits for
//! whatever the two directions lack, under the deadline that belongs to it:
//!
//! | who is silent | while | limit | outcome |
//! |---|---|---|---|
//! | client | it owes body bytes | `timeouts.body` | 408, or the end if the answer has begun |
//! | client | it takes nothing of its answer | `timeouts.write`, a quarter more to be sure | the end |
//! | backend | it owes a head, body bytes, or does not read | `timeouts.request` (half of it on trial) | 504, or a cut |
//!
//! Each clock runs only while its side is the one that is waited for, and begins anew with every move of that side and
//! whenever the wait for it begins. The backend's stands still while the client is sending, and a head that drips does
//! not restart it; a complete one does. A client that waits for a 100 owes nothing: the backend does.

use std::io::ErrorKind;
use std::time::Duration;

use super::caching::{Errand, Reception, Stock};
use super::client::{Client, Next};
use super::desk::Desk;
use super::dial::Upstream;
use super::fault::{Cause, Fault, Gone, Phase};
use super::relay::Pump;
use super::seat::Seat;
use super::shard::Shard;
use super::wait;
use crate::http::{
    BadResponse, Framing, Reject, RequestPlan, ResponseForward, ResponsePlan, Version, forward,
    framing,
};
use crate::io::{Interest, Io, Stream};
use crate::time::Instant;

/// How one try ended.
pub(super) enum Outcome {
    /// The client has its answer, whole.
    Delivered {
        /// The backend connection can carry another request.
        is_reusable: bool,
        /// What becomes of the client's.
        next: Next,
    },
    /// The answer was a 101, and it is delivered.
    Upgraded,
    /// The client gets a stored response instead; nothing was answered yet.
    Stored {
        /// What it gets.
        stock: Stock,
        /// The backend connection can carry another request.
        is_reusable: bool,
    },
    /// The client gets of the response what it needs from the store, which the body, framed so, is to fill.
    Followed {
        /// What it gets.
        stock: Stock,
        /// The body's framing.
        framing: Framing,
    },
    /// The client reads more slowly than the backend sends; it gets the rest from the store.
    Detached {
        /// What becomes of its connection then.
        next: Next,
    },
    /// The answer is of no use; the backend is to be asked again.
    Again {
        /// The backend connection can carry another request.
        is_reusable: bool,
    },
    /// The request turned out to be wrong; nothing was answered yet.
    Refused(Reject),
    /// The client left or fell silent.
    ClientGone(Gone),
    /// The backend failed before it answered.
    Failed {
        /// How.
        fault: Fault,
        /// Whether any byte of a response had come.
        has_answered: bool,
    },
    /// The backend failed in the middle of its answer.
    Cut {
        /// How.
        fault: Fault,
        /// Whether the client can tell the answer is short when the connection just ends.
        is_end_marked: bool,
    },
}

/// What a direction lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lack {
    Nothing,
    Source,
    Sink,
    Turn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upload {
    Open,
    Sent,
    /// The backend takes no more of it.
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    Awaited,
    Relaying,
    Delivered,
}

struct Talk<'a, I: Io> {
    shard: &'a Shard<I>,
    client: &'a I::Stream,
    upstream: &'a I::Stream,
    seat: &'a Seat<I>,
    /// The silence we bear before the head of the answer.
    patience: Duration,
    plan: &'a RequestPlan,
    errand: &'a mut Errand<I>,
    upload: Upload,
    reply: Reply,
    response: ResponsePlan,
    keeps_client: bool,
    /// Whether a byte of a response has come.
    has_heard: bool,
    interims: u32,
    /// Whether an interim response has shown that the backend's connection cannot go on.
    is_poisoned: bool,
    /// Whether a whole response head has come since the last turn.
    has_head_come: bool,
    /// Whether the client was told to go on with its body.
    has_gone_ahead: bool,
    /// Whether the answer came while the client held its body back.
    is_body_withheld: bool,
    /// For body bytes of the client, for its taking of the answer, for anything the backend owes us.
    body_clock: Clock,
    write_clock: Clock,
    taker: wait::Taker,
    backend_clock: Clock,
}

/// Since when somebody has been waited for.
#[derive(Clone, Copy, Debug, Default)]
struct Clock(Option<Instant>);

impl Clock {
    fn run(&mut self, is_awaited: bool, has_moved: bool, now: Instant) {
        self.0 = match self.0 {
            _ if !is_awaited => None,
            Some(since) if !has_moved => Some(since),
            _ => Some(now),
        };
    }

    fn by(self, limit: Duration) -> Option<Instant> {
        self.0.map(|since| since + limit)
    }
}

/// Sends the request staged in `desk.up` on `upstream` and relays the answer.
pub(super) async fn converse<I: Io>(
    shard: &Shard<I>,
    client: &Client<I>,
    desk: &mut Desk,
    plan: &RequestPlan,
    upstream: &Upstream<I>,
    errand: &mut Errand<I>,
) -> Outcome {
    let mut talk = Talk {
        errand,
        shard,
        client: &client.stream,
        upstream: &upstream.stream,
        seat: &upstream.seat,
        patience: upstream.patience,
        plan,
        upload: Upload::Open,
        reply: Reply::Awaited,
        response: ResponsePlan::default(),
        keeps_client: false,
        has_heard: false,
        interims: 0,
        is_poisoned: false,
        has_head_come: false,
        has_gone_ahead: false,
        is_body_withheld: false,
        body_clock: Clock::default(),
        write_clock: Clock::default(),
        taker: wait::Taker::default(),
        backend_clock: Clock::default(),
    };
    desk.outbound.clear();
    desk.scan.reset();
    desk.down.begin(Framing::None, false, false);
    let outcome = loop {
        if let Err(outcome) = talk.turn(desk).await {
            break outcome;
        }
    };
    let is_sent = talk.upload == Upload::Sent;
    talk.errand.note_upload(is_sent);
    client.stream.set_deadline(None);
    upstream.stream.set_deadline(None);
    match outcome {
        // Half an interim response is with the client; an answer of ours would be read as its rest.
        Outcome::Refused(_) if desk.down.is_torn() => Outcome::ClientGone(Gone::Left),
        Outcome::Failed { fault, .. } if desk.down.is_torn() => {
            Outcome::Cut { fault, is_end_marked: true }
        }
        outcome => outcome,
    }
}

impl<I: Io> Talk<'_, I> {
    /// Moves what can be moved, then waits. `Err` is the end, good or bad.
    async fn turn(&mut self, desk: &mut Desk) -> Result<(), Outcome> {
        let (sent, took) = (desk.up.bytes_in(), desk.down.bytes_out());
        let (read, got) = (desk.up.bytes_out(), desk.down.bytes_in());
        let up = self.upload(desk)?;
        let down = self.download(desk)?;
        let now = self.shard.now();
        let awaits_body = up == Lack::Source && !self.awaits_go_ahead(desk);
        let awaits_taker = down == Lack::Sink;
        let has_backend_moved = desk.up.bytes_out() != read
            || desk.down.bytes_in() != got
            || std::mem::take(&mut self.has_head_come);
        self.body_clock.run(awaits_body, desk.up.bytes_in() != sent, now);
        self.write_clock.run(awaits_taker, desk.down.bytes_out() != took, now);
        self.backend_clock.run(!awaits_body && !awaits_taker, has_backend_moved, now);
        if self.reply == Reply::Delivered {
            self.end_if_over(desk)?;
        }
        if up == Lack::Turn || down == Lack::Turn {
            wait::for_a_turn().await;
            return Ok(());
        }
        self.wait(desk, up, down).await
    }

    /// Whether the client holds its body back until it is told to go on (RFC 9110 §10.1.1).
    fn awaits_go_ahead(&self, desk: &Desk) -> bool {
        self.plan.expects_continue
            && !self.has_gone_ahead
            && self.reply == Reply::Awaited
            && desk.up.bytes_in() == 0
    }

    /// The answer is delivered; is there anything left to do for the request?
    fn end_if_over(&self, desk: &Desk) -> Result<(), Outcome> {
        // An announced close is none yet: the backend may read to the end of the request. One that has ended, or says
        // more than it was asked, does not.
        let ends_upstream = self.upload == Upload::Open && !self.upstream.is_quiet();
        let is_withheld = self.is_body_withheld && desk.up.bytes_in() == 0;
        if self.upload == Upload::Open && !ends_upstream && !is_withheld {
            return Ok(());
        }
        let is_sent = self.upload == Upload::Sent;
        Err(Outcome::Delivered {
            is_reusable: is_sent && self.response.keep_alive && desk.outbound.is_empty(),
            next: match (is_sent, self.keeps_client) {
                (true, true) => Next::Request,
                (true, false) => Next::Close,
                (false, _) => Next::Linger,
            },
        })
    }

    fn upload(&mut self, desk: &mut Desk) -> Result<Lack, Outcome> {
        if self.upload != Upload::Open {
            return Ok(Lack::Nothing);
        }
        let pump = desk.up.pump(self.client, &mut desk.inbound, self.upstream);
        match pump {
            Pump::Done => {
                self.upload = Upload::Sent;
                self.seat.sent();
                Ok(Lack::Nothing)
            }
            Pump::AwaitsSource => Ok(Lack::Source),
            Pump::AwaitsSink => Ok(Lack::Sink),
            Pump::Yields => Ok(Lack::Turn),
            Pump::SourceShort => Err(self.refused(Reject::IncompleteBody)),
            Pump::SourceFailed => Err(Outcome::ClientGone(Gone::Left)),
            Pump::Malformed(fault) => Err(self.refused(fault.into())),
            Pump::TooLarge => Err(self.refused(Reject::BodyTooLarge)),
            // It may have answered before it stopped reading: 413 and then a close is the usual case.
            Pump::SinkFailed => {
                self.upload = Upload::Broken;
                Ok(Lack::Nothing)
            }
        }
    }

    /// The request is wrong in its body: said so if the answer has not begun, else there is only the end.
    fn refused(&self, reject: Reject) -> Outcome {
        match self.reply {
            Reply::Awaited => Outcome::Refused(reject),
            Reply::Relaying => Outcome::ClientGone(Gone::Left),
            Reply::Delivered => Outcome::Delivered { is_reusable: false, next: Next::Linger },
        }
    }

    fn download(&mut self, desk: &mut Desk) -> Result<Lack, Outcome> {
        while self.reply == Reply::Awaited {
            if let Some(lack) = self.await_head(desk)? {
                return Ok(lack);
            }
        }
        if self.reply == Reply::Delivered {
            return Ok(Lack::Nothing);
        }
        let was_teeing = desk.down.is_teeing();
        let pump = desk.down.pump(self.upstream, &mut desk.outbound, self.client);
        if was_teeing {
            self.errand.advance(desk.down.is_ended());
            if !desk.down.is_teeing() && !desk.down.is_ended() {
                self.errand.note_overflow();
            }
        }
        match pump {
            Pump::Done if self.response.framing == Framing::Tunnel => Err(Outcome::Upgraded),
            Pump::Done => {
                if !desk.down.marks_its_end() {
                    self.client.settle();
                }
                self.reply = Reply::Delivered;
                Ok(Lack::Nothing)
            }
            Pump::AwaitsSource => Ok(Lack::Source),
            // Others may wait for the body, and the backend can be done with it sooner.
            Pump::AwaitsSink
                if desk.down.is_teeing()
                    && self.upload == Upload::Sent
                    && self.errand.is_followed() =>
            {
                let next = if self.keeps_client { Next::Request } else { Next::Close };
                Err(Outcome::Detached { next })
            }
            Pump::AwaitsSink => Ok(Lack::Sink),
            Pump::Yields => Ok(Lack::Turn),
            // An answer has no limit.
            Pump::SourceShort | Pump::TooLarge => Err(self.cut(desk, Cause::Closed)),
            Pump::SourceFailed => Err(self.cut(desk, Cause::Reset)),
            Pump::Malformed(fault) => Err(self.cut(desk, Cause::Malformed(fault.into()))),
            Pump::SinkFailed => Err(Outcome::ClientGone(Gone::Left)),
        }
    }

    /// Reads towards the next response head. `None` when there was one.
    fn await_head(&mut self, desk: &mut Desk) -> Result<Option<Lack>, Outcome> {
        // Interim responses leave before the next head is looked at: that bounds what we hold.
        match desk.down.flush(&desk.outbound, self.client) {
            Pump::Done => desk.down.written_off(),
            Pump::AwaitsSink => return Ok(Some(Lack::Sink)),
            _ => return Err(Outcome::ClientGone(Gone::Left)),
        }
        let limits = &self.shard.config.head;
        match desk.scan.scan_response(desk.outbound.unread(), limits) {
            Ok(Some(length)) => {
                desk.outbound.hold(length);
                desk.scan.reset();
                self.take_head(desk)?;
                return Ok(None);
            }
            Ok(None) => {}
            Err(bad) => return Err(self.failed(Cause::Malformed(bad))),
        }
        match self.upstream.recv(desk.outbound.spare()) {
            Ok(0) => Err(self.failed(Cause::Closed)),
            Ok(n) => {
                self.has_heard = true;
                desk.outbound.filled(n);
                Ok(None)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Some(Lack::Source)),
            Err(_) => Err(self.failed(Cause::Reset)),
        }
    }

    /// A response head is held: relay it, in our words.
    fn take_head(&mut self, desk: &mut Desk) -> Result<(), Outcome> {
        let held = desk.outbound.held();
        let parsed = desk.response.parse(held).and_then(|()| {
            framing::of_response(&desk.response, held, desk.request.method, self.plan.upgrade)
        });
        let response = match parsed {
            Ok(response) => response,
            Err(bad) => return Err(self.failed(Cause::Malformed(bad))),
        };
        self.has_head_come = true;
        let speaks_11 = desk.request.version == Version::Http11;
        if response.is_interim {
            self.interims += 1;
            if self.interims > INTERIMS_MAX {
                return Err(self.failed(Cause::Malformed(BadResponse::TooManyInterims)));
            }
            self.has_gone_ahead |= desk.response.status == 100;
            // A complete head without keep-alive settles it for the connection.
            self.is_poisoned |= !response.keep_alive;
            if speaks_11 {
                forward::interim_head(desk.down.lead(), &desk.response, held);
            }
            desk.outbound.release();
            return Ok(());
        }
        self.is_body_withheld = self.awaits_go_ahead(desk);
        self.response = response;
        self.response.keep_alive &= !self.is_poisoned;
        desk.record.head(desk.response.status, self.shard.now());
        self.seat.heard();
        match self.errand.receive(desk, &self.response) {
            Reception::Relay => {}
            Reception::Serve(stock) => {
                return Err(Outcome::Stored { stock, is_reusable: self.is_spent(desk) });
            }
            Reception::Follow(stock) => {
                let framing = self.response.framing;
                return Err(Outcome::Followed { stock, framing });
            }
            Reception::Again => {
                return Err(Outcome::Again { is_reusable: self.is_spent(desk) });
            }
        }
        self.reply = Reply::Relaying;
        self.stage_response(desk, speaks_11)
    }

    /// Whether nothing of the request or of its answer is left on the backend's connection.
    fn is_spent(&self, desk: &Desk) -> bool {
        self.upload == Upload::Sent
            && self.response.keep_alive
            && self.response.framing.is_empty()
            && desk.outbound.is_empty()
    }

    fn stage_response(&mut self, desk: &mut Desk, speaks_11: bool) -> Result<(), Outcome> {
        let source = self.response.framing;
        let is_chunked = speaks_11 && matches!(source, Framing::Chunked | Framing::UntilClose);
        let is_close_delimited =
            !speaks_11 && matches!(source, Framing::Chunked | Framing::UntilClose);
        let can_finish_upload = match self.upload {
            Upload::Sent => true,
            // Nobody could tell whether the next bytes are the body after all, or another request.
            Upload::Open => self.response.keep_alive && !self.is_body_withheld,
            Upload::Broken => false,
        };
        self.keeps_client = self.plan.keep_alive
            && can_finish_upload
            && !is_close_delimited
            && !self.shard.is_draining.get();
        let to_client = match source {
            _ if is_chunked => Framing::Chunked,
            _ if is_close_delimited => Framing::UntilClose,
            other => other,
        };
        let body = if source == Framing::Tunnel { Framing::None } else { source };
        desk.down.begin(body, is_chunked, self.plan.accepts_trailers);
        if let Some(writer) = self.errand.take_writer() {
            desk.down.tee(writer);
        }
        if is_close_delimited {
            // Whatever ends us before the body has ended (a deadline, a stop, a panic) must not look like its end.
            self.client.abort();
        }
        let words = ResponseForward {
            framing: to_client,
            declared_length: self.response.declared_length,
            close: !self.keeps_client,
            keep_alive_10: self.keeps_client && !speaks_11,
            accepts_trailers: self.plan.accepts_trailers,
            date: &self.shard.date(),
        };
        let (head, extra) = (desk.outbound.held(), &desk.papers.extra);
        forward::response_head_saying(desk.down.lead(), &desk.response, head, &words, extra);
        desk.record.head_out = desk.down.lead().len() as u64;
        desk.down.drop_listed_trailers(&desk.response.fields, desk.outbound.held());
        desk.outbound.release();
        if !desk.down.is_ended() && !desk.outbound.is_empty() {
            // What came with the head leaves with it.
            if let Err(fault) = desk.down.decode(&mut desk.outbound) {
                return Err(self.failed(Cause::Malformed(fault.into())));
            }
        }
        Ok(())
    }

    fn failed(&self, cause: Cause) -> Outcome {
        Outcome::Failed { fault: Fault::new(Phase::Head, cause), has_answered: self.has_heard }
    }

    fn cut(&self, desk: &Desk, cause: Cause) -> Outcome {
        Outcome::Cut {
            fault: Fault::new(Phase::Body, cause),
            is_end_marked: desk.down.marks_its_end(),
        }
    }

    /// Waits for what the directions lack, under the deadlines that belong to it.
    async fn wait(&mut self, desk: &Desk, up: Lack, down: Lack) -> Result<(), Outcome> {
        let of_client = Interest { read: up == Lack::Source, write: down == Lack::Sink };
        // After an early answer the backend has nothing more to say, but it may end.
        let is_delivered = self.reply == Reply::Delivered;
        let of_upstream =
            Interest { read: down == Lack::Source || is_delivered, write: up == Lack::Sink };
        let timeouts = self.shard.config.timeouts;
        let read_by = self.body_clock.by(timeouts.body);
        let write_by = self.write_clock.by(timeouts.write);
        let client_by = match (read_by, write_by) {
            (Some(read_by), Some(write_by)) => Some(read_by.min(write_by)),
            (one, other) => one.or(other),
        };
        self.client.set_deadline(client_by);
        // A client that holds the backend may get company, which it must not hold as well.
        // (One that was reset would end each wait at once.)
        let looks_again = down == Lack::Sink
            && desk.down.is_teeing()
            && self.errand.may_be_followed()
            && !self.upstream.status().is_reset;
        let patience = if self.reply == Reply::Awaited { self.patience } else { timeouts.request };
        self.upstream.set_deadline(match looks_again {
            true => Some(self.shard.now() + COMPANY),
            false => self.backend_clock.by(patience),
        });
        // With nothing wanted of the backend, its reset has nothing to tell yet: what it sent before is to be read first.
        let watched = (of_upstream != Interest::NONE || looks_again).then_some(of_upstream);
        let (client, upstream) = wait::either(self.client, of_client, self.upstream, watched).await;
        if client.is_reset {
            return Err(Outcome::ClientGone(Gone::Left));
        }
        if client.is_expired {
            let now = self.shard.now();
            if write_by.is_none_or(|by| by > now) {
                return Err(self.refused(Reject::BodyTimeout));
            }
            let Some(more) = self.taker.more_time(self.client, timeouts.write) else {
                return Err(Outcome::ClientGone(Gone::Slow));
            };
            self.write_clock = Clock(Some(now + more - timeouts.write));
        }
        if upstream.is_expired && !looks_again {
            return Err(match self.reply {
                Reply::Awaited => self.failed(Cause::Timeout),
                Reply::Relaying => self.cut(desk, Cause::Timeout),
                Reply::Delivered => Outcome::Delivered { is_reusable: false, next: Next::Linger },
            });
        }
        Ok(())
    }
}

/// How often a client that holds up a body looks whether others want it.
const COMPANY: Duration = Duration::from_millis(200);
/// Interim responses to one request; a backend that sends more is not going to answer.
pub(super) const INTERIMS_MAX: u32 = 64;
