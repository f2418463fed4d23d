//! One signal judged: detectors, how rare their scores are together, and events.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Detector;
use super::cusum::Cusum;
use super::cut_forest::CutForest;
use super::ewma::Ewma;
use super::half_space::HalfSpaceTrees;
use super::left_profile::LeftProfile;
use super::prediction::Prediction;
use super::random::Random;
use super::robust::RobustZ;
use super::shingle::{DIMS, Shingled};
use super::spectral::SpectralResidual;
use super::tail::Tail;

/// Rows after which something learned counts for a third, where nothing else is set.
pub const MEMORY: f64 = 2000.0;
/// An event lasts for this part of the memory after its rarest row.
const EVENT: f64 = 0.1;
/// An event begins with a probability of at most this.
const BEGINS: f64 = 0.01;

/// One or several detectors of a signal, and the tails that make their scores comparable.
///
/// Each detector's raw score becomes the probability that its past was as odd ([`Tail`]). [`Method::Auto`] adds their
/// logarithms (Fisher 1925) and takes the probability of the sum beside its own past, which makes up for
/// detectors that say the same. An event counts once: after a rare row, rows that are not rarer count as the square root of their
/// probability for a while, 10 % of the memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Judge {
    detectors: Vec<(OneSignal, Tail)>,
    /// Of the sum of logarithms, where there are several.
    together: Tail,
    event: f64,
    rest: u32,
    event_rows: u32,
}

impl Judge {
    /// A judge that forgets with a weight of `1/memory` a row; random cuts are drawn by the name.
    pub fn new(method: Method, memory: f64, name: &str) -> Self {
        let methods = if method == Method::Auto { &AUTO[..] } else { &[method] };
        let random = Random::of_name(name);
        let detectors = methods
            .iter()
            .filter_map(|method| OneSignal::new(*method, memory, &random));
        Judge {
            detectors: detectors.map(|detector| (detector, Tail::new(memory))).collect(),
            together: Tail::new(memory),
            event: 1.0,
            rest: 0,
            event_rows: (EVENT * memory).ceil().clamp(1.0, 1e9) as u32,
        }
    }

    /// How rare a value is, which is learned afterwards: the probability that a row of the past was as odd, in
    /// `1e-300..=1`; NaN while that is being learned, and for a value that isn't finite, which is not learned.
    pub fn probability(&mut self, value: f64) -> f64 {
        if !value.is_finite() {
            return f64::NAN;
        }
        let (mut sum, mut least) = (0.0, 1.0);
        for (detector, tail) in &mut self.detectors {
            let score = detector.detector().score(value);
            let probability = if score.is_nan() { score } else { tail.probability(score) };
            if !score.is_nan() {
                tail.learn(score);
            }
            sum -= probability.ln();
            least = probability;
        }
        if sum.is_nan() {
            return f64::NAN;
        }
        let probability = if self.detectors.len() == 1 {
            least
        } else {
            let sum = sum.max(0.0);
            let probability = self.together.probability(sum);
            self.together.learn(sum);
            probability
        };
        self.once(probability)
    }

    /// A probability as part of an event.
    fn once(&mut self, probability: f64) -> f64 {
        if self.rest > 0 {
            self.rest -= 1;
            if probability >= self.event {
                return probability.sqrt();
            }
        }
        if probability <= BEGINS {
            (self.event, self.rest) = (probability, self.event_rows);
        }
        probability
    }

    /// False where state from outside doesn't fit together; such must not be asked for probabilities.
    pub fn is_whole(&mut self) -> bool {
        let detectors = self
            .detectors
            .iter_mut()
            .all(|(detector, tail)| detector.detector().is_whole() && tail.is_whole());
        let counts = (1..=AUTO.len()).contains(&self.detectors.len());
        detectors && counts && self.together.is_whole() && (0.0..=1.0).contains(&self.event)
    }
}

