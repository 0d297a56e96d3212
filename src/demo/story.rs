//! The story, scene by scene. Each waits for what it tells, judges it, and leaves the stage as the next one wants it.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::load::exchange;
use super::set::{COUNT, Each, Set, less, name, points_allowed, points_off, shares};
use super::stage::{Halt, Stage};
use super::verdict::{Check, Verdict, thousands};
use super::wire::Wire;
use crate::boot::Ending;
use crate::metrics::Count;

/// Tells the story once, within about `length`.
pub(super) fn tell(stage: &mut Stage, verdict: &mut Verdict, length: Duration) -> Result<(), Halt> {
    let began = Instant::now();
    let by = |part: f64| began + length.mul_f64(part);
    follow(stage, verdict, FIRST, by(0.22))?;
    follow(stage, verdict, SHIFTED, by(0.44))?;
    sundown(stage, verdict, by(0.56))?;
    lose_agent(stage, verdict, by(0.74))?;
    regain_agent(stage, verdict, by(0.84))?;
    lose_backend(stage, verdict, by(0.96))?;
    look_at_cache(stage, verdict)
}

/// The agent speaks; once every core has heard it the shares must follow.
fn follow(stage: &mut Stage, verdict: &mut Verdict, set: Set, until: Instant) -> Result<(), Halt> {
    let is_first = !stage.load.is_running();
    if is_first {
        stage.say("the balancer dials the agent; without a frame it would answer 503");
    }
    let after = stage.put_in_force(set)?;
    let what = if is_first { "agent connected" } else { "scores shift" };
    stage.say(&format!("{what}: {}; in force on every core after {}", set.text(), ms(after)));
    if is_first {
        stage.start_load();
    }
    let before = stage.load.answered();
    let give_up = Instant::now() + MEASURE_PATIENCE;
    let wanted = set.wanted();
    let measure = |stage: &Stage| {
        let counts = less(&stage.load.answered(), &before);
        let real = shares(&counts);
        (counts.iter().sum::<u64>(), real, points_off(&wanted, &real))
    };
    stage.until("enough answers for the shares", |stage| {
        let (requests, _, points) = measure(stage);
        let is_clear = points <= points_allowed(requests) || requests >= REQUESTS_MEASURED_MAX;
        let now = Instant::now();
        now >= until && requests >= REQUESTS_MEASURED && is_clear
            || now >= give_up && requests >= REQUESTS_MEASURED_MIN
    })?;
    let (requests, real, points) = measure(stage);
    let allowed = points_allowed(requests);
    stage.say(&format!("  wanted  {}", row(&wanted)));
    stage.say(&format!(
        "  real    {}   over {} requests: {points:.1} points off",
        row(&real),
        thousands(requests)
    ));
    verdict.record_shares(points, allowed, requests);
    Ok(())
}

/// A backend drains while requests are in flight to it.
fn sundown(stage: &mut Stage, verdict: &mut Verdict, until: Instant) -> Result<(), Halt> {
    let failed = stage.load.failed();
    stage.backends[DRAINED].hold(HELD);
    stage.until("requests in flight to app-3", |stage| stage.backends[DRAINED].held() == HELD)?;
    let strays = stage.load.strays();
    let after = stage.put_in_force(stage.set.without(DRAINED))?;
    stage.load.bar(Some(DRAINED));
    stage.say(&format!(
        "{} SUNDOWN with {HELD} requests in flight; in force after {}",
        name(DRAINED),
        ms(after)
    ));
    let before = stage.load.total();
    stage.until("traffic beside the draining backend", |stage| {
        stage.load.total() >= before + REQUESTS_WITNESSED
    })?;
    stage.backends[DRAINED].release();
    stage.until("app-3 has drained", |stage| {
        let backend = &stage.backends[DRAINED];
        backend.in_flight() == 0 && backend.connections() == 0
    })?;
    stage.until("the scene's time", |_| Instant::now() >= until)?;
    let strays = stage.load.strays() - strays;
    let cut = stage.load.failed() - failed;
    let others = stage.load.total() - before;
    stage.load.bar(None);
    stage.say(&format!(
        "  its {HELD} answered whole, {strays} new ones in {}; nothing open to it, {cut} cut",
        thousands(others)
    ));
    verdict.record(
        Check::Sundown,
        strays == 0 && cut == 0,
        format!(
            "{HELD} requests in flight: {cut} cut; {strays} of {} later ones strayed",
            thousands(others)
        ),
    );
    Ok(())
}

