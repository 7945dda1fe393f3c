//! This server, as it comes: its defaults, one leased IP for each shard.

use super::peer::{Dkim, Own, Place, Queue, Running};
use crate::{cmd::Failure, server::Server};
use mailrail_engine::control::api::types::StatusReport;
use std::{cell::RefCell, fs, rc::Rc, thread, time::Instant};

/// Memory that the ceiling counts for a queued message, in octets, rounded up.
const QUEUED: u64 = 512;

/// Starts it.
pub(super) fn start(place: &Place<'_>, own: &Own) -> Result<Running, Failure> {
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get() as u16);
    let shards = own.shards.unwrap_or(cores);
    let lines = own.lines.map_or_else(String::new, |lines| format!("connections = {lines}\n"));
    let (listen, sink) = (place.listen, place.sink);
    let config = place.directory.join("mailrail.toml");
    // A queue beyond what the default lets a server hold is measured, too.
    let memory = (2 << 30) + own.queued * QUEUED;
    let text = format!(
        "hostname = \"mta.example.com\"\ndata_dir = \"data\"\nshards = {shards}\n\n\
         [limits]\nmemory = {memory}\n\n\
         [[listener]]\naddress = \"{listen}\"\nallow = [\"127.0.0.0/8\"]\n\n\
         [delivery]\nallow_private = true\nmax_age = \"5d\"\n{lines}\n\
         [delivery.retry]\nfirst = \"24h\"\nmax = \"24h\"\n\n[[route]]\ndomain = \"*\"\nhosts = [\"{sink}\"]\n"
    );
    fs::write(&config, text)?;
    let mut fleet = String::from("[[pool]]\nname = \"main\"\n");
    for shard in 0..shards {
        let address = format!("127.0.{}.{}", 10 + shard / 200, 1 + shard % 200);
        fleet += &format!(
            "\n[[ip]]\naddress = \"{address}\"\nhelo = \"out.example.com\"\npool = \"main\"\nshard = {shard}\n"
        );
    }
    if place.dkim != Dkim::None {
        let pem = fs::read_to_string(place.key)?;
        fleet += &format!("\n[[dkim]]\ndomain = \"example.com\"\nselector = \"s1\"\nkey_pem = '''\n{pem}'''\n");
    }
    let server = Server::start(&config)?;
    server.apply(fleet)?;
    let pid = server.pid();
    let server = Rc::new(RefCell::new(server));
    let ask = |read: fn(StatusReport) -> u64| {
        let server = Rc::clone(&server);
        Box::new(move || server.borrow().status().ok().map(read))
    };
    let (stopped, restarted) = (Rc::clone(&server), Rc::clone(&server));
    let queue = Queue {
        deferred: ask(|status| status.totals.deferred),
        queued: ask(|status| status.queued),
        again: Box::new(move || {
            restarted.borrow_mut().stop()?;
            let began = Instant::now();
            restarted.replace(Server::spawn(&config)?);
            Ok((vec![restarted.borrow().pid()], began))
        }),
    };
    Ok(Running {
        pids: vec![pid],
        stop: Box::new(move || stopped.borrow_mut().stop()),
        syncs: Some(ask(|status| status.totals.syncs)),
        queue: Some(queue),
    })
}
