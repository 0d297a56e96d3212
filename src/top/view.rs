//! What is drawn: from what was heard to lines of styled text, for a screen of any size. Pure.

use std::collections::VecDeque;

use super::figures::{NIL, bar, clock, millis, number, percent, span, sparkline};
use crate::control::admin::frame::{AgentView, BackendView, Frame, Happening, History, Moment};

/// How a piece of text looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Style {
    #[default]
    Plain,
    Strong,
    Soft,
    Accent,
    Good,
    Warn,
    Bad,
}

/// Pieces of one line.
pub(super) type Line = Vec<(Style, String)>;

/// What was heard so far, and how it is to be shown.
#[derive(Default)]
pub(super) struct Scene {
    pub address: String,
    pub history: History,
    pub seconds: VecDeque<Moment>,
    pub events: VecDeque<Happening>,
    pub frame: Option<Frame>,
    /// Why nothing comes.
    pub lost: Option<String>,
    pub sort: Sort,
    /// Backends scrolled past.
    pub skip: usize,
}

/// By what the backends are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Wanted,
    Rate,
    Errors,
    Slow,
    Name,
}

impl Sort {
    /// The next one.
    pub fn next(self) -> Self {
        match self {
            Self::Wanted => Self::Rate,
            Self::Rate => Self::Errors,
            Self::Errors => Self::Slow,
            Self::Slow => Self::Name,
            Self::Name => Self::Wanted,
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Wanted => "wanted share",
            Self::Rate => "requests",
            Self::Errors => "errors",
            Self::Slow => "p99",
            Self::Name => "name",
        }
    }
}

impl Scene {
    /// Takes the past in.
    pub fn recall(&mut self, history: History) {
        self.seconds = history.seconds.iter().cloned().collect();
        self.events = history.events.iter().cloned().collect();
        self.history = history;
        self.lost = None;
    }

    /// Takes the present in.
    pub fn hear(&mut self, frame: Frame) {
        if self.seconds.back().is_none_or(|last| last.at_ms < frame.second.at_ms) {
            self.seconds.push_back(frame.second.clone());
        }
        // What happened between the past and the first frame is told by both.
        let known = self.events.back().map_or(0, |event| event.number);
        self.events.extend(frame.events.iter().filter(|event| event.number > known).cloned());
        while self.seconds.len() > SECONDS_KEPT {
            self.seconds.pop_front();
        }
        while self.events.len() > EVENTS_KEPT {
            self.events.pop_front();
        }
        self.skip = self.skip.min(frame.backends.len().saturating_sub(1));
        self.frame = Some(frame);
        self.lost = None;
    }

    /// Moves the backends by so many lines.
    pub fn scroll(&mut self, by: isize) {
        let last = self.frame.as_ref().map_or(0, |frame| frame.backends.len().saturating_sub(1));
        self.skip = self.skip.saturating_add_signed(by).min(last);
    }

    /// The whole screen: at most `height` lines of at most `width` characters.
    pub fn draw(&self, width: usize, height: usize) -> Vec<Line> {
        let mut lines = vec![self.title()];
        match &self.frame {
            None => lines
                .extend([vec![], vec![(Style::Soft, "waiting for the first frame".to_owned())]]),
            Some(frame) => self.body(frame, width, height, &mut lines),
        }
        lines.truncate(height.saturating_sub(1));
        while lines.len() + 1 < height {
            lines.push(Vec::new());
        }
        lines.push(vec![(
            Style::Soft,
            format!("q quit   s sort: {}   ↑ ↓ backends", self.sort.label()),
        )]);
        lines.into_iter().map(|line| cut(line, width)).collect()
    }

    fn title(&self) -> Line {
        let mut line = vec![
            (Style::Strong, "balancer".to_owned()),
            (Style::Soft, format!(" {}   ", self.history.version)),
        ];
        match (&self.lost, &self.frame) {
            (Some(why), _) => {
                line.push((Style::Bad, format!("no word from it: {why}; trying again")))
            }
            (None, Some(frame)) => {
                let style = if frame.stage == "serving" { Style::Good } else { Style::Warn };
                line.push((style, format!("{} for {}", frame.stage, span(frame.uptime_s as f64))));
            }
            (None, None) => {}
        }
        line.push((Style::Soft, format!("   http://{}", self.address)));
        line
    }

