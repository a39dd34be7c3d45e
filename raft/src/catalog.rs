//! The catalog: which keyspaces, ranges and nodes there are, and what lives where.
//!
//! One value of the meta range, replaced as a whole by compare-and-set on its epoch; every node
//! works from a cached copy. Plain code over values.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message;
use quorate_proto::internal as wire;
use quorate_proto::options::{OptionsError, from_wire, to_wire};
use quorate_types::{
    KeyInterval, KeyspaceId, KeyspaceOptions, NodeId, RangeId, Ring, RingNode, encode_key,
};

/// The key of the meta range that holds the catalog.
pub const CATALOG_KEY: &[u8] = b"\0\0\0\0catalog";
/// The keyspace that always exists.
pub const KEYSPACE_DEFAULT: &str = "default";
/// Ranges of one cluster; past it keyspaces are refused.
pub const RANGES_MAX: usize = 20_000;

/// Why a catalog cannot be used or changed so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// The bytes are not a catalog.
    #[error("the catalog does not decode: {0}")]
    Corrupt(String),
    /// Options that no node would accept.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The name is taken.
    #[error("keyspace {0:?} exists already")]
    KeyspaceExists(String),
    /// There is no such keyspace.
    #[error("there is no keyspace {0:?}")]
    KeyspaceMissing(String),
    /// More replicas than nodes.
    #[error("{wanted} replicas are wanted, but there are {nodes} nodes")]
    TooFewNodes {
        /// The replication factor.
        wanted: u8,
        /// Nodes that take ranges.
        nodes: usize,
    },
    /// Too many ranges.
    #[error("a cluster has at most {RANGES_MAX} ranges")]
    TooManyRanges,
    /// Something that must not be changed or removed.
    #[error("{0}")]
    Refused(String),
}

/// A keyspace, ready for routing.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyspaceView {
    /// Its number, the first part of every encoded key.
    pub id: KeyspaceId,
    /// Its name.
    pub name: String,
    /// Its options.
    pub options: KeyspaceOptions,
    /// The epoch of its making: another keyspace of the same name is another one.
    pub incarnation: u64,
    /// Its ranges in the order of their intervals (and buckets).
    pub ranges: Vec<RangeView>,
}

/// A range and where it lives.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeView {
    /// Range and Raft group.
    pub id: RangeId,
    /// Encoded keys.
    pub interval: KeyInterval,
    /// Voters; the first is the preferred leader.
    pub replicas: Vec<NodeId>,
    /// The bucket, in hash-partitioned keyspaces.
    pub bucket: u32,
    /// Those who formed the group.
    pub founders: Vec<NodeId>,
}

/// A node as the catalog has it.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeView {
    /// The node.
    pub id: NodeId,
    /// Where it takes gRPC, `HOST:PORT`.
    pub endpoint: String,
    /// Where it serves HTTP.
    pub http: String,
    /// Its failure domain.
    pub zone: String,
    /// Its share of ranges, relative to the others'.
    pub weight: u32,
    /// Replaced: it never serves again under this id.
    pub removed: bool,
}

/// One epoch of the catalog, indexed.
#[derive(Clone, Debug, Default)]
pub struct CatalogView {
    wire: wire::Catalog,
    keyspaces: Vec<KeyspaceView>,
    by_name: HashMap<String, usize>,
    nodes: Vec<NodeView>,
}

