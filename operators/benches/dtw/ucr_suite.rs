//! The UCR suite's subsequence search (Rakthanmanon et al. 2012) as published: stretch by stretch, with online normalisation, LB_Kim,
//! LB_Keogh in the order of the query's largest values from both sides, and DTW that stops early by the cumulative bound.

use super::data::normalised;

/// What the original reads at a time.
const EPOCH: usize = 100_000;

/// The place and distance of the nearest stretch.
pub fn search(series: &[f64], query: &[f64], r: usize) -> (usize, f64) {
    let m = query.len();
    let q = normalised(query);
    let mut order: Vec<usize> = (0..m).collect();
    order.sort_by(|a, b| q[*b].abs().total_cmp(&q[*a].abs()));
    let (l, u) = lower_upper_lemire(&q, r);
    let sorted = |values: &[f64]| -> Vec<f64> { order.iter().map(|at| values[*at]).collect() };
    let (qo, uo, lo) = (sorted(&q), sorted(&u), sorted(&l));
    let (mut cb1, mut cb2, mut cb) = (vec![0.0; m], vec![0.0; m], vec![0.0; m]);
    let (mut t, mut tz) = (vec![0.0; 2 * m], vec![0.0; m]);
    let (mut bsf, mut place) = (f64::INFINITY, 0);
    let mut warp = Warp::default();
    let mut first = 0;
    while first + m <= series.len() {
        let buffer = &series[first..series.len().min(first + EPOCH)];
        let (l_buffer, u_buffer) = lower_upper_lemire(buffer, r);
        let (mut ex, mut ex2) = (0.0, 0.0);
        for (i, &d) in buffer.iter().enumerate() {
            ex += d;
            ex2 += d * d;
            t[i % m] = d;
            t[i % m + m] = d;
            if i + 1 < m {
                continue;
            }
            let mean = ex / m as f64;
            let std = (ex2 / m as f64 - mean * mean).sqrt();
            let j = (i + 1) % m;
            let start = i + 1 - m;
            if lb_kim(&t[j..j + m], &q, mean, std, bsf) < bsf {
                let lb_k = lb_keogh(&order, &t[j..j + m], &uo, &lo, &mut cb1, mean, std, bsf);
                if lb_k < bsf {
                    for (z, value) in tz.iter_mut().zip(&t[j..j + m]) {
                        *z = (value - mean) / std;
                    }
                    let (lower, upper) = (&l_buffer[start..start + m], &u_buffer[start..start + m]);
                    let lb_k2 = lb_keogh_data(&order, &qo, &mut cb2, lower, upper, mean, std, bsf);
                    if lb_k2 < bsf {
                        let larger = if lb_k > lb_k2 { &cb1 } else { &cb2 };
                        cb[m - 1] = larger[m - 1];
                        for k in (0..m - 1).rev() {
                            cb[k] = cb[k + 1] + larger[k];
                        }
                        let distance = warp.dtw(&tz, &q, &cb, r, bsf);
                        if distance < bsf {
                            (bsf, place) = (distance, first + start);
                        }
                    }
                }
            }
            ex -= t[j];
            ex2 -= t[j] * t[j];
        }
        first += EPOCH - m + 1;
    }
    (place, bsf.sqrt())
}

fn dist(x: f64, y: f64) -> f64 {
    (x - y) * (x - y)
}

fn lb_kim(t: &[f64], q: &[f64], mean: f64, std: f64, bsf: f64) -> f64 {
    let len = q.len();
    let x = |at: usize| (t[at] - mean) / std;
    let (x0, y0) = (x(0), x(len - 1));
    let mut lb = dist(x0, q[0]) + dist(y0, q[len - 1]);
    if lb >= bsf {
        return lb;
    }
    let x1 = x(1);
    lb += dist(x1, q[0]).min(dist(x0, q[1])).min(dist(x1, q[1]));
    if lb >= bsf {
        return lb;
    }
    let y1 = x(len - 2);
    lb += dist(y1, q[len - 1]).min(dist(y0, q[len - 2])).min(dist(y1, q[len - 2]));
    if lb >= bsf {
        return lb;
    }
    let x2 = x(2);
    let front = dist(x0, q[2]).min(dist(x1, q[2])).min(dist(x2, q[2]));
    lb += front.min(dist(x2, q[1])).min(dist(x2, q[0]));
    if lb >= bsf {
        return lb;
    }
    let y2 = x(len - 3);
    let back = dist(y0, q[len - 3]).min(dist(y1, q[len - 3])).min(dist(y2, q[len - 3]));
    lb + back.min(dist(y2, q[len - 2])).min(dist(y2, q[len - 1]))
}

