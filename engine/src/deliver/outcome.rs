//! What a try came to: recorded in the spool, told to the queue, bounced where it must be.
//!
//! The order is fixed: a DSN is appended before the recipients it speaks of are settled, so that a crash between the two
//! makes a second DSN and never none.

use crate::{
    bounce::{self, Fate},
    clock,
    deliver::line::{InFlight, Line},
    event::detail::{Attempt, Outcome},
    flow,
    message::{dsn::Action, id::MessageId},
    shard::Shard,
    smtp::{
        outcome::{LetterOutcome, Stage, Verdict},
        reply::{Enhanced, Reply},
    },
};
use mailrail_queue::{
    JobId, LaneId, NextTry,
    classify::{self, BounceSubType, BounceType, DelayType},
    shape::reply::Then,
    time::Wall,
    warmup::ledger::NeverSeen,
};
use mailrail_spool::{MessageKey, MessageView, SettleKind};
use smallvec::SmallVec;
use std::{net::IpAddr, rc::Rc, time::Duration};

/// Ages at which the sender's events tell that a message is still delayed, after the first deferral.
const TELL_DELAY: [Duration; 2] = [Duration::from_secs(3600), Duration::from_secs(4 * 3600)];
/// And from then on each time so much more has passed.
const TELL_DELAY_EACH: Duration = Duration::from_secs(12 * 3600);
/// How long recipients wait that came to their end while the spool had no room for their DSN.
const NO_ROOM: Duration = Duration::from_secs(60);

/// Takes the outcome that the machine of `line` tells.
pub(crate) fn take(line: &mut Line<'_>) {
    let told = line.open.client.outcome().clone();
    let Some(flight) = line.landed(told.letter) else { return };
    complain_of(line, &told, &flight);
    if is_untried(&told, line.delivered) {
        let mut queue = line.shard.queue.borrow_mut();
        if told.seen {
            queue.give_back(flight.job);
        } else {
            queue.give_back_unseen(flight.job, NeverSeen::nothing_written());
        }
        return;
    }
    line.delivered += u32::from(told.verdict == Verdict::Delivered);
    let connect = line.connect_time();
    let tls = line.open.stream.tls_info();
    let attempt = Attempt {
        time: clock::wall(),
        lease: Some(line.lease),
        mx_host: Some(&line.open.host.name),
        remote: Some(line.open.host.address),
        tls: tls.map(|tls| (tls.version, tls.cipher)),
        attempt: flight.attempt,
        queue: flight.waited,
        connect,
        transfer: clock::mono().since(flight.begun),
        ..Attempt::default()
    };
    let shard = line.shard;
    let (fates, trouble) = fates(shard, &flight, &told, &attempt);
    let held = fates.iter().find(|fate| matches!(fate.attempt.outcome, Outcome::Deferred(_)));
    if let Some(fate) = held {
        shard.remember_trouble(line.lane, &format!("{}: {}", line.open.host.name, fate.attempt.reply));
    }
    if trouble {
        shard.queue.borrow_mut().site_trouble(clock::mono(), line.lane);
    }
    let mut outcomes = [0; 3];
    for fate in &fates {
        let column = match fate.attempt.outcome {
            Outcome::Delivered => 0,
            Outcome::Deferred(_) => 1,
            _ => 2,
        };
        outcomes[column] += fate.recipients.len() as u64;
    }
    shard.queue.borrow_mut().told(line.lane, outcomes);
    conclude(shard, &Ended::of(&flight, line.lease), fates);
}

/// What the provider's replies to a letter ask for, is done. Each different reply is looked at once.
fn complain_of(line: &Line<'_>, told: &LetterOutcome, flight: &InFlight) {
    let mut seen: SmallVec<[&Reply; 2]> = SmallVec::new();
    for index in 0..flight.recipients.len() {
        let (verdict, reply) = told.recipient(index);
        if verdict == Verdict::Refused && !seen.contains(&reply) {
            seen.push(reply);
            complain(line.shard, line.lane, reply);
        }
    }
}

