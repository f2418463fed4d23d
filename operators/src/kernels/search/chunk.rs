//! Neighbouring stretches looked at together: their means and scales, and LB_Kim of each.

use super::{moments, square};
use crate::kernels::lanes::{Kernel, Lanes, widest};
use crate::kernels::lower_bounds::Envelope;

/// What is known of neighbouring stretches, by their first points.
#[derive(Clone, Debug, Default)]
pub(super) struct Chunk {
    pub mean: Vec<f64>,
    /// One over the standard deviation; 0 for a constant stretch.
    pub scale: Vec<f64>,
    pub kim: Vec<f64>,
    /// Of the points; made when it is first asked for.
    pub envelope: Option<Envelope>,
}

impl Chunk {
    /// Takes the next points in place of those before.
    pub fn look_at(&mut self, points: &[f64], query: &[f64]) {
        let length = query.len();
        let count = points.len() + 1 - length;
        self.envelope = None;
        for values in [&mut self.mean, &mut self.scale, &mut self.kim] {
            values.resize(count, 0.0);
        }
        // Sums of what the points differ from one of them, so that a large common part takes no digits away.
        let origin = points[0];
        let (mut sum, mut squares) = (0.0, 0.0);
        for point in &points[..length] {
            sum += point - origin;
            squares += (point - origin) * (point - origin);
        }
        (self.mean[0], self.scale[0]) = (sum, squares);
        for at in 1..count {
            let (old, new) = (points[at - 1] - origin, points[at + length - 1] - origin);
            sum += new - old;
            squares += new * new - old * old;
            (self.mean[at], self.scale[at]) = (sum, squares);
        }
        widest(Moments {
            mean: &mut self.mean,
            scale: &mut self.scale,
            origin,
            length,
        });
        for (at, stretch) in points.windows(length).enumerate() {
            if self.scale[at].is_nan() {
                (self.mean[at], self.scale[at]) = moments(stretch);
            }
        }
        widest(Kim {
            points,
            query,
            mean: &self.mean,
            scale: &self.scale,
            kim: &mut self.kim,
        });
    }
}

/// Means and scales from sums and sums of squares. Where these nearly cancel, the scale is NaN.
struct Moments<'a> {
    mean: &'a mut [f64],
    scale: &'a mut [f64],
    origin: f64,
    length: usize,
}

impl Kernel for Moments<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let share = 1.0 / self.length as f64;
        for (mean, scale) in self.mean.iter_mut().zip(self.scale) {
            let (sum, squares) = (*mean * share, *scale * share);
            let variance = squares - sum * sum;
            let cancels = variance <= 1e-6 * squares;
            *mean = sum + self.origin;
            *scale = if cancels { f64::NAN } else { 1.0 / variance.sqrt() };
        }
    }
}

/// LB_KimFL of each stretch: the least cost of the three outermost steps at both ends; of short queries the outermost only.
struct Kim<'a> {
    points: &'a [f64],
    query: &'a [f64],
    mean: &'a [f64],
    scale: &'a [f64],
    kim: &'a mut [f64],
}

impl Kernel for Kim<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let (count, length) = (self.kim.len(), self.query.len());
        let (mean, scale, kim) = (&self.mean[..count], &self.scale[..count], self.kim);
        let from = |at: usize| &self.points[at..at + count];
        let (q, x, y) = (self.query, from(0), from(length - 1));
        if length < 6 {
            for at in 0..count {
                let normal = |value: f64| (value - mean[at]) * scale[at];
                let last = if length == 1 {
                    0.0
                } else {
                    square(normal(y[at]) - q[length - 1])
                };
                kim[at] = square(normal(x[at]) - q[0]) + last;
            }
            return;
        }
        let (x1, x2, y1, y2) = (from(1), from(2), from(length - 2), from(length - 3));
        let front = [q[0], q[1], q[2]];
        let back = [q[length - 1], q[length - 2], q[length - 3]];
        for at in 0..count {
            let (mean, scale) = (mean[at], scale[at]);
            let x = [(x[at] - mean) * scale, (x1[at] - mean) * scale, (x2[at] - mean) * scale];
            let y = [(y[at] - mean) * scale, (y1[at] - mean) * scale, (y2[at] - mean) * scale];
            kim[at] = corner(x, front) + corner(y, back);
        }
    }
}

/// A path visits the first cell, one of the three around it, and one of the five around these.
#[inline(always)]
fn corner(a: [f64; 3], b: [f64; 3]) -> f64 {
    let cost = |i: usize, j: usize| square(a[i] - b[j]);
    let second = least(least(cost(0, 1), cost(1, 0)), cost(1, 1));
    let third = least(
        least(cost(0, 2), cost(1, 2)),
        least(least(cost(2, 0), cost(2, 1)), cost(2, 2)),
    );
    cost(0, 0) + second + third
}

#[inline(always)]
fn least(a: f64, b: f64) -> f64 {
    if a < b { a } else { b }
}
