//! The command line from the outside: every setting, every source, every way to be wrong, with an injected world.

mod table;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use balancer::access_log::Format;
use balancer::balance::Balance;
use balancer::cli::settings::{self, SETTINGS};
use balancer::cli::{Command, Demo, Environment, Error, Run, parse};
use balancer::config::Takeover;
use balancer::io::affinity::Cpus;

use table::TABLE;

/// A world of eight cores, with a `.env` if one is given.
fn world(variables: &[(&str, &str)], dotenv: Option<&str>) -> Environment {
    let dotenv = dotenv.map(str::to_owned);
    Environment {
        variables: variables.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        read_file: Box::new(move |path: &Path| match (path.to_str(), &dotenv) {
            (Some(".env"), Some(text)) => Ok(text.clone().into_bytes()),
            (Some("conf/prod.env"), _) => Ok(b"# production\nTARGET_PORT=4242\n".to_vec()),
            (Some("locked.env"), _) => Err(io::Error::from(io::ErrorKind::PermissionDenied)),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        }),
        cpus: Cpus::new(&[0, 1, 2, 3, 4, 5, 6, 7], |_| None),
        nofile: 20_000,
    }
}

fn arguments(line: &str) -> impl Iterator<Item = OsString> {
    let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
    std::iter::once(OsString::from("balancer")).chain(words)
}

fn run_in(line: &str, world: &Environment) -> Result<Run, Error> {
    match parse(arguments(&format!("run {line}")), world)? {
        Command::Run(run) => Ok(*run),
        other => panic!("{line:?} gave {other:?}"),
    }
}

fn run(line: &str) -> Run {
    run_in(line, &world(&[], None)).unwrap_or_else(|error| panic!("{line:?}: {error}"))
}

fn refused(line: &str) -> String {
    run_in(line, &world(&[], None)).expect_err(line).to_string()
}

#[test]
fn the_values_arrive() {
    let mut line = String::from("--target-port 3000");
    for row in TABLE
        .iter()
        .filter(|row| row.setting.flag != "target-port" && row.setting.flag != "agent-port")
    {
        line.push_str(&format!(" --{} {}", row.setting.flag, row.good));
    }
    let Run { config, log, warnings, .. } = run(&line);
    let ms = Duration::from_millis;
    assert_eq!((config.cores, config.control_core), (vec![1, 2, 4], 3));
    let listen: Vec<SocketAddr> = vec!["127.0.0.1:0".parse().unwrap(), "[::1]:81".parse().unwrap()];
    assert_eq!(config.listen, listen);
    let agent = config.agent.unwrap();
    assert_eq!((agent.host.as_str(), agent.port, agent.path.as_str()), ("agent", 4000, "/ws"));
    assert_eq!((agent.backoff_min, agent.backoff_max), (ms(10), ms(60_000)));
    let backends: Vec<_> =
        config.backends.iter().map(|b| (b.host.as_str(), b.port, b.score.get())).collect();
    assert_eq!(backends, [("a", Some(1), 2.0), ("::1", Some(3), 100.0)]);
    assert_eq!((config.target_port, config.balance), (Some(3000), Balance::WeightedRandom));
    assert_eq!((config.cache, config.connections_max), (None, 100));
    assert_eq!(config.connections_per_ip_max, Some(20));
    let is_trusted = |text: &str| {
        let address = text.parse().unwrap();
        config.trusted_proxies.iter().any(|network| network.contains(address))
    };
    assert_eq!(
        ["10.9.9.9", "::1", "2001:db8::1", "11.0.0.0", "::2"].map(is_trusted),
        [true, true, true, false, false]
    );
    let times = config.timeouts;
    assert_eq!((times.request, times.connect, times.idle), (ms(500), ms(500), ms(300_000)));
    assert_eq!((times.header, times.body), (ms(3_600_000), ms(1000)));
    assert_eq!((times.tunnel, times.drain), (ms(86_400_000), ms(1)));
    let head = config.head;
    assert_eq!((head.head_bytes_max, head.fields_max, head.line_bytes_max), (65_536, 64, 4096));
    assert_eq!(config.body_bytes_max, Some(64 << 20));
    assert_eq!(log, "warn,balancer=debug");
    assert_eq!(warnings, ["--port is not used: every address to listen on names a port"]);
}

