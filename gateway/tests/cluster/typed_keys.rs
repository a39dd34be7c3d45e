//! Changes of counters, sets and maps that the log decides, beside others that it has not decided
//! yet: what a strong read showed stays there.

use bytes::Bytes;
use quorate_proto::v1::change::{Change as Of, Elements, Field, Fields};
use quorate_proto::v1::{self, pipeline_request::Request, typed_value};

use crate::world::{World, get, in_world, level};

const KEY: &str = "k";

async fn keyspace(world: &World, conflict: &str) {
    let options = v1::KeyspaceOptions {
        mode: "mixed".to_owned(),
        conflict: conflict.to_owned(),
        ..v1::KeyspaceOptions::default()
    };
    world.create(conflict, options).await;
}

async fn change(world: &World, node: usize, (keyspace, change): (&str, Of), at: &str) {
    let change = v1::Change {
        change: Some(change),
    };
    let request = Request::Update(v1::UpdateRequest {
        keyspace: keyspace.to_owned(),
        key: Bytes::from_static(KEY.as_bytes()),
        change: Some(change),
        consistency: level(at),
        ..v1::UpdateRequest::default()
    });
    world.ask(node, request).await.unwrap();
}

/// What a linearizable read shows.
async fn decided(world: &World, keyspace: &str) -> typed_value::Value {
    let got = world.get(0, get(keyspace, KEY)).await;
    got.typed.unwrap().value.unwrap()
}

fn add(element: &'static str) -> Of {
    let elements = vec![Bytes::from_static(element.as_bytes())];
    Of::Add(Elements { elements })
}

fn set_field(name: &'static str, value: &'static str) -> Of {
    let put = Of::Put(Bytes::from_static(value.as_bytes()));
    let field = Field {
        name: Bytes::from_static(name.as_bytes()),
        change: Some(v1::Change { change: Some(put) }),
    };
    let fields = vec![field];
    Of::Fields(Fields { fields })
}

#[test]
fn an_increment_takes_no_acknowledged_sum_of_others_out_of_the_log() {
    in_world(91, |world| async move {
        keyspace(&world, "counter").await;
        let holders = world.holders("counter", KEY).0;
        let (one, other) = (holders[0], holders[1]);
        let by = |amount| ("counter", Of::Increment(amount));
        change(&world, one, by(100), "linearizable").await;
        change(&world, other, by(10), "linearizable").await;
        // Folds the hundred, and is not absorbed yet when the next one is decided.
        change(&world, one, by(1_000), "eventual:one").await;
        change(&world, other, by(1), "linearizable").await;
        let typed_value::Value::Counter(sum) = decided(&world, "counter").await else {
            panic!("a counter was made");
        };
        assert!(sum >= 111, "{sum}: 111 were decided");
    });
}

#[test]
fn an_add_takes_no_element_of_others_out_of_the_log() {
    in_world(92, |world| async move {
        keyspace(&world, "set").await;
        let holders = world.holders("set", KEY).0;
        let (one, other) = (holders[0], holders[1]);
        change(&world, one, ("set", add("e")), "linearizable").await;
        // Takes the place of the first one, and is not absorbed yet when the next one is decided.
        change(&world, one, ("set", add("e")), "eventual:one").await;
        change(&world, other, ("set", add("z")), "linearizable").await;
        let typed_value::Value::Set(set) = decided(&world, "set").await else {
            panic!("a set was made");
        };
        assert_eq!(set.elements, ["e", "z"]);
    });
}

#[test]
fn a_change_of_a_field_takes_no_other_field_out_of_the_log() {
    in_world(93, |world| async move {
        keyspace(&world, "map").await;
        let holders = world.holders("map", KEY).0;
        let (one, other) = (holders[0], holders[1]);
        change(&world, one, ("map", set_field("e", "1")), "linearizable").await;
        change(&world, one, ("map", set_field("e", "2")), "eventual:one").await;
        change(&world, other, ("map", set_field("z", "3")), "linearizable").await;
        let typed_value::Value::Map(map) = decided(&world, "map").await else {
            panic!("a map was made");
        };
        let names: Vec<&Bytes> = map.fields.iter().map(|field| &field.name).collect();
        assert_eq!(names, ["e", "z"]);
    });
}
