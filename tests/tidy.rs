//! The architecture's rules, held by reading the sources: floors, purity, unsafe, sizes, and tests without sleeps.
//!
//! Needs nothing but the files. Each rule is shown to bite at the bottom; a rule that cannot fail is worse than none.

use std::path::Path;

#[test]
fn the_house_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for top in ["src", "tests", "benches"] {
        collect(&root.join(top), &mut files);
    }
    assert!(files.len() > 5, "the sources were not found under {}", root.display());
    let mut faults = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a source is readable UTF-8");
        let path = file.strip_prefix(root).expect("under the root").to_string_lossy().into_owned();
        faults.extend(judge(&path, &text));
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

fn collect(directory: &Path, into: &mut Vec<std::path::PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for path in entries.map(|entry| entry.expect("a directory entry").path()) {
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Which modules of the crate a module may name, itself aside. A new module must say here where it lives.
fn may_import(module: &str) -> Option<&'static [&'static str]> {
    Some(match module {
        "time" | "metrics" | "access_log" => TOOLS,
        // Settings are typed by the rules that they set.
        "config" => GROUND,
        "http" => TOOLS,
        // A Snapshot is made of backends; nothing else of the ground floor knows them.
        "balance" => TOOLS,
        "cache" => &["time", "config", "metrics", "http", "access_log"],
        "io" => GROUND,
        "worker" | "control" => {
            &["time", "config", "metrics", "access_log", "http", "cache", "balance", "io"]
        }
        "main" | "lib" | "boot" | "cli" | "demo" | "check" | "top" | "notify" => ANY,
        _ => return None,
    })
}

const TOOLS: &[&str] = &["time", "config", "metrics"];
const GROUND: &[&str] = &["time", "config", "metrics", "access_log", "http", "cache", "balance"];
const ANY: &[&str] = &["*"];

/// What the ground floor may not name, and why.
const IMPURE: [(&str, &str); 19] = [
    ("TcpStream", "a socket"),
    ("TcpListener", "a socket"),
    ("UdpSocket", "a socket"),
    ("UnixStream", "a socket"),
    ("ToSocketAddrs", "name resolution"),
    ("socket2", "a socket"),
    ("libc", "a system call"),
    ("glommio", "the runtime"),
    ("tungstenite", "a socket"),
    ("Instant::now", "a clock"),
    ("SystemTime", "a clock"),
    ("rand::", "a random source"),
    ("env::", "the environment"),
    ("log::", "the log"),
    ("Mutex", "a lock"),
    ("RwLock", "a lock"),
    ("async ", "async"),
    (".await", "async"),
    ("thread::", "a thread"),
];

/// What no source outside tests contains.
const UNFINISHED: [&str; 4] = ["todo!", "unimplemented!", "dbg!", ".unwrap()"];

/// The one place in tests that sleeps, between two looks at a condition.
const MAY_SLEEP: &str = "tests/support/wait.rs";

const LINES_MAX: usize = 600;

/// Modules under src that exist in test builds only.
fn is_test_module(path: &str) -> bool {
    path.ends_with("_tests.rs") || path == "src/control/fake.rs"
}

/// Every fault of one file, each with its path and line.
fn judge(path: &str, text: &str) -> Vec<String> {
    let code = code_only(text);
    let own_end = tests_begin(&code);
    let is_src = path.starts_with("src/") && !is_test_module(path);
    let mut faults = Vec::new();
    let mut fault = |line: usize, what: &str| faults.push(format!("{path}:{line}: {what}"));

    let lines = text.lines().count();
    if lines > LINES_MAX {
        fault(lines, &format!("{lines} lines; past {LINES_MAX} it is two files"));
    }
    if !text.starts_with("//!") {
        fault(1, "a file opens with //! and what it decides");
    }
    for (number, line) in code.lines().enumerate().map(|(at, line)| (at + 1, line)) {
        let is_test = !is_src || number > own_end;
        if line.contains("#[ignore") {
            fault(number, "an ignored test");
        }
        if is_test && line.contains("thread::sleep") && path != MAY_SLEEP {
            fault(number, "a test that sleeps; wait for a condition with a deadline");
        }
        if has_word(line, "unsafe") {
            let above: Vec<&str> = text.lines().take(number).collect();
            let is_explained =
                above.iter().rev().take(SAFETY_WITHIN).any(|line| line.contains("SAFETY:"));
            // `unsafe_code` in an attribute is the permission, not the deed; has_word does not match it.
            if path.starts_with("src/")
                && !path.starts_with("src/io/")
                && !path.starts_with("src/io.rs")
            {
                fault(number, "unsafe outside src/io");
            } else if !is_explained {
                fault(number, "unsafe without a SAFETY: comment above it");
            }
        }
        if is_test {
            continue;
        }
        for word in UNFINISHED.iter().filter(|word| line.contains(*word)) {
            fault(number, &format!("{word} outside tests"));
        }
        if is_ground(path) {
            for (word, what) in IMPURE.iter().filter(|(word, _)| has_path(line, word)) {
                fault(number, &format!("the ground floor is pure: {word} is {what}"));
            }
        }
    }
    if is_src {
        faults.extend(floor_faults(path, &code, own_end));
    }
    faults
}

/// Imports that do not point downwards.
fn floor_faults(path: &str, code: &str, own_end: usize) -> Vec<String> {
    let module = module_of(path);
    let Some(allowed) = may_import(module) else {
        return vec![format!(
            "{path}:1: the module {module} has no floor; name it in tests/tidy.rs"
        )];
    };
    let own: String = code.lines().take(own_end).flat_map(|line| [line, "\n"]).collect();
    let mut faults = Vec::new();
    for (at, name) in crate_names(&own) {
        let is_allowed = allowed == ANY || name == module || allowed.contains(&name.as_str());
        if !is_allowed && may_import(&name).is_some() {
            let line = own[..at].matches('\n').count() + 1;
            faults.push(format!(
                "{path}:{line}: {module} may not import {name}; imports point downwards"
            ));
        }
    }
    if let Some(at) = own.find("super::super::") {
        let line = own[..at].matches('\n').count() + 1;
        faults.push(format!(
            "{path}:{line}: super::super:: hides where an import points; write crate::"
        ));
    }
    faults
}

fn module_of(path: &str) -> &str {
    let inside = path.strip_prefix("src/").unwrap_or(path);
    let first = inside.split('/').next().unwrap_or(inside);
    first.strip_suffix(".rs").unwrap_or(first)
}

fn is_ground(path: &str) -> bool {
    path.starts_with("src/") && GROUND.contains(&module_of(path))
}

/// The first names after `crate::`, groups opened one level, with their places.
fn crate_names(code: &str) -> Vec<(usize, String)> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.push((at, word(rest)));
            continue;
        };
        let mut depth = 0;
        let mut is_first = true;
        for (place, letter) in group.char_indices() {
            match letter {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => is_first = true,
                _ if depth == 0 && is_first && !letter.is_whitespace() => {
                    names.push((at, word(&group[place..])));
                    is_first = false;
                }
                _ => {}
            }
        }
    }
    names
}

