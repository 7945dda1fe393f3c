//! Mail going out: what to send next is asked of the queue, connections are made and kept here.

pub(crate) mod connect;
pub(crate) mod dispatcher;
pub(crate) mod line;
pub(crate) mod open;
pub(crate) mod outcome;
pub(crate) mod sites;
