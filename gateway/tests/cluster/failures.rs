//! Leaders that vanish, majorities out of reach, a full edge, a node that stops.

use std::time::Duration;

use quorate_gateway::Limits;
use quorate_proto::v1::{self, pipeline_request::Request};
use quorate_types::{Effect, Reason};
use tokio::time::Instant;
use tonic::Code;

use crate::world::{PATIENCE, World, get, in_world, level, put};

#[test]
fn writes_go_on_when_the_leader_is_cut_off() {
    in_world(31, |world| async move {
        for round in 0..3 {
            world.put(0, "default", "k", "before").await;
            let leader = world.leader("default", "k").await;
            world.isolate(leader);
            let began = Instant::now();
            let value = format!("after {round}");
            let through = (leader + 1) % 4;
            world.put(through, "default", "k", &value).await;
            let took = began.elapsed();
            assert!(took < Duration::from_secs(5), "fail-over took {took:?}");
            for node in (0..4).filter(|node| *node != leader) {
                assert_eq!(
                    world.value(node, "default", "k").await.as_deref(),
                    Some(&value[..])
                );
            }
            world.network.heal();
            assert_eq!(
                world.value(leader, "default", "k").await.as_deref(),
                Some(&value[..])
            );
        }
    });
}

#[test]
fn without_a_majority_writes_end_truthfully() {
    in_world(32, |world| async move {
        world.put(0, "default", "k", "kept").await;
        let leader = world.leader("default", "k").await;
        world.isolate(leader);
        let began = Instant::now();
        let within = Duration::from_secs(4);
        let error = world
            .ask_within(leader, within, put("default", "k", "lost"))
            .await
            .unwrap_err();
        assert!(began.elapsed() <= within + Duration::from_millis(100));
        match error.effect() {
            Effect::None => assert_eq!(error.code(), Code::Unavailable, "{error}"),
            Effect::Unknown => assert_eq!(error.code(), Code::DeadlineExceeded, "{error}"),
            Effect::Applied => panic!("{error}"),
        }
        let handle = v1::Error::from(error.clone())
            .metadata
            .get("handle")
            .cloned();
        assert_eq!(handle.is_some(), error.effect() == Effect::Unknown);
        world.network.heal();
        let value = world.value((leader + 1) % 4, "default", "k").await.unwrap();
        if error.effect() == Effect::None {
            assert_eq!(value, "kept");
        }
        if let Some(handle) = handle {
            // Once the range has spoken, that is what stays.
            let ask = || {
                Request::Outcome(v1::OutcomeRequest {
                    handle: handle.clone(),
                })
            };
            world.ask(0, ask()).await.unwrap();
            let value = world.value(0, "default", "k").await.unwrap();
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert_eq!(world.value(1, "default", "k").await.unwrap(), value);
        }
    });
}

#[test]
fn time_that_is_used_up_has_no_effect() {
    in_world(33, |world| async move {
        let error = world
            .ask_within(0, Duration::ZERO, put("default", "k", "v"))
            .await
            .unwrap_err();
        assert_eq!(
            (error.code(), error.effect()),
            (Code::DeadlineExceeded, Effect::None)
        );
        assert_eq!(world.value(0, "default", "k").await, None);
    });
}

#[test]
fn past_the_limit_the_answer_is_come_again() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let limits = Limits {
            requests_max: 4,
            ..Limits::default()
        };
        let world = World::start(34, limits).await;
        world.put(0, "default", "k", "v").await;
        let many = (0..16).map(|_| world.ask(0, put("default", "k", "v")));
        let results = futures::future::join_all(many).await;
        let (served, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert!(served.len() >= 4 && !refused.is_empty());
        for error in refused.into_iter().map(Result::unwrap_err) {
            assert_eq!(error.reason(), Some(Reason::Overloaded));
            assert_eq!(
                (error.code(), error.effect()),
                (Code::ResourceExhausted, Effect::None)
            );
            assert!(error.retry_after().is_some());
        }
        world.put(0, "default", "k", "v").await;
    });
}

#[test]
fn a_node_with_a_strange_clock_refuses_clients_until_it_is_right_again() {
    in_world(36, |world| async move {
        world.put(0, "default", "k", "v").await;
        world.clocks[2].set_offset(20_000_000);
        let asked = async || world.ask(2, put("default", "k", "w")).await;
        let deadline = Instant::now() + PATIENCE;
        let error = loop {
            match asked().await {
                Err(error) => break error,
                Ok(_) => assert!(Instant::now() < deadline, "its clock was never noticed"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        assert_eq!(
            (error.reason(), error.effect()),
            (Some(Reason::ClockOffset), Effect::None)
        );
        // The others are as they were.
        world.put(0, "default", "k", "x").await;
        world.clocks[2].set_offset(0);
        let deadline = Instant::now() + PATIENCE;
        while asked().await.is_err() {
            assert!(Instant::now() < deadline, "it was never let in again");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
}

#[test]
fn a_node_that_stops_says_so_and_others_go_on() {
    in_world(35, |world| async move {
        world.put(0, "default", "k", "v").await;
        let leader = world.leader("default", "k").await;
        assert!(world.gateways[leader].ready().is_ok());
        world.gateways[leader].stop();
        assert!(world.gateways[leader].ready().is_err());
        let error = world
            .ask(leader, put("default", "k", "v"))
            .await
            .unwrap_err();
        assert_eq!(
            (error.reason(), error.effect()),
            (Some(Reason::NodeStopping), Effect::None)
        );
        world.nodes[leader].hand_over().await;
        world.put((leader + 1) % 4, "default", "k", "w").await;
    });
}

/// Nobody has noticed the cut yet, so who was cut off is asked as often as the others.
#[test]
fn an_eventual_read_waits_for_no_coordinator_that_was_cut_off_a_moment_ago() {
    in_world(97, |world| async move {
        let key = (0..).map(|key: u32| format!("{key}"));
        let mut key = key.filter(|key| !world.holders("default", key).0.contains(&0));
        let key = key.next().unwrap();
        world.put(0, "default", &key, "value").await;
        let read = || {
            Request::Get(v1::GetRequest {
                consistency: level("eventual:one"),
                ..get("default", &key)
            })
        };
        world.ask(0, read()).await.unwrap();
        let away = world.holders("default", &key).0[0];
        world.isolate(away);
        let reads = (0..20).map(|_| world.ask_within(0, Duration::from_millis(250), read()));
        for answer in futures::future::join_all(reads).await {
            answer.unwrap();
        }
    });
}
