//! DSNs: the sender is told of recipients that came to a bad end (RFC 3461, RFC 3464).
//!
//! A DSN is mail like any other, appended to this shard's spool before the recipients it speaks of are settled. It has a
//! null sender, so that it never makes another one.

use crate::{
    clock,
    event::detail::Attempt,
    flow,
    mesh::Letter,
    message::{
        dsn::{self, Action, Dsn, Failed},
        id::MessageId,
        meta::{Meta, MetaFlags, RecipientMeta},
    },
    shard::Shard,
    smtp::envelope::Notify,
};
use mailrail_queue::time::Wall;
use mailrail_spool::{Full, MessageKey, MessageView};
use smallvec::SmallVec;
use std::rc::Rc;

/// Recipients with one and the same fate, and what that was.
pub(crate) struct Fate<'a> {
    pub(crate) recipients: SmallVec<[u16; 2]>,
    pub(crate) attempt: Attempt<'a>,
}

/// A notification, ready to be appended.
struct Notice {
    id: MessageId,
    made: Wall,
    meta: Vec<u8>,
    content: Vec<u8>,
}

/// Tells the sender, where the sender wants to be told, in one notification. `Ok` if nothing is left to say.
///
/// # Errors
/// [`Full`]: there is no room for it now; the recipients must stay queued until there is.
pub(crate) fn tell_sender(shard: &Rc<Shard>, key: MessageKey, fates: &[&Fate<'_>], action: Action) -> Result<(), Full> {
    let notice = {
        let spool = shard.spool.borrow();
        let Some(view) = spool.message(key) else { return Ok(()) };
        let Some(meta) = Meta::decode(view.meta) else { return Ok(()) };
        let failed = failed(&meta, fates, action);
        // RFC 5321 section 6.1: a null sender is never told of anything.
        if meta.sender.is_empty() || failed.is_empty() {
            return Ok(());
        }
        write(shard, &view, &meta, &failed)
    };
    let Notice { id, made, meta, content } = notice;
    let (id, parts) = (id.to_bytes(), [content.as_slice()]);
    let letter = Letter { id: &id, accepted: made, meta: &meta, recipients: 1, chunks: &[], parts: &parts };
    flow::append_own(shard, &letter)?;
    shard.stats.borrow_mut().dsns += 1;
    Ok(())
}

/// The recipients that the sender wants to hear of.
fn failed<'a>(meta: &Meta<'a>, fates: &'a [&Fate<'_>], action: Action) -> Vec<Failed<'a>> {
    let each = fates.iter().flat_map(|fate| fate.recipients.iter().map(|number| (*number, &fate.attempt)));
    each.filter_map(|(number, attempt)| {
        let recipient = meta.recipients.get(usize::from(number))?;
        dsn::wants(recipient.notify, Notify::FAILURE).then_some(Failed {
            address: recipient.address,
            orcpt: recipient.orcpt,
            action,
            reply: &attempt.reply,
            remote: attempt.mx_host,
            last_attempt: (attempt.attempt > 0).then_some(attempt.time),
        })
    })
    .collect()
}

fn write(shard: &Shard, view: &MessageView<'_>, meta: &Meta<'_>, failed: &[Failed<'_>]) -> Notice {
    let now = clock::wall();
    let id = MessageId::new(now.0, shard.number, shard.next_sequence(), shard.chance());
    let pieces: Vec<_> = view.pieces().collect();
    let dsn = Dsn {
        id,
        hostname: &shard.config.hostname,
        sender: meta.sender,
        env_id: meta.env_id,
        arrival: Wall(view.accepted_ms),
        now,
        ret: meta.ret,
        smtputf8: meta.flags.smtputf8,
        header_size: meta.header_size as usize,
        original: &pieces,
        original_id: MessageId::from_bytes(view.id),
        recipients: failed,
    };
    let mut content = Vec::with_capacity(4096);
    dsn.write(&mut content);
    let own = Meta {
        id,
        sender: "",
        env_id: None,
        ret: None,
        flags: MetaFlags { eight_bit: !content.is_ascii(), dsn: true, moved: false, ..meta.flags },
        // Not by an IP that warms up: then another one is looked for as for mail without any.
        lease: meta.lease.filter(|ip| !shard.warms_up(*ip)),
        pool: meta.pool,
        source_ip: None,
        source_tls: None,
        from_domain: &shard.config.hostname,
        header_size: dsn::header_size(&content),
        recipients: vec![RecipientMeta { address: meta.sender, notify: Notify::NEVER, orcpt: None }],
        account: meta.account,
        suppressed: Vec::new(),
    };
    let mut encoded = Vec::new();
    own.encode(&mut encoded);
    Notice { id, made: now, meta: encoded, content }
}
