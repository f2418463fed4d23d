//! Eight numbers at a time, in the widest form that this processor has: AVX-512, AVX2, or plain loops.
//!
//! A [`Kernel`] is written once over [`Lanes`]; [`widest`] compiles it for each form and chooses when it runs. All forms
//! give bit for bit the same numbers: no fused multiply-add, no sums in another order. The crate's only unsafe code is here.
#![allow(unsafe_code)]

pub(crate) const LANES: usize = 8;
pub(crate) type Block = [f64; LANES];

/// Eight numbers. None of them is NaN where two are compared.
pub(crate) trait Lanes: Copy {
    fn load(block: &Block) -> Self;
    fn store(self, block: &mut Block);
    fn all(value: f64) -> Self;
    fn plus(self, other: Self) -> Self;
    fn minus(self, other: Self) -> Self;
    fn times(self, other: Self) -> Self;
    fn least(self, other: Self) -> Self;
    fn most(self, other: Self) -> Self;
    /// Each lane's lower neighbour; the lowest lane's is the last one of `before`.
    fn lower(self, before: Self) -> Self;
    /// Each lane's upper neighbour; the highest lane's is the first one of `after`.
    fn upper(self, after: Self) -> Self;
    /// Whether a lane is at most `limit`.
    fn any_within(self, limit: f64) -> bool;
    /// All lanes, added up in pairs of halves.
    #[inline(always)]
    fn sum(self) -> f64 {
        let mut block = [0.0; LANES];
        self.store(&mut block);
        let [a, b, c, d, e, f, g, h] = block;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }
}

/// A loop over lanes; `run` must be `#[inline(always)]`, so that it is compiled with the features of its caller.
pub(crate) trait Kernel {
    type Output;
    fn run<L: Lanes>(self) -> Self::Output;
}

/// Runs a kernel in the widest form there is.
pub(crate) fn widest<K: Kernel>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has AVX-512F, which was just asked.
            return unsafe { x86::on_avx512(kernel) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2, which was just asked.
            return unsafe { x86::on_avx2(kernel) };
        }
    }
    kernel.run::<Plain>()
}

/// Eight neighbours; zeros where there are fewer.
#[inline(always)]
pub(crate) fn load<L: Lanes>(series: &[f64], at: usize) -> L {
    L::load(series[at..].first_chunk().unwrap_or(&[0.0; LANES]))
}

/// The forms that this processor has, for tests.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    Plain,
    Avx2,
    Avx512,
}

#[cfg(test)]
impl Form {
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Form::Plain => kernel.run::<Plain>(),
            // SAFETY, of both: `each_form` gives only what the processor has.
            #[cfg(target_arch = "x86_64")]
            Form::Avx2 => unsafe { x86::on_avx2(kernel) },
            #[cfg(target_arch = "x86_64")]
            Form::Avx512 => unsafe { x86::on_avx512(kernel) },
            #[cfg(not(target_arch = "x86_64"))]
            Form::Avx2 | Form::Avx512 => widest(kernel),
        }
    }
}

/// What each form gives.
#[cfg(test)]
pub(crate) fn each_form<T>(mut of: impl FnMut(Form) -> T) -> Vec<T> {
    let mut forms = vec![of(Form::Plain)];
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx2") {
            forms.push(of(Form::Avx2));
        }
        if is_x86_feature_detected!("avx512f") {
            forms.push(of(Form::Avx512));
        }
    }
    forms
}

/// For processors without either; compilers make what vectors they can of it.
#[derive(Clone, Copy)]
pub(crate) struct Plain(Block);

impl Plain {
    #[inline(always)]
    fn each(self, other: Self, of: impl Fn(f64, f64) -> f64) -> Self {
        Plain(std::array::from_fn(|lane| of(self.0[lane], other.0[lane])))
    }
}