/// What a provider's reply asks for, is done.
pub(crate) fn complain(shard: &Shard, lane: LaneId, reply: &Reply) {
    if reply.local || reply.code < 400 {
        return;
    }
    let enhanced = reply.enhanced.map(|Enhanced(class, subject, detail)| (class, subject, detail));
    let told = (reply.code, enhanced, reply.text.as_str());
    let then = shard.queue.borrow_mut().complain(clock::mono(), clock::wall(), lane, told);
    if then == Then::Nothing {
        return;
    }
    let Some(info) = shard.queue.borrow().lane(lane) else { return };
    let provider = info.provider.as_deref().unwrap_or("-");
    tracing::info!(shard = shard.number, ip = %info.lease, provider, ?then, reply = %reply, "provider complains");
    shard.remember_trouble(lane, &format!("{provider}: {reply}"));
    shard.work.raise();
}

/// The server has surely not looked at this letter: it ended the connection after others. Every such connection has
/// brought mail on, so trying again at once comes to an end.
fn is_untried(told: &LetterOutcome, delivered: u32) -> bool {
    if told.refusals.iter().any(Option::is_some) {
        return false;
    }
    match told.verdict {
        Verdict::NeverSeen => true,
        Verdict::Refused => delivered > 0 && told.reply.code == 421 && !told.reply.local,
        Verdict::Broken => delivered > 0 && told.stage < Stage::Content,
        Verdict::Delivered | Verdict::InDoubt => false,
    }
}

/// A job whose try, or whose time, has ended.
struct Ended<'a> {
    job: JobId,
    key: MessageKey,
    accepted: Wall,
    attempt: u16,
    lease: Option<IpAddr>,
    signatures: Option<&'a Rc<[u8]>>,
}

impl<'a> Ended<'a> {
    fn of(flight: &'a InFlight, lease: IpAddr) -> Self {
        let InFlight { job, key, accepted, attempt, ref signatures, .. } = *flight;
        Self { job, key, accepted, attempt, lease: Some(lease), signatures: Some(signatures) }
    }
}

/// Sorts the recipients by what became of them; also says whether the whole site wants to be left alone.
fn fates<'a>(shard: &Shard, flight: &InFlight, told: &LetterOutcome, attempt: &Attempt<'a>) -> (Vec<Fate<'a>>, bool) {
    let mut fates: Vec<Fate<'a>> = Vec::with_capacity(1);
    let mut trouble = false;
    for (index, number) in flight.recipients.iter().enumerate() {
        let (verdict, reply) = told.recipient(index);
        let in_doubt = verdict == Verdict::InDoubt;
        let same = |fate: &&mut Fate<'_>| fate.attempt.in_doubt == in_doubt && fate.attempt.reply == *reply;
        if let Some(fate) = fates.iter_mut().find(same) {
            fate.recipients.push(*number);
            continue;
        }
        let class = classify(shard, reply);
        let outcome = match (verdict, class.verdict) {
            (Verdict::Delivered, _) => Outcome::Delivered,
            (Verdict::Refused, classify::Verdict::Bounced(kind, sub)) => Outcome::Bounced(kind, sub),
            (Verdict::Refused, classify::Verdict::Deferred(delay)) => Outcome::Deferred(delay),
            _ => Outcome::Deferred(DelayType::TransientCommunicationFailure),
        };
        trouble |= verdict == Verdict::Refused && class.site_wide;
        let attempt = Attempt { reply: reply.clone(), outcome, in_doubt, ..attempt.clone() };
        fates.push(Fate { recipients: SmallVec::from_slice(&[*number]), attempt });
    }
    (fates, trouble)
}

fn classify(shard: &Shard, reply: &Reply) -> classify::Class {
    let enhanced = reply.enhanced.map(|Enhanced(class, subject, detail)| (class, subject, detail));
    shard.classifier.classify(reply.code, enhanced, &reply.text)
}

