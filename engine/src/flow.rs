//! The path of a message through a shard, on a few screens: in by [`receive`], out by `deliver::line`.
//!
//! Nothing here decides (that is `mailrail_queue`) or moves bytes (that is `receive/`, `deliver/`). It keeps the order:
//! checked, IP chosen, appended where it will be sent, durable, answered, scheduled.

use crate::{
    clock, commit,
    mesh::{self, Letter},
    message::{
        headers::{self, AcceptContext, Prepared},
        id::MessageId,
        meta::{Meta, MetaFlags, RecipientMeta},
    },
    quota,
    returning::Away,
    shard::Shard,
    smtp::{
        envelope::Body,
        reply::{Enhanced, Reply},
        server::Server,
    },
    submit,
    tls::TlsInfo,
};
use futures_lite::FutureExt;
use mailrail_queue::{
    New, Target,
    admit::suppress::Suppressed,
    egress::{self, Choice},
    time::Wall,
};
use mailrail_spool::{ChunkRef, Durable, Full, MessageKey, Spool};
use std::{net::IpAddr, rc::Rc, sync::Arc, time::Duration};

/// How often room is looked for while a segment is being made.
const ROOM_POLL: Duration = Duration::from_millis(50);

/// A transaction of a client, while it lasts. *One per client connection; reused.*
pub(crate) struct Inbound {
    peer: IpAddr,
    pub(crate) tls: Option<TlsInfo>,
    /// Who sends.
    pub(crate) account: Arc<str>,
    prepared: Prepared,
    plan: Option<Plan>,
    chunks: Vec<ChunkRef>,
    refusal: Option<Reply>,
    meta: Vec<u8>,
    pub(crate) away: Away,
}

/// What was decided of a message before it is kept.
struct Plan {
    id: MessageId,
    accepted: Wall,
    lease: Option<IpAddr>,
    owner: u16,
    pool: Arc<str>,
    account: Arc<str>,
    suppressed: Vec<(u16, Suppressed)>,
}

/// Proof that a message is durable, and its id: what a 250 is made of.
pub(crate) struct Accepted {
    text: String,
    _durable: Proof,
}

/// Whose word it is that the message is on disk.
pub(crate) enum Proof {
    /// This shard's spool.
    Mine(Durable),
    /// The owner's, which said so after its own proof.
    Peer,
}

impl Accepted {
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

impl Inbound {
    pub(crate) fn new(peer: IpAddr, tls: Option<TlsInfo>, account: Arc<str>) -> Self {
        let prepared = Prepared::default();
        Self {
            peer,
            tls,
            account,
            prepared,
            plan: None,
            chunks: Vec::new(),
            refusal: None,
            meta: Vec::new(),
            away: Away::default(),
        }
    }

    /// Ready for the next message. Chunks belong to the last one, or have been given up.
    pub(crate) fn reset(&mut self) {
        self.plan = None;
        self.chunks.clear();
        self.refusal = None;
    }

