//! The status page in a real browser: figures move with the traffic, a SUNDOWN and a dead agent show, nothing complains.
//!
//! `BALANCER_SCREENSHOTS=DIR cargo test --test live page` leaves pictures of it there.

use crate::support::agent::{Agent, Manner};
use crate::support::balancer::Balancer;
use crate::support::browser::Browser;
use crate::support::cached::is_hit;
use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::traffic::Traffic;

const NAMES: [&str; 4] = ["one", "two", "three", "four"];

/// Four backends of an agent, and a balancer with an admin listener.
fn scene() -> (Vec<Origin>, Agent, Balancer) {
    let origins: Vec<Origin> = NAMES.into_iter().map(Origin::start).collect();
    let agent = Agent::start();
    push(&agent, &origins, ["LU", "MU", "MU", "HU"]);
    // An address that no other test uses: nobody takes the port while the balancer is away.
    let admin = ["--admin", "127.0.0.2:0"];
    let agent_flags = ["--agent", &agent.url(), "--agent-backoff", "1s..5s"];
    let balancer = Balancer::run(&[&admin[..], &agent_flags, &["--cores", "all"]].concat());
    balancer.until_ready();
    (origins, agent, balancer)
}

fn push(agent: &Agent, origins: &[Origin], categories: [&str; 4]) {
    let names: Vec<String> = origins.iter().map(Origin::authority).collect();
    let scores = [90.0, 60.0, 30.0, 10.0];
    let set: Vec<(&str, f64, &str)> =
        (0..4).map(|n| (&*names[n], scores[n], categories[n])).collect();
    agent.push_set(&set);
}

#[test]
fn it_shows_what_goes_on() {
    let Some(mut browser) = Browser::open() else { return };
    let (origins, agent, balancer) = scene();
    browser.shape(1440, false);
    browser.go(&format!("http://{}/", balancer.admin()));
    browser.until("the first frame is shown", "$('rps').textContent === '0'");
    assert_eq!(browser.text("agent"), "connected");
    browser.until(
        "every backend has a row",
        "document.querySelectorAll('#rows-backends tr').length === 4",
    );
    browser.until("every core has a tile", "document.querySelectorAll('#cores li').length >= 1");

    let traffic = Traffic::start(balancer.address(), 3);
    let rate = "Number($('rps').textContent.replaceAll(',', ''))";
    browser.until("requests are counted", &format!("{rate} > 20"));
    browser.until(
        "durations are shown",
        "/\\d/.test($('p50').textContent) && /\\d/.test($('p99').textContent)",
    );
    let share = "document.querySelector('#rows-backends tr .says b').textContent";
    browser.until("shares settle", &format!("Math.abs(parseFloat({share}) - 47.4) < 4"));
    let first = browser.text("rps");
    browser.until("the figure changes", &format!("$('rps').textContent !== '{first}'"));
    let painted = "(() => { const c = $('heat'), g = c.getContext('2d'); \
                   return g.getImageData(0, 0, c.width, c.height).data.some((v) => v > 0); })()";
    browser.until("the heat map is drawn", painted);

    push(&agent, &origins, ["LU", "MU", "SUNDOWN", "HU"]);
    let row = |n: usize, what: &str| {
        format!(
            "document.querySelectorAll('#rows-backends tr')[{n}].textContent.includes('{what}')"
        )
    };
    browser.until("a SUNDOWN shows", &row(3, "draining"));
    browser.until("the journal tells of it", "$('log').textContent.includes('SUNDOWN')");
    browser.until(
        "its wanted share is none",
        "document.querySelectorAll('#rows-backends tr')[3].textContent.includes('0.0 %')",
    );
    browser.until("the rest is shared anew", &format!("Math.abs(parseFloat({share}) - 56.3) < 4"));

    let mut client = Client::connect(balancer.address());
    let answers: Vec<_> = (0..60).map(|n| client.get(&format!("/count/{}", n % 6))).collect();
    assert!(answers.iter().all(|answer| answer.status() == 200));
    // 54, but a core that is kept from its work for too long is not waited for.
    let hits = answers.iter().filter(|answer| is_hit(answer)).count();
    assert!(hits > 0, "{:?}", answers.last());
    // Of the rest of the traffic nothing can be kept: misses, and many.
    let kind =
        |n: usize| format!("Number($('kinds').rows[{n}].cells[2].textContent.replaceAll(',', ''))");
    let counted = format!("{} === {hits} && {} > 100", kind(0), kind(4));
    browser.until("hits and misses are counted", &counted);
    let by_shard = "[...$('shards').rows].some((row) => row.cells[2].textContent > 0)";
    browser.until("so they are by shard", by_shard);
    assert!(browser.text("ratio").ends_with('%'));
    pictures(&mut browser, "busy");

    agent.kill();
    browser.until("a dead agent shows", "$('agent').textContent === 'down'");
    browser.until("so does the next dial", "$('agent-more').textContent.includes('next dial in')");
    browser.until("the journal tells of it", "$('log').textContent.includes('agent link down')");
    browser.until("who listens is told", "$('say').textContent.includes('agent: down')");
    pictures(&mut browser, "agent-dead");
    agent.restart(Manner::Proper);
    push(&agent, &origins, ["LU", "MU", "LU", "HU"]);
    browser.until("it is back", "$('agent').textContent === 'connected'");
    traffic.stop();
    assert!(browser.complaints().is_empty(), "{:#?}", browser.complaints());

    // Gone is gone: the page says so, and comes back when the balancer does.
    let admin = balancer.admin();
    drop(balancer);
    browser.until("a lost balancer shows", "document.body.dataset.is === 'lost'");
    browser.forget_complaints();
    let flags = [
        "--listen",
        "127.0.0.1:0",
        "--admin",
        &admin.to_string(),
        "--backend",
        &origins[0].authority(),
    ];
    let _second = Balancer::try_run(&flags, &[]).expect("the address is free again");
    browser.until(
        "it is found again",
        "document.body.dataset.is === '' && $('agent').textContent === 'none'",
    );
    browser.until("one row is left", "document.querySelectorAll('#rows-backends tr').length === 1");
}