#[test]
fn the_defaults_are_those_the_help_names() {
    let Run { config, log, warnings, values } = run("--backend a:1");
    // Each default of the help, given as a flag, must change nothing.
    let base = "--agent ws://a --target-port 1";
    let mut line = String::from(base);
    for setting in SETTINGS.iter().filter(|s| !s.default.is_empty() && !s.default.contains(' ')) {
        line.push_str(&format!(" --{} {}", setting.flag, setting.default));
    }
    assert!(line.contains("--request-timeout 30s"));
    let (same, with_agent) = (run(&line), run(base));
    assert_eq!(format!("{:?}", same.config), format!("{:?}", with_agent.config));
    assert_eq!(same.log, log);
    assert_eq!(config.listen, ["[::]:8080".parse().unwrap()]);
    assert_eq!((config.cores, config.control_core), (vec![1, 2, 3, 4, 5, 6, 7], 0));
    // 20,000 descriptors: 64 of our own, 128 for probes and checks, 32 for each of 7 workers, one in 16 for the cache.
    assert_eq!(config.connections_max, (20_000 - 64 - 128 - 7 * 32 - 1250) / 2);
    assert_eq!(config.agent, None);
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(values.len(), SETTINGS.len());
}

#[test]
fn rustybalancers_variables_alone_start_it() {
    let names = [
        ("HOST_PORT_HTTP_BALANCER", "8000"),
        ("HOST_PORT_WS_DEPLOYMENT_AGENT", "4000"),
        ("TARGET_PORT", "3000"),
        ("CACHE_CAPACITY", "500"),
        ("REQUEST_TIMEOUT", "7"),
    ];
    let file: String = names.iter().map(|(name, value)| format!("{name}={value}\r\n")).collect();
    for world in [world(&names, None), world(&[], Some(&file))] {
        let config = run_in("", &world).unwrap().config;
        assert_eq!(config.listen, ["[::]:8000".parse().unwrap()]);
        let agent = config.agent.unwrap();
        assert_eq!(
            (agent.host.as_str(), agent.port, agent.path.as_str()),
            ("deployment-agent", 4000, "/ws")
        );
        let entries = config.cache.map(|cache| cache.entries);
        assert_eq!((config.target_port, entries), (Some(3000), Some(500)));
        assert_eq!(config.timeouts.request, Duration::from_secs(7));
    }
}

#[test]
fn somebody_must_be_named_and_have_a_port() {
    let nobody = "error: there is nowhere to send requests: no deployment agent and no backend
  from   neither flag, environment nor .env names one
  want   --agent-port 4000 (HOST_PORT_WS_DEPLOYMENT_AGENT) for scores from a deployment agent,
         or --backend app-1:3000 (BALANCER_BACKENDS), one for each backend";
    assert_eq!(refused(""), nobody);
    assert_eq!(refused("--target-port 3000"), nobody);
    let portless = |why: &str| {
        format!(
            "error: TARGET_PORT is not set, and {why}\n  from   neither flag --target-port, environment nor .env\n  \
             want   a number from 1 to 65535, for example --target-port 3000"
        )
    };
    let by_agent = portless("the agent names backends without ports");
    assert_eq!(refused("--agent-port 4000"), by_agent);
    assert_eq!(refused("--agent-port 4000 --backend a:1"), by_agent);
    assert_eq!(refused("--backend a:1 --backend b"), portless("backend b names no port"));
    assert_eq!(run("--backend a:1 --backend b --target-port 2").config.backends.len(), 2);
}

#[test]
fn cores_and_control_core() {
    let plan = |line: &str| {
        let config = run(&format!("--backend a:1 {line}")).config;
        (config.cores, config.control_core)
    };
    assert_eq!(plan("-c 2-4,6"), (vec![2, 3, 4, 6], 0));
    assert_eq!(plan("--cores all --control-core 7"), ((0..8).collect(), 7));
    assert_eq!(plan("--control-core 7"), ((0..7).collect(), 7));
    assert_eq!(
        refused("--backend a:1 --cores 2-7,12"),
        "error: core 12 is not available; this host offers 0-7        (--cores 2-7,12)"
    );
    assert_eq!(
        refused("--backend a:1 --control-core 8"),
        "error: core 8 is not available; this host offers 0-7         (--control-core 8)"
    );
    let from = |variables: &[(&str, &str)], file| {
        run_in("--backend a:1", &world(variables, file)).unwrap_err().to_string()
    };
    assert!(from(&[("BALANCER_CORES", "9")], None).ends_with("   (BALANCER_CORES=9)"));
    assert!(from(&[], Some("\nBALANCER_CORES=9")).ends_with("   (BALANCER_CORES=9, .env line 2)"));
}

