//! Files in directories and on S3: sources, and sinks whose files are visible when a checkpoint covers them.
//!
//! [`FileSource`] and [`FileSink`] have formats, buckets and S3; [`TextFileSource`] and [`TextFileSink`] are the short way to lines of text.

mod enumerator;
mod error;
mod listing;
mod part;
mod reader;
mod reading;
mod sink;
mod source;
mod split;
mod text_sink;

pub use enumerator::{FoundFiles, TextFileEnumerator};
pub use reading::{FileReader, FileSource, LineFormat, ReadFormat};
pub use sink::{
    BucketContext, Bulk, DatePattern, FileCommittable, FileSink, PartBytes, PartFormat, RollingPolicy, Rows,
};
pub use source::{TextFileReader, TextFileSource};
pub use split::FileRange;
pub use text_sink::{PendingPart, TextFileSink};
