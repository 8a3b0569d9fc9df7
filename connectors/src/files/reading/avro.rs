//! Records of Avro's object container files, each of which is read as a whole. A place in a file is a number of records.

use std::collections::VecDeque;

use serde::de::DeserializeOwned;
use thalweg_common::failure::Failure;
use thalweg_common::record::Record;
use thalweg_runtime::batch::Batch;
use thalweg_runtime::operator::SourceContext;

use super::super::split::FileRange;
use super::access::Access;
use super::stream::{Next, Stream};
use super::{Bad, Progress, RangeReader, ReadFormat};
use crate::formats::{AvroFile, BadRecord};

/// Files of a schema.
#[derive(Debug)]
pub struct AvroFormat<T>(pub(super) AvroFile<T>);

impl<T> Clone for AvroFormat<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Record + DeserializeOwned> ReadFormat for AvroFormat<T> {
    type Out = T;

    fn keeps_whole(_: &str) -> bool {
        true
    }

    fn open(&self, range: &FileRange, context: &SourceContext) -> Result<Box<dyn RangeReader<T>>, Failure> {
        let access = Access::open(&range.path, context)?;
        let stream = Stream::new(access, &range.path, 0, range.length)?;
        let given = range.offset.unwrap_or(0);
        Ok(Box::new(AvroRecords {
            format: self.0.clone(),
            path: range.path.clone(),
            stream: Some(stream),
            bytes: Vec::new(),
            records: VecDeque::new(),
            given,
        }))
    }
}

/// The records of a file.
struct AvroRecords<T> {
    format: AvroFile<T>,
    path: String,
    /// Until the file has come.
    stream: Option<Stream>,
    bytes: Vec<u8>,
    records: VecDeque<T>,
    given: u64,
}

impl<T: Record + DeserializeOwned> RangeReader<T> for AvroRecords<T> {
    fn poll(&mut self, out: &mut Batch<T>, max: usize, bad: &mut Bad<'_>) -> Result<Progress, Failure> {
        while let Some(stream) = &mut self.stream {
            match stream.next(u64::MAX)? {
                Next::Bytes(bytes) => self.bytes.extend_from_slice(&bytes),
                Next::Waiting => return Ok(Progress::Waiting),
                Next::End => {
                    self.stream = None;
                    let file = std::mem::take(&mut self.bytes);
                    let mut skip = self.given;
                    let read = self.format.read(file.as_slice(), |record| {
                        if skip == 0 {
                            self.records.push_back(record);
                        }
                        skip = skip.saturating_sub(1);
                    });
                    if let Err(malformed) = read {
                        bad.meet(&malformed, |reason| BadRecord {
                            bytes: Vec::new(),
                            origin: self.path.clone(),
                            position: format!("record {}", self.given + self.records.len() as u64),
                            reason,
                        })?;
                    }
                }
            }
        }
        while out.len() < max {
            let Some(record) = self.records.pop_front() else { return Ok(Progress::End) };
            out.push(record);
            self.given += 1;
        }
        Ok(Progress::Read)
    }

    fn offset(&self) -> Option<u64> {
        Some(self.given)
    }
}
