//! Series to measure with: the same in every run.

/// Numbers that look random (xorshift64*, Vigna 2016).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Evenly between 0 and 1.
    pub fn even(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// About normal: the sum of twelve.
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.even()).sum::<f64>() - 6.0
    }
}

pub fn walk(random: &mut Random, length: usize) -> Vec<f64> {
    let step = |at: &mut f64, _| {
        *at += random.normal();
        Some(*at)
    };
    (0..length).scan(0.0, step).collect()
}

/// Random walks with mean 0 and standard deviation 1.
pub fn walks(seed: u64, count: usize, length: usize) -> Vec<Vec<f64>> {
    let mut random = Random::new(seed);
    (0..count).map(|_| normalised(&walk(&mut random, length))).collect()
}

/// Cycles of one machine: rise, hold, fall and ripple, each at its own pace, with 2 % of noise.
pub fn cycles(seed: u64, count: usize, length: usize) -> Vec<Vec<f64>> {
    let mut random = Random::new(seed);
    let mut cycle = || {
        let (rise, fall) = (0.2 + 0.05 * random.normal(), 0.75 + 0.03 * random.normal());
        let level = 1.0 + 0.05 * random.normal();
        let value = |at: usize| {
            let share = at as f64 / length as f64;
            let up = 1.0 / (1.0 + (-(share - rise) * 60.0).exp());
            let down = 1.0 / (1.0 + ((share - fall) * 60.0).exp());
            level * up * down + 0.1 * (share * 40.0).sin() + 0.02 * random.normal()
        };
        normalised(&(0..length).map(value).collect::<Vec<f64>>())
    };
    (0..count).map(|_| cycle()).collect()
}

pub fn normalised(series: &[f64]) -> Vec<f64> {
    let mean = series.iter().sum::<f64>() / series.len() as f64;
    let variance = series.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / series.len() as f64;
    series.iter().map(|x| (x - mean) / variance.sqrt()).collect()
}
