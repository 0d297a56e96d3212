//! Bad frames, one kind after another, with traffic running: good items are used, the rest changes nothing.
//!
//! After each frame a good one moves the traffic to the other origin: so the bad one has been digested, and the
//! link (or its successor) still works.

use std::time::Duration;

use crate::support::agent::{
    Agent, BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, fragment, frame, snapshot,
};
use crate::support::balancer::Balancer;
use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::traffic::Traffic;
use crate::support::wait;

/// What a frame must do to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Noise {
    /// Refused or in part: exactly one warning.
    OneWarning,
    /// Nothing to say, or counted only.
    Quiet,
    /// The link goes; what is said about that is the link's affair.
    Link,
}

/// Text frames that are no good as a whole or in part; `{good}` stands for a good item.
const TEXTS: [(&str, Noise, &str); 35] = [
    ("not json", Noise::OneWarning, "hello"),
    ("empty text", Noise::OneWarning, ""),
    ("cut json", Noise::OneWarning, r#"[{"dns_name":"a","score":"#),
    ("junk after", Noise::OneWarning, r#"[{good}] x"#),
    ("null", Noise::OneWarning, "null"),
    ("number", Noise::OneWarning, "7"),
    ("string", Noise::OneWarning, r#""[]""#),
    ("object", Noise::OneWarning, "{good}"),
    ("array of arrays", Noise::OneWarning, "[[]]"),
    ("array of numbers", Noise::OneWarning, "[1,2,3]"),
    ("array of null", Noise::OneWarning, "[null]"),
    (
        "score text",
        Noise::OneWarning,
        r#"[{"dns_name":"x:1","score":"50","utilization_category":"LU"},{good}]"#,
    ),
    (
        "score null",
        Noise::OneWarning,
        r#"[{"dns_name":"x:1","score":null,"utilization_category":"LU"},{good}]"#,
    ),
    (
        "score true",
        Noise::OneWarning,
        r#"[{"dns_name":"x:1","score":true,"utilization_category":"LU"},{good}]"#,
    ),
    (
        "score NaN",
        Noise::OneWarning,
        r#"[{"dns_name":"x:1","score":NaN,"utilization_category":"LU"},{good}]"#,
    ),
    (
        "score 1e308",
        Noise::OneWarning,
        r#"[{"dns_name":"x:1","score":1e308,"utilization_category":"LU"},{good}]"#,
    ),
    (
        "score 1e999",
        Noise::OneWarning,
        r#"[{"dns_name":"x:1","score":1e999,"utilization_category":"LU"},{good}]"#,
    ),
    (
        "score negative",
        Noise::OneWarning,
        r#"[{"dns_name":"x:1","score":-1,"utilization_category":"LU"},{good}]"#,
    ),
    (
        "score over 100",
        Noise::OneWarning,
        r#"[{"dns_name":"x:1","score":100.5,"utilization_category":"LU"},{good}]"#,
    ),
    (
        "score missing",
        Noise::OneWarning,
        r#"[{"dns_name":"x:1","utilization_category":"LU"},{good}]"#,
    ),
    ("name missing", Noise::OneWarning, r#"[{"score":50,"utilization_category":"LU"},{good}]"#),
    (
        "name number",
        Noise::OneWarning,
        r#"[{"dns_name":5,"score":50,"utilization_category":"LU"},{good}]"#,
    ),
    (
        "name empty",
        Noise::OneWarning,
        r#"[{"dns_name":"","score":50,"utilization_category":"LU"},{good}]"#,
    ),
    (
        "name with spaces",
        Noise::OneWarning,
        r#"[{"dns_name":"a b:1","score":50,"utilization_category":"LU"},{good}]"#,
    ),
    (
        "name with control",
        Noise::OneWarning,
        r#"[{"dns_name":"a\u0000b:1","score":5,"utilization_category":"LU"},{good}]"#,
    ),
    (
        "port absurd",
        Noise::OneWarning,
        r#"[{"dns_name":"a:99999","score":50,"utilization_category":"LU"},{good}]"#,
    ),
    (
        "port text",
        Noise::OneWarning,
        r#"[{"dns_name":"a:b","score":50,"utilization_category":"LU"},{good}]"#,
    ),
    (
        "category number",
        Noise::OneWarning,
        r#"[{"dns_name":"x:1","score":50,"utilization_category":3},{good}]"#,
    ),
    ("category missing", Noise::OneWarning, r#"[{"dns_name":"x:1","score":50},{good}]"#),
    (
        "category unknown",
        Noise::Quiet,
        r#"[{good2},{"dns_name":"{name}","score":50,"utilization_category":"ODD"}]"#,
    ),
    (
        "extra fields",
        Noise::Quiet,
        r#"[{"dns_name":"{name}","score":50,"utilization_category":"LU","cpu":[1,{}],"x":null}]"#,
    ),
    (
        "duplicates",
        Noise::Quiet,
        r#"[{"dns_name":"{name}","score":1,"utilization_category":"HU"},{good}]"#,
    ),
    ("white space", Noise::Quiet, "  [ \n{good}\t ] \n"),
    ("empty array once", Noise::Quiet, "[]"),
    (
        "unresolvable",
        Noise::Quiet,
        r#"[{"dns_name":"no-such-host.invalid:1","score":90,"utilization_category":"LU"},{good}]"#,
    ),
];

struct Stage {
    origins: [Origin; 2],
    agent: Agent,
    balancer: Balancer,
    turn: usize,
}

impl Stage {
    fn new() -> Self {
        let origins = [Origin::start("a"), Origin::start("b")];
        origins.iter().for_each(Origin::forget);
        let agent = Agent::start();
        agent.push(&snapshot(&[(&origins[0].authority(), 50.0, "LU")]));
        let balancer = Balancer::run(&["--agent", &agent.url(), "--agent-backoff", "50ms..100ms"]);
        let stage = Self { origins, agent, balancer, turn: 0 };
        stage.settled("the first frame");
        stage
    }

    fn current(&self) -> &Origin {
        &self.origins[self.turn % 2]
    }

    /// Waits until all traffic goes to the origin whose turn it is.
    fn settled(&self, after: &str) {
        let mut client = Client::connect(self.balancer.address());
        let name = ["a", "b"][self.turn % 2];
        wait::until(
            &format!("the good frame after {after} is in force"),
            Duration::from_secs(20),
            || {
                let answer = client.get("/");
                if answer.head.lists("connection", "close") {
                    client = Client::connect(self.balancer.address());
                }
                answer.origin() == name
            },
        );
    }

    /// A good frame for the other origin, and its effect.
    fn move_on(&mut self, after: &str) {
        self.turn += 1;
        let good = snapshot(&[(&self.current().authority(), 50.0, "LU")]);
        // A link that was lost gets it as its first frame.
        self.agent.push(&good);
        self.settled(after);
    }
}

#[test]
fn bad_text_frames_change_nothing_and_say_so_once() {
    let mut stage = Stage::new();
    let traffic = Traffic::start(stage.balancer.address(), 2);
    for (what, noise, text) in TEXTS {
        let name = stage.current().authority();
        let good = snapshot(&[(&name, 50.0, "LU")]);
        let item = &good[1..good.len() - 1];
        let text = text.replace("{good}", item).replace("{good2}", item).replace("{name}", &name);
        let before = stage.balancer.warnings().len();
        stage.agent.push_raw(&frame(TEXT, text.as_bytes()));
        stage.move_on(what);
        // The good frame is in force, so everything about the bad one has been said; stderr is read by a thread.
        let count = || stage.balancer.warnings().len() - before;
        match noise {
            Noise::OneWarning => {
                wait::until(&format!("a warning about {what}"), Duration::from_secs(5), || {
                    count() >= 1
                });
                assert_eq!(count(), 1, "{what}: {:?}", &stage.balancer.warnings()[before..]);
            }
            // An unknown category or a name that does not resolve may be worth a line of its own.
            Noise::Quiet | Noise::Link => {
                assert!(count() <= 1, "{what}: {:?}", stage.balancer.warnings())
            }
        }
        traffic.assert_no_failure();
    }
    let answered = traffic.stop();
    eprintln!("{} kinds of bad text, {answered} answers, no failure", TEXTS.len());
}

#[test]
fn bad_frames_below_the_text_are_survived() {
    let mut stage = Stage::new();
    let traffic = Traffic::start(stage.balancer.address(), 2);
    let good = snapshot(&[(&stage.current().authority(), 50.0, "LU")]);
    let many = |count: usize| {
        let items: Vec<String> = (0..count)
            .map(|n| {
                format!(
                    r#"{{"dns_name":"10.0.{}.{}:1","score":1,"utilization_category":"LU"}}"#,
                    n / 256 % 256,
                    n % 256
                )
            })
            .collect();
        format!("[{}]", items.join(","))
    };
    let fragments = [
        fragment(TEXT, &good.as_bytes()[..5]),
        frame(PING, b"between"),
        fragment(CONTINUATION, &good.as_bytes()[5..20]),
        fragment(FIN | CONTINUATION, &good.as_bytes()[20..]),
    ]
    .concat();
    let oversize = fragment(FIN | TEXT, &vec![b' '; 10 << 20]);
    let table: [(&str, Noise, Vec<u8>); 14] = [
        ("binary", Noise::Quiet, frame(BINARY, good.as_bytes())),
        ("fragmented", Noise::Quiet, fragments),
        ("byte by byte fragments", Noise::Quiet, {
            let bytes = good.as_bytes();
            let middle =
                bytes[1..bytes.len() - 1].chunks(1).flat_map(|b| fragment(CONTINUATION, b));
            let first = fragment(TEXT, &bytes[..1]).into_iter();
            first
                .chain(middle)
                .chain(fragment(FIN | CONTINUATION, &bytes[bytes.len() - 1..]))
                .collect()
        }),
        ("ping flood", Noise::Quiet, frame(PING, b"ping").repeat(10_000)),
        ("unasked pongs", Noise::Quiet, frame(PONG, b"pong").repeat(1_000)),
        ("invalid UTF-8", Noise::Link, frame(TEXT, b"[\xff\xfe]")),
        ("10 MB", Noise::Link, oversize),
        ("100,000 items", Noise::Link, frame(TEXT, many(100_000).as_bytes())),
        ("reserved bits", Noise::Link, fragment(FIN | 0x70 | TEXT, b"[]")),
        ("reserved opcode", Noise::Link, frame(5, b"x")),
        ("continuation of nothing", Noise::Link, frame(CONTINUATION, b"x")),
        ("long control frame", Noise::Link, frame(PING, &[0; 200])),
        (
            "masked by the server",
            Noise::Link,
            vec![FIN | TEXT, 0x80 | 2, 1, 2, 3, 4, b'[' ^ 1, b']' ^ 2],
        ),
        ("close", Noise::Link, frame(CLOSE, &1001_u16.to_be_bytes())),
    ];
    for (what, noise, bytes) in table {
        let shaken = stage.agent.shaken();
        stage.agent.push_raw(&bytes);
        if noise == Noise::Link {
            wait::until(&format!("a new link after {what}"), Duration::from_secs(20), || {
                stage.agent.shaken() > shaken && stage.agent.links() == 1
            });
        }
        stage.move_on(what);
        if noise == Noise::Quiet {
            assert_eq!(stage.agent.shaken(), shaken, "{what} costs the link");
        }
        traffic.assert_no_failure();
    }
    traffic.stop();
}

#[test]
fn an_empty_array_is_believed_when_repeated() {
    let stage = Stage::new();
    let empty = frame(TEXT, b"[]");
    stage.agent.push_raw(&empty);
    let traffic = Traffic::start(stage.balancer.address(), 2);
    traffic.flows(500);
    traffic.stop();
    stage.agent.push_raw(&empty);
    wait::until("the empty set is in force", Duration::from_secs(5), || {
        Client::connect(stage.balancer.address()).get("/").status() == 503
    });
}

#[test]
fn a_good_item_survives_a_bad_neighbour_and_a_bad_update() {
    let stage = Stage::new();
    let name = stage.current().authority();
    // The entry in force stays when its update is bad.
    let text = format!(r#"[{{"dns_name":"{name}","score":-4,"utilization_category":"LU"}}]"#);
    stage.agent.push_raw(&frame(TEXT, text.as_bytes()));
    let other = stage.origins[1].authority();
    let text = format!(
        r#"[{{"dns_name":"{name}","score":"x","utilization_category":"LU"}},{{"dns_name":"{other}","score":50,"utilization_category":"LU"}}]"#
    );
    stage.agent.push_raw(&frame(TEXT, text.as_bytes()));
    let mut client = Client::connect(stage.balancer.address());
    wait::until("both are used", Duration::from_secs(10), || client.get("/").origin() == "b");
    wait::until("both are used", Duration::from_secs(10), || client.get("/").origin() == "a");
}