/// A probability as a score of 0 to 1: a tenth of the negative decimal logarithm, so 0.3 is one row in a thousand,
/// 0.5 one in 10⁵, 1 one in 10¹⁰ or rarer; NaN stays NaN. (Ahmad et al. 2017 use the same form.)
///
/// ```
/// use taktline_operators::kernels::anomaly::auto::rarity;
/// assert_eq!([rarity(1.0), rarity(1e-5), rarity(0.0)], [0.0, 0.5, 1.0]);
/// ```
pub fn rarity(probability: f64) -> f64 {
    if probability.is_nan() {
        probability
    } else {
        (-0.1 * probability.log10()).clamp(0.0, 1.0)
    }
}

/// Which detectors judge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Several together.
    #[default]
    Auto,
    /// [`Ewma`].
    Ewma,
    /// [`Cusum`].
    Cusum,
    /// [`RobustZ`].
    RobustZ,
    /// [`Prediction`].
    Prediction,
    /// [`SpectralResidual`].
    SpectralResidual,
    /// [`HalfSpaceTrees`].
    HalfSpaceTrees,
    /// [`CutForest`].
    CutForest,
    /// [`LeftProfile`].
    LeftProfile,
}

impl Method {
    /// All, in the order of the docs.
    pub const ALL: [Method; 9] = [
        Method::Auto,
        Method::Ewma,
        Method::Cusum,
        Method::RobustZ,
        Method::Prediction,
        Method::SpectralResidual,
        Method::HalfSpaceTrees,
        Method::CutForest,
        Method::LeftProfile,
    ];

    /// The word in pipeline files and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Method::Auto => "auto",
            Method::Ewma => "ewma",
            Method::Cusum => "cusum",
            Method::RobustZ => "robust_z",
            Method::Prediction => "prediction",
            Method::SpectralResidual => "spectral_residual",
            Method::HalfSpaceTrees => "half_space_trees",
            Method::CutForest => "cut_forest",
            Method::LeftProfile => "left_profile",
        }
    }
}

/// The methods that [`Method::Auto`] combines: the level, the last few values, what stands out of a stretch, its shape.
pub const AUTO: [Method; 4] = [
    Method::RobustZ,
    Method::CutForest,
    Method::SpectralResidual,
    Method::LeftProfile,
];

/// A detector of one signal with its state.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum OneSignal {
    Ewma(Ewma),
    Cusum(Cusum),
    RobustZ(RobustZ),
    Prediction(Prediction),
    SpectralResidual(SpectralResidual),
    HalfSpaceTrees(Shingled<HalfSpaceTrees>),
    CutForest(Shingled<CutForest>),
    LeftProfile(LeftProfile),
}

impl OneSignal {
    fn new(method: Method, memory: f64, random: &Random) -> Option<Self> {
        Some(match method {
            Method::Auto => return None,
            Method::Ewma => OneSignal::Ewma(Ewma::new(memory)),
            Method::Cusum => OneSignal::Cusum(Cusum::new(memory)),
            Method::RobustZ => OneSignal::RobustZ(RobustZ::new(memory)),
            Method::Prediction => OneSignal::Prediction(Prediction::new(memory)),
            Method::SpectralResidual => OneSignal::SpectralResidual(SpectralResidual::new(memory)),
            Method::HalfSpaceTrees => {
                let trees = HalfSpaceTrees::new(DIMS, random.clone());
                OneSignal::HalfSpaceTrees(Shingled::new(memory, trees))
            }
            Method::CutForest => {
                let forest = CutForest::new(DIMS, random.clone());
                OneSignal::CutForest(Shingled::new(memory, forest))
            }
            Method::LeftProfile => OneSignal::LeftProfile(LeftProfile::new(memory)),
        })
    }

    fn detector(&mut self) -> &mut dyn Detector {
        match self {
            OneSignal::Ewma(detector) => detector,
            OneSignal::Cusum(detector) => detector,
            OneSignal::RobustZ(detector) => detector,
            OneSignal::Prediction(detector) => detector,
            OneSignal::SpectralResidual(detector) => detector,
            OneSignal::HalfSpaceTrees(detector) => detector,
            OneSignal::CutForest(detector) => detector,
            OneSignal::LeftProfile(detector) => detector,
        }
    }
}
