//! `zarr.json` as clients write it, and the canonical form it is stored in.
#![no_main]

use array::NodeMetadata;
use array::json::{canonical_bytes, parse, parse_canonical};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(value) = parse("document", bytes) {
        let canonical = canonical_bytes(&value);
        let again = parse_canonical("document", &canonical);
        assert_eq!(
            again.as_ref(),
            Ok(&value),
            "the canonical form is of the same value"
        );
    }
    let Ok(node) = NodeMetadata::parse(bytes) else {
        return;
    };
    let canonical = node.canonical_bytes();
    let again = NodeMetadata::parse(&canonical);
    assert_eq!(
        again.as_ref(),
        Ok(&node),
        "the stored form is of the same node"
    );
    if let NodeMetadata::Array(array) = &node {
        let sharding = array::Sharding::of(array);
        if let Ok(Some(sharding)) = sharding {
            assert_eq!(sharding.inner_shape().len(), array.dimensions());
            let last = sharding.inner_chunks() - 1;
            assert!(sharding.inner_region(last).is_ok());
        }
    }
});
