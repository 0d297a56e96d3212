//! `balancer demo` from outside: it tells its story to the end, says whether it held, and can be interrupted.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// `balancer demo FLAGS…` without anything in its environment.
fn demo(flags: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_balancer"));
    command.arg("demo").args(flags).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the binary starts")
}

#[test]
fn it_shows_everything_and_all_of_it_holds() {
    let output = demo(&["--for", "5s"]).wait_with_output().expect("it ends");
    let (text, log) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}\n{log}");
    for words in [
        "agent connected: app-1 ",
        "scores shift: app-1 ",
        "app-3 SUNDOWN with ",
        "the agent dies",
        "dial 3 in vain",
        "the agent is back: ",
        "app-2 dies with ",
        "app-2 is back",
        "watch it live   http://127.0.0.1:",
        " from the cache, ",
        "stop with ",
    ] {
        assert!(text.contains(words), "no {words:?} in\n{text}");
    }
    assert_eq!(text.matches("  ok      ").count(), 8, "{text}");
    assert!(!text.contains("FAILED") && !text.contains('\x1b'), "{text}");
    let last = text.lines().last().expect("a summary");
    assert!(last.starts_with("0 of ") && last.contains("; shares within "), "{last}");
}

#[test]
fn an_interrupt_ends_it_with_the_summary_so_far() {
    for (signal, flags) in [("INT", ["--forever"].as_slice()), ("TERM", &["--for", "24h"])] {
        let mut child = demo(flags);
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let is_told = lines.any(|line| line.expect("text").contains("agent connected: "));
        assert!(is_told, "it ended before the first scene");
        // The shell's own `kill`: no unsafe code and no package needed for one signal.
        let script = format!("kill -{signal} {}", child.id());
        let sent = Command::new("sh").args(["-c", &script]).status().expect("a shell");
        assert!(sent.success(), "the signal could not be sent");
        let rest: Vec<String> = lines.map(|line| line.expect("text")).collect();
        let status = child.wait().expect("it ends");
        let text = rest.join("\n");
        assert!(status.success(), "{signal}: {text}");
        assert!(text.contains("summary after ") && text.contains("not reached"), "{text}");
        assert!(text.contains("  ok      stop "), "it stops in order all the same: {text}");
        assert!(rest.last().expect("a summary").starts_with("0 of "), "{text}");
    }
}

#[test]
fn quiet_prints_the_summary_alone_however_short() {
    let output = demo(&["--quiet", "--for", "1s"]).wait_with_output().expect("it ends");
    let (text, log) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}\n{log}");
    assert!(text.trim_start().starts_with("summary after "), "{text}");
    assert_eq!(text.matches("  ok      ").count(), 8, "{text}");
    assert_eq!(log, "");
}
