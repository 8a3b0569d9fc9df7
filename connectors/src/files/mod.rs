//! Text files and directories: a source that reads lines, and a transactional sink that writes them.

mod error;
mod listing;
mod part;
mod reader;
mod sink;
mod source;
mod split;

pub use sink::TextFileSink;
pub use source::TextFileSource;
