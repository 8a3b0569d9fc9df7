//! The setters that sinks share, with their documentation: a macro, because they are methods of each sink.

/// Makes the setters of a sink with the fields `options` and `aws` and a `writer` of such entries, which `connect` connects anew.
macro_rules! setters {
    ($sink:ident, $entry:ty) => {
        impl<T> $sink<T> {
            /// Fails the job when a record is refused: `sink.fail-on-error`.
            #[must_use]
            pub fn fail_on_error(mut self) -> Self {
                self.options.fails_on_error = true;
                self
            }

            /// How long a record may be refused, ten minutes by default; then the task fails: `sink.delivery.timeout`, in milliseconds.
            #[must_use]
            pub fn delivery_timeout(mut self, timeout: std::time::Duration) -> Self {
                self.options.delivery_timeout = timeout;
                self
            }

            /// Most records that wait or are on their way, 10,000 by default: `sink.requests.max-buffered`.
            #[must_use]
            pub fn max_buffered(mut self, records: usize) -> Self {
                self.options.max_buffered = records;
                self
            }

            /// Most records of a request, 500 by default and at most: `sink.batch.max-size`.
            #[must_use]
            pub fn max_batch_records(mut self, records: usize) -> Self {
                self.options.max_batch_records = records;
                self
            }

            /// The region of the stream: `aws.region`.
            #[must_use]
            pub fn region(self, region: impl Into<String>) -> Self {
                self.reached(|aws| aws.region = Some(region.into()))
            }

            /// A service of one's own: `aws.endpoint`.
            #[must_use]
            pub fn endpoint(self, endpoint: impl Into<String>) -> Self {
                self.reached(|aws| aws.endpoint = Some(endpoint.into()))
            }

            /// Who writes: `aws.credentials.*`.
            #[must_use]
            pub fn credentials(self, credentials: $crate::aws::CredentialsProvider) -> Self {
                self.reached(|aws| aws.credentials = credentials)
            }

            /// Takes settings from properties with Flink's keys (`aws.*`, `sink.*`, and those of older producers).
            ///
            /// # Errors
            /// A key that nobody knows, with the nearest one; a value that cannot be.
            pub fn with_properties(
                mut self,
                properties: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
            ) -> Result<Self, thalweg_common::failure::Failure> {
                let (aws, options) = $crate::aws::writing::from_properties(properties, self.options)?;
                self.options = options;
                Ok(self.reached(|old| *old = aws))
            }

            fn reached(mut self, change: impl FnOnce(&mut $crate::aws::AwsSettings)) -> Self {
                change(&mut self.aws);
                self.connect();
                self
            }

            fn writer(
                &mut self,
            ) -> Result<&mut $crate::aws::writing::Writer<$entry>, thalweg_common::failure::Failure> {
                let closed = || thalweg_common::failure::Failure::internal("the sink is not open");
                self.writer.as_mut().ok_or_else(closed)
            }
        }
    };
}

pub(crate) use setters;
