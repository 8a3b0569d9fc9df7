//! Asynchronous requests to a server through whole jobs: in order or not, too slow, and under way when the job fails.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use thalweg::prelude::*;
use thalweg::testing::{LocalCluster, run_local};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};

/// A server that answers each line with the line and `!`, on a thread for each connection; never the line `silence`.
#[expect(clippy::disallowed_methods, reason = "its threads end with the test's process")]
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            std::thread::spawn(move || {
                let mut line = String::new();
                BufReader::new(connection.try_clone().unwrap()).read_line(&mut line).unwrap();
                if line.trim() == "silence" {
                    // Until the other side has given up.
                    let _ = io::copy(&mut connection, &mut io::sink());
                    return;
                }
                let _ = writeln!(connection, "{}!", line.trim());
            });
        }
    });
    address
}

async fn ask(server: SocketAddr, question: String) -> io::Result<String> {
    let mut connection = tokio::io::BufReader::new(tokio::net::TcpStream::connect(server).await?);
    connection.write_all(format!("{question}\n").as_bytes()).await?;
    let mut answer = String::new();
    connection.read_line(&mut answer).await?;
    Ok(answer.trim().to_string())
}

fn questions(count: u32) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

fn answers(count: u32) -> Vec<String> {
    (0..count).map(|number| format!("{number}!")).collect()
}

#[test]
fn acceptance_ds_43_order_is_kept_or_not_as_chosen() {
    let server = server();
    let (ordered, unordered, by_key) = run_local(move |env| {
        let numbers = env.from_iter(questions(200));
        let ask = move |question| ask(server, question);
        Ok((
            numbers.async_map(AsyncOptions::ordered().capacity(20), ask).collect(),
            numbers.async_map(AsyncOptions::unordered().capacity(20), ask).collect(),
            numbers.key_by(String::len).async_map(AsyncOptions::unordered(), ask).collect(),
        ))
    })
    .unwrap();
    assert_eq!(ordered.take(), answers(200));
    let mut unordered = unordered.take();
    unordered.sort_by_key(|answer| answer.trim_end_matches('!').parse::<u32>().unwrap());
    assert_eq!(unordered, answers(200));
    // Those of the same length are asked one after the other.
    let by_key = by_key.take();
    for length in 2..=4 {
        let of_key = |answers: &[String]| {
            answers.iter().filter(|answer| answer.len() == length).cloned().collect::<Vec<_>>()
        };
        assert_eq!(of_key(&by_key), of_key(&answers(200)));
    }
}

#[test]
fn acceptance_ds_43_a_request_that_is_never_answered_times_out() {
    let server = server();
    let options = AsyncOptions::ordered().timeout(Duration::from_millis(200));
    let patient = options.clone();
    let answers = run_local(move |env| {
        let questions = env.from_iter(["a", "silence", "b"].map(String::from));
        let request = move |question| async move { ask(server, question).await.map(|answer| [answer]) };
        let operator =
            AsyncIo::new(patient, request).on_timeout(|late| Ok::<_, Failure>([format!("{late}?")]));
        Ok(questions.async_io(operator).collect())
    })
    .unwrap();
    assert_eq!(answers.take(), ["a!", "silence?", "b!"]);

    let error = run_local(move |env| {
        let questions = env.from_iter(["silence".to_string()]);
        questions.async_map(options, move |question| ask(server, question)).collect();
        Ok(())
    })
    .unwrap_err();
    assert!(error.to_string().contains("has not been answered within 200 ms"), "{error}");
}

#[test]
fn acceptance_ds_43_requests_under_way_are_part_of_the_checkpoint() {
    const COUNT: u32 = 3_000;
    let server = server();
    let (seen, has_failed) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let cluster = || {
        LocalCluster::new()
            .configure("parallelism.default", 2)
            .configure("execution.checkpointing.interval", "5 ms")
            .configure("restart-strategy.type", "fixed-delay")
            .configure("restart-strategy.fixed-delay.delay", "1 ms")
    };
    let answers_of = |keyed: bool| {
        let (seen, has_failed) = (Arc::clone(&seen), Arc::clone(&has_failed));
        let answers = cluster().run(move |env| {
            let numbers = env.from_iter(questions(COUNT)).rebalance();
            let request = move |question| ask(server, question);
            let options = AsyncOptions::unordered().capacity(30);
            let answers = match keyed {
                true => numbers.key_by(String::clone).async_map(options, request),
                false => numbers.async_map(options, request),
            };
            let checked = answers.try_map(move |answer| {
                // Behind some checkpoints.
                let count = seen.fetch_add(1, Ordering::Relaxed);
                match count > COUNT / 2 && !has_failed.swap(true, Ordering::Relaxed) {
                    true => Err("it fails once"),
                    false => Ok(answer),
                }
            });
            Ok(checked.collect())
        });
        let mut answers = answers.unwrap().take();
        answers.sort_by_key(|answer| answer.trim_end_matches('!').parse::<u32>().unwrap());
        answers
    };
    for keyed in [false, true] {
        seen.store(0, Ordering::Relaxed);
        has_failed.store(false, Ordering::Relaxed);
        let found = answers_of(keyed);
        assert!(has_failed.load(Ordering::Relaxed));
        assert_eq!(found, answers(COUNT), "by key: {keyed}");
    }
}

#[test]
fn records_are_joined_with_the_rows_that_a_server_has_for_their_keys() {
    let server = server();
    let asked = Arc::new(AtomicU32::new(0));
    // No rows of `none`, two of all others.
    let lookup = {
        let asked = Arc::clone(&asked);
        Lookup::new(move |key: String| {
            asked.fetch_add(1, Ordering::Relaxed);
            async move {
                let answer = ask(server, key).await?;
                let rows = if answer == "none!" { Vec::new() } else { vec![answer.clone(), answer + "!"] };
                Ok::<_, io::Error>(rows)
            }
        })
    };
    let cached = lookup.clone().cache(LookupCache::of_keys(10).expire_after_write(hours(1)));
    let (inner, left, one_by_one) = run_local(move |env| {
        let words = env.from_iter(["a", "none", "b"].map(String::from));
        let many = env.generate(None, Some(300), |number| format!("{}", number % 3)).set_parallelism(1);
        let one_at_a_time = cached.options(AsyncOptions::ordered().capacity(1));
        Ok((
            words
                .lookup_join(String::clone, lookup.clone())
                .inner(|word, row| format!("{word}={row}"))
                .collect(),
            words
                .lookup_join(String::clone, lookup)
                .left_outer(|word, row| format!("{word}={}", row.map_or("-", String::as_str)))
                .collect(),
            many.lookup_join(String::clone, one_at_a_time)
                .inner(|word, row| format!("{word}={row}"))
                .collect(),
        ))
    })
    .unwrap();
    assert_eq!(inner.take(), ["a=a!", "a=a!!", "b=b!", "b=b!!"]);
    assert_eq!(left.take(), ["a=a!", "a=a!!", "none=-", "b=b!", "b=b!!"]);
    assert_eq!(one_by_one.take().len(), 600);
    assert_eq!(asked.load(Ordering::Relaxed), 3 + 3 + 3, "each key is asked for once where there is a cache");
}