#[allow(clippy::too_many_arguments)]
fn lb_keogh(order: &[usize], t: &[f64], uo: &[f64], lo: &[f64], cb: &mut [f64], mean: f64, std: f64, bsf: f64) -> f64 {
    let mut lb = 0.0;
    for ((&at, &upper), &lower) in order.iter().zip(uo).zip(lo) {
        let x = (t[at] - mean) / std;
        let d = if x > upper {
            dist(x, upper)
        } else if x < lower {
            dist(x, lower)
        } else {
            0.0
        };
        lb += d;
        cb[at] = d;
        if lb >= bsf {
            break;
        }
    }
    lb
}

#[allow(clippy::too_many_arguments)]
fn lb_keogh_data(
    order: &[usize],
    qo: &[f64],
    cb: &mut [f64],
    l: &[f64],
    u: &[f64],
    mean: f64,
    std: f64,
    bsf: f64,
) -> f64 {
    let mut lb = 0.0;
    for (&at, &q) in order.iter().zip(qo) {
        let (upper, lower) = ((u[at] - mean) / std, (l[at] - mean) / std);
        let d = if q > upper {
            dist(q, upper)
        } else if q < lower {
            dist(q, lower)
        } else {
            0.0
        };
        lb += d;
        cb[at] = d;
        if lb >= bsf {
            break;
        }
    }
    lb
}

#[derive(Default)]
struct Warp {
    cost: Vec<f64>,
    cost_prev: Vec<f64>,
}

impl Warp {
    fn dtw(&mut self, a: &[f64], b: &[f64], cb: &[f64], r: usize, bsf: f64) -> f64 {
        let m = a.len();
        for cost in [&mut self.cost, &mut self.cost_prev] {
            cost.clear();
            cost.resize(2 * r + 1, f64::INFINITY);
        }
        let mut k = 0;
        for i in 0..m {
            k = r.saturating_sub(i);
            let mut min_cost = f64::INFINITY;
            for j in i.saturating_sub(r)..=(m - 1).min(i + r) {
                if i == 0 && j == 0 {
                    self.cost[k] = dist(a[0], b[0]);
                } else {
                    let y = if j == 0 || k == 0 {
                        f64::INFINITY
                    } else {
                        self.cost[k - 1]
                    };
                    let x = if i == 0 || k + 1 > 2 * r {
                        f64::INFINITY
                    } else {
                        self.cost_prev[k + 1]
                    };
                    let z = if i == 0 || j == 0 {
                        f64::INFINITY
                    } else {
                        self.cost_prev[k]
                    };
                    self.cost[k] = x.min(y).min(z) + dist(a[i], b[j]);
                }
                if self.cost[k] < min_cost {
                    min_cost = self.cost[k];
                }
                k += 1;
            }
            if i + r < m - 1 && min_cost + cb[i + r + 1] >= bsf {
                return min_cost + cb[i + r + 1];
            }
            std::mem::swap(&mut self.cost, &mut self.cost_prev);
        }
        self.cost_prev[k - 1]
    }
}

/// Envelopes by two monotonic queues (Lemire 2009).
fn lower_upper_lemire(t: &[f64], r: usize) -> (Vec<f64>, Vec<f64>) {
    let len = t.len();
    let (mut l, mut u) = (vec![0.0; len], vec![0.0; len]);
    let (mut du, mut dl) = (
        std::collections::VecDeque::from([0]),
        std::collections::VecDeque::from([0]),
    );
    for i in 1..len {
        if i > r {
            (u[i - r - 1], l[i - r - 1]) = (t[du[0]], t[dl[0]]);
        }
        if t[i] > t[i - 1] {
            du.pop_back();
            while du.back().is_some_and(|&back| t[i] > t[back]) {
                du.pop_back();
            }
        } else {
            dl.pop_back();
            while dl.back().is_some_and(|&back| t[i] < t[back]) {
                dl.pop_back();
            }
        }
        du.push_back(i);
        dl.push_back(i);
        if i == 2 * r + 1 + du[0] {
            du.pop_front();
        } else if i == 2 * r + 1 + dl[0] {
            dl.pop_front();
        }
    }
    for i in len..len + r + 1 {
        if i > r {
            (u[i - r - 1], l[i - r - 1]) = (t[du[0]], t[dl[0]]);
        }
        if i - du[0] > 2 * r {
            du.pop_front();
        }
        if i - dl[0] > 2 * r {
            dl.pop_front();
        }
    }
    (l, u)
}
