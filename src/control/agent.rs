//! Keeps a link to the agent: dial, feed the [`Link`], back off, dial again, for ever.
//!
//! It owns the socket and its waiting, not the protocol ([`Link`]) nor the meaning of a frame. It is polled by the
//! control core's one task, hands out one piece of news at a time, and does a bounded amount of work per poll.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};
use std::time::Duration;

use super::link::{Event, HANDSHAKE_TIMEOUT, Link, LinkError};
use super::names::{LOOKUP_TIMEOUT, Names};
use crate::balance::Backoff;
use crate::config::AgentConfig;
use crate::io::{Interest, Io, Stream, Timer};
use crate::time::Instant;

/// The balancer's side of the agent link.
pub struct Agent<I: Io> {
    io: I,
    config: AgentConfig,
    backoff: Backoff,
    timer: I::Timer,
    stage: Stage<I::Stream>,
}

enum Stage<S> {
    /// Until the next dial. The last connection is kept and drained meanwhile, so that a close frame is read by the
    /// agent before it meets a reset.
    Waiting { until: Instant, lingering: Option<S> },
    /// The name is being looked up.
    Resolving { until: Instant },
    /// Connecting to one address after the other.
    Dialling { link: Box<Link>, stream: S, until: Instant, rest: VecDeque<SocketAddr> },
    /// Connected; the handshake may still be under way.
    Linked { link: Box<Link>, stream: S },
}

/// What the agent's side tells the control core.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// The handshake is done.
    Connected,
    /// A text frame.
    Frame(String),
    /// A binary message, which means nothing here.
    Binary,
    /// The link is down; the next dial comes after a while.
    Lost {
        /// Why.
        error: LinkError,
        /// How long until the next dial.
        retry: Duration,
    },
}

impl<I: Io> Agent<I> {
    /// Dials at the first poll.
    pub fn new(io: I, config: AgentConfig) -> Self {
        let backoff = Backoff::new(config.backoff_min, config.backoff_max);
        let stage = Stage::Waiting { until: io.now(), lingering: None };
        Self { timer: io.timer(), io, config, backoff, stage }
    }

    /// The host to be resolved, unless it is an address.
    pub fn host(&self) -> &str {
        &self.config.host
    }

    /// A good frame came: the next wait is the first one again.
    pub const fn praise(&mut self) {
        self.backoff.reset();
    }

