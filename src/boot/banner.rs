//! The text a start prints: what is listened on, who works where, what the limits are. Plain, one screen, only what
//! is true.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::error::bytes_text;
use super::preflight::HostFacts;
use crate::config::{AgentConfig, Config, StaticBackend};
use crate::io::affinity::{Cpu, format_list};

/// The banner, each line ended. `addresses` and `admin` are those really bound.
pub fn banner(
    config: &Config,
    host: &HostFacts,
    addresses: &[SocketAddr],
    admin: Option<SocketAddr>,
) -> String {
    let mut urls: Vec<String> =
        addresses.iter().flat_map(|&address| urls(address, addresses)).collect();
    urls.extend(admin.map(|address| format!("admin http://{address}")));
    let limits = [
        format!("nofile {}", host.limits.nofile),
        format!("memlock {}", host.limits.memlock.map_or("unlimited".to_owned(), bytes_text)),
        format!("backlog {}", host.backlog),
        format!("connections {}", config.connections_max),
    ];
    let mut text = format!("balancer {}   {}\n", env!("CARGO_PKG_VERSION"), urls.join("   "));
    line(&mut text, "workers", &workers(config, host));
    if let Some(agent) = &config.agent {
        line(&mut text, "agent", &format!("{}   connecting", agent_url(agent)));
    }
    if !config.backends.is_empty() {
        line(&mut text, "backends", &backends(config));
    }
    if let Some(cache) = &config.cache {
        let share = cache.share(config.cores.len() as u64);
        let share = format!("{} entries, {} per core", share.entries, bytes_text(share.bytes));
        let whole = format!("{} entries, {}", cache.entries, bytes_text(cache.bytes));
        line(&mut text, "cache", &format!("{whole} → {share}"));
    }
    line(&mut text, "limits", &limits.join("   "));
    text
}

/// The agent's URL.
pub fn agent_url(agent: &AgentConfig) -> String {
    format!("ws://{}:{}{}", bracketed(&agent.host), agent.port, agent.path)
}

fn line(text: &mut String, name: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "  {name:<8} {value}");
}

/// `[::]` takes IPv4 too, unless `0.0.0.0` has the port for itself.
fn urls(address: SocketAddr, all: &[SocketAddr]) -> Vec<String> {
    let v4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
    let is_dual =
        matches!(address.ip(), IpAddr::V6(ip) if ip.is_unspecified()) && !all.contains(&v4);
    let url = |address: SocketAddr| format!("http://{address}");
    if is_dual { vec![url(v4), url(address)] } else { vec![url(address)] }
}

fn workers(config: &Config, host: &HostFacts) -> String {
    let count = config.cores.len();
    let cores = if count == 1 { "core" } else { "cores" };
    let shared =
        if config.cores.contains(&config.control_core) { ", shared with a worker" } else { "" };
    let wiring = wiring(&config.cores, host).map_or(String::new(), |text| format!(" ({text})"));
    let list = format_list(&config.cores);
    format!("{count}   {cores} {list}{wiring}     control  core {}{shared}", config.control_core)
}

/// The nodes the workers sit on, and whether two of them are siblings. `None` when `/sys` tells no node.
fn wiring(cores: &[usize], host: &HostFacts) -> Option<String> {
    let cpus: Vec<&Cpu> = cores.iter().filter_map(|&core| host.cpus.get(core)).collect();
    let mut nodes: Vec<usize> = cpus.iter().map(|cpu| cpu.node).collect::<Option<_>>()?;
    nodes.sort_unstable();
    nodes.dedup();
    let mut physical: Vec<usize> = cpus.iter().map(|cpu| cpu.physical).collect();
    physical.sort_unstable();
    physical.dedup();
    let siblings =
        if physical.len() == cpus.len() { "no SMT siblings" } else { "with SMT siblings" };
    let node = if nodes.len() == 1 { "node" } else { "nodes" };
    Some(format!("{node} {}, {siblings}", format_list(&nodes)))
}

fn backends(config: &Config) -> String {
    let mut names: Vec<String> = config
        .backends
        .iter()
        .take(BACKENDS_SHOWN)
        .map(|backend| one_backend(backend, config))
        .collect();
    if config.backends.len() > BACKENDS_SHOWN {
        names.push(format!("and {} more", config.backends.len() - BACKENDS_SHOWN));
    }
    format!("{} static   {}", config.backends.len(), names.join(", "))
}

