//! The table of settings: one row feeds the grammar, the help, the environment, `.env` and every error text.

/// One thing that can be set.
#[derive(Debug)]
pub struct Setting {
    /// The long flag, without its dashes.
    pub flag: &'static str,
    /// The short flag.
    pub short: Option<char>,
    /// What the help calls the value.
    pub value: &'static str,
    /// The environment variable; empty when there is none.
    pub env: &'static str,
    /// What holds when nobody says anything, for the help; empty when there is no default.
    pub default: &'static str,
    /// May be given several times; in the environment the values are separated by commas.
    pub is_repeatable: bool,
    /// The flag alone means `on`.
    pub is_value_optional: bool,
    /// What it does, one line.
    pub help: &'static str,
    /// What a wrong value is not.
    pub noun: &'static str,
    /// What is wanted instead: the range, and an example.
    pub want: &'static str,
    /// The help's heading.
    pub group: &'static str,
}

/// What a row need not say.
const BLANK: Setting = Setting {
    flag: "",
    short: None,
    value: "",
    env: "",
    default: "",
    is_repeatable: false,
    is_value_optional: false,
    help: "",
    noun: "",
    want: "",
    group: "",
};

/// What all timeouts have in common.
const TIMEOUT: Setting = Setting {
    value: "TIME",
    noun: "a duration",
    want: "1 ms to 24 h: a number with ms, s, m or h (a bare one is seconds), for example 30s",
    group: "Timeouts",
    ..BLANK
};

