//! The grammar of `slice=`, and what a selection becomes in an array.
#![no_main]

use array::{Bounds, Selection};
use libfuzzer_sys::fuzz_target;

const SHAPES: [&[u64]; 5] = [&[], &[10], &[4, 0, 6], &[3, 4, 5, 6], &[1 << 62, 7]];

fuzz_target!(|text: &str| {
    let Ok(selection) = text.parse::<Selection>() else {
        return;
    };
    let again = Selection::new(selection.items().to_vec());
    assert_eq!(
        again.as_ref(),
        Ok(&selection),
        "what was parsed can be made"
    );
    for shape in SHAPES {
        let clamped = selection.resolve(shape, Bounds::Clamp);
        let strict = selection.resolve(shape, Bounds::Strict);
        if let Ok(strict) = strict {
            assert_eq!(clamped.as_ref(), Ok(&strict), "strict only refuses");
        }
        let Ok(resolved) = clamped else { continue };
        assert_eq!(resolved.axes().len(), shape.len());
        for (axis, &length) in resolved.axes().iter().zip(shape) {
            for nth in [0, axis.len() / 2, axis.len().saturating_sub(1)] {
                assert!(axis.is_empty() || axis.position(nth) < length);
            }
            let hull = axis.hull();
            assert!(hull.start <= hull.end && hull.end <= length);
        }
        assert!(!resolved.canonical().is_empty());
    }
});
