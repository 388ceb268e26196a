//! Which reductions are given to CUDA devices, and why.

use std::sync::Arc;

use array::{DataType, Hash};
use compute::cf::CfDecoder;
use compute::gather::AxisPart;
use compute::gpu::{
    self, DeviceStatus, Estimate, FoundSums, Geometry, Gpus, Stretch, Wanted, Workload,
};
use compute::lanes::{SumOf, Vectors};

use crate::measure::{Aggregation, Measure, Role};

/// Decoded bytes of the inner chunks one task of a device takes, about: its streams stage some while
/// others are at work.
pub(crate) const TASK_BYTES: u64 = 32 << 20;
/// Most sums over vectors that are asked for at once.
const SUMS_MAX: u64 = 2 << 20;
/// Bytes of what devices add up for a kept cell, at most.
const ACCUMULATOR_BYTES: u64 = 24;

/// When devices are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceUse {
    /// Never; they are not even looked for.
    #[default]
    Never,
    /// Where they are faster, by what was measured when they were opened.
    WhereFaster,
    /// For all that they can do.
    Always,
}

/// The CUDA devices of this machine, if there are some. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub struct Devices {
    used: DeviceUse,
    gpus: Option<Arc<Gpus>>,
    is_relaxed: bool,
    /// Why there are none.
    unavailable: Option<gpu::Unavailable>,
}

/// Who computes a reduction.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Whether devices do, as far as they have memory and streams for it.
    pub is_on_device: bool,
    /// Why, in words.
    pub reason: String,
    /// What either is taken to need, where that was asked.
    pub estimate: Option<Estimate>,
}

impl Decision {
    fn processor(reason: impl Into<String>) -> Self {
        Self {
            is_on_device: false,
            reason: reason.into(),
            estimate: None,
        }
    }
}

/// What is asked of devices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) aggregation: &'a Aggregation,
    /// Type of the elements as stored.
    pub(crate) data_type: &'a DataType,
    pub(crate) decoder: Option<&'a CfDecoder>,
    /// Stored chunks: each is at least one task.
    pub(crate) chunks: u64,
    /// Inner chunks, the bytes one decodes to, and its lengths.
    pub(crate) inner_chunks: u64,
    pub(crate) chunk_bytes: u64,
    pub(crate) inner_shape: &'a [u64],
    /// What chunks are decoded by, as their keys on devices have it.
    pub(crate) codec: &'a Hash,
    pub(crate) threads: u64,
}

impl Devices {
    /// The devices, measured. Where there are none, says why in [`Devices::unavailable`].
    pub fn open(used: DeviceUse, settings: gpu::Settings) -> Self {
        if used == DeviceUse::Never {
            return Self::default();
        }
        match Gpus::open(settings) {
            Ok(gpus) => Self {
                used,
                gpus: Some(Arc::new(gpus)),
                is_relaxed: settings.is_relaxed,
                unavailable: None,
            },
            Err(unavailable) => Self {
                used,
                gpus: None,
                is_relaxed: false,
                unavailable: Some(unavailable),
            },
        }
    }

    /// When they are used.
    pub fn used(&self) -> DeviceUse {
        self.used
    }

    /// Why there are none, if they were looked for.
    pub fn unavailable(&self) -> Option<&gpu::Unavailable> {
        self.unavailable.as_ref()
    }

    /// What each of them is and has done.
    pub fn status(&self) -> Vec<DeviceStatus> {
        self.gpus.as_ref().map_or(Vec::new(), |gpus| gpus.status())
    }

    /// Whether the last bits of a product depend on who computes it.
    pub fn is_relaxed(&self) -> bool {
        self.is_relaxed
    }

    /// The version of nvCOMP that decompresses on them, if it was asked for and is there.
    pub fn nvcomp_version(&self) -> Option<String> {
        self.gpus.as_ref()?.nvcomp_version()
    }

    /// What reductions cost on them.
    pub fn rates(&self) -> Option<gpu::Rates> {
        self.gpus.as_ref().and_then(|gpus| gpus.rates())
    }

