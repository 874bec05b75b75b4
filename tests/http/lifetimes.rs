//! Many at once, and clients, handlers and leases that end too early or too late.

use crate::api::{Api, LEASE, created, gate, layer, post, status, store};
use axum::extract::Request;
use axum::middleware::{self, Next};
use futures_util::FutureExt;
use futures_util::future::join_all;
use hapax::claim::LeaseError;
use hapax::confirm::Inline;
use hapax::confirm::claims::Grant;
use hapax::http::IdempotencyLayer;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::sleep;
use tower::ServiceExt as _;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_hundred_at_once_one_is_processed() {
    for round in 0..20 {
        let api = Api::new(layer(), |run, _| async move {
            tokio::task::yield_now().await;
            created(&format!("run {run}"))
        });
        let key = format!("k-{round}");
        let sent = (0..100).map(|_| {
            let (api, request) = (api.clone(), post(&key));
            tokio::spawn(async move { api.send(request).await })
        });
        let mut fresh = 0;
        for reply in join_all(sent).await {
            let reply = reply.unwrap();
            match reply.status.as_u16() {
                201 if reply.is_replay() => reply.assert_replay(201, "run 1"),
                201 => fresh += 1,
                _ => {
                    reply.assert_problem(409, "in-flight");
                    assert_eq!(reply.header("retry-after"), Some("1"));
                }
            }
        }
        assert_eq!((fresh, api.runs()), (1, 1));
        api.send(post(&key)).await.assert_replay(201, "run 1");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn those_who_wait_get_the_one_answer() {
    let layer = layer().wait(Duration::from_secs(60));
    let api = Api::new(layer, |run, _| async move {
        sleep(Duration::from_millis(20)).await;
        created(&format!("run {run}"))
    });
    let sent = (0..100).map(|_| {
        let api = api.clone();
        tokio::spawn(async move { api.send(post("k")).await })
    });
    let replies = join_all(sent).await;
    let replays = replies.iter().filter(|reply| reply.as_ref().unwrap().is_replay()).count();
    assert!(replies.iter().all(|reply| reply.as_ref().unwrap().body == "run 1"));
    assert_eq!((replays, api.runs()), (99, 1));
}

#[tokio::test]
async fn whoever_waits_in_vain_hears_that_it_is_in_flight() {
    let layer = layer().wait(Duration::from_millis(20));
    let api = Api::new(layer, |_, _| std::future::pending());
    let stuck = tokio::spawn({
        let api = api.clone();
        async move { api.send(post("k")).await }
    });
    while api.runs() == 0 {
        tokio::task::yield_now().await;
    }
    api.send(post("k")).await.assert_problem(409, "in-flight");
    stuck.abort();
}

/// Says when the server has let go of a request.
struct Watched(Arc<Notify>);

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// The handler goes on, and its answer is there for a retry.
#[tokio::test]
async fn a_client_that_goes_away_cancels_nothing() {
    let (may_end, has_ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (end, ended) = (Arc::clone(&may_end), Arc::clone(&has_ended));
    let api = Api::new(layer(), move |run, _| {
        let (end, ended) = (Arc::clone(&end), Arc::clone(&ended));
        async move {
            end.notified().await;
            ended.notify_one();
            created(&format!("run {run}"))
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let is_gone = Arc::new(Notify::new());
    let gone = Arc::clone(&is_gone);
    let watched = api.router().layer(middleware::from_fn(move |request, next: Next| {
        let end = Watched(Arc::clone(&gone));
        async move {
            let _end = end;
            next.run(request).await
        }
    }));
    let server = tokio::spawn(axum::serve(listener, watched).into_future());

    let mut client = TcpStream::connect(address).await.unwrap();
    let request = "POST /charges HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k\r\n\
                   Content-Length: 9\r\n\r\namount=10";
    client.write_all(request.as_bytes()).await.unwrap();
    while api.runs() == 0 {
        tokio::task::yield_now().await;
    }
    api.send(post("k")).await.assert_problem(409, "in-flight");
    drop(client);
    is_gone.notified().await;
    may_end.notify_one();
    has_ended.notified().await;

    let mut retry = TcpStream::connect(address).await.unwrap();
    let request = request.replace("Host: x", "Host: x\r\nConnection: close");
    retry.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    retry.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 Created\r\n"), "{answer}");
    assert!(answer.contains("idempotency-replayed: true\r\n"), "{answer}");
    assert!(answer.ends_with("run 1"), "{answer}");
    assert_eq!(api.runs(), 1);
    server.abort();
}

/// A request is taken up when its answer is first asked for; from then on it takes its course.
#[tokio::test]
async fn an_answer_that_nobody_awaits_is_kept_nevertheless() {
    for polls in 1..5 {
        let api = Api::new(layer(), |run, _| async move {
            tokio::task::yield_now().await;
            created(&format!("run {run}"))
        });
        let mut answer = Some(Box::pin(api.router().oneshot(post("k"))));
        for _ in 0..polls {
            if answer.as_mut().and_then(FutureExt::now_or_never).is_some() {
                answer = None;
            }
            tokio::task::yield_now().await;
        }
        drop(answer);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        api.send(post("k")).await.assert_replay(201, "run 1");
    }
}

#[tokio::test]
async fn a_panic_frees_the_key() {
    let api = Api::new(layer(), |run, _| async move {
        assert!(run > 1, "on purpose");
        created("done")
    });
    api.send(post("k")).await.assert_problem(500, "handler-failed");
    api.send(post("k")).await.assert_fresh(201, "done");
    api.send(post("k")).await.assert_replay(201, "done");
}

#[tokio::test]
async fn a_panic_is_kept_where_failures_are() {
    let api = Api::new(layer().remember(|_| true), |run, _| async move {
        assert!(run > 1, "on purpose");
        created("done")
    });
    let first = api.send(post("k")).await;
    first.assert_problem(500, "handler-failed");
    api.send(post("k")).await.assert_replay(500, &first.body);
    assert_eq!(api.runs(), 1);
}

/// It takes ten leases, and all the while nobody takes over.
#[tokio::test(start_paused = true)]
async fn a_lease_does_not_run_out_over_a_slow_handler() {
    let (clock, store) = store();
    let layer = IdempotencyLayer::single_tenant(gate(Inline(store)));
    let api = Api::new(layer, move |run, _| {
        let clock = Arc::clone(&clock);
        async move {
            for _ in 0..60 {
                sleep(LEASE / 6).await;
                clock.advance(LEASE / 6);
            }
            created(&format!("run {run}"))
        }
    });
    let slow = tokio::spawn({
        let api = api.clone();
        async move { api.send(post("k")).await }
    });
    for _ in 0..50 {
        sleep(LEASE / 6 + Duration::from_millis(1)).await;
        let reply = api.send(post("k")).await;
        reply.assert_problem(409, "in-flight");
        let pause: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=LEASE.as_secs() / 2).contains(&pause), "{pause}");
    }
    slow.await.unwrap().assert_fresh(201, "run 1");
    api.send(post("k")).await.assert_replay(201, "run 1");
}

/// The lease ends at a stroke, as it does for a process that was paused.
#[tokio::test]
async fn whoever_was_taken_over_is_told_so() {
    for kept in [true, false] {
        let (clock, store) = store();
        let layer = IdempotencyLayer::single_tenant(gate(Inline(store)));
        let resume = Arc::new(Notify::new());
        let resumed = Arc::clone(&resume);
        let api = Api::new(layer, move |run, request: Request| {
            let resumed = Arc::clone(&resumed);
            async move {
                let grant = *request.extensions().get::<Grant>().unwrap();
                assert_eq!((u64::from(grant.attempt), grant.is_takeover), (run, run == 2));
                if run == 1 {
                    resumed.notified().await;
                }
                status(if kept || run == 2 { 201 } else { 500 }, &format!("run {run}"))
            }
        });
        let paused = tokio::spawn({
            let api = api.clone();
            async move { api.send(post("k")).await }
        });
        while api.runs() == 0 {
            tokio::task::yield_now().await;
        }
        clock.advance(LEASE);
        api.send(post("k")).await.assert_fresh(201, "run 2");
        resume.notify_one();
        let late = paused.await.unwrap();
        assert_eq!(late.extensions.get(), Some(&LeaseError::Stale));
        if kept {
            late.assert_problem(409, "superseded");
            assert_eq!(late.header("retry-after"), Some("1"));
        } else {
            late.assert_fresh(500, "run 1");
        }
        api.send(post("k")).await.assert_replay(201, "run 2");
    }
}
