//! Logs and metrics: what is kept, and where it is sent.

use super::kind::{ConfigKey, ValueKind};

keys! {
    /// Size beyond which a task manager moves what a worker has written to an older log, and lets it begin anew.
    LOG_MAX_SIZE: "taskmanager.log.max-size",
        ValueKind::MemorySize { min_bytes: 1 << 20, max_bytes: 1 << 40 }, default "100 mb";
    /// Older logs of a worker that are kept, each for its standard output and its standard error.
    LOG_MAX_FILES: "env.log.max", ValueKind::Integer { min: 0, max: 1_000 }, default "10";
    /// Whether a job manager or task manager sends what it and its workers log to CloudWatch Logs, as JSON.
    CLOUDWATCH_LOGS_ENABLED: "logs.cloudwatch.enabled", ValueKind::Boolean, default "false";
    /// The log group, as the managed service for Apache Flink names that of an application. It is made if it is not there.
    CLOUDWATCH_LOGS_GROUP: "logs.cloudwatch.group", ValueKind::Text, default "/aws/kinesis-analytics/thalweg";
    /// The log stream in it. It is made if it is not there.
    CLOUDWATCH_LOGS_STREAM: "logs.cloudwatch.stream", ValueKind::Text, default "kinesis-analytics-log-stream";
    /// Region of CloudWatch Logs. Without it: what the environment, the profile or the machine says.
    CLOUDWATCH_LOGS_REGION: "logs.cloudwatch.region", ValueKind::Text;
    /// Where something other than AWS is that speaks CloudWatch Logs, as in `http://127.0.0.1:4566`.
    CLOUDWATCH_LOGS_ENDPOINT: "logs.cloudwatch.endpoint", ValueKind::Text;
    /// Port at which Prometheus reads the metrics of a job manager or task manager, or a range of which the first free one is taken, as in
    /// `9250-9260`. Without it there is no such endpoint.
    PROMETHEUS_PORT: "metrics.reporter.prom.port", ValueKind::Text;
    /// The address of this machine at which it is read.
    PROMETHEUS_HOST: "metrics.reporter.prom.host", ValueKind::Text, default "127.0.0.1";
    /// Whether the leading job manager reports the metrics of its jobs to CloudWatch, four times a minute.
    CLOUDWATCH_ENABLED: "metrics.reporter.cloudwatch.enabled", ValueKind::Boolean, default "false";
    /// The namespace of these metrics. CloudWatch itself keeps names that begin with `AWS/` for services of AWS.
    CLOUDWATCH_NAMESPACE: "metrics.reporter.cloudwatch.namespace", ValueKind::Text, default "AWS/KinesisAnalytics";
    /// Region of CloudWatch. Without it: what the environment, the profile or the machine says.
    CLOUDWATCH_REGION: "metrics.reporter.cloudwatch.region", ValueKind::Text;
    /// Where something other than AWS is that speaks CloudWatch, as in `http://127.0.0.1:4566`.
    CLOUDWATCH_ENDPOINT: "metrics.reporter.cloudwatch.endpoint", ValueKind::Text;
    /// Whether the leading job manager writes the metrics of its jobs to its standard output, four times a minute, in CloudWatch's
    /// embedded metric format.
    EMF_ENABLED: "metrics.reporter.emf.enabled", ValueKind::Boolean, default "false";
    /// The finest level whose metrics go to CloudWatch: one level includes all that are coarser.
    METRICS_LEVEL: "metrics.level",
        ValueKind::Choice(&[&["APPLICATION"], &["TASK"], &["OPERATOR"], &["PARALLELISM"]]), default "APPLICATION";
}