/// Records what became of a job's recipients, and tells the queue.
fn conclude(shard: &Rc<Shard>, ended: &Ended<'_>, mut fates: Vec<Fate<'_>>) {
    bounce_or_keep(shard, ended, &mut fates, Action::Failed);
    let mut waiting: SmallVec<[u16; 2]> = SmallVec::new();
    for fate in fates.iter().filter(|fate| matches!(fate.attempt.outcome, Outcome::Deferred(_))) {
        waiting.extend_from_slice(&fate.recipients);
    }
    let mut next = None;
    if waiting.is_empty() {
        shard.queue.borrow_mut().done(ended.job);
    } else {
        next = Some(shard.queue.borrow_mut().defer(clock::mono(), clock::wall(), ended.job, &waiting));
        if let Some(signatures) = ended.signatures.filter(|signatures| !signatures.is_empty()) {
            shard.signatures.borrow_mut().keep(ended.key, Rc::clone(signatures));
        }
    }
    let mut expired = Vec::new();
    for mut fate in fates {
        match (fate.attempt.outcome, next) {
            (Outcome::Delivered, _) => settle(shard, ended, &fate, SettleKind::Delivered),
            (Outcome::Bounced(..) | Outcome::Complained, _) => settle(shard, ended, &fate, SettleKind::Bounced),
            (Outcome::Cancelled, _) => settle(shard, ended, &fate, SettleKind::Cancelled),
            (Outcome::Deferred(_), Some(NextTry::At(at))) => defer(shard, ended, &mut fate, at),
            (Outcome::Deferred(_), _) => expired.push(fate),
        }
    }
    if !expired.is_empty() {
        expire(shard, ended, expired);
    }
    shard.dirty.raise();
}

/// Tells the sender of recipients that failed. Without room for that they are kept: they wait as if deferred.
fn bounce_or_keep(shard: &Rc<Shard>, ended: &Ended<'_>, fates: &mut [Fate<'_>], action: Action) -> bool {
    let failed: Vec<&Fate<'_>> =
        fates.iter().filter(|fate| fate.attempt.outcome.is_bounced() || action == Action::Expired).collect();
    if failed.is_empty() {
        return true;
    }
    let Err(full) = bounce::tell_sender(shard, ended.key, &failed, action) else { return true };
    shard.note_error(&format!("a DSN could not be spooled, its recipients stay queued: {full}"));
    for fate in fates.iter_mut().filter(|fate| fate.attempt.outcome.is_bounced()) {
        fate.attempt.outcome = Outcome::Deferred(DelayType::InternalFailure);
    }
    false
}

fn settle(shard: &Shard, ended: &Ended<'_>, fate: &Fate<'_>, how: SettleKind) {
    let mut detail = Vec::with_capacity(256);
    fate.attempt.encode(&mut detail);
    let settled = shard.spool.borrow_mut().settle(ended.key, &fate.recipients, how, &detail);
    if settled.wholly {
        shard.signatures.borrow_mut().forget(ended.key);
    }
    let count = fate.recipients.len() as u64;
    let mut stats = shard.stats.borrow_mut();
    match how {
        SettleKind::Delivered => {
            stats.delivered += count;
            stats.delivery_time.record(fate.attempt.time.since(ended.accepted));
        }
        SettleKind::Expired => stats.expired += count,
        SettleKind::Cancelled => stats.cancelled += count,
        _ => stats.bounced += count,
    }
    drop(stats);
    if let Some(lease) = ended.lease {
        shard.count_ip(lease, |ip| match how {
            SettleKind::Delivered => ip.delivered += count,
            _ => ip.bounced += count,
        });
    }
}

