//! Names of things: jobs, attempts, vertices, subtasks, operators, checkpoints, task managers, workers.
//!
//! Ids that a user sees are 128 random bits in hexadecimal, as in Flink. Whatever crosses a process carries
//! the ids that fence it: a [`Term`] and an [`Attempt`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind}: expected 32 hexadecimal digits such as 00c0ffee00c0ffee00c0ffee00c0ffee")]
pub struct InvalidId {
    kind: &'static str,
    text: String,
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u128);

        impl $name {
            /// A new random id.
            ///
            /// # Errors
            /// Fails only when the operating system gives no random bytes.
            pub fn random() -> std::io::Result<Self> {
                let mut bytes = [0u8; 16];
                getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
                Ok(Self(u128::from_le_bytes(bytes)))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
                match u128::from_str_radix(text, 16) {
                    Ok(value) if digits => Ok(Self(value)),
                    _ => Err(InvalidId { kind: $kind, text: text.to_string() }),
                }
            }
        }
    };
}

random_id!(
    /// A job, from its submission to its last state.
    JobId,
    "job id"
);
random_id!(
    /// Made by the client for one wish to submit: repeating it never submits twice.
    SubmissionId,
    "submission id"
);
random_id!(
    /// One worker process of a job on a task manager.
    WorkerId,
    "worker id"
);

/// The Raft term of a leading job manager. Messages of lower terms are refused.
pub type Term = u64;

/// The number of a job's execution attempt, from 1. Messages of other attempts are refused.
pub type Attempt = u32;

/// A checkpoint of a job, from 1, growing, never reused.
pub type CheckpointId = u64;

/// The number of a vertex in its [`JobGraph`](crate::graph::JobGraph): its position.
pub type VertexId = u32;

/// The number of a region in its [`Regions`](crate::graph::Regions): subtasks that are restarted together.
pub type RegionId = u32;

/// The number of an edge in its [`JobGraph`](crate::graph::JobGraph): its position.
pub type EdgeId = u32;

/// An operator's stable name across versions of a job: a hash of its `uid`, or of its place in the topology.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OperatorId(pub u64);

impl fmt::Display for OperatorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for OperatorId {
    type Err = InvalidOperatorId;

    fn from_str(text: &str) -> Result<Self, InvalidOperatorId> {
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u64::from_str_radix(text, 16) {
            Ok(value) if digits => Ok(Self(value)),
            _ => Err(InvalidOperatorId { text: text.to_string() }),
        }
    }
}

/// A text that is not the id of an operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an operator id: expected 16 hexadecimal digits")]
pub struct InvalidOperatorId {
    text: String,
}

/// Ids in a file as people see them elsewhere: JSON numbers of their size are rounded by many programs.
pub mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// For `#[serde(with = "thalweg_common::id::as_text")]`.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<T: Display, S: Serializer>(id: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    /// For `#[serde(with = "thalweg_common::id::as_text")]`.
    ///
    /// # Errors
    /// When the text is no such id.
    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl fmt::Debug for OperatorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One parallel instance of a vertex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SubtaskId {
    /// The vertex.
    pub vertex: VertexId,
    /// From 0 to the vertex's parallelism.
    pub index: u32,
}

impl fmt::Display for SubtaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.vertex, self.index)
    }
}

/// A channel between two subtasks: the edge and the subtask index at both of its ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChannelId {
    /// The edge of the job graph.
    pub edge: EdgeId,
    /// The sending subtask's index.
    pub from: u32,
    /// The receiving subtask's index.
    pub to: u32,
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "edge {} from subtask {} to subtask {}", self.edge, self.from, self.to)
    }
}

/// A task manager's name, unique in the cluster and kept while its process lives.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskManagerId(pub String);

impl fmt::Display for TaskManagerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_text() {
        let id = JobId::random().expect("random bytes");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(JobId(255).to_string(), "000000000000000000000000000000ff");
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in ["", "ff", "zz000000000000000000000000000000", "+0000000000000000000000000000000"] {
            assert!(text.parse::<JobId>().is_err(), "{text}");
        }
    }
}
