//! Decodes the messages of a stream of bytes: for sources that give bytes, and where parsing is to run with another parallelism than
//! the source ("few shards": source, `rebalance`, decode).

use thalweg_common::failure::Failure;
use thalweg_runtime::batch::Batch;
use thalweg_runtime::operator::OpenContext;
use thalweg_runtime::process::{Process, ProcessContext};

use super::{BadRecord, BadRecords, Decoder};

/// A function for `DataStream::process` that decodes messages.
///
/// ```
/// use thalweg_connectors::formats::{BadRecord, BadRecords, Decoding, Text};
/// use thalweg_runtime::operators;
/// use thalweg_runtime::side_output::OutputTag;
/// use thalweg_runtime::testing::{OperatorHarness, Setup};
///
/// const UNREADABLE: OutputTag<BadRecord> = OutputTag::new("unreadable");
///
/// let decode = Decoding::new(Text).bad_records(BadRecords::DeadLetter(UNREADABLE));
/// let factory = operators::process::<Vec<u8>, _>(decode);
/// let mut harness = OperatorHarness::<Vec<u8>, String>::open(factory.as_ref(), Setup::default()).unwrap();
/// harness.push(vec![b"text".to_vec(), b"\xff".to_vec()]).unwrap();
/// assert_eq!(harness.output(), ["text"]);
/// assert_eq!(harness.side_output(&UNREADABLE).records()[0].bytes, b"\xff");
/// ```
#[derive(Debug, Clone)]
pub struct Decoding<D: Decoder> {
    decoder: D,
    policy: BadRecords,
    decoded: Batch<D::Out>,
    opened: Option<OpenContext>,
}

impl<D: Decoder> Decoding<D> {
    /// Decodes by this format; a bad record makes the job fail.
    pub fn new(decoder: D) -> Self {
        Self { decoder, policy: BadRecords::default(), decoded: Batch::default(), opened: None }
    }

    /// What becomes of bad records.
    #[must_use]
    pub fn bad_records(mut self, policy: BadRecords) -> Self {
        self.policy = policy;
        self
    }
}

impl<D: Decoder, M: AsRef<[u8]>> Process<M> for Decoding<D> {
    type Out = D::Out;

    fn open(&mut self, context: &OpenContext) -> Result<(), Failure> {
        self.opened = Some(context.clone());
        Ok(())
    }

    fn on_record(&mut self, message: M, context: &mut ProcessContext<'_, D::Out>) -> Result<(), Failure> {
        let bytes = message.as_ref();
        if let Err(malformed) = self.decoder.decode(bytes, &mut self.decoded) {
            let Some(opened) = &self.opened else {
                return Err(Failure::internal("a decoder was used before it was opened"));
            };
            let describe = |reason| BadRecord {
                bytes: bytes.to_vec(),
                origin: opened.operator_name.clone(),
                position: String::new(),
                reason,
            };
            let met = self.policy.meet(&opened.metrics, &malformed, describe)?;
            if let (Some(bad), BadRecords::DeadLetter(tag)) = (met, &self.policy) {
                context.output(tag, bad);
            }
        }
        self.decoded.drain().for_each(|record| context.emit(record));
        Ok(())
    }
}
