//! Starting: RustyBalancer's variables alone, a taken port, and how it says no.

use std::time::Duration;

use crate::support::agent::Agent;
use crate::support::balancer::Balancer;
use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::parts::free_port;
use crate::support::wait;

#[test]
fn rustybalancers_variables_alone_start_it() {
    // Its agent is dialled by the name `deployment-agent`, which does not resolve here: open from the start, 503.
    let attempt = || {
        let (http, agent) = (free_port().to_string(), free_port().to_string());
        let env = [
            ("HOST_PORT_HTTP_BALANCER", http.as_str()),
            ("HOST_PORT_WS_DEPLOYMENT_AGENT", &agent),
            ("TARGET_PORT", "8080"),
            ("CACHE_CAPACITY", "100"),
            ("REQUEST_TIMEOUT", "3"),
        ];
        Balancer::try_run(&[], &env).ok().filter(|b| b.address().port().to_string() == http)
    };
    // Somebody else may take the port between the look and the start: then another one is tried.
    let balancer = (0..5).find_map(|_| attempt()).expect("the variables start it");
    let answer = Client::connect(balancer.address()).get("/");
    assert_eq!(answer.status(), 503);
    assert!(
        answer.head.field("retry-after").is_some_and(|text| text.parse::<u32>().is_ok()),
        "{answer:?}"
    );
}

#[test]
fn variables_and_flags_reach_the_same_settings() {
    let (origin, agent) = (Origin::start("a"), Agent::start());
    // A name without a port takes TARGET_PORT.
    let target_port = origin.address().port().to_string();
    agent.push_set(&[("127.0.0.1", 50.0, "LU")]);
    let env = [("TARGET_PORT", target_port.as_str()), ("BALANCER_AGENT", &agent.url())];
    let balancer = Balancer::try_run(&["--listen", "127.0.0.1:0"], &env).expect("a start");
    let mut client = Client::connect(balancer.address());
    wait::until("the first frame is in force", Duration::from_secs(5), || {
        client.get("/").status() == 200
    });
    let port = agent.port().to_string();
    let by_flag = Balancer::run(&["--agent", &agent.url(), "--target-port", &target_port]);
    let mut client = Client::connect(by_flag.address());
    wait::until("the first frame is in force", Duration::from_secs(5), || {
        client.get("/").status() == 200
    });
    assert!(by_flag.log().iter().any(|line| line.contains(&port)), "the banner names the agent");
}

#[test]
fn a_second_instance_on_the_same_port_is_refused() {
    let origin = Origin::start("a");
    let first = Balancer::before(&[(&origin, 50)], &[]);
    let (address, backend) = (first.address().to_string(), origin.authority());
    let flags = ["--listen", &address, "--backend", &backend];
    let refused = Balancer::try_run(&flags, &[]).err().expect("the second is refused");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.text.contains("taken"), "{refused:?}");
    assert!(!refused.text.contains("panicked"), "{refused:?}");
    for _ in 0..20 {
        assert_eq!(
            Client::connect(first.address()).get("/").status(),
            200,
            "the first goes on alone"
        );
    }
}

#[test]
fn nothing_to_balance_over_is_a_usage_error() {
    let refused =
        Balancer::try_run(&["--listen", "127.0.0.1:0"], &[]).err().expect("nothing to do");
    assert_eq!(refused.code, Some(2), "{refused:?}");
    for word in ["HOST_PORT_WS_DEPLOYMENT_AGENT", "--backend"] {
        assert!(refused.text.contains(word), "{word} is not named: {refused:?}");
    }
}

#[test]
fn a_restart_takes_the_port_at_once() {
    let origin = Origin::start("a");
    let mut first = Balancer::before(&[(&origin, 50)], &[]);
    let address = first.address().to_string();
    // The side that closes first keeps TIME_WAIT: let that be the balancer.
    let mut client = Client::connect(first.address());
    client.get("/");
    first.terminate();
    assert_eq!(first.exit(Duration::from_secs(10)).code(), Some(0));
    client.end().expect("an orderly end");
    let flags = ["--listen", &address, "--backend", &origin.authority()];
    let second = Balancer::try_run(&flags, &[]).expect("TIME_WAIT does not refuse a restart");
    assert_eq!(Client::connect(second.address()).get("/").status(), 200);
}
