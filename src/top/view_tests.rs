//! Screens of every size, from what was heard.

use super::*;
use crate::control::admin::frame::CoreView;

fn backend(name: &str, wanted: f64, real: f64, state: &str) -> BackendView {
    BackendView {
        name: name.into(),
        score: 100.0 * wanted,
        category: "LU".into(),
        state: state.into(),
        wanted,
        real: Some(real),
        rps: 1000.0 * real,
        p99_ms: Some(10.0 * real),
        ..BackendView::default()
    }
}

fn scene(backends: usize) -> Scene {
    let mut scene = Scene { address: "127.0.0.1:9900".into(), ..Scene::default() };
    let rows_ms: Vec<f64> = (0..42).map(f64::from).collect();
    let moment = |at: u64| Moment {
        at_ms: at * 1000,
        requests: 10,
        heat: vec![0, 0, 3, 1],
        by_core: vec![5, 5],
        ..Moment::default()
    };
    let events =
        vec![Happening { number: 1, at_ms: 0, topic: "set".into(), text: "app-1 came".into() }];
    scene.recall(History {
        version: "9.9.9".into(),
        rows_ms,
        cores: vec![2, 3],
        seconds: (0..50).map(moment).collect(),
        events,
    });
    let core = |core: usize, busy: f64| CoreView { core, busy, rps: 500.0, ..CoreView::default() };
    let mut all: Vec<BackendView> = (0..backends)
        .map(|n| backend(&format!("app-{n:04}"), 1.0 / backends as f64, 0.1, "up"))
        .collect();
    if let Some(first) = all.first_mut() {
        *first = backend("app-0000", 0.5, 0.48, "draining");
    }
    scene.hear(Frame {
        stage: "serving".into(),
        uptime_s: 75,
        rps: 1234.0,
        p99_ms: Some(2.5),
        error_ratio: Some(0.1),
        agent: AgentView {
            link: "down".into(),
            why: Some("reset".into()),
            since_s: Some(3.0),
            age_s: Some(5.0),
            retry_s: Some(1.0),
            epoch: 7,
            ..AgentView::default()
        },
        cores: vec![core(2, 0.5), core(3, 0.99)],
        backends_total: all.len(),
        backends: all,
        second: moment(50),
        ..Frame::default()
    });
    scene
}

fn text(lines: &[Line]) -> String {
    let plain = |line: &Line| line.iter().map(|(_, piece)| piece.as_str()).collect::<String>();
    lines.iter().map(plain).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_screen_of_any_size_is_filled_and_never_overrun() {
    for backends in [0, 1, 4, 500] {
        let scene = scene(backends);
        for width in [0, 1, 10, 40, 80, 100, 140, 300] {
            for height in [1, 2, 5, 24, 40, 100] {
                let lines = scene.draw(width, height);
                assert_eq!(lines.len(), height, "{width}x{height} with {backends}");
                for line in &lines {
                    let length: usize = line.iter().map(|(_, piece)| piece.chars().count()).sum();
                    assert!(length <= width, "{width}x{height}: {line:?}");
                }
            }
        }
    }
    assert_eq!(Scene::default().draw(80, 24).len(), 24);
}

#[test]
fn what_matters_is_on_it() {
    let shown = text(&scene(4).draw(140, 45));
    for words in [
        "balancer 9.9.9   serving for 75 s   http://127.0.0.1:9900",
        "req/s 1,234",
        "5xx 10.0 %",
        "agent down   snapshot 5.0 s old, epoch 7; lost 3.0 s ago (reset), next dial in 1.0 s",
        "LATENCY",
        "48.0 %  50.0 %",
        "draining",
        "00:00:00  set     app-1 came",
        "q quit   s sort: wanted share",
    ] {
        assert!(shown.contains(words), "no {words:?} in\n{shown}");
    }
    let narrow = text(&scene(4).draw(80, 24));
    assert!(narrow.contains("app-0000") && !narrow.contains("LATENCY"), "{narrow}");
    let lost = text(&Scene { lost: Some("nobody listens there".into()), ..scene(1) }.draw(100, 24));
    assert!(lost.contains("no word from it: nobody listens there; trying again"), "{lost}");
    assert!(shown.contains("cache hits off   "), "{shown}");
    let mut caching = scene(1);
    let counters = [("hits", 3), ("misses", 1)].map(|(kind, n)| (cache_counter(kind), n));
    caching.frame.as_mut().unwrap().counters.extend(counters);
    let shown = text(&caching.draw(140, 24));
    assert!(shown.contains("cache hits 75.0 %   "), "{shown}");
    let none = text(&scene(0).draw(100, 24));
    assert!(none.contains("none: requests are answered 503"), "{none}");
}

#[test]
fn backends_sort_and_scroll() {
    let mut scene = scene(300);
    let first = |scene: &Scene| -> String {
        let shown = text(&scene.draw(120, 30));
        let row = shown.lines().find(|line| line.starts_with("app-")).unwrap();
        row.split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(first(&scene), "app-0000");
    assert!(text(&scene.draw(120, 30)).contains(" more below"));
    scene.scroll(5);
    assert_eq!(first(&scene), "app-0005");
    scene.scroll(-500);
    assert_eq!(scene.skip, 0);
    scene.scroll(5000);
    assert_eq!(scene.skip, 299);
    scene.scroll(-5000);
    let sorts: Vec<Sort> =
        std::iter::successors(Some(Sort::Wanted), |sort| Some(sort.next())).take(6).collect();
    assert_eq!(sorts.last(), Some(&Sort::Wanted));
    scene.sort = Sort::Errors;
    scene.frame.as_mut().unwrap().backends[42].errors_ps = 3.0;
    assert_eq!(first(&scene), "app-0042");
}

#[test]
fn what_is_heard_is_bounded() {
    let mut scene = scene(1);
    for n in 2..1000 {
        let event = Happening { number: n, ..Happening::default() };
        let second = Moment { at_ms: 100_000 + n, ..Moment::default() };
        scene.hear(Frame { second, events: vec![event], ..Frame::default() });
    }
    assert_eq!((scene.seconds.len(), scene.events.len()), (SECONDS_KEPT, EVENTS_KEPT));
    let again = Happening { number: 999, ..Happening::default() };
    scene.hear(Frame { events: vec![again], ..Frame::default() });
    assert_eq!(scene.events.iter().filter(|event| event.number == 999).count(), 1);
}
