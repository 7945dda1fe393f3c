//! Asks the queue what to do, and has it done: connections opened, names resolved, hopeless recipients ended. *One task
//! per shard.*

use crate::{
    clock,
    deliver::{line::Line, open, outcome},
    link::{Report, SiteAnswer},
    operate::suspend,
    overflow, rehome,
    shard::Shard,
    warmup,
};
use futures_lite::FutureExt;
use mailrail_queue::{LaneId, Resolution, Work};
use std::{rc::Rc, sync::Arc, time::Duration};
use tokio::sync::mpsc::error::TrySendError;

/// How long to sleep at most: what else could need attention is told by a signal.
const LONGEST: Duration = Duration::from_secs(1);
/// Pieces of work between two looks at the other tasks.
const BATCH: usize = 64;

/// Runs until the shard stops.
pub(crate) async fn run(shard: Rc<Shard>) {
    while !shard.stopping.get() {
        ask(&shard);
        let mut done = 0;
        while shard.may_deliver() {
            let work = shard.queue.borrow_mut().poll(clock::mono(), clock::wall());
            let Some(work) = work else { break };
            perform(&shard, work);
            done += 1;
            if done % BATCH == 0 {
                glommio::executor().yield_if_needed().await;
            }
        }
        if shard.queue.borrow().newly_stranded() {
            rehome::place_stranded(&shard);
        }
        warmup::begin_wanted(&shard);
        warmup::tell_decisions(&shard);
        warmup::note(&shard);
        shard.wake_resting();
        shard.clear_crowds();
        let now = clock::mono();
        let next = shard.queue.borrow().next_wake().map_or(LONGEST, |at| at.since(now).min(LONGEST));
        shard.work.wait().or(glommio_sleep(next)).await;
    }
}

async fn glommio_sleep(period: Duration) {
    glommio::timer::sleep(period.max(Duration::from_millis(1))).await;
}

fn perform(shard: &Rc<Shard>, work: Work) {
    match work {
        // What is suspended needs no connection; the lane is looked at again in its turn.
        Work::Connect { lane } if !suspend::sift(shard, lane) => {}
        Work::Connect { lane } => {
            shard.queue.borrow_mut().connection_opened(lane);
            shard.stats.borrow_mut().deliveries += 1;
            let shard = Rc::clone(shard);
            glommio::spawn_local(async move {
                let ready = connection(&shard, lane).await;
                shard.queue.borrow_mut().connection_closed(lane, !ready);
                shard.stats.borrow_mut().deliveries -= 1;
                shard.work.raise();
            })
            .detach();
        }
        Work::Undeliverable { job } => outcome::undeliverable(shard, job),
        Work::Expired { job } => outcome::expired(shard, job),
        Work::Overflow { job } => overflow::decide(shard, job),
    }
}

/// Opens a connection for a lane and serves it; false if it never became ready.
async fn connection(shard: &Rc<Shard>, lane: LaneId) -> bool {
    let Some(info) = shard.queue.borrow().lane(lane) else { return false };
    let site = shard.sites.borrow().get(&info.site).cloned();
    let (Some(site), Some(helo)) = (site, shard.helo_of(info.lease)) else {
        // The lease has just gone: its mail is being given another one. Whatever came to it since must be, too.
        shard.queue.borrow_mut().connect_failed(clock::mono(), lane);
        rehome::strand_lost(shard);
        rehome::place_stranded(shard);
        return false;
    };
    let terms = shard.terms_of(&site);
    match open::open(shard, info.lease, &helo, &site, terms.tls, shard.chance()).await {
        Ok(open) => {
            shard.queue.borrow_mut().connection_ready(lane);
            Line::new(shard, &info, open, terms.messages).serve().await;
            true
        }
        Err(unreachable) => {
            shard.note_error(&format!("from {}: {}", info.lease, unreachable.text));
            if let Some(reply) = &unreachable.reply {
                outcome::complain(shard, lane, reply);
            }
            shard.remember_trouble(lane, &unreachable.text);
            shard.queue.borrow_mut().connect_failed(clock::mono(), lane);
            false
        }
    }
}

/// Sends the questions that wait to the control thread.
fn ask(shard: &Shard) {
    loop {
        let permit = match shard.reports.try_reserve() {
            Ok(permit) => permit,
            // The control thread is behind: the question stays in the queue for the next round.
            Err(TrySendError::Full(())) => return,
            Err(TrySendError::Closed(())) => return,
        };
        let Some(domain) = shard.queue.borrow_mut().ask() else { return };
        permit.send(Report::Resolve { shard: shard.number, domain });
    }
}

/// An answer of the control thread.
pub(crate) fn resolved(shard: &Rc<Shard>, domain: &str, answer: SiteAnswer) {
    let (now, wall) = (clock::mono(), clock::wall());
    let resolution = match answer {
        SiteAnswer::Hosts { hosts, ttl, .. } => {
            let key: Arc<str> = shard.sites.borrow_mut().learn(domain, &hosts);
            shard.limit_site(&key, domain);
            Resolution::Site { key, ttl }
        }
        SiteAnswer::Never { status, text, ttl } => {
            shard.nowhere.borrow_mut().insert(domain.into(), (status, text));
            Resolution::Never { ttl }
        }
        SiteAnswer::Later { text } => {
            shard.note_error(&format!("{domain}: {text}"));
            Resolution::Later
        }
    };
    shard.queue.borrow_mut().resolved(now, wall, domain, resolution);
    // Now that its site is known, mail without a leased IP can be given one.
    rehome::place_stranded(shard);
    shard.work.raise();
}
