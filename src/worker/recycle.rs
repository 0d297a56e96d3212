//! Futures that live in recycled boxes.
//!
//! An async fn is as large as its largest branch. A connection that merely waits for its next request must not carry
//! the state of a request, and a request must not allocate: so the future of a request is put into a box that an earlier
//! one left behind. One [`Recycler`] per kind of future and core.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Makes futures of one kind and keeps their boxes.
pub(super) struct Recycler<A, F, M: Fn(A) -> F> {
    make: M,
    boxes: RefCell<Vec<Pin<Box<Option<F>>>>>,
    kept_max: usize,
    arguments: std::marker::PhantomData<fn(A)>,
}

impl<A, F: Future, M: Fn(A) -> F> Recycler<A, F, M> {
    /// `make` is the async fn; at most `kept_max` boxes are kept for reuse.
    pub(super) fn new(make: M, kept_max: usize) -> Self {
        let boxes = RefCell::new(Vec::with_capacity(kept_max));
        Self { make, boxes, kept_max, arguments: std::marker::PhantomData }
    }

    /// The future for `arguments`, small and movable.
    pub(super) fn run(self: &Rc<Self>, arguments: A) -> Running<A, F, M> {
        let kept = self.boxes.borrow_mut().pop();
        let mut place = kept.unwrap_or_else(|| Box::pin(None));
        place.set(Some((self.make)(arguments)));
        Running { place: Some(place), home: self.clone() }
    }
}

/// A future in a recycled box.
pub(super) struct Running<A, F: Future, M: Fn(A) -> F> {
    place: Option<Pin<Box<Option<F>>>>,
    home: Rc<Recycler<A, F, M>>,
}

impl<A, F: Future, M: Fn(A) -> F> Future for Running<A, F, M> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let place = self.place.as_mut().expect("a finished future is not polled again");
        let future = place.as_mut().as_pin_mut().expect("a box in use holds a future");
        let outcome = std::task::ready!(future.poll(cx));
        self.give_back();
        Poll::Ready(outcome)
    }
}

impl<A, F: Future, M: Fn(A) -> F> Running<A, F, M> {
    fn give_back(&mut self) {
        let Some(mut place) = self.place.take() else { return };
        // What the future owned is dropped here, before anybody else can have the box.
        place.set(None);
        let mut boxes = self.home.boxes.borrow_mut();
        if boxes.len() < self.home.kept_max {
            boxes.push(place);
        }
    }
}

impl<A, F: Future, M: Fn(A) -> F> Drop for Running<A, F, M> {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, yield_now};

    #[test]
    fn a_box_serves_one_future_after_the_other() {
        let recycler = Rc::new(Recycler::new(
            |n: u32| async move {
                yield_now().await;
                n + 1
            },
            4,
        ));
        for n in 0..10 {
            assert_eq!(block_on(recycler.run(n)), n + 1);
            assert_eq!(recycler.boxes.borrow().len(), 1);
        }
        drop((recycler.run(1), recycler.run(2)));
        assert_eq!(recycler.boxes.borrow().len(), 2);
    }
}
