//! A balancer with its cache before one origin, and what a response says about that cache (RFC 9211).

use std::time::Duration;

use super::balancer::{Balancer, allowed_cores};
use super::client::{Client, Response};
use super::origin::Origin;
use super::wire::Head;

/// An origin and a balancer before it.
pub struct House {
    /// The origin.
    pub origin: Origin,
    /// The balancer.
    pub balancer: Balancer,
}

impl House {
    /// One worker core.
    pub fn one_core(flags: &[&str]) -> Self {
        let core = allowed_cores()[0].to_string();
        Self::on(&core, &core, flags)
    }

    /// Two worker cores; None, loudly, on a host with one.
    pub fn two_cores(flags: &[&str]) -> Option<Self> {
        let [first, second, ..] = allowed_cores()[..] else {
            eprintln!("SKIPPED: this host offers one core");
            return None;
        };
        Some(Self::on(&format!("{first},{second}"), &first.to_string(), flags))
    }

    fn on(cores: &str, control: &str, flags: &[&str]) -> Self {
        let origin = Origin::start("a");
        let all = [&["--cores", cores, "--control-core", control], flags].concat();
        let balancer = Balancer::before(&[(&origin, 50)], &all);
        Self { origin, balancer }
    }

    /// A new client.
    pub fn client(&self) -> Client {
        Client::connect(self.balancer.address())
    }

    /// How often the origin was asked for that target.
    pub fn asked(&self, target: &str) -> usize {
        self.origin.count_of(target)
    }

    /// The field of that name in the newest request for the target that reached the origin.
    pub fn asked_with(&self, target: &str, name: &str) -> Option<String> {
        let seen = self.origin.seen().into_iter().rev().find(|seen| seen.target == target);
        let fields = seen.unwrap_or_else(|| panic!("{target} was not asked for")).fields;
        fields.into_iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// The parameters of our member of Cache-Status.
fn parameters(head: &Head) -> Vec<&str> {
    let value = head.field("cache-status").unwrap_or("");
    let ours = value.split(',').map(str::trim).find(|member| member.starts_with("balancer"));
    ours.map(|member| member.split(';').skip(1).map(str::trim).collect()).unwrap_or_default()
}

/// Whether the response came from the store.
pub fn is_hit(response: &Response) -> bool {
    parameters(&response.head).contains(&"hit")
}

/// Whether the response needed no request of its own at the origin: from the store, or shared while another fetched it.
pub fn is_shared(response: &Response) -> bool {
    is_hit(response) || parameters(&response.head).contains(&"collapsed")
}

/// Its freshness left in seconds, negative when it is stale.
pub fn ttl(response: &Response) -> Option<i64> {
    parameters(&response.head).iter().find_map(|p| p.strip_prefix("ttl=")?.parse().ok())
}

/// Why the request went on.
pub fn forwarded(response: &Response) -> Option<&str> {
    parameters(&response.head).iter().find_map(|p| p.strip_prefix("fwd="))
}

/// Age in seconds.
pub fn age(response: &Response) -> Option<u64> {
    response.head.field("age").and_then(|text| text.parse().ok())
}

/// Patience for what should happen at once.
pub const SOON: Duration = Duration::from_secs(10);
