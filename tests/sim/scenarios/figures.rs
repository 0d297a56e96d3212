//! What a worker publishes is what its clients saw.

use std::time::Duration;

use balancer::metrics::codes::code_of;
use balancer::metrics::histogram::Reading;
use balancer::metrics::{Count, FAULTS, Span};

use super::{SECOND, Scene};
use crate::client::Client;
use crate::runner::seeds;

#[test]
fn answers_waits_and_faults_are_counted_where_they_belong() {
    seeds("answers_waits_and_faults_are_counted_where_they_belong", 50, |sim| {
        let scene = Scene::new(sim, 1);
        let address = scene.house.address;
        scene.one(async move |mut client: Client| {
            for _ in 0..5 {
                client.get("len=100&wait=40").await;
            }
            for (method, upload, wish, status) in [
                ("GET", 0, "how=none", 204),
                ("POST", 10, "how=die", 502),
                ("GET", 0, "how=hang", 504),
            ] {
                let ask = client.plan(method, upload, wish);
                let heard = client.ask(&ask).await;
                assert_eq!(heard.status(), Some(status), "{wish}");
                client = client.go_on(&heard, address).await;
            }
            let ask = client.plan("GET", 0, "len=1").field("Content-Length: 1, 2");
            assert_eq!(client.ask(&ask).await.status(), Some(400));
        });
        // The tick of an idle core has come by.
        sim.run_for(2 * SECOND);
        let figures = &scene.house.published;
        let codes = figures.codes();
        for (status, count) in [(200, 5), (204, 1), (502, 1), (504, 1), (400, 1), (503, 0)] {
            assert_eq!(codes[code_of(status)], count, "{status}");
        }
        assert_eq!(codes.iter().sum::<u64>(), 9);
        let row = figures.slot(0).expect("the one backend is listed");
        // Answers of our own are not the backend's.
        assert_eq!((row.classes, row.faults), ([0, 6, 0, 0, 0], figures.count(Count::Faults)));
        let faults = figures.faults();
        let of =
            |label: &str| faults[FAULTS.iter().position(|&fault| fault == label).expect("known")];
        assert_eq!((of("head/timeout"), faults.iter().sum::<u64>()), (1, row.faults));
        let (mut request, mut first_byte) = (Reading::default(), Reading::default());
        figures.add_span(Span::Request, &mut request);
        figures.add_span(Span::FirstByte, &mut first_byte);
        assert_eq!((request.count(), first_byte.count()), (9.0, 6.0));
        let least = Duration::from_millis(5 * 40).as_micros() as f64;
        assert!(first_byte.sum_us >= least && request.sum_us >= first_byte.sum_us + 30e6);
        assert_eq!(figures.refusals().iter().sum::<u64>(), 3);
        let gauges = figures.gauges();
        assert_eq!((gauges.in_flight, gauges.queue_depth, gauges.connections), (0, 0, 0));
        scene.end();
    });
}
