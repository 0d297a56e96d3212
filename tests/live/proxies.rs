//! Whom is believed about those before him (`--trusted-proxies`): what reaches the backend, and what the cache takes
//! for the same.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::balancer::Balancer;
use crate::support::cached::{House, is_hit};
use crate::support::client::{Client, Response};
use crate::support::origin::{Origin, Saying};
use crate::support::wait;

/// What a client says of those before it.
const SAID: &str = "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: a.example\r\n\
                    Forwarded: for=203.0.113.9;proto=https\r\n";
/// Everything is ours.
const REPLACED: [&str; 4] = ["127.0.0.1", "http", "test", "for=127.0.0.1;host=\"test\";proto=http"];
const ADDED: &str = "203.0.113.9, 127.0.0.1";
const ADDED_FORWARDED: &str = "for=203.0.113.9;proto=https, for=127.0.0.1;host=\"test\";proto=http";

/// What the backend is told when a client at 127.0.0.1 says all that.
fn told(origin: &Origin, balancer: SocketAddr) -> [String; 4] {
    let answer = Client::connect(balancer).ask("GET", "/", SAID, b"").expect("an answer");
    assert_eq!(answer.status(), 200);
    let seen = origin.seen().pop().expect("a request");
    ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"].map(|name| {
        let lines = seen.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        let lines: Vec<&str> = lines.map(|(_, value)| value.as_str()).collect();
        assert_eq!(lines.len(), 1, "{name}: {lines:?}");
        lines[0].to_owned()
    })
}

#[test]
fn a_trusted_proxys_fields_are_added_to_and_anybody_elses_replaced() {
    let origin = Origin::start("a");
    let trusted = [ADDED, "https", "a.example", ADDED_FORWARDED];
    for (flags, wanted) in [
        // Nobody is named: as ever, what was said goes on with what we saw behind it.
        (&[][..], [ADDED, "http", "test", ADDED_FORWARDED]),
        (&["--trusted-proxies", "127.0.0.1"], trusted),
        (&["--trusted-proxies", "::1,127.0.0.0/8"], trusted),
        (
            &["--trusted-proxies", "10.0.0.0/8", "--trusted-proxies", "::ffff:127.0.0.0/104"],
            trusted,
        ),
        (&["--trusted-proxies", "10.0.0.0/8,::/0"], REPLACED),
        (&["--trusted-proxies", "127.0.0.2"], REPLACED),
    ] {
        let balancer = Balancer::before(&[(&origin, 50)], flags);
        assert_eq!(told(&origin, balancer.address()), wanted, "{flags:?}");
    }
}

#[test]
fn an_ipv4_client_of_an_ipv6_socket_is_an_ipv4_client() {
    let origin = Origin::start("a");
    let backend = origin.authority();
    for (proxies, wanted) in
        [("127.0.0.0/8", [ADDED, "https", "a.example", ADDED_FORWARDED]), ("::/0", REPLACED)]
    {
        let flags = ["--listen", "[::]:0", "--backend", &backend];
        let env = [("BALANCER_TRUSTED_PROXIES", proxies)];
        let balancer = Balancer::try_run(&flags, &env).expect("a start");
        let address = SocketAddr::from(([127, 0, 0, 1], balancer.address().port()));
        assert_eq!(told(&origin, address), wanted, "{proxies}");
    }
}

fn say(client: &mut Client, fields: &str) -> Response {
    client.ask("GET", "/say/a", fields, b"").expect("an answer")
}

#[test]
fn the_cache_tells_apart_what_the_backend_can() {
    const HTTPS: &str = "X-Forwarded-Proto: https\r\n";
    const OTHER: &str = "X-Forwarded-Host: other.example\r\n";
    // Each once, then each again: the second time all come from the store.
    for (proxies, asked) in [("127.0.0.1", 3), ("10.0.0.0/8", 1)] {
        let house = House::one_core(&["--trusted-proxies", proxies, "--admin", "127.0.0.1:0"]);
        house.origin.say("a", Saying::new("Cache-Control: max-age=600", "a"));
        let mut client = house.client();
        for is_second in [false, true] {
            for (n, fields) in ["", HTTPS, OTHER].into_iter().enumerate() {
                let is_known = is_second || (n > 0 && asked == 1);
                assert_eq!(is_hit(&say(&mut client, fields)), is_known, "{proxies} {fields}");
            }
        }
        assert_eq!(house.asked("/say/a"), asked, "{proxies}");
        // Under the name of an URL, whatever host the proxy told of; https is another URL.
        let admin = house.balancer.admin();
        let purge = format!(
            "POST /cache/purge?url=http://test/say/a HTTP/1.1\r\nHost: {admin}\r\nX-Balancer-Purge: yes\r\n\
             Content-Length: 0\r\n\r\n"
        );
        let mut operator = Client::connect(admin);
        operator.send(purge.as_bytes()).expect("sent");
        let answer = operator.response("POST").expect("an answer");
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let kept = ["", HTTPS, OTHER].map(|fields| is_hit(&say(&mut client, fields)));
        let wanted = if asked == 3 { [false, true, false] } else { [false, true, true] };
        assert_eq!(kept, wanted, "{proxies}");
    }
}

#[test]
fn a_response_is_fetched_anew_in_the_words_of_the_proxy() {
    let house = House::one_core(&["--trusted-proxies", "127.0.0.1"]);
    let fields = "Cache-Control: max-age=0, stale-while-revalidate=600";
    house.origin.say("a", Saying::new(fields, "a"));
    let mut client = house.client();
    for _ in 0..2 {
        let answer =
            say(&mut client, "X-Forwarded-Proto: https\r\nX-Forwarded-For: 203.0.113.9\r\n");
        assert_eq!(answer.text(), "a");
    }
    wait::until("it is asked for again", Duration::from_secs(10), || house.asked("/say/a") == 2);
    assert_eq!(house.asked_with("/say/a", "x-forwarded-proto").as_deref(), Some("https"));
    assert_eq!(house.asked_with("/say/a", "x-forwarded-for").as_deref(), Some(ADDED));
}
