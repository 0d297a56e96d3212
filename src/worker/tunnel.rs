//! After a 101: bytes both ways, whatever they mean, until both directions have ended.

use super::desk::Desk;
use super::relay::Pump;
use super::shard::Shard;
use super::wait;
use crate::http::Framing;
use crate::io::{Interest, Io, Stream};

/// Relays between `client` and `upstream` until both have ended, one breaks, or nothing moved for the tunnel timeout.
/// The end of one direction is passed on and does not end the other; a break is passed on as a break.
pub(super) async fn tunnel<I: Io>(
    shard: &Shard<I>,
    client: &I::Stream,
    desk: &mut Desk,
    upstream: &I::Stream,
) {
    desk.inbound.release();
    desk.outbound.release();
    desk.up.begin(Framing::UntilClose, false, false);
    desk.down.begin(Framing::UntilClose, false, false);
    let mut is_up_over = false;
    let mut is_down_over = false;
    let mut last_moved = None;
    loop {
        let mut of_client = Interest::NONE;
        let mut of_upstream = Interest::NONE;
        let mut must_yield = false;
        if !is_up_over {
            match desk.up.pump(client, &mut desk.inbound, upstream) {
                Pump::Done => {
                    is_up_over = true;
                    upstream.finish();
                }
                Pump::AwaitsSource => of_client.read = true,
                Pump::AwaitsSink => of_upstream.write = true,
                Pump::Yields => must_yield = true,
                _ => return break_off(client, upstream),
            }
        }
        if !is_down_over {
            match desk.down.pump(upstream, &mut desk.outbound, client) {
                Pump::Done => {
                    is_down_over = true;
                    client.finish();
                }
                Pump::AwaitsSource => of_upstream.read = true,
                Pump::AwaitsSink => of_client.write = true,
                Pump::Yields => must_yield = true,
                _ => return break_off(client, upstream),
            }
        }
        if is_up_over && is_down_over {
            return;
        }
        if must_yield {
            wait::for_a_turn().await;
            continue;
        }
        let moved = desk.up.bytes_out() + desk.down.bytes_out();
        if last_moved != Some(moved) {
            last_moved = Some(moved);
            client.set_deadline(Some(shard.now() + shard.config.timeouts.tunnel));
        }
        let (near, far) = wait::either(client, of_client, upstream, Some(of_upstream)).await;
        // A backend that is read from tells of its reset behind its last bytes.
        if near.is_reset || (far.is_reset && !of_upstream.read) {
            return break_off(client, upstream);
        }
        if near.is_expired {
            return;
        }
    }
}

/// One side broke off; the other must not take that for an orderly end.
fn break_off<S: Stream>(client: &S, upstream: &S) {
    client.abort();
    upstream.abort();
}
