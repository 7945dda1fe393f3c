//! Writes event lines to the log, and tells each shard what is durable there. *One task of the control thread.*
//!
//! Whatever waits is written together and synced once, where blocking is allowed. An event counts as out only after that;
//! a log that cannot be written holds events in the spools and loses none.

use super::api::state::State;
use crate::{event::log::EventLog, link::Command};
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// Lines of one shard.
pub(super) struct Batch {
    pub(super) shard: u16,
    pub(super) cursor: u64,
    pub(super) lines: Vec<u8>,
}

/// Batches written with one sync.
const TOGETHER: usize = 64;
/// After an error, wait so long before the same lines are tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Runs until nobody can send any more.
pub(super) async fn run(mut log: EventLog, mut waiting: mpsc::UnboundedReceiver<Batch>, state: Arc<State>) {
    let mut batches = Vec::with_capacity(TOGETHER);
    while waiting.recv_many(&mut batches, TOGETHER).await > 0 {
        let mut troubled = false;
        loop {
            state.event_log(|status| status.waiting = batches.len() as u64 + waiting.len() as u64);
            let written = tokio::task::spawn_blocking(move || {
                let result = batches.iter().try_for_each(|batch| log.append(&batch.lines)).and_then(|()| log.sync());
                (log, batches, result)
            });
            let result;
            (log, batches, result) = match written.await {
                Ok(back) => back,
                Err(error) => return tracing::error!("event log: {error}; events stay in the spools"),
            };
            match result {
                Ok(()) => break,
                Err(error) => {
                    if !troubled {
                        tracing::error!("{error}; events wait in the spools until it can be written");
                    }
                    troubled = true;
                    state.event_log(|status| status.error = Some(error.to_string()));
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
        if troubled {
            tracing::info!("the event log can be written again");
        }
        let bytes: usize = batches.iter().map(|batch| batch.lines.len()).sum();
        state.event_log(|status| {
            status.bytes += bytes as u64;
            status.syncs += 1;
            status.error = None;
            status.waiting = waiting.len() as u64;
        });
        for Batch { shard, cursor, .. } in batches.drain(..) {
            acknowledge(&state, shard, cursor);
        }
    }
}

/// Tells a shard; one that is too busy to hear it holds up no other.
fn acknowledge(state: &State, shard: u16, cursor: u64) {
    let Some(commands) = state.commands.get(usize::from(shard)) else { return };
    if let Err(mpsc::error::TrySendError::Full(command)) = commands.try_send(Command::EventsKept { cursor }) {
        let commands = commands.clone();
        tokio::spawn(async move {
            let _ = commands.send(command).await;
        });
    }
}
