//! Random cut forest: a point that would change the trees of the others most.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::PointDetector;
use super::random::Random;

/// Trees of the forest.
const TREES: usize = 16;
/// Points of a tree.
const POINTS: usize = 64;
/// A tree takes one of so many points, so that it spans 1024 of them.
const ONE_OF: usize = 16;

/// Robust random cut forest (Guha et al. 2016): 16 trees of 64 points each, taken at random from the last 1024 or so.
///
/// Score: the expected displacement, that is, the number of a tree's points that move down when the point is
/// inserted, over all random cuts and the mean of all trees. It is computed, not drawn. NaN until each tree has 32 points.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CutForest {
    random: Random,
    dims: u32,
    trees: Vec<Tree>,
}

impl CutForest {
    /// An empty forest for points of `dims` coordinates.
    pub fn new(dims: usize, random: Random) -> Self {
        CutForest {
            random,
            dims: dims.max(1) as u32,
            trees: vec![Tree::default(); TREES],
        }
    }
}

impl PointDetector for CutForest {
    fn score(&mut self, point: &[f64]) -> f64 {
        if point.len() != self.dims as usize {
            return f64::NAN;
        }
        let ready = self.trees.iter().all(|tree| tree.leaves.len() >= POINTS / 2);
        let sum: f64 = self.trees.iter().map(|tree| tree.displacement(point)).sum();
        for tree in &mut self.trees {
            // A young tree takes more, to be ready soon.
            let one_of = if tree.leaves.len() < POINTS / 2 { 2 } else { ONE_OF };
            if self.random.below(one_of) == 0 {
                if tree.leaves.len() >= POINTS {
                    tree.remove_oldest();
                }
                tree.insert(point, &mut self.random);
            }
        }
        if ready { sum / TREES as f64 } else { f64::NAN }
    }

    fn is_whole(&self) -> bool {
        let dims = self.dims as usize;
        (1..=256).contains(&dims) && self.trees.len() == TREES && self.trees.iter().all(|tree| tree.is_whole(dims))
    }
}

/// A node with the box around its points.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Node {
    parent: Option<u32>,
    /// Dimension and place of the cut, and the nodes below and above it; `None` for a leaf, whose box is its point.
    cut: Option<(u32, f64, [u32; 2])>,
    points: u32,
    low: Vec<f64>,
    high: Vec<f64>,
}

impl Node {
    fn leaf(point: &[f64]) -> Self {
        Node {
            parent: None,
            cut: None,
            points: 1,
            low: point.to_vec(),
            high: point.to_vec(),
        }
    }

    /// The sum of the box's sides.
    fn sides(&self) -> f64 {
        self.low.iter().zip(&self.high).map(|(low, high)| high - low).sum()
    }

