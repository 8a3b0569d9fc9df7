//! REST over a real socket: what is answered is compared with the whole shape that Flink has.

pub mod http;
mod reads;
