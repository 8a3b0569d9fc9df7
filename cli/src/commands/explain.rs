//! `thalweg explain`: the plan of a job, running or not submitted: what is chained, how records find their way, how time is kept, what is
//! remembered. The text is a pure function of the job graph.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use thalweg_common::config::CheckpointMode;
use thalweg_common::graph::{
    Edge, JobGraph, Operator, PLAN_PREFIX, Partitioning, Regions, StateDescriptor, Vertex,
};
use thalweg_common::id::VertexId;
use thalweg_common::properties::RUNTIME_PROPERTIES_VARIABLE;

use super::Session;
use crate::arguments::ExplainArguments;
use crate::exit::Exit;
use crate::human::{count, duration, indented, one_line};

/// How long a job's executable may take to tell its plan.
const PLAN_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) async fn run(session: &Session, arguments: &ExplainArguments) -> anyhow::Result<Exit> {
    let path = Path::new(&arguments.target);
    let graph = if path.is_file() {
        plan_of_binary(path, arguments).await?
    } else {
        let is_alone = arguments.settings.is_empty()
            && arguments.properties.is_empty()
            && arguments.arguments.is_empty();
        if !is_alone {
            bail!(
                "{} is no file, and settings, properties and arguments are for an executable; give its path, as in ./word_count",
                arguments.target
            );
        }
        let client = session.client().await?;
        let job_id = session.job(&client, &arguments.target).await?;
        let details = client.describe(job_id).await?;
        details
            .graph
            .ok_or_else(|| anyhow!("the cluster does not tell plans; it is of an earlier version"))?
    };
    session.output.result(&graph, text)?;
    Ok(Exit::Success)
}

/// Lets a job's executable tell its plan, as a job manager does when it is submitted.
async fn plan_of_binary(path: &Path, arguments: &ExplainArguments) -> anyhow::Result<JobGraph> {
    let configuration = serde_json::to_string(&arguments.configuration()?)?;
    let properties = arguments.properties.read()?.to_json()?;
    // A bare name would be looked for in PATH.
    let program = std::path::absolute(path)?;
    let running = tokio::process::Command::new(&program)
        .args(&arguments.arguments)
        .env("THALWEG_MODE", "plan")
        .env("THALWEG_CONFIGURATION", configuration)
        .env(RUNTIME_PROPERTIES_VARIABLE, properties)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PLAN_TIMEOUT, running).await;
    let output = output
        .map_err(|_| {
            let seconds = PLAN_TIMEOUT.as_secs();
            anyhow!(
                "{} printed no plan within {seconds} s; main must build the topology only",
                program.display()
            )
        })?
        .with_context(|| format!("cannot execute {}", program.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} cannot be planned ({}):\n{}", program.display(), output.status, said.trim());
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    let plan = printed.lines().find_map(|line| line.strip_prefix(PLAN_PREFIX));
    let plan = plan.ok_or_else(|| {
        anyhow!(
            "{} printed no plan; is it a Thalweg job, which calls thalweg::run in main?",
            program.display()
        )
    })?;
    serde_json::from_str(plan).with_context(|| format!("the plan of {} is damaged", program.display()))
}

/// The whole plan.
fn text(graph: &JobGraph) -> String {
    let regions = Regions::of(graph);
    let mut text = format!(
        "Job {}: {}, {}, {}\n",
        one_line(&graph.name),
        plural(graph.vertices.len(), "vertex", "vertices"),
        plural(graph.subtasks().count(), "task", "tasks"),
        plural(regions.count() as usize, "failover region", "failover regions"),
    );
    text.push_str(&format!("  checkpoints: {}\n", checkpoints(graph)));
    for (number, vertex) in (0u32..).zip(&graph.vertices) {
        text.push('\n');
        text.push_str(&vertex_text(graph, number, vertex));
    }
    if !graph.warnings.is_empty() {
        text.push_str("\nWarnings\n");
        text.extend(graph.warnings.iter().map(|warning| indented(warning, "  ")));
    }
    text
}

fn plural(number: usize, one: &str, many: &str) -> String {
    format!("{} {}", count(number as u64), if number == 1 { one } else { many })
}

