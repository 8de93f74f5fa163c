//! HTTP/1 without knowledge of health: parses requests, encodes responses, serves connections.
//!
//! [`crate::health`] decides the meaning of a path.

pub mod client;
pub mod connection;
mod request;
mod response;
pub(crate) mod server;

pub use request::{
    MAX_FIELDS, MAX_HEAD, MAX_TARGET, Method, Parsed, Rejection, Request, Version, parse,
};
pub use response::{CommonFields, Content, Persistence, Response, Status, encode};
