//! Reverse DNS of the leased IPs: what does not fit is shown until it is mended, and refused where `strict_rdns` says so.
//! *One per host, control thread.*

use super::{
    api::{error::ApiError, state::State},
    fleet::{Fleet, Item},
};
use futures_util::{StreamExt, stream};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// IPs looked up at a time.
const AT_A_TIME: usize = 16;
/// How often what fits is looked up again, and what does not.
const AGAIN: (Duration, Duration) = (Duration::from_secs(3600), Duration::from_secs(300));
/// IPs that a refusal names.
const SHOWN: usize = 5;

/// A leased IP and its EHLO name.
type Named = (IpAddr, String);

/// See the module.
#[derive(Default)]
pub(crate) struct Rdns {
    seen: Mutex<BTreeMap<Named, (Option<String>, Instant)>>,
    changed: Notify,
}

impl Rdns {
    fn seen(&self) -> MutexGuard<'_, BTreeMap<Named, (Option<String>, Instant)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was wrong when it was looked up last.
    pub(crate) fn wrong(&self, ip: IpAddr, helo: &str) -> Option<String> {
        self.seen().get(&(ip, helo.to_owned()))?.0.clone()
    }

    /// There may be other IPs.
    pub(crate) fn look_again(&self) {
        self.changed.notify_one();
    }

    async fn look(&self, state: &State, named: Named) -> Option<String> {
        let wrong = state.resolver.reverse(named.0, &named.1).await;
        let known = self.seen().insert(named.clone(), (wrong.clone(), Instant::now()));
        match (known.and_then(|(wrong, _)| wrong), &wrong) {
            (None, Some(wrong)) => tracing::warn!(ip = %named.0, helo = named.1, "reverse DNS: {wrong}"),
            (Some(_), None) => tracing::info!(ip = %named.0, helo = named.1, "reverse DNS is as it should be"),
            _ => {}
        }
        wrong
    }

    /// Of these, those whose look-up is out of date; what is not among them is forgotten.
    fn due(&self, all: &[Named]) -> Vec<Named> {
        let mut seen = self.seen();
        seen.retain(|named, _| all.contains(named));
        let fresh = |named: &Named| {
            let age = |(wrong, at): &(Option<String>, Instant)| {
                at.elapsed() < if wrong.is_some() { AGAIN.1 } else { AGAIN.0 }
            };
            seen.get(named).is_some_and(age)
        };
        all.iter().filter(|named| !fresh(named)).cloned().collect()
    }
}

/// The IPs of a fleet that others than this host can see.
fn named(fleet: &Fleet) -> Vec<Named> {
    let each = fleet.of("ip").filter_map(|(address, item)| match item {
        Item::Ip { helo, .. } => Some((address.parse().ok()?, helo.clone())),
        _ => None,
    });
    each.filter(|(ip, _): &Named| !ip.is_loopback()).collect()
}

/// Keeps what is known up to date, as long as the runtime lives.
pub(super) async fn watch(state: Arc<State>) {
    loop {
        let due = state.rdns.due(&named(&state.in_force().fleet));
        stream::iter(due)
            .for_each_concurrent(AT_A_TIME, |named| async { drop(state.rdns.look(&state, named).await) })
            .await;
        let _ = tokio::time::timeout(AGAIN.1, state.rdns.changed.notified()).await;
    }
}

/// With `strict_rdns`: IPs that are new, or have another name, must fit.
///
/// # Errors
/// Those that do not.
pub(crate) async fn check(state: &State, before: &Fleet, wanted: &Fleet) -> Result<(), ApiError> {
    if !wanted.strict_rdns() {
        return Ok(());
    }
    let had = named(before);
    let fresh = named(wanted).into_iter().filter(|named| !had.contains(named));
    let looked = stream::iter(fresh).map(|named| async move {
        let wrong = state.rdns.look(state, named.clone()).await;
        wrong.map(|wrong| format!("{}: {wrong}", named.0))
    });
    let wrong: Vec<String> = looked.buffered(AT_A_TIME).filter_map(|wrong| async { wrong }).collect().await;
    if wrong.is_empty() {
        return Ok(());
    }
    let more = if wrong.len() > SHOWN { format!("; and {} more", wrong.len() - SHOWN) } else { String::new() };
    let shown = wrong[..wrong.len().min(SHOWN)].join("; ");
    Err(ApiError::bad(format!("reverse DNS does not fit, and strict_rdns = true: {shown}{more}")))
}

/// What is wrong with the reverse DNS of a fleet's IPs, without a server: a line each.
pub(super) async fn findings(fleet: &Fleet, resolver: &super::resolver::Resolver) -> Vec<String> {
    let looked = stream::iter(named(fleet)).map(|(ip, helo)| async move {
        let wrong = resolver.reverse(ip, &helo).await;
        wrong.map(|wrong| format!("[[ip]] {ip}: reverse DNS: {wrong}"))
    });
    looked.buffered(AT_A_TIME).filter_map(|wrong| async { wrong }).collect().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        control::{fleet::STRICT_RDNS, post::Post, resolver::Resolver, store::Store, tests::config},
        link,
    };
    use mailrail_bench::dns::{DnsServer, Zone};

    fn ip(helo: &str) -> Item {
        let (helo, pool) = (helo.to_owned(), "main".to_owned());
        Item::Ip { helo, pool, shard: 0, account: None, warm: false, reason: None, plan: None }
    }

    #[tokio::test]
    async fn what_does_not_fit_is_shown_and_refused_only_where_it_is_asked_for() {
        let zone = Zone::new().ptr("192.0.2.1".parse().unwrap(), "out1.a.test").a("out1.a.test", [192, 0, 2, 1].into());
        let dns = DnsServer::start(zone).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path(), &format!("[dns]\nservers = [\"{}\"]\n", dns.addr()));
        let (control, _shards) = link::link(1);
        let post = Arc::new(Post::new(control.commands));
        let resolver = Arc::new(Resolver::new(Arc::clone(&config), Arc::clone(&post)).unwrap());
        let store = Store::open(&directory.path().join("control.db")).unwrap();
        let (told, _warnings) = tokio::sync::mpsc::unbounded_channel();
        let state = State::new(config, post, Vec::new(), store, resolver, told).unwrap();
        let mut wanted = Fleet::default();
        for (address, helo) in [("192.0.2.1", "out1.a.test"), ("192.0.2.2", "out2.a.test"), ("127.0.0.1", "x.a.test")] {
            wanted.put(address, ip(helo));
        }
        assert!(check(&state, &Fleet::default(), &wanted).await.is_ok(), "not asked for");
        wanted.put(STRICT_RDNS, Item::Setting { value: "true".into() });
        let refused = check(&state, &Fleet::default(), &wanted).await.unwrap_err();
        let expected = "reverse DNS does not fit, and strict_rdns = true: 192.0.2.2: it has no PTR record; receivers expect \
                        one that names out2.a.test";
        assert_eq!(refused.message(), expected);
        assert!(check(&state, &wanted, &wanted).await.is_ok(), "what is leased stays leased");
        assert!(state.rdns.wrong("192.0.2.2".parse().unwrap(), "out2.a.test").is_some());
        assert_eq!(state.rdns.wrong("192.0.2.1".parse().unwrap(), "out1.a.test"), None);
        assert_eq!(state.rdns.due(&named(&wanted)), [], "both are known now");
        assert_eq!(named(&wanted).len(), 2, "of loopback nobody asks");
    }
}
