//! Plan and submit mode as the cluster and people see them: the processes' output and exit codes.
//!
//! This program is the tests and, started again with a variable set, the jobs that they look at. It has a `main` of its own,
//! because the usual one of tests would take the jobs' arguments for its own.

#![allow(clippy::unwrap_used, clippy::panic)]

#[cfg(feature = "local")]
use std::io::{BufRead, BufReader};
#[cfg(feature = "local")]
use std::process::Stdio;
use std::process::{Command, Output};

use thalweg::prelude::*;
use thalweg_common::graph::{JobGraph, Partitioning, StateKind};

/// Set for a process that is to be a job, to the job's name.
const JOB: &str = "THALWEG_TEST_JOB";

type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    ("plan_is_one_line_of_json_among_the_authors_output", plan_is_one_line_of_json_among_the_authors_output),
    (
        "settings_of_the_cluster_win_over_those_in_the_program",
        settings_of_the_cluster_win_over_those_in_the_program,
    ),
    ("two_processes_come_to_the_same_plan", two_processes_come_to_the_same_plan),
    (
        "a_job_that_collects_is_refused_with_its_place_and_a_cure",
        a_job_that_collects_is_refused_with_its_place_and_a_cure,
    ),
    (
        "an_error_in_the_topology_is_a_refusal_with_its_message",
        an_error_in_the_topology_is_a_refusal_with_its_message,
    ),
    ("usage_errors_and_help", usage_errors_and_help),
    ("runtime_properties_are_the_same_in_every_mode", runtime_properties_are_the_same_in_every_mode),
    ("a_worker_is_not_started_by_hand", a_worker_is_not_started_by_hand),
    (
        "a_worker_whose_topology_differs_from_the_plan_says_so",
        a_worker_whose_topology_differs_from_the_plan_says_so,
    ),
    #[cfg(feature = "local")]
    (
        "an_interrupt_cancels_a_local_job_and_leaves_nothing_behind",
        an_interrupt_cancels_a_local_job_and_leaves_nothing_behind,
    ),
];

fn main() -> thalweg::Result<()> {
    match std::env::var(JOB).as_deref() {
        Ok("word count") => word_count_job(),
        Ok("collecting") => collecting_job(),
        Ok("failing") => failing_job(),
        Ok("properties") => properties_job(),
        Ok("unbounded") => unbounded_job(),
        _ => {
            run_tests(&std::env::args().skip(1).collect::<Vec<_>>());
            Ok(())
        }
    }
}

/// As much of the usual test program's behaviour as cargo and nextest need: a list, and a filter.
fn run_tests(arguments: &[String]) {
    if arguments.iter().any(|argument| argument == "--ignored") {
        return;
    }
    let is_list = arguments.iter().any(|argument| argument == "--list");
    let filter = arguments.iter().find(|argument| !argument.starts_with('-')).filter(|_| !is_list);
    for (name, test) in
        TESTS.iter().filter(|(name, _)| filter.is_none_or(|filter| name.contains(filter.as_str())))
    {
        if is_list {
            println!("{name}: test");
        } else {
            test();
            println!("test {name} ... ok");
        }
    }
}

/// Runs a job of this file in a process of its own.
fn job(name: &str, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(arguments).env(JOB, name).envs(variables.iter().copied()).output().unwrap()
}

