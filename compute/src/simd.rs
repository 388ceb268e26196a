//! Kernels compiled for several vector units, chosen once at run time.
//!
//! A [`Kernel`] is written once, in plain Rust. [`run`] calls the copy that was compiled for the
//! widest vectors of this processor. The copies do the same operations in the same order: the
//! compiler neither reorders sums of floats nor fuses multiplications with additions, so results
//! are the same bits everywhere.
//!
//! Whatever a kernel calls in its loops has to be `#[inline(always)]`: what is not inlined is
//! compiled for the baseline.

#![expect(
    unsafe_code,
    reason = "functions for a vector unit may be called only where the processor has it"
)]

/// Work that gains from wide vectors.
pub trait Kernel {
    /// What it computes.
    type Output;

    /// Does the work. Implementations are `#[inline(always)]`.
    fn run(self) -> Self::Output;
}

/// Does the work of `kernel` with the widest vectors of this processor.
#[inline]
pub fn run<K: Kernel>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    {
        // The standard library asks the processor once.
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
        {
            // SAFETY: the processor has these features, as the condition just checked.
            return unsafe { with_avx512(kernel) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2, as the condition just checked.
            return unsafe { with_avx2(kernel) };
        }
    }
    kernel.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn with_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn with_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}

/// Defines a function whose body is a [`Kernel`]. Lifetimes come first, then a semicolon, then
/// type parameters with their bound; references in the arguments name their lifetimes.
///
/// ```ignore
/// vectorised! {
///     /// The sum.
///     pub(crate) fn sum<'a; T: Element>(values: &'a [T]) -> f64 {
///         values.iter().map(|value| value.to_f64()).sum()
///     }
/// }
/// ```
macro_rules! vectorised {
    ($(#[$meta:meta])* $vis:vis fn $name:ident<$($life:lifetime),*; $($type:ident: $bound:path),*>(
        $($argument:ident: $of:ty),* $(,)?
    ) -> $output:ty $body:block) => {
        $(#[$meta])*
        $vis fn $name<$($life,)* $($type: $bound),*>($($argument: $of),*) -> $output {
            struct Call<$($life,)* $($type: $bound),*> {
                $($argument: $of),*
            }
            impl<$($life,)* $($type: $bound),*> $crate::simd::Kernel for Call<$($life,)* $($type),*> {
                type Output = $output;
                #[inline(always)]
                fn run(self) -> $output {
                    let Self { $($argument),* } = self;
                    $body
                }
            }
            $crate::simd::run(Call { $($argument),* })
        }
    };
}
pub(crate) use vectorised;

#[cfg(test)]
mod tests {
    use crate::element::Element;

    vectorised! {
        /// The sum of squares, one after the other.
        fn squares<'a; T: Element>(values: &'a [T]) -> f64 {
            values.iter().map(|&value| value.to_f64() * value.to_f64()).sum()
        }
    }

    #[test]
    fn every_copy_gives_the_same_bits() {
        let values: Vec<f64> = (1..1000).map(|n| 1.0 / f64::from(n)).collect();
        let plain: f64 = values.iter().map(|value| value * value).sum();
        assert_eq!(squares(&values).to_bits(), plain.to_bits());
    }
}