fn defer(shard: &Shard, ended: &Ended<'_>, fate: &mut Fate<'_>, at: Wall) {
    fate.attempt.next_try = at;
    fate.attempt.tell_delay = tells_delay(shard, ended, fate.attempt.time);
    let mut detail = Vec::with_capacity(256);
    fate.attempt.encode(&mut detail);
    shard.spool.borrow_mut().defer(ended.key, &fate.recipients, ended.attempt, at.0, &detail);
    let count = fate.recipients.len() as u64;
    let mut stats = shard.stats.borrow_mut();
    stats.deferred += count;
    stats.in_doubt += if fate.attempt.in_doubt { count } else { 0 };
    drop(stats);
    if let Some(lease) = ended.lease {
        shard.count_ip(lease, |ip| ip.deferred += count);
    }
}

/// Is a DeliveryDelay due: at the first deferral, then as the message grows old?
fn tells_delay(shard: &Shard, ended: &Ended<'_>, now: Wall) -> bool {
    if ended.attempt <= 1 {
        return true;
    }
    let age = now.since(ended.accepted);
    // The try before was this long ago, give or take the jitter.
    let before = age.saturating_sub(shard.config.delivery.retry.wait(ended.attempt - 1, 0));
    let steps = |age: Duration| {
        let early = TELL_DELAY.iter().filter(|step| **step <= age).count() as u64;
        early + age.as_secs() / TELL_DELAY_EACH.as_secs()
    };
    steps(age) > steps(before)
}

/// Ends recipients for their age. The queue has let go of them.
fn expire(shard: &Rc<Shard>, ended: &Ended<'_>, mut fates: Vec<Fate<'_>>) {
    let recipients: SmallVec<[u16; 2]> = fates.iter().flat_map(|fate| fate.recipients.iter().copied()).collect();
    if !bounce_or_keep(shard, ended, &mut fates, Action::Expired) {
        flow::schedule_again(shard, ended.key, &recipients, clock::wall().plus(NO_ROOM));
        return;
    }
    for fate in &fates {
        settle(shard, ended, fate, SettleKind::Expired);
    }
}

/// A job whose domain takes no mail.
pub(crate) fn undeliverable(shard: &Rc<Shard>, job: JobId) {
    let Some((ended, domain, recipients)) = ended_in_queue(shard, job) else { return };
    let known = shard.nowhere.borrow().get(&*domain).cloned();
    let (status, text) = known.unwrap_or(("5.1.2", format!("the domain {domain} takes no mail")));
    let (enhanced, _) = Enhanced::parse(status, 5).unwrap_or((Enhanced(5, 1, 2), 0));
    let reply = Reply::local(550, enhanced, text);
    let outcome = match classify(shard, &reply).verdict {
        classify::Verdict::Bounced(kind, sub) => Outcome::Bounced(kind, sub),
        _ => Outcome::Bounced(BounceType::Permanent, BounceSubType::General),
    };
    shard.queue.borrow_mut().done(job);
    let attempt = Attempt { time: clock::wall(), reply, outcome, ..Attempt::default() };
    let mut fates = [Fate { recipients: recipients.clone(), attempt }];
    if bounce_or_keep(shard, &ended, &mut fates, Action::Failed) {
        settle(shard, &ended, &fates[0], SettleKind::Bounced);
    } else {
        flow::schedule_again(shard, ended.key, &recipients, clock::wall().plus(NO_ROOM));
    }
    shard.dirty.raise();
}