fn plan(name: &str, configuration: &str) -> JobGraph {
    let output = job(name, &[("THALWEG_MODE", "plan"), ("THALWEG_CONFIGURATION", configuration)], &[]);
    assert!(output.status.success(), "{output:?}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    let plans: Vec<&str> = stdout.lines().filter_map(|line| line.strip_prefix("THALWEG-PLAN ")).collect();
    assert_eq!(plans.len(), 1, "{stdout}");
    let graph: JobGraph = serde_json::from_str(plans[0]).unwrap();
    graph.validate().unwrap();
    graph
}

fn properties_job() -> thalweg::Result<()> {
    thalweg::run(|env| {
        let consumer = env.properties("ConsumerConfigProperties");
        let stream = consumer.get("stream.name").map_or("ExampleInputStream", String::as_str);
        let groups = env.property_groups().join(" ");
        env.from_iter([1_u64]).name(&format!("{stream} {groups}")).print();
        Ok(())
    })
}

fn runtime_properties_are_the_same_in_every_mode() {
    const FILE: &str =
        r#"[{"PropertyGroupId": "ConsumerConfigProperties", "PropertyMap": {"stream.name": "orders"}}]"#;
    let name = |variables: &[(&str, &str)], arguments: &[&str]| {
        let output = job("properties", &[&[("THALWEG_MODE", "plan")], variables].concat(), arguments);
        let stdout = String::from_utf8(output.stdout).unwrap();
        let plan = stdout.lines().find_map(|line| line.strip_prefix("THALWEG-PLAN ")).unwrap();
        let graph: JobGraph = serde_json::from_str(plan).unwrap();
        graph.vertices[0].operators[0].name.clone()
    };
    assert_eq!(name(&[], &[]), "ExampleInputStream ");
    assert_eq!(name(&[("THALWEG_RUNTIME_PROPERTIES", FILE)], &[]), "orders ConsumerConfigProperties");

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("application_properties.json");
    let flag = format!("--properties={}", file.display());
    // With a cluster that is not there: the topology is declared before it is asked.
    let submitted = |content: &str, more: &[&str]| {
        std::fs::write(&file, content).unwrap();
        let arguments = [&[flag.as_str(), "--jobmanager", "127.0.0.1:1"], more].concat();
        job("properties", &[], &arguments)
    };
    let refused = |content: &str, more: &[&str]| {
        let output = submitted(content, more);
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let error = refused("{}", &[]);
    assert!(
        error.contains("application_properties.json: they are no JSON array of property groups"),
        "{error}"
    );
    let error = refused(FILE, &["--property", "x=secret"]);
    assert!(error.contains("is not written as `GROUP:KEY=VALUE`") && !error.contains("secret"), "{error}");
    #[cfg(feature = "local")]
    {
        std::fs::write(&file, FILE).unwrap();
        let output = job("properties", &[], &[&flag, "--property", "More:key=value"]);
        assert!(output.status.success(), "{output:?}");
    }
}

fn word_count_job() -> thalweg::Result<()> {
    thalweg::run(|env| {
        print!("the author's own text, without an end of line");
        env.enable_checkpointing(secs(10)).set_parallelism(2);
        env.from_iter(["a b", "b"].map(String::from))
            .flat_map(|line| line.split(' ').map(String::from).collect::<Vec<_>>())
            .name("words")
            .key_by(|word| word.clone())
            .count()
            .uid("counts")
            .filter(|(_, count)| *count > 1)
            .map(|(word, count)| format!("{word} {count}"))
            .print();
        Ok(())
    })
}

fn plan_is_one_line_of_json_among_the_authors_output() {
    let graph = plan("word count", "{}");
    assert_eq!(graph.name, "Thalweg Streaming Job");
    let vertices: Vec<(&str, u32)> =
        graph.vertices.iter().map(|vertex| (vertex.name.as_str(), vertex.parallelism)).collect();
    assert_eq!(
        vertices,
        [("Collection Source", 1), ("words", 2), ("Count -> Filter -> Map -> Print to Std. Out", 2)]
    );
    let partitionings: Vec<Partitioning> = graph.edges.iter().map(|edge| edge.partitioning).collect();
    assert_eq!(partitionings, [Partitioning::Rebalance, Partitioning::Hash]);
    let count = &graph.vertices[2].operators[0];
    assert_eq!((count.uid.as_deref(), count.kind.as_str()), (Some("counts"), "count"));
    assert_eq!((count.states[0].kind, count.states[0].name.as_str()), (StateKind::Value, "value"));
    assert_eq!(count.key_schema, Some(String::schema()));
    assert!(count.location.starts_with("sdk/tests/modes.rs:"), "{}", count.location);
    assert_eq!(graph.checkpointing.interval_ms, Some(10_000));
    assert_eq!(graph.warnings, Vec::<String>::new());
}

fn settings_of_the_cluster_win_over_those_in_the_program() {
    let graph = plan(
        "word count",
        r#"{"parallelism.default":"3","pipeline.name":"other","execution.checkpointing.interval":"1 s"}"#,
    );
    assert_eq!(graph.name, "other");
    assert_eq!(graph.vertices.iter().map(|vertex| vertex.parallelism).collect::<Vec<_>>(), [1, 3, 3]);
    assert_eq!(graph.checkpointing.interval_ms, Some(1_000));
}

fn two_processes_come_to_the_same_plan() {
    let (first, second) = (plan("word count", "{}"), plan("word count", "{}"));
    assert_eq!(first.fingerprint(), second.fingerprint());
    assert_ne!(first.fingerprint(), plan("word count", r#"{"parallelism.default":"3"}"#).fingerprint());
}

fn collecting_job() -> thalweg::Result<()> {
    thalweg::run(|env| {
        env.from_iter(0..3_u64).collect();
        Ok(())
    })
}

fn a_job_that_collects_is_refused_with_its_place_and_a_cure() {
    let plan = job("collecting", &[("THALWEG_MODE", "plan")], &[]);
    let submission = job("collecting", &[], &["--jobmanager", "127.0.0.1:1"]);
    for output in [plan, submission] {
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("sdk/tests/modes.rs:"), "{stderr}");
        assert!(stderr.contains("collect() keeps the records in this process"), "{stderr}");
        assert!(stderr.contains("use .sink(..) instead"), "{stderr}");
    }
}

fn failing_job() -> thalweg::Result<()> {
    thalweg::run(|env| {
        let rate: f64 = env.args()[0].parse()?;
        env.generate(Some(rate), None, |number| number).print();
        Ok(())
    })
}

fn an_error_in_the_topology_is_a_refusal_with_its_message() {
    let output = job("failing", &[("THALWEG_MODE", "plan")], &["fast"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("Error: invalid float literal"));

    let output = job("failing", &[("THALWEG_MODE", "plan")], &["-1"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("sdk/tests/modes.rs:") && stderr.contains("-1 is no rate"), "{stderr}");
}

fn usage_errors_and_help() {
    let output = job("word count", &[], &["--parallelism", "many"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("`parallelism.default` cannot be `many`"));

    let output = job("word count", &[], &["--help"]);
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().contains("Exit codes after a submission"));
}

fn a_worker_is_not_started_by_hand() {
    let output = job("word count", &[("THALWEG_MODE", "worker")], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("started by a task manager and not by hand"));
}

fn a_worker_whose_topology_differs_from_the_plan_says_so() {
    let variables = [
        ("THALWEG_MODE", "worker"),
        ("THALWEG_TASKMANAGER", "127.0.0.1:1"),
        ("THALWEG_JOB_ID", "00000000000000000000000000000001"),
        ("THALWEG_WORKER_ID", "00000000000000000000000000000002"),
        ("THALWEG_WORKER_TOKEN", "00ff"),
        ("THALWEG_DATA_HOST", "127.0.0.1"),
        ("THALWEG_STATE_DIRECTORY", "/nonexistent/state"),
        ("THALWEG_MANAGED_BYTES_PER_SLOT", "1048576"),
        ("THALWEG_PLAN_FINGERPRINT", "7"),
    ];
    let output = job("word count", &variables, &[]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("differs from the plan that the cluster has checked"), "{stderr}");
    assert!(stderr.contains("instead of 7"), "{stderr}");
}

fn unbounded_job() -> thalweg::Result<()> {
    thalweg::run(|env| {
        env.generate(Some(100.0), None, |number| number).print();
        Ok(())
    })
}

#[cfg(feature = "local")]
fn an_interrupt_cancels_a_local_job_and_leaves_nothing_behind() {
    for signal in ["-INT", "-TERM"] {
        let directory = tempfile::tempdir().unwrap();
        let mut process = Command::new(std::env::current_exe().unwrap())
            .env(JOB, "unbounded")
            .env("TMPDIR", directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "0\n", "the job runs");
        let sent = Command::new("kill").args([signal, &process.id().to_string()]).status().unwrap();
        assert!(sent.success());
        std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
        let output = process.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("Error: the job was canceled"), "{stderr}");
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            0,
            "the temporary directory is removed"
        );
    }
}
