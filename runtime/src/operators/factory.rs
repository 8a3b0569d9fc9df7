//! Factories from closures, with the type checks at their border.

use std::sync::Arc;

use thalweg_common::failure::Failure;

use crate::link::Link;
use crate::program::{AnyLink, OperatorContext, OperatorFactory};

/// A factory of operators that take `In` and have an output of `Out`.
pub(super) fn operator<In: 'static, Out: 'static>(
    build: impl Fn(&mut OperatorContext, Box<dyn Link<Out>>) -> Result<Box<dyn Link<In>>, Failure>
    + Send
    + Sync
    + 'static,
) -> Arc<dyn OperatorFactory> {
    Arc::new(Closure(move |context: &mut OperatorContext, next: Option<AnyLink>| {
        let next = next.ok_or_else(|| {
            Failure::internal(format!("`{}` has an output that leads nowhere", context.open.operator_name))
                .permanent()
        })?;
        let next = next.typed::<Out>().map_err(|failure| failure.context(&context.open.operator_name))?;
        build(context, next).map(AnyLink::new)
    }))
}

/// A factory of operators that take `In` and have no output.
pub(super) fn end<In: 'static>(
    build: impl Fn(&mut OperatorContext) -> Result<Box<dyn Link<In>>, Failure> + Send + Sync + 'static,
) -> Arc<dyn OperatorFactory> {
    Arc::new(Closure(move |context: &mut OperatorContext, next: Option<AnyLink>| match next {
        None => build(context).map(AnyLink::new),
        Some(_) => {
            let message =
                format!("`{}` is a sink and something is connected behind it", context.open.operator_name);
            Err(Failure::internal(message).permanent())
        }
    }))
}

struct Closure<F>(F);

impl<F> OperatorFactory for Closure<F>
where
    F: Fn(&mut OperatorContext, Option<AnyLink>) -> Result<AnyLink, Failure> + Send + Sync,
{
    fn build(&self, context: &mut OperatorContext, next: Option<AnyLink>) -> Result<AnyLink, Failure> {
        (self.0)(context, next)
    }
}