    /// The next piece of news. `names` is asked for the agent's addresses; when those of a name it waits for arrive,
    /// poll again.
    pub fn poll(&mut self, cx: &mut Context<'_>, names: &Names) -> Poll<News> {
        for _ in 0..STEPS_PER_POLL {
            let step = match &mut self.stage {
                Stage::Waiting { .. } => self.wait(cx, names),
                Stage::Resolving { until } => {
                    let until = *until;
                    self.resolve(cx, until, names)
                }
                Stage::Dialling { .. } => self.connect(cx),
                Stage::Linked { .. } => self.relay(cx),
            };
            match step {
                Step::Again => {}
                Step::Tell(news) => return Poll::Ready(news),
                Step::Wait => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn wait(&mut self, cx: &mut Context<'_>, names: &Names) -> Step {
        let Stage::Waiting { until, lingering } = &mut self.stage else { return Step::Again };
        let until = *until;
        if let Some(stream) = lingering
            && !drain(stream, cx)
        {
            *lingering = None;
        }
        if !self.has_passed(cx, until) {
            return Step::Wait;
        }
        match self.addresses(names) {
            Some(addresses) => self.dial(addresses),
            None => {
                self.stage = Stage::Resolving { until: self.io.now() + LOOKUP_TIMEOUT };
                Step::Again
            }
        }
    }

    fn resolve(&mut self, cx: &mut Context<'_>, until: Instant, names: &Names) -> Step {
        match self.addresses(names) {
            Some(addresses) => self.dial(addresses),
            None if names.is_settled(&self.config.host) || self.has_passed(cx, until) => {
                self.lose(LinkError::Unresolved, None)
            }
            None => Step::Wait,
        }
    }

    fn dial(&mut self, addresses: VecDeque<SocketAddr>) -> Step {
        let link = Box::new(Link::new(&self.config, self.io.now()));
        self.try_next(link, addresses, ErrorKind::AddrNotAvailable)
    }

    /// Connects to the next address, with an equal share of the time that is left; `last` is how the one before went.
    fn try_next(
        &mut self,
        link: Box<Link>,
        mut rest: VecDeque<SocketAddr>,
        last: ErrorKind,
    ) -> Step {
        let now = self.io.now();
        let deadline = link.next_deadline().unwrap_or(now + HANDSHAKE_TIMEOUT);
        let mut last = last;
        while let Some(address) = rest.pop_front() {
            let until = now + deadline.since(now) / (rest.len() as u32 + 1);
            match self.io.connect(address) {
                Ok(stream) => {
                    self.stage = Stage::Dialling { link, stream, until, rest };
                    return Step::Again;
                }
                Err(error) => last = error.kind(),
            }
        }
        self.lose(LinkError::Unreachable(last), None)
    }

    fn connect(&mut self, cx: &mut Context<'_>) -> Step {
        let Stage::Dialling { stream, until, .. } = &self.stage else { return Step::Again };
        let until = *until;
        let failed = match stream.poll_ready(cx, Interest::WRITE) {
            Poll::Ready(_) => stream.connected().err().map(|error| error.kind()),
            Poll::Pending if self.has_passed(cx, until) => Some(ErrorKind::TimedOut),
            Poll::Pending => return Step::Wait,
        };
        let waiting = Stage::Waiting { until, lingering: None };
        let Stage::Dialling { link, stream, rest, .. } =
            std::mem::replace(&mut self.stage, waiting)
        else {
            return Step::Again;
        };
        match failed {
            None => {
                self.stage = Stage::Linked { link, stream };
                Step::Again
            }
            Some(kind) => {
                drop(stream);
                self.try_next(link, rest, kind)
            }
        }
    }

    fn relay(&mut self, cx: &mut Context<'_>) -> Step {
        let now = self.io.now();
        let Stage::Linked { link, stream } = &mut self.stage else { return Step::Again };
        let event = link.poll_event();
        send(link, stream, now);
        match event {
            Some(Event::Connected) => return Step::Tell(News::Connected),
            Some(Event::Frame(text)) => return Step::Tell(News::Frame(text)),
            Some(Event::Ignored) => return Step::Tell(News::Binary),
            Some(Event::Closed(error)) => return self.hang_up(error),
            None => {}
        }
        let mut buffer = [0; READ_BYTES];
        match stream.recv(&mut buffer) {
            Ok(0) => link.receive_end(Ok(()), now),
            Ok(n) => link.receive(&buffer[..n], now),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let interest =
                    if link.output().is_empty() { Interest::READ } else { Interest::BOTH };
                if stream.poll_ready(cx, interest).is_ready() {
                    return Step::Again;
                }
                self.timer.set(link.next_deadline());
                if self.timer.poll_expired(cx).is_pending() {
                    return Step::Wait;
                }
                link.handle_timeout(now);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => link.receive_end(Err(error), now),
        }
        Step::Again
    }

    /// Ends the connection in order: what is still to be said, then our direction.
    fn hang_up(&mut self, error: LinkError) -> Step {
        let waiting = Stage::Waiting { until: self.io.now(), lingering: None };
        match std::mem::replace(&mut self.stage, waiting) {
            Stage::Linked { stream, .. } => {
                stream.finish();
                self.lose(error, Some(stream))
            }
            _ => self.lose(error, None),
        }
    }

    fn lose(&mut self, error: LinkError, lingering: Option<I::Stream>) -> Step {
        let retry = self.backoff.next_wait(self.io.draw());
        self.stage = Stage::Waiting { until: self.io.now() + retry, lingering };
        Step::Tell(News::Lost { error, retry })
    }

    /// Where the agent is, as far as is known.
    fn addresses(&self, names: &Names) -> Option<VecDeque<SocketAddr>> {
        let literal = self.config.host.parse::<IpAddr>().ok();
        let known = names.known(&self.config.host);
        let with_port = |&ip: &IpAddr| SocketAddr::new(ip, self.config.port);
        let addresses: VecDeque<SocketAddr> =
            literal.as_ref().map_or(known, std::slice::from_ref).iter().map(with_port).collect();
        (!addresses.is_empty()).then_some(addresses)
    }

    fn has_passed(&self, cx: &mut Context<'_>, until: Instant) -> bool {
        if self.io.now() >= until {
            return true;
        }
        self.timer.set(Some(until));
        self.timer.poll_expired(cx).is_ready()
    }
}

/// What a step of the machine came to.
enum Step {
    Again,
    Tell(News),
    /// Everything it waits for will wake the task.
    Wait,
}

/// Sends what the link has to say, as far as the socket takes it. An error shows at the next read.
fn send(link: &mut Link, stream: &impl Stream, now: Instant) {
    while !link.output().is_empty() {
        match stream.send(&[IoSlice::new(link.output())]) {
            Ok(n) => link.sent(n, now),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Reads and drops; `false` at the end of the stream.
fn drain(stream: &impl Stream, cx: &mut Context<'_>) -> bool {
    let mut buffer = [0; READ_BYTES];
    for _ in 0..STEPS_PER_POLL {
        match stream.recv(&mut buffer) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                match stream.poll_ready(cx, Interest::READ) {
                    Poll::Pending => return true,
                    Poll::Ready(status) if status.is_reset => return false,
                    Poll::Ready(_) => {}
                }
            }
            Err(_) => return false,
        }
    }
    cx.waker().wake_by_ref();
    true
}

const READ_BYTES: usize = 16 * 1024;
/// Reads of [`READ_BYTES`] and the like before the other parts of the control core get their turn.
const STEPS_PER_POLL: usize = 16;
