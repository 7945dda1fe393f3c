//! Admission: what an account may send, and to whom it is not sent.

pub mod quota;
pub mod suppress;
mod window;