    fn body(&self, frame: &Frame, width: usize, height: usize, lines: &mut Vec<Line>) {
        lines.extend([vec![], strip(frame), agent(&frame.agent), vec![]]);
        let cores = self.cores(frame, width);
        let shown = cores.len().min((height / 3).max(3));
        lines.extend(cores.into_iter().take(shown));
        if height >= ROOM_FOR_HEAT {
            lines.push(Vec::new());
            lines.extend(self.heat(width));
        }
        lines.push(Vec::new());
        let events = self.events.len().clamp(1, 6);
        let room = height.saturating_sub(lines.len() + events + 4).max(3);
        lines.extend(self.backends(frame, width, room));
        lines.push(Vec::new());
        let left = height.saturating_sub(lines.len() + 1);
        for event in self.events.iter().rev().take(left) {
            lines.push(vec![
                (Style::Soft, format!("{}  {:<8}", clock(event.at_ms), event.topic)),
                (Style::Plain, event.text.clone()),
            ]);
        }
    }

    fn cores(&self, frame: &Frame, width: usize) -> Vec<Line> {
        let trend = width.saturating_sub(66).min(60);
        let skip = self.seconds.len().saturating_sub(trend);
        let recent = || self.seconds.iter().skip(skip);
        let top = recent().flat_map(|second| second.by_core.iter()).max().copied().unwrap_or(0);
        let mut lines = vec![vec![(
            Style::Soft,
            format!(
                "{:>4} {:>10}  {:<17} {:>6} {:>10} {:>6}  LAST SECONDS",
                "CORE", "REQ/S", "BUSY", "CONN", "IN FLIGHT", "POOL"
            ),
        )]];
        for (n, core) in frame.cores.iter().enumerate() {
            let style = match core.busy {
                busy if busy > 0.95 => Style::Bad,
                busy if busy > 0.8 => Style::Warn,
                _ => Style::Accent,
            };
            let trend = sparkline(
                recent().map(|second| second.by_core.get(n).copied().unwrap_or(0).into()),
                top.into(),
            );
            let mut line = vec![
                (Style::Plain, format!("{:>4} ", core.core)),
                (Style::Strong, format!("{:>10}  ", number(core.rps))),
                (style, bar(core.busy, 12)),
                (Style::Plain, format!("{:>5}", percent_short(core.busy))),
                (
                    Style::Plain,
                    format!(
                        " {:>6} {:>10} {:>6}  ",
                        number(core.connections as f64),
                        number(core.in_flight as f64),
                        number(core.pool as f64)
                    ),
                ),
            ];
            line.push(match core.beat_s > 3.0 {
                true => (Style::Bad, format!("silent for {}", span(core.beat_s))),
                false => (Style::Accent, trend),
            });
            lines.push(line);
        }
        lines
    }

    /// How long requests took: a column a second, a row for each fourfold.
    fn heat(&self, width: usize) -> Vec<Line> {
        let columns = width.saturating_sub(10).min(SECONDS_KEPT);
        let skip = self.seconds.len().saturating_sub(columns);
        let seconds: Vec<&Moment> = self.seconds.iter().skip(skip).collect();
        let rows = self.history.rows_ms.len().div_ceil(ROWS_PER_LINE);
        let cell = |second: &Moment, row: usize| -> u32 {
            second.heat.iter().skip(row * ROWS_PER_LINE).take(ROWS_PER_LINE).sum()
        };
        let top = seconds
            .iter()
            .flat_map(|second| (0..rows).map(|row| cell(second, row)))
            .max()
            .unwrap_or(0);
        let used = |row: &usize| seconds.iter().any(|second| cell(second, *row) > 0);
        let first = (0..rows).find(used).unwrap_or(0);
        let last =
            (0..rows).rev().find(used).unwrap_or(first).max(first + 3).min(rows.saturating_sub(1));
        let mut lines = vec![vec![(Style::Soft, "LATENCY".to_owned())]];
        for row in (first..=last).rev() {
            let from = self.history.rows_ms.get(row * ROWS_PER_LINE).copied().unwrap_or(0.0);
            let cells = seconds.iter().map(|second| {
                let share = f64::from(cell(second, row)) / f64::from(top.max(1));
                SHADES[(share.sqrt() * 4.0).ceil() as usize]
            });
            let pad = " ".repeat(columns - seconds.len());
            lines.push(vec![
                (Style::Soft, format!("{:>8}  ", millis(Some(from)))),
                (Style::Accent, pad + &cells.collect::<String>()),
            ]);
        }
        lines
    }

