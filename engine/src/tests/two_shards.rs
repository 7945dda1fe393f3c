//! Two shards on one thread, each with a real spool, for tests.

use crate::{
    clock, commit,
    config::Config,
    limits::Limits,
    memory::{Ceiling, Memory},
    mesh::{self, Mesh, Request},
    message::{
        id::MessageId,
        meta::{Meta, MetaFlags, RecipientMeta},
    },
    shard::{Parts, Shard},
    smtp::envelope::Notify,
    tls::certs::Trust,
};
use mailrail_queue::{New, Resolution, Target, classify::Classifier};
use mailrail_spool::{MessageKey, NewMessage, RealDisk, Spool};
use std::{path::Path, rc::Rc, sync::Arc, time::Duration};
use tokio::sync::mpsc;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A message in the spool of a shard: the numbers of its recipients, and whether it was moved there.
pub(crate) struct Copy {
    pub(crate) shard: usize,
    pub(crate) recipients: &'static [u8],
    pub(crate) moved: bool,
}

/// A spool with all its segments.
pub(crate) fn spool(directory: &Path) -> Spool {
    std::fs::create_dir_all(directory).unwrap();
    let mut spool = Spool::open(RealDisk::open(directory).unwrap(), mailrail_spool::Limits::tiny()).unwrap().0;
    make_segments(&mut spool);
    spool
}

fn make_segments(spool: &mut Spool) {
    while let Some(chore) = spool.chore(1) {
        let done = chore.run();
        spool.finish_chore(done, 1);
    }
}

/// One message.
pub(crate) fn append(spool: &mut Spool, copy: &Copy) {
    let id = MessageId::new(1, 0, 2, 3);
    let addresses: Vec<_> = copy.recipients.iter().map(|n| format!("r{n}@one.test")).collect();
    let recipients =
        addresses.iter().map(|address| RecipientMeta { address, notify: Notify::DEFAULT, orcpt: None }).collect();
    let meta = Meta {
        id,
        sender: "a@sender.test",
        env_id: None,
        ret: None,
        flags: MetaFlags { eight_bit: false, smtputf8: false, dsn: false, moved: copy.moved },
        lease: None,
        pool: "",
        source_ip: None,
        source_tls: None,
        from_domain: "sender.test",
        header_size: 0,
        recipients,
        account: "default",
        suppressed: Vec::new(),
    };
    let mut encoded = Vec::new();
    meta.encode(&mut encoded);
    let count = addresses.len() as u16;
    let id = id.to_bytes();
    let new =
        NewMessage { id: &id, accepted_ms: 1, meta: &encoded, recipients: count, chunks: &[], parts: &[b"\r\nx\r\n"] };
    spool.append_message(&new).unwrap();
}

fn shard(config: &Arc<Config>, number: u16, spool: Spool, peers: &[mpsc::Sender<Request>]) -> Rc<Shard> {
    let (reports, _) = mpsc::channel(8);
    Rc::new(Shard::new(Parts {
        number,
        config: Arc::clone(config),
        limits: Limits::default(),
        memory: Memory::new(Ceiling::new(1 << 30, 2), number),
        trust: Trust::load(None).unwrap(),
        certificates: Vec::new(),
        classifier: Classifier::built_in().unwrap(),
        spool,
        mesh: Mesh::new(peers.to_vec()),
        reports,
        seed: 1,
    }))
}

/// Both, with the tasks that make durable and that hear the other one.
pub(crate) fn pair(config: &Arc<Config>, spools: [Spool; 2]) -> [Rc<Shard>; 2] {
    let (channels, inboxes): (Vec<_>, Vec<_>) = (0..2).map(|_| mpsc::channel(8)).unzip();
    let mut number = 0..;
    let shards = spools.map(|spool| shard(config, number.next().unwrap(), spool, &channels));
    for (shard, inbox) in shards.iter().zip(inboxes) {
        glommio::spawn_local(commit::run(Rc::clone(shard))).detach();
        glommio::spawn_local(mesh::serve(Rc::clone(shard), inbox)).detach();
    }
    shards
}

/// Runs this with both; the first has a message in its spool, and neither is loaded.
pub(crate) fn with_one_message(test: impl AsyncFnOnce([Rc<Shard>; 2]) + 'static) {
    let root = tempfile::tempdir().unwrap();
    let config = two_shards(root.path());
    let mut spools = [0, 1].map(|n| spool(&root.path().join(n.to_string())));
    append(&mut spools[0], &Copy { shard: 0, recipients: &[1], moved: false });
    let executor = glommio::LocalExecutorBuilder::default().make().unwrap();
    executor.run(async move { test(pair(&config, spools)).await });
}

/// The one message of a spool.
pub(crate) fn only(spool: &Spool) -> MessageKey {
    let mut key = None;
    spool.for_each_message(|found, _| key = Some(found));
    key.unwrap()
}

/// The message of a shard, in its queue without a leased IP.
pub(crate) fn stranded(shard: &Shard) -> MessageKey {
    let (key, now, wall) = (only(&shard.spool.borrow()), clock::mono(), clock::wall());
    let one = Target { recipients: [0].into_iter().collect(), attempts: 0, next_try: None };
    let targets = [("one.test".to_owned(), one)];
    let mut queue = shard.queue.borrow_mut();
    queue.add(now, wall, New { key, lease: None, accepted: wall, expires: wall.plus(DAY), targets: &targets });
    while let Some(name) = queue.ask() {
        queue.resolved(now, wall, &name, Resolution::Site { key: "mx.one.test".into(), ttl: DAY });
    }
    key
}

/// Unsettled recipients of a spool.
pub(crate) fn open(spool: &Spool) -> Vec<String> {
    let mut all = Vec::new();
    spool.for_each_message(|_, view| {
        let meta = Meta::decode(view.meta).unwrap();
        let open = meta.recipients.iter().zip(view.recipients).filter(|(_, state)| !state.settled);
        all.extend(open.map(|(recipient, _)| recipient.address.to_owned()));
    });
    all.sort();
    all
}

/// Settings of both.
pub(crate) fn two_shards(root: &Path) -> Arc<Config> {
    let file = root.join("mailrail.toml");
    std::fs::write(&file, "hostname = \"mta.test\"\nshards = 2\n").unwrap();
    Arc::new(Config::load(&file).unwrap())
}

/// A spool with one message whose other segments are gone, so that nothing can be recorded in it.
pub(crate) fn full_spool(place: &Path) -> Spool {
    let mut before = spool(place);
    append(&mut before, &Copy { shard: 0, recipients: &[1], moved: false });
    let job = before.start_sync().unwrap();
    let result = job.paths().try_for_each(|path| std::fs::File::open(path)?.sync_data());
    before.finish_sync(job, result).unwrap();
    drop(before);
    for entry in std::fs::read_dir(place).unwrap() {
        let path = entry.unwrap().path();
        let is_used = std::fs::read(&path).unwrap().windows(5).any(|octets| octets == b"\r\nx\r\n");
        if path.extension().is_some_and(|ending| ending == "seg") && !is_used {
            std::fs::remove_file(path).unwrap();
        }
    }
    let full = Spool::open(RealDisk::open(place).unwrap(), mailrail_spool::Limits::tiny()).unwrap().0;
    assert!(!full.room_for_outcomes());
    full
}

/// The recipients of these numbers.
pub(crate) fn names(numbers: &[u8]) -> Vec<String> {
    numbers.iter().map(|n| format!("r{n}@one.test")).collect()
}