/// What an operator does to queued recipients, and why, in the operator's words.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operator<'a> {
    /// They are ended, and the sender is told.
    Bounces(&'a str),
    /// They are ended.
    Cancels(&'a str),
}

/// Ends a job for an operator. False: there is no room to tell the sender now, and nothing was done.
pub(crate) fn by_operator(shard: &Rc<Shard>, job: JobId, how: Operator<'_>) -> bool {
    let Some((ended, _, recipients)) = ended_in_queue(shard, job) else { return true };
    let (what, why, outcome, kind) = match how {
        // Says nothing of the address: it goes on no suppression list.
        Operator::Bounces(why) => {
            let outcome = Outcome::Bounced(BounceType::Undetermined, BounceSubType::Undetermined);
            ("ended", why, outcome, SettleKind::Bounced)
        }
        Operator::Cancels(why) => ("cancelled", why, Outcome::Cancelled, SettleKind::Cancelled),
    };
    let colon = if why.is_empty() { "" } else { ": " };
    let reply = Reply::local(550, Enhanced(5, 7, 1), format!("{what} by the operator of this host{colon}{why}"));
    let fate = Fate { recipients, attempt: Attempt { time: clock::wall(), reply, outcome, ..Attempt::default() } };
    if outcome.is_bounced()
        && let Err(full) = bounce::tell_sender(shard, ended.key, &[&fate], Action::Failed)
    {
        shard.note_error(&format!("a DSN could not be spooled, its recipients stay queued: {full}"));
        return false;
    }
    settle(shard, &ended, &fate, kind);
    shard.queue.borrow_mut().drop_job(job);
    shard.dirty.raise();
    true
}

/// A message of whose content the disk has lost a piece: its sender is told. Without room for that it stays in the spool, and
/// the next start tries again.
pub(crate) fn maimed(shard: &Rc<Shard>, key: MessageKey) {
    let open = |view: MessageView<'_>| {
        let open = (0..).zip(view.recipients).filter(|(_, state)| !state.settled).map(|(number, _)| number);
        (MessageId::from_bytes(view.id), open.collect::<SmallVec<[u16; 2]>>())
    };
    let Some((id, recipients)) = shard.spool.borrow().message(key).map(open) else { return };
    let id = id.map(|id| id.to_string()).unwrap_or_default();
    shard.note_error(&format!("message {id} is damaged on disk and is bounced"));
    let reply = Reply::local(554, Enhanced(5, 3, 0), "part of the message was lost on the disk of this host");
    let outcome = Outcome::Bounced(BounceType::Permanent, BounceSubType::General);
    let fate = Fate { recipients, attempt: Attempt { time: clock::wall(), reply, outcome, ..Attempt::default() } };
    if let Err(full) = bounce::tell_sender(shard, key, &[&fate], Action::Failed) {
        shard.note_error(&format!("its DSN could not be spooled, it is kept: {full}"));
        return;
    }
    let mut detail = Vec::with_capacity(256);
    fate.attempt.encode(&mut detail);
    let _ = shard.spool.borrow_mut().settle(key, &fate.recipients, SettleKind::Bounced, &detail);
    shard.stats.borrow_mut().bounced += fate.recipients.len() as u64;
    shard.dirty.raise();
}

/// A job that has reached its age limit without a further try.
pub(crate) fn expired(shard: &Rc<Shard>, job: JobId) {
    let lane = shard.queue.borrow().jobs_lane(job);
    let Some((ended, _, recipients)) = ended_in_queue(shard, job) else { return };
    let held = lane.and_then(|lane| shard.trouble_of(lane));
    let text = match held {
        Some(trouble) => format!("not delivered in time; last trouble: {trouble}"),
        None => "not delivered in time".to_owned(),
    };
    let reply = Reply::local(451, Enhanced(4, 4, 7), text);
    let outcome = Outcome::Deferred(DelayType::TransientCommunicationFailure);
    let attempt = Attempt { time: clock::wall(), reply, outcome, ..Attempt::default() };
    shard.queue.borrow_mut().done(job);
    expire(shard, &ended, vec![Fate { recipients, attempt }]);
    shard.dirty.raise();
}

/// What the queue and the spool know of a job that ends without a try.
fn ended_in_queue(shard: &Shard, job: JobId) -> Option<(Ended<'static>, String, SmallVec<[u16; 2]>)> {
    let queue = shard.queue.borrow();
    let (key, recipients, domain, attempts) = queue.job(job)?;
    let (recipients, domain) = (SmallVec::from_slice(recipients), domain.to_owned());
    drop(queue);
    let Some(accepted) = shard.spool.borrow().message(key).map(|view| Wall(view.accepted_ms)) else {
        shard.queue.borrow_mut().done(job);
        return None;
    };
    let ended = Ended { job, key, accepted, attempt: attempts, lease: None, signatures: None };
    Some((ended, domain, recipients))
}
