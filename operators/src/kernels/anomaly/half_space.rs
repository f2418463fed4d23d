//! Half-space trees: a point in a region where few have been.

use serde::{Deserialize, Serialize};

use super::PointDetector;
use super::random::Random;

/// Trees of the forest.
const TREES: usize = 16;
/// Cuts from a root to a leaf.
const DEPTH: u32 = 8;
/// Nodes of a tree.
const NODES: usize = (1 << (DEPTH + 1)) - 1;
/// Points counted before the counts take effect (ψ in the paper).
const WINDOW: u32 = 250;
/// A node with so few points is not looked below.
const FEW: u32 = WINDOW / 10;

/// Half-space trees (Tan, Ting, Liu 2011): 16 random partitions of the unit cube, 8 cuts deep; the counts of the last full 250 points
/// give the score.
///
/// Points have `dims` coordinates in spreads, which the logistic function brings into the cube. Score: the logarithm of the most a region can hold over what the point's
/// regions hold, 0 in a region that all points share at full depth; NaN for the first 250 points.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HalfSpaceTrees {
    seed: Random,
    dims: u32,
    /// Points of the last full window in each node, tree by tree, and of the one being filled.
    known: Vec<u32>,
    filling: Vec<u32>,
    filled: u32,
    started: bool,
    /// Dimension and place of each inner node's cut: a function of the seed.
    #[serde(skip)]
    cuts: Vec<(usize, f64)>,
}

impl HalfSpaceTrees {
    /// An empty forest for points of `dims` coordinates.
    pub fn new(dims: usize, seed: Random) -> Self {
        HalfSpaceTrees {
            seed,
            dims: dims.max(1) as u32,
            known: vec![0; TREES * NODES],
            filling: vec![0; TREES * NODES],
            filled: 0,
            started: false,
            cuts: Vec::new(),
        }
    }
}

impl PointDetector for HalfSpaceTrees {
    fn score(&mut self, point: &[f64]) -> f64 {
        if point.len() != self.dims as usize {
            return f64::NAN;
        }
        let point: Vec<f64> = point.iter().map(|x| in_cube(*x)).collect();
        if self.cuts.is_empty() {
            self.cuts = cuts(self.dims as usize, &mut self.seed.clone());
        }
        let mut mass = 0.0;
        for tree in 0..TREES {
            let (known, filling) = (&self.known[tree * NODES..], &mut self.filling[tree * NODES..]);
            let cuts = &self.cuts[tree * NODES..];
            let (mut node, mut scored) = (0, false);
            for depth in 0..=DEPTH {
                filling[node] += 1;
                if !scored && (known[node] <= FEW || depth == DEPTH) {
                    mass += f64::from(known[node]) * f64::from(1_u32 << depth);
                    scored = true;
                }
                let (dim, at) = cuts[node];
                node = 2 * node + if point[dim] < at { 1 } else { 2 };
            }
        }
        let started = self.started;
        self.filled += 1;
        if self.filled >= WINDOW {
            std::mem::swap(&mut self.known, &mut self.filling);
            self.filling.fill(0);
            (self.filled, self.started) = (0, true);
        }
        let most = (TREES as f64) * f64::from(WINDOW) * f64::from(1_u32 << DEPTH);
        if started {
            (most / (mass + 1.0)).ln().max(0.0)
        } else {
            f64::NAN
        }
    }

    fn is_whole(&self) -> bool {
        let counts = |counts: &[u32]| counts.len() == TREES * NODES && counts.iter().all(|n| *n <= WINDOW);
        counts(&self.known) && counts(&self.filling) && self.filled < WINDOW && (1..=256).contains(&self.dims)
    }
}

/// Into 0..1.
fn in_cube(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The cuts of all trees: halves of a random work space around the unit cube, along random dimensions.
fn cuts(dims: usize, random: &mut Random) -> Vec<(usize, f64)> {
    let mut cuts = Vec::with_capacity(TREES * NODES);
    for _ in 0..TREES {
        let space: Vec<(f64, f64)> = (0..dims)
            .map(|_| {
                let middle = random.share();
                let reach = 2.0 * middle.max(1.0 - middle);
                (middle - reach, middle + reach)
            })
            .collect();
        let mut regions = vec![space];
        for node in 0..NODES {
            let dim = random.below(dims);
            let region = regions[node].clone();
            let at = (region[dim].0 + region[dim].1) / 2.0;
            cuts.push((dim, at));
            if regions.len() < NODES {
                let (mut low, mut high) = (region.clone(), region);
                (low[dim].1, high[dim].0) = (at, at);
                regions.extend([low, high]);
            }
        }
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The score by its definition: the last full window's points are counted anew in each region.
    fn naive(window: &[[f64; 2]], point: &[f64; 2], seed: &Random) -> f64 {
        let cuts = cuts(2, &mut seed.clone());
        let path = |tree: usize, point: &[f64; 2]| {
            let (mut path, point) = (vec![0], point.map(in_cube));
            while path.len() <= DEPTH as usize {
                let node = path[path.len() - 1];
                let (dim, at) = cuts[tree * NODES + node];
                path.push(2 * node + if point[dim] < at { 1 } else { 2 });
            }
            path
        };
        let mass = |tree: usize| {
            let path_of_point = path(tree, point);
            let count = |node: &usize| window.iter().filter(|p| path(tree, p).contains(node)).count();
            let counts: Vec<usize> = path_of_point.iter().map(count).collect();
            let depth = counts.iter().position(|n| *n <= FEW as usize).unwrap_or(DEPTH as usize);
            counts[depth] as f64 * f64::from(1_u32 << depth)
        };
        let most = (TREES as f64) * f64::from(WINDOW) * f64::from(1_u32 << DEPTH);
        (most / ((0..TREES).map(mass).sum::<f64>() + 1.0)).ln().max(0.0)
    }

    #[test]
    fn equals_counting_anew() {
        let (seed, mut random) = (Random::new(4), Random::new(9));
        let mut trees = HalfSpaceTrees::new(2, seed.clone());
        let window: Vec<[f64; 2]> = (0..WINDOW).map(|_| [random.share() - 2.0, random.normal()]).collect();
        assert!(window.iter().all(|point| trees.score(point).is_nan()));
        for point in [[-1.5, 0.5], [3.0, 0.5], [-1e6, 1e6], [-1.9, -2.0]] {
            assert!((trees.score(&point) - naive(&window, &point, &seed)).abs() < 1e-9);
        }
        assert!(trees.score(&[3.0, 0.5]) > trees.score(&[-1.5, 0.5]));
        assert!(trees.score(&[0.9]).is_nan() && trees.is_whole());
    }
}
