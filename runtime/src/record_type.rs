//! What the untyped builder of chains needs of a record type.

use std::any::type_name;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use thalweg_common::clock::SharedClock;
use thalweg_common::config::CheckpointMode;
use thalweg_common::failure::Failure;
use thalweg_common::id::{ChannelId, RegionId};
use thalweg_common::record::Record;

use crate::erased::{AnyLink, AnyReceiver, AnySender};
use crate::exchange::{
    ExchangeClient, ExchangeServer, InputGate, OpenChannel, StoredBatch, TaskWaker, local_channel,
};
use crate::fan_out::FanOut;
use crate::gate_head::GateHead;
use crate::in_flight::Overtakes;
use crate::metrics::{Flow, counted};
use crate::program::Head;
use crate::side_output::{SideOutput, TagDescription, TypedSideOutput};
use crate::task::counters::Counters;

/// A record type as a value: makes the typed parts that an untyped builder connects.
#[derive(Clone)]
pub struct RecordType {
    operations: Arc<dyn Operations>,
}

impl RecordType {
    /// The type `T`.
    pub fn of<T: Record>() -> Self {
        Self { operations: Arc::new(Of::<T>(PhantomData)) }
    }

    /// The Rust name, for messages.
    pub fn name(&self) -> &'static str {
        self.operations.name()
    }

    /// The fingerprint of its schema, as in [`Edge::schema_fingerprint`](thalweg_common::graph::Edge::schema_fingerprint).
    pub fn fingerprint(&self) -> u64 {
        self.operations.fingerprint()
    }

    pub(crate) fn operations(&self) -> &dyn Operations {
        self.operations.as_ref()
    }
}

/// The task that receives.
pub(crate) struct ReceivingEnd {
    pub(crate) checkpoint_mode: CheckpointMode,
    pub(crate) waker: TaskWaker,
    pub(crate) clock: SharedClock,
    pub(crate) counters: Counters,
    /// Time in which the task is to get through what waits for it.
    pub(crate) debloat_target: Option<Duration>,
    /// Whether and when barriers overtake.
    pub(crate) overtakes: Option<Overtakes>,
    /// What was on its way to the task when the checkpoint was taken that is restored, in the order of each channel.
    pub(crate) restored: Vec<(ChannelId, StoredBatch)>,
}

/// Everything that depends on the record type and is asked for without knowing it.
pub(crate) trait Operations: Send + Sync {
    fn name(&self) -> &'static str;

    fn fingerprint(&self) -> u64;

    /// One link to all of these, which counts what flows.
    fn fan_out(&self, links: Vec<AnyLink>, flow: Arc<Flow>) -> Result<AnyLink, Failure>;

    /// The side output with this tag, to all of these links.
    fn side_output(
        &self,
        tag: TagDescription,
        links: Vec<AnyLink>,
        flow: Arc<Flow>,
    ) -> Result<Box<dyn SideOutput>, Failure>;

    /// The head that reads these channels and runs their batches through `link`.
    fn gate(
        &self,
        end: &ReceivingEnd,
        receivers: Vec<AnyReceiver>,
        link: AnyLink,
    ) -> Result<Box<dyn Head>, Failure>;

    /// A channel inside this process.
    fn local_channel(&self, id: ChannelId) -> (AnySender, AnyReceiver);

    /// The receiving end of a channel from another process.
    fn register(
        &self,
        server: &ExchangeServer,
        region: RegionId,
        id: ChannelId,
    ) -> Result<AnyReceiver, Failure>;

    /// Opens a channel to another process.
    fn open(&self, client: ExchangeClient, address: String, open: OpenChannel) -> Opening;
}

/// A gate of these channels.
///
/// # Errors
/// When a channel has records of another type, or what is restored has.
pub(crate) fn open_gate<T: Record>(
    end: &ReceivingEnd,
    receivers: Vec<AnyReceiver>,
) -> Result<InputGate<T>, Failure> {
    let receivers = receivers.into_iter().map(AnyReceiver::typed).collect::<Result<_, _>>()?;
    let (mode, waker, clock) = (end.checkpoint_mode, end.waker.clone(), Arc::clone(&end.clock));
    let mut gate = InputGate::with_clock(receivers, mode, waker, clock).restoring(end.restored.clone())?;
    if let Some(overtakes) = &end.overtakes {
        gate = gate.overtaking(overtakes.clone());
    }
    if let Some(target) = end.debloat_target {
        gate = gate.debloated(target);
    }
    Ok(gate)
}

/// A channel that is being opened.
pub(crate) type Opening = Pin<Box<dyn Future<Output = Result<AnySender, Failure>> + Send>>;

struct Of<T>(PhantomData<fn() -> T>);

impl<T: Record> Operations for Of<T> {
    fn name(&self) -> &'static str {
        type_name::<T>()
    }

    fn fingerprint(&self) -> u64 {
        T::schema().fingerprint()
    }

    fn fan_out(&self, links: Vec<AnyLink>, flow: Arc<Flow>) -> Result<AnyLink, Failure> {
        let mut links = links.into_iter().map(AnyLink::typed::<T>).collect::<Result<Vec<_>, _>>()?;
        let link = if links.len() == 1 { links.pop() } else { None };
        Ok(AnyLink::new(counted(link.unwrap_or_else(|| Box::new(FanOut::new(links))), flow)))
    }

    fn side_output(
        &self,
        tag: TagDescription,
        links: Vec<AnyLink>,
        flow: Arc<Flow>,
    ) -> Result<Box<dyn SideOutput>, Failure> {
        Ok(Box::new(TypedSideOutput::new(tag, self.fan_out(links, flow)?.typed::<T>()?)))
    }

    fn gate(
        &self,
        end: &ReceivingEnd,
        receivers: Vec<AnyReceiver>,
        link: AnyLink,
    ) -> Result<Box<dyn Head>, Failure> {
        let link = link.typed::<T>()?;
        let gate = open_gate(end, receivers)?;
        end.counters.add_input(gate.traffic());
        Ok(Box::new(GateHead::new(gate, link, end.counters.clone())))
    }

    fn local_channel(&self, id: ChannelId) -> (AnySender, AnyReceiver) {
        let (sender, receiver) = local_channel::<T>(id);
        (AnySender::new(sender), AnyReceiver::new(receiver))
    }

    fn register(
        &self,
        server: &ExchangeServer,
        region: RegionId,
        id: ChannelId,
    ) -> Result<AnyReceiver, Failure> {
        server.register::<T>(region, id).map(AnyReceiver::new)
    }

    fn open(&self, client: ExchangeClient, address: String, open: OpenChannel) -> Opening {
        Box::pin(async move { client.open::<T>(&address, open).await.map(AnySender::new) })
    }
}
