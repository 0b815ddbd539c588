//! Tasks that are begun again: one that panics, or ends before it is told to, is said to be an error and follows on after a
//! while.
//!
//! Owns the beginning again and nothing of what a task knows: whatever it holds begins anew with it. Without this a panic would
//! end one task in silence, and what it follows would stand still while everything says that it is well.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::Instant;

use crate::patience::Patience;
use crate::thread::Signals;

/// Who has run for so long is begun again at once, as after a first failure.
const RECOVERED: Duration = Duration::from_secs(60);
/// The wait where there is no other; [`Patience`] has no end.
const LONGEST: Duration = Duration::from_secs(15);

/// Does `what` until told to stop, whatever becomes of it. `failed` hears why it is begun again.
pub async fn supervise<F>(
    what: String,
    signals: Signals,
    failed: impl Fn(&str) + Send,
    begin: impl Fn() -> F + Send,
) where
    F: Future<Output = ()> + Send,
{
    let mut patience = Patience::default();
    loop {
        let began = Instant::now();
        // What it shares with others is behind locks that expect a panic.
        let ended = AssertUnwindSafe(begin()).catch_unwind().await;
        if signals.is_stopping() {
            return;
        }
        if began.elapsed() > RECOVERED {
            patience = Patience::default();
        }
        let problem = match ended {
            Ok(()) => "it has ended by itself".to_owned(),
            Err(panic) => format!("it has panicked: {}", said(&*panic)),
        };
        let wait = patience.next().unwrap_or(LONGEST);
        let milliseconds = wait.as_millis();
        tracing::error!(
            task = what,
            problem,
            milliseconds,
            "a task of the Kubernetes thread is begun again"
        );
        failed(&problem);
        tokio::select! {
            () = signals.stop() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// What a panic has to say.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a word")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::thread::Teller;

    #[tokio::test]
    async fn who_panics_or_ends_is_begun_again_until_the_stop() {
        let (teller, signals) = Teller::pair();
        let (begun, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let begin = || {
            let number = begun.fetch_add(1, Ordering::Relaxed);
            let (teller, signals) = (&teller, &signals);
            async move {
                match number {
                    0 => panic!("number {number}"),
                    1 => {}
                    _ => {
                        teller.stop();
                        signals.stop().await;
                    }
                }
            }
        };
        let failed = |problem: &str| failures.lock().expect("failures").push(problem.to_owned());
        supervise("a test".to_owned(), signals.clone(), failed, begin).await;
        assert_eq!(begun.load(Ordering::Relaxed), 3);
        assert_eq!(
            *failures.lock().expect("failures"),
            ["it has panicked: number 0", "it has ended by itself"]
        );
    }
}
