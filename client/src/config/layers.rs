//! Layers: several prefixes read as one, the later ones over the earlier, and where each value
//! comes from. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;

/// One layer's value of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayeredValue {
    /// The layer, as it was given.
    pub layer: String,
    /// The value there.
    pub value: Bytes,
}

/// A key as all layers together have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The value that counts: that of the last layer which has the key.
    pub wins: LayeredValue,
    /// What it hides, the nearest first.
    pub hidden: Vec<LayeredValue>,
}

/// Merges layers, the weakest first, each with its values by key below the layer's prefix.
pub fn explain_layers(
    layers: impl IntoIterator<Item = (String, BTreeMap<Bytes, Bytes>)>,
) -> BTreeMap<Bytes, Explained> {
    let mut merged: BTreeMap<Bytes, Explained> = BTreeMap::new();
    for (layer, values) in layers {
        for (key, value) in values {
            let wins = LayeredValue {
                layer: layer.clone(),
                value,
            };
            match merged.get_mut(&key) {
                Some(below) => {
                    let hidden = std::mem::replace(&mut below.wins, wins);
                    below.hidden.insert(0, hidden);
                }
                None => {
                    let hidden = Vec::new();
                    merged.insert(key, Explained { wins, hidden });
                }
            }
        }
    }
    merged
}

/// The layers of a prefix, by their names below it: `env/prod` holds the keys under `env/prod/`.
/// Keys in none of them are left out.
pub fn split_layers(
    values: &BTreeMap<Bytes, Bytes>,
    layers: &[String],
) -> Vec<(String, BTreeMap<Bytes, Bytes>)> {
    let of_layer = |layer: &String| {
        let prefix = Bytes::from(format!("{}/", layer.trim_end_matches('/')));
        let within = values.range(prefix.clone()..);
        let within = within.take_while(|(key, _)| key.starts_with(&prefix));
        let below = within.filter(|(key, _)| key.len() > prefix.len());
        let values = below.map(|(key, value)| (key.slice(prefix.len()..), value.clone()));
        (layer.clone(), values.collect())
    };
    layers.iter().map(of_layer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_layer_that_has_a_key_wins_and_tells_what_it_hides() {
        let layer = |name: &str, values: &[(&'static str, &'static str)]| {
            let values = values.iter().map(|(k, v)| ((*k).into(), (*v).into()));
            (name.to_owned(), values.collect::<BTreeMap<_, _>>())
        };
        let merged = explain_layers([
            layer("base", &[("a", "1"), ("b", "1")]),
            layer("env/prod", &[("b", "2"), ("c", "2")]),
            layer("host/x", &[("b", "3")]),
        ]);
        let shown = |key: &'static str| {
            let one = &merged[&Bytes::from(key)];
            let hidden: Vec<_> = one.hidden.iter().map(|it| it.layer.as_str()).collect();
            (one.wins.layer.as_str(), one.wins.value.clone(), hidden)
        };
        assert_eq!(shown("a"), ("base", "1".into(), vec![]));
        assert_eq!(shown("b"), ("host/x", "3".into(), vec!["env/prod", "base"]));
        assert_eq!(shown("c"), ("env/prod", "2".into(), vec![]));
        assert_eq!(merged.len(), 3);
    }

    #[test]
    fn a_layer_is_a_folder_below_the_prefix() {
        let keys = ["base/a", "base", "based/b", "env/prod/a", "env/prod/d/e"];
        let values = keys.map(|key| (Bytes::from(key), Bytes::from("v")));
        let layers = ["base".to_owned(), "env/prod/".to_owned(), "none".to_owned()];
        let split = split_layers(&values.into(), &layers);
        let keys = |at: usize| split[at].1.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(0), ["a"]);
        assert_eq!(keys(1), ["a", "d/e"]);
        assert!(keys(2).is_empty());
    }
}
