//! The endpoint from which Prometheus reads: `http://HOST:PORT/metrics`, in its text format.
//!
//! Samples go through the `metrics` facade into a recorder that lives as long as one answer: so what a process knows is computed when
//! it is asked for and never before, costs nothing while nobody asks, and a job that is gone leaves nothing behind.

use std::io;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use metrics::{Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::net::TcpListener;

use crate::scope::Sample;

/// The text format that every Prometheus reads.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Gives samples to a recorder of the `metrics` facade.
pub fn record(samples: &[Sample], recorder: &dyn Recorder) {
    const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));
    for sample in samples {
        let labels = sample.labels.iter().map(|(name, value)| Label::new(*name, value.clone()));
        let own = sample.own_labels.iter().map(|(name, value)| Label::new(name.clone(), value.clone()));
        let key = Key::from_parts(sample.name.clone(), labels.chain(own).collect::<Vec<_>>());
        if sample.is_total {
            if !sample.help.is_empty() {
                recorder.describe_counter(sample.name.clone().into(), None, sample.help.into());
            }
            recorder.register_counter(&key, &METADATA).absolute(sample.value as u64);
        } else {
            if !sample.help.is_empty() {
                recorder.describe_gauge(sample.name.clone().into(), None, sample.help.into());
            }
            recorder.register_gauge(&key, &METADATA).set(sample.value);
        }
    }
}

/// The text that Prometheus reads.
#[must_use]
pub fn render(samples: &[Sample]) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    record(samples, &recorder);
    recorder.handle().render()
}

/// Listens on the first free port of `ports`: one port, or a range as `9250-9260`, as in Flink.
///
/// # Errors
/// When the text is neither, or no port is free; the message says which.
pub async fn bind(host: &str, ports: &str) -> io::Result<TcpListener> {
    let wrong = || {
        let message = format!("`{ports}` is no port and no range of ports; write `9249` or `9250-9260`");
        io::Error::new(io::ErrorKind::InvalidInput, message)
    };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let number = |text: &str| text.trim().parse::<u16>().map_err(|_| wrong());
    let (first, last) = (number(first)?, number(last)?);
    let mut refused = wrong();
    for port in first..=last {
        match TcpListener::bind((host, port)).await {
            Ok(listener) => return Ok(listener),
            Err(error) => refused = error,
        }
    }
    let message = format!("cannot listen at {host}, port {ports}, for Prometheus: {refused}");
    Err(io::Error::new(refused.kind(), message))
}

/// Answers until `stopped`, each time with what `collect` gives.
///
/// # Errors
/// When the listener fails.
pub async fn serve<C, F>(
    listener: TcpListener,
    stopped: impl Future<Output = ()> + Send + 'static,
    collect: C,
) -> io::Result<()>
where
    C: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Vec<Sample>> + Send,
{
    let answer = move || {
        let collect = collect.clone();
        async move { ([(CONTENT_TYPE, TEXT)], render(&collect().await)) }
    };
    let router = Router::new().route("/", get(answer.clone())).route("/metrics", get(answer));
    axum::serve(listener, router).with_graceful_shutdown(stopped).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use thalweg_test_support::http;
    use tokio::sync::oneshot;

    fn samples() -> Vec<Sample> {
        let labels = vec![("job_name", "say \"hi\"\n".to_string())];
        vec![
            Sample {
                is_total: true,
                ..Sample::gauge("flink_jobmanager_job_numRestarts", "Restarts", &labels, 3.0)
            },
            Sample {
                own_labels: vec![("Program".into(), "Words".into())],
                ..Sample::gauge("flink_taskmanager_job_task_operator_Filtered", "", &labels, -2.5)
            },
        ]
    }

    #[test]
    fn samples_become_the_text_format() {
        let text = render(&samples());
        for line in [
            "# HELP flink_jobmanager_job_numRestarts Restarts",
            "# TYPE flink_jobmanager_job_numRestarts counter",
            "flink_jobmanager_job_numRestarts{job_name=\"say \\\"hi\\\"\\n\"} 3",
            "# TYPE flink_taskmanager_job_task_operator_Filtered gauge",
            "flink_taskmanager_job_task_operator_Filtered{job_name=\"say \\\"hi\\\"\\n\",Program=\"Words\"} -2.5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert_eq!(render(&[]), "");
    }

    #[tokio::test]
    async fn the_endpoint_answers_until_it_is_stopped() {
        let listener = bind("127.0.0.1", "0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async { drop(stopped.await) };
        let serving = serve(listener, stopped, || async { samples() });
        let asking = async {
            let base = format!("http://{address}");
            let answer = http::request(&base, "GET", "/metrics", &[]).await.unwrap();
            stop.send(()).unwrap();
            answer
        };
        let (served, answer) = tokio::join!(serving, asking);
        served.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        assert!(String::from_utf8(answer.body).unwrap().contains("numRestarts"));
    }

    #[tokio::test]
    async fn the_first_free_port_of_a_range_is_taken() {
        let taken = bind("127.0.0.1", "0").await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = bind("127.0.0.1", &port.to_string()).await.unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("cannot listen at 127.0.0.1, port {port}, for Prometheus")),
            "{error}"
        );
        let last = port.saturating_add(20);
        let next = bind("127.0.0.1", &format!("{port}-{last}")).await.unwrap();
        assert!(next.local_addr().unwrap().port() > port);
        for wrong in ["", "x", "1-", "9260-x", "70000"] {
            let error = bind("127.0.0.1", wrong).await.unwrap_err().to_string();
            assert!(error.contains("is no port and no range"), "{error}");
        }
    }
}
