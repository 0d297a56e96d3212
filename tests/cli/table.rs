//! Every setting in every source with every kind of wrong value: each refusal has its own sentence, its source and its
//! remedy.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use balancer::cli::settings::{self, SETTINGS, Setting};
use balancer::cli::{Command, Error, Run, Source, parse};

use super::{refused, run_in, world};

/// A setting with one good text and texts that are wrong in each way.
pub struct Row {
    pub setting: &'static Setting,
    pub good: &'static str,
    pub wrong: &'static [(&'static str, &'static str)],
}

const SMALL: &str = "which is too small";
const LARGE: &str = "which is too large";
const TIME: &str = "not a duration";
const NETWORK: &str = "not a network";
const LONG: &str = "whose prefix is too long";
const BITS: &str = "whose address has bits set behind the prefix";
const TIMES: &[(&str, &str)] = &[
    ("soon", TIME),
    ("nan", TIME),
    ("inf", TIME),
    ("1e9", TIME),
    ("5 years", TIME),
    ("0", SMALL),
    ("0.9ms", SMALL),
    ("-1", SMALL),
    ("-1s", SMALL),
    ("24.1h", LARGE),
    ("999999999999999999999999", LARGE),
];
const PORTS: &[(&str, &str)] = &[
    ("80a", "not a port"),
    ("--cores", "not a port"),
    ("1.5", "not a port"),
    ("0", SMALL),
    ("-1", SMALL),
    ("65536", LARGE),
    ("99999999999999999999", LARGE),
];