impl Lanes for Plain {
    #[inline(always)]
    fn load(block: &Block) -> Self {
        Plain(*block)
    }
    #[inline(always)]
    fn store(self, block: &mut Block) {
        *block = self.0;
    }
    #[inline(always)]
    fn all(value: f64) -> Self {
        Plain([value; LANES])
    }
    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self.each(other, |a, b| a + b)
    }
    #[inline(always)]
    fn minus(self, other: Self) -> Self {
        self.each(other, |a, b| a - b)
    }
    #[inline(always)]
    fn times(self, other: Self) -> Self {
        self.each(other, |a, b| a * b)
    }
    #[inline(always)]
    fn least(self, other: Self) -> Self {
        self.each(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn most(self, other: Self) -> Self {
        self.each(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn lower(self, before: Self) -> Self {
        Plain(std::array::from_fn(|lane| {
            if lane == 0 {
                before.0[LANES - 1]
            } else {
                self.0[lane - 1]
            }
        }))
    }
    #[inline(always)]
    fn upper(self, after: Self) -> Self {
        Plain(std::array::from_fn(|lane| {
            if lane == LANES - 1 {
                after.0[0]
            } else {
                self.0[lane + 1]
            }
        }))
    }
    #[inline(always)]
    fn any_within(self, limit: f64) -> bool {
        self.0.iter().any(|lane| *lane <= limit)
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Block, Kernel, Lanes};

    #[target_feature(enable = "avx512f")]
    pub fn on_avx512<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Avx512>()
    }

    #[target_feature(enable = "avx2")]
    pub fn on_avx2<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Avx2>()
    }

    #[derive(Clone, Copy)]
    pub struct Avx512(__m512d);

    // SAFETY, of all blocks below: only `on_avx512` and `on_avx2` name these types, and they run where the processor has the
    // feature; loads and stores are of whole blocks and ask for no alignment.
    impl Lanes for Avx512 {
        #[inline(always)]
        fn load(block: &Block) -> Self {
            Avx512(unsafe { _mm512_loadu_pd(block.as_ptr()) })
        }
        #[inline(always)]
        fn store(self, block: &mut Block) {
            unsafe { _mm512_storeu_pd(block.as_mut_ptr(), self.0) }
        }
        #[inline(always)]
        fn all(value: f64) -> Self {
            Avx512(unsafe { _mm512_set1_pd(value) })
        }
        #[inline(always)]
        fn plus(self, other: Self) -> Self {
            Avx512(unsafe { _mm512_add_pd(self.0, other.0) })
        }
        #[inline(always)]
        fn minus(self, other: Self) -> Self {
            Avx512(unsafe { _mm512_sub_pd(self.0, other.0) })
        }
        #[inline(always)]
        fn times(self, other: Self) -> Self {
            Avx512(unsafe { _mm512_mul_pd(self.0, other.0) })
        }
        #[inline(always)]
        fn least(self, other: Self) -> Self {
            Avx512(unsafe { _mm512_min_pd(self.0, other.0) })
        }
        #[inline(always)]
        fn most(self, other: Self) -> Self {
            Avx512(unsafe { _mm512_max_pd(self.0, other.0) })
        }
        #[inline(always)]
        fn lower(self, before: Self) -> Self {
            unsafe {
                let (high, low) = (_mm512_castpd_si512(self.0), _mm512_castpd_si512(before.0));
                Avx512(_mm512_castsi512_pd(_mm512_alignr_epi64::<7>(high, low)))
            }
        }
        #[inline(always)]
        fn upper(self, after: Self) -> Self {
            unsafe {
                let (high, low) = (_mm512_castpd_si512(after.0), _mm512_castpd_si512(self.0));
                Avx512(_mm512_castsi512_pd(_mm512_alignr_epi64::<1>(high, low)))
            }
        }
        #[inline(always)]
        fn any_within(self, limit: f64) -> bool {
            unsafe { _mm512_cmp_pd_mask::<_CMP_LE_OQ>(self.0, _mm512_set1_pd(limit)) != 0 }
        }
    }

    /// The lower four lanes and the higher four.
    #[derive(Clone, Copy)]
    pub struct Avx2(__m256d, __m256d);

    impl Lanes for Avx2 {
        #[inline(always)]
        fn load(block: &Block) -> Self {
            let (low, high) = block.split_at(4);
            unsafe { Avx2(_mm256_loadu_pd(low.as_ptr()), _mm256_loadu_pd(high.as_ptr())) }
        }
        #[inline(always)]
        fn store(self, block: &mut Block) {
            let (low, high) = block.split_at_mut(4);
            unsafe {
                _mm256_storeu_pd(low.as_mut_ptr(), self.0);
                _mm256_storeu_pd(high.as_mut_ptr(), self.1);
            }
        }
        #[inline(always)]
        fn all(value: f64) -> Self {
            let four = unsafe { _mm256_set1_pd(value) };
            Avx2(four, four)
        }
        #[inline(always)]
        fn plus(self, other: Self) -> Self {
            unsafe { Avx2(_mm256_add_pd(self.0, other.0), _mm256_add_pd(self.1, other.1)) }
        }
        #[inline(always)]
        fn minus(self, other: Self) -> Self {
            unsafe { Avx2(_mm256_sub_pd(self.0, other.0), _mm256_sub_pd(self.1, other.1)) }
        }
        #[inline(always)]
        fn times(self, other: Self) -> Self {
            unsafe { Avx2(_mm256_mul_pd(self.0, other.0), _mm256_mul_pd(self.1, other.1)) }
        }
        #[inline(always)]
        fn least(self, other: Self) -> Self {
            unsafe { Avx2(_mm256_min_pd(self.0, other.0), _mm256_min_pd(self.1, other.1)) }
        }
        #[inline(always)]
        fn most(self, other: Self) -> Self {
            unsafe { Avx2(_mm256_max_pd(self.0, other.0), _mm256_max_pd(self.1, other.1)) }
        }
        #[inline(always)]
        fn lower(self, before: Self) -> Self {
            unsafe { Avx2(shift_in(before.1, self.0), shift_in(self.0, self.1)) }
        }
        #[inline(always)]
        fn upper(self, after: Self) -> Self {
            unsafe { Avx2(shift_out(self.0, self.1), shift_out(self.1, after.0)) }
        }
        #[inline(always)]
        fn any_within(self, limit: f64) -> bool {
            unsafe {
                let limit = _mm256_set1_pd(limit);
                let (low, high) = (
                    _mm256_cmp_pd::<_CMP_LE_OQ>(self.0, limit),
                    _mm256_cmp_pd::<_CMP_LE_OQ>(self.1, limit),
                );
                _mm256_movemask_pd(_mm256_or_pd(low, high)) != 0
            }
        }
    }

    /// `before[3], four[0], four[1], four[2]`
    #[inline]
    #[target_feature(enable = "avx2")]
    fn shift_in(before: __m256d, four: __m256d) -> __m256d {
        let middle = _mm256_permute2f128_pd::<0x21>(before, four);
        _mm256_shuffle_pd::<0b0101>(middle, four)
    }

    /// `four[1], four[2], four[3], after[0]`
    #[inline]
    #[target_feature(enable = "avx2")]
    fn shift_out(four: __m256d, after: __m256d) -> __m256d {
        let middle = _mm256_permute2f128_pd::<0x21>(four, after);
        _mm256_shuffle_pd::<0b0101>(four, middle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every operation on two blocks.
    struct Everything(Block, Block);

    impl Kernel for Everything {
        type Output = (Vec<Block>, Vec<bool>);

        #[inline(always)]
        fn run<L: Lanes>(self) -> Self::Output {
            let (a, b) = (L::load(&self.0), L::load(&self.1));
            let all = [
                a.plus(b),
                a.minus(b),
                a.times(b),
                a.least(b),
                a.most(b),
                a.lower(b),
                a.upper(b),
                L::all(7.5),
            ];
            let blocks = all.map(|lanes| {
                let mut block = [0.0; LANES];
                lanes.store(&mut block);
                block
            });
            (blocks.to_vec(), self.0.map(|limit| a.any_within(limit - 0.5)).to_vec())
        }
    }

    #[test]
    fn all_forms_agree() {
        let a = [3.0, -1.5, f64::INFINITY, 0.1, 1e308, 5.0, -7.0, 2.0];
        let b = [2.0, 9.0, 4.0, 0.3, 1e308, f64::INFINITY, -8.0, 2.0];
        let plain = Everything(a, b).run::<Plain>();
        assert_eq!(plain.0[5], [2.0, 3.0, -1.5, f64::INFINITY, 0.1, 1e308, 5.0, -7.0]);
        assert_eq!(plain.0[6], [-1.5, f64::INFINITY, 0.1, 1e308, 5.0, -7.0, 2.0, 2.0]);
        assert_eq!(widest(Everything(a, b)), plain);
        for form in each_form(|form| form.run(Everything(a, b))) {
            assert_eq!(form, plain);
        }
    }
}
