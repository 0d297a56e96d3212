//! A naive proxy: buffers whole messages, one upstream connection per request, few timeouts. It stands in for the worker
//! where only the peers are under test, and has flaws to order, each of which the ledger must see.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use balancer::balance::Snapshot;
use balancer::config::ShardConfig;
use balancer::io::{Interest, Io, Listener, Stream};
use balancer::time::DateText;
use balancer::worker::Mail;

use crate::io::{SimIo, SimListener};
use crate::peer::{Conn, ready, sleep};
use crate::wire::{self, Broken, Framing, Head};

/// What the naive proxy gets wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    None,
    /// Every request is sent twice.
    SendsTwice,
    /// Now and then an answer goes to whoever asked before.
    RepeatsAnswer,
    /// The last byte of a body is lost, and the length made to fit.
    LosesByte,
    /// A broken answer is passed on as a whole one.
    HidesBreak,
    /// A request is answered twice.
    AnswersTwice,
    /// Fields that Connection lists are passed on.
    PassesHop,
    /// Connections to backends are never closed.
    Leaks,
    /// Orders are not read.
    IgnoresOrders,
}

pub struct Worker {
    io: SimIo,
    config: ShardConfig,
    listeners: Vec<SimListener>,
    mail: Mail<SimIo>,
    flaw: Flaw,
}

/// What the connections of one toy share.
struct Shared {
    io: SimIo,
    config: ShardConfig,
    flaw: Flaw,
    snapshot: RefCell<Arc<Snapshot>>,
    is_draining: Cell<bool>,
    connections: Cell<u64>,
    last_answer: RefCell<Vec<u8>>,
    leaked: RefCell<Vec<Conn>>,
}

impl Worker {
    pub fn new(
        io: SimIo,
        config: ShardConfig,
        listeners: Vec<SimListener>,
        mail: Mail<SimIo>,
    ) -> Self {
        Self { io, config, listeners, mail, flaw: Flaw::None }
    }

    pub fn with(self, flaw: Flaw) -> Self {
        Self { flaw, ..self }
    }

    pub async fn run(self) {
        let Self { io, config, listeners, mail, flaw } = self;
        let shared = Rc::new(Shared {
            io: io.clone(),
            config,
            flaw,
            snapshot: RefCell::new(Arc::new(Snapshot::empty())),
            is_draining: Cell::new(false),
            connections: Cell::new(0),
            last_answer: RefCell::default(),
            leaked: RefCell::default(),
        });
        let accepting = futures_lite::future::or(accept_all(&shared, &listeners), async {
            loop {
                mail.snapshots.try_iter().for_each(|s| *shared.snapshot.borrow_mut() = s);
                mail.published.store_epoch(shared.snapshot.borrow().epoch);
                if mail.orders.try_recv().is_ok() && flaw != Flaw::IgnoresOrders {
                    return;
                }
                std::future::poll_fn(|cx| io.poll_rung(cx)).await;
            }
        });
        accepting.await;
        shared.is_draining.set(true);
        drop(listeners);
        while shared.connections.get() > 0 {
            sleep(&io, Duration::from_millis(10)).await;
        }
    }
}

async fn accept_all(shared: &Rc<Shared>, listeners: &[SimListener]) {
    loop {
        let accepted = std::future::poll_fn(|cx| listeners[0].poll_accept(cx)).await;
        let Ok(stream) = accepted.and_then(|(movable, _)| shared.io.adopt(movable)) else {
            sleep(&shared.io, Duration::from_millis(10)).await;
            continue;
        };
        shared.connections.set(shared.connections.get() + 1);
        let (shared, conn) = (shared.clone(), Conn::new(&shared.io, stream));
        shared.io.clone().spawn(async move {
            serve(&shared, conn).await;
            shared.connections.set(shared.connections.get() - 1);
        });
    }
}

async fn serve(shared: &Shared, mut client: Conn) {
    client.patience = shared.config.timeouts.idle;
    while wait_for_input(shared, &client).await {
        let message = match read_message(&mut client, None).await {
            Ok(Some(message)) => message,
            Ok(None) | Err((Broken::Reset | Broken::Cut, _)) => return,
            Err((Broken::Silent, _)) => {
                drop(client.send(&own(shared, "408 Request Timeout", "")).await);
                return;
            }
            Err(_) => {
                drop(client.send(&own(shared, "400 Bad Request", "")).await);
                return;
            }
        };
        let (head, body) = (&message.0, &message.1);
        let (mut bytes, is_broken) = exchange(shared, head, body, &mut client).await;
        if shared.flaw == Flaw::RepeatsAnswer && shared.io.draw().is_multiple_of(3) {
            bytes = shared.last_answer.borrow().clone();
        }
        *shared.last_answer.borrow_mut() = bytes.clone();
        if shared.flaw == Flaw::AnswersTwice {
            bytes.extend(bytes.clone());
        }
        if client.send(&bytes).await.is_err() {
            return;
        }
        if is_broken {
            return client.reset();
        }
    }
}

/// False when the connection is to be closed without a word.
async fn wait_for_input(shared: &Shared, client: &Conn) -> bool {
    if !client.ahead.is_empty() {
        return true;
    }
    let until = shared.io.now() + shared.config.timeouts.idle;
    loop {
        let slice = (shared.io.now() + Duration::from_millis(100)).min(until);
        client.stream.set_deadline(Some(slice));
        if ready(&client.stream, Interest::READ).await.is_ok() {
            return true;
        }
        if shared.is_draining.get() || shared.io.now() >= until {
            return false;
        }
    }
}