#[test]
fn what_contradicts_is_refused_and_what_is_useless_warned_of() {
    let first = |line: &str| refused(line).lines().next().unwrap().to_owned();
    assert_eq!(first("--backend a:1 --backend A:1"), "error: --backend names a twice");
    assert_eq!(
        first("--backend a --backend a:5 --target-port 5"),
        "error: --backend names a twice"
    );
    assert_eq!(
        first("--backend a:1 --listen 127.0.0.1 --listen 127.0.0.1:8080"),
        "error: --listen names 127.0.0.1:8080 twice"
    );
    assert_eq!(
        first("--backend a:1 --max-head-bytes 1KiB --max-request-line 2KiB"),
        "error: --max-request-line is \"2KiB\", more than the whole head may have (--max-head-bytes)"
    );
    let networks = vec!["10.0.0.1"; 1001].join(",");
    assert_eq!(
        first(&format!("--backend a:1 --trusted-proxies {networks}")),
        "error: --trusted-proxies names 1001 networks, and 1000 are the most"
    );
    // Nobody spoke of the line.
    assert_eq!(run("--backend a:1 --max-head-bytes 1KiB").config.head.line_bytes_max, 1024);
    assert_eq!(
        run("--agent ws://a:1 --agent-port 2 --target-port 3").warnings,
        ["--agent-port is not used: the agent's URL names a port"]
    );
    assert_eq!(
        run("--backend a:1 --health-interval 5s").warnings,
        ["--health-interval is not used: there is no --health-path"]
    );
    assert_eq!(
        run("--backend a:1 --max-connections 50 --max-connections-per-ip 51").warnings,
        ["--max-connections-per-ip is not used: all clients together may have fewer"]
    );
    let health = run("--backend a:1 --health-path /up --health-timeout 300ms").config.health;
    let health = health.unwrap();
    assert_eq!((health.path.as_str(), health.interval), ("/up", Duration::from_secs(2)));
    assert_eq!(health.timeout, Duration::from_millis(300));
    let warned = run("--backend a:1 --access-format json");
    assert_eq!(warned.warnings, ["--access-format is not used: there is no --access-log"]);
    assert_eq!(warned.config.access_log, None);
    assert_eq!(run("--backend a:1 --access-log off").config.access_log, None);
    let log = run("--backend a:1 --access-log - --access-format json").config.access_log.unwrap();
    assert_eq!((log.path, log.format), (None, Format::Json));
    let log = run("--backend a:1 --access-log a.log").config.access_log.unwrap();
    assert_eq!((log.path, log.format), (Some("a.log".into()), Format::Combined));
    // A variable is there for all of a deployment's programs.
    let shared =
        world(&[("HOST_PORT_WS_DEPLOYMENT_AGENT", "2"), ("HOST_PORT_HTTP_BALANCER", "3")], None);
    let line = "--agent ws://a:1 --listen 127.0.0.1:4 --target-port 5";
    assert_eq!(run_in(line, &shared).unwrap().warnings, Vec::<String>::new());
    let agent = run("--agent ws://a --agent-port 2 --target-port 3");
    assert_eq!((agent.config.agent.unwrap().port, agent.warnings.len()), (2, 0));
    assert_eq!(run("--agent ws://a --target-port 3").config.agent.unwrap().port, 80);
    let crowd = run("--backend a:1 --max-connections 10000 --cores 1");
    assert_eq!(
        crowd.warnings,
        ["10000 connections may need 21474 descriptors, and 20000 are allowed (ulimit -n)"]
    );
    assert_eq!(
        run("--backend a:1 --listen 127.0.0.1 -p 81").config.listen,
        ["127.0.0.1:81".parse().unwrap()]
    );
}

