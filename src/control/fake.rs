//! An [`Io`] of memory and a settable clock. Nothing wakes: the test polls.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io::{ErrorKind, IoSlice, Result};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::io::{Bell, Interest, Io, Listener, Status, Stream, Timer};
use crate::time::{Instant, WallTime};

#[derive(Clone, Default)]
pub struct Fake {
    pub now_ms: Rc<Cell<u64>>,
    pub rung: Rings,
    /// Every connection that was begun, in order.
    pub dialled: Rc<RefCell<Vec<(SocketAddr, Wire)>>>,
}

#[derive(Clone, Default)]
pub struct Rings(pub Arc<AtomicBool>);

/// Both ends of a connection.
#[derive(Clone, Default)]
pub struct Wire(pub Rc<RefCell<Ends>>);

#[derive(Default)]
pub struct Ends {
    pub is_connected: bool,
    pub broken: Option<ErrorKind>,
    pub to_us: VecDeque<u8>,
    pub has_ended: bool,
    pub from_us: Vec<u8>,
    pub is_finished: bool,
    pub is_dropped: bool,
}

pub struct FakeStream(Wire);
pub struct FakeListener;
pub struct FakeTimer(Fake, Cell<Option<Instant>>);

impl Io for Fake {
    type Stream = FakeStream;
    type Listener = FakeListener;
    type Timer = FakeTimer;
    type Movable = ();
    type Bell = Rings;

    fn now(&self) -> Instant {
        Instant::from_ns(self.now_ms.get() * 1_000_000)
    }
    fn wall(&self) -> WallTime {
        WallTime::from_ms(self.now_ms.get())
    }
    fn slept(&self) -> Duration {
        Duration::ZERO
    }
    fn draw(&self) -> u64 {
        u64::MAX / 2
    }
    fn spawn(&self, _: impl Future<Output = ()> + 'static) {
        unimplemented!("the control core is one task")
    }
    fn connect(&self, to: SocketAddr) -> Result<FakeStream> {
        let wire = Wire::default();
        self.dialled.borrow_mut().push((to, wire.clone()));
        Ok(FakeStream(wire))
    }
    fn adopt(&self, (): ()) -> Result<FakeStream> {
        Ok(FakeStream(Wire::default()))
    }
    fn is_quiet(&self, (): &()) -> bool {
        true
    }
    fn timer(&self) -> FakeTimer {
        FakeTimer(self.clone(), Cell::new(None))
    }
    fn bell(&self) -> Rings {
        self.rung.clone()
    }
    fn poll_rung(&self, _: &mut Context<'_>) -> Poll<()> {
        if self.rung.0.swap(false, Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
    }
    fn poll_stirred(&self, _: &mut Context<'_>, _: &mut Vec<u64>) -> Poll<()> {
        Poll::Pending
    }
    fn rouse(&self) {}
}

impl Stream for FakeStream {
    type Movable = ();
    fn detach(self) {}
    fn recv(&self, into: &mut [u8]) -> Result<usize> {
        let mut ends = self.0.0.borrow_mut();
        let n = ends.to_us.len().min(into.len());
        if n > 0 {
            into.iter_mut().zip(ends.to_us.drain(..n)).for_each(|(to, byte)| *to = byte);
            return Ok(n);
        }
        match ends.broken {
            Some(kind) => Err(kind.into()),
            None if ends.has_ended => Ok(0),
            None => Err(ErrorKind::WouldBlock.into()),
        }
    }
    fn send(&self, from: &[IoSlice<'_>]) -> Result<usize> {
        let mut ends = self.0.0.borrow_mut();
        from.iter().for_each(|slice| ends.from_us.extend_from_slice(slice));
        Ok(from.iter().map(|slice| slice.len()).sum())
    }
    fn poll_ready(&self, _: &mut Context<'_>, interest: Interest) -> Poll<Status> {
        let ends = self.0.0.borrow();
        let status = Status {
            is_readable: !ends.to_us.is_empty() || ends.has_ended,
            is_writable: ends.is_connected,
            is_reset: ends.broken.is_some(),
            ..Status::default()
        };
        let is_ready = (interest.read && status.is_readable)
            || (interest.write && status.is_writable)
            || status.is_reset;
        if is_ready { Poll::Ready(status) } else { Poll::Pending }
    }
    fn status(&self) -> Status {
        Status::default()
    }
    fn is_quiet(&self) -> bool {
        self.0.0.borrow().to_us.is_empty()
    }
    fn connected(&self) -> Result<()> {
        self.0.0.borrow().broken.map_or(Ok(()), |kind| Err(kind.into()))
    }
    fn finish(&self) {
        self.0.0.borrow_mut().is_finished = true;
    }
    fn abort(&self) {}
    fn settle(&self) {}
    fn set_deadline(&self, _: Option<Instant>) {}
    fn watch(&self, _: Option<u64>) {}
}

impl Drop for FakeStream {
    fn drop(&mut self) {
        self.0.0.borrow_mut().is_dropped = true;
    }
}

impl Listener for FakeListener {
    type Movable = ();
    fn poll_accept(&self, _: &mut Context<'_>) -> Poll<Result<((), SocketAddr)>> {
        Poll::Pending
    }
}

impl Timer for FakeTimer {
    fn set(&self, deadline: Option<Instant>) {
        self.1.set(deadline);
    }
    fn poll_expired(&self, _: &mut Context<'_>) -> Poll<()> {
        match self.1.get() {
            Some(deadline) if deadline <= self.0.now() => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}

impl Bell for Rings {
    fn ring(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
