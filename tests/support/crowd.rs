//! Closed-loop clients that expect trouble: they note what each of them met instead of failing at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::client::Client;

/// Clients at work; dropping it stops them.
pub struct Crowd {
    tally: Arc<Tally>,
    clients: Vec<JoinHandle<Met>>,
}

/// What one client met.
#[derive(Debug, Default, Clone)]
pub struct Met {
    /// Answers by their status.
    pub statuses: BTreeMap<u16, u64>,
    /// Whatever was no whole answer, or a wrong one.
    pub broken: Vec<String>,
    /// The longest wait for a whole answer.
    pub slowest: Duration,
}

#[derive(Default)]
struct Tally {
    is_stopping: AtomicBool,
    answered: AtomicU64,
    by_origin: Mutex<BTreeMap<String, u64>>,
}

impl Crowd {
    /// `clients` clients that ask until stopped.
    pub fn start(address: SocketAddr, clients: usize) -> Self {
        let tally = Arc::new(Tally::default());
        let begin = |_| {
            let tally = Arc::clone(&tally);
            thread::spawn(move || ask_on(address, &tally))
        };
        let clients = (0..clients).map(begin).collect();
        Self { tally, clients }
    }

    /// Whole 200 answers so far.
    pub fn answered(&self) -> u64 {
        self.tally.answered.load(Ordering::Acquire)
    }

    /// Of these, those of one origin.
    pub fn answered_by(&self, origin: &str) -> u64 {
        lock(&self.tally.by_origin).get(origin).copied().unwrap_or(0)
    }

    /// Stops the clients after their current request: what each has met.
    pub fn stop(mut self) -> Vec<Met> {
        self.tally.is_stopping.store(true, Ordering::Release);
        self.clients.drain(..).map(|client| client.join().expect("no panic")).collect()
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.tally.is_stopping.store(true, Ordering::Release);
    }
}

fn ask_on(address: SocketAddr, tally: &Tally) -> Met {
    let mut met = Met::default();
    let mut client = Client::connect(address);
    let mut number = 0_u64;
    while !tally.is_stopping.load(Ordering::Acquire) {
        number += 1;
        let nonce = number.to_string();
        let since = Instant::now();
        let answer = client.ask("GET", "/bytes/100?seed=5", &format!("X-Nonce: {nonce}\r\n"), b"");
        met.slowest = met.slowest.max(since.elapsed());
        let answer = match answer {
            Ok(answer) => answer,
            Err(broken) => {
                met.broken.push(format!("{broken:?}"));
                client = Client::connect(address);
                continue;
            }
        };
        *met.statuses.entry(answer.status()).or_default() += 1;
        if answer.status() == 200 && answer.head.field("x-nonce") == Some(&nonce) {
            *lock(&tally.by_origin).entry(answer.origin().to_owned()).or_default() += 1;
            tally.answered.fetch_add(1, Ordering::AcqRel);
        } else if answer.status() == 200 {
            met.broken.push(format!("the answer to another request: {:?}", answer.head));
        }
        if answer.head.lists("connection", "close") {
            client = Client::connect(address);
        }
    }
    met
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
