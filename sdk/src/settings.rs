//! Settings of a single operator, the same for streams and sinks: they follow the operator in the text of the job.

/// Gives a handle with the fields `environment` and `node` the methods that set up its operator.
macro_rules! operator_settings {
    ($handle:ty $(, $parameter:ident)?) => {
        impl $(<$parameter>)? $handle {
            /// Names the operator for people.
            #[track_caller]
            pub fn name(self, name: &str) -> Self {
                self.set("name", |spec| {
                    spec.name = name.to_string();
                    spec.is_named = true;
                })
            }

            /// Names the operator for its state: a changed job finds the state again by it. It must be unique in the job.
            #[track_caller]
            pub fn uid(self, uid: &str) -> Self {
                self.set("uid", |spec| spec.uid = Some(uid.to_string()))
            }

            /// How many subtasks the operator has. Wins over the job's parallelism, wherever that was set.
            #[track_caller]
            pub fn set_parallelism(self, parallelism: u32) -> Self {
                self.set("set_parallelism", |spec| spec.parallelism = Some(parallelism))
            }

            /// How many key groups the operator has: its highest parallelism for as long as it keeps its state.
            #[track_caller]
            pub fn set_max_parallelism(self, max_parallelism: u32) -> Self {
                self.set("set_max_parallelism", |spec| spec.max_parallelism = Some(max_parallelism))
            }

            /// Runs the operator, and those behind it that choose none, in slots of their own group.
            #[track_caller]
            pub fn slot_sharing_group(self, group: &str) -> Self {
                self.set("slot_sharing_group", |spec| spec.slot_sharing_group = Some(group.to_string()))
            }

            /// Runs the operator in a task of its own.
            #[track_caller]
            pub fn disable_chaining(self) -> Self {
                self.set("disable_chaining", |spec| spec.chaining = $crate::graph::Chaining::Never)
            }

            /// Runs the operator in another task than the one before it.
            #[track_caller]
            pub fn start_new_chain(self) -> Self {
                self.set("start_new_chain", |spec| spec.chaining = $crate::graph::Chaining::Head)
            }

            #[track_caller]
            fn set(self, method: &str, change: impl FnOnce(&mut $crate::graph::NodeSpec)) -> Self {
                match self.node {
                    Some(node) => self.environment.change(node, change),
                    None => {
                        let message = format!(
                            "{method}() is for the operator right before it, but here is a union, partitioning or side output, \
                             which is none; move it behind an operator such as map()"
                        );
                        self.environment.fail($crate::graph::Place::caller(), $crate::error::Error::new(message));
                    }
                }
                self
            }
        }
    };
}

pub(crate) use operator_settings;
