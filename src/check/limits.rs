//! `--show-config`: every setting with its value and source, and every limit that is a constant.

use super::titled;
use crate::boot::{self, bytes_text};
use crate::cli::Run;
use crate::config::{Limit, Unit};
use crate::control::{self, admin};
use crate::worker;

/// Both tables.
pub(super) fn settings(run: &Run) -> String {
    let shown = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let rows: Vec<[String; 4]> = (run.stated().into_iter())
        .map(|stated| {
            [
                format!("--{}", stated.flag),
                stated.env.to_owned(),
                shown(&stated.value),
                stated.source,
            ]
        })
        .collect();
    let mut out = titled("Settings", &["FLAG", "VARIABLE", "VALUE", "SOURCE"], &rows);
    let rows: Vec<[String; 2]> = derived(run)
        .into_iter()
        .chain(
            [worker::LIMITS, control::LIMITS, admin::LIMITS, boot::TAKEOVER_LIMITS]
                .into_iter()
                .flatten()
                .map(|limit| [limit.what.to_owned(), value(*limit)]),
        )
        .collect();
    out.push_str(&titled("Limits", &["OF", "VALUE"], &rows));
    out
}

/// What follows from the settings.
fn derived(run: &Run) -> Vec<[String; 2]> {
    let config = &run.config;
    let shard = config.shard(0);
    let mut rows = vec![
        ["client connections of the process".to_owned(), config.connections_max.to_string()],
        ["client connections per core".to_owned(), shard.connections_max.to_string()],
        ["requests waiting per core".to_owned(), shard.queue_length_max.to_string()],
    ];
    if let Some(limit) = config.connections_per_ip_max {
        rows.push(["client connections per address or IPv6 /64".to_owned(), limit.to_string()]);
    }
    if let Some(limit) = shard.backend_inflight_max {
        rows.push(["requests in flight per backend, over all cores".to_owned(), limit.to_string()]);
    }
    let write = config.timeouts.write.as_millis();
    rows.push(["a client that takes nothing of its answer".to_owned(), format!("{write} ms")]);
    rows
}

fn value(limit: Limit) -> String {
    match limit.unit {
        Unit::Count => limit.value.to_string(),
        Unit::Bytes => bytes_text(limit.value),
        Unit::Ms => format!("{} ms", limit.value),
    }
}
