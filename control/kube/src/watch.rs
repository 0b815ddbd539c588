//! A watch that is either known to be running or known not to.
//!
//! Owns what happens after a failure. kube's own watcher goes on from where it was and says nothing until an object
//! changes, so that nobody could tell a watch that runs again from one that is still away; and it says `Init` before it asks
//! for a list, which would count as success. Here a watch that failed begins with a new list, after a wait that grows until the
//! server has answered. A watch that expired (410 Gone) is such a failure.

use std::fmt::Debug;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use kube::Resource;
use kube::api::Api;
use kube::runtime::utils::Backoff as _;
use kube::runtime::watcher::{self, Event};
use serde::de::DeserializeOwned;

use crate::patience::Patience;

/// A watch that the server does not end is dead. Noticed so much later at most, and five seconds.
pub const WATCH_SECONDS: u32 = 60;

/// The events of a list and of the watch behind it, for ever; between a failure and the `Init` of a new list is a wait.
pub fn watch<T>(
    api: Api<T>,
    config: watcher::Config,
) -> impl Stream<Item = Result<Event<T>, watcher::Error>> + Send
where
    T: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = config.timeout(WATCH_SECONDS);
    restarting(move || watcher::watcher(api.clone(), config.clone()))
}

/// Begins anew after each failure.
fn restarting<T, E, S>(begin: impl Fn() -> S + Send) -> impl Stream<Item = Result<Event<T>, E>> + Send
where
    T: Send,
    E: Send,
    S: Stream<Item = Result<Event<T>, E>> + Send + 'static,
{
    let first = (begin().boxed(), Patience::default(), Duration::ZERO);
    stream::unfold(
        (first, begin),
        |((mut events, mut patience, wait), begin)| async move {
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            let event = events.next().await?;
            let mut wait = Duration::ZERO;
            match &event {
                // Nobody has answered yet.
                Ok(Event::Init) => {}
                Ok(_) => patience.reset(),
                Err(_) => {
                    wait = patience.next()?;
                    events = begin().boxed();
                }
            }
            Some((event, ((events, patience, wait), begin)))
        },
    )
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::Instant;

    use super::*;

    /// What a watcher says whose server is away `times`, and then is there.
    fn watcher_of(times: usize) -> impl Stream<Item = Result<Event<u32>, &'static str>> + Send {
        let begun = AtomicUsize::new(0);
        restarting(move || {
            let away = begun.fetch_add(1, Ordering::Relaxed) < times;
            let said = match away {
                true => vec![Ok(Event::Init), Err("away")],
                false => vec![
                    Ok(Event::Init),
                    Ok(Event::InitApply(7)),
                    Ok(Event::InitDone),
                    Err("gone"),
                ],
            };
            stream::iter(said).chain(stream::pending())
        })
    }

    #[tokio::test]
    async fn waits_grow_over_lists_that_fail_and_begin_anew_with_the_first_that_does_not() {
        let mut events = watcher_of(4).boxed();
        let (mut failures, mut waits, mut since) = (0, Vec::new(), Instant::now());
        while failures < 4 {
            match events.next().await {
                Some(Ok(Event::Init)) => waits.push(since.elapsed()),
                Some(Err(_)) => (failures, since) = (failures + 1, Instant::now()),
                other => panic!("{other:?}"),
            }
        }
        assert!(waits[0] < Duration::from_millis(125), "{waits:?}");
        assert!(waits[3] >= Duration::from_millis(500), "{waits:?}");
        // The fifth has a list; the failure of its watch is the first one again.
        let list: Vec<_> = events.by_ref().take(4).collect().await;
        assert!(
            matches!(
                list[..],
                [
                    Ok(Event::Init),
                    Ok(Event::InitApply(7)),
                    Ok(Event::InitDone),
                    Err("gone")
                ]
            ),
            "{list:?}"
        );
        let since = Instant::now();
        assert!(matches!(events.next().await, Some(Ok(Event::Init))));
        assert!(
            since.elapsed() < Duration::from_millis(500),
            "{:?}",
            since.elapsed()
        );
    }
}
