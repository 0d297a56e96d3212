//! From a request to what is done about it. Pure, but for what it looks at.

use super::guard::{PURGE_FIELD, may_change, may_look};
use super::look::Look;
use super::purge;
use super::reply::Reply;
use super::tables;
use crate::cache::Purge;
use crate::config::Stated;
use crate::control::board::Stage;
use crate::http::{Method, RequestHead};
use crate::time::Instant;

/// What is done about a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// It is answered.
    Answer(Reply),
    /// It gets the metrics of this second.
    Metrics,
    /// It gets a frame every second.
    Stream,
    /// The cache is told, then it is answered.
    Purge(Purge),
}

/// What routes look at.
pub(super) struct Scene<'a> {
    pub look: Look<'a>,
    pub values: &'a [Stated],
    pub listens_on: std::net::SocketAddr,
    /// For the page's Content-Security-Policy: never the same twice.
    pub nonce: u64,
}

/// Decides. `head` is parsed from `bytes`.
pub(super) fn route(scene: &Scene<'_>, head: &RequestHead, bytes: &[u8]) -> Deed {
    let host = head.host.of(bytes);
    if !may_look(host, scene.listens_on) {
        return Deed::Answer(Reply::text(421, "The admin listener has an address, not a name.\n"));
    }
    let (_, target) = head.target.origin(head.method, bytes);
    let (path, query) = match target.iter().position(|&byte| byte == b'?') {
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (target, &b""[..]),
    };
    let is_look = matches!(head.method, Method::Get | Method::Head);
    let answer = match path {
        b"/cache/purge" if head.method == Method::Post => {
            let field = head.fields.named(PURGE_FIELD.as_bytes(), bytes).next();
            return match may_change(host, field).map(|()| purge::of_query(query)) {
                Ok(Ok(order)) => Deed::Purge(order),
                Ok(Err(why)) => Deed::Answer(Reply::text(400, why)),
                Err(why) => Deed::Answer(Reply::text(403, why)),
            };
        }
        b"/cache/purge" => Reply::text(405, "POST\n").with("Allow", "POST"),
        _ if !ROUTES.iter().any(|route| route.as_bytes() == path) => {
            Reply::text(404, format!("There are {} and POST /cache/purge.\n", ROUTES.join(", ")))
        }
        _ if !is_look => Reply::text(405, "GET or HEAD\n").with("Allow", "GET, HEAD"),
        b"/live" => return Deed::Stream,
        b"/" => page(scene.nonce),
        b"/metrics" => return Deed::Metrics,
        b"/healthz" => healthz(&scene.look),
        b"/readyz" => readyz(&scene.look),
        b"/backends" => {
            let views = scene.look.backends();
            match wants_text(head, bytes, query) {
                true => Reply::text(200, tables::backends(&views)),
                false => Reply::json(&views),
            }
        }
        _ if wants_text(head, bytes, query) => Reply::text(200, tables::config(scene.values)),
        _ => config(scene.values),
    };
    Deed::Answer(answer)
}

/// The status page, with a policy that lets nothing but its own script and style in.
fn page(nonce: u64) -> Reply {
    let nonce = format!("{nonce:016x}");
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    Reply {
        content_type: "text/html; charset=utf-8",
        ..Reply::text(200, PAGE.replace("{nonce}", &nonce))
    }
    .with("Content-Security-Policy", policy)
}

/// 200 while every worker shows signs of life.
fn healthz(look: &Look<'_>) -> Reply {
    let stuck: Vec<String> = (look.tally.cores.iter())
        .filter_map(|core| {
            // A worker that has not begun yet is not stuck.
            let beat = Some(core.block.beat_ns()).filter(|&beat| beat > 0).map(Instant::from_ns)?;
            let silent = look.now.since(beat);
            (silent > BEAT_AGE_MAX)
                .then(|| format!("core {} silent for {:.1} s", core.core, silent.as_secs_f64()))
        })
        .collect();
    match stuck.is_empty() {
        true => Reply::text(200, "ok\n"),
        false => Reply::text(503, format!("{}\n", stuck.join(", "))),
    }
}

/// 200 when a request would be served, whichever worker it meets: each has taken a set that can serve it, and so can
/// every set since. Asking for the newest set instead would turn red for a moment with every change.
fn readyz(look: &Look<'_>) -> Reply {
    match (look.board.stage(), look.board.usable_since()) {
        (Stage::Starting, _) => Reply::text(503, "starting: not every worker listens yet\n"),
        (Stage::Draining, _) => Reply::text(503, "draining\n"),
        (Stage::Serving, None) => Reply::text(503, "no backend is usable\n"),
        (Stage::Serving, Some(epoch)) => {
            match look.tally.cores.iter().find(|core| core.block.epoch() < epoch) {
                Some(core) => {
                    Reply::text(503, format!("core {} has not taken the set yet\n", core.core))
                }
                None => Reply::text(200, "ready\n"),
            }
        }
    }
}

fn config(values: &[Stated]) -> Reply {
    let values: Vec<_> = values
        .iter()
        .map(|stated| {
            serde_json::json!({
                "flag": format!("--{}", stated.flag),
                "env": (!stated.env.is_empty()).then_some(stated.env),
                "value": (!stated.value.is_empty()).then_some(&stated.value),
                "source": stated.source,
            })
        })
        .collect();
    Reply::json(&serde_json::json!({ "version": env!("CARGO_PKG_VERSION"), "settings": values }))
}

/// A table rather than JSON: asked for, or asked by a program that people use at a terminal and that takes anything.
fn wants_text(head: &RequestHead, bytes: &[u8], query: &[u8]) -> bool {
    match query {
        b"format=text" => return true,
        b"format=json" => return false,
        _ => {}
    }
    let accept = head.fields.named(b"accept", bytes).next().unwrap_or(b"*/*");
    let agent = head.fields.named(b"user-agent", bytes).next().unwrap_or_default();
    let is_terminal = agent.starts_with(b"curl/") || agent.starts_with(b"Wget/");
    accept.starts_with(b"text/plain") || (is_terminal && accept.starts_with(b"*/*"))
}

/// What can be looked at.
const ROUTES: [&str; 7] = ["/", "/metrics", "/healthz", "/readyz", "/backends", "/live", "/config"];
const PAGE: &str = include_str!("page.html");
/// An idle worker shows a sign of life every second.
const BEAT_AGE_MAX: std::time::Duration = std::time::Duration::from_secs(3);

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