    /// Throws away the pieces of a message that will not come to its end.
    pub(crate) async fn give_up(&mut self, shard: &Rc<Shard>) {
        if let (Some(plan), false) = (&self.plan, self.chunks.is_empty()) {
            mesh::discard(shard, plan.owner, &self.chunks).await;
        }
        self.reset();
    }
}

/// Takes a complete message; its content is what the machine holds and the pieces kept before.
///
/// # Errors
/// The reply that refuses it; nothing of it was kept.
pub(crate) async fn receive(shard: &Rc<Shard>, inbound: &mut Inbound, server: &Server) -> Result<Accepted, Reply> {
    let begun = clock::mono();
    shard.returning.back(&mut inbound.away);
    if let Some(refusal) = inbound.refusal.take() {
        inbound.give_up(shard).await;
        return Err(refusal);
    }
    let whole = inbound.plan.is_none();
    if whole {
        inbound.plan = Some(admit(shard, inbound.tls, &inbound.account, &mut inbound.prepared, server)?);
    }
    let Some(plan) = &inbound.plan else { return Err(trouble()) };
    let recipients = server.envelope().recipients.len() as u32;
    let counted = match quota::admit(shard, &plan.account, recipients).await {
        Ok(counted) => counted,
        Err(refusal) => {
            inbound.give_up(shard).await;
            return Err(refusal);
        }
    };
    encode_meta(plan, inbound.peer, inbound.tls, &inbound.prepared, server, &mut inbound.meta);
    let mut parts = Vec::with_capacity(8);
    if whole {
        inbound.prepared.parts(server.content(), &mut parts);
    } else {
        parts.push(server.content());
    }
    let id = plan.id.to_bytes();
    let letter = Letter {
        id: &id,
        accepted: plan.accepted,
        meta: &inbound.meta,
        recipients: server.envelope().recipients.len() as u16,
        chunks: &inbound.chunks,
        parts: &parts,
    };
    match mesh::append(shard, plan.owner, letter).await {
        Ok(durable) => {
            shard.stats.borrow_mut().accept_time.record(clock::mono().since(begun));
            shard.returning.answered(&mut inbound.away);
            Ok(Accepted { text: plan.id.to_string(), _durable: durable })
        }
        Err(full) => {
            quota::give_back(shard, &plan.account, counted);
            mesh::discard(shard, plan.owner, &inbound.chunks).await;
            Err(try_later(&full))
        }
    }
}

/// Keeps a piece of a message that is larger than the receive buffer.
pub(crate) async fn keep_piece(shard: &Rc<Shard>, inbound: &mut Inbound, server: &Server) {
    if inbound.refusal.is_some() {
        return;
    }
    let mut parts = Vec::with_capacity(8);
    if inbound.plan.is_none() {
        match admit(shard, inbound.tls, &inbound.account, &mut inbound.prepared, server) {
            Ok(plan) => inbound.plan = Some(plan),
            Err(refusal) => {
                inbound.refusal = Some(refusal);
                return;
            }
        }
        inbound.prepared.parts(server.content(), &mut parts);
    } else {
        parts.push(server.content());
    }
    let Some(plan) = &inbound.plan else { return };
    match mesh::append_chunk(shard, plan.owner, &parts).await {
        Ok(chunk) => inbound.chunks.push(chunk),
        Err(full) => {
            inbound.refusal = Some(try_later(&full));
            mesh::discard(shard, plan.owner, &inbound.chunks).await;
            inbound.chunks.clear();
        }
    }
}

/// Checks a message by its header section, and chooses its leased IP and with it its owner.
fn admit(
    shard: &Rc<Shard>,
    tls: Option<TlsInfo>,
    account: &str,
    prepared: &mut Prepared,
    server: &Server,
) -> Result<Plan, Reply> {
    let accepted = clock::wall();
    let sequence = shard.next_sequence();
    let id = MessageId::new(accepted.0, shard.number, sequence, shard.chance());
    let envelope = server.envelope();
    let context = AcceptContext {
        hostname: &shard.config.hostname,
        protocol: server.protocol(),
        tls: tls.map(|tls| (tls.version, tls.cipher)),
        id,
        accepted,
        only_recipient: (envelope.recipients.len() == 1).then(|| envelope.recipients[0].address.as_str()),
        max_hops: shard.limits.hops,
    };
    headers::prepare(server.content(), &context, prepared)?;
    let snapshot = shard.policy();
    let policy = &snapshot.policy;
    let account = submit::may_send(policy, account, &envelope.recipients, &shard.config.regions)?;
    let pool = egress::pool_of(policy, &account.name, prepared.pool()).map_err(|unknown| {
        Reply::new(554, Enhanced(5, 7, 1), format!("Message rejected: pool <{}> does not exist", unknown.0))
    })?;
    let suppressed = submit::suppressed(shard, account, &envelope.recipients);
    let account = Arc::clone(&account.name);
    let named = Arc::from(prepared.pool().unwrap_or_default());
    let plan = Plan { id, accepted, lease: None, owner: shard.number, pool: named, account, suppressed };
    let Some(pool) = pool else { return Ok(plan) };
    let name = policy.pools.get(pool as usize).map_or_else(|| Arc::from(""), |pool| Arc::clone(&pool.name));
    let open = envelope.recipients.len() - plan.suppressed.len();
    let choice = mesh::choose(shard, policy, pool, false, open, id.hash());
    if let Choice::Reject(_) = choice {
        let text = format!("Warm-up allowance of pool <{name}> is used up, try again later");
        return Err(Reply::new(454, Enhanced(4, 7, 0), text));
    }
    let plan = Plan { pool: name, ..plan };
    // Without a lease this shard keeps it until there is one.
    let Some(lease) = choice.lease().and_then(|lease| policy.leases.get(lease.0 as usize)) else { return Ok(plan) };
    Ok(Plan { lease: Some(lease.address), owner: mesh::owner(shard, lease), ..plan })
}

fn encode_meta(
    plan: &Plan,
    peer: IpAddr,
    tls: Option<TlsInfo>,
    prepared: &Prepared,
    server: &Server,
    out: &mut Vec<u8>,
) {
    let (envelope, facts) = (server.envelope(), server.facts());
    let recipients = envelope.recipients.iter().map(|recipient| RecipientMeta {
        address: &recipient.address,
        notify: recipient.notify,
        orcpt: recipient.orcpt.as_deref(),
    });
    let meta = Meta {
        id: plan.id,
        sender: &envelope.sender,
        env_id: envelope.env_id.as_deref(),
        ret: envelope.ret,
        flags: MetaFlags {
            eight_bit: facts.eight_bit || envelope.body == Body::EightBit,
            smtputf8: envelope.smtputf8,
            dsn: false,
            moved: false,
        },
        lease: plan.lease,
        pool: &plan.pool,
        source_ip: Some(peer),
        source_tls: tls.map(|tls| tls.version),
        from_domain: prepared.author_domain(),
        header_size: prepared.header_size(),
        recipients: recipients.collect(),
        account: &plan.account,
        suppressed: plan.suppressed.clone(),
    };
    meta.encode(out);
}

/// Does what needs room in the spool; while a segment is being made, waits for it a little.
pub(crate) async fn with_room<T>(
    shard: &Shard,
    mut append: impl FnMut(&mut Spool) -> Result<T, Full>,
) -> Result<T, Full> {
    let until = clock::mono().plus(shard.limits.spool_wait);
    loop {
        let full = match append(&mut shard.spool.borrow_mut()) {
            Err(Full::NoSpace(reason)) => Full::NoSpace(reason),
            done => return done,
        };
        let left = until.since(clock::mono());
        if left.is_zero() || shard.spool.borrow().cannot_grow().is_some() {
            return Err(full);
        }
        shard.chores.raise();
        let patience = async { glommio::timer::sleep(left.min(ROOM_POLL)).await };
        shard.room.wait().or(patience).await;
    }
}

/// Appends a message of our own; it waits for nobody, and nobody waits for it.
pub(crate) fn append_own(shard: &Shard, letter: &Letter<'_>) -> Result<(), Full> {
    let appended = shard.spool.borrow_mut().append_message(&letter.as_new())?;
    schedule(shard, appended.key);
    shard.dirty.raise();
    shard.work.raise();
    Ok(())
}

/// Appends here and waits until it is durable; then it is this shard's to deliver.
pub(crate) async fn append_here(shard: &Rc<Shard>, letter: &Letter<'_>) -> Result<Durable, Full> {
    let (key, durable) = append_held(shard, letter).await?;
    schedule(shard, key);
    shard.work.raise();
    Ok(durable)
}

/// Appends here and waits until it is durable; it is not to be delivered yet.
pub(crate) async fn append_held(shard: &Rc<Shard>, letter: &Letter<'_>) -> Result<(MessageKey, Durable), Full> {
    let appended = with_room(shard, |spool| spool.append_message(&letter.as_new())).await?;
    match commit::durable(shard, appended.position).await {
        Ok(durable) => {
            let mut stats = shard.stats.borrow_mut();
            stats.accepted_messages += 1;
            stats.accepted += u64::from(letter.recipients);
            stats.bytes_accepted += letter.size() as u64;
            Ok((appended.key, durable))
        }
        // Not answered 250, and after a failed sync nothing more is sent either: the next start decides by what is on disk.
        Err(reason) => Err(Full::NoSpace(reason)),
    }
}

/// Puts a message of this shard's spool into its queue: just accepted, or found at the start.
pub(crate) fn schedule(shard: &Shard, key: MessageKey) {
    let spool = shard.spool.borrow();
    let Some(view) = spool.message(key) else { return };
    let Some(meta) = Meta::decode(view.meta) else {
        shard.note_error(&format!("message {}: its envelope cannot be read", MessageId::display(view.id)));
        return;
    };
    let accepted = Wall(view.accepted_ms);
    let suppressed = submit::open_suppressed(&meta, view.recipients);
    let mut targets: Vec<(String, Target)> = Vec::with_capacity(1);
    for (number, (recipient, state)) in meta.recipients.iter().zip(view.recipients).enumerate() {
        if state.settled || suppressed.iter().any(|(other, _)| usize::from(*other) == number) {
            continue;
        }
        let domain = domain_of(recipient.address);
        let next_try = (state.next_try_ms > 0).then_some(Wall(state.next_try_ms));
        let same = |(name, target): &&mut (String, Target)| {
            *name == domain && target.attempts == state.attempts && target.next_try == next_try
        };
        match targets.iter_mut().find(same) {
            Some((_, target)) => target.recipients.push(number as u16),
            None => {
                let recipients = std::iter::once(number as u16).collect();
                targets.push((domain, Target { recipients, attempts: state.attempts, next_try }));
            }
        }
    }
    if !targets.is_empty() {
        enqueue(shard, key, &meta, accepted, &targets);
    }
    drop(spool);
    submit::settle_suppressed(shard, key, &suppressed);
}

/// Puts recipients back that had left the queue and could not be settled.
pub(crate) fn schedule_again(shard: &Shard, key: MessageKey, recipients: &[u16], next_try: Wall) {
    let spool = shard.spool.borrow();
    let Some(view) = spool.message(key) else { return };
    let Some(meta) = Meta::decode(view.meta) else { return };
    let mut targets: Vec<(String, Target)> = Vec::new();
    for number in recipients {
        let Some(recipient) = meta.recipients.get(usize::from(*number)) else { continue };
        let attempts = view.recipients.get(usize::from(*number)).map_or(0, |state| state.attempts);
        let next_try = Some(next_try);
        let domain = domain_of(recipient.address);
        match targets.iter_mut().find(|(known, target)| *known == domain && target.attempts == attempts) {
            Some((_, target)) => target.recipients.push(*number),
            None => {
                let recipients = std::iter::once(*number).collect();
                targets.push((domain, Target { recipients, attempts, next_try }));
            }
        }
    }
    enqueue(shard, key, &meta, Wall(view.accepted_ms), &targets);
}

fn enqueue(shard: &Shard, key: MessageKey, meta: &Meta<'_>, accepted: Wall, targets: &[(String, Target)]) {
    let mut queue = shard.queue.borrow_mut();
    let lease = meta.lease.filter(|address| shard.owns(*address)).map(|address| queue.lease_id(address));
    let expires = accepted.plus(shard.config.delivery.max_age);
    queue.add(clock::mono(), clock::wall(), New { key, lease, accepted, expires, targets });
}

/// The domain by which mail for `address` is sent: lower case; an address literal stays as it is.
pub(crate) fn domain_of(address: &str) -> String {
    address.rsplit_once('@').map_or(address, |(_, domain)| domain).to_ascii_lowercase()
}

fn try_later(full: &Full) -> Reply {
    match full {
        Full::TooLarge(_) => Reply::new(552, Enhanced(5, 3, 4), "Message is too long."),
        Full::NoSpace(_) | Full::Failed(_) => {
            Reply::new(452, Enhanced(4, 3, 1), "Insufficient system storage, try again later")
        }
    }
}

fn trouble() -> Reply {
    Reply::new(451, Enhanced(4, 3, 0), "Temporary service failure")
}
