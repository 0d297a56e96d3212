//! The same as JSON, for people with a terminal: aligned columns.

use std::fmt::Write as _;

use super::frame::BackendView;
use crate::config::Stated;

/// `/backends` for curl.
pub(super) fn backends(rows: &[BackendView]) -> String {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let ms = |ms: Option<f64>| ms.map_or("-".to_owned(), |ms| format!("{ms:.1}"));
    let row = |view: &BackendView| {
        [
            view.name.clone(),
            ((view.score * 10.0).round() / 10.0).to_string(),
            view.category.clone(),
            view.state.clone(),
            percent(view.wanted),
            view.real.map_or("-".to_owned(), percent),
            format!("{:.1}", view.rps),
            view.in_flight.to_string(),
            view.requests.to_string(),
            view.faults.to_string(),
            ms(view.p50_ms),
            ms(view.p99_ms),
        ]
    };
    let head = [
        "BACKEND",
        "SCORE",
        "CATEGORY",
        "STATE",
        "WANTED",
        "REAL",
        "REQ/S",
        "IN FLIGHT",
        "REQUESTS",
        "FAULTS",
        "P50 MS",
        "P99 MS",
    ];
    aligned(&head, &rows.iter().map(row).collect::<Vec<_>>(), &[0, 2, 3])
}

/// `/config` for curl.
pub(super) fn config(values: &[Stated]) -> String {
    let row = |stated: &Stated| {
        [format!("--{}", stated.flag), shown(&stated.value), stated.source.clone()]
    };
    let rows: Vec<_> = values.iter().map(row).collect();
    aligned(&["SETTING", "VALUE", "SOURCE"], &rows, &[0, 1, 2])
}

fn shown(value: &str) -> String {
    if value.is_empty() { "-".to_owned() } else { value.to_owned() }
}

/// Columns two spaces apart, those in `left` flush left, the others flush right.
pub fn aligned<const N: usize>(head: &[&str; N], rows: &[[String; N]], left: &[usize]) -> String {
    let mut widths: [usize; N] = head.map(|text| text.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (at, (cell, width)) in cells.zip(widths).enumerate() {
            // Writing to a String cannot fail.
            let _ = match left.contains(&at) {
                true => write!(text, "{cell:<width$}  "),
                false => write!(text, "{cell:>width$}  "),
            };
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(&mut head.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let view = |name: &str, score: f64, real: Option<f64>| BackendView {
            name: name.into(),
            score,
            category: "LU".into(),
            state: "up".into(),
            wanted: 0.5,
            real,
            p50_ms: Some(1.25),
            ..BackendView::default()
        };
        let text = backends(&[view("a", 92.04, Some(0.481)), view("longer-name", 7.0, None)]);
        let wanted = "\
BACKEND      SCORE  CATEGORY  STATE  WANTED    REAL  REQ/S  IN FLIGHT  REQUESTS  FAULTS  P50 MS  P99 MS
a               92  LU        up     50.0 %  48.1 %    0.0          0         0       0     1.2       -
longer-name      7  LU        up     50.0 %       -    0.0          0         0       0     1.2       -
";
        assert_eq!(text, wanted);
    }
}