#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    Row { setting: &settings::CORES, good: "1-2,4", wrong: &[("two", "not a list of cores"), ("3-1", "not a list of cores"), ("1,,2", "not a list of cores"), ("-1", "not a list of cores")] },
    Row { setting: &settings::CONTROL_CORE, good: "3", wrong: &[("first", "not a core"), ("1-2", "not a core"), ("-1", SMALL), ("99999999999999999999", LARGE)] },
    Row { setting: &settings::STEER, good: "cpu", wrong: &[("hash", "not a way to steer"), ("Accept", "not a way to steer")] },
    Row { setting: &settings::PORT, good: "81", wrong: PORTS },
    Row { setting: &settings::LISTEN, good: "127.0.0.1:0,[::1]:81", wrong: &[("here", "not an address"), ("localhost:80", "a name; an IP address is needed"), ("1.2.3.4:x", "not an address"), ("1.2.3.4:-1", SMALL), ("1.2.3.4:65536", LARGE), (":-1", SMALL), ("[::1]:65536", LARGE)] },
    Row { setting: &settings::MAX_CONNECTIONS, good: "100", wrong: &[("many", "not a number of connections"), ("0", SMALL), ("-1", SMALL), ("10000001", LARGE)] },
    Row { setting: &settings::MAX_CONNECTIONS_PER_IP, good: "20", wrong: &[("few", "not a number of connections"), ("1.5", "not a number of connections"), ("0", SMALL), ("-1", SMALL), ("10000001", LARGE)] },
    Row { setting: &settings::TRUSTED_PROXIES, good: "10.0.0.0/8,::1,2001:db8::/32", wrong: &[("everybody", "a name; an IP address is needed"), ("proxy.internal/24", "a name; an IP address is needed"), ("10.0.0", NETWORK), ("10.0.0.0/", NETWORK), ("10.0.0.0/-1", NETWORK), ("10.0.0.0/255.0.0.0", NETWORK), ("10.0.0.1:80", NETWORK), ("[::1]", NETWORK), ("10.0.0.0/33", LONG), ("::/129", LONG), ("::/999999999999999999999", LONG), ("10.0.0.1/8", BITS), ("2001:db8::1/64", BITS)] },
    Row { setting: &settings::TAKEOVER, good: "/run/balancer/takeover.sock", wrong: &[("/run/balancer/", "which is a directory")] },
    Row { setting: &settings::AGENT, good: "ws://agent:4000/ws", wrong: &[("agent:4000", "not a ws:// URL"), ("http://agent", "not a ws:// URL"), ("wss://agent", "and TLS is not spoken to the agent"), ("ws://agent:0", "whose port is too small"), ("ws://agent:65536", "whose port is too large")] },
    Row { setting: &settings::AGENT_PORT, good: "4000", wrong: PORTS },
    Row { setting: &settings::AGENT_BACKOFF, good: "10ms..1m", wrong: &[("1s", "not a range of waits"), ("a..b", "not a range of waits"), ("2s..1s", "which ends before it begins"), ("0..1s", SMALL), ("1s..25h", LARGE)] },
    Row { setting: &settings::TARGET_PORT, good: "3000", wrong: PORTS },
    Row { setting: &settings::BACKEND, good: "a:1=2,[::1]:3", wrong: &[("a b", "not a backend"), ("a:b", "not a backend"), ("a:1=x", "not a backend"), ("a:0", "whose port is too small"), ("a:65536", "whose port is too large"), ("a:1=-1", "whose score is too small"), ("a:1=101", "whose score is too large"), ("::1", "and an IPv6 address needs brackets")] },
    Row { setting: &settings::BALANCE, good: "weighted-random", wrong: &[("fair", "not a policy"), ("P2C", "not a policy")] },
    Row { setting: &settings::HEALTH_PATH, good: "/healthz?deep=1", wrong: &[("healthz", "not a path"), ("/a b", "not a path"), ("/a#b", "not a path"), ("/\u{e9}", "not a path")] },
    Row { setting: &settings::HEALTH_INTERVAL, good: "500ms", wrong: &[("soon", TIME), ("nan", TIME), ("99ms", SMALL), ("24.1h", LARGE)] },
    Row { setting: &settings::HEALTH_TIMEOUT, good: "2s", wrong: TIMES },
    Row { setting: &settings::CACHE, good: "on", wrong: &[("yes", "not on or off"), ("ON", "not on or off")] },
    Row { setting: &settings::CACHE_MODE, good: "rfc", wrong: &[("strict", "not a mode")] },
    Row { setting: &settings::CACHE_BYTES, good: "64MiB", wrong: &[("much", "not a size"), ("1023KiB", SMALL), ("17TiB", LARGE)] },
    Row { setting: &settings::STATIC_TTL, good: "0", wrong: &[("soon", TIME), ("nan", TIME), ("-1", SMALL), ("24.1h", LARGE)] },
    Row { setting: &settings::CACHE_CAPACITY, good: "0", wrong: &[("lots", "not a number of entries"), ("1e3", "not a number of entries"), ("-1", SMALL), ("1000000001", LARGE)] },
    Row { setting: &settings::REQUEST_TIMEOUT, good: "0.5", wrong: TIMES },
    Row { setting: &settings::CONNECT_TIMEOUT, good: "500ms", wrong: TIMES },
    Row { setting: &settings::IDLE_TIMEOUT, good: "5m", wrong: TIMES },
    Row { setting: &settings::HEADER_TIMEOUT, good: "1h", wrong: TIMES },
    Row { setting: &settings::BODY_TIMEOUT, good: "1s", wrong: TIMES },
    Row { setting: &settings::TUNNEL_TIMEOUT, good: "24h", wrong: TIMES },
    Row { setting: &settings::DRAIN_TIMEOUT, good: "1ms", wrong: TIMES },
    Row { setting: &settings::BACKEND_MAX_INFLIGHT, good: "100", wrong: &[("some", "not a number of requests"), ("0", SMALL), ("1000001", LARGE)] },
    Row { setting: &settings::QUEUE_LENGTH, good: "0", wrong: &[("long", "not a number of requests"), ("-1", SMALL), ("1000001", LARGE)] },
    Row { setting: &settings::QUEUE_TIMEOUT, good: "1ms", wrong: TIMES },
    Row { setting: &settings::MAX_HEAD_BYTES, good: "64KiB", wrong: &[("big", "not a size"), ("1.5KiB", "not a size"), ("511", SMALL), ("-1", SMALL), ("1025KiB", LARGE), ("99999999999999999999GiB", LARGE)] },
    Row { setting: &settings::MAX_FIELDS, good: "64", wrong: &[("few", "not a number of fields"), ("0", SMALL), ("1001", LARGE)] },
    Row { setting: &settings::MAX_REQUEST_LINE, good: "4KiB", wrong: &[("long", "not a size"), ("127", SMALL), ("2MiB", LARGE)] },
    Row { setting: &settings::MAX_BODY, good: "64MiB", wrong: &[("infinite", "not a size"), ("-1", SMALL), ("8388608TiB", LARGE)] },
    Row { setting: &settings::ADMIN, good: "127.0.0.1:0", wrong: &[("here", "not an address or off"), ("localhost:80", "a name; an IP address is needed"), ("1.2.3.4:x", "not an address or off"), ("1.2.3.4:65536", LARGE), (":-1", SMALL)] },
    Row { setting: &settings::ACCESS_LOG, good: "/var/log/a.log", wrong: &[("/var/log/", "which is a directory")] },
    Row { setting: &settings::ACCESS_FORMAT, good: "json", wrong: &[("csv", "not a format"), ("JSON", "not a format")] },
    Row { setting: &settings::LOG, good: "warn,balancer=debug", wrong: &[("loud", "not a log level"), ("balancer=loud", "not a log level")] },
];

