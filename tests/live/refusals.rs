//! Every way to be told no by the real binary: its own sentence, where it came from, what to do, and the exit code.
//!
//! What each wrong value of each setting is answered with is a table in `tests/cli`; here the process as a whole is
//! asked, with a real environment, real files and a real kernel.

use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use balancer::cli::settings::SETTINGS;

use crate::support::parts;

/// `balancer ARGUMENTS…` in `directory`, with nothing else in its environment.
fn balancer(arguments: &[&str], env: &[(&str, &str)], directory: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_balancer"));
    command.args(arguments).env_clear().env("BALANCER_ADMIN", "off").envs(env.iter().copied());
    command.current_dir(directory).stdin(Stdio::null()).output().expect("the binary starts")
}

/// The exit code and what stood on stderr.
fn refused(arguments: &[&str], env: &[(&str, &str)], directory: &Path) -> (Option<i32>, String) {
    let output = balancer(arguments, env, directory);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[track_caller]
fn assert_says(told: &(Option<i32>, String), code: i32, words: &[&str]) {
    let (found, text) = told;
    assert_eq!(*found, Some(code), "{text}");
    assert!(text.lines().any(|line| line.starts_with("error: ")), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    for word in words {
        assert!(text.contains(word), "no {word:?} in\n{text}");
    }
    assert!(!text.contains('\x1b'), "no colours into a pipe: {text}");
}

#[test]
fn every_setting_with_garbage_says_which_from_where_and_what_instead() {
    let directory = parts::scratch();
    for setting in SETTINGS {
        let env = [(setting.env, GARBAGE)];
        let told = refused(&["run"], &env, &directory);
        let name = format!("{} is \"{GARBAGE}\"", setting.env);
        let from = format!("from   environment variable {}", setting.env);
        assert_says(&told, 2, &[&name, &from, "want   ", "for example "]);
        let flag = format!("--{}", setting.flag);
        let told = refused(&["run", &flag, GARBAGE], &[], &directory);
        assert_says(
            &told,
            2,
            &[&format!("{flag} is \"{GARBAGE}\""), &format!("from   flag {flag}"), "want   "],
        );
        let told = refused(&["run", &flag, ""], &[], &directory);
        assert_says(&told, 2, &[&format!("{flag} is empty"), "want   "]);
        std::fs::write(directory.join(".env"), format!("# ours\n{}={GARBAGE}\n", setting.env))
            .expect("a file");
        // In the environment it would hide the line.
        let env: &[(&str, &str)] =
            if setting.env == "BALANCER_ADMIN" { &[("BALANCER_ADMIN", "")] } else { &[] };
        let told = refused(&["run"], env, &directory);
        assert_says(&told, 2, &[&name, "from   .env line 2", "want   "]);
        std::fs::remove_file(directory.join(".env")).expect("our file");
    }
    std::fs::remove_dir_all(directory).expect("our directory");
}

#[test]
fn what_is_missing_unknown_or_unreadable() {
    let directory = parts::scratch();
    let base = ["run", "--backend", "127.0.0.1:1", "--listen", "127.0.0.1:0"];
    let with = |more: &[&'static str]| [&base[..], more].concat();
    for (arguments, code, words) in [
        (vec!["run"], 2, &["nowhere to send requests", "--agent-port", "BALANCER_BACKENDS"][..]),
        (vec!["run", "--agent-port", "1"], 2, &["TARGET_PORT is not set", "want   "]),
        (with(&["--prot", "1"]), 2, &["there is no option \"--prot\"", "want   --port"]),
        (with(&["extra"]), 2, &["there is no argument \"extra\""]),
        (vec!["rum"], 2, &["there is no command \"rum\"", "balancer run"]),
        (
            with(&["--cores", "9999"]),
            2,
            &["core 9999 is not available; this host offers", "(--cores 9999)"],
        ),
        (
            with(&["--control-core", "9999"]),
            2,
            &["core 9999 is not available", "(--control-core 9999)"],
        ),
        (
            with(&["--env-file", "nowhere"]),
            2,
            &["cannot read \"nowhere\"", "from   flag --env-file", "--no-env-file"],
        ),
        (with(&["--env-file", "."]), 2, &["cannot read \".\""]),
        (
            vec!["run", "--listen", "192.0.2.1:80", "--backend", "a:1"],
            1,
            &["no interface here has the address 192.0.2.1", "try "],
        ),
        (
            with(&["--admin", "192.0.2.1:80"]),
            1,
            &["no interface here has the admin address", "--admin off"],
        ),
    ] {
        assert_says(&refused(&arguments, &[], &directory), code, words);
    }
    std::fs::write(directory.join(".env"), "TARGET_PORT=80\nnonsense\n").expect("a file");
    assert_says(
        &refused(&base, &[], &directory),
        2,
        &[".env line 2 is not KEY=value", "for example TARGET_PORT=3000"],
    );
    // Unreadable even for root: a link to itself.
    std::fs::remove_file(directory.join(".env")).expect("our file");
    symlink(".env", directory.join(".env")).expect("a link");
    assert_says(
        &refused(&base, &[], &directory),
        2,
        &["cannot read \".env\"", "from   the working directory", "or --no-env-file"],
    );
    std::fs::remove_dir_all(directory).expect("our directory");
}

#[test]
fn a_taken_port_and_a_taken_admin_port_name_their_flags() {
    let directory = parts::scratch();
    let taken = TcpListener::bind("127.0.0.1:0").expect("an ephemeral port");
    let address = taken.local_addr().expect("its address").to_string();
    let told = refused(&["run", "--backend", "a:1", "--listen", &address], &[], &directory);
    assert_says(&told, 1, &["is taken", "try --listen "]);
    let everywhere = TcpListener::bind("[::]:0").or_else(|_| TcpListener::bind("0.0.0.0:0"));
    let everywhere = everywhere.expect("an ephemeral port");
    let port = everywhere.local_addr().expect("its address").port();
    let told = refused(&["run", "--backend", "a:1", "--port", &port.to_string()], &[], &directory);
    let next = if port == u16::MAX { port - 1 } else { port + 1 };
    assert_says(&told, 1, &[&format!("port {port} is taken"), &format!("try --port {next}")]);
    let arguments = ["run", "--backend", "a:1", "--listen", "127.0.0.1:0", "--admin", &address];
    assert_says(
        &refused(&arguments, &[], &directory),
        1,
        &["the admin address", "is taken", "--admin off"],
    );
    std::fs::remove_dir_all(directory).expect("our directory");
}

/// `balancer run` under a limit that `ulimit` sets.
fn refused_under(limit: &str) -> (Option<i32>, String) {
    let directory = parts::scratch();
    let script =
        format!("ulimit {limit} && exec \"$0\" run --backend a:1 --listen 127.0.0.1:0 --cores 0");
    let output = Command::new("bash")
        .args(["-c", &script, env!("CARGO_BIN_EXE_balancer")])
        .env_clear()
        .env("BALANCER_ADMIN", "off")
        .current_dir(&directory)
        .stdin(Stdio::null())
        .output()
        .expect("bash runs");
    std::fs::remove_dir_all(directory).expect("our directory");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn too_little_locked_memory_is_refused_with_the_remedy() {
    assert_says(
        &refused_under("-l 64"),
        1,
        &["locked memory is limited to 64 KiB", "try     ulimit -l 8192", "LimitMEMLOCK="],
    );
}

#[test]
fn too_few_descriptors_are_refused_with_the_remedy() {
    let remedy = ["  try     ulimit -n ", "LimitNOFILE="];
    for limit in [8, 12, 63] {
        let told = refused_under(&format!("-n {limit}"));
        let allowed = format!("only {limit} descriptors are allowed");
        assert_says(&told, 1, &[&[allowed.as_str()], &remedy[..]].concat());
    }
    // So few that one thread or another may find none before anybody counts them.
    let told = refused_under("-n 5");
    assert_says(&told, 1, &remedy);
}

#[test]
fn a_kernel_that_refuses_io_uring_is_named_with_the_remedy() {
    let Some(python) = parts::find("python3") else { return };
    let directory = parts::scratch();
    for (errno, words) in [
        (1, ["the kernel refuses io_uring", "seccomp"]),
        (38, ["the kernel has no io_uring", "Linux 5.8"]),
    ] {
        let run = |command: &str| {
            Command::new(&python)
                .args([
                    "-c",
                    WITHOUT_IO_URING,
                    &errno.to_string(),
                    env!("CARGO_BIN_EXE_balancer"),
                    command,
                ])
                .args(["--backend", "a:1", "--listen", "127.0.0.1:0"])
                .env("BALANCER_ADMIN", "off")
                .current_dir(&directory)
                .stdin(Stdio::null())
                .output()
                .expect("python runs")
        };
        let output = run("run");
        let told = (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned());
        if told.1.contains("SKIPPED") {
            eprintln!("{}", told.1);
            return;
        }
        assert_says(&told, 1, &words);
        let output = run("check");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.code() == Some(1) && text.contains(words[0]), "{text}");
    }
    std::fs::remove_dir_all(directory).expect("our directory");
}

#[test]
fn check_tells_all_at_once_and_its_code_is_the_verdict() {
    let directory = parts::scratch();
    let judge = |arguments: &[&str], env: &[(&str, &str)]| {
        let output = balancer(arguments, env, &directory);
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let base = [
        "check",
        "--backend",
        "a:1",
        "--listen",
        "127.0.0.1:0",
        "--cores",
        "0",
        "--control-core",
        "0",
    ];
    let (code, text) = judge(&base, &[]);
    // What this host is like is not ours to say: it may deserve a warning.
    assert!(matches!(code, Some(0 | 3)), "{text}");
    assert!(text.contains("ok    settings ") && text.contains("ok    io_uring  "), "{text}");
    let (code, text) = judge(&base, &[("BALANCER_LISTENS", "1")]);
    assert_eq!(code, Some(3), "{text}");
    assert!(
        text.contains("warn  settings ") && text.contains("did you mean BALANCER_LISTEN?"),
        "{text}"
    );
    assert!(
        text.trim_end()
            .lines()
            .last()
            .is_some_and(|line| line.starts_with("balancer run would start, with "))
    );
    let taken = TcpListener::bind("127.0.0.1:0").expect("an ephemeral port");
    let address = taken.local_addr().expect("its address").to_string();
    let (code, text) = judge(&[&base[..], &["--admin", &address]].concat(), &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("FAIL  addresses ")
            && text.contains("is taken")
            && text.contains("try --admin"),
        "{text}"
    );
    // However wide the columns are.
    let flat = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let log = |path: &str| {
        let (code, text) = judge(&[&base[..], &["--access-log", path]].concat(), &[]);
        (code, flat(text))
    };
    assert!(log("access.log").1.contains("ok access log access.log will be made"));
    assert!(!directory.join("access.log").exists(), "nothing is changed");
    std::fs::write(directory.join("access.log"), "a line\n").expect("a file");
    assert!(log("access.log").1.contains("ok access log access.log can be written"));
    assert_eq!(std::fs::read(directory.join("access.log")).expect("our file"), b"a line\n");
    let (code, text) = log("nowhere/access.log");
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("FAIL access log the access log nowhere/access.log cannot be opened"),
        "{text}"
    );
    let (code, text) = judge(&["check", "--port", "80a"], &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("--port is \"80a\", not a port") && text.contains("ok    io_uring"),
        "{text}"
    );
    let (_, text) = judge(&[&base[..], &["--show-config"]].concat(), &[("REQUEST_TIMEOUT", "7")]);
    let row = |name: &str| {
        text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned()
    };
    for setting in SETTINGS {
        assert!(!row(&format!("--{} ", setting.flag)).is_empty(), "--{}: {text}", setting.flag);
    }
    let words: Vec<String> =
        row("--request-timeout ").split_whitespace().map(str::to_owned).collect();
    assert_eq!(words, ["--request-timeout", "REQUEST_TIMEOUT", "7", "environment"]);
    assert!(row("idle connections per backend and core ").ends_with("256"), "{text}");
    std::fs::remove_dir_all(directory).expect("our directory");
}

/// Not even a place for a log: those end in no slash.
const GARBAGE: &str = "?!/";
/// Runs a program (arguments 2 and on) under a filter that answers io_uring_setup with an errno (argument 1).
const WITHOUT_IO_URING: &str = r"
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def instruction(code, yes, no, k): return struct.pack('HBBI', code, yes, no, k)
LOAD, EQUAL, RETURN, SETUP = 0x20, 0x15, 0x06, 425
program = b''.join([
    instruction(LOAD, 0, 0, 0),
    instruction(EQUAL, 0, 1, SETUP),
    instruction(RETURN, 0, 0, 0x00050000 | int(sys.argv[1])),
    instruction(RETURN, 0, 0, 0x7fff0000),
])
held = ctypes.create_string_buffer(program)
prog = ctypes.create_string_buffer(struct.pack('HxxxxxxP', 4, ctypes.addressof(held)))
if libc.prctl(38, 1, 0, 0, 0) != 0 or libc.prctl(22, 2, prog, 0, 0) != 0:
    sys.exit('SKIPPED: the kernel takes no seccomp filter')
os.execv(sys.argv[2], sys.argv[2:])
";