    pub(crate) fn gpus(&self) -> Option<&Arc<Gpus>> {
        self.gpus.as_ref()
    }

    /// Who computes a reduction.
    pub(crate) fn decide(&self, asked: &Asked<'_>) -> Decision {
        let Some(gpus) = &self.gpus else {
            return Decision::processor(match &self.unavailable {
                Some(reason) => reason.to_string(),
                None => "devices are switched off".to_owned(),
            });
        };
        if !gpus.works() {
            return Decision::processor("the devices failed too often");
        }
        let aggregation = asked.aggregation;
        if !aggregation.conditions.is_empty() {
            return Decision::processor("no kernel looks at conditions");
        }
        let is_grouped = |role: &Role| matches!(role, Role::Grouped(_));
        if aggregation.roles.iter().any(is_grouped) {
            return Decision::processor("no kernel makes groups");
        }
        let wanted = wanted(&aggregation.measures);
        let is_supported =
            |wanted: &[Wanted<'_>]| gpu::supports(asked.data_type, asked.decoder, wanted);
        let Some(wanted) = wanted.filter(|wanted| is_supported(wanted)) else {
            let data_type = asked.data_type;
            return Decision::processor(format!("no kernel does this, or not with {data_type}"));
        };
        if asked.chunk_bytes > gpu::CHUNK_BYTES_MAX {
            return Decision::processor("inner chunks are too large to be copied at once");
        }
        let Some(rates) = gpus.rates() else {
            return Decision::processor("the devices were not measured");
        };
        let estimate = rates.estimate(&asked.workload(gpus, wanted.len()));
        let is_on_device = self.used == DeviceUse::Always || estimate.prefers_device();
        let reason = match (self.used, is_on_device) {
            (DeviceUse::Always, _) => "devices are used for all that they can do",
            (_, true) => "devices are faster, copies included",
            (_, false) => "the processor is faster than copies and kernels",
        };
        Decision {
            is_on_device,
            reason: reason.to_owned(),
            estimate: Some(estimate),
        }
    }

    /// Most bytes of sums that come from devices at once.
    pub(crate) fn sums_bytes_max(&self) -> u64 {
        match &self.gpus {
            Some(_) => 8 * SUMS_MAX,
            None => 0,
        }
    }

    /// Sums over each left and each right vector, and the products of the right vectors with
    /// themselves if asked for; `None` if the processor has to make them.
    pub(crate) fn sums(
        &self,
        of: SumOf,
        left: &Vectors<'_>,
        right: &Vectors<'_>,
        with_own_products: bool,
        threads: usize,
    ) -> Option<FoundSums> {
        let gpus = self.for_sums(left, right, threads)?;
        gpus.sums(of, left, right, with_own_products).ok()
    }

    /// Sums of a product of matrices, which may be [relaxed](Devices::is_relaxed); `None` as above.
    pub(crate) fn products(
        &self,
        of: SumOf,
        left: &Vectors<'_>,
        right: &Vectors<'_>,
        threads: usize,
    ) -> Option<FoundSums> {
        let gpus = self.for_sums(left, right, threads)?;
        gpus.products(of, left, right).ok()
    }

    /// The devices, if they are faster at such sums or always used.
    fn for_sums(&self, left: &Vectors<'_>, right: &Vectors<'_>, threads: usize) -> Option<&Gpus> {
        let gpus = self.gpus.as_ref().filter(|gpus| gpus.works())?;
        let pairs = (left.count() as u64).saturating_mul(right.count() as u64);
        if pairs > SUMS_MAX {
            return None;
        }
        let products = pairs.saturating_mul(left.length() as u64);
        let copied = left.size_bytes() + right.size_bytes();
        let copied = pairs.saturating_mul(8).saturating_add(copied as u64);
        let rates = gpus.rates()?;
        let estimate = rates.estimate_sums(products, copied, threads as u64);
        let is_used = self.used == DeviceUse::Always || estimate.prefers_device();
        is_used.then_some(gpus.as_ref())
    }
}

impl Asked<'_> {
    fn workload(&self, gpus: &Gpus, wanted: usize) -> Workload {
        let decoded_bytes = self.inner_chunks.saturating_mul(self.chunk_bytes);
        let axes = self.inner_shape.iter().zip(&self.aggregation.roles);
        let kept = axes
            .filter(|(_, role)| role.is_kept())
            .fold(1u64, |cells, (&length, _)| cells.saturating_mul(length));
        let found = kept
            .saturating_mul(ACCUMULATOR_BYTES)
            .saturating_mul(wanted as u64);
        Workload {
            tasks: decoded_bytes.div_ceil(TASK_BYTES).max(self.chunks),
            decoded_bytes,
            resident_bytes: gpus.resident_bytes(self.codec).min(decoded_bytes),
            result_bytes: found.saturating_mul(self.inner_chunks),
            wanted: wanted as u64,
            threads: self.threads,
            devices: gpus.len() as u64,
        }
    }
}