/// The agent dies: dials back off, traffic goes on with the last set.
fn lose_agent(stage: &mut Stage, verdict: &mut Verdict, until: Instant) -> Result<(), Halt> {
    let (failed, before, epoch) = (stage.load.failed(), stage.load.total(), stage.newest_epoch());
    stage.agent.die();
    stage.say("the agent dies; the last set stays in force");
    let mut told = 0;
    stage.until("the balancer dials a dead agent", |stage| {
        let dials = stage.agent.dials();
        for dial in told..dials.len().min(DIALS_TOLD) {
            let since = dials[dial] - dial.checked_sub(1).map_or(Duration::ZERO, |d| dials[d]);
            stage.say(&format!("  dial {} in vain, after {} of backing off", dial + 1, ms(since)));
        }
        told = told.max(dials.len());
        let answered = stage.load.total() - before;
        told >= DIALS_AWAITED && answered >= REQUESTS_WITNESSED && Instant::now() >= until
    })?;
    let (lost, answered) = (stage.load.failed() - failed, stage.load.total() - before);
    let is_kept = stage.newest_epoch() == epoch;
    stage.say(&format!("  meanwhile {} answered, {lost} failed", thousands(answered)));
    let set = if is_kept { "the set was kept" } else { "THE SET CHANGED" };
    verdict.record(
        Check::AgentAway,
        lost == 0 && is_kept,
        format!("{told} dials in vain; {} answered, {lost} failed; {set}", thousands(answered)),
    );
    Ok(())
}

/// The agent is back with new scores, and the drained backend with it.
fn regain_agent(stage: &mut Stage, verdict: &mut Verdict, until: Instant) -> Result<(), Halt> {
    let (failed, before) = (stage.load.failed(), stage.load.answered()[DRAINED]);
    stage.agent.revive();
    let after = stage.put_in_force(RETURNED)?;
    stage.say(&format!("the agent is back: {}; in force after {}", RETURNED.text(), ms(after)));
    stage.until("app-3 serves again", |stage| {
        stage.load.answered()[DRAINED] > before && Instant::now() >= until
    })?;
    let (lost, served) = (stage.load.failed() - failed, stage.load.answered()[DRAINED] - before);
    verdict.record(
        Check::AgentBack,
        lost == 0,
        format!(
            "its scores in force on every core; {} by {}, {lost} failed",
            thousands(served),
            name(DRAINED)
        ),
    );
    Ok(())
}

/// A backend dies over the requests it has; others answer them.
fn lose_backend(stage: &mut Stage, verdict: &mut Verdict, until: Instant) -> Result<(), Halt> {
    let failed = stage.load.failed();
    stage.backends[KILLED].hold(HELD);
    stage.until("requests in flight to app-2", |stage| stage.backends[KILLED].held() == HELD)?;
    let retries = stage.count(Count::Retries);
    let refused = stage.count(Count::ConnectsFailed);
    stage.backends[KILLED].die();
    stage.say(&format!("{} dies with {HELD} requests in flight", name(KILLED)));
    let before = stage.load.total();
    stage.until("its requests are answered by others", |stage| {
        // Who loses so many answers at once is left before anybody tries to connect again.
        stage.count(Count::Retries) >= retries + HELD as u64
            && stage.load.total() >= before + REQUESTS_WITNESSED
    })?;
    let retries = stage.count(Count::Retries) - retries;
    let refused = stage.count(Count::ConnectsFailed) - refused;
    let lost = stage.load.failed() - failed;
    stage.say(&format!(
        "  {retries} retried, {} refused connects went elsewhere, {lost} client errors",
        thousands(refused)
    ));
    stage.backends[KILLED]
        .revive()
        .map_err(|error| Halt::Broken(format!("{} cannot come back: {error}", name(KILLED))))?;
    let served = stage.load.answered()[KILLED];
    stage.until("app-2 serves again", |stage| {
        stage.load.answered()[KILLED] > served && Instant::now() >= until
    })?;
    stage.say(&format!("  {} is back and serves", name(KILLED)));
    let lost = stage.load.failed() - failed;
    verdict.record(
        Check::Death,
        lost == 0,
        format!("{retries} retries, {} refused connects, {lost} client errors", thousands(refused)),
    );
    Ok(())
}

/// What the cache has done beside all of this.
fn look_at_cache(stage: &mut Stage, verdict: &mut Verdict) -> Result<(), Halt> {
    stage.until("the cache answers", |stage| stage.cached() > 0 && stage.load.pages() > 0)?;
    let (hits, pages) = (stage.cached(), stage.load.pages());
    let revalidated = stage.count(Count::CacheRevalidations);
    stage.say(&format!(
        "beside it {} pages, {} from the cache, {} more after asking whether they still hold",
        thousands(pages),
        thousands(hits),
        thousands(revalidated)
    ));
    verdict.record(
        Check::Cache,
        hits > 0,
        format!(
            "{} of {} pages from the store, all of them right",
            thousands(hits),
            thousands(pages)
        ),
    );
    Ok(())
}