#[test]
fn a_cache_that_is_off_is_said_to_be() {
    let Some(mut browser) = Browser::open() else { return };
    let origin = Origin::start("a");
    let flags = ["--admin", "127.0.0.1:0", "--cache", "off"];
    let balancer = Balancer::before(&[(&origin, 50)], &flags);
    browser.shape(1440, false);
    browser.go(&format!("http://{}/", balancer.admin()));
    Traffic::run(balancer.address(), 2, 100);
    browser.until("requests are counted", "$('rps-more').textContent.startsWith('100 ')");
    assert_eq!((browser.text("ratio"), browser.text("ratio-more")), ("off".into(), String::new()));
    assert_eq!(browser.text("cache-more"), "off: every request goes to a backend");
    assert_eq!(browser.ask("$('cache').hidden"), true);
    assert!(browser.complaints().is_empty(), "{:#?}", browser.complaints());
    pictures(&mut browser, "no-cache");
    let mut client = Client::connect(balancer.admin());
    let mut look = |target: &str| {
        let ask = format!("GET {target} HTTP/1.1\r\nHost: {}\r\n\r\n", balancer.admin());
        client.send(ask.as_bytes()).expect("sent");
        client.response("GET").expect("an answer").text()
    };
    let backends: serde_json::Value = serde_json::from_str(&look("/backends")).expect("JSON");
    assert_eq!(backends[0]["requests"], 100);
    // What is scraped stays there, whatever is set: a series that comes and goes is no good to a dashboard.
    let metrics = look("/metrics");
    assert!(metrics.contains("\nbalancer_cache_hits_total{core="), "{metrics}");
}