fn one_backend(backend: &StaticBackend, config: &Config) -> String {
    let port = backend.port.or(config.target_port).map_or(String::new(), |port| format!(":{port}"));
    format!("{}{port} {}", bracketed(&backend.host), backend.score.get())
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// Static backends named one by one; one screen is the limit.
const BACKENDS_SHOWN: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::{Balance, Score};
    use crate::config::{CacheConfig, Timeouts};
    use crate::http::HeadLimits;
    use crate::io::affinity::Cpus;
    use crate::io::host::Limits;
    use std::time::Duration;

    fn config() -> Config {
        Config {
            listen: vec!["[::]:8080".parse().unwrap()],
            admin: None,
            access_log: None,
            takeover: None,
            cores: vec![2, 3, 4, 5, 6, 7],
            control_core: 0,
            agent: Some(AgentConfig {
                host: "deployment-agent".into(),
                port: 4000,
                path: "/ws".into(),
                backoff_min: Duration::from_secs(1),
                backoff_max: Duration::from_secs(60),
            }),
            backends: vec![],
            target_port: Some(3000),
            steer: Default::default(),
            balance: Balance::Bounded,
            health: None,
            cache: Some(CacheConfig {
                entries: 10_000,
                bytes: 256 << 20,
                files_max: 100,
                settings: Default::default(),
            }),
            timeouts: Timeouts::default(),
            head: HeadLimits::default(),
            body_bytes_max: None,
            connections_max: 500,
            connections_per_ip_max: None,
            trusted_proxies: Vec::new(),
            backend_inflight_max: None,
            queue_length_max: 1024,
        }
    }

    fn host(siblings: &'static str) -> HostFacts {
        let read = move |path: &str| match path {
            "node/online" => Some("0".to_owned()),
            "node/node0/cpulist" => Some("0-7".to_owned()),
            _ => (!siblings.is_empty()).then(|| siblings.to_owned()),
        };
        HostFacts {
            limits: Limits { nofile: 1_048_576, memlock: Some(8 << 20) },
            backlog: 4096,
            cpus: Cpus::new(&[0, 1, 2, 3, 4, 5, 6, 7], read),
            warnings: vec![],
        }
    }

    #[test]
    fn with_an_agent() {
        let config = config();
        let text = banner(&config, &host(""), &config.listen, Some(([127, 0, 0, 1], 9900).into()));
        let wanted = format!(
            "balancer {}   http://0.0.0.0:8080   http://[::]:8080   admin http://127.0.0.1:9900
  workers  6   cores 2-7 (node 0, no SMT siblings)     control  core 0
  agent    ws://deployment-agent:4000/ws   connecting
  cache    10000 entries, 256 MiB → 1666 entries, 42 MiB per core
  limits   nofile 1048576   memlock 8 MiB   backlog 4096   connections 500
",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(text, wanted);
    }

    #[test]
    fn with_backends_on_a_shared_core() {
        let backend = |host: &str, port, score| StaticBackend {
            host: host.into(),
            port,
            score: Score::new(score).unwrap(),
        };
        let mut config = config();
        config.agent = None;
        config.cores = vec![0];
        config.backends = vec![backend("app-1", None, 100.0), backend("::1", Some(81), 2.5)];
        let text = banner(&config, &host("0-7"), &["127.0.0.1:4711".parse().unwrap()], None);
        assert!(text.contains("   http://127.0.0.1:4711\n"), "{text}");
        assert!(text.contains(
            "1   core 0 (node 0, no SMT siblings)     control  core 0, shared with a worker\n"
        ));
        assert!(text.contains("  backends 2 static   app-1:3000 100, [::1]:81 2.5\n"), "{text}");
        assert!(!text.contains("agent"));

        config.cores = vec![2, 3];
        config.backends = vec![backend("a", Some(1), 0.0); 9];
        let text = banner(&config, &host("0-7"), &[], None);
        assert!(text.contains("cores 2-3 (node 0, with SMT siblings)"), "{text}");
        assert!(text.contains("a:1 0, and 3 more\n"), "{text}");
    }
}
