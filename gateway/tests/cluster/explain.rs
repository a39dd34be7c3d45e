//! `explain` against the truth: while links are cut, what it says of each level is what then
//! happens to a request.

use std::time::Duration;

use bytes::Bytes;
use quorate_proto::v1::{self, pipeline_request::Request};
use quorate_types::NodeId;

use crate::world::{NODES, World, eventually, get, in_world, put};

/// Of 100 trials, in so many what was said must be what happens.
const RIGHT_MIN_PERCENT: usize = 99;
const WITHIN: Duration = Duration::from_secs(2);

/// One request of each level that `explain` spoke of; how many there were, and those for which it
/// was wrong.
async fn try_all(world: &World, node: usize, turn: usize) -> (usize, Vec<String>) {
    let request = v1::ExplainRequest {
        keyspace: "default".to_owned(),
        key: Some(Bytes::from_static(b"known")),
    };
    let said = world.gateways[node].explain(&request).unwrap();
    let mut wrong = Vec::new();
    for outlook in &said.levels {
        // A session that has seen nothing.
        let is_session = outlook
            .level
            .is_some_and(|rung| rung.level() == v1::Level::Session);
        let consistency = Some(v1::Consistency {
            rungs: outlook.level.into_iter().collect(),
            session_token: Bytes::from(vec![0; usize::from(is_session)]),
            ..v1::Consistency::default()
        });
        let request = match (outlook.operation.as_str(), put("default", "known", "value")) {
            ("put", Request::Put(put)) => Request::Put(v1::PutRequest { consistency, ..put }),
            _ => Request::Get(v1::GetRequest {
                consistency,
                ..get("default", "known")
            }),
        };
        let happened = world.ask_within(node, WITHIN, request).await;
        if happened.is_ok() != outlook.servable {
            let answer = happened.map_or_else(|error| error.to_string(), |_| "served".to_owned());
            wrong.push(format!("turn {turn}, node {node}: {outlook:?}: {answer}"));
        }
    }
    (said.levels.len(), wrong)
}

/// Until all that can be heard was heard, and all silence noticed, and ranges are led again.
async fn settle(world: &World, is_cut: impl Fn(usize, usize) -> bool) {
    eventually("all is noticed", || {
        let all = 0..NODES as usize;
        let pairs = all
            .clone()
            .flat_map(|one| all.clone().map(move |other| (one, other)));
        pairs
            .filter(|(one, other)| one != other)
            .all(|(one, other)| {
                let id = NodeId(other as u64 + 1);
                world.nodes[one].peer_reachable(id) != is_cut(one, other)
            })
    })
    .await;
    tokio::time::sleep(Duration::from_secs(8)).await;
}

#[test]
fn what_is_said_of_levels_is_what_happens() {
    in_world(77, |world| async move {
        world.put(0, "default", "known", "value").await;
        let (mut trials, mut wrong) = (0, Vec::new());
        let nodes = NODES as usize;
        for turn in 0..2 * nodes {
            // One alone, or two and two.
            let side = |node: usize| match turn < nodes {
                true => node == turn,
                false => (node + turn) % nodes < 2,
            };
            for one in 0..nodes {
                for other in (0..nodes).filter(|other| side(one) != side(*other)) {
                    let (from, to) = (NodeId(one as u64 + 1), NodeId(other as u64 + 1));
                    world.network.cut(from, to);
                }
            }
            settle(&world, |one, other| side(one) != side(other)).await;
            for node in 0..nodes {
                let (tried, mistakes) = try_all(&world, node, turn).await;
                trials += tried;
                wrong.extend(mistakes);
            }
            world.network.heal();
            settle(&world, |_, _| false).await;
        }
        println!("{} of {trials} were right", trials - wrong.len());
        assert!(trials >= 300, "{trials} trials");
        assert!(
            wrong.len() * 100 <= trials * (100 - RIGHT_MIN_PERCENT),
            "{} of {trials} were wrong: {wrong:#?}",
            wrong.len()
        );
    });
}