    /// How much longer the sides get in each dimension by a point.
    fn longer<'a>(&'a self, point: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
        let bounds = self.low.iter().zip(&self.high);
        bounds
            .zip(point)
            .map(|((low, high), x)| (low - x).max(x - high).max(0.0))
    }

    fn cover(&mut self, low: &[f64], high: &[f64]) {
        self.low.iter_mut().zip(low).for_each(|(own, x)| *own = own.min(*x));
        self.high.iter_mut().zip(high).for_each(|(own, x)| *own = own.max(*x));
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Tree {
    nodes: Vec<Node>,
    free: Vec<u32>,
    root: Option<u32>,
    /// The leaf of each point, oldest first; equal points share one.
    leaves: VecDeque<u32>,
}

impl Tree {
    fn displacement(&self, point: &[f64]) -> f64 {
        let (mut expected, mut probability, mut at) = (0.0, 1.0, self.root);
        while let Some(id) = at {
            let node = &self.nodes[id as usize];
            let longer: f64 = node.longer(point).sum();
            let sides = longer + node.sides();
            let cut_here = if sides > 0.0 { longer / sides } else { 0.0 };
            expected += probability * cut_here * f64::from(node.points);
            probability *= 1.0 - cut_here;
            at = node
                .cut
                .map(|(dim, place, below)| below[usize::from(point[dim as usize] > place)]);
        }
        expected
    }

    fn add(&mut self, node: Node) -> u32 {
        if let Some(id) = self.free.pop() {
            self.nodes[id as usize] = node;
            return id;
        }
        self.nodes.push(node);
        (self.nodes.len() - 1) as u32
    }

    fn insert(&mut self, point: &[f64], random: &mut Random) {
        let Some(mut at) = self.root else {
            let leaf = self.add(Node::leaf(point));
            self.root = Some(leaf);
            self.leaves.push_back(leaf);
            return;
        };
        loop {
            let node = &self.nodes[at as usize];
            if let Some((dim, place)) = separating_cut(node, point, random) {
                let leaf = self.add(Node::leaf(point));
                self.part(at, leaf, dim, place);
                self.leaves.push_back(leaf);
                return;
            }
            let node = &mut self.nodes[at as usize];
            node.points += 1;
            let Some((dim, place, below)) = node.cut else {
                // The same point once more.
                self.leaves.push_back(at);
                return;
            };
            node.cover(point, point);
            at = below[usize::from(point[dim as usize] > place)];
        }
    }

    /// Puts a node with this cut above `at`, and the leaf beside it.
    fn part(&mut self, at: u32, leaf: u32, dim: usize, place: f64) {
        let old = self.nodes[at as usize].clone();
        let is_above = self.nodes[leaf as usize].low[dim] > place;
        let below = if is_above { [at, leaf] } else { [leaf, at] };
        let mut node = Node {
            parent: old.parent,
            cut: Some((dim as u32, place, below)),
            points: old.points + 1,
            low: old.low,
            high: old.high,
        };
        let point = self.nodes[leaf as usize].low.clone();
        node.cover(&point, &point);
        let id = self.add(node);
        self.replace_child(old.parent, at, id);
        self.nodes[at as usize].parent = Some(id);
        self.nodes[leaf as usize].parent = Some(id);
    }

    fn replace_child(&mut self, parent: Option<u32>, old: u32, new: u32) {
        match parent.and_then(|parent| self.nodes[parent as usize].cut.as_mut()) {
            Some((_, _, below)) => below.iter_mut().filter(|id| **id == old).for_each(|id| *id = new),
            None => self.root = Some(new),
        }
    }

    fn remove_oldest(&mut self) {
        let Some(leaf) = self.leaves.pop_front() else { return };
        let mut above = self.nodes[leaf as usize].parent;
        if self.nodes[leaf as usize].points > 1 {
            self.nodes[leaf as usize].points -= 1;
        } else if let Some((parent, (_, _, below))) =
            above.and_then(|parent| Some((parent, self.nodes[parent as usize].cut?)))
        {
            let sibling = if below[0] == leaf { below[1] } else { below[0] };
            above = self.nodes[parent as usize].parent;
            self.nodes[sibling as usize].parent = above;
            self.replace_child(above, parent, sibling);
            self.free.extend([leaf, parent]);
        } else {
            self.root = None;
            self.free.push(leaf);
        }
        while let Some(id) = above {
            let Some((_, _, [below, beyond])) = self.nodes[id as usize].cut else {
                return;
            };
            let (a, b) = (self.nodes[below as usize].clone(), self.nodes[beyond as usize].clone());
            let node = &mut self.nodes[id as usize];
            (node.points, node.low, node.high) = (a.points + b.points, a.low, a.high);
            node.cover(&b.low, &b.high);
            above = node.parent;
        }
    }

    /// Whether all leaves are reached once from the root and nothing points anywhere else.
    fn is_whole(&self, dims: usize) -> bool {
        let (mut open, mut reached, mut points) = (Vec::from_iter(self.root.map(|root| (root, None))), 0, 0_u64);
        let mut seen = vec![false; self.nodes.len()];
        while let Some((id, parent)) = open.pop() {
            let Some(node) = self.nodes.get(id as usize) else {
                return false;
            };
            let sized = node.low.len() == dims && node.high.len() == dims;
            let finite = node.low.iter().chain(&node.high).all(|x| x.abs() <= 1e300);
            if seen[id as usize] || node.parent != parent || !sized || !finite || node.points as usize > POINTS {
                return false;
            }
            seen[id as usize] = true;
            reached += 1;
            match node.cut {
                Some((dim, place, below)) => {
                    if dim as usize >= dims || !place.is_finite() {
                        return false;
                    }
                    open.extend(below.map(|child| (child, Some(id))));
                }
                None => points += u64::from(node.points),
            }
        }
        let mut in_leaf = vec![0_u32; self.nodes.len()];
        for leaf in &self.leaves {
            match in_leaf.get_mut(*leaf as usize) {
                Some(count) => *count += 1,
                None => return false,
            }
        }
        let leaf_counts = (0..self.nodes.len()).all(|id| {
            let is_leaf = seen[id] && self.nodes[id].cut.is_none();
            in_leaf[id] == if is_leaf { self.nodes[id].points } else { 0 }
        });
        let mut unused = self.free.clone();
        unused.sort_unstable();
        unused.dedup();
        let free = unused.len() == self.free.len()
            && self.nodes.len() == self.free.len() + reached
            && unused.iter().all(|id| seen.get(*id as usize) == Some(&false));
        leaf_counts && free && points == self.leaves.len() as u64 && self.leaves.len() <= POINTS
    }
}

/// A random cut of the box around a node and the point, where it parts the two.
fn separating_cut(node: &Node, point: &[f64], random: &mut Random) -> Option<(usize, f64)> {
    let total = node.sides() + node.longer(point).sum::<f64>();
    if total <= 0.0 {
        return None;
    }
    let mut left = random.share() * total;
    for (dim, x) in point.iter().enumerate() {
        let (low, high) = (node.low[dim].min(*x), node.high[dim].max(*x));
        if left < high - low {
            let place = low + left;
            let parts = place < node.low[dim] && *x <= place || place >= node.high[dim] && *x > place;
            return parts.then_some((dim, place));
        }
        left -= high - low;
    }
    None
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Points that move down when the point is inserted: those of the new leaf's sibling.
    fn drawn(tree: &Tree, point: &[f64], random: &mut Random) -> f64 {
        let mut tree = tree.clone();
        tree.insert(point, random);
        let leaf = tree.leaves[tree.leaves.len() - 1];
        let node = &tree.nodes[leaf as usize];
        if node.points > 1 {
            return 0.0;
        }
        f64::from(tree.nodes[node.parent.expect("a parent") as usize].points - 1)
    }

    #[test]
    fn the_expected_displacement_is_the_mean_of_drawn_ones() {
        let (mut tree, mut random) = (Tree::default(), Random::new(8));
        for _ in 0..40 {
            tree.insert(&[random.share(), random.share()], &mut random);
        }
        for point in [[0.5, 0.5], [1.2, 0.5], [4.0, -4.0]] {
            let mean = (0..4000).map(|_| drawn(&tree, &point, &mut random)).sum::<f64>() / 4000.0;
            let expected = tree.displacement(&point);
            assert!((mean - expected).abs() < 0.1 * expected + 0.3, "{mean} {expected}");
        }
    }

    proptest! {
        #[test]
        fn stays_a_tree(points in prop::collection::vec((-2..3_i32, -2..3_i32), 1..200)) {
            let (mut tree, mut random) = (Tree::default(), Random::new(1));
            for (x, y) in points {
                if tree.leaves.len() >= POINTS / 4 {
                    tree.remove_oldest();
                }
                tree.insert(&[f64::from(x), f64::from(y) * 1e100], &mut random);
                prop_assert!(tree.is_whole(2));
            }
        }
    }

    #[test]
    fn an_outlier_scores_higher() {
        let (mut forest, mut random) = (CutForest::new(2, Random::new(1)), Random::new(2));
        for _ in 0..2000 {
            forest.score(&[random.share(), random.share()]);
        }
        assert!(forest.score(&[5.0, 5.0]) > 3.0 * forest.score(&[0.5, 0.5]));
        assert!(forest.score(&[5.0]).is_nan() && forest.is_whole());
    }
}
