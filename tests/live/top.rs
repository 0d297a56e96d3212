//! `balancer top` in a real terminal: figures move, it follows the size, and gives the terminal back however it ends.

use std::process::{Command, Stdio};

use crate::support::agent::Agent;
use crate::support::balancer::Balancer;
use crate::support::origin::Origin;
use crate::support::tmux::Terminal;
use crate::support::traffic::Traffic;

fn scene() -> (Vec<Origin>, Agent, Balancer) {
    let origins: Vec<Origin> = ["one", "two"].into_iter().map(Origin::start).collect();
    let agent = Agent::start();
    push(&agent, &origins, "LU");
    let flags = ["--admin", "127.0.0.1:0", "--agent", &agent.url(), "--agent-backoff", "1s..5s"];
    let balancer = Balancer::run(&flags);
    balancer.until_ready();
    (origins, agent, balancer)
}

fn push(agent: &Agent, origins: &[Origin], second: &str) {
    agent.push_set(&[
        (&origins[0].authority(), 75.0, "LU"),
        (&origins[1].authority(), 25.0, second),
    ]);
}

/// The terminal as the shell left it: its own screen, a cursor, lines and echo.
#[track_caller]
fn assert_given_back(terminal: &Terminal, what: &str) {
    terminal.until(what, |text| text.contains("ENDED "));
    assert!(!terminal.is_alternate() && terminal.has_cursor(), "{what}: {}", terminal.text());
    terminal.enter("clear; stty -a | grep -o -e '-\\?icanon' -e '-\\?echo ' | tr '\\n' ' '; echo");
    terminal.until("the settings are those of a shell", |text| text.contains("icanon"));
    let text = terminal.text();
    assert!(!text.contains("-icanon") && !text.contains("-echo "), "{what}: {text}");
    terminal.enter("clear");
    terminal.until("it is clear", |text| !text.contains("icanon"));
}

#[test]
fn it_shows_what_goes_on_and_follows_the_size() {
    let Some(terminal) = Terminal::open(140, 42) else { return };
    let (origins, agent, balancer) = scene();
    let admin = balancer.admin();
    terminal
        .enter(&format!("{} top --admin {admin}; echo ENDED $?", env!("CARGO_BIN_EXE_balancer")));
    terminal.until("the first view", |text| {
        text.contains("agent connected") && text.contains("75.0 %") && text.contains("LATENCY")
    });
    let traffic = Traffic::start(balancer.address(), 2);
    let rate = |text: &str| -> Option<f64> {
        let figure = text.split_once("req/s ")?.1.split_whitespace().next()?;
        figure.replace(',', "").parse().ok()
    };
    terminal.until("requests are counted", |text| rate(text).is_some_and(|rate| rate > 20.0));
    let first = rate(&terminal.text());
    terminal.until("the figure changes", |text| rate(text) != first);
    push(&agent, &origins, "SUNDOWN");
    terminal.until("a SUNDOWN shows", |text| text.contains("draining") && text.contains("100.0 %"));
    agent.kill();
    terminal.until("a dead agent shows", |text| {
        text.contains("agent down") && text.contains("next dial in")
    });
    if let Some(directory) = std::env::var_os("BALANCER_SCREENSHOTS") {
        std::fs::write(std::path::Path::new(&directory).join("top.txt"), terminal.text())
            .expect("a file");
    }
    for (columns, rows) in [(80, 24), (200, 60), (30, 8), (110, 30)] {
        terminal.resize(columns, rows);
        terminal.until("the last line is at the bottom", |text| {
            let lines: Vec<&str> = text.lines().collect();
            lines.len() == rows as usize
                && lines.last().is_some_and(|last| last.starts_with("q quit"))
                && lines.first().is_some_and(|first| first.starts_with("balancer "))
        });
    }
    traffic.stop();
    terminal.press("s");
    terminal.until("the order is another one", |text| text.contains("sort: requests"));
    drop(balancer);
    terminal.until("a lost balancer shows", |text| text.contains("no word from it"));
    let flags = [
        "--listen",
        "127.0.0.1:0",
        "--admin",
        &admin.to_string(),
        "--backend",
        &origins[0].authority(),
    ];
    let _second = Balancer::try_run(&flags, &[]).expect("the address is free again");
    terminal.until("it is found again", |text| {
        text.contains("agent none") && text.contains("serving for")
    });
    terminal.press("q");
    assert_given_back(&terminal, "q ends it");
}

#[test]
fn however_it_ends_the_terminal_is_given_back() {
    let Some(terminal) = Terminal::open(100, 30) else { return };
    let (_origins, _agent, balancer) = scene();
    let start = || {
        let top = format!("{} top --admin {}", env!("CARGO_BIN_EXE_balancer"), balancer.admin());
        // Its number first: the signal goes to it and to nobody else.
        terminal.enter(&format!("bash -c 'echo $$ > pid; exec {top}'; echo ENDED $?"));
        terminal.until("it is shown", |text| text.contains("agent connected"));
        assert!(terminal.is_alternate() && !terminal.has_cursor());
    };
    terminal.enter("cd $(mktemp -d) && pwd | tr -d '\\n' && echo /HERE");
    let mut directory = String::new();
    terminal.until("a directory", |text| {
        let line = text.lines().find(|line| line.ends_with("/HERE") && line.starts_with('/'));
        directory = line.unwrap_or_default().trim_end_matches("/HERE").to_owned();
        !directory.is_empty()
    });
    terminal.enter("clear");
    start();
    terminal.press("C-c");
    assert_given_back(&terminal, "Ctrl-C ends it");
    start();
    terminal.press("Escape");
    assert_given_back(&terminal, "Escape ends it");
    start();
    let pid = std::fs::read_to_string(format!("{directory}/pid")).expect("its number");
    let killed = Command::new("sh").args(["-c", &format!("kill -TERM {}", pid.trim())]).status();
    assert!(killed.expect("a shell").success());
    assert_given_back(&terminal, "SIGTERM ends it");
    let _ = std::fs::remove_dir_all(directory);
}

#[test]
fn a_pipe_gets_one_plain_view_and_silence_is_an_error() {
    let (_origins, _agent, balancer) = scene();
    let top = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_balancer"));
        command.arg("top").args(arguments).env_clear().stdin(Stdio::null());
        command.output().expect("the binary starts")
    };
    let admin = balancer.admin().to_string();
    for arguments in [&["--admin", &admin][..], &["--admin", &admin, "--once"]] {
        let output = top(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(
            text.contains("agent connected") && text.contains("75.0 %") && !text.contains('\x1b'),
            "{text}"
        );
        assert!(!text.contains("q quit"), "{text}");
    }
    let by_variable = Command::new(env!("CARGO_BIN_EXE_balancer"))
        .args(["top", "--once"])
        .env_clear()
        .env("BALANCER_ADMIN", &admin)
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts");
    assert!(by_variable.status.success());
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("its address");
    let output = top(&["--admin", &nobody.to_string()]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains(&format!("no balancer answers at http://{nobody}: nobody listens there")),
        "{text}"
    );
    // Somebody answers, but no admin listener.
    let output = top(&["--admin", &balancer.address().to_string()]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(1) && text.starts_with("error: no balancer answers at "),
        "{text}"
    );
    let output = top(&["--admin", "off"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && text.contains("off"), "{text}");
}
