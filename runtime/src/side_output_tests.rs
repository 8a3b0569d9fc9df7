//! Side outputs of functions: what arrives, in which batches, and what two types of one name say.
#![allow(clippy::unwrap_used)]

use thalweg_common::failure::Fault;

use super::*;
use crate::event::Event;
use crate::operators;
use crate::process::{Process, ProcessContext};
use crate::testing::{OperatorHarness, Setup};

const ODD: OutputTag<u64> = OutputTag::new("odd");
const NAMES: OutputTag<String> = OutputTag::new("names");

/// Even numbers to the main output, odd ones aside, and the name of each number to a third place.
#[derive(Clone)]
struct Sort;

impl Process<u64> for Sort {
    type Out = u64;

    fn on_record(&mut self, number: u64, context: &mut ProcessContext<'_, u64>) -> Result<(), Failure> {
        context.output(&NAMES, format!("number {number}"));
        if number.is_multiple_of(2) {
            context.emit(number);
        } else {
            context.output(&ODD, number);
        }
        Ok(())
    }
}

#[test]
fn records_go_where_their_tag_says_with_their_timestamps() {
    let factory = operators::process(Sort);
    let mut harness = OperatorHarness::<u64, u64>::open(factory.as_ref(), Setup::default()).unwrap();
    harness.push_batch(Batch::from_parts(vec![1, 2, 3], vec![10, 20, 30])).unwrap();
    assert_eq!(harness.output_batch(), Batch::from_parts(vec![2], vec![20]));
    assert_eq!(harness.side_output(&ODD), Batch::from_parts(vec![1, 3], vec![10, 30]));
    assert_eq!(harness.side_output(&NAMES).records(), ["number 1", "number 2", "number 3"]);
    assert!(harness.side_output(&ODD).is_empty(), "it was taken out");
    assert!(harness.side_output(&OutputTag::<u64>::new("even")).is_empty(), "nobody emits to it");
}

/// Emits the watermark and the clock that it sees, as the time of the record.
#[derive(Clone)]
struct Times;

impl Process<u64> for Times {
    type Out = i64;

    fn on_record(&mut self, _: u64, context: &mut ProcessContext<'_, i64>) -> Result<(), Failure> {
        context.emit_with_timestamp(context.current_watermark(), context.current_processing_time());
        Ok(())
    }
}

#[test]
fn a_function_sees_the_last_watermark_and_the_clock() {
    let factory = operators::process(Times);
    let mut harness = OperatorHarness::<u64, i64>::open(factory.as_ref(), Setup::default()).unwrap();
    harness.push(vec![1]).unwrap();
    harness.watermark(7).unwrap();
    harness.processing_time(50).unwrap();
    harness.push(vec![2]).unwrap();
    assert_eq!(harness.output_batch(), Batch::from_parts(vec![i64::MIN, 7], vec![0, 50]));
}

/// Sorts into a main output and the side outputs with these tags, which are captured.
fn outputs(captured: &Captured<u64>, odd: &Captured<u64>) -> Outputs<u64> {
    let side = TypedSideOutput::new(ODD.described(), Box::new(odd.clone()));
    Outputs::new(Box::new(captured.clone()), SideOutputs::new(vec![Box::new(side)]))
}

#[test]
fn events_pass_all_outputs_and_full_side_outputs_are_handed_on() {
    let (main, odd) = (Captured::default(), Captured::default());
    let mut outputs = outputs(&main, &odd);
    for number in 0..Batch::<u64>::FULL_RECORDS as u64 {
        assert!(!outputs.is_full());
        outputs.emit_aside(&ODD, number, 1);
        outputs.emit_aside(&NAMES, "nobody reads it".to_string(), 1);
    }
    assert!(outputs.is_full());
    outputs.hand_on().unwrap();
    assert!(!outputs.is_full());
    assert_eq!((main.take().len(), odd.take().len()), (0, Batch::<u64>::FULL_RECORDS));

    let barrier = Barrier { id: 7, timestamp_ms: 0, is_final: false, is_savepoint: false };
    outputs.watermark(5).unwrap();
    outputs.watermark_status(WatermarkStatus::Idle).unwrap();
    outputs.snapshot(barrier, &mut SnapshotBuilder::default()).unwrap();
    outputs.finish().unwrap();
    let passed = [
        Event::Watermark(5),
        Event::Status(WatermarkStatus::Idle),
        Event::Barrier(barrier),
        Event::EndOfInput,
    ];
    for link in [&main, &odd] {
        assert_eq!(link.events(), passed);
    }
    assert_eq!(outputs.flush(true), Ok(Flushed::All));
    odd.set_blocked(true);
    assert_eq!(outputs.flush(true), Ok(Flushed::Blocked), "a full side output holds the task up");
}

#[test]
fn two_types_of_one_name_fail_the_task_and_say_where() {
    let (main, odd) = (Captured::default(), Captured::default());
    let mut outputs = outputs(&main, &odd);
    outputs.emit_aside(&OutputTag::<String>::new("odd"), "x".to_string(), 1);
    assert!(outputs.is_full(), "the task fails at once");
    let failure = outputs.hand_on().unwrap_err();
    assert_eq!((failure.fault, failure.retryable), (Fault::User, false));
    let places = failure.message.matches("side_output_tests.rs:").count();
    assert_eq!(places, 2, "{failure}");
    assert!(failure.message.contains("`u64`") && failure.message.contains("String`"), "{failure}");
}
