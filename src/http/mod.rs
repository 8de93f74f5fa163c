//! HTTP/1 as bytes: requests parsed from them, responses encoded to them.
//!
//! Pure: no socket, no clock, no allocation of its own. What a path means is [`crate::health`]'s, when a connection
//! closes is [`crate::conn`]'s.

mod known;
mod request;
mod response;

pub use known::Known;
pub use request::{
    MAX_FIELDS, MAX_HEAD, MAX_TARGET, Method, Parsed, Rejection, Request, Version, parse,
};
pub use response::{Common, Connection, Content, Response, Status, encode};