fn word(text: &str) -> String {
    text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
}

/// Number of the last line before the tests at the bottom of a file.
fn tests_begin(code: &str) -> usize {
    let lines: Vec<&str> = code.lines().collect();
    let is_start = |at: &usize| {
        let next = lines.get(at + 1).map_or("", |line| line.trim_start());
        lines[*at].trim() == "#[cfg(test)]"
            && (next.starts_with("mod ") || next.starts_with("pub(crate) mod "))
    };
    (0..lines.len()).find(is_start).unwrap_or(lines.len())
}

fn has_word(line: &str, word: &str) -> bool {
    let is_part = |letter: Option<char>| {
        letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '_')
    };
    line.match_indices(word).any(|(at, _)| {
        !is_part(line[..at].chars().next_back()) && !is_part(line[at + word.len()..].chars().next())
    })
}

/// As [`has_word`] at the front only: `env::` is not found in `my_env::`, `log::` not in `catalog::`.
fn has_path(line: &str, path: &str) -> bool {
    let is_part = |letter: Option<char>| {
        letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '_')
    };
    line.match_indices(path)
        .any(|(at, _)| path.starts_with('.') || !is_part(line[..at].chars().next_back()))
}

/// The text with comments and the insides of literals blanked, line by line as before.
fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let length = skipped(rest, at.checked_sub(1).map(|before| bytes[before]));
        if length > 0 {
            out.extend(rest[..length].chars().filter(|letter| *letter == '\n'));
            at += length;
        } else {
            let letter = rest.chars().next().expect("at is inside and on a boundary");
            out.push(letter);
            at += letter.len_utf8();
        }
    }
    out
}

