//! From texts with sources to a [`Config`]: each setting read once, then what they mean together.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use clap::ArgMatches;

use super::error::Error;
use super::grammar::{FOREVER, ONCE, QUIET, SHOW_CONFIG, refuse_strays};
use super::settings::{self, SETTINGS, Setting};
use super::sources::{Environment, Given, Source, Sources};
use super::values::{self, TIME_MAX, TIME_MIN, Wrong};
use super::{Check, Demo, Run, Top, Value};
use crate::balance::ERRANDS_MAX;
use crate::boot::plan::{CoreChoice, CpuPlan, Unavailable, plan};
use crate::cache::CacheSettings;
use crate::config::{
    AccessLogConfig, AgentConfig, CacheConfig, Config, HealthCheck, StaticBackend, Takeover,
    Timeouts,
};
use crate::http::{HeadLimits, Network};

/// `balancer check`: what is wrong with the settings is its finding and not its end.
pub(super) fn check(flags: &ArgMatches, environment: &Environment) -> Result<Check, Error> {
    refuse_strays(flags, "check")?;
    Ok(Check {
        run: run(flags, environment, "check").map(Box::new),
        shows_config: flags.get_flag(SHOW_CONFIG),
    })
}

/// `balancer run`, or what `command` makes of the same settings.
pub(super) fn run(
    flags: &ArgMatches,
    environment: &Environment,
    command: &str,
) -> Result<Run, Error> {
    let sources = Sources::new(flags, environment)?;
    let read = Reader { sources: &sources };
    let mut warnings = sources.unknown();
    let plan = cores(&read, environment)?;
    let listen = listen(&read, &mut warnings)?;
    let agent = agent(&read, &mut warnings)?;
    let target_port = read.one(&settings::TARGET_PORT, values::port)?;
    let backends = backends(&read, target_port)?;
    let port = listen.first().map_or(PORT, SocketAddr::port);
    let connections_max = connections_max(&read, plan.workers.len(), environment, &mut warnings)?;
    let config = Config {
        listen,
        takeover: takeover(&read, port, environment)?,
        admin: admin(&read, &mut warnings)?,
        access_log: access_log(&read, &mut warnings)?,
        connections_per_ip_max: per_ip_max(&read, connections_max, &mut warnings)?,
        connections_max,
        trusted_proxies: trusted_proxies(&read)?,
        cores: plan.workers,
        control_core: plan.control,
        agent,
        backends,
        target_port,
        steer: read.one(&settings::STEER, values::steer)?.unwrap_or_default(),
        balance: read.one(&settings::BALANCE, values::balance)?.unwrap_or_default(),
        health: health(&read, &mut warnings)?,
        cache: cache(&read, environment)?,
        timeouts: timeouts(&read)?,
        head: head(&read)?,
        body_bytes_max: read.one(&settings::MAX_BODY, values::size_or_unlimited)?.flatten(),
        backend_inflight_max: inflight_max(&read)?,
        queue_length_max: read
            .one(&settings::QUEUE_LENGTH, |text| values::number(text, 0, QUEUE_MOST))?
            .map_or(QUEUE_LENGTH, |length| length as usize),
    };
    let log = log(&read, &settings::LOG, settings::LOG.default)?;
    refuse_strays(flags, command)?;
    // Last: who wrote something wrong is to hear of that, and not of what he meant to write next.
    require_somewhere_to_go(&config)?;
    Ok(Run { config, log, warnings, values: values_in_force(&read)? })
}

/// `balancer demo`. It reads no `.env`: it is to run anywhere.
pub(super) fn demo(flags: &ArgMatches, environment: &Environment) -> Result<Demo, Error> {
    let sources = Sources::new(flags, environment)?;
    let read = Reader { sources: &sources };
    let length = read.one(&settings::FOR, |text| values::duration(text, DEMO_MIN, TIME_MAX))?;
    let is_quiet = flags.get_flag(QUIET);
    let default = if is_quiet { QUIET_LOG } else { settings::DEMO_LOG.default };
    let log = log(&read, &settings::DEMO_LOG, default)?;
    refuse_strays(flags, "demo")?;
    let length = (!flags.get_flag(FOREVER)).then_some(length.unwrap_or(DEMO_LENGTH));
    Ok(Demo { length, is_quiet, log })
}