    /// At most `room` lines.
    fn backends(&self, frame: &Frame, width: usize, room: usize) -> Vec<Line> {
        let mut backends: Vec<&BackendView> = frame.backends.iter().collect();
        let down = |a: f64, b: f64| b.total_cmp(&a);
        backends.sort_by(|a, b| {
            let by = match self.sort {
                Sort::Wanted => down(a.wanted, b.wanted),
                Sort::Rate => down(a.rps, b.rps),
                Sort::Errors => down(a.errors_ps, b.errors_ps),
                Sort::Slow => down(a.p99_ms.unwrap_or(-1.0), b.p99_ms.unwrap_or(-1.0)),
                Sort::Name => std::cmp::Ordering::Equal,
            };
            by.then_with(|| a.name.cmp(&b.name))
        });
        let longest =
            backends.iter().map(|backend| backend.name.chars().count()).max().unwrap_or(7);
        let name_width = longest.clamp(7, width.saturating_sub(94).max(12));
        let track = width.saturating_sub(name_width + 86).clamp(0, 30);
        let share_title =
            if track > 0 { format!("{:<track$} ", "REAL AGAINST WANTED |") } else { String::new() };
        let mut lines = vec![vec![(
            Style::Soft,
            format!(
                "{:<name_width$} {}{:>7} {:>7} {:>6} {:<8} {:<11} {:>8} {:>9} {:>6} {:>8} {:>8}",
                "BACKEND",
                cut_text(&share_title, track + 1),
                "REAL",
                "WANTED",
                "SCORE",
                "CATEGORY",
                "STATE",
                "REQ/S",
                "IN FLIGHT",
                "ERR/S",
                "P50",
                "P99"
            ),
        )]];
        let scale = backends
            .iter()
            .flat_map(|backend| [backend.wanted, backend.real.unwrap_or(0.0)])
            .fold(0.05, f64::max);
        let shown = room.saturating_sub(1).max(1);
        for backend in backends.iter().skip(self.skip).take(shown) {
            lines.push(row(backend, name_width, track, scale));
        }
        let hidden = frame.backends_total.saturating_sub(lines.len() - 1);
        if hidden > 0 && lines.len() > shown {
            lines.pop();
            let more =
                frame.backends_total - (lines.len() - 1) - self.skip.min(frame.backends_total);
            lines.push(vec![(Style::Soft, format!("… {more} more below"))]);
        }
        if frame.backends_total == 0 {
            lines.push(vec![(Style::Warn, "none: requests are answered 503".to_owned())]);
        }
        lines
    }
}

fn row(backend: &BackendView, name_width: usize, track: usize, scale: f64) -> Line {
    let is_out = !matches!(backend.state.as_str(), "up" | "spared");
    let plain = if is_out { Style::Soft } else { Style::Plain };
    let state = match backend.state.as_str() {
        "up" => Style::Good,
        "out" | "unresolved" => Style::Bad,
        _ => Style::Warn,
    };
    let mut line = vec![(
        if is_out { Style::Soft } else { Style::Strong },
        format!("{:<name_width$} ", cut_text(&backend.name, name_width)),
    )];
    if track > 0 {
        let mut cells: Vec<char> =
            bar(backend.real.unwrap_or(0.0) / scale, track).chars().collect();
        let mark = ((backend.wanted / scale * track as f64).round() as usize).min(track - 1);
        let rest = cells.split_off(mark);
        line.push((Style::Accent, cells.into_iter().collect()));
        line.push((Style::Strong, "|".to_owned()));
        line.push((Style::Accent, rest.into_iter().skip(1).collect::<String>() + " "));
    }
    line.push((
        plain,
        format!("{:>7} {:>7} ", percent(backend.real), percent(Some(backend.wanted))),
    ));
    let score = ((backend.score * 10.0).round() / 10.0).to_string();
    line.push((plain, format!("{score:>6} {:<8} ", backend.category)));
    line.push((state, format!("{:<11} ", backend.state)));
    line.push((plain, format!("{:>8} {:>9} ", number(backend.rps), backend.in_flight)));
    let errors = if backend.errors_ps > 0.0 { Style::Bad } else { plain };
    line.push((errors, format!("{:>6} ", number(backend.errors_ps))));
    line.push((plain, format!("{:>8} {:>8}", millis(backend.p50_ms), millis(backend.p99_ms))));
    line
}