#[test]
fn a_variable_nobody_reads_is_warned_of() {
    let strays = [
        ("BALANCER_PROT", "1"),
        ("BALANCER_CORE", "1"),
        ("BALANCER_REQUEST_TIMEOUT", "1"),
        ("BALANCER_WHATEVER_ELSE", ""),
        ("PATH", "/bin"),
    ];
    let world = world(&strays, Some("BALANCER_LISTENS=1\nOTHER=2"));
    assert_eq!(
        run_in("--backend a:1", &world).unwrap().warnings,
        [
            "environment variable BALANCER_CORE is not known and not read; did you mean BALANCER_CORES?",
            "environment variable BALANCER_PROT is not known and not read; did you mean HOST_PORT_HTTP_BALANCER?",
            "environment variable BALANCER_REQUEST_TIMEOUT is not known and not read; did you mean REQUEST_TIMEOUT?",
            "environment variable BALANCER_WHATEVER_ELSE is not known and not read",
            "BALANCER_LISTENS (.env line 1) is not known and not read; did you mean BALANCER_LISTEN?",
        ]
    );
}

#[test]
fn env_files() {
    let text = |line: &str, file: Option<&str>| {
        run_in(line, &world(&[], file))
            .map(|run| run.config.target_port)
            .map_err(|error| error.to_string())
    };
    assert_eq!(text("--backend a --env-file conf/prod.env", Some("TARGET_PORT=1")), Ok(Some(4242)));
    assert_eq!(text("--backend a:1 --no-env-file", Some("rubbish")), Ok(None));
    assert_eq!(text("--backend a:1", Some("TARGET_PORT=1\nTARGET_PORT=2")), Ok(Some(2)));
    let want = "  want   a readable file of KEY=value lines, or --no-env-file";
    assert_eq!(
        text("--env-file missing.env", None),
        Err(format!(
            "error: cannot read \"missing.env\": entity not found\n  from   flag --env-file\n{want}"
        ))
    );
    assert_eq!(
        text("--env-file locked.env", None),
        Err(format!(
            "error: cannot read \"locked.env\": permission denied\n  from   flag --env-file\n{want}"
        ))
    );
    assert_eq!(
        text("--env-file=", None),
        Err(format!("error: --env-file is empty\n  from   flag --env-file\n{want}"))
    );
    assert_eq!(
        text("", Some("A=1\nB")),
        Err("error: .env line 2 is not KEY=value\n  from   .env line 2\n  \
             want   KEY=value, for example TARGET_PORT=3000"
            .to_owned())
    );
    let mut locked = world(&[], None);
    locked.read_file = Box::new(|_| Err(io::Error::from(io::ErrorKind::PermissionDenied)));
    let error = run_in("--backend a:1", &locked).unwrap_err().to_string();
    assert!(error.starts_with(
        "error: cannot read \".env\": permission denied\n  from   the working directory\n"
    ));
    locked.read_file = Box::new(|_| Err(io::Error::from(io::ErrorKind::IsADirectory)));
    assert!(run_in("--backend a:1", &locked).is_ok());
}

#[test]
fn what_the_grammar_refuses() {
    let shape = |what: &str, from: &str, want: &str| {
        format!("error: {what}\n  from   {from}\n  want   {want}")
    };
    let table = [
        ("run --prot 80", shape("there is no option \"--prot\"", "the command line", "--port")),
        (
            "run extra",
            shape(
                "there is no argument \"extra\"",
                "the command line",
                "options only; balancer run --help names them",
            ),
        ),
        (
            "--port 80",
            shape("there is no option \"--port\"", "the command line", "balancer run --port …"),
        ),
        ("-p 80", shape("there is no option \"-p\"", "the command line", "balancer run -p …")),
        ("rum", shape("there is no command \"rum\"", "the command line", "balancer run")),
        (
            "quit",
            shape(
                "there is no command \"quit\"",
                "the command line",
                "run, check, demo, top, completions or man",
            ),
        ),
        (
            "completions cmd",
            shape(
                "there is no shell \"cmd\"",
                "the command line",
                "bash, elvish, fish, powershell or zsh, for example balancer completions bash",
            ),
        ),
        (
            "completions",
            shape(
                "no shell is named",
                "the command line",
                "bash, elvish, fish, powershell or zsh, for example balancer completions bash",
            ),
        ),
        (
            "run --env-file",
            shape("--env-file has no value", "flag --env-file", "a file's path, for example .env"),
        ),
        (
            "run --env-file a --no-env-file",
            shape(
                "--env-file and --no-env-file contradict each other",
                "the command line",
                "one of them, once",
            ),
        ),
        (
            "run --no-env-file --no-env-file",
            shape("--no-env-file is given twice", "the command line", "one of them, once"),
        ),
        (
            "demo --forever --for 5s",
            shape(
                "--forever and --for contradict each other",
                "the command line",
                "one of them, once",
            ),
        ),
        (
            "demo --for 0.5s",
            shape("--for is \"0.5s\", which is too small", "flag --for", settings::FOR.want),
        ),
    ];
    for (line, wanted) in table {
        assert_eq!(
            parse(arguments(line), &world(&[], None)).unwrap_err().to_string(),
            wanted,
            "{line}"
        );
    }
}

