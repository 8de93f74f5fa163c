//! HTTP/1 as bytes: parses requests, encodes responses, serves connections.
//!
//! The meaning of a path is a matter of [`crate::health`].

pub mod client;
pub mod connection;
mod request;
mod response;
pub(crate) mod server;

pub use request::{
    MAX_FIELDS, MAX_HEAD, MAX_TARGET, Method, Parsed, Rejection, Request, Version, parse,
};
pub use response::{CommonFields, Content, Persistence, Response, Status, encode};
