//! Names to addresses, off every core's loop: a few plain threads that block in the system's resolver.
//!
//! The crossing belongs to the control core: names go out over one channel, answers come back over another and ring
//! its bell. Threads are made when lookups are waiting for one, at most [`ASKED_MAX`], and live as long as the
//! [`Resolver`]; one that is stuck in a lookup ends with the process.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::names::{ASKED_MAX, Finding, Names};
use crate::io::Bell;
use crate::time::Instant;

/// How a name is looked up. It may block for as long as it likes.
pub type Lookup = fn(&str) -> io::Result<Vec<IpAddr>>;

/// The control core's end of name resolution.
pub struct Resolver<B> {
    names: Names,
    lookup: Lookup,
    bell: B,
    /// At most [`ASKED_MAX`] names wait in it, and as many answers in the other.
    questions: (Sender<Arc<str>>, Receiver<Arc<str>>),
    answers: (Sender<Answer>, Receiver<Answer>),
    threads: usize,
}

struct Answer {
    host: Arc<str>,
    addresses: io::Result<Vec<IpAddr>>,
}

/// Asks the system, as the C library is configured: hosts file, search domains, DNS.
pub fn system_lookup(host: &str) -> io::Result<Vec<IpAddr>> {
    Ok((host, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

impl<B: Bell> Resolver<B> {
    /// A resolver that rings `bell` when [`turn`](Self::turn) will find an answer.
    pub fn new(lookup: Lookup, bell: B) -> Self {
        let names = Names::default();
        Self { names, lookup, bell, questions: unbounded(), answers: unbounded(), threads: 0 }
    }

    /// Sets the names to be looked up and kept fresh; addresses need no lookup and are not expected here.
    pub fn want<'a>(&mut self, hosts: impl Iterator<Item = &'a Arc<str>>, now: Instant) {
        let wanted: HashSet<&str> = hosts
            .map(|host| {
                self.names.want(host, now);
                &**host
            })
            .collect();
        self.names.retain(|host| wanted.contains(host));
    }

    /// What is known of the names: the last good answers.
    pub const fn names(&self) -> &Names {
        &self.names
    }

    /// Takes in answers, writes off what is late, begins what is due.
    pub fn turn(&mut self, now: Instant) -> Vec<Finding> {
        let mut findings = Vec::new();
        while let Ok(Answer { host, addresses }) = self.answers.1.try_recv() {
            let addresses = addresses.map_err(|error| error.to_string());
            findings.extend(self.names.answered(&host, addresses, now));
        }
        findings.extend(self.names.handle_timeout(now));
        while let Some(host) = self.names.start(now) {
            // The receiver is in our own hands, so the channel is open.
            let _ = self.questions.0.send(host);
        }
        while self.threads < self.names.asked().min(ASKED_MAX) && self.spawn() {}
        findings
    }

    /// When [`turn`](Self::turn) is next to be called, a ring of the bell aside.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.names.next_deadline()
    }

    /// One more thread; `false` when the system gives none, in which case those we have must do.
    fn spawn(&mut self) -> bool {
        let (lookup, bell) = (self.lookup, self.bell.clone());
        let (questions, answers) = (self.questions.1.clone(), self.answers.0.clone());
        let work = move || {
            while let Ok(host) = questions.recv() {
                let addresses = lookup(&host);
                if answers.send(Answer { host, addresses }).is_err() {
                    return;
                }
                bell.ring();
            }
        };
        let thread = thread::Builder::new().name("resolve".into()).stack_size(STACK_BYTES);
        match thread.spawn(work) {
            Ok(_) => {
                self.threads += 1;
                true
            }
            Err(error) => {
                log::warn!("no thread to resolve names on: {error}");
                false
            }
        }
    }
}

/// The C library's resolver keeps its packets on the stack.
const STACK_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};

    use super::*;

    #[derive(Clone)]
    struct Ring(Sender<()>);

    impl Bell for Ring {
        fn ring(&self) {
            let _ = self.0.send(());
        }
    }

    static GATE: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

    fn lookup(host: &str) -> io::Result<Vec<IpAddr>> {
        match host {
            "mute" => {
                let closed = GATE.0.lock().unwrap();
                let _open = GATE.1.wait_while(closed, |is_open| !*is_open).unwrap();
                Ok(vec![IpAddr::from([10, 0, 0, 9])])
            }
            "bad" => Err(io::Error::other("no such name")),
            _ => Ok(vec![IpAddr::from([10, 0, 0, 1])]),
        }
    }

    fn hosts(names: &[&str]) -> Vec<Arc<str>> {
        names.iter().map(|&name| name.into()).collect()
    }

    #[test]
    fn a_mute_name_holds_up_nobody_and_is_heard_when_it_speaks() {
        let (rings, rung) = unbounded();
        let mut resolver = Resolver::new(lookup, Ring(rings));
        let now = Instant::from_ns(0);
        resolver.want(hosts(&["mute", "a", "bad"]).iter(), now);
        let mut findings = resolver.turn(now);
        while findings.len() < 2 {
            rung.recv().unwrap();
            findings.extend(resolver.turn(now));
        }
        assert_eq!(resolver.names().known("a"), [IpAddr::from([10, 0, 0, 1])]);
        assert!(findings.contains(&Finding::Failing("bad".into(), "no such name".into())));
        assert_eq!(resolver.threads, 3);
        *GATE.0.lock().unwrap() = true;
        GATE.1.notify_all();
        while resolver.names().known("mute").is_empty() {
            rung.recv().unwrap();
            resolver.turn(now);
        }
        resolver.want(hosts(&["a"]).iter(), now);
        assert!(resolver.names().known("mute").is_empty(), "forgotten when nobody wants it");
    }

    #[test]
    fn the_system_resolves_an_address_to_itself() {
        assert_eq!(system_lookup("127.0.0.1").unwrap(), [IpAddr::from([127, 0, 0, 1])]);
        assert!(system_lookup("a b").is_err());
    }
}