#[test]
fn a_takeover_has_its_place_in_the_runtime_directory_unless_told_otherwise() {
    let takeover = |line: &str, variables: &[(&str, &str)]| {
        run_in(&format!("--backend a:1 {line}"), &world(variables, None)).unwrap().config.takeover
    };
    let at = |path: &str| Some(Takeover::At(path.into()));
    let both = [("RUNTIME_DIRECTORY", "/run/a:/run/b"), ("XDG_RUNTIME_DIR", "/run/user/7")];
    assert_eq!(takeover("", &both), None);
    assert_eq!(takeover("--takeover off", &both), None);
    assert_eq!(takeover("--takeover", &both), at("/run/a/balancer-8080.sock"));
    assert_eq!(takeover("--takeover --port 81", &both[1..]), at("/run/user/7/balancer-81.sock"));
    assert_eq!(takeover("--takeover=/x/y --port 81", &both), at("/x/y"));
    assert_eq!(takeover("", &[("BALANCER_TAKEOVER", "/x/z")]), at("/x/z"));
    let named = Some(Takeover::Named("balancer-82.sock".into()));
    assert_eq!(takeover("--takeover --listen 127.0.0.1:82", &[("RUNTIME_DIRECTORY", "")]), named);
    let long = format!("--backend a:1 --takeover /{}", "x".repeat(96));
    let error = refused(&long);
    assert!(
        error.contains(", which is too long for a socket\n  from   flag --takeover"),
        "{error}"
    );
    assert!(run_in(long.strip_suffix("x").unwrap(), &world(&[], None)).is_ok());
}

#[test]
fn texts_are_plain_and_name_the_next_step() {
    let text = |line: &str| match parse(arguments(line), &world(&[], None)).unwrap() {
        Command::Text(text) => text,
        other => panic!("{other:?}"),
    };
    assert!(text("").contains("balancer demo ") && text("").contains("balancer run --help"));
    assert_eq!(text("--version"), format!("balancer {}\n", env!("CARGO_PKG_VERSION")));
    let help = text("run --help");
    let flat = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for setting in SETTINGS {
        assert!(flat.contains(&format!("--{}", setting.flag)), "{}", setting.flag);
        assert!(flat.contains(&format!("[env: {}]", setting.env)), "{}", setting.env);
    }
    let check = text("check --help");
    assert!(check.contains("--show-config") && check.contains("--backend"));
    for text in [&help, &check] {
        for words in ["Examples:", "Exit codes:", "A flag goes before the environment"] {
            assert!(text.contains(words), "no {words:?} in\n{text}");
        }
    }
    // The short one is short: neither what a value may be nor examples.
    let short = text("run -h");
    assert!(!short.contains("Examples:") && !short.contains("Takes "), "{short}");
    for setting in SETTINGS {
        assert!(short.contains(&format!("--{}", setting.flag)), "{}", setting.flag);
        let want = setting.want.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(&want), "--{}: {want}", setting.flag);
    }
    for text in [text(""), help, check, short, text("--help"), text("demo --help")] {
        assert!(!text.contains('\x1b'));
    }
}

