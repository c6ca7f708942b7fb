//! The HTTP API as programs see it: fleet 1.0's exchanges, the documents that describe it, and foreign clients made of those.

mod clients;
mod documents;
mod exchanges;
mod fencing;
mod imports;
mod journals;
mod limits;
mod odd_files;
mod server;