/// `--cores`.
pub const CORES: Setting = Setting {
    flag: "cores",
    short: Some('c'),
    value: "LIST",
    env: "BALANCER_CORES",
    default: "every allowed core but the control core, one thread per physical core",
    help: "Worker cores",
    noun: "a list of cores",
    want: "cores and ranges, for example 2-7,10, or all",
    group: "Cores",
    ..BLANK
};
/// `--control-core`.
pub const CONTROL_CORE: Setting = Setting {
    flag: "control-core",
    value: "N",
    env: "BALANCER_CONTROL_CORE",
    default: "the lowest allowed core",
    help: "Core of the agent link; may be one of --cores",
    noun: "a core",
    want: "the number of one core, for example 0",
    group: "Cores",
    ..BLANK
};
/// `--steer`.
pub const STEER: Setting = Setting {
    flag: "steer",
    value: "HOW",
    env: "BALANCER_STEER",
    default: "accept",
    help: "Which core serves a connection: as the kernel's hash says, moved to a less busy core, or where it was received",
    noun: "a way to steer",
    want: "none, accept or cpu, for example accept",
    group: "Cores",
    ..BLANK
};
/// `--port`.
pub const PORT: Setting = Setting {
    flag: "port",
    short: Some('p'),
    value: "PORT",
    env: "HOST_PORT_HTTP_BALANCER",
    default: "8080",
    help: "Port to listen on, on all addresses, IPv4 and IPv6",
    noun: "a port",
    want: "a number from 1 to 65535, for example 8080",
    group: "Clients",
    ..BLANK
};
/// `--listen`.
pub const LISTEN: Setting = Setting {
    flag: "listen",
    value: "ADDR",
    env: "BALANCER_LISTEN",
    is_repeatable: true,
    help: "Address to listen on instead of all; repeatable; without a port it takes --port",
    noun: "an address",
    want: "an IP address with or without a port from 0 to 65535, for example 127.0.0.1:8080 or [::1]:8080",
    group: "Clients",
    ..BLANK
};
/// `--admin`.
pub const ADMIN: Setting = Setting {
    flag: "admin",
    value: "ADDR|off",
    env: "BALANCER_ADMIN",
    default: "127.0.0.1:9900",
    help: "Address of the status page, metrics and health; port 0 takes a free one",
    noun: "an address or off",
    want: "off, or an IP address with or without a port from 0 to 65535, for example 127.0.0.1:9900",
    group: "Output",
    ..BLANK
};
/// `--takeover`.
pub const TAKEOVER: Setting = Setting {
    flag: "takeover",
    value: "PATH",
    env: "BALANCER_TAKEOVER",
    default: "off",
    is_value_optional: true,
    help: "Take the listeners over from a running balancer with the same flag and port, and hand them to the next: an upgrade that refuses no connection",
    noun: "a place for a socket",
    want: "a path, on for a socket in the runtime directory, or off, for example /run/balancer/takeover.sock",
    group: "Clients",
    ..BLANK
};
/// `--access-log`.
pub const ACCESS_LOG: Setting = Setting {
    flag: "access-log",
    value: "PATH|-|off",
    env: "BALANCER_ACCESS_LOG",
    default: "off",
    help: "A line for each request: a file (SIGHUP re-opens it), - for standard output, or off",
    noun: "a place for a log",
    want: "a path, - for standard output, or off, for example /var/log/balancer/access.log",
    group: "Output",
    ..BLANK
};
/// `--access-format`.
pub const ACCESS_FORMAT: Setting = Setting {
    flag: "access-format",
    value: "FORMAT",
    env: "BALANCER_ACCESS_FORMAT",
    default: "combined",
    help: "How these lines look: short and json tell everything, common and combined what log readers know",
    noun: "a format",
    want: "short, common, combined or json, for example combined",
    group: "Output",
    ..BLANK
};
/// `--max-connections`.
pub const MAX_CONNECTIONS: Setting = Setting {
    flag: "max-connections",
    value: "N",
    env: "BALANCER_MAX_CONNECTIONS",
    default: "from the limit on descriptors",
    help: "Client connections of the whole process; further ones wait",
    noun: "a number of connections",
    want: "a number from 1 to 10000000, for example 20000",
    group: "Clients",
    ..BLANK
};
/// `--max-connections-per-ip`.
pub const MAX_CONNECTIONS_PER_IP: Setting = Setting {
    flag: "max-connections-per-ip",
    value: "N|off",
    env: "BALANCER_MAX_CONNECTIONS_PER_IP",
    default: "off",
    help: "Client connections of one address (IPv6: of one /64), of the whole process; further ones are closed at once; --trusted-proxies may have any number",
    noun: "a number of connections",
    want: "off, or a number from 1 to 10000000, for example 100",
    group: "Clients",
    ..BLANK
};
/// `--trusted-proxies`.
pub const TRUSTED_PROXIES: Setting = Setting {
    flag: "trusted-proxies",
    value: "CIDR",
    env: "BALANCER_TRUSTED_PROXIES",
    is_repeatable: true,
    help: "Proxies before this one: their Forwarded and X-Forwarded-* fields go on, those of anybody else are replaced; repeatable; without any, everybody's X-Forwarded-For and Forwarded are added to",
    noun: "a network",
    want: "an IP address, or a network in CIDR notation, for example 10.0.0.0/8 or 2001:db8::/32",
    group: "Clients",
    ..BLANK
};
/// `--agent`.
pub const AGENT: Setting = Setting {
    flag: "agent",
    value: "URL",
    env: "BALANCER_AGENT",
    help: "The deployment agent that sends scores",
    noun: "a ws:// URL",
    want: "ws://HOST[:PORT][/PATH], port 1 to 65535, for example ws://deployment-agent:4000/ws",
    group: "Backends",
    ..BLANK
};
/// `--agent-port`.
pub const AGENT_PORT: Setting = Setting {
    flag: "agent-port",
    value: "PORT",
    env: "HOST_PORT_WS_DEPLOYMENT_AGENT",
    help: "Short for --agent ws://deployment-agent:PORT/ws; also the port of an --agent that names none",
    noun: "a port",
    want: "a number from 1 to 65535, for example 4000",
    group: "Backends",
    ..BLANK
};
/// `--agent-backoff`.
pub const AGENT_BACKOFF: Setting = Setting {
    flag: "agent-backoff",
    value: "MIN..MAX",
    env: "BALANCER_AGENT_BACKOFF",
    default: "1s..60s",
    help: "First and longest wait between two dials of the agent",
    noun: "a range of waits",
    want: "two durations from 1ms to 24h, the shorter first, for example 1s..60s",
    group: "Backends",
    ..BLANK
};
/// `--target-port`.
pub const TARGET_PORT: Setting = Setting {
    flag: "target-port",
    value: "PORT",
    env: "TARGET_PORT",
    help: "Port of backends that name none",
    noun: "a port",
    want: "a number from 1 to 65535, for example 3000",
    group: "Backends",
    ..BLANK
};
/// `--backend`.
pub const BACKEND: Setting = Setting {
    flag: "backend",
    value: "NAME[:PORT][=SCORE]",
    env: "BALANCER_BACKENDS",
    is_repeatable: true,
    help: "A backend that needs no agent; repeatable; score 0 to 100, 100 without one",
    noun: "a backend",
    want: "NAME[:PORT][=SCORE], port 1 to 65535, score 0 to 100, for example app-1:3000=50 or [::1]:3000",
    group: "Backends",
    ..BLANK
};
/// `--balance`.
pub const BALANCE: Setting = Setting {
    flag: "balance",
    value: "POLICY",
    env: "BALANCER_BALANCE",
    default: "bounded",
    help: "How a backend is picked: bounded, p2c, latency or weighted-random",
    noun: "a policy",
    want: "bounded, p2c, latency or weighted-random, for example bounded",
    group: "Backends",
    ..BLANK
};
/// `--cache-capacity`.
pub const CACHE_CAPACITY: Setting = Setting {
    flag: "cache-capacity",
    value: "N",
    env: "CACHE_CAPACITY",
    default: "10000",
    help: "Entries of the cache in the whole process; 0 is --cache off",
    noun: "a number of entries",
    want: "a number from 0 to 1000000000, for example 10000",
    group: "Cache",
    ..BLANK
};
/// `--cache`.
pub const CACHE: Setting = Setting {
    flag: "cache",
    value: "on|off",
    env: "BALANCER_CACHE",
    default: "on",
    help: "Whether responses are cached in memory",
    noun: "on or off",
    want: "on or off, for example on",
    group: "Cache",
    ..BLANK
};
/// `--cache-mode`.
pub const CACHE_MODE: Setting = Setting {
    flag: "cache-mode",
    value: "MODE",
    env: "BALANCER_CACHE_MODE",
    default: "safe",
    help: "How far RFC 9111 is used: safe leaves out what often goes wrong with real origins, rfc does not",
    noun: "a mode",
    want: "safe or rfc, for example safe",
    group: "Cache",
    ..BLANK
};
/// `--cache-bytes`.
pub const CACHE_BYTES: Setting = Setting {
    flag: "cache-bytes",
    value: "SIZE",
    env: "BALANCER_CACHE_BYTES",
    default: "256MiB",
    help: "Memory of the cache in the whole process: heads, bodies and index",
    noun: "a size",
    want: "1 MiB to 16 TiB, for example 256MiB",
    group: "Cache",
    ..BLANK
};
/// `--static-ttl`.
pub const STATIC_TTL: Setting = Setting {
    flag: "static-ttl",
    value: "TIME",
    env: "BALANCER_STATIC_TTL",
    default: "60s",
    help: "Freshness of a static file (.css, .js, .png …) whose origin says nothing of it; 0 for none",
    noun: "a duration",
    want: "0 to 24 h: a number with ms, s, m or h (a bare one is seconds), for example 60s",
    group: "Cache",
    ..BLANK
};
/// `--request-timeout`.
pub const REQUEST_TIMEOUT: Setting = Setting {
    flag: "request-timeout",
    env: "REQUEST_TIMEOUT",
    default: "30s",
    help: "Silence borne from a backend (a bare number is seconds)",
    ..TIMEOUT
};
/// `--connect-timeout`.
pub const CONNECT_TIMEOUT: Setting = Setting {
    flag: "connect-timeout",
    env: "BALANCER_CONNECT_TIMEOUT",
    default: "2s",
    help: "Connecting to a backend",
    ..TIMEOUT
};
/// `--idle-timeout`.
pub const IDLE_TIMEOUT: Setting = Setting {
    flag: "idle-timeout",
    env: "BALANCER_IDLE_TIMEOUT",
    default: "60s",
    help: "A silent client between two requests",
    ..TIMEOUT
};
/// `--header-timeout`.
pub const HEADER_TIMEOUT: Setting = Setting {
    flag: "header-timeout",
    env: "BALANCER_HEADER_TIMEOUT",
    default: "10s",
    help: "A request head, from its first byte to its last",
    ..TIMEOUT
};
/// `--body-timeout`.
pub const BODY_TIMEOUT: Setting = Setting {
    flag: "body-timeout",
    env: "BALANCER_BODY_TIMEOUT",
    default: "10s",
    help: "A client silent in the middle of its request body",
    ..TIMEOUT
};
/// `--tunnel-timeout`.
pub const TUNNEL_TIMEOUT: Setting = Setting {
    flag: "tunnel-timeout",
    env: "BALANCER_TUNNEL_TIMEOUT",
    default: "1h",
    help: "A tunnel (WebSocket) in which nothing moves",
    ..TIMEOUT
};
/// `--drain-timeout`.
pub const DRAIN_TIMEOUT: Setting = Setting {
    flag: "drain-timeout",
    env: "BALANCER_DRAIN_TIMEOUT",
    default: "30s",
    help: "Requests in flight when told to stop",
    ..TIMEOUT
};
/// `--queue-timeout`.
pub const QUEUE_TIMEOUT: Setting = Setting {
    flag: "queue-timeout",
    env: "BALANCER_QUEUE_TIMEOUT",
    default: "1s",
    help: "A request that waits because every backend is busy",
    ..TIMEOUT
};
/// `--health-path`.
pub const HEALTH_PATH: Setting = Setting {
    flag: "health-path",
    value: "PATH",
    env: "BALANCER_HEALTH_PATH",
    help: "Ask every backend for this path after its health; 2xx and 3xx are good",
    noun: "a path",
    want: "a path and query, for example /healthz",
    group: "Backends",
    ..BLANK
};
/// `--health-interval`.
pub const HEALTH_INTERVAL: Setting = Setting {
    flag: "health-interval",
    env: "BALANCER_HEALTH_INTERVAL",
    default: "2s",
    help: "Pause between two health checks of one backend",
    want: "100 ms to 24 h: a number with ms, s, m or h (a bare one is seconds), for example 2s",
    group: "Backends",
    ..TIMEOUT
};
/// `--health-timeout`.
pub const HEALTH_TIMEOUT: Setting = Setting {
    flag: "health-timeout",
    env: "BALANCER_HEALTH_TIMEOUT",
    default: "1s",
    help: "How long a health check may take, its connect included",
    group: "Backends",
    ..TIMEOUT
};
/// `--queue-length`.
pub const QUEUE_LENGTH: Setting = Setting {
    flag: "queue-length",
    value: "N",
    env: "BALANCER_QUEUE_LENGTH",
    default: "1024",
    help: "Requests per core that may wait because every backend is busy",
    noun: "a number of requests",
    want: "a number from 0 to 1000000, for example 1024",
    group: "Backends",
    ..BLANK
};
/// `--backend-max-inflight`.
pub const BACKEND_MAX_INFLIGHT: Setting = Setting {
    flag: "backend-max-inflight",
    value: "N",
    env: "BALANCER_BACKEND_MAX_INFLIGHT",
    default: "",
    help: "Requests in flight to one backend, of the whole process; further ones wait in the queue",
    noun: "a number of requests",
    want: "a number from 1 to 1000000, for example 100",
    group: "Backends",
    ..BLANK
};
/// `--max-head-bytes`.
pub const MAX_HEAD_BYTES: Setting = Setting {
    flag: "max-head-bytes",
    value: "SIZE",
    env: "BALANCER_MAX_HEAD_BYTES",
    default: "32KiB",
    help: "Longest message head",
    noun: "a size",
    want: "512 B to 1 MiB, for example 32KiB",
    group: "Limits",
    ..BLANK
};
/// `--max-fields`.
pub const MAX_FIELDS: Setting = Setting {
    flag: "max-fields",
    value: "N",
    env: "BALANCER_MAX_FIELDS",
    default: "100",
    help: "Most field lines of a head",
    noun: "a number of fields",
    want: "a number from 1 to 1000, for example 100",
    group: "Limits",
    ..BLANK
};
/// `--max-request-line`.
pub const MAX_REQUEST_LINE: Setting = Setting {
    flag: "max-request-line",
    value: "SIZE",
    env: "BALANCER_MAX_REQUEST_LINE",
    default: "8KiB",
    help: "Longest request line",
    noun: "a size",
    want: "128 B to 1 MiB, for example 8KiB",
    group: "Limits",
    ..BLANK
};
/// `--max-body`.
pub const MAX_BODY: Setting = Setting {
    flag: "max-body",
    value: "SIZE",
    env: "BALANCER_MAX_BODY",
    default: "unlimited",
    help: "Largest request body (413)",
    noun: "a size",
    want: "a size up to 8388607 TiB, or unlimited, for example 64MiB",
    group: "Limits",
    ..BLANK
};

