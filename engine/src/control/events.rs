//! Writes event lines to the log, and tells each shard what is durable there. *One task of the control thread.*
//!
//! Whatever waits is written together and synced once, where blocking is allowed. An event counts as out only after that;
//! a log that cannot be written holds events in the spools and loses none.

use super::{api::state::State, suppression};
use crate::{clock, event::log::EventLog, link::Command};
use std::{sync::Arc, time::Duration};
use tokio::{sync::mpsc, task::JoinError, time::Instant};

/// Lines of one shard.
pub(super) struct Batch {
    pub(super) shard: u16,
    pub(super) cursor: u64,
    pub(super) lines: Vec<u8>,
}

/// How often the disk is asked.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    /// Between two syncs: the disk is the spools' first. What comes alone is synced at once.
    pub(super) sync: Duration,
    /// After an error, before the same lines are tried again.
    pub(super) retry: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { sync: Duration::from_millis(20), retry: Duration::from_secs(1) }
    }
}

/// Batches written with one sync; no shard has more than a few on the way.
const TOGETHER: usize = 1024;

/// Runs until nobody can send any more.
pub(super) async fn run(mut log: EventLog, mut waiting: mpsc::UnboundedReceiver<Batch>, state: Arc<State>, pace: Pace) {
    let mut batches = Vec::new();
    let mut next_sync = Instant::now();
    while waiting.recv_many(&mut batches, TOGETHER).await > 0 {
        if !waiting.is_closed() && next_sync > Instant::now() {
            tokio::time::sleep_until(next_sync).await;
            while batches.len() < TOGETHER
                && let Ok(batch) = waiting.try_recv()
            {
                batches.push(batch);
            }
        }
        state.event_log(|status| status.waiting = (batches.len() + waiting.len()) as u64);
        (log, batches) = match keep(log, batches, &state, pace.retry).await {
            Ok(back) => back,
            Err(error) => {
                let text = format!("{error}; events stay in the spools until the server is started again");
                tracing::error!("event log: {text}");
                state.event_log(|status| status.error = Some(text));
                return;
            }
        };
        list_bounces(&batches, &state, pace.retry).await;
        next_sync = Instant::now() + pace.sync;
        let bytes: usize = batches.iter().map(|batch| batch.lines.len()).sum();
        state.event_log(|status| {
            status.bytes += bytes as u64;
            status.syncs += 1;
            status.error = None;
            status.waiting = waiting.len() as u64;
        });
        for Batch { shard, cursor, .. } in batches.drain(..) {
            state.post.tell(shard, Command::EventsKept { cursor });
        }
    }
}

/// Puts the addresses of hard bounces on their lists, however long that takes: only then may the spools forget them.
async fn list_bounces(batches: &[Batch], state: &State, retry: Duration) {
    let policy = state.policy();
    let found = batches.iter().flat_map(|batch| suppression::find(&batch.lines, &policy, clock::wall()));
    let bounces: Arc<[suppression::HardBounce]> = found.collect();
    while !bounces.is_empty() {
        let (lists, of) = (Arc::clone(&state.lists), Arc::clone(&bounces));
        match tokio::task::spawn_blocking(move || lists.bounced(&of)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => tracing::error!("{error}; events wait in the spools until their bounces can be listed"),
            // Nothing is listed, and nothing will be.
            Err(error) => return tracing::error!("bounces are not listed: {error}"),
        }
        tokio::time::sleep(retry).await;
    }
}

/// Makes the batches durable, however long that takes.
async fn keep(
    mut log: EventLog,
    mut batches: Vec<Batch>,
    state: &State,
    retry: Duration,
) -> Result<(EventLog, Vec<Batch>), JoinError> {
    let mut troubled = false;
    loop {
        let written = tokio::task::spawn_blocking(move || {
            let result = log.keep(batches.iter().map(|batch| batch.lines.as_slice()));
            (log, batches, result)
        });
        let result;
        (log, batches, result) = written.await?;
        match result {
            Ok(()) if troubled => tracing::info!("the event log can be written again"),
            Ok(()) => {}
            Err(error) => {
                if !troubled {
                    tracing::error!("{error}; events wait in the spools until it can be written");
                }
                troubled = true;
                state.event_log(|status| status.error = Some(error.to_string()));
                tokio::time::sleep(retry).await;
                continue;
            }
        }
        return Ok((log, batches));
    }
}
