//! Receivers that break the protocol: every way of it ends in a defined outcome, and the mail arrives once they behave.

use crate::world::{MESSAGE, World, host};
use mailrail_bench::model::{Fault, FaultKind, Model, Stage};

/// Misbehaves twice, then takes the mail.
fn survives(kind: FaultKind, at: Stage) {
    let fault = Fault { kind, at, ratio: 1.0, times: Some(2) };
    let mut world = World::new(vec![Model { faults: vec![fault], ..Model::named("hostile") }], |zone| {
        zone.mx("one.test", 10, "mx.one.test").a("mx.one.test", host(0))
    });
    world.configure(&[("[delivery.retry]", "first = \"100ms\"\nmax = \"200ms\"")]);
    world.start();
    world.apply(crate::world::FLEET);
    world.submit(&["b@one.test"], MESSAGE);
    world.event("Delivery", "b@one.test");
    assert_eq!(world.sinks[0].recipients(), 1, "{kind:?} at {at:?}: once");
}

#[test]
fn early_close() {
    for at in [Stage::Connect, Stage::Ehlo, Stage::Mail, Stage::Rcpt, Stage::Data, Stage::Dot] {
        survives(FaultKind::Drop, at);
    }
}

#[test]
fn close_in_the_middle_of_the_content() {
    survives(FaultKind::DropMidData, Stage::Data);
}

#[test]
fn replies_that_are_no_smtp() {
    for at in [Stage::Connect, Stage::Ehlo, Stage::Mail, Stage::Rcpt, Stage::Data, Stage::Dot] {
        survives(FaultKind::MalformedReply, at);
    }
}

#[test]
fn replies_that_never_end() {
    for at in [Stage::Connect, Stage::Ehlo, Stage::Mail, Stage::Dot] {
        survives(FaultKind::EndlessReply, at);
    }
}

#[test]
fn shutdown_at_any_point() {
    for at in [Stage::Connect, Stage::Ehlo, Stage::Mail, Stage::Rcpt, Stage::Data, Stage::Dot] {
        survives(FaultKind::Shutdown, at);
    }
}
