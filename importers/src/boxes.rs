//! Elements of one box of an array as elements of another.

use array::{DataType, Elements, Region, Runs, shape};

use crate::Error;

/// The elements of `target`: those `elements` has, which cover `covered`, and `fill` elsewhere.
///
/// # Errors
/// [`Error::Array`] if `target` is too large for memory.
pub(crate) fn fit(
    data_type: &DataType,
    fill: &[u8],
    elements: &Elements,
    covered: &Region,
    target: &Region,
) -> Result<Elements, Error> {
    let common = covered.intersect(target);
    let runs = Runs::of(&common, covered, target);
    let count = shape::elements(target.shape())?;
    match elements {
        Elements::Fixed(bytes) => {
            let size = fill.len();
            let length = runs.length() as usize * size;
            if common == *target {
                // Nothing to fill, and the runs come in the order of the target.
                let mut out = Vec::new();
                out.try_reserve_exact(shape::size_bytes(target.shape(), data_type)?)
                    .map_err(|_| array::Error::TooLarge { what: "a shard" })?;
                runs.for_each(|from, _| {
                    let from = from as usize * size;
                    out.extend_from_slice(&bytes[from..from + length]);
                });
                return Ok(Elements::Fixed(out));
            }
            let mut whole = Elements::repeat(data_type, fill, count)?;
            if let Elements::Fixed(out) = &mut whole {
                runs.for_each(|from, to| {
                    let (from, to) = (from as usize * size, to as usize * size);
                    out[to..to + length].copy_from_slice(&bytes[from..from + length]);
                });
            }
            Ok(whole)
        }
        Elements::Variable(values) => {
            let mut texts = vec![fill; count as usize];
            runs.for_each(|from, to| {
                for nth in 0..runs.length() {
                    texts[(to + nth) as usize] =
                        values.get((from + nth) as usize).unwrap_or_default();
                }
            });
            Ok(Elements::Variable(texts.into_iter().collect()))
        }
    }
}

/// The elements of `target`: those of the parts that cover it, which do not overlap, and `fill`
/// elsewhere.
///
/// # Errors
/// [`Error::Array`] if `target` is too large for memory.
pub(crate) fn assemble(
    data_type: &DataType,
    fill: &[u8],
    parts: &[(&Region, &Elements)],
    target: &Region,
) -> Result<Elements, Error> {
    let count = shape::elements(target.shape())?;
    let mut whole = Elements::repeat(data_type, fill, count)?;
    let mut texts: Vec<&[u8]> = match &whole {
        Elements::Fixed(_) => Vec::new(),
        Elements::Variable(_) => vec![fill; count as usize],
    };
    for (covered, elements) in parts {
        let runs = Runs::of(&covered.intersect(target), covered, target);
        match (elements, &mut whole) {
            (Elements::Fixed(bytes), Elements::Fixed(out)) => {
                let (size, length) = (fill.len(), runs.length() as usize * fill.len());
                runs.for_each(|from, to| {
                    let (from, to) = (from as usize * size, to as usize * size);
                    out[to..to + length].copy_from_slice(&bytes[from..from + length]);
                });
            }
            (Elements::Variable(values), _) => runs.for_each(|from, to| {
                for nth in 0..runs.length() {
                    let value = values.get((from + nth) as usize);
                    texts[(to + nth) as usize] = value.unwrap_or_default();
                }
            }),
            // Parts have the data type of the whole.
            _ => {}
        }
    }
    Ok(match whole {
        Elements::Variable(_) => Elements::Variable(texts.into_iter().collect()),
        fixed => fixed,
    })
}