/// `balancer top`. An address of all interfaces is looked for on this host.
pub(super) fn top(flags: &ArgMatches, environment: &Environment) -> Result<Top, Error> {
    let sources = Sources::new(flags, environment)?;
    let read = Reader { sources: &sources };
    let default = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), values::ADMIN_PORT);
    let given = read.one(&settings::TOP_ADMIN, values::admin)?;
    refuse_strays(flags, "top")?;
    let Some(admin) = given.unwrap_or(Some(default)) else {
        return Err(Error::new("the admin listener is off, and there is nothing to watch")
            .from("the environment (BALANCER_ADMIN) or the flag --admin")
            .want(settings::TOP_ADMIN.want));
    };
    let ip = match admin.ip() {
        ip if !ip.is_unspecified() => ip,
        _ => Ipv4Addr::LOCALHOST.into(),
    };
    Ok(Top { admin: SocketAddr::new(ip, admin.port()), is_once: flags.get_flag(ONCE) })
}

/// Reads settings one by one and refuses in their words.
struct Reader<'a> {
    sources: &'a Sources<'a>,
}

impl Reader<'_> {
    fn given(&self, setting: &Setting) -> Result<Option<Given>, Error> {
        self.sources.find(setting)
    }

    fn many<T>(
        &self,
        setting: &Setting,
        read: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Result<Vec<T>, Error> {
        let Some(given) = self.given(setting)? else { return Ok(Vec::new()) };
        let one = |text: &String| read(text).map_err(|wrong| given.refuse(setting, text, &wrong));
        given.texts.iter().map(one).collect()
    }

    fn one<T>(
        &self,
        setting: &Setting,
        read: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Result<Option<T>, Error> {
        debug_assert!(!setting.is_repeatable);
        Ok(self.many(setting, read)?.pop())
    }
}

fn cores(read: &Reader<'_>, environment: &Environment) -> Result<CpuPlan, Error> {
    let choice = read.one(&settings::CORES, values::cores)?.unwrap_or(CoreChoice::Automatic);
    let control = read.one(&settings::CONTROL_CORE, |text| values::number(text, 0, u64::MAX))?;
    let control = control.map(|core| usize::try_from(core).unwrap_or(usize::MAX));
    plan(&environment.cpus, &choice, control).or_else(|unavailable| {
        let (core, setting) = match unavailable {
            Unavailable::Worker(core) => (core, &settings::CORES),
            Unavailable::Control(core) => (core, &settings::CONTROL_CORE),
        };
        let aside = read.given(setting)?.map_or(String::new(), |given| given.as_written());
        let what = format!("core {core} is not available; this host offers {}", environment.cpus);
        Err(Error::new(what).aside(aside))
    })
}

fn listen(read: &Reader<'_>, warnings: &mut Vec<String>) -> Result<Vec<SocketAddr>, Error> {
    let port = read.one(&settings::PORT, values::port)?;
    let port_or_default = port.unwrap_or(PORT);
    let addresses = read.many(&settings::LISTEN, |text| values::listen(text, port_or_default))?;
    if addresses.is_empty() {
        return Ok(vec![SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port_or_default)]);
    }
    if let Some(twice) = duplicate(&addresses, |address| address.port() != 0)
        && let Some(given) = read.given(&settings::LISTEN)?
    {
        return Err(
            given.complain(format!("{} names {twice} twice", given.name), &settings::LISTEN)
        );
    }
    let is_port_used = read.many(&settings::LISTEN, |text| values::listen(text, 0))? != addresses;
    warn_unused(
        read,
        &settings::PORT,
        !is_port_used,
        "every address to listen on names a port",
        warnings,
    )?;
    Ok(addresses)
}

