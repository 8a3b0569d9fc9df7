//! Our names of things as Flink writes them: the only place where one becomes the other.
//!
//! Job ids are 32 hexadecimal digits here as there. A vertex, which we number, is named by the id of its first operator, padded to 32
//! digits: as in Flink it so keeps its name when the job is upgraded or rescaled. Task managers are named by their own ids.

use thalweg_common::graph::JobGraph;
use thalweg_common::id::{JobId, VertexId};
use thalweg_common::status::TaskStatus;

use super::error::RestError;

/// The job that a path names.
pub(super) fn job(text: &str) -> Result<JobId, RestError> {
    // Flink's ids may be written in capitals too.
    text.parse().map_err(|error: thalweg_common::id::InvalidId| RestError::bad_request(error.to_string()))
}

/// The id of a vertex.
pub(super) fn of_vertex(graph: &JobGraph, vertex: VertexId) -> String {
    let operators = graph.vertices.get(vertex as usize).map(|vertex| vertex.operators.as_slice());
    let first = operators.and_then(<[_]>::first);
    format!("{:032x}", first.map_or(0, |operator| operator.id.0))
}

/// The vertex that a path names.
pub(super) fn vertex(graph: &JobGraph, text: &str) -> Result<VertexId, RestError> {
    let vertices = 0..u32::try_from(graph.vertices.len()).unwrap_or(u32::MAX);
    let mut named = vertices.filter(|vertex| of_vertex(graph, *vertex).eq_ignore_ascii_case(text));
    named.next().ok_or_else(|| {
        RestError::not_found(format!(
            "the job has no vertex `{text}`; `/jobs/JOB` lists its vertices with their ids"
        ))
    })
}

/// The state of a task in Flink's words, of which there is none for having read all input.
pub(super) fn task_status(status: TaskStatus) -> &'static str {
    match status {
        TaskStatus::Drained => TaskStatus::Running.name(),
        status => status.name(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::checkpointed_graph;

    #[test]
    fn a_vertex_is_found_by_the_id_that_it_has() {
        let graph = checkpointed_graph();
        for number in 0..u32::try_from(graph.vertices.len()).expect("few") {
            let id = of_vertex(&graph, number);
            assert_eq!(id.len(), 32);
            assert_eq!(vertex(&graph, &id).expect("it is there"), number);
            assert_eq!(vertex(&graph, &id.to_uppercase()).expect("it is there"), number);
        }
        assert!(vertex(&graph, "0").is_err());
    }
}