/// Copies the elements of `element_bytes` that two boxes share, from one to the other.
pub(crate) fn copy(
    element_bytes: usize,
    from: &[u8],
    from_box: &Region,
    to: &mut [u8],
    to_box: &Region,
) {
    let runs = Runs::of(&from_box.intersect(to_box), from_box, to_box);
    let length = runs.length() as usize * element_bytes;
    runs.for_each(|at, place| {
        let (at, place) = (at as usize * element_bytes, place as usize * element_bytes);
        to[place..place + length].copy_from_slice(&from[at..at + length]);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(start: &[u64], shape: &[u64]) -> Region {
        Region::new(start.to_vec(), shape.to_vec()).unwrap()
    }

    /// Every element's value is its position in the array, or 255 where there is none.
    fn numbered(array: &[u64], covered: &Region, target: &Region) -> Vec<u8> {
        let strides = shape::strides(array);
        let value = |at: &[u64]| {
            let place: u64 = at
                .iter()
                .zip(&strides)
                .map(|(at, stride)| at * stride)
                .sum();
            place as u8
        };
        let known: Vec<_> = covered.positions().collect();
        target
            .positions()
            .map(|at| if known.contains(&at) { value(&at) } else { 255 })
            .collect()
    }

    #[test]
    fn every_pair_of_boxes_gives_the_elements_they_share() {
        let array = [3, 4, 5];
        let boxes = [
            region(&[0, 0, 0], &[3, 4, 5]),
            region(&[1, 0, 0], &[2, 4, 5]),
            region(&[0, 1, 0], &[3, 2, 5]),
            region(&[0, 0, 2], &[3, 4, 3]),
            region(&[1, 1, 1], &[1, 2, 3]),
            region(&[2, 3, 4], &[1, 1, 1]),
            region(&[2, 0, 0], &[0, 4, 5]),
            region(&[0, 0, 0], &[4, 6, 7]),
        ];
        for covered in boxes.iter().filter(|b| *b.shape() != [4, 6, 7]) {
            let elements = Elements::Fixed(numbered(&array, covered, covered));
            for target in &boxes {
                let fitted = fit(&DataType::UInt8, &[255], &elements, covered, target).unwrap();
                let Elements::Fixed(found) = fitted else {
                    panic!("bytes stay bytes")
                };
                assert_eq!(
                    found,
                    numbered(&array, covered, target),
                    "{covered:?} {target:?}"
                );
            }
        }
    }

    #[test]
    fn parts_make_a_whole() {
        let array = [3, 4, 5];
        let parts = [
            region(&[0, 0, 0], &[3, 2, 5]),
            region(&[0, 2, 2], &[3, 2, 3]),
        ];
        let elements = parts
            .each_ref()
            .map(|part| Elements::Fixed(numbered(&array, part, part)));
        let known: Vec<_> = parts.iter().zip(&elements).collect();
        for target in [
            region(&[0, 0, 0], &[3, 4, 5]),
            region(&[1, 1, 1], &[1, 2, 3]),
        ] {
            let whole = assemble(&DataType::UInt8, &[255], &known, &target).unwrap();
            let has = |at: &[u64]| parts.iter().any(|part| part.contains_position(at));
            let all = numbered(&array, &target, &target);
            let wanted = target
                .positions()
                .zip(all)
                .map(|(at, n)| if has(&at) { n } else { 255 });
            assert_eq!(whole, Elements::Fixed(wanted.collect()), "{target}");
        }
    }

    #[test]
    fn a_scalar_and_texts_fit_too() {
        let scalar = Region::whole(&[]);
        let one = Elements::Fixed(vec![7, 0]);
        let fitted = fit(&DataType::Int16, &[0, 0], &one, &scalar, &scalar).unwrap();
        assert!(matches!(fitted, Elements::Fixed(bytes) if bytes == [7, 0]));
        let texts = ["a", "bc", "d"].map(str::as_bytes).into_iter().collect();
        let texts = Elements::Variable(texts);
        let (covered, target) = (region(&[0], &[3]), region(&[1], &[3]));
        let fitted = fit(&DataType::String, b"-", &texts, &covered, &target).unwrap();
        let Elements::Variable(found) = fitted else {
            panic!("texts stay texts")
        };
        assert_eq!(
            found.iter().collect::<Vec<_>>(),
            [b"bc".as_slice(), b"d", b"-"]
        );
    }
}
