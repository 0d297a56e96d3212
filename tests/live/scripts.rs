//! What `scripts/` holds for users: each tells its help and refuses what it does not know; host facts are JSON, the
//! report and the sender at a fixed rate count rightly. The benches themselves run only by hand.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::support::origin::Origin;
use crate::support::parts;
use crate::support::wait;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts")
}

fn output(program: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    // One that does not know what is asked might set out to measure.
    let Output { status, stdout, stderr } = Command::new("timeout")
        .arg("60")
        .arg(program)
        .args(arguments)
        .output()
        .expect("a script runs");
    (status.code(), text(&stdout), text(&stderr))
}

/// The scripts to run, not those to be sourced.
fn shell_scripts() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory()).expect("the scripts").flatten();
    entries
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "sh"))
        .filter(|entry| entry.metadata().expect("a file").permissions().mode() & 0o100 != 0)
        .map(|entry| entry.path())
        .collect()
}

#[test]
fn each_tells_its_help_and_refuses_an_unknown_option() {
    let scripts = shell_scripts();
    assert!(scripts.len() >= 7, "{scripts:?}");
    for script in scripts {
        let name = format!("scripts/{}", script.file_name().expect("a name").to_string_lossy());
        let (code, told, complaint) = output(&script, &["--help"]);
        assert!(code == Some(0) && complaint.is_empty(), "{name}: {code:?} {complaint}");
        assert!(told.lines().any(|line| line.trim_start().starts_with(&name)), "{name}: {told}");
        let (code, told, complaint) = output(&script, &["--no-such-option"]);
        assert!(code == Some(2) && told.is_empty(), "{name}: {code:?} {told}");
        assert!(complaint.starts_with("error: unknown option --no-such-option"), "{complaint}");
    }
}

#[test]
fn the_facts_of_the_host_are_json_and_its_warnings_are_said_twice() {
    if parts::find("python3").is_none() {
        return;
    }
    let (code, facts, complaint) =
        output(&directory().join("bench-host.sh"), &["--balancer", env!("CARGO_BIN_EXE_balancer")]);
    assert_eq!(code, Some(0), "{complaint}");
    let facts: Value = serde_json::from_str(&facts).expect("JSON");
    assert!(facts["versions"]["balancer"].as_str().is_some_and(|v| v.starts_with("balancer ")));
    assert!(facts["cpu"]["allowed"].as_array().is_some_and(|cores| !cores.is_empty()), "{facts}");
    for fact in ["numa", "memory", "limits", "network", "virtual", "load"] {
        assert!(facts[fact].is_object(), "{fact}: {}", facts[fact]);
    }
    let warnings = facts["warnings"].as_array().expect("a list");
    let said: Vec<String> =
        warnings.iter().map(|text| format!("warning: {}", text.as_str().expect("text"))).collect();
    assert_eq!(complaint.lines().collect::<Vec<_>>(), said);
}

#[test]
fn the_report_checks_itself() {
    let Some(python) = parts::find("python3") else { return };
    let report = directory().join("bench-report.py");
    let (code, told, complaint) = output(&python, &[report.to_str().expect("UTF-8"), "self-test"]);
    assert!(code == Some(0) && told == "ok\n", "{told}{complaint}");
}

/// What `open-loop.py` says of `requests` GETs at 100 a second over one connection: answered, p50 in µs, errors.
fn open_loop(python: &Path, origin: &Origin, path: &str, requests: u64) -> [u64; 3] {
    let script = directory().join("open-loop.py");
    let core = first_core();
    let port = origin.address().port().to_string();
    let seconds = (requests as f64 / 100.0).to_string();
    let script = script.to_str().expect("UTF-8");
    let (code, told, complaint) =
        output(python, &[script, &core, &port, path, "100", "1", &seconds]);
    assert!(code == Some(0), "{told}{complaint}");
    let line = told.lines().find_map(|line| line.strip_prefix("RESULT ")).expect("a result");
    let figures: Vec<u64> = line.split(' ').map(|word| word.parse().expect("a number")).collect();
    [figures[0], figures[2], figures[5]]
}

fn first_core() -> String {
    let status = std::fs::read_to_string("/proc/self/status").expect("our status");
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let list = list.expect("the list of cores").trim();
    list.split(['-', ',']).next().expect("a core").to_owned()
}

#[test]
fn a_request_that_waits_for_a_slow_answer_is_timed_from_when_it_was_due() {
    let Some(python) = parts::find("python3") else { return };
    let origin = Origin::start("a");
    let [answered, p50_us, errors] = std::thread::scope(|scope| {
        let load = scope.spawn(|| open_loop(&python, &origin, "/hold/gate", 20));
        wait::until("the first request", Duration::from_secs(20), || origin.waiting("gate") == 1);
        // All are due 200 ms after the first.
        let is_overtaken = wait::happens(Duration::from_millis(400), || origin.requests() > 1);
        assert!(!is_overtaken, "one connection carries one request");
        origin.open("gate");
        load.join().expect("the load")
    });
    assert_eq!((answered, errors), (20, 0));
    assert!(p50_us >= 200_000, "{p50_us} µs: those that waited were not timed");
}

#[test]
fn a_bad_answer_and_none_are_errors_of_the_fixed_rate() {
    let Some(python) = parts::find("python3") else { return };
    let origin = Origin::start("a");
    assert_eq!(open_loop(&python, &origin, "/status/503", 5)[2], 5);
    assert_eq!(open_loop(&python, &origin, "/cut/100?seed=1", 5)[2], 5);
}
