//! A cache of a few lines: what an integrator does with the decisions, without a wire.

use balancer::cache::validation::{self, Answer, Freshening};
use balancer::cache::{
    CacheSettings, CacheStatus, Plan, Policy, ServedWith, Storability, StoredHead, Times, Verdict,
    conditional, key, policy, served, stored, vary,
};
use balancer::http::forward::{self, RequestForward};
use balancer::http::{Framing, Method, PeerTrust, RequestHead, RequestPlan};
use balancer::time::WallTime;

use super::{START_MS, date, request, response};

/// What the origin does with a request.
pub enum Origin<'a> {
    /// Answers 304 if the validator of the request is this line, else as said.
    Says { status: u16, fields: &'a str, body: &'a str },
    /// Closes the connection.
    Gone,
}

/// What came of a request.
#[derive(Debug)]
pub struct Outcome {
    /// The head the client got, or what we would say ourselves.
    pub head: String,
    pub body: String,
    /// The head the origin got, if it got one.
    pub forwarded: Option<String>,
    /// A background request was due.
    pub revalidates: bool,
}

impl Outcome {
    pub fn status(&self) -> u16 {
        self.head[9..12].parse().unwrap()
    }

    pub fn value(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

struct Entry {
    key: Vec<u8>,
    selection: Vec<u8>,
    head: Vec<u8>,
    body: String,
    policy: Policy,
}

pub struct Toy {
    pub settings: CacheSettings,
    pub now_ms: u64,
    /// Newest last.
    entries: Vec<Entry>,
}

struct Asked<'a> {
    head: RequestHead,
    plan: RequestPlan,
    bytes: &'a [u8],
    key: Vec<u8>,
}

impl Toy {
    pub fn new(settings: CacheSettings) -> Self {
        Self { settings, now_ms: START_MS, entries: Vec::new() }
    }

    pub fn ask(&mut self, method: &str, target: &str, fields: &str, origin: &Origin) -> Outcome {
        let (head, plan, text) = request(method, target, fields);
        let bytes = text.as_bytes();
        let mut key = Vec::new();
        key::write(&mut key, &head, bytes, PeerTrust::Unknown);
        let asked = Asked { head, plan, bytes, key };
        match Plan::of_request(&asked.head, bytes, &asked.plan, &self.settings) {
            Plan::Bypass(_) => self.fetch(&asked, None, origin, false),
            Plan::Invalidate => self.invalidate(&asked, origin),
            Plan::Lookup(lookup) => {
                let Some(at) = self.find(&asked) else {
                    if lookup.asked.only_if_cached {
                        return own(504);
                    }
                    return self.fetch(&asked, None, origin, lookup.may_store);
                };
                let now = WallTime::from_ms(self.now_ms);
                match self.entries[at].policy.verdict(&lookup.asked, now) {
                    Verdict::Fresh | Verdict::StaleAccepted => self.serve(&asked, at, None),
                    Verdict::StaleWhileRevalidate => {
                        let mut outcome = self.serve(&asked, at, None);
                        let _ = self.validate(&asked, at, origin, None);
                        outcome.revalidates = true;
                        outcome
                    }
                    Verdict::Validate { .. } if lookup.asked.only_if_cached => own(504),
                    Verdict::Validate { on_error_until, .. } => {
                        self.validate(&asked, at, origin, on_error_until)
                    }
                }
            }
        }
    }

    fn find(&self, asked: &Asked) -> Option<usize> {
        let mode = self.settings.mode;
        let mut scratch = Vec::new();
        (0..self.entries.len()).rev().find(|&at| {
            let entry = &self.entries[at];
            entry.key == asked.key
                && vary::matches(
                    &entry.selection,
                    &asked.head.fields,
                    asked.bytes,
                    mode,
                    &mut scratch,
                )
        })
    }

    fn serve(&self, asked: &Asked, at: usize, forwarded: Option<String>) -> Outcome {
        let entry = &self.entries[at];
        let stored = StoredHead::new(&entry.head);
        let len = entry.body.len() as u64;
        let serve = conditional::serve(&asked.head, asked.bytes, stored, &entry.policy, len);
        let is_head = asked.head.method == Method::Head;
        let now = WallTime::from_ms(self.now_ms);
        let with = ServedWith {
            serve,
            body_bytes: Some(len),
            framing: if is_head { Framing::None } else { Framing::Length(len) },
            close: false,
            keep_alive_10: false,
            now,
            date: &date(self.now_ms),
            status: CacheStatus::Hit { ttl_secs: entry.policy.ttl_secs(now) },
        };
        let mut head = Vec::new();
        served::write(&mut head, stored, &entry.policy, &with);
        let body = match serve {
            conditional::Serve::Full if !is_head => entry.body.clone(),
            conditional::Serve::Partial { start, end } => {
                entry.body[start as usize..end as usize].to_owned()
            }
            _ => String::new(),
        };
        let head = String::from_utf8(head).unwrap();
        Outcome { head, body, forwarded, revalidates: false }
    }

    fn forwarded(asked: &Asked, conditions: Option<&[u8]>) -> String {
        let with = RequestForward {
            client: "192.0.2.1".parse().unwrap(),
            backend_authority: "b:80",
            plan: asked.plan,
            trust: PeerTrust::Unknown,
            forwarded: false,
        };
        let mut out = Vec::new();
        forward::request_head_asking(&mut out, &asked.head, asked.bytes, &with, conditions);
        String::from_utf8(out).unwrap()
    }