/// A flag's value as an argument of its own, whatever it begins with.
fn with_flag(setting: &Setting, value: &str) -> Result<Run, Error> {
    let words = ["balancer", "run", &format!("--{}", setting.flag), value].map(OsString::from);
    match parse(words.into_iter(), &world(&[], None))? {
        Command::Run(run) => Ok(*run),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_setting_is_in_the_table() {
    let missing: Vec<_> = SETTINGS
        .iter()
        .filter(|s| !TABLE.iter().any(|row| row.setting.flag == s.flag))
        .map(|s| s.flag)
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    for setting in SETTINGS {
        assert!(setting.want.contains("for example "), "--{} gives no example", setting.flag);
        assert!(!setting.help.is_empty() && !setting.env.is_empty() && !setting.noun.is_empty());
    }
}

#[test]
fn every_wrong_value_gets_its_own_sentence_with_source_and_remedy() {
    for row in TABLE {
        let Setting { flag, env, want, .. } = *row.setting;
        for (value, why) in row.wrong {
            let cases = [
                (with_flag(row.setting, value), format!("--{flag}"), format!("flag --{flag}")),
                (
                    run_in("", &world(&[(env, value)], None)),
                    env.into(),
                    format!("environment variable {env}"),
                ),
                (
                    run_in("", &world(&[], Some(&format!("# settings\n{env}=\"{value}\"")))),
                    env.into(),
                    ".env line 2".into(),
                ),
            ];
            for (result, name, from) in cases {
                let wanted = format!(
                    "error: {name} is \"{value}\", {why}\n  from   {from}\n  want   {want}"
                );
                assert_eq!(result.unwrap_err().to_string(), wanted);
            }
        }
    }
}

#[test]
fn an_empty_flag_is_refused_and_an_empty_variable_is_unset() {
    for row in TABLE {
        let Setting { flag, env, want, .. } = *row.setting;
        for empty in ["", "  "] {
            let error = with_flag(row.setting, empty).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("error: --{flag} is empty\n  from   flag --{flag}\n  want   {want}")
            );
            let value =
                run_in("--backend a:1", &world(&[(env, empty)], Some(&format!("{env}={empty}"))))
                    .unwrap()
                    .values
                    .into_iter()
                    .find(|value| value.setting == flag)
                    .unwrap();
            let wanted = if flag == "backend" { Source::Flag } else { Source::Default };
            assert_eq!(value.source, wanted, "{flag}");
        }
        if row.setting.is_value_optional {
            let line = format!("--backend a:1 --{flag}");
            let value = run_in(&line, &world(&[], None)).unwrap().values;
            assert!(value.iter().any(|value| value.setting == flag && value.text == "on"));
            continue;
        }
        let error = run_in(&format!("--{flag}"), &world(&[], None)).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("error: --{flag} has no value\n  from   flag --{flag}\n  want   {want}")
        );
    }
}

#[test]
fn a_flag_goes_before_the_environment_before_the_file_before_the_default() {
    for row in TABLE {
        let Setting { flag, env, .. } = *row.setting;
        // What is needed to start at all, unless it is the setting under test.
        let rest = if matches!(flag, "backend" | "agent" | "agent-port") {
            "--target-port 1"
        } else {
            "--backend a:1"
        };
        let rest = if flag == "target-port" { "--backend a" } else { rest };
        let rest = match flag {
            "agent-backoff" => "--backend a:1 --agent ws://x --target-port 1",
            "access-format" => "--backend a:1 --access-log -",
            "health-interval" | "health-timeout" => "--backend a:1 --health-path /x",
            _ => rest,
        };
        let file = format!("{env}={}", row.good);
        // The worse sources say rubbish, which must not even be looked at.
        let cases = [
            (
                format!("{rest} --{flag} {}", row.good),
                vec![(env, "?")],
                Some("?=".replace('?', env)),
                Source::Flag,
            ),
            (rest.to_owned(), vec![(env, row.good)], Some(format!("{env}=?")), Source::Environment),
            (
                rest.to_owned(),
                vec![(env, "")],
                Some(file),
                Source::File { path: ".env".into(), line: 1 },
            ),
        ];
        for (line, variables, file, source) in cases {
            let run = run_in(&line, &world(&variables, file.as_deref()))
                .unwrap_or_else(|e| panic!("{line}: {e}"));
            let value = run.values.iter().find(|value| value.setting == flag).unwrap();
            assert_eq!((value.text.as_str(), &value.source), (row.good, &source), "{flag}");
            assert_eq!(run.warnings, Vec::<String>::new(), "{flag}");
        }
    }
}

#[test]
fn a_setting_given_twice_or_not_in_utf8_is_refused() {
    for row in TABLE {
        let Setting { flag, env, want, is_repeatable, .. } = *row.setting;
        if !is_repeatable {
            let error = refused(&format!("--{flag} {0} --{flag} {0}", row.good));
            let wanted = format!(
                "error: --{flag} is given 2 times\n  from   flag --{flag}\n  want   {want}"
            );
            assert_eq!(error, wanted);
        }
        let bytes = OsString::from_vec(b"a\xff".to_vec());
        let mut strange = world(&[], None);
        strange.variables.insert(env.into(), bytes.clone());
        let error = run_in("", &strange).unwrap_err().to_string();
        let wanted = format!(
            "error: {env} is \"a\u{fffd}\", not UTF-8\n  from   environment variable {env}\n  want   {want}"
        );
        assert_eq!(error, wanted);
        let words = ["balancer".into(), "run".into(), format!("--{flag}").into(), bytes];
        let error = parse(words.into_iter(), &world(&[], None)).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("error: --{flag} is \"a\u{fffd}\", not UTF-8\n")),
            "{error}"
        );
    }
}
