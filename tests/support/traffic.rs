//! Plain traffic: closed-loop keep-alive clients that run while something else happens, and count what they saw.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::client::Client;
use super::wait;

/// Clients at work; dropping it stops them.
pub struct Traffic {
    tally: Arc<Tally>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Tally {
    is_stopping: AtomicBool,
    sent: AtomicU64,
    sent_max: u64,
    answered: AtomicU64,
    by_origin: Mutex<BTreeMap<String, u64>>,
    failures: Mutex<Vec<String>>,
}

impl Traffic {
    /// `clients` clients that ask until stopped.
    pub fn start(address: SocketAddr, clients: usize) -> Self {
        Self::up_to(address, clients, u64::MAX)
    }

    /// `clients` clients that ask `requests` times in all; returns once they have.
    pub fn run(address: SocketAddr, clients: usize, requests: u64) -> BTreeMap<String, u64> {
        let mut traffic = Self::up_to(address, clients, requests);
        traffic.join();
        traffic.assert_no_failure();
        traffic.by_origin()
    }

    /// Whole 200 answers so far.
    pub fn answered(&self) -> u64 {
        self.tally.answered.load(Ordering::Acquire)
    }

    /// Waits until that many more answers have come.
    pub fn flows(&self, answers: u64) {
        let goal = self.answered() + answers;
        wait::until("traffic flows", FLOW, || {
            self.answered() >= goal || !self.failures().is_empty()
        });
        self.assert_no_failure();
    }

    /// Answers by origin so far.
    pub fn by_origin(&self) -> BTreeMap<String, u64> {
        lock(&self.tally.by_origin).clone()
    }

    /// Everything that was not a whole 200.
    pub fn failures(&self) -> Vec<String> {
        lock(&self.tally.failures).clone()
    }

    /// Panics when anything failed.
    pub fn assert_no_failure(&self) {
        let failures = self.failures();
        let first = &failures[..failures.len().min(5)];
        assert!(failures.is_empty(), "{} of {} failed: {first:?}", failures.len(), self.answered());
    }

    /// Stops the clients after their current request and panics when anything failed; returns how many were answered.
    pub fn stop(mut self) -> u64 {
        self.tally.is_stopping.store(true, Ordering::Release);
        self.join();
        self.assert_no_failure();
        self.answered()
    }

    fn up_to(address: SocketAddr, clients: usize, sent_max: u64) -> Self {
        let tally = Arc::new(Tally { sent_max, ..Tally::default() });
        let begin = |_| {
            let tally = Arc::clone(&tally);
            thread::spawn(move || ask_on(address, &tally))
        };
        let clients = (0..clients).map(begin).collect();
        Self { tally, clients }
    }

    fn join(&mut self) {
        for client in self.clients.drain(..) {
            client.join().expect("a client does not panic");
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.tally.is_stopping.store(true, Ordering::Release);
    }
}

fn ask_on(address: SocketAddr, tally: &Tally) {
    let mut client = Client::connect(address);
    while !tally.is_stopping.load(Ordering::Acquire) {
        let number = tally.sent.fetch_add(1, Ordering::AcqRel) + 1;
        if number > tally.sent_max {
            return;
        }
        let nonce = number.to_string();
        match client.ask("GET", "/bytes/100?seed=5", &format!("X-Nonce: {nonce}\r\n"), b"") {
            Ok(answer)
                if answer.status() == 200 && answer.head.field("x-nonce") == Some(&nonce) =>
            {
                *lock(&tally.by_origin).entry(answer.origin().to_owned()).or_default() += 1;
                tally.answered.fetch_add(1, Ordering::AcqRel);
                if answer.head.lists("connection", "close") {
                    client = Client::connect(address);
                }
            }
            other => {
                let what = other.map(|answer| format!("{:?} {}", answer.head, answer.text()));
                lock(&tally.failures).push(format!("{what:?}"));
                client = Client::connect(address);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const FLOW: Duration = Duration::from_secs(20);
