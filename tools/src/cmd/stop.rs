//! Ctrl-C, SIGTERM and a terminal that is gone, as a question that a loop can ask.

use super::Failure;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    thread,
};
use tokio::signal::unix::{SignalKind, signal};

/// See the module. Once it is made, these signals end nothing by themselves.
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From now on the signals are noted.
    pub(crate) fn new() -> Result<Self, Failure> {
        let flag = Arc::new(AtomicBool::new(false));
        let raised = Arc::clone(&flag);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut kinds = vec![SignalKind::interrupt(), SignalKind::terminate(), SignalKind::quit()];
        if !hangup_is_ignored() {
            kinds.push(SignalKind::hangup());
        }
        let entered = runtime.enter();
        let mut signals = kinds.into_iter().map(signal).collect::<std::io::Result<Vec<_>>>()?;
        drop(entered);
        thread::Builder::new().name("signals".into()).spawn(move || {
            let any = |context: &mut Context<'_>| {
                let came = signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
                if came { Poll::Ready(()) } else { Poll::Pending }
            };
            runtime.block_on(std::future::poll_fn(any));
            raised.store(true, Ordering::Relaxed);
        })?;
        Ok(Self(flag))
    }

    /// Has somebody asked?
    pub(crate) fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// `nohup` says so: what was started with it goes on without a terminal.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}