/// Length of the comment or literal that begins here, or 0.
fn skipped(rest: &str, before: Option<u8>) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return rest.find("*/").map_or(rest.len(), |end| end + 2);
    }
    let is_name = before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let opened = rest.strip_prefix('b').unwrap_or(rest);
    if let Some(raw) = opened.strip_prefix('r').filter(|_| !is_name) {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let head = rest.len() - raw.len() + hashes + 1;
            return rest[head..].find(&end).map_or(rest.len(), |at| head + at + end.len());
        }
    }
    if rest.starts_with('"') {
        return closed(rest, '"').unwrap_or(rest.len());
    }
    // A character literal, not a lifetime: it closes after one character or an escape.
    if rest.starts_with('\'') {
        let mut letters = rest.char_indices().skip(1);
        return match letters.next() {
            Some((_, '\\')) => closed(rest, '\'').unwrap_or(0),
            Some(_) => {
                letters.next().filter(|(_, letter)| *letter == '\'').map_or(0, |(at, _)| at + 1)
            }
            None => 0,
        };
    }
    0
}

/// Length of a literal up to its unescaped closing mark.
fn closed(rest: &str, mark: char) -> Option<usize> {
    let mut is_escaped = false;
    for (at, letter) in rest.char_indices().skip(1) {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if letter == mark => return Some(at + 1),
            _ => {}
        }
    }
    None
}

const SAFETY_WITHIN: usize = 4;

mod proof {
    //! Every rule bites on a bad snippet and leaves a good one alone.

    use super::{code_only, judge};

    /// The faults of a snippet, opened as the style wants it.
    fn faults(path: &str, snippet: &str) -> String {
        judge(path, &format!("//! A file.\n{snippet}")).join("\n")
    }

    #[track_caller]
    fn bites(path: &str, snippet: &str, what: &str) {
        let found = faults(path, snippet);
        assert!(found.contains(what), "{path}: {snippet:?} gives {found:?}, not {what:?}");
    }

    #[track_caller]
    fn passes(path: &str, snippet: &str) {
        assert_eq!(faults(path, snippet), "", "{path}: {snippet:?}");
    }

    #[test]
    fn imports_point_downwards() {
        bites("src/http/head.rs", "use crate::worker::Shard;", "http may not import worker");
        bites("src/http/head.rs", "use crate::balance::Backend;", "http may not import balance");
        bites("src/balance/picker.rs", "use crate::http::Head;", "balance may not import http");
        bites("src/io/driver.rs", "fn f(s: crate::worker::Shard) {}", "io may not import worker");
        bites("src/worker/conn.rs", "use crate::control;", "worker may not import control");
        bites(
            "src/control/link.rs",
            "use crate::{balance::{Backend, Score}, worker::Tick};",
            "control may not import worker",
        );
        bites("src/worker/conn.rs", "use crate::boot::Error;", "worker may not import boot");
        bites("src/time.rs", "use super::super::io;", "super::super::");
        bites("src/bridge.rs", "", "bridge has no floor");
        bites("src/http/head.rs", "\nuse crate::io;", "src/http/head.rs:3:");
        passes(
            "src/cache/policy.rs",
            "use crate::http::RequestHead;\nuse crate::{time::Instant, config};",
        );
        passes(
            "src/worker/conn.rs",
            "use crate::{balance::Snapshot, http, io::{Io, Stream}, worker::shard};",
        );
        passes("src/boot.rs", "use crate::{control, worker};");
        passes("src/http/head.rs", "// not crate::worker\nfn f() { g(\"crate::worker\") }");
        passes("src/http/head.rs", "#[cfg(test)]\nmod tests {\n    use crate::worker::Shard;\n}");
    }

