//! Receivers that say later, close early, limit, or leave it in doubt: mail is tried again, and arrives.

use crate::world::{MESSAGE, World, host};
use mailrail_bench::model::{Failure, Fault, FaultKind, Greylist, Model, Stage};

fn world(model: Model) -> World {
    World::new(vec![model], |zone| zone.mx("one.test", 10, "mx.one.test").a("mx.one.test", host(0))).started()
}

#[test]
fn greylisted_mail_arrives_at_its_second_try_from_the_same_ip() {
    let mut world = world(Model { greylist: Some(Greylist { retry_after_ms: 500 }), ..Model::named("greylist") });
    let id = world.submit(&["b@one.test"], MESSAGE);
    let attempt = world.event("Attempt", "b@one.test");
    assert_eq!(attempt["delayType"], "General", "{attempt}");
    assert!(attempt["nextTry"].is_string(), "{attempt}");
    let delivery = world.event("Delivery", "b@one.test");
    assert_eq!(delivery["outgoingIp"], attempt["outgoingIp"], "a retry keeps its leased IP");
    assert!(delivery["attempt"].as_u64() >= Some(2), "{delivery}");
    let told = world.json(&["trace", &id, "--json"]);
    let kinds: Vec<_> = told["events"].as_array().unwrap().iter().map(|e| e["eventType"].as_str().unwrap()).collect();
    assert_eq!(&kinds[..3], ["Send", "Attempt", "DeliveryDelay"], "{kinds:?}");
}

#[test]
fn a_receiver_that_closes_after_a_few_messages_gets_them_all_without_delay() {
    let mut world = world(Model { close_after: Some(3), ..Model::named("close-after") });
    let mut client = world.connect();
    for _ in 0..20 {
        assert!(client.submit("a@sender.test", &["b@one.test"], MESSAGE).starts_with("250"));
    }
    world.deliveries(0, 20);
    world.drained();
    assert_eq!(world.sinks[0].recipients(), 20, "none twice");
    let deferred = world.events().iter().filter(|event| event["eventType"] == "Attempt").count();
    assert_eq!(deferred, 0, "a closed connection is no failed try");
}

#[test]
fn a_receiver_that_limits_connections_gets_all_over_those_it_allows() {
    let mut world = world(Model { connections_per_ip: Some(1), ..Model::named("limits") });
    for _ in 0..30 {
        world.submit(&["b@one.test"], MESSAGE);
    }
    world.deliveries(0, 30);
    world.drained();
    assert_eq!(world.sinks[0].recipients(), 30);
}

#[test]
fn mail_in_doubt_is_tried_again_and_recorded_as_such() {
    let fault = Fault { kind: FaultKind::TakeAndDrop, at: Stage::Dot, ratio: 1.0, times: Some(1) };
    let mut world = world(Model { faults: vec![fault], ..Model::named("drop-after-dot") });
    world.submit(&["b@one.test"], MESSAGE);
    world.event("Delivery", "b@one.test");
    let events = world.events();
    let of = |kind: &str| events.iter().filter(|event| event["eventType"] == kind).collect::<Vec<_>>();
    assert_eq!(of("Delivery").len(), 1);
    let tries = of("Attempt");
    assert!(tries.len() == 1 && tries[0]["inDoubt"] == true, "{tries:?}");
    assert_eq!(world.sinks[0].recipients(), 2, "the receiver had taken it the first time");
    assert_eq!(world.json(&["status", "--json"])["totals"]["inDoubt"], 1);
}

#[test]
fn one_refused_recipient_does_not_hold_up_the_others() {
    let refuse = Failure { at: Stage::Rcpt, ratio: 1.0, reply: "450 4.2.1 busy".into() };
    let models = vec![Model::named("accept"), Model { failures: vec![refuse], ..Model::named("busy") }];
    let mut world = World::new(models, |zone| {
        zone.mx("one.test", 10, "mx.one.test")
            .a("mx.one.test", host(0))
            .mx("two.test", 10, "mx.two.test")
            .a("mx.two.test", host(1))
    })
    .started();
    world.submit(&["b@one.test", "b@two.test"], MESSAGE);
    world.event("Delivery", "b@one.test");
    let attempt = world.event("Attempt", "b@two.test");
    assert_eq!(attempt["status"], "4.2.1", "{attempt}");
    let queue = world.json(&["queue", "--json"]);
    assert_eq!(queue["queued"], 1, "{queue}");
}

#[test]
fn mail_that_grows_too_old_expires_with_a_dsn() {
    let refuse = Failure { at: Stage::Mail, ratio: 1.0, reply: "451 4.3.0 not today".into() };
    let models = vec![Model { failures: vec![refuse], ..Model::named("never") }, Model::named("accept")];
    let mut world = World::new(models, |zone| {
        zone.mx("one.test", 10, "mx.one.test")
            .a("mx.one.test", host(0))
            .mx("sender.test", 10, "mx.sender.test")
            .a("mx.sender.test", host(1))
    });
    world.configure(&[("[delivery]", "max_age = \"3s\"")]);
    world.start();
    world.apply(crate::world::FLEET);
    world.submit(&["b@one.test"], MESSAGE);
    world.event("Expired", "b@one.test");
    let dsn = world.deliveries(1, 1)[0].clone();
    assert!(dsn.sender.is_empty() && dsn.text().contains("Action: failed"), "{}", dsn.text());
    world.drained();
}
