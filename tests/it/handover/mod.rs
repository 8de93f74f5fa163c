//! One listening socket, from livelet to livelet: no connection is lost, and whatever dies, exactly
//! one serves.

mod chain;
mod crashes;
mod peer;

/// Address of these tests. On 127.0.0.1 another test's outgoing connection could get the port.
const ADDR: &str = "127.0.0.8:0";
