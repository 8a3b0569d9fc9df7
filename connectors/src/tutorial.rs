//! How to write a connector: a source and a sink in about a hundred lines, for an outside that numbers its records.
//!
//! A connector keeps four things. Where it was is part of checkpoints, so that an attempt that begins again loses and doubles nothing. It
//! never makes its task wait: requests are begun and polled ([`Io`](thalweg_runtime::io::Io)). It says what it has under way, so that its task
//! stops reading when it is full and ends only when nothing is. Its failures say a cause and a cure.
//!
//! The outside of this example is a service with boxes of numbered texts, to which a real connector would connect.
//!
//! # The source
//!
//! A box is a split: its name, and how far it is read. The enumerator finds boxes, on a thread of its own where it may wait; the runtime deals
//! them to readers; a reader reads those that it has.
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::sync::{Arc, Mutex};
//! use std::time::Duration;
//!
//! use thalweg_common::Record;
//! use thalweg_common::failure::Failure;
//! use thalweg_runtime::batch::Batch;
//! use thalweg_runtime::io::BoxedRequests;
//! use thalweg_runtime::operator::{Sink, SinkContext, SourceContext, SourceStatus, UnderWay};
//! use thalweg_runtime::split::{Discovery, EnumeratedSource, Next, SourceReader, SourceSplit, SplitEnumerator};
//!
//! /// The service: boxes by name.
//! #[derive(Clone, Default)]
//! struct Service(Arc<Mutex<BTreeMap<String, Vec<String>>>>);
//!
//! impl Service {
//!     async fn read(&self, name: &str, from: usize) -> Vec<String> {
//!         self.0.lock().unwrap().get(name).map_or_else(Vec::new, |texts| texts[from..].to_vec())
//!     }
//!
//!     async fn append(&self, name: &str, texts: Vec<String>) {
//!         self.0.lock().unwrap().entry(name.to_owned()).or_default().extend(texts);
//!     }
//! }
//!
//! #[derive(Record, Clone)]
//! # #[record(crate = thalweg_common)]
//! struct BoxSplit { name: String, position: u64 }
//!
//! impl SourceSplit for BoxSplit {
//!     fn split_id(&self) -> String { self.name.clone() }
//! }
//!
//! struct BoxEnumerator { service: Service, known: Vec<String> }
//!
//! impl SplitEnumerator for BoxEnumerator {
//!     type Split = BoxSplit;
//!     // Which boxes were found: the same state finds the same boxes.
//!     type State = Vec<String>;
//!
//!     fn discover(&mut self) -> Result<Discovery<BoxSplit>, Failure> {
//!         let mut names: Vec<String> = self.service.0.lock().unwrap().keys().cloned().collect();
//!         names.retain(|name| !self.known.contains(name));
//!         self.known.extend(names.iter().cloned());
//!         let splits = names.into_iter().map(|name| BoxSplit { name, position: 0 }).collect();
//!         Ok(Discovery { splits, next: Next::After(Duration::from_millis(10)) })
//!     }
//!
//!     fn state(&self) -> Vec<String> { self.known.clone() }
//! }
//!
//! struct BoxReader { service: Service, boxes: Vec<BoxSplit>, requests: BoxedRequests<(String, Vec<String>)> }
//!
//! impl SourceReader for BoxReader {
//!     type Out = String;
//!     type Split = BoxSplit;
//!
//!     fn add_splits(&mut self, splits: Vec<BoxSplit>) -> Result<(), Failure> {
//!         self.boxes.extend(splits);
//!         Ok(())
//!     }
//!
//!     fn poll(&mut self, out: &mut Batch<String>, max: usize) -> Result<SourceStatus, Failure> {
//!         // One request for each box at a time; whatever comes beyond `max` is read again with the next one.
//!         while let Some((name, texts)) = self.requests.answer() {
//!             let Some(open) = self.boxes.iter_mut().find(|open| open.name == name) else { continue };
//!             let room = max.saturating_sub(out.len()).min(texts.len());
//!             open.position += room as u64;
//!             out.extend(texts.into_iter().take(room));
//!         }
//!         if self.requests.is_empty() {
//!             for BoxSplit { name, position } in self.boxes.clone() {
//!                 let service = self.service.clone();
//!                 self.requests.begin(|| Box::pin(async move {
//!                     let texts = service.read(&name, position as usize).await;
//!                     (name, texts)
//!                 }));
//!             }
//!         }
//!         // Answers wake the task; a box that has nothing is asked again after a while.
//!         Ok(if out.is_empty() { SourceStatus::Idle { retry_after: Duration::from_millis(5) } } else { SourceStatus::Ready })
//!     }
//!
//!     fn snapshot(&mut self) -> Result<Vec<BoxSplit>, Failure> { Ok(self.boxes.clone()) }
//! }
//!
//! #[derive(Clone)]
//! struct Boxes(Service);
//!
//! impl EnumeratedSource for Boxes {
//!     type Out = String;
//!     type Split = BoxSplit;
//!     type Reader = BoxReader;
//!     type Enumerator = BoxEnumerator;
//!
//!     fn enumerator(&self, _: &SourceContext, known: Option<Vec<String>>) -> Result<BoxEnumerator, Failure> {
//!         Ok(BoxEnumerator { service: self.0.clone(), known: known.unwrap_or_default() })
//!     }
//!
//!     fn reader(&self, context: &SourceContext) -> Result<BoxReader, Failure> {
//!         Ok(BoxReader { service: self.0.clone(), boxes: Vec::new(), requests: context.io.requests() })
//!     }
//!
//!     // Boxes never end, so each must have a reader.
//!     fn splits_per_reader(&self) -> u64 { u64::MAX }
//! }
//! # // The sink, as in the next example.
//! # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
//! # let service = Service::default();
//! # runtime.block_on(service.append("a", vec!["1".into(), "2".into()]));
//! # let io = thalweg_runtime::io::Io::on(runtime.handle().clone());
//! # let setup = thalweg_runtime::testing::Setup { io: io.clone(), ..Default::default() };
//! # let mut harness = thalweg_runtime::testing::EnumeratedHarness::open_in(setup, Boxes(service.clone()), 2, None).unwrap();
//! # let mut read = Vec::new();
//! # while read.len() < 2 { harness.settle().unwrap(); read.extend(harness.output()); harness.advance(Duration::from_millis(10)); }
//! # assert_eq!(read, ["1", "2"]);
//!
//! // The sink. At least once: what the service has not taken at a barrier is the committables of that barrier.
//! #[derive(Default)]
//! struct Writing { unsent: Vec<String>, under_way: usize, requests: Option<BoxedRequests<usize>> }
//!
//! struct BoxSink { service: Service, name: String, writing: Writing }
//!
//! impl Clone for BoxSink {
//!     fn clone(&self) -> Self {
//!         Self { service: self.service.clone(), name: self.name.clone(), writing: Writing::default() }
//!     }
//! }
//!
//! impl Sink<String> for BoxSink {
//!     type Committable = String;
//!
//!     fn open(&mut self, context: &SinkContext) -> Result<(), Failure> {
//!         self.writing.requests = Some(context.io.requests());
//!         Ok(())
//!     }
//!
//!     // Behind a restore: what was unsent comes first.
//!     fn recover(&mut self, prepared: &[String]) -> Result<(), Failure> {
//!         self.writing.unsent.extend_from_slice(prepared);
//!         Ok(())
//!     }
//!
//!     fn write(&mut self, batch: &mut Batch<String>) -> Result<(), Failure> {
//!         self.writing.unsent.extend(batch.drain());
//!         Ok(())
//!     }
//!
//!     fn advance(&mut self) -> Result<UnderWay, Failure> {
//!         let Writing { unsent, under_way, requests: Some(requests) } = &mut self.writing else {
//!             return Err(Failure::internal("the sink is not open"));
//!         };
//!         loop {
//!             // One request at a time, with all that waits.
//!             if *under_way == 0 && !unsent.is_empty() {
//!                 *under_way = unsent.len();
//!                 let (service, name, texts) = (self.service.clone(), self.name.clone(), unsent.clone());
//!                 requests.begin(|| Box::pin(async move {
//!                     let count = texts.len();
//!                     service.append(&name, texts).await;
//!                     count
//!                 }));
//!             }
//!             let Some(taken) = requests.answer() else { break };
//!             unsent.drain(..taken);
//!             *under_way = 0;
//!         }
//!         Ok(UnderWay { records: unsent.len(), is_full: unsent.len() > 10_000, again_at: None })
//!     }
//!
//!     fn prepare(&mut self, _: u64) -> Result<Vec<String>, Failure> { Ok(self.writing.unsent.clone()) }
//! }
//! # use thalweg_runtime::{operators, testing::{OperatorHarness, Setup}};
//! # let sink = operators::sink(BoxSink { service: service.clone(), name: "b".into(), writing: Writing::default() });
//! # let mut sink = OperatorHarness::<String>::open_sink(sink.as_ref(), Setup { io, ..Setup::default() }).unwrap();
//! # sink.push(vec!["3".into()]).unwrap();
//! # sink.flush().unwrap();
//! # assert_eq!(service.0.lock().unwrap()["b"], ["3"]);
//! ```
//!
//! # The rest
//!
//! - Splits of which one reader must be the owner say so with [`pin`](thalweg_runtime::split::SourceSplit::pin); those that may be read only behind
//!   others are given out by an enumerator that [tracks](thalweg_runtime::split::SplitEnumerator::TRACKS_FINISHED) which are at their end.
//! - A reader that [tells its splits](thalweg_runtime::split::SourceReader::TELLS_SPLITS) has watermarks for each of them.
//! - Sinks with transactions prepare them at the barrier and commit them when the checkpoint is durable: [`Sink`](thalweg_runtime::operator::Sink).
//! - What is decided (when to ask, what to repeat, what goes with which request) belongs into plain functions without clock and network, as
//!   in the module of Kinesis, where tables and random tests reach every corner.
//! - The feature `conformance` has the checks that every connector must pass.
