//! Waking a core from another thread, without a syscall while it is awake.
//!
//! The protocol, in one place. The sender puts its message where the core will look, then rings ([`super::Bell::ring`]): it marks the
//! alarm *pending*, passes a sequentially consistent fence, and writes to the eventfd only if the core says it is
//! *asleep*. The core, before it blocks, says it is asleep, passes the same fence, and looks at *pending* once more. One of
//! the two therefore always sees the other; a ring is never lost. The eventfd is edge-triggered and never read.

use std::io::Result;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use super::socket;

/// Rings one core. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bell(Arc<Alarm>);

#[derive(Debug)]
struct Alarm {
    descriptor: OwnedFd,
    is_pending: AtomicBool,
    is_asleep: AtomicBool,
}

impl super::Bell for Bell {
    fn ring(&self) {
        self.0.is_pending.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.0.is_asleep.load(Ordering::Relaxed)
            && self.0.is_asleep.swap(false, Ordering::Relaxed)
        {
            socket::event_write(self.0.descriptor.as_fd());
        }
    }
}

impl Bell {
    /// A bell for a core that is yet to start.
    ///
    /// # Errors
    /// When the kernel gives no eventfd (descriptors exhausted).
    pub fn new() -> Result<Self> {
        Ok(Self(Arc::new(Alarm {
            descriptor: socket::event_fd()?,
            is_pending: AtomicBool::new(false),
            is_asleep: AtomicBool::new(false),
        })))
    }

    /// What the core's epoll watches.
    pub(super) fn descriptor(&self) -> &OwnedFd {
        &self.0.descriptor
    }

    /// The core is about to block. False when a ring came first: then it must not.
    pub(super) fn fall_asleep(&self) -> bool {
        self.0.is_asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.0.is_pending.load(Ordering::Relaxed) {
            self.0.is_asleep.store(false, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// The core runs again.
    pub(super) fn wake_up(&self) {
        self.0.is_asleep.store(false, Ordering::Relaxed);
    }

    /// Whether somebody rang since the last call. Acquire: the message is visible to whoever is told so.
    pub(super) fn take_ring(&self) -> bool {
        self.0.is_pending.load(Ordering::Relaxed)
            && self.0.is_pending.swap(false, Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Bell as _;
    use super::*;
    use std::time::Duration;

    /// A lost ring would leave the sleeper blocked: the wait below would then time out.
    #[test]
    fn no_ring_is_lost_between_a_thousand_sleeps_and_rings() {
        let bell = Bell::new().unwrap();
        let (to_sleeper, inbox) = crossbeam_channel::unbounded::<u32>();
        let (done, acknowledged) = crossbeam_channel::bounded::<u32>(1);
        let sleeper = std::thread::spawn({
            let bell = bell.clone();
            move || {
                let mut epoll = socket::Epoll::new(4).unwrap();
                epoll.add(bell.descriptor(), (libc::EPOLLIN | libc::EPOLLET) as u32, 1).unwrap();
                let mut last = 0;
                while last < ROUNDS {
                    if bell.fall_asleep() {
                        let woken = epoll.wait(10_000).count();
                        bell.wake_up();
                        assert_eq!(woken, 1, "slept through a ring after message {last}");
                    }
                    if bell.take_ring() {
                        for n in inbox.try_iter() {
                            last = n;
                            done.send(n).unwrap();
                        }
                    }
                }
            }
        });
        for n in 1..=ROUNDS {
            to_sleeper.send(n).unwrap();
            bell.ring();
            assert_eq!(acknowledged.recv_timeout(Duration::from_secs(20)), Ok(n));
        }
        sleeper.join().unwrap();
    }

    const ROUNDS: u32 = 20_000;
}