fn strip(frame: &Frame) -> Line {
    let errors = match frame.error_ratio {
        Some(ratio) if ratio > 0.05 => Style::Bad,
        Some(ratio) if ratio > 0.005 => Style::Warn,
        _ => Style::Strong,
    };
    let (cache_style, cache) = match has_cache(frame) {
        true => (Style::Strong, percent(hit_ratio(frame))),
        false => (Style::Soft, "off".to_owned()),
    };
    let parts = [
        ("req/s ", Style::Strong, number(frame.rps)),
        ("p50 ", Style::Strong, millis(frame.p50_ms)),
        ("p99 ", Style::Strong, millis(frame.p99_ms)),
        ("5xx ", errors, percent(frame.error_ratio)),
        ("cache hits ", cache_style, cache),
        ("connections ", Style::Strong, number(frame.connections as f64)),
        ("in flight ", Style::Strong, number(frame.in_flight as f64)),
        ("queued ", Style::Strong, number(frame.queue as f64)),
    ];
    let pieces = parts.into_iter().flat_map(|(name, style, value)| {
        [(Style::Soft, name.to_owned()), (style, value), (Style::Plain, "   ".to_owned())]
    });
    pieces.collect()
}

fn cache_counter(kind: &str) -> String {
    format!("balancer_cache_{kind}_total")
}

/// Without a cache there are no counters of one.
fn has_cache(frame: &Frame) -> bool {
    frame.counters.contains_key(&cache_counter("hits"))
}

/// Of the requests that the cache could have answered, the part that it did.
fn hit_ratio(frame: &Frame) -> Option<f64> {
    let count = |kind: &str| frame.counters.get(&cache_counter(kind)).copied();
    let hits: u64 =
        ["hits", "stale", "revalidations", "collapsed"].iter().filter_map(|kind| count(kind)).sum();
    let asked = hits + count("misses")?;
    (asked > 0).then(|| hits as f64 / asked as f64)
}

fn agent(agent: &AgentView) -> Line {
    let age = agent.age_s.map_or(String::new(), |age| format!("snapshot {} old, ", span(age)));
    let epoch = format!("epoch {}", agent.epoch);
    let (style, word, more) = match agent.link.as_str() {
        "none" => (Style::Good, "none", format!("fixed backends, {epoch}")),
        "up" if agent.age_s.is_none() => (Style::Warn, "connected", "nothing heard yet".to_owned()),
        "up" if agent.age_s > Some(10.0) => (Style::Warn, "connected", age + &epoch),
        "up" => (Style::Good, "connected", age + &epoch),
        "down" => {
            let why = agent.why.as_deref().unwrap_or(NIL).replace('_', " ");
            let since = agent.since_s.map_or(String::new(), span);
            let retry =
                agent.retry_s.map_or(String::new(), |s| format!(", next dial in {}", span(s)));
            (Style::Bad, "down", format!("{age}{epoch}; lost {since} ago ({why}){retry}"))
        }
        _ => (Style::Warn, "connecting", epoch),
    };
    vec![
        (Style::Soft, "agent ".to_owned()),
        (style, word.to_owned()),
        (Style::Soft, format!("   {more}")),
    ]
}

fn percent_short(part: f64) -> String {
    format!("{:.0} %", 100.0 * part)
}

fn cut_text(text: &str, width: usize) -> String {
    text.chars().take(width).collect()
}

/// The line without what does not fit.
fn cut(line: Line, width: usize) -> Line {
    let mut left = width;
    let mut kept = Vec::new();
    for (style, text) in line {
        let text = cut_text(&text, left);
        left -= text.chars().count();
        if !text.is_empty() {
            kept.push((style, text));
        }
    }
    kept
}

const SECONDS_KEPT: usize = 300;
const EVENTS_KEPT: usize = 60;
/// Lines from which on there is room for the heat map as well.
const ROOM_FOR_HEAT: usize = 34;
/// Rows of the balancer's heat map in one line here.
const ROWS_PER_LINE: usize = 4;
const SHADES: [char; 5] = [' ', '░', '▒', '▓', '█'];

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