fn admin(read: &Reader<'_>, warnings: &mut Vec<String>) -> Result<Option<SocketAddr>, Error> {
    let given = read.one(&settings::ADMIN, values::admin)?;
    let default = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), values::ADMIN_PORT);
    let address = given.unwrap_or(Some(default));
    if let Some(public) = address.filter(|address| !address.ip().is_loopback()) {
        warnings.push(format!(
            "the admin listener at {public} asks nobody who he is: whoever reaches it sees everything and may purge"
        ));
    }
    Ok(address)
}

/// The variables are systemd's and the XDG's; of a list of directories the first is taken.
fn takeover(
    read: &Reader<'_>,
    port: u16,
    environment: &Environment,
) -> Result<Option<Takeover>, Error> {
    let name = format!("balancer-{port}.sock");
    let place = read.one(&settings::TAKEOVER, |text| values::takeover(text, &name))?.flatten();
    let directory = |variable: &str| {
        let text = environment.variables.get(OsStr::new(variable))?.to_str()?;
        let first = text.split(':').next().filter(|first| first.starts_with('/'))?;
        Some(Path::new(first).join(&name))
    };
    let in_runtime = || directory("RUNTIME_DIRECTORY").or_else(|| directory("XDG_RUNTIME_DIR"));
    Ok(match place {
        Some(Takeover::Named(_)) => in_runtime().map(Takeover::At).or(place),
        place => place,
    })
}

