//! `/metrics`: every metric by name, from the board, the tally and the host.
//!
//! Names follow the conventions of Prometheus: base units, `_total` for what only grows. Labels are bounded: cores that
//! work, codes and reasons from fixed tables, backends of the set in force.

use super::look::{Look, STATES, Wanted, state};
use crate::balance::Backend;
use crate::control::board::{Link, Note, Stage};
use crate::http::Refusal;
use crate::io::host::Usage;
use crate::metrics::codes::{CLASSES, LABELS};
use crate::metrics::text::{Kind, Label, Text};
use crate::metrics::{FAULTS, Gauges, METRICS, Span};
use crate::time::Instant;

/// The whole page.
pub(super) fn page(look: &Look<'_>, usage: &Usage) -> String {
    let mut text = Text::default();
    process(&mut text, look, usage);
    cores(&mut text, look);
    reasons(&mut text, look);
    spans(&mut text, look);
    agent(&mut text, look);
    health(&mut text, look);
    backends(&mut text, look);
    text.finish()
}

fn process(text: &mut Text, look: &Look<'_>, usage: &Usage) {
    text.family(Kind::Gauge, "balancer_build_info", "1, with the version as its label.");
    text.count(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    text.family(Kind::Gauge, "balancer_uptime_seconds", "Time since the start.");
    text.fraction(&[], look.now.since(look.began).as_secs_f64());
    text.family(
        Kind::Gauge,
        "balancer_stage",
        "1 for how far the process has come: starting, serving or draining.",
    );
    for stage in [Stage::Starting, Stage::Serving, Stage::Draining] {
        let is_it = u64::from(look.board.stage() == stage);
        text.count(&[("stage", super::look::stage(stage))], is_it);
    }
    let gauges = [
        ("process_resident_memory_bytes", "Resident memory.", usage.resident_bytes),
        ("process_virtual_memory_bytes", "Virtual memory.", usage.virtual_bytes),
        ("process_open_fds", "Open descriptors.", usage.descriptors),
        ("process_max_fds", "Descriptors allowed.", usage.descriptors_max),
        ("process_threads", "Threads.", usage.threads),
    ];
    for (name, help, value) in gauges {
        if let Some(value) = value {
            text.family(Kind::Gauge, name, help);
            text.count(&[], value);
        }
    }
    if let Some(cpu) = usage.cpu {
        text.family(Kind::Counter, "process_cpu_seconds_total", "CPU time, user and system.");
        text.fraction(&[], cpu.as_secs_f64());
    }
    let began = look.wall.as_ms() as f64 / 1000.0 - look.now.since(look.began).as_secs_f64();
    text.family(Kind::Gauge, "process_start_time_seconds", "Unix time of the start.");
    text.fraction(&[], (began * 1000.0).round() / 1000.0);
}

fn cores(text: &mut Text, look: &Look<'_>) {
    let cores = &look.tally.cores;
    let names: Vec<String> = cores.iter().map(|core| core.core.to_string()).collect();
    text.family(
        Kind::Counter,
        "balancer_requests_total",
        "Requests answered, by core and status code (rare codes by their class).",
    );
    for (core, name) in cores.iter().zip(&names) {
        // What never happened has no line, but the classes that everybody asks for have one from the start.
        let shown = |code: usize, n: u64| n > 0 || (1..CLASSES).contains(&code);
        for (code, &n) in core.codes.iter().enumerate().filter(|&(code, &n)| shown(code, n)) {
            text.count(&[("core", name), ("code", LABELS[code])], n);
        }
    }
    let mut family = "";
    for (at, (_, name, help)) in METRICS.iter().enumerate() {
        let (base, kind) = kind_of(name);
        if family != base {
            family = base;
            text.family(Kind::Counter, base, help);
        }
        for (core, core_name) in cores.iter().zip(&names) {
            let labels: Vec<Label<'_>> =
                [("core", core_name.as_str())].into_iter().chain(kind).collect();
            text.count(&labels, core.counts[at]);
        }
    }
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(Gauges) -> u64| {
        text.family(Kind::Gauge, name, help);
        for (core, name) in cores.iter().zip(&names) {
            text.count(&[("core", name)], value(core.gauges));
        }
    };
    gauge("balancer_connections", "Client connections open.", &|gauges| gauges.connections);
    gauge("balancer_in_flight", "Requests in flight to backends.", &|gauges| gauges.in_flight);
    gauge("balancer_queue_depth", "Requests waiting for a backend.", &|gauges| gauges.queue_depth);
    gauge("balancer_pool_idle", "Idle connections to backends.", &|gauges| gauges.pool_idle);
    gauge("balancer_cache_bytes", "Memory the cache holds.", &|gauges| gauges.cache_bytes);
    gauge("balancer_cache_entries", "Keys in the cache.", &|gauges| gauges.cache_entries);
    gauge("balancer_cache_fills", "Responses on their way into the cache.", &|gauges| {
        gauges.cache_fills
    });
    text.family(Kind::Gauge, "balancer_core_epoch", "Epoch of the snapshot the core applies.");
    for (core, name) in cores.iter().zip(&names) {
        text.count(&[("core", name)], core.epoch);
    }
    text.family(
        Kind::Counter,
        "balancer_core_busy_seconds_total",
        "Time the core did not sleep for want of work.",
    );
    for (core, name) in cores.iter().zip(&names) {
        let awake = core.block.beat_ns().saturating_sub(look.began.as_ns());
        let busy = awake.saturating_sub(core.block.slept_ns());
        text.fraction(&[("core", name)], busy as f64 / 1e9);
    }
    text.family(Kind::Gauge, "balancer_core_beat_age_seconds", "Time since its last sign of life.");
    for (core, name) in cores.iter().zip(&names) {
        let beat = Instant::from_ns(core.block.beat_ns());
        text.fraction(&[("core", name)], look.now.since(beat).as_secs_f64());
    }
}

/// A counter's family, and its label if it is one of several of a kind: `name{kind="value"}`.
fn kind_of(name: &str) -> (&str, Option<Label<'_>>) {
    let Some((base, label)) = name.split_once('{') else { return (name, None) };
    let label = label.trim_end_matches('}').split_once('=');
    (base, label.map(|(key, value)| (key, value.trim_matches('"'))))
}

fn reasons(text: &mut Text, look: &Look<'_>) {
    let (refusals, faults) = look.tally.reasons();
    text.family(
        Kind::Counter,
        "balancer_own_answers_by_reason_total",
        "Answers of our own by reason; a reason appears when it happens first.",
    );
    for (reason, n) in Refusal::all().zip(refusals).filter(|&(_, n)| n > 0) {
        text.count(&[("reason", reason.label())], n);
    }
    text.family(
        Kind::Counter,
        "balancer_upstream_faults_by_reason_total",
        "Failures of backends by reason; a reason appears when it happens first.",
    );
    for (reason, n) in FAULTS.iter().zip(faults).filter(|&(_, n)| n > 0) {
        text.count(&[("reason", reason)], n);
    }
}

fn spans(text: &mut Text, look: &Look<'_>) {
    for (span, name, help) in [
        (
            Span::Request,
            "balancer_request_duration_seconds",
            "From the first byte of a request to the last of its answer.",
        ),
        (
            Span::FirstByte,
            "balancer_first_byte_seconds",
            "From the choice of a backend to its whole response head.",
        ),
        (Span::QueueWait, "balancer_queue_wait_seconds", "Waiting because every backend was busy."),
    ] {
        text.family(Kind::Histogram, name, help);
        text.histogram(&look.tally.spans[span as usize]);
    }
}

fn agent(text: &mut Text, look: &Look<'_>) {
    let (board, snapshot) = (look.board, look.board.snapshot());
    text.family(Kind::Gauge, "balancer_snapshot_epoch", "Epoch of the set in force.");
    text.count(&[], snapshot.epoch);
    text.family(Kind::Gauge, "balancer_backends", "Backends in the set, by state.");
    for which in STATES {
        let is_it = |backend: &&Backend| state(&snapshot, backend) == which;
        let n = snapshot.backends.iter().filter(is_it).count();
        text.count(&[("state", which)], n as u64);
    }
    if board.link() == Link::Unwanted {
        return;
    }
    text.family(Kind::Gauge, "balancer_agent_up", "Whether the link to the agent is up.");
    text.count(&[], u64::from(matches!(board.link(), Link::Up { .. })));
    if let Some(at) = board.heard_at() {
        text.family(
            Kind::Gauge,
            "balancer_snapshot_age_seconds",
            "Time since the agent's last good frame.",
        );
        text.fraction(&[], look.now.since(at).as_secs_f64());
    }
    for (note, name, help) in [
        (Note::Connects, "balancer_agent_connects_total", "Links to the agent that came up."),
        (Note::FramesTaken, "balancer_agent_frames_total", "Frames of the agent that took effect."),
        (
            Note::FramesRefused,
            "balancer_agent_frames_refused_total",
            "Frames of the agent of which something was refused.",
        ),
    ] {
        text.family(Kind::Counter, name, help);
        text.count(&[], board.noted(note));
    }
    text.family(
        Kind::Counter,
        "balancer_agent_losses_total",
        "Links and dials to the agent that were lost, by reason.",
    );
    for (reason, &n) in board.losses().iter() {
        text.count(&[("reason", reason)], n);
    }
}

fn health(text: &mut Text, look: &Look<'_>) {
    let tally = look.board.health_tally();
    for (name, help, n) in [
        (
            "balancer_health_reports_total",
            "Findings of the cores that the control core took in.",
            tally.reports,
        ),
        ("balancer_health_ejections_total", "Backends that ceased to work.", tally.ejections),
        ("balancer_health_recoveries_total", "Backends that work again.", tally.recoveries),
        (
            "balancer_health_probes_total",
            "Connects to failing backends from outside the traffic.",
            tally.probes,
        ),
        ("balancer_health_checks_total", "Health checks begun.", tally.checks),
        (
            "balancer_health_trials_total",
            "Requests let through to a backend that is out, one at a time.",
            tally.trials,
        ),
    ] {
        text.family(Kind::Counter, name, help);
        text.count(&[], n);
    }
}

fn backends(text: &mut Text, look: &Look<'_>) {
    let snapshot = look.board.snapshot();
    let rows: Vec<_> =
        (snapshot.backends.iter()).map(|backend| (backend, look.tally.backend(backend))).collect();
    text.family(Kind::Gauge, "balancer_backend_score", "The backend's score, 0 to 100.");
    for (backend, _) in &rows {
        text.fraction(&[("backend", &backend.name)], backend.score.get());
    }
    let wanted = Wanted::of(&snapshot);
    text.family(
        Kind::Gauge,
        "balancer_backend_wanted_ratio",
        "The share of the requests that its score asks for.",
    );
    for (backend, _) in &rows {
        text.fraction(&[("backend", &backend.name)], wanted.share(&snapshot, backend));
    }
    text.family(
        Kind::Gauge,
        "balancer_backend_up",
        "Whether it gets its share of the requests; its category and state are labels.",
    );
    for (backend, _) in &rows {
        let labels = [
            ("backend", &*backend.name),
            ("category", backend.category.label()),
            ("state", state(&snapshot, backend)),
        ];
        text.count(&labels, u64::from(snapshot.has_share(backend)));
    }
    text.family(Kind::Counter, "balancer_backend_ejections_total", "How often it ceased to work.");
    for (backend, _) in &rows {
        let ejections = look.board.vital(backend.slot).map_or(0, |vital| vital.ejections);
        text.count(&[("backend", &backend.name)], ejections);
    }
    text.family(Kind::Gauge, "balancer_backend_in_flight", "Requests in flight to it.");
    for (backend, row) in &rows {
        let in_flight = row.map_or(0, |row| row.in_flight);
        text.count(&[("backend", &backend.name)], u64::from(in_flight));
    }
    text.family(
        Kind::Counter,
        "balancer_backend_requests_total",
        "Requests it answered, by class of status code.",
    );
    for (backend, row) in rows.iter().filter_map(|(backend, row)| Some((backend, (*row)?))) {
        for (label, &n) in LABELS.iter().zip(&row.total.classes).skip(1) {
            text.count(&[("backend", &backend.name), ("code", label)], n);
        }
    }
    text.family(Kind::Counter, "balancer_backend_faults_total", "Requests it failed.");
    for (backend, row) in rows.iter().filter_map(|(backend, row)| Some((backend, (*row)?))) {
        text.count(&[("backend", &backend.name)], row.total.faults);
    }
    text.family(
        Kind::Summary,
        "balancer_backend_first_byte_seconds",
        "From its choice to its whole response head.",
    );
    for (backend, row) in rows.iter().filter_map(|(backend, row)| Some((backend, (*row)?))) {
        let labels = [("backend", &*backend.name)];
        text.summary(&labels, row.total.answers(), row.total.first_byte_us);
    }
}

/// What the page is.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_may_carry_its_kind() {
        assert_eq!(kind_of("a_total"), ("a_total", None));
        assert_eq!(kind_of("a_total{kind=\"hit\"}"), ("a_total", Some(("kind", "hit"))));
    }
}