/// The graceful stop, over one request in flight for each client and one silent connection.
pub(super) fn stop(stage: &mut Stage, verdict: &mut Verdict) {
    stage.close();
    if let Err(halt) = drain(stage, verdict) {
        verdict.record(Check::Stop, false, format!("{halt:?}"));
    }
    stage.load.finish();
    stage.backends.iter().for_each(super::backend::Backend::release);
    stage.stop();
    // What is not there within the patience of a wait is cut by the process's own deadline.
    let ended = stage.until("the process has ended", Stage::has_ended);
    let ended = ended.and_then(|()| stage.until("the load has ended", |s| s.load.is_finished()));
    if let Err(halt) = ended {
        verdict.record(Check::Stop, false, format!("{halt:?}"));
    }
    let answered = stage.load.total() + stage.load.pages();
    verdict.counted(answered, stage.load.failed(), stage.load.reasons());
}

fn drain(stage: &mut Stage, verdict: &mut Verdict) -> Result<(), Halt> {
    if stage.has_ended() || !stage.load.is_running() {
        return Ok(());
    }
    let mut silent = None;
    exchange(&mut silent, stage.address, "silent")
        .map_err(|error| Halt::Broken(format!("a further client: {error}")))?;
    let clients = stage.load.clients();
    stage.backends.iter().for_each(|backend| backend.hold(clients));
    stage.until("a request of every client is in flight", |stage| {
        stage.backends.iter().map(|backend| backend.held()).sum::<usize>() == clients
    })?;
    stage.load.finish();
    let (answered, failed) = (stage.load.total(), stage.load.failed());
    let stopped = Instant::now();
    stage.stop();
    stage.say(&format!("stop with {clients} requests in flight"));
    stage.until("the silent connection is closed", |_| has_closed(silent.as_ref()))?;
    stage
        .until("new connections are refused", |stage| TcpStream::connect(stage.address).is_err())?;
    stage.backends.iter().for_each(super::backend::Backend::release);
    stage.until("the requests in flight are answered", |stage| stage.load.is_finished())?;
    stage.until("the process has ended", Stage::has_ended)?;
    let answered = stage.load.total() - answered;
    let lost = stage.load.failed() - failed;
    let took = stopped.elapsed();
    let (is_clean, how) = match stage.ending() {
        Ok(Ending::Drained) => (true, "drained".to_owned()),
        Ok(Ending::Cut(n)) => (false, format!("{n} connections cut")),
        Err(why) => (false, why),
    };
    stage.say(&format!("  all {answered} answered, silent ones closed, {how} after {}", ms(took)));
    verdict.record(
        Check::Stop,
        is_clean && lost == 0 && answered == clients as u64,
        format!("{answered} of {clients} requests in flight answered, {lost} lost; {how}"),
    );
    Ok(())
}

/// Whether the peer has ended the connection.
fn has_closed(wire: Option<&Wire>) -> bool {
    let Some(stream) = wire.map(Wire::stream) else { return true };
    stream.set_nonblocking(true).is_ok() && matches!(stream.peek(&mut [0]), Ok(0))
}

fn ms(time: Duration) -> String {
    format!("{} ms", thousands(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
}

/// `app-1 40.0 %   app-2 …`
fn row(shares: &Each<f64>) -> String {
    let one = |n: usize| format!("{} {:4.1} %", name(n), shares[n]);
    (0..COUNT).map(one).collect::<Vec<_>>().join("   ")
}

const FIRST: Set = Set::of([80, 60, 40, 20]);
const SHIFTED: Set = Set::of([10, 30, 60, 100]);
const RETURNED: Set = Set::of([50, 50, 25, 75]);
/// app-3.
const DRAINED: usize = 2;
/// app-2.
const KILLED: usize = 1;
/// Requests held in flight in the scenes that need some; fewer than there are clients.
const HELD: usize = 4;
/// Answers over which shares are measured: two points are then more than five standard deviations.
const REQUESTS_MEASURED: u64 = 20_000;
/// Shares that are off are measured on up to here: chance wears off, a bias stays.
const REQUESTS_MEASURED_MAX: u64 = 100_000;
/// On a machine so slow that [`MEASURE_PATIENCE`] passes over less, this many must do.
const REQUESTS_MEASURED_MIN: u64 = 2_000;
const MEASURE_PATIENCE: Duration = Duration::from_secs(40);
/// Answers that a scene must have seen.
const REQUESTS_WITNESSED: u64 = 1_000;
const DIALS_AWAITED: usize = 3;
const DIALS_TOLD: usize = 8;
