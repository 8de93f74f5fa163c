//! HTTP/1: parses requests, encodes responses, serves connections.
//!
//! Only `server` knows of health: it passes requests to the [`crate::responder`]. All else here is
//! pure.

pub mod client;
pub mod connection;
mod request;
mod response;
pub(crate) mod server;

pub use request::{
    MAX_FIELDS, MAX_HEAD, MAX_TARGET, Method, Parsed, Rejection, Request, Version, parse,
};
pub use response::{CommonFields, Content, Persistence, Response, Status, encode};