impl CatalogView {
    /// Indexes a catalog.
    pub fn new(wire: wire::Catalog) -> Result<CatalogView, CatalogError> {
        let mut keyspaces = Vec::with_capacity(wire.keyspaces.len());
        for keyspace in &wire.keyspaces {
            let options = keyspace.options.clone().unwrap_or_default();
            keyspaces.push(KeyspaceView {
                id: KeyspaceId(keyspace.id),
                name: keyspace.name.clone(),
                options: from_wire(&options, KeyspaceOptions::default())?,
                incarnation: keyspace.incarnation,
                ranges: Vec::new(),
            });
        }
        let position: HashMap<u32, usize> = keyspaces
            .iter()
            .enumerate()
            .map(|(i, k)| (k.id.0, i))
            .collect();
        for range in &wire.ranges {
            let Some(&i) = position.get(&range.keyspace) else {
                continue;
            };
            keyspaces[i].ranges.push(RangeView {
                id: RangeId(range.id),
                interval: KeyInterval {
                    start: range.start.clone(),
                    end: range.end.clone(),
                },
                replicas: range.replicas.iter().copied().map(NodeId).collect(),
                bucket: range.bucket,
                founders: range.founders.iter().copied().map(NodeId).collect(),
            });
        }
        for keyspace in &mut keyspaces {
            keyspace
                .ranges
                .sort_by(|a, b| a.interval.start.cmp(&b.interval.start));
        }
        let by_name = keyspaces
            .iter()
            .enumerate()
            .map(|(i, k)| (k.name.clone(), i))
            .collect();
        let nodes = wire.nodes.iter().map(node_view).collect();
        Ok(CatalogView {
            wire,
            keyspaces,
            by_name,
            nodes,
        })
    }

    /// Decodes and indexes a stored catalog.
    pub fn decode(bytes: Bytes) -> Result<CatalogView, CatalogError> {
        let wire =
            wire::Catalog::decode(bytes).map_err(|e| CatalogError::Corrupt(e.to_string()))?;
        CatalogView::new(wire)
    }

    /// Counts changes; 0: there is no catalog yet.
    pub fn epoch(&self) -> u64 {
        self.wire.epoch
    }

    /// The catalog as it travels and is stored.
    pub fn wire(&self) -> &wire::Catalog {
        &self.wire
    }

    /// A keyspace by name.
    pub fn keyspace(&self, name: &str) -> Option<&KeyspaceView> {
        self.by_name.get(name).map(|i| &self.keyspaces[*i])
    }

    /// All keyspaces.
    pub fn keyspaces(&self) -> &[KeyspaceView] {
        &self.keyspaces
    }

    /// All nodes, removed ones included.
    pub fn nodes(&self) -> &[NodeView] {
        &self.nodes
    }

    /// A node by id.
    pub fn node(&self, id: NodeId) -> Option<&NodeView> {
        self.nodes.iter().find(|n| n.id == id)
    }

    /// A range by id, with its keyspace.
    pub fn range(&self, id: RangeId) -> Option<(&KeyspaceView, &RangeView)> {
        self.keyspaces
            .iter()
            .find_map(|k| k.ranges.iter().find(|r| r.id == id).map(|r| (k, r)))
    }

    /// Voters of the meta range; empty in a catalog that has never been stored.
    pub fn meta_voters(&self) -> Vec<NodeId> {
        self.wire.meta_voters.iter().copied().map(NodeId).collect()
    }

    /// The ring of the nodes that take ranges.
    pub fn ring(&self) -> Ring {
        Ring::new(self.nodes.iter().filter(|n| !n.removed).map(|n| RingNode {
            id: n.id,
            zone: n.zone.clone(),
            weight: n.weight,
        }))
    }
}

impl KeyspaceView {
    /// The range of a user key, and the key as it is stored there.
    pub fn route(&self, key: &[u8]) -> (&RangeView, Bytes) {
        let encoded = encode_key(self.id, &self.options.partitioning, key);
        (self.route_encoded(&encoded), encoded)
    }

    /// The range of an encoded key.
    pub fn route_encoded(&self, encoded: &[u8]) -> &RangeView {
        let after = self
            .ranges
            .partition_point(|r| r.interval.start.as_ref() <= encoded);
        &self.ranges[after.saturating_sub(1)]
    }
}

fn node_view(node: &wire::CatalogNode) -> NodeView {
    NodeView {
        id: NodeId(node.id),
        endpoint: node.endpoint.clone(),
        http: node.http.clone(),
        zone: node.zone.clone(),
        weight: node.weight,
        removed: node.removed,
    }
}