/// `--log`, for every command.
pub const LOG: Setting = Setting {
    flag: "log",
    value: "LEVEL",
    env: "RUST_LOG",
    default: "info",
    help: "What is logged: a level, or target=level items",
    noun: "a log level",
    want: "error, warn, info, debug, trace or off, also per target, for example info or warn,balancer=debug",
    group: "Output",
    ..BLANK
};
/// `balancer demo --log`: its story is to stay readable, and what it breaks on purpose warns.
pub const DEMO_LOG: Setting = Setting {
    default: "warn",
    help: "What is logged: a level, or target=level items; with --quiet errors alone",
    ..LOG
};
/// `balancer top --admin`.
pub const TOP_ADMIN: Setting = Setting {
    value: "ADDR",
    help: "Address of the admin listener to watch",
    want: "an IP address with or without a port from 1 to 65535, for example 127.0.0.1:9900",
    noun: "an address",
    group: "Top",
    ..ADMIN
};
/// `balancer demo --for`.
pub const FOR: Setting = Setting {
    flag: "for",
    value: "TIME",
    default: "30s",
    help: "How long it goes on",
    noun: "a duration",
    want: "1 s to 24 h: a number with s, m or h (a bare one is seconds), for example 30s",
    group: "Demo",
    ..BLANK
};

