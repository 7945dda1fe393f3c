//! This server, as it comes: its defaults, one leased IP for each shard.

use super::peer::{Dkim, Place, Running};
use crate::{cmd::Failure, server::Server};
use std::{cell::RefCell, fs, rc::Rc, thread};

/// Starts it.
pub(super) fn start(place: &Place<'_>, shards: Option<u16>) -> Result<Running, Failure> {
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get() as u16);
    let shards = shards.unwrap_or(cores);
    let (listen, sink) = (place.listen, place.sink);
    let config = place.directory.join("mailrail.toml");
    let text = format!(
        "hostname = \"mta.example.com\"\ndata_dir = \"data\"\nshards = {shards}\n\n\
         [[listener]]\naddress = \"{listen}\"\nallow = [\"127.0.0.0/8\"]\n\n\
         [delivery]\nallow_private = true\n\n[[route]]\ndomain = \"*\"\nhosts = [\"{sink}\"]\n"
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
    let asked = Rc::clone(&server);
    Ok(Running {
        pids: vec![pid],
        stop: Box::new(move || server.borrow_mut().stop()),
        syncs: Some(Box::new(move || asked.borrow().status().ok().map(|status| status.totals.syncs))),
    })
}
