//! The same work for each of many items, on a few threads.

use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, scope};

/// Applies `work` to items; what it makes of them keeps their order.
pub(crate) fn for_each<T: Send, R: Send>(
    threads: usize,
    items: Vec<T>,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let helpers = threads.min(items.len() / ITEMS_A_THREAD);
    let queue = Mutex::new(items.into_iter().enumerate());
    let take = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let worker = || {
        let next = std::iter::from_fn(take);
        next.map(|(at, item)| (at, work(item))).collect::<Vec<_>>()
    };
    let mut done = scope(|scope| {
        // A thread that cannot be had leaves its work to the others.
        let started = |number: usize| {
            let thread = Builder::new().name(format!("recall-{number}"));
            thread.spawn_scoped(scope, worker).ok()
        };
        let helpers: Vec<_> = (1..helpers).filter_map(started).collect();
        let mut done = worker();
        for helper in helpers {
            done.extend(helper.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        done
    });
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Fewer items than this are not worth another thread.
const ITEMS_A_THREAD: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_the_order_of_items() {
        for (threads, count) in [(0, 0), (1, 3), (4, 5), (4, 1000)] {
            let numbers: Vec<usize> = (0..count).collect();
            let expect: Vec<usize> = (0..count).map(|number| number * 2).collect();
            assert_eq!(for_each(threads, numbers, |number| number * 2), expect);
        }
    }
}