/// Every setting of `balancer run`, in the order of the help.
pub const SETTINGS: &[&Setting] = &[
    &CORES,
    &CONTROL_CORE,
    &STEER,
    &PORT,
    &LISTEN,
    &MAX_CONNECTIONS,
    &MAX_CONNECTIONS_PER_IP,
    &TRUSTED_PROXIES,
    &TAKEOVER,
    &AGENT,
    &AGENT_PORT,
    &AGENT_BACKOFF,
    &TARGET_PORT,
    &BACKEND,
    &BALANCE,
    &HEALTH_PATH,
    &HEALTH_INTERVAL,
    &HEALTH_TIMEOUT,
    &CACHE,
    &CACHE_MODE,
    &CACHE_CAPACITY,
    &CACHE_BYTES,
    &STATIC_TTL,
    &REQUEST_TIMEOUT,
    &CONNECT_TIMEOUT,
    &IDLE_TIMEOUT,
    &HEADER_TIMEOUT,
    &BODY_TIMEOUT,
    &TUNNEL_TIMEOUT,
    &DRAIN_TIMEOUT,
    &BACKEND_MAX_INFLIGHT,
    &QUEUE_LENGTH,
    &QUEUE_TIMEOUT,
    &MAX_HEAD_BYTES,
    &MAX_FIELDS,
    &MAX_REQUEST_LINE,
    &MAX_BODY,
    &ADMIN,
    &ACCESS_LOG,
    &ACCESS_FORMAT,
    &LOG,
];
/// Every setting of `balancer top`.
pub const TOP_SETTINGS: &[&Setting] = &[&TOP_ADMIN];
/// Every setting of `balancer demo`.
pub const DEMO_SETTINGS: &[&Setting] = &[&FOR, &DEMO_LOG];
