//! What the control socket serves, a file an endpoint, and the types that travel over it.

pub mod types;
