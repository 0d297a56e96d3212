//! The README's table of reasons is the one in the code: whoever adds a reason is told what to paste.

use std::collections::BTreeMap;

use balancer::http::Refusal;
use balancer::metrics::FAULTS;

/// Status and Proxy Error Type, and every reason that is told so.
fn table() -> String {
    let mut rows: BTreeMap<(u16, &str), Vec<String>> = BTreeMap::new();
    for refusal in Refusal::all() {
        let row = rows.entry((refusal.status(), refusal.proxy_error())).or_default();
        row.push(format!("`{}`", refusal.label()));
    }
    let mut text = String::from("| status | `error=` | reasons |\n|---|---|---|\n");
    for ((status, error), reasons) in rows {
        text.push_str(&format!("| {status} | `{error}` | {} |\n", reasons.join(" ")));
    }
    text
}

#[test]
fn the_readme_lists_every_reason_there_is() {
    let readme = include_str!("../README.md");
    let table = table();
    assert!(readme.contains(&table), "the README's table of reasons should be:\n\n{table}");
}

#[test]
fn the_readme_lists_every_way_a_backend_fails() {
    let readme = include_str!("../README.md");
    let mut phases: Vec<&str> =
        FAULTS.iter().filter_map(|fault| Some(fault.split_once('/')?.0)).collect();
    let mut causes: Vec<&str> =
        FAULTS.iter().filter_map(|fault| Some(fault.split_once('/')?.1)).collect();
    phases.dedup();
    causes.truncate(FAULTS.len() / phases.len());
    let listed = format!("`{}`, each with `{}`", phases.join("` `"), causes.join("` `"));
    assert!(readme.contains(&listed), "the README should say: {listed}");
}
