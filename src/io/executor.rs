//! A glommio executor with a [`Driver`], on the calling thread.

use std::future::Future;
use std::io::{Error, Result};
use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement};

use super::driver::Driver;
use super::wake::Bell;

/// Makes an executor on the calling thread, pins the thread to `core` if one is given, and runs what `main` returns
/// until it ends; tasks it spawned end with it.
///
/// # Errors
/// When the executor or its epoll cannot be made.
pub fn run<T, F, Fut>(core: Option<usize>, bell: Bell, main: F) -> Result<T>
where
    T: 'static,
    F: FnOnce(Driver) -> Fut,
    Fut: Future<Output = T>,
{
    let executor = builder(core.map_or(Placement::Unbound, Placement::Fixed))
        .make()
        .map_err(|error| Error::other(error.to_string()))?;
    let driver = Driver::new(bell)?;
    Ok(executor.run(driver.clone().run(main(driver))))
}

/// The first executor of a process sleeps 30 to 50 ms before its first task when threads already exist (measured). Call
/// this before any thread is started; it runs one that has nothing to delay.
///
/// # Errors
/// When no executor can be made.
pub fn warm_up() -> Result<()> {
    let executor = builder(Placement::Unbound).make();
    executor.map_err(|error| Error::other(error.to_string()))?.run(async {});
    Ok(())
}

fn builder(placement: Placement) -> LocalExecutorBuilder {
    // By default 10 MiB are registered with the kernel per executor, for files we never read; and a timer fires every
    // 100 ms to pre-empt tasks that bound their work themselves.
    LocalExecutorBuilder::new(placement).io_memory(0).preempt_timer(NEVER)
}

/// Half a year; glommio adds it to the clock, so it is not taken to extremes.
const NEVER: Duration = Duration::from_secs(180 * 24 * 3600);