/// Measures as devices find them; `None` if one of them is beyond them.
pub(crate) fn wanted(measures: &[Measure]) -> Option<Vec<Wanted<'_>>> {
    let each = measures.iter().map(|measure| match measure {
        Measure::Plain(reduction) => Some(Wanted::Plain(*reduction)),
        Measure::Histogram(bins) => Some(Wanted::Histogram(bins)),
        Measure::Weighted(..) | Measure::Order(_) => None,
    });
    each.collect()
}

/// Cells of an inner chunk as devices walk them; `None` if they are not evenly spaced.
pub(crate) fn geometry(
    parts: &[AxisPart],
    inner_shape: &[u64],
    roles: &[Role],
) -> Option<Geometry> {
    let geometry = Geometry {
        inner_shape: inner_shape.to_vec(),
        stretches: parts.iter().map(stretch).collect::<Option<_>>()?,
        reduced: roles.iter().map(|role| !role.is_kept()).collect(),
    };
    gpu::reaches(&geometry).then_some(geometry)
}

fn stretch(part: &AxisPart) -> Option<Stretch> {
    let start = *part.source.first()?;
    let step = match part.source.get(1) {
        Some(second) => second.checked_sub(start).filter(|&step| step > 0)?,
        None => 1,
    };
    let mut pairs = part.source.windows(2);
    let is_even = pairs.all(|pair| pair[1].checked_sub(pair[0]) == Some(step));
    is_even.then_some(Stretch {
        start,
        step,
        length: part.source.len() as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(source: &[u64]) -> AxisPart {
        AxisPart {
            source: source.to_vec(),
            target: (0..source.len() as u64).collect(),
        }
    }

    #[test]
    fn only_evenly_spaced_cells_are_for_devices() {
        let stretch = |source: &[u64]| stretch(&part(source));
        let of = |start, step, length| {
            Some(Stretch {
                start,
                step,
                length,
            })
        };
        assert_eq!(stretch(&[0, 1, 2]), of(0, 1, 3));
        assert_eq!(stretch(&[3, 6, 9]), of(3, 3, 3));
        assert_eq!(stretch(&[5]), of(5, 1, 1));
        for source in [&[][..], &[0, 1, 3], &[2, 2], &[3, 2, 1], &[0, 2, 3]] {
            assert_eq!(stretch(source), None, "{source:?}");
        }
    }

    #[test]
    fn without_devices_the_reason_is_said() {
        let devices = Devices::default();
        let asked = Asked {
            aggregation: &Aggregation::plain(&[], &[true]),
            data_type: &DataType::Float32,
            decoder: None,
            chunks: 1,
            inner_chunks: 1,
            chunk_bytes: 1,
            inner_shape: &[1],
            codec: &Hash::from_bytes([0; 32]),
            threads: 1,
        };
        let decision = devices.decide(&asked);
        assert!(!decision.is_on_device);
        assert_eq!(decision.reason, "devices are switched off");
    }
}
