//! Shuffles, bits and byte order are undone as `codecs::undo` does it.

use array::{Bits, Blocks, DataType, Layout, Packing};

use crate::cases::{Case, Random, TYPES, plain, reductions, whole};
use crate::device::{Devices, open};

fn layouts(element_bytes: usize, decoded_bytes: usize) -> Vec<Layout> {
    let mut packings = vec![Packing::Plain];
    for (unit_bytes, block_bytes) in [
        (element_bytes, decoded_bytes),
        (element_bytes, 64 * element_bytes),
        (element_bytes, 24 * element_bytes + 1),
        (3, 100),
        (1, decoded_bytes),
        (16, 128),
    ] {
        let blocks = Blocks {
            unit_bytes,
            block_bytes,
        };
        packings.extend([Packing::Shuffled(blocks), Packing::BitShuffled(blocks)]);
    }
    let mut layouts = Vec::new();
    for packing in packings {
        for is_big_endian in [false, true] {
            layouts.push(Layout {
                packing,
                is_big_endian,
            });
        }
    }
    let all = 8 * element_bytes as u32;
    for width_bits in [1, 3, 7, 8, 11, 13, 31, 33, 64] {
        for (offset_bits, filled_bits) in [(0, width_bits), (0, all), (2, all), (2, width_bits + 3)]
        {
            for is_highest_first in [false, true] {
                let bits = Bits {
                    width_bits,
                    offset_bits,
                    filled_bits,
                    is_highest_first,
                };
                if bits.is_valid(element_bytes) {
                    layouts.push(Layout {
                        packing: Packing::Bits(bits),
                        is_big_endian: false,
                    });
                }
            }
        }
    }
    layouts
}

/// A case of random bytes in a layout.
fn case<'a>(
    random: &mut Random,
    data_type: &'a DataType,
    layout: Layout,
    shape: &[u64],
    reduced: &[bool],
) -> Case<'a> {
    let element_bytes = data_type.size_bytes().unwrap();
    let decoded_bytes = element_bytes * shape.iter().product::<u64>() as usize;
    let length = layout.length_bytes(decoded_bytes, element_bytes);
    let staged: Vec<(Vec<u8>, Layout)> = (0..2)
        .map(|_| {
            let bytes = (0..length).map(|_| random.next() as u8).collect();
            (bytes, layout)
        })
        .collect();
    let decoded = staged.iter().map(|(bytes, layout)| {
        let mut out = vec![0; decoded_bytes];
        codecs::undo(layout, bytes, element_bytes, &mut out).unwrap();
        out
    });
    let decoded = decoded.collect();
    Case {
        staged,
        ..Case::plain(data_type, whole(shape, reduced), decoded)
    }
}

#[test]
fn every_layout_of_every_type_is_undone() {
    let Some(devices) = open(None) else { return };
    let mut random = Random(6);
    for data_type in &TYPES {
        let size = data_type.size_bytes().unwrap();
        let wanted = plain(&reductions(data_type));
        for layout in layouts(size, 5 * 61 * size) {
            for reduced in [[false, true], [true, false]] {
                case(&mut random, data_type, layout, &[5, 61], &reduced).check(&devices, &wanted);
            }
        }
    }
}

#[test]
fn chunks_of_one_task_may_have_several_layouts() {
    let Some(devices) = open(None) else { return };
    let mut random = Random(7);
    let data_type = DataType::Int16;
    let wanted = plain(&reductions(&data_type));
    let mut all: Option<Case<'_>> = None;
    for layout in layouts(2, 2 * 40).into_iter().step_by(3) {
        let more = case(&mut random, &data_type, layout, &[40], &[true]);
        match &mut all {
            None => all = Some(more),
            Some(all) => {
                all.staged.extend(more.staged);
                all.decoded.extend(more.decoded);
                all.keys.extend(more.keys);
            }
        }
    }
    check_in_any_order(&devices, &all.unwrap(), &wanted);
}

fn check_in_any_order(devices: &Devices, case: &Case<'_>, wanted: &[compute::gpu::Wanted<'_>]) {
    case.check(devices, wanted);
    let mut turned = case.clone();
    turned.staged.reverse();
    turned.decoded.reverse();
    turned.check(devices, wanted);
}