/// The first catalog of a cluster: its nodes, and the default keyspace.
pub fn first_catalog(
    cluster: &str,
    nodes: Vec<wire::CatalogNode>,
    meta_voters: &[NodeId],
) -> Result<wire::Catalog, CatalogError> {
    let base = wire::Catalog {
        epoch: 0,
        cluster: Bytes::copy_from_slice(cluster.as_bytes()),
        nodes,
        next_range: RangeId::META.0 + 1,
        next_keyspace: 1,
        meta_voters: meta_voters.iter().map(|n| n.0).collect(),
        ..wire::Catalog::default()
    };
    let nodes = base.nodes.iter().filter(|n| !n.removed).count();
    let replication = u8::try_from(nodes.min(3)).unwrap_or(3);
    let options = KeyspaceOptions {
        replication,
        ..KeyspaceOptions::default()
    };
    with_keyspace(&base, KEYSPACE_DEFAULT, &options)
}

/// The next catalog, with one more keyspace.
pub fn with_keyspace(
    base: &wire::Catalog,
    name: &str,
    options: &KeyspaceOptions,
) -> Result<wire::Catalog, CatalogError> {
    if base.keyspaces.iter().any(|k| k.name == name) {
        return Err(CatalogError::KeyspaceExists(name.to_string()));
    }
    let ring = CatalogView::new(base.clone())?.ring();
    if ring.nodes().len() < usize::from(options.replication) {
        let nodes = ring.nodes().len();
        return Err(CatalogError::TooFewNodes {
            wanted: options.replication,
            nodes,
        });
    }
    let mut next = advance(base);
    let id = KeyspaceId(next.next_keyspace);
    next.next_keyspace += 1;
    next.keyspaces.push(wire::CatalogKeyspace {
        id: id.0,
        name: name.to_string(),
        options: Some(to_wire(options)),
        incarnation: next.epoch,
    });
    for (bucket, interval) in options.partitioning.intervals(id).into_iter().enumerate() {
        let range = RangeId(next.next_range);
        next.next_range += 1;
        let placement = ring.place(range, options.replication);
        next.ranges.push(wire::CatalogRange {
            id: range.0,
            keyspace: id.0,
            start: interval.start,
            end: interval.end,
            replicas: placement.primaries.iter().map(|n| n.0).collect(),
            founders: placement.primaries.iter().map(|n| n.0).collect(),
            bucket: u32::try_from(bucket).unwrap_or(0),
        });
    }
    if next.ranges.len() > RANGES_MAX {
        return Err(CatalogError::TooManyRanges);
    }
    Ok(next)
}

/// The next catalog, with other options for a keyspace. What cannot change is checked by the
/// caller.
pub fn with_options(
    base: &wire::Catalog,
    name: &str,
    options: &KeyspaceOptions,
) -> Result<wire::Catalog, CatalogError> {
    let mut next = advance(base);
    let keyspace = next.keyspaces.iter_mut().find(|k| k.name == name);
    let missing = || CatalogError::KeyspaceMissing(name.to_string());
    keyspace.ok_or_else(missing)?.options = Some(to_wire(options));
    Ok(next)
}

/// The next catalog, without a keyspace and its ranges.
pub fn without_keyspace(base: &wire::Catalog, name: &str) -> Result<wire::Catalog, CatalogError> {
    if name == KEYSPACE_DEFAULT {
        let why = format!("keyspace {KEYSPACE_DEFAULT:?} always exists");
        return Err(CatalogError::Refused(why));
    }
    let mut next = advance(base);
    let missing = || CatalogError::KeyspaceMissing(name.to_string());
    let position = next
        .keyspaces
        .iter()
        .position(|k| k.name == name)
        .ok_or_else(missing)?;
    let id = next.keyspaces.remove(position).id;
    next.ranges.retain(|r| r.keyspace != id);
    Ok(next)
}