    #[test]
    fn the_ground_floor_is_pure() {
        for snippet in [
            "use std::net::TcpStream;",
            "let now = std::time::Instant::now();",
            "let x = rand::random::<u64>();",
            "let home = std::env::var(\"HOME\");",
            "log::warn!(\"x\");",
            "static A: std::sync::Mutex<u8> = std::sync::Mutex::new(0);",
            "async fn f() {}",
            "f().await",
            "std::thread::yield_now();",
            "use socket2::Socket;",
        ] {
            bites("src/balance/picker.rs", snippet, "the ground floor is pure");
            passes("src/worker/conn.rs", snippet);
        }
        passes(
            "src/http/head.rs",
            "use std::net::SocketAddr; use crate::time::Instant; fn f() { catalog::g() }",
        );
        passes("src/http/head.rs", "/// async, log:: and Mutex in words\nfn f() {}");
        passes("src/http/head.rs", "#[cfg(test)]\nmod tests {\n    fn f() { rand::random() }\n}");
    }

    #[test]
    fn unsafe_stays_in_io_and_is_explained() {
        bites("src/worker/conn.rs", "// SAFETY: no\nunsafe { f() }", "unsafe outside src/io");
        bites("src/io/socket.rs", "unsafe { f() }", "without a SAFETY: comment");
        bites(
            "src/io/socket.rs",
            "// SAFETY: far away\n\n\n\n\nunsafe { f() }",
            "without a SAFETY: comment",
        );
        bites("tests/allocs.rs", "unsafe impl A for B {}", "without a SAFETY: comment");
        passes(
            "src/io/socket.rs",
            "#![allow(unsafe_code)]\n// SAFETY: the descriptor is ours.\nunsafe { f() }",
        );
        passes("src/lib.rs", "#![deny(unsafe_code)]");
    }

    #[test]
    fn files_are_small_finished_and_opened_with_their_purpose() {
        bites("src/http/head.rs", &"\n".repeat(600), "601 lines");
        passes("src/http/head.rs", &"\n".repeat(599));
        assert!(judge("src/http/head.rs", "fn f() {}").join("").contains("opens with //!"));
        bites("src/http/head.rs", "fn f() { todo!() }", "todo! outside tests");
        bites("src/worker/conn.rs", "x.unwrap();", ".unwrap() outside tests");
        passes("src/worker/conn.rs", "#[cfg(test)]\nmod tests {\n    fn f() { x.unwrap() }\n}");
    }

    #[test]
    fn tests_neither_sleep_nor_rest() {
        bites("tests/live/pool.rs", "std::thread::sleep(D);", "a test that sleeps");
        bites(
            "src/worker/conn.rs",
            "#[cfg(test)]\nmod tests {\n    fn f() { thread::sleep(D) }\n}",
            "a test that sleeps",
        );
        bites("tests/live/pool.rs", "#[test]\n#[ignore]\nfn f() {}", "an ignored test");
        passes("tests/support/wait.rs", "std::thread::sleep(D);");
    }

    #[test]
    fn literals_and_comments_are_not_code() {
        let text = "a(\"x \\\" // y\"); // z\nb('\"', '\\'', b'/', 'c'); /* d\n */ e<'f>(r#\"g \" h\"#, br\"i\"); \u{e9}";
        assert_eq!(
            code_only(text),
            "a(); \nb(, , b, ); \n e<'f>(, b); \u{e9}".replace(", b);", ", );")
        );
    }
}
