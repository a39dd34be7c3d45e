//! Strongly connected components: where the cycles are (Tarjan, "Depth-first search and linear
//! graph algorithms", 1972), without recursion.

use super::graph::{Allowed, Graph};

const UNSEEN: u32 = u32::MAX;

/// The components of more than one node, as node lists. `within` restricts the graph to the nodes
/// of some list, or to all.
pub fn components(graph: &Graph, allowed: Allowed, within: Option<&[u32]>) -> Vec<Vec<u32>> {
    let mut local = Vec::new();
    if let Some(nodes) = within {
        local = vec![false; graph.nodes() as usize];
        for node in nodes {
            local[*node as usize] = true;
        }
    }
    let inside = |node: u32| within.is_none() || local[node as usize];
    let mut tarjan = Tarjan::new(graph.nodes());
    match within {
        Some(nodes) => nodes
            .iter()
            .for_each(|node| tarjan.visit(graph, allowed, &inside, *node)),
        None => (0..graph.nodes()).for_each(|node| tarjan.visit(graph, allowed, &inside, node)),
    }
    tarjan.found
}

struct Tarjan {
    index: Vec<u32>,
    low: Vec<u32>,
    on_stack: Vec<bool>,
    stack: Vec<u32>,
    next: u32,
    found: Vec<Vec<u32>>,
}

impl Tarjan {
    fn new(nodes: u32) -> Self {
        Self {
            index: vec![UNSEEN; nodes as usize],
            low: vec![0; nodes as usize],
            on_stack: vec![false; nodes as usize],
            stack: Vec::new(),
            next: 0,
            found: Vec::new(),
        }
    }

    fn open(&mut self, node: u32) {
        self.index[node as usize] = self.next;
        self.low[node as usize] = self.next;
        self.next += 1;
        self.on_stack[node as usize] = true;
        self.stack.push(node);
    }

    fn visit(&mut self, graph: &Graph, allowed: Allowed, inside: &dyn Fn(u32) -> bool, root: u32) {
        if self.index[root as usize] != UNSEEN {
            return;
        }
        let mut path: Vec<(u32, usize)> = vec![(root, 0)];
        self.open(root);
        while let Some((node, at)) = path.last_mut() {
            let (from, edge) = (*node as usize, graph.from(*node).get(*at));
            *at += 1;
            match edge {
                Some((to, kind)) if allowed.has(*kind) && inside(*to) => {
                    let index = self.index[*to as usize];
                    if index == UNSEEN {
                        self.open(*to);
                        path.push((*to, 0));
                    } else if self.on_stack[*to as usize] {
                        self.low[from] = self.low[from].min(index);
                    }
                }
                Some(_) => {}
                None => {
                    path.pop();
                    if let Some((parent, _)) = path.last() {
                        let parent = *parent as usize;
                        self.low[parent] = self.low[parent].min(self.low[from]);
                    }
                    self.close(from);
                }
            }
        }
    }

    /// Takes a component off the stack once its first node is done.
    fn close(&mut self, node: usize) {
        if self.low[node] != self.index[node] {
            return;
        }
        let mut component = Vec::new();
        while let Some(member) = self.stack.pop() {
            self.on_stack[member as usize] = false;
            component.push(member);
            if member as usize == node {
                break;
            }
        }
        if component.len() > 1 {
            self.found.push(component);
        }
    }
}
