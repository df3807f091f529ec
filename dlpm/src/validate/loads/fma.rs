//! Fused multiply-add on the widest vectors that the CPU has: what draws most on most cores.

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64 as arch;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64 as arch;
use std::hint::black_box;

/// Rounds of ten independent instructions in a batch: enough to hide the latency of two units.
const ROUNDS: u64 = 20_000;

/// Independent chains.
const CHAINS: usize = 10;

/// Factor and addend: the chains run to 1 and stay normal numbers.
const FACTOR: f64 = 0.999_999;
const ADDEND: f64 = 0.000_001;

/// The vectors that the CPU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// Eight doubles.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// Four doubles.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Two doubles, a multiplication and an addition.
    #[cfg(target_arch = "x86_64")]
    Sse2,
    /// Two doubles.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// One double.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    Scalar,
}

impl Width {
    /// The widest that this CPU has.
    pub fn widest() -> Self {
        #[cfg(target_arch = "x86_64")]
        return if is_x86_feature_detected!("avx512f") {
            Self::Avx512
        } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            Self::Avx2
        } else {
            Self::Sse2
        };
        #[cfg(target_arch = "aarch64")]
        return Self::Neon;
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        return Self::Scalar;
    }

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "fused multiply-add of 8 doubles (AVX-512)",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "fused multiply-add of 4 doubles (AVX2)",
            #[cfg(target_arch = "x86_64")]
            Self::Sse2 => "multiply and add of 2 doubles (SSE2)",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "fused multiply-add of 2 doubles (NEON)",
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            Self::Scalar => "multiply and add of one double",
        }
    }

    /// Does a batch: how many rounds.
    pub fn batch(self) -> u64 {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: there is such a value only where the CPU has the instructions, see `widest`.
            Self::Avx512 => unsafe { avx512() },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx2 => unsafe { avx2() },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: all x86-64 processors have them.
            Self::Sse2 => unsafe { sse2() },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: Linux runs on no 64-bit Arm processor without them.
            Self::Neon => unsafe { neon() },
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            Self::Scalar => scalar(),
        }
        ROUNDS
    }
}

/// All chains, `ROUNDS` times.
macro_rules! rounds {
    ($set:expr, $step:expr) => {{
        let (factor, addend) = ($set(black_box(FACTOR)), $set(black_box(ADDEND)));
        let mut chains = [$set(black_box(0.5)); CHAINS];
        for _ in 0..ROUNDS {
            for chain in &mut chains {
                *chain = $step(*chain, factor, addend);
            }
        }
        black_box(chains);
    }};
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn avx512() {
    rounds!(|value| arch::_mm512_set1_pd(value), |chain, factor, addend| {
        arch::_mm512_fmadd_pd(chain, factor, addend)
    });
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2() {
    rounds!(|value| arch::_mm256_set1_pd(value), |chain, factor, addend| {
        arch::_mm256_fmadd_pd(chain, factor, addend)
    });
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
fn sse2() {
    rounds!(|value| arch::_mm_set1_pd(value), |chain, factor, addend| {
        arch::_mm_add_pd(arch::_mm_mul_pd(chain, factor), addend)
    });
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
fn neon() {
    rounds!(|value| arch::vdupq_n_f64(value), |chain, factor, addend| {
        arch::vfmaq_f64(addend, chain, factor)
    });
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn scalar() {
    rounds!(|value| value, |chain: f64, factor: f64, addend: f64| chain * factor
        + addend);
}
