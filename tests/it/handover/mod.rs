//! One listening socket, from livelet to livelet: no connection is lost, and whatever dies, exactly one serves.

mod chain;
mod crashes;
mod peer;

/// Not 127.0.0.1, where another test's outgoing connection could be given the port.
const ADDR: &str = "127.0.0.8:0";