type Whole = (Head, Vec<u8>);

/// A message, or how it broke and what had come of it. `method` is that of the request a response answers.
async fn read_message(
    conn: &mut Conn,
    method: Option<&str>,
) -> Result<Option<Whole>, (Broken, Option<Whole>)> {
    conn.patience = PATIENCE;
    let head = match wire::read_head(conn).await {
        Ok(Some(head)) => head,
        Ok(None) => return Ok(None),
        Err(broken) => return Err((broken, None)),
    };
    let framing = match method {
        Some(method) => head.response_framing(method),
        None => head.request_framing(),
    };
    let framing = framing.map_err(|broken| (broken, None))?;
    let mut body = Vec::new();
    match wire::read_body(conn, framing, &mut body).await {
        Ok(_) => Ok(Some((head, body))),
        Err(broken) => Err((broken, Some((head, body)))),
    }
}

/// The bytes of the answer, and whether they stop in the middle of it.
async fn exchange(shared: &Shared, head: &Head, body: &[u8], client: &mut Conn) -> (Vec<u8>, bool) {
    let Ok((method, _)) = head.request() else {
        return (own(shared, "400 Bad Request", ""), false);
    };
    let mut addresses: Vec<SocketAddr> = shared
        .snapshot
        .borrow()
        .backends
        .iter()
        .filter(|backend| backend.is_eligible())
        .map(|backend| backend.addresses[0])
        .collect();
    if addresses.is_empty() {
        return (own(shared, "503 Service Unavailable", "Retry-After: 1\r\n"), false);
    }
    let request = rewritten(shared, head, Framing::Length(body.len()), body, method);
    while !addresses.is_empty() {
        let at = addresses.swap_remove((shared.io.draw() % addresses.len() as u64) as usize);
        let rounds = if shared.flaw == Flaw::SendsTwice { 2 } else { 1 };
        let mut outcome = None;
        for _ in 0..rounds {
            let Some(mut upstream) = dial(shared, at).await else { continue };
            if upstream.send(&request).await.is_ok() {
                outcome = Some(read_answer(&mut upstream, method, client).await);
            }
            if shared.flaw == Flaw::Leaks {
                shared.leaked.borrow_mut().push(upstream);
            }
        }
        let answer = |head: &Head, body: &[u8], declared| {
            let is_empty = matches!(head.response_framing(method), Ok(Framing::None));
            let framing = if is_empty { Framing::None } else { Framing::Length(declared) };
            rewritten(shared, head, framing, body, method)
        };
        match outcome {
            Some(Ok(Some((head, mut body)))) => {
                if shared.flaw == Flaw::LosesByte {
                    body.pop();
                }
                return (answer(&head, &body, body.len()), false);
            }
            Some(Err((_, Some((head, body))))) => {
                let hides = shared.flaw == Flaw::HidesBreak;
                let declared = if hides { body.len() } else { body.len() + 1 };
                return (answer(&head, &body, declared), !hides);
            }
            Some(Err((Broken::Silent, None))) => {
                return (own(shared, "504 Gateway Timeout", ""), false);
            }
            Some(_) if method == "POST" => return (own(shared, "502 Bad Gateway", ""), false),
            _ => {}
        }
    }
    (own(shared, "502 Bad Gateway", ""), false)
}

async fn dial(shared: &Shared, at: SocketAddr) -> Option<Conn> {
    let stream = shared.io.connect(at).ok()?;
    stream.set_deadline(Some(shared.io.now() + shared.config.timeouts.connect));
    ready(&stream, Interest::WRITE).await.ok()?;
    stream.connected().ok()?;
    Some(Conn::new(&shared.io, stream))
}

/// The final answer; interim ones go to the client at once.
async fn read_answer(
    upstream: &mut Conn,
    method: &str,
    client: &mut Conn,
) -> Result<Option<Whole>, (Broken, Option<Whole>)> {
    loop {
        match read_message(upstream, Some(method)).await? {
            Some((head, _)) if head.status().is_ok_and(|status| status < 200) => {
                drop(client.send(format!("{}\r\n\r\n", head.first).as_bytes()).await);
            }
            whole => return Ok(whole),
        }
    }
}

/// A message with its hop-by-hop fields removed and its framing restated.
fn rewritten(shared: &Shared, head: &Head, framing: Framing, body: &[u8], method: &str) -> Vec<u8> {
    let mut text = format!("{}\r\n", head.first);
    for (name, value) in &head.fields {
        let is_hop = ["connection", "content-length", "transfer-encoding"]
            .contains(&name.to_ascii_lowercase().as_str())
            || (head.lists("connection", name) && shared.flaw != Flaw::PassesHop);
        if !is_hop {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    if head.first.starts_with("HTTP/") {
        text.push_str(&date(shared));
    }
    match framing {
        Framing::Length(n) if n > 0 || method != "GET" || head.first.starts_with("HTTP/") => {
            text.push_str(&format!("Content-Length: {n}\r\n\r\n"));
        }
        _ => text.push_str("\r\n"),
    }
    [text.as_bytes(), body].concat()
}

fn own(shared: &Shared, status: &str, fields: &str) -> Vec<u8> {
    let date = date(shared);
    format!("HTTP/1.1 {status}\r\n{date}{fields}Content-Length: 0\r\n\r\n").into_bytes()
}

fn date(shared: &Shared) -> String {
    let mut text = DateText::new();
    format!("Date: {}\r\n", String::from_utf8_lossy(text.at(shared.io.wall())))
}

/// The one timeout of a message on its way.
const PATIENCE: Duration = Duration::from_secs(30);
