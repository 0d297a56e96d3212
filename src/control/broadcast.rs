//! A snapshot on its way to one worker: a place for exactly one, in which a newer one replaces an older one.
//!
//! The crossing belongs to the control core. It never waits for a worker, however slow that is, and a worker that
//! wakes late finds the newest snapshot and none of those between.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::balance::Snapshot;
use crate::io::Bell;

/// The control core's end.
#[derive(Debug)]
pub struct Subscriber<B> {
    sender: Sender<Arc<Snapshot>>,
    /// The worker's end once more, to take back what it has not yet taken.
    stale: Receiver<Arc<Snapshot>>,
    bell: B,
}

impl<B: Bell> Subscriber<B> {
    /// A worker that is woken by `bell`, and its end of the channel.
    pub fn new(bell: B) -> (Self, Receiver<Arc<Snapshot>>) {
        let (sender, receiver) = bounded(1);
        (Self { sender, stale: receiver.clone(), bell }, receiver)
    }

    /// Leaves `snapshot` for the worker instead of any it has not yet taken, and wakes it.
    pub fn send(&self, snapshot: &Arc<Snapshot>) {
        let mut next = Arc::clone(snapshot);
        // Nobody else sends, so whoever empties the place, the second try finds it empty.
        while let Err(TrySendError::Full(back)) = self.sender.try_send(next) {
            let _ = self.stale.try_recv();
            next = back;
        }
        self.bell.ring();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[derive(Clone, Default)]
    struct Rings(Arc<AtomicU32>);

    impl Bell for Rings {
        fn ring(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn snapshot(epoch: u64) -> Arc<Snapshot> {
        Arc::new(Snapshot { epoch, ..Snapshot::empty() })
    }

    #[test]
    fn the_newest_wins_and_nobody_waits() {
        let rings = Rings::default();
        let (subscriber, worker) = Subscriber::new(rings.clone());
        (1..=1000).for_each(|epoch| subscriber.send(&snapshot(epoch)));
        assert_eq!(worker.try_recv().unwrap().epoch, 1000);
        assert!(worker.try_recv().is_err());
        subscriber.send(&snapshot(1001));
        assert_eq!(worker.try_recv().unwrap().epoch, 1001);
        assert_eq!(rings.0.load(Ordering::SeqCst), 1001);
    }

    #[test]
    fn a_worker_that_is_gone_holds_nobody_up() {
        let (subscriber, worker) = Subscriber::new(Rings::default());
        drop(worker);
        (1..=3).for_each(|epoch| subscriber.send(&snapshot(epoch)));
    }

    #[test]
    fn a_worker_that_takes_meanwhile_sees_epochs_grow_and_the_last() {
        let (subscriber, worker) = Subscriber::new(Rings::default());
        let taker = std::thread::spawn(move || {
            let mut last = 0;
            while last < 20_000 {
                let epoch = worker.recv().unwrap().epoch;
                assert!(epoch > last);
                last = epoch;
            }
        });
        (1..=20_000).for_each(|epoch| subscriber.send(&snapshot(epoch)));
        taker.join().unwrap();
    }
}