/// The next catalog, where `node` is registered as given. `None` if it is so already.
pub fn with_node(base: &wire::Catalog, node: &wire::CatalogNode) -> Option<wire::Catalog> {
    if base.nodes.contains(node) {
        return None;
    }
    let mut next = advance(base);
    match next.nodes.iter_mut().find(|n| n.id == node.id) {
        // A removed identity stays removed.
        Some(known) if known.removed => return None,
        Some(known) => *known = node.clone(),
        None => next.nodes.push(node.clone()),
    }
    Some(next)
}

/// The next catalog, where `with` stands in the place of `old` in one range.
pub fn with_replica_replaced(
    base: &wire::Catalog,
    range: RangeId,
    old: NodeId,
    with: NodeId,
) -> wire::Catalog {
    let mut next = advance(base);
    let replace = |list: &mut Vec<u64>| {
        for member in list.iter_mut().filter(|m| **m == old.0) {
            *member = with.0;
        }
    };
    if range == RangeId::META {
        replace(&mut next.meta_voters);
    }
    for known in next.ranges.iter_mut().filter(|r| r.id == range.0) {
        replace(&mut known.replicas);
    }
    next
}

/// The next catalog, where a node is marked as gone for ever.
pub fn with_node_removed(base: &wire::Catalog, node: NodeId) -> wire::Catalog {
    let mut next = advance(base);
    for known in next.nodes.iter_mut().filter(|n| n.id == node.0) {
        known.removed = true;
    }
    next
}

fn advance(base: &wire::Catalog) -> wire::Catalog {
    wire::Catalog {
        epoch: base.epoch + 1,
        ..base.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::Partitioning;

    fn nodes(count: u64) -> Vec<wire::CatalogNode> {
        (1..=count)
            .map(|id| wire::CatalogNode {
                id,
                endpoint: format!("127.0.0.1:{}", 7450 + id),
                weight: 1,
                ..wire::CatalogNode::default()
            })
            .collect()
    }

    #[test]
    fn the_first_catalog_has_the_default_keyspace_on_three_nodes() {
        let view = CatalogView::new(first_catalog("c", nodes(5), &[]).unwrap()).unwrap();
        assert_eq!(view.epoch(), 1);
        let keyspace = view.keyspace("default").unwrap();
        assert_eq!(keyspace.ranges.len(), 1);
        assert_eq!(keyspace.ranges[0].replicas.len(), 3);
    }

    #[test]
    fn every_key_has_exactly_one_range() {
        let base = first_catalog("c", nodes(3), &[]).unwrap();
        let options = KeyspaceOptions {
            partitioning: Partitioning::Hash(16),
            ..Default::default()
        };
        let view = CatalogView::new(with_keyspace(&base, "h", &options).unwrap()).unwrap();
        let keyspace = view.keyspace("h").unwrap();
        assert_eq!(keyspace.ranges.len(), 16);
        for i in 0..1000u32 {
            let (range, encoded) = keyspace.route(&i.to_be_bytes());
            assert!(range.interval.contains(&encoded));
            let others = keyspace
                .ranges
                .iter()
                .filter(|r| r.interval.contains(&encoded));
            assert_eq!(others.count(), 1);
        }
    }

    #[test]
    fn names_are_unique_and_default_stays() {
        let base = first_catalog("c", nodes(3), &[]).unwrap();
        let again = with_keyspace(&base, "default", &KeyspaceOptions::default());
        assert_eq!(again, Err(CatalogError::KeyspaceExists("default".into())));
        assert!(matches!(
            without_keyspace(&base, "default"),
            Err(CatalogError::Refused(_))
        ));
    }

    #[test]
    fn a_replaced_node_stays_removed() {
        let base = with_node_removed(&first_catalog("c", nodes(3), &[]).unwrap(), NodeId(2));
        assert_eq!(with_node(&base, &nodes(3)[1]), None);
    }
}