fn access_log(
    read: &Reader<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<AccessLogConfig>, Error> {
    let place = read.one(&settings::ACCESS_LOG, values::log_place)?.flatten();
    let format = read.one(&settings::ACCESS_FORMAT, values::log_format)?.unwrap_or_default();
    let because = "there is no --access-log";
    warn_unused(read, &settings::ACCESS_FORMAT, place.is_none(), because, warnings)?;
    Ok(place.map(|path| AccessLogConfig { path, format }))
}

fn agent(read: &Reader<'_>, warnings: &mut Vec<String>) -> Result<Option<AgentConfig>, Error> {
    let url = read.one(&settings::AGENT, values::agent)?;
    let port = read.one(&settings::AGENT_PORT, values::port)?;
    let backoff = read.one(&settings::AGENT_BACKOFF, values::duration_range)?;
    let (backoff_min, backoff_max) = backoff.unwrap_or(BACKOFF);
    let names_port = url.as_ref().is_some_and(|url| url.port.is_some());
    warn_unused(read, &settings::AGENT_PORT, names_port, "the agent's URL names a port", warnings)?;
    let (host, port, path) = match (url, port) {
        (None, None) => return Ok(None),
        (None, Some(port)) => (AGENT_HOST.to_owned(), port, None),
        (Some(url), port) => (url.host, url.port.or(port).unwrap_or(AGENT_PORT), url.path),
    };
    let path = path.unwrap_or_else(|| AGENT_PATH.to_owned());
    Ok(Some(AgentConfig { host, port, path, backoff_min, backoff_max }))
}

fn backends(read: &Reader<'_>, target_port: Option<u16>) -> Result<Vec<StaticBackend>, Error> {
    let backends = read.many(&settings::BACKEND, values::backend)?;
    let places: Vec<_> = backends
        .iter()
        .map(|backend| (backend.host.to_ascii_lowercase(), backend.port.or(target_port)))
        .collect();
    if let Some((host, _)) = duplicate(&places, |_| true)
        && let Some(given) = read.given(&settings::BACKEND)?
    {
        return Err(
            given.complain(format!("{} names {host} twice", given.name), &settings::BACKEND)
        );
    }
    Ok(backends)
}

fn require_somewhere_to_go(config: &Config) -> Result<(), Error> {
    let Config { backends, target_port, .. } = config;
    let has_agent = config.agent.is_some();
    if !has_agent && backends.is_empty() {
        return Err(Error::new("there is nowhere to send requests: no deployment agent and no backend")
            .from("neither flag, environment nor .env names one")
            .want(
                "--agent-port 4000 (HOST_PORT_WS_DEPLOYMENT_AGENT) for scores from a deployment agent,\n         \
                 or --backend app-1:3000 (BALANCER_BACKENDS), one for each backend",
            ));
    }
    let portless = backends.iter().find(|backend| backend.port.is_none());
    let needed_by = match portless {
        _ if target_port.is_some() => return Ok(()),
        Some(backend) => format!("backend {} names no port", backend.host),
        None if has_agent => "the agent names backends without ports".to_owned(),
        None => return Ok(()),
    };
    Err(Error::new(format!("TARGET_PORT is not set, and {needed_by}"))
        .from("neither flag --target-port, environment nor .env")
        .want(settings::TARGET_PORT.want.replace("example ", "example --target-port ")))
}

fn timeouts(read: &Reader<'_>) -> Result<Timeouts, Error> {
    let time = |setting, default| {
        let given = read.one(setting, |text| values::duration(text, TIME_MIN, TIME_MAX))?;
        Ok(given.unwrap_or(default))
    };
    let default = Timeouts::default();
    Ok(Timeouts {
        header: time(&settings::HEADER_TIMEOUT, default.header)?,
        idle: time(&settings::IDLE_TIMEOUT, default.idle)?,
        body: time(&settings::BODY_TIMEOUT, default.body)?,
        connect: time(&settings::CONNECT_TIMEOUT, default.connect)?,
        request: time(&settings::REQUEST_TIMEOUT, default.request)?,
        tunnel: time(&settings::TUNNEL_TIMEOUT, default.tunnel)?,
        queue: time(&settings::QUEUE_TIMEOUT, default.queue)?,
        drain: time(&settings::DRAIN_TIMEOUT, default.drain)?,
        ..default
    })
}

fn health(read: &Reader<'_>, warnings: &mut Vec<String>) -> Result<Option<HealthCheck>, Error> {
    let path = read.one(&settings::HEALTH_PATH, values::path)?;
    let time = |setting, least| read.one(setting, |text| values::duration(text, least, TIME_MAX));
    let interval = time(&settings::HEALTH_INTERVAL, HEALTH_INTERVAL_MIN)?;
    let timeout = time(&settings::HEALTH_TIMEOUT, TIME_MIN)?;
    for setting in [&settings::HEALTH_INTERVAL, &settings::HEALTH_TIMEOUT] {
        warn_unused(read, setting, path.is_none(), "there is no --health-path", warnings)?;
    }
    Ok(path.map(|path| HealthCheck {
        path,
        interval: interval.unwrap_or(HEALTH_INTERVAL),
        timeout: timeout.unwrap_or(HEALTH_TIMEOUT),
    }))
}

fn cache(read: &Reader<'_>, environment: &Environment) -> Result<Option<CacheConfig>, Error> {
    let is_on = read.one(&settings::CACHE, values::on_or_off)?.unwrap_or(true);
    let mode = read.one(&settings::CACHE_MODE, values::cache_mode)?.unwrap_or_default();
    let entries = read
        .one(&settings::CACHE_CAPACITY, |text| values::number(text, 0, CACHE_ENTRIES_MAX))?
        .unwrap_or(CACHE_ENTRIES);
    let bytes = read
        .one(&settings::CACHE_BYTES, |text| {
            values::size(text, CACHE_BYTES_LEAST, CACHE_BYTES_MOST)
        })?
        .unwrap_or(CACHE_BYTES);
    let default = CacheSettings::default();
    let static_ttl = read
        .one(&settings::STATIC_TTL, |text| values::duration(text, Duration::ZERO, TIME_MAX))?
        .unwrap_or(default.static_ttl);
    let settings = CacheSettings { mode, static_ttl, ..default };
    Ok((is_on && entries > 0).then_some(CacheConfig {
        entries,
        bytes,
        files_max: files_max(environment) as usize,
        settings,
    }))
}

fn head(read: &Reader<'_>) -> Result<HeadLimits, Error> {
    let within = |setting, min, max, default: usize| {
        let given = read.one(setting, |text| values::size(text, min, max))?;
        // The bounds are at most 1 MiB, so the number fits.
        Ok(given.map_or(default, |bytes| bytes as usize))
    };
    let default = HeadLimits::default();
    let head_bytes_max =
        within(&settings::MAX_HEAD_BYTES, 512, HEAD_BYTES_MOST, default.head_bytes_max)?;
    let line_bytes_max =
        within(&settings::MAX_REQUEST_LINE, 128, HEAD_BYTES_MOST, default.line_bytes_max)?;
    let fields_max =
        read.one(&settings::MAX_FIELDS, |text| values::number(text, 1, FIELDS_MOST))?;
    if let Some(given) = read.given(&settings::MAX_REQUEST_LINE)?
        && line_bytes_max > head_bytes_max
    {
        let wrong = Wrong::Because("more than the whole head may have (--max-head-bytes)");
        return Err(given.refuse(&settings::MAX_REQUEST_LINE, &given.texts[0], &wrong));
    }
    Ok(HeadLimits {
        // A short head shortens a line nobody spoke of.
        line_bytes_max: line_bytes_max.min(head_bytes_max),
        head_bytes_max,
        fields_max: fields_max.map_or(default.fields_max, |fields| fields as usize),
    })
}

/// Descriptors for cached bodies in files: a small part of all, and no more than a cache has large objects.
fn files_max(environment: &Environment) -> u64 {
    (environment.nofile / DESCRIPTORS_PER_FILE).min(FILES_MOST)
}

/// Without a wish: half of the descriptors left, since a request holds two, and no more than a million.
fn connections_max(
    read: &Reader<'_>,
    workers: usize,
    environment: &Environment,
    warnings: &mut Vec<String>,
) -> Result<usize, Error> {
    let reserved =
        DESCRIPTORS_OWN + DESCRIPTORS_PER_WORKER * workers as u64 + files_max(environment);
    let room = environment.nofile.saturating_sub(reserved) / 2;
    let wish =
        read.one(&settings::MAX_CONNECTIONS, |text| values::number(text, 1, CONNECTIONS_MOST))?;
    if let Some(wish) = wish.filter(|&wish| wish > room) {
        warnings.push(format!(
            "{wish} connections may need {} descriptors, and {} are allowed (ulimit -n)",
            wish * 2 + reserved,
            environment.nofile
        ));
    }
    // At most ten million, so the number fits.
    Ok(wish.unwrap_or_else(|| room.clamp(CONNECTIONS_LEAST, CONNECTIONS_DEFAULT_MOST)) as usize)
}

/// `connections_max`: what the process may have.
fn per_ip_max(
    read: &Reader<'_>,
    connections_max: usize,
    warnings: &mut Vec<String>,
) -> Result<Option<u32>, Error> {
    let setting = &settings::MAX_CONNECTIONS_PER_IP;
    let number = |text: &str| values::number_or_off(text, 1, CONNECTIONS_MOST);
    let limit = read.one(setting, number)?.flatten();
    let is_unused = limit.is_some_and(|limit| limit > connections_max as u64);
    warn_unused(read, setting, is_unused, "all clients together may have fewer", warnings)?;
    // At most ten million, so the number fits.
    Ok(limit.map(|limit| limit as u32))
}

fn trusted_proxies(read: &Reader<'_>) -> Result<Vec<Network>, Error> {
    let setting = &settings::TRUSTED_PROXIES;
    let networks = read.many(setting, values::network)?;
    match read.given(setting)? {
        Some(given) if networks.len() > NETWORKS_MOST => {
            let (name, n) = (&given.name, networks.len());
            let what = format!("{name} names {n} networks, and {NETWORKS_MOST} are the most");
            Err(given.complain(what, setting))
        }
        _ => Ok(networks),
    }
}

fn inflight_max(read: &Reader<'_>) -> Result<Option<u32>, Error> {
    let number = |text: &str| values::number(text, 1, QUEUE_MOST);
    // At most a million, so the number fits.
    Ok(read.one(&settings::BACKEND_MAX_INFLIGHT, number)?.map(|limit| limit as u32))
}

fn log(read: &Reader<'_>, setting: &Setting, default: &str) -> Result<String, Error> {
    Ok(read.one(setting, values::log_filter)?.unwrap_or_else(|| default.to_owned()))
}

fn values_in_force(read: &Reader<'_>) -> Result<Vec<Value>, Error> {
    let value = |setting: &&Setting| {
        let given = read.given(setting)?;
        let default = || (setting.default.to_owned(), Source::Default);
        let (text, source) =
            given.map_or_else(default, |given| (given.texts.join(","), given.source));
        Ok(Value { setting: setting.flag, env: setting.env, text, source })
    };
    SETTINGS.iter().map(value).collect()
}

/// A flag that does nothing deserves a word; a variable that is there for all of a deployment's programs does not.
fn warn_unused(
    read: &Reader<'_>,
    setting: &Setting,
    is_unused: bool,
    because: &str,
    warnings: &mut Vec<String>,
) -> Result<(), Error> {
    if let Some(given) =
        read.given(setting)?.filter(|given| is_unused && given.source == Source::Flag)
    {
        warnings.push(format!("{} is not used: {because}", given.name));
    }
    Ok(())
}

/// The first item that `counts` and came before.
fn duplicate<T: PartialEq>(items: &[T], counts: impl Fn(&T) -> bool) -> Option<&T> {
    items
        .iter()
        .enumerate()
        .find(|(at, item)| counts(item) && items[..*at].contains(item))
        .map(|(_, item)| item)
}

const PORT: u16 = 8080;
const AGENT_HOST: &str = "deployment-agent";
/// Of a `ws://` URL that names none (RFC 6455 §3).
const AGENT_PORT: u16 = 80;
/// What the deployment agent serves; a URL's explicit `/` is left alone.
const AGENT_PATH: &str = "/ws";
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Requests that may wait or be in flight, at the most anybody may ask for.
const QUEUE_MOST: u64 = 1_000_000;
/// Requests that may wait per core unless somebody says otherwise.
const QUEUE_LENGTH: usize = 1024;
const HEALTH_INTERVAL: Duration = Duration::from_secs(2);
const HEALTH_INTERVAL_MIN: Duration = Duration::from_millis(100);
const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);
const CACHE_ENTRIES: u64 = 10_000;
const CACHE_ENTRIES_MAX: u64 = 1_000_000_000;
const CACHE_BYTES: u64 = 256 << 20;
const CACHE_BYTES_LEAST: u64 = 1 << 20;
const CACHE_BYTES_MOST: u64 = 16 << 40;
const HEAD_BYTES_MOST: u64 = 1 << 20;
const FIELDS_MOST: u64 = 1000;
const CONNECTIONS_MOST: u64 = 10_000_000;
const CONNECTIONS_DEFAULT_MOST: u64 = 1 << 20;
const CONNECTIONS_LEAST: u64 = 16;
/// Standard streams, the agent, name resolution, log, and what looks after the backends.
const DESCRIPTORS_OWN: u64 = 64 + ERRANDS_MAX as u64;
/// Rings, epoll, eventfds, listeners, and the reserve for accepts at the limit.
const DESCRIPTORS_PER_WORKER: u64 = 32;
/// One descriptor in so many may be that of a cached body.
const DESCRIPTORS_PER_FILE: u64 = 16;
const FILES_MOST: u64 = 8192;
/// Looked through one by one for each new connection.
const NETWORKS_MOST: usize = 1000;
const DEMO_MIN: Duration = Duration::from_secs(1);
const DEMO_LENGTH: Duration = Duration::from_secs(30);
const QUIET_LOG: &str = "error";