    fn validate(
        &mut self,
        asked: &Asked,
        at: usize,
        origin: &Origin,
        on_error_until: Option<WallTime>,
    ) -> Outcome {
        let mut conditions = Vec::new();
        validation::write_conditions(&mut conditions, StoredHead::new(&self.entries[at].head));
        let forwarded = Self::forwarded(asked, Some(&conditions));
        let may_serve = on_error_until.is_some_and(|until| self.now_ms < until.as_ms());
        let Origin::Says { status, fields, .. } = *origin else {
            return if may_serve { self.serve(asked, at, Some(forwarded)) } else { own(502) };
        };
        if status >= 500 && may_serve {
            return self.serve(asked, at, Some(forwarded));
        }
        if asked.head.method == Method::Head {
            return self.head_answer(asked, at, status, fields, forwarded);
        }
        let fields = super::dated(fields, self.now_ms);
        let (answer, text) = response(304, &fields);
        let stored = StoredHead::new(&self.entries[at].head);
        // The suite's server answers 304 exactly to the validators of its own.
        let is_304 = status == 304
            && validation::not_modified_effect(stored, &answer, text.as_bytes())
                == Freshening::Update;
        if !is_304 {
            return self.fetch(asked, Some(&conditions), origin, true);
        }
        let mut merged = Vec::new();
        let received = WallTime::from_ms(self.now_ms);
        let answer = Answer {
            head: &answer,
            bytes: text.as_bytes(),
            times: Times { sent: received, received },
            date: &date(self.now_ms),
        };
        let verdict = validation::freshen(
            &mut merged,
            &asked.head,
            asked.bytes,
            stored,
            &answer,
            &self.settings,
        );
        self.entries[at].head = merged;
        match verdict {
            Storability::Yes(policy) => {
                self.entries[at].policy = policy;
                self.serve(asked, at, Some(forwarded))
            }
            Storability::No(_) => {
                let outcome = self.serve(asked, at, Some(forwarded));
                self.entries.remove(at);
                outcome
            }
        }
    }

    fn head_answer(
        &mut self,
        asked: &Asked,
        at: usize,
        status: u16,
        fields: &str,
        forwarded: String,
    ) -> Outcome {
        let (answer, text) = response(status, &super::dated(fields, self.now_ms));
        let entry = &mut self.entries[at];
        let stored = StoredHead::new(&entry.head);
        let len = entry.body.len() as u64;
        match validation::head_effect(stored, len, &answer, text.as_bytes(), None) {
            Freshening::Nothing => {}
            Freshening::Differs => entry.policy.invalidate(),
            Freshening::Update => {
                let received = WallTime::from_ms(self.now_ms);
                let answer = Answer {
                    head: &answer,
                    bytes: text.as_bytes(),
                    times: Times { sent: received, received },
                    date: &date(self.now_ms),
                };
                let mut merged = Vec::new();
                let (head, bytes) = (&asked.head, asked.bytes);
                let settings = &self.settings;
                let verdict =
                    validation::freshen(&mut merged, head, bytes, stored, &answer, settings);
                if let Storability::Yes(policy) = verdict {
                    entry.policy = policy;
                    entry.head = merged;
                }
            }
        }
        Outcome { head: text, body: String::new(), forwarded: Some(forwarded), revalidates: false }
    }

    fn invalidate(&mut self, asked: &Asked, origin: &Origin) -> Outcome {
        if let Origin::Says { status, fields, .. } = *origin
            && key::invalidates(status)
        {
            let (answer, text) = response(status, &super::dated(fields, self.now_ms));
            let (head, bytes) = (&asked.head, asked.bytes);
            let mut scratch = Vec::new();
            let entries = &mut self.entries;
            let remove = |key: &[u8]| entries.retain(|entry| entry.key != key);
            let trust = PeerTrust::Unknown;
            key::each_invalid(head, bytes, &answer, text.as_bytes(), trust, &mut scratch, remove);
        }
        let plan = Plan::Invalidate;
        let may_store = plan.may_store_unsafe(&asked.head, &self.settings);
        self.fetch(asked, None, origin, may_store)
    }

    fn fetch(
        &mut self,
        asked: &Asked,
        conditions: Option<&[u8]>,
        origin: &Origin,
        may_store: bool,
    ) -> Outcome {
        let forwarded = Self::forwarded(asked, conditions);
        let Origin::Says { status, fields, body } = *origin else { return own(502) };
        let (answer, text) = response(status, &super::dated(fields, self.now_ms));
        let received = WallTime::from_ms(self.now_ms);
        let times = Times { sent: received, received };
        let bytes = text.as_bytes();
        let settings = &self.settings;
        let judged = policy::judge(
            &asked.head,
            asked.bytes,
            PeerTrust::Unknown,
            &answer,
            bytes,
            times,
            settings,
        );
        if let (Storability::Yes(policy), true) = (judged, may_store) {
            let (mut head, mut selection) = (Vec::new(), Vec::new());
            stored::write(&mut head, &answer, bytes, &date(self.now_ms));
            let request = (&asked.head.fields, asked.bytes);
            let mode = settings.mode;
            vary::write(&mut selection, &answer.fields, bytes, request.0, request.1, mode);
            let key = asked.key.clone();
            self.entries.retain(|entry| entry.key != key || entry.selection != selection);
            self.entries.push(Entry { key, selection, head, body: body.to_owned(), policy });
        }
        Outcome {
            head: text.clone(),
            body: body.to_owned(),
            forwarded: Some(forwarded),
            revalidates: false,
        }
    }
}

fn own(status: u16) -> Outcome {
    let head = format!("HTTP/1.1 {status} Ours\r\n\r\n");
    Outcome { head, body: String::new(), forwarded: None, revalidates: false }
}

/// A 200 of the suite's ranges tests with these field lines.
pub fn says(fields: &str) -> Origin<'_> {
    Origin::Says { status: 200, fields, body: "0123456789A" }
}
