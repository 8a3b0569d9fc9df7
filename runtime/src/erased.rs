//! Typed things whose type is erased, and checked again where they are used.
//!
//! The builder of chains is not generic: links and channel ends travel as these. A mismatch says that the graph and its code
//! differ, which no well-formed job can bring about; it fails the task and never yields a wrong result.

use std::any::{Any, type_name};

use thalweg_common::failure::Failure;
use thalweg_common::record::Record;

use crate::exchange::{Receiver, Sender};
use crate::link::Link;

/// A link whose type is erased.
pub struct AnyLink(Erased);

impl AnyLink {
    /// Erases the type of a link.
    pub fn new<T: 'static>(link: Box<dyn Link<T>>) -> Self {
        Self(Erased::new::<T, _>(link))
    }

    /// The link, which must take records of `T`.
    ///
    /// # Errors
    /// When it takes others.
    pub fn typed<T: 'static>(self) -> Result<Box<dyn Link<T>>, Failure> {
        self.0.typed::<T, _>("a link")
    }
}

/// A sender whose type is erased.
pub(crate) struct AnySender(Erased);

impl AnySender {
    pub(crate) fn new<T: Record>(sender: Sender<T>) -> Self {
        Self(Erased::new::<T, _>(sender))
    }

    pub(crate) fn typed<T: Record>(self) -> Result<Sender<T>, Failure> {
        self.0.typed::<T, _>("a channel")
    }
}

/// A receiver whose type is erased.
pub(crate) struct AnyReceiver(Erased);

impl AnyReceiver {
    pub(crate) fn new<T: Record>(receiver: Receiver<T>) -> Self {
        Self(Erased::new::<T, _>(receiver))
    }

    pub(crate) fn typed<T: Record>(self) -> Result<Receiver<T>, Failure> {
        self.0.typed::<T, _>("a channel")
    }
}

/// Something that is about records of one type.
struct Erased {
    value: Box<dyn Any + Send>,
    records: &'static str,
}

impl Erased {
    fn new<T, V: Send + 'static>(value: V) -> Self {
        Self { value: Box::new(value), records: type_name::<T>() }
    }

    fn typed<T, V: 'static>(self, what: &str) -> Result<V, Failure> {
        let found = self.records;
        self.value.downcast().map(|value| *value).map_err(|_| mismatch(what, found, type_name::<T>()))
    }
}

/// The failure of something that carries records of another type than what it is connected with.
pub(crate) fn mismatch(what: &str, found: &str, expected: &str) -> Failure {
    let message = format!(
        "{what} of `{found}` is connected where `{expected}` flows: the job's graph and its code differ; \
         build the job again with one version of thalweg"
    );
    Failure::internal(message).permanent()
}