fn checkpoints(graph: &JobGraph) -> String {
    let checkpointing = &graph.checkpointing;
    match checkpointing.interval_ms {
        None => "none (execution.checkpointing.interval is not set)".into(),
        Some(interval_ms) => {
            let unaligned = if checkpointing.overtakes_after().is_some() { ", unaligned" } else { "" };
            let mode = match checkpointing.mode {
                CheckpointMode::ExactlyOnce => "exactly-once",
                CheckpointMode::AtLeastOnce => "at-least-once",
            };
            format!("every {}, {mode}{unaligned}", duration(interval_ms))
        }
    }
}

fn vertex_text(graph: &JobGraph, number: VertexId, vertex: &Vertex) -> String {
    let mut text = format!(
        "{number}: {} (parallelism {}, at most {}, slot sharing group {})\n",
        one_line(&vertex.name),
        count(vertex.parallelism.into()),
        count(vertex.max_parallelism.into()),
        one_line(&vertex.slot_sharing_group)
    );
    for (_, edge) in graph.inputs(number) {
        text.push_str(&format!("   <- {}\n", input(graph, edge)));
    }
    for (position, operator) in vertex.operators.iter().enumerate() {
        text.push_str(&operator_text(vertex, position, operator));
    }
    text
}

/// Where an edge comes from, and how its records are distributed.
fn input(graph: &JobGraph, edge: &Edge) -> String {
    let vertex = graph.vertices.get(edge.source as usize);
    let operator = vertex.and_then(|vertex| vertex.operators.get(edge.source_operator as usize));
    let name = operator.map_or_else(|| "?".into(), |operator| one_line(&operator.name));
    let output =
        edge.tag.as_ref().map_or_else(String::new, |tag| format!(", side output `{}`", one_line(tag)));
    format!("{}: {name}{output}, {}", edge.source, partitioning(edge.partitioning))
}

fn partitioning(partitioning: Partitioning) -> &'static str {
    match partitioning {
        Partitioning::Forward => "FORWARD",
        Partitioning::Hash => "HASH",
        Partitioning::Rebalance => "REBALANCE",
        Partitioning::Rescale => "RESCALE",
        Partitioning::Broadcast => "BROADCAST",
        Partitioning::Splits => "SPLITS",
    }
}

fn operator_text(vertex: &Vertex, position: usize, operator: &Operator) -> String {
    // Operators of a chain stand below each other; only where it branches is it said who feeds whom.
    let feeder = operator.inputs.first().map(|feeder| *feeder as usize);
    let behind =
        feeder.filter(|feeder| feeder + 1 != position).and_then(|feeder| vertex.operators.get(feeder));
    let behind = behind.map_or_else(String::new, |feeder| format!(", behind {}", one_line(&feeder.name)));
    let tag = operator.input_tag.as_ref();
    let tag = tag.map_or_else(String::new, |tag| format!(", side output `{}`", one_line(tag)));
    let uid = operator.uid.as_ref().map_or_else(|| "no uid".into(), |uid| format!("uid {}", one_line(uid)));
    let mut text = format!(
        "   {} [{}, {uid}, {}]{behind}{tag}\n",
        one_line(&operator.name),
        operator.kind,
        one_line(&operator.location)
    );
    for line in time(operator).iter().chain(operator.states.iter().map(state).collect::<Vec<_>>().iter()) {
        text.push_str(&format!("      {line}\n"));
    }
    text
}

/// How it keeps time, in lines.
fn time(operator: &Operator) -> Vec<String> {
    let Some(time) = &operator.time else { return Vec::new() };
    let what = if operator.makes_watermarks() { "watermarks" } else { "windows" };
    let mut words = format!("{what}: {}", one_line(&time.words));
    if let Some(idleness_ms) = time.idleness_ms {
        words.push_str(&format!(", idle after {}", duration(idleness_ms)));
    }
    let alignment = time.alignment.as_ref().map(|alignment| {
        format!(
            "aligned with group {}: at most {} ahead, looked at every {}",
            one_line(&alignment.group),
            duration(alignment.max_drift_ms),
            duration(alignment.update_interval_ms)
        )
    });
    std::iter::once(words).chain(alignment).collect()
}

fn state(state: &StateDescriptor) -> String {
    let ttl = state.ttl.map_or_else(String::new, |ttl| format!(", time to live {}", duration(ttl.ttl_ms)));
    format!("state: {} ({}){ttl}", one_line(&state.name), state.kind)
}

