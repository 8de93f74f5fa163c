//! HTTP/1 as bytes: requests parsed from them, responses encoded to them.
//!
//! What a path means is [`crate::health`]'s.

pub mod client;
pub mod connection;
mod request;
mod response;
pub(crate) mod server;

pub use request::{
    MAX_FIELDS, MAX_HEAD, MAX_TARGET, Method, Parsed, Rejection, Request, Version, parse,
};
pub use response::{CommonFields, Content, Persistence, Response, Status, encode};