#[test]
fn completions_and_manual_know_every_option() {
    let text = |line: &str| match parse(arguments(line), &world(&[], None)).unwrap() {
        Command::Text(text) => text,
        other => panic!("{other:?}"),
    };
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = text(&format!("completions {shell}"));
        for setting in SETTINGS {
            assert!(script.contains(setting.flag), "{shell}: {}", setting.flag);
        }
    }
    let manual = text("man").replace("\\-", "-");
    for setting in SETTINGS {
        assert!(manual.contains(&format!("--{}", setting.flag)), "{}", setting.flag);
    }
    for words in [".TH balancer 1", "BALANCER RUN", "BALANCER CHECK", "EXIT CODES", "Examples:"] {
        assert!(manual.contains(words), "no {words:?}");
    }
}

#[test]
fn check_takes_the_settings_of_run_and_judges_them_itself() {
    let check = |line: &str| match parse(arguments(line), &world(&[], None)) {
        Ok(Command::Check(check)) => check,
        other => panic!("{line:?} gave {other:?}"),
    };
    let plain = check("check --backend a:1");
    assert!(!plain.shows_config && plain.run.is_ok());
    assert!(check("check --backend a:1 --show-config").shows_config);
    let refused = check("check --port 80a").run.unwrap_err().to_string();
    assert!(refused.starts_with("error: --port is \"80a\", not a port"), "{refused}");
    // What is no option of anything ends it like any other command.
    assert!(parse(arguments("check --prot 1"), &world(&[], None)).is_err());
    assert!(parse(arguments("check extra"), &world(&[], None)).is_err());
}

#[test]
fn what_nobody_said_is_shown_as_what_came_of_it() {
    let shown = |line: &str, flag: &str| {
        let stated = run(line).stated();
        stated.into_iter().find(|stated| stated.flag == flag).unwrap()
    };
    let base = "--agent-port 4000 --target-port 1";
    for (flag, value) in [
        ("cores", "1-7"),
        ("control-core", "0"),
        ("listen", "[::]:8080"),
        ("agent", "ws://deployment-agent:4000/ws"),
        ("admin", "127.0.0.1:9900"),
    ] {
        let stated = shown(base, flag);
        assert_eq!((stated.value.as_str(), stated.source.as_str()), (value, "default"), "{flag}");
    }
    assert_eq!(shown(&format!("{base} --cores 2-3"), "cores").source, "flag");
}

#[test]
fn an_admin_listener_that_others_reach_is_warned_of() {
    let warnings = run("--backend a:1 --admin 0.0.0.0:9900").warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("0.0.0.0:9900"), "{warnings:?}");
    for quiet in ["--admin off", "--admin [::1]:9900", "--admin 127.0.0.1"] {
        assert_eq!(run(&format!("--backend a:1 {quiet}")).warnings, Vec::<String>::new());
    }
    assert_eq!(run("--backend a:1 --admin off").config.admin, None);
}

#[test]
fn demo() {
    let demo = |line: &str, variables: &[(&str, &str)]| {
        // Its `.env` is somebody else's: not even looked at.
        match parse(arguments(&format!("demo {line}")), &world(variables, Some("rubbish"))).unwrap()
        {
            Command::Demo(demo) => demo,
            other => panic!("{other:?}"),
        }
    };
    let plain = Demo { length: Some(Duration::from_secs(30)), is_quiet: false, log: "warn".into() };
    assert_eq!(demo("", &[]), plain);
    assert_eq!(
        demo("--forever --quiet", &[]),
        Demo { length: None, is_quiet: true, log: "error".into() }
    );
    let short = Demo { length: Some(Duration::from_secs(5)), log: "debug".into(), ..plain };
    assert_eq!(demo("--for 5s", &[("RUST_LOG", "debug")]), short);
}

#[test]
fn a_secret_of_nobody_is_in_the_sources() {
    // The sources show what was written and where; a variable that is not ours never appears.
    let run =
        run_in("--backend a:1", &world(&[("PASSWORD", "hunter2")], Some("TOKEN=hunter3"))).unwrap();
    let shown: BTreeMap<_, _> =
        run.values.iter().map(|value| (value.setting, value.text.as_str())).collect();
    assert_eq!(shown["backend"], "a:1");
    assert!(!format!("{run:?}").contains("hunter"));
}
