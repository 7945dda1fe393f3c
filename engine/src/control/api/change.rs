//! A change of the fleet by an operation of the control socket: made to a copy, checked whole, durable, audited, in force.

use super::{
    error::ApiError,
    fleet,
    state::{InForce, State},
};
use crate::{clock, control::fleet::Fleet, link::ShardStatus};
use std::{sync::Arc, time::Duration};

/// How long shards are waited for to have a change in force.
const IN_FORCE: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(5);

/// Changes the fleet by `edit`, which is told the version that the change will be. Returns once it is durable and, if they
/// answer in time, in force on every shard. Goes on to its end when the client hangs up.
///
/// # Errors
/// What `edit` says, or why it could not be kept; then nothing was changed.
pub(super) async fn change(
    state: &Arc<State>,
    who: String,
    edit: impl FnOnce(&mut Fleet, u64) -> Result<(), ApiError> + Send + 'static,
) -> Result<(), ApiError> {
    let state = Arc::clone(state);
    match tokio::spawn(async move { apply(&state, who, edit).await }).await {
        Ok(done) => done,
        Err(error) => Err(ApiError::internal(error.to_string())),
    }
}

async fn apply(
    state: &State,
    who: String,
    edit: impl FnOnce(&mut Fleet, u64) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let version = {
        // Held to the end: two changes at a time would each start from what the other undoes.
        let _one = state.changing.lock().await;
        let before = state.in_force();
        let mut wanted = before.fleet.clone();
        edit(&mut wanted, before.version + 1)?;
        wanted.follow(&before.fleet, before.version + 1, clock::wall()).map_err(ApiError::bad)?;
        fleet::put_in_force(state, &before, wanted, who).await?
    };
    // What is read after the answer is how it is now.
    let _ = settled(state, version).await;
    Ok(())
}

/// What the shards say once all of them have this version in force, or the time is up.
pub(super) async fn settled(state: &State, version: u64) -> Vec<ShardStatus> {
    let end = tokio::time::Instant::now() + IN_FORCE;
    loop {
        let (shards, _) = state.shards().await;
        let here = |shard: &ShardStatus| shard.policy_version >= version && shard.ledgers_awaited == 0;
        let all = shards.len() == state.post.shards().count() && shards.iter().all(here);
        if all || tokio::time::Instant::now() >= end {
            return shards;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The fleet in force, and what the shards say of it.
pub(super) async fn seen(state: &State) -> (Arc<InForce>, Vec<ShardStatus>) {
    let in_force = state.in_force();
    let shards = settled(state, in_force.version).await;
    (in_force, shards)
}
