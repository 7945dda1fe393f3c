//! Shaping per provider: what a large receiver is sent by one leased IP, and how that yields to what its replies say.
//!
//! Many sites, one receiver: sites whose first mail host has a provider's suffix share its limits. The [`table::Table`] says
//! what these are, [`reply`] which replies ask for less, and a [`standing::Shape`], one a (leased IP, provider), what holds now.

pub mod entry;
pub mod reply;
pub mod standing;
pub mod table;