#[cfg(test)]
mod tests {
    use thalweg_common::config::{CheckpointConfig, RestartStrategy};
    use thalweg_common::graph::{AlignmentDescriptor, PROTOCOL_VERSION, StateKind, TimeDescriptor};
    use thalweg_common::id::OperatorId;
    use thalweg_common::schema::Schema;
    use thalweg_common::ttl::StateTtl;

    use super::*;

    fn operator(name: &str, kind: &str, inputs: &[u32]) -> Operator {
        Operator {
            node: 0,
            id: OperatorId(1),
            uid: None,
            name: name.into(),
            kind: kind.into(),
            location: "src/main.rs:7".into(),
            inputs: inputs.to_vec(),
            input_tag: None,
            states: vec![],
            key_schema: None,
            time: None,
        }
    }

    fn vertex(name: &str, parallelism: u32, operators: Vec<Operator>) -> Vertex {
        Vertex {
            name: name.into(),
            parallelism,
            max_parallelism: 128,
            slot_sharing_group: "default".into(),
            operators,
        }
    }

    fn edge(source: u32, source_operator: u32, target: u32, partitioning: Partitioning) -> Edge {
        Edge { source, source_operator, tag: None, target, partitioning, schema_fingerprint: 0 }
    }

    fn graph() -> JobGraph {
        let mut strategy = operator("Timestamps/Watermarks", "watermarks", &[0]);
        strategy.time = Some(TimeDescriptor {
            words: "out of order by 5s".into(),
            idleness_ms: Some(15_000),
            alignment: Some(AlignmentDescriptor {
                group: "orders".into(),
                max_drift_ms: 20_000,
                update_interval_ms: 1_000,
            }),
        });
        let mut late = operator("late", "map", &[0]);
        late.input_tag = Some("late".into());
        let mut count = operator("Tumbling Window", "window", &[]);
        count.uid = Some("count".into());
        let mut state = StateDescriptor::new("slices", StateKind::Value, Schema::primitive("u64"));
        state.ttl = Some(StateTtl::new(Duration::from_secs(86_400)));
        count.states = vec![state];
        count.time = Some(TimeDescriptor { words: "tumbling, 10s".into(), ..TimeDescriptor::default() });
        JobGraph {
            protocol_version: PROTOCOL_VERSION,
            name: "counts".into(),
            vertices: vec![
                vertex("orders -> ...", 2, vec![operator("orders", "source", &[]), strategy, late]),
                vertex("Tumbling Window", 1, vec![count]),
            ],
            edges: vec![edge(0, 1, 1, Partitioning::Hash)],
            checkpointing: CheckpointConfig { interval_ms: Some(10_000), ..CheckpointConfig::default() },
            restart_strategy: RestartStrategy::None,
            warnings: vec!["src/main.rs:9: nothing reads late".into()],
        }
    }

    #[test]
    fn the_plan_shows_chains_distribution_time_and_state() {
        let expected = "\
Job counts: 2 vertices, 3 tasks, 1 failover region
  checkpoints: every 10 s, exactly-once

0: orders -> ... (parallelism 2, at most 128, slot sharing group default)
   orders [source, no uid, src/main.rs:7]
   Timestamps/Watermarks [watermarks, no uid, src/main.rs:7]
      watermarks: out of order by 5s, idle after 15 s
      aligned with group orders: at most 20 s ahead, looked at every 1.0 s
   late [map, no uid, src/main.rs:7], behind orders, side output `late`

1: Tumbling Window (parallelism 1, at most 128, slot sharing group default)
   <- 0: Timestamps/Watermarks, HASH
   Tumbling Window [window, uid count, src/main.rs:7]
      windows: tumbling, 10s
      state: slices (value), time to live 1d 00h

Warnings
  src/main.rs:9: nothing reads late
";
        assert_eq!(text(&graph()), expected);
    }

    #[test]
    fn a_job_without_checkpoints_says_so() {
        let mut graph = graph();
        graph.checkpointing = CheckpointConfig::default();
        assert!(text(&graph).contains("checkpoints: none (execution.checkpointing.interval is not set)"));
    }
}