#[test]
fn a_keyboard_is_enough() {
    let Some(mut browser) = Browser::open() else { return };
    let (_origins, _agent, balancer) = scene();
    browser.shape(1440, false);
    browser.go(&format!("http://{}/", balancer.admin()));
    browser.until(
        "every backend has a row",
        "document.querySelectorAll('#rows-backends tr').length === 4",
    );
    let focused = "document.activeElement.textContent.trim()";
    browser.press("Tab");
    assert_eq!(browser.ask(focused), "Skip to the backends");
    browser.press("Enter");
    browser.until("it skips", "document.activeElement.id === 'backends'");
    let mut seen = Vec::new();
    while seen.last().is_none_or(|text| text != "Score") {
        browser.press("Tab");
        seen.push(browser.ask(focused).as_str().unwrap_or_default().to_owned());
        assert!(seen.len() < 10, "{seen:?}");
    }
    let order = "[...document.querySelectorAll('#rows-backends th')].map((cell) => cell.textContent).join()";
    let before = browser.ask(order);
    browser.press("Enter");
    browser.until(
        "the column sorts",
        "document.querySelector('th[aria-sort]').textContent !== 'Share, real and wanted'",
    );
    browser.press("Enter");
    browser.until(
        "and the other way",
        "document.querySelector('th[aria-sort]').getAttribute('aria-sort') === 'ascending'",
    );
    assert_ne!(browser.ask(order), before);
    let landmarks = browser.ask(
        "['header', 'main', 'nav', 'footer', 'h1'].every((tag) => document.querySelectorAll(tag).length === 1) \
         && [...document.querySelectorAll('section')].every((part) => document.getElementById(part.getAttribute('aria-labelledby'))) \
         && [...document.querySelectorAll('th')].every((cell) => cell.scope) && document.documentElement.lang === 'en'",
    );
    assert_eq!(landmarks, true);
    assert_eq!(browser.ask("document.documentElement.scrollWidth <= innerWidth"), true);
    browser.shape(400, false);
    assert_eq!(browser.ask("document.documentElement.scrollWidth <= innerWidth"), true);
    assert!(browser.complaints().is_empty(), "{:#?}", browser.complaints());
}

#[test]
fn its_colours_can_be_told_apart() {
    let Some(mut browser) = Browser::open() else { return };
    let (_origins, _agent, balancer) = scene();
    for is_dark in [false, true] {
        browser.shape(1440, is_dark);
        browser.go(&format!("http://{}/", balancer.admin()));
        browser.until(
            "it is there",
            "document.readyState === 'complete' && document.getElementById('rps')",
        );
        let ratios = browser.ask(CONTRAST);
        for (name, ratio) in ratios.as_object().expect("a map") {
            // WCAG 2.1 AA, 1.4.3: text of ordinary size.
            assert!(
                ratio.as_f64().is_some_and(|ratio| ratio >= 4.5),
                "dark {is_dark}: {name} {ratio}"
            );
        }
    }
}

fn pictures(browser: &mut Browser, name: &str) {
    for (width, is_dark) in [(1440, false), (1440, true), (400, false), (400, true)] {
        browser.shape(width, is_dark);
        // A frame later it is drawn anew.
        browser.ask("new Promise((done) => setTimeout(done, 1200))");
        let colours = if is_dark { "dark" } else { "light" };
        browser.picture(&format!("{name}-{width}-{colours}.png"));
    }
    browser.shape(1440, false);
}

/// The contrast of every colour that text has with the paper behind it.
const CONTRAST: &str = "(() => {
    const style = getComputedStyle(document.documentElement);
    const light = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255)
        .map((c) => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
        .reduce((sum, c, at) => sum + c * [.2126, .7152, .0722][at], 0);
    const paper = light(style.getPropertyValue('--paper').trim());
    return Object.fromEntries(['ink', 'soft', 'good', 'warn', 'bad', 'accent'].map((name) => {
        const colour = light(style.getPropertyValue('--' + name).trim());
        return [name, (Math.max(colour, paper) + .05) / (Math.min(colour, paper) + .05)];
    }));
})()";
