//! Answers of the responder on the wire, request by request.

mod bodies;
mod client;
mod connections;
mod health_log;
mod messages;
mod probers;
mod time;
