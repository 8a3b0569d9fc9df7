//! What a test puts in place of the sources and sinks of a topology.
//!
//! On a record's way these are its beginning and its end in a [`JobHarness`](super::JobHarness). The environment of such a job knows
//! [`StandIns`], and asks them whenever a source or sink is declared.

use std::any::{Any, type_name};
use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::record::Record;
use thalweg_runtime::batch::Batch;
use thalweg_runtime::operator::{Source, SourceContext, SourceStatus};
use thalweg_runtime::program::Node;
use thalweg_runtime::testing::{Gathered, Script};

use crate::graph::{NodeSpec, WATERMARKS};

/// The source of a topology that is only run in tests: a [`JobHarness`](super::JobHarness) says what it reads. Anywhere else it is empty.
pub fn scripted<T: Record>() -> Scripted<T> {
    Scripted { records: PhantomData }
}

/// What [`scripted`] makes.
pub struct Scripted<T> {
    records: PhantomData<fn() -> T>,
}

impl<T> Clone for Scripted<T> {
    fn clone(&self) -> Self {
        Self { records: PhantomData }
    }
}

impl<T> fmt::Debug for Scripted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scripted<{}>", type_name::<T>())
    }
}

impl<T: Record> Source for Scripted<T> {
    type Out = T;

    fn open(&mut self, _: &SourceContext, _: Option<&[u8]>) -> Result<(), Failure> {
        Ok(())
    }

    fn poll(&mut self, _: &mut Batch<T>, _: usize) -> Result<SourceStatus, Failure> {
        Ok(SourceStatus::Finished)
    }

    fn snapshot(&mut self) -> Result<Vec<u8>, Failure> {
        Ok(Vec::new())
    }
}

/// Which sources and sinks are replaced, and with what.
#[derive(Default)]
pub(crate) struct StandIns {
    /// Names of those that are not.
    kept: BTreeSet<String>,
    scripts: Vec<(usize, Box<dyn AnyScript>)>,
    gathered: Vec<(usize, Box<dyn AnyGathered>)>,
    /// Sources that are replaced if they turn out to have a name.
    unnamed: Vec<(usize, Replace)>,
}

/// Makes a source a scripted one.
type Replace = fn(&mut NodeSpec) -> (Node, Box<dyn AnyScript>);

/// A source or sink that was replaced.
pub(crate) struct End<A: ?Sized> {
    pub(crate) name: String,
    pub(crate) uid: Option<String>,
    /// Whether watermarks from a source end at a strategy, which makes its own.
    pub(crate) has_strategy: bool,
    pub(crate) stand_in: Box<A>,
}

/// All of them.
pub(crate) struct Ends {
    pub(crate) sources: Vec<End<dyn AnyScript>>,
    pub(crate) sinks: Vec<End<dyn AnyGathered>>,
}

impl StandIns {
    pub(crate) fn keeping(kept: BTreeSet<String>) -> Self {
        Self { kept, ..Self::default() }
    }

    /// Whether something of this name is replaced.
    pub(crate) fn replaces(&self, name: &str) -> bool {
        !self.kept.contains(name)
    }

    pub(crate) fn add_script(&mut self, node: usize, script: Box<dyn AnyScript>) {
        self.scripts.push((node, script));
    }

    pub(crate) fn add_gathered<T: Record>(&mut self, node: usize, gathered: Gathered<T>) {
        self.gathered.push((node, Box::new(gathered)));
    }

    /// Notes a source that is only replaced if it is given a name or uid.
    pub(crate) fn note_unnamed<T: Record>(&mut self, node: usize) {
        self.unnamed.push((node, scripted_source::<T>));
    }

    /// The topology is complete: replaces what was given a name, and says what was replaced.
    pub(crate) fn settle(self, nodes: &mut [NodeSpec], code: &mut [Node]) -> Ends {
        let Self { kept, mut scripts, gathered, unnamed } = self;
        for (node, replace) in unnamed {
            let (Some(spec), Some(code)) = (nodes.get_mut(node), code.get_mut(node)) else { continue };
            let names: Vec<&String> =
                spec.is_named.then_some(&spec.name).into_iter().chain(&spec.uid).collect();
            if !names.is_empty() && !names.into_iter().any(|name| kept.contains(name)) {
                let (replaced, script) = replace(spec);
                *code = replaced;
                scripts.push((node, script));
            }
        }
        Ends {
            sources: scripts.into_iter().filter_map(|(node, script)| end(nodes, node, script)).collect(),
            sinks: gathered.into_iter().filter_map(|(node, gathered)| end(nodes, node, gathered)).collect(),
        }
    }
}

fn end<A: ?Sized>(nodes: &[NodeSpec], node: usize, stand_in: Box<A>) -> Option<End<A>> {
    let spec = nodes.get(node)?;
    // Inputs are declared before those that read them.
    let mut behind = vec![false; nodes.len()];
    behind[node] = true;
    for (index, spec) in nodes.iter().enumerate() {
        let is_behind = spec.inputs.iter().any(|input| behind.get(input.from).copied().unwrap_or(false));
        behind[index] |= is_behind;
    }
    let mut behind = nodes.iter().zip(behind).filter(|(_, is_behind)| *is_behind);
    Some(End {
        name: spec.name.clone(),
        uid: spec.uid.clone(),
        has_strategy: behind.any(|(spec, _)| spec.kind == WATERMARKS),
        stand_in,
    })
}

/// The code of a scripted source, which has nothing to remember.
pub(crate) fn scripted_source<T: Record>(spec: &mut NodeSpec) -> (Node, Box<dyn AnyScript>) {
    let script = Script::<T>::default();
    spec.states.clear();
    (Node::source::<T>(script.source()), Box::new(script))
}

/// A script whose type is erased.
pub(crate) trait AnyScript {
    fn watermark(&self, subtask: u32, timestamp: Timestamp);

    fn any(&self) -> &dyn Any;

    fn records(&self) -> &'static str;
}

impl<T: Record> AnyScript for Script<T> {
    fn watermark(&self, subtask: u32, timestamp: Timestamp) {
        Script::watermark(self, subtask, timestamp);
    }

    fn any(&self) -> &dyn Any {
        self
    }

    fn records(&self) -> &'static str {
        type_name::<T>()
    }
}

/// What has come to a sink, its type erased.
pub(crate) trait AnyGathered {
    fn watermark(&self) -> Option<Timestamp>;

    fn any(&self) -> &dyn Any;

    fn records(&self) -> &'static str;
}

impl<T: Record> AnyGathered for Gathered<T> {
    fn watermark(&self) -> Option<Timestamp> {
        Gathered::watermark(self)
    }

    fn any(&self) -> &dyn Any {
        self
    }

    fn records(&self) -> &'static str {
        type_name::<T>()
    }
}
