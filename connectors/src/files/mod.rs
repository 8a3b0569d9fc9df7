//! Text files and directories: a source that reads lines, and a transactional sink that writes them.

mod enumerator;
mod error;
mod listing;
mod part;
mod reader;
mod sink;
mod source;
mod split;

pub use enumerator::{FoundFiles, TextFileEnumerator};
pub use sink::{PendingPart, TextFileSink};
pub use source::{TextFileReader, TextFileSource};
pub use split::FileRange;
