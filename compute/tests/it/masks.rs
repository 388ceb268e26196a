//! Masked values equal those of xarray's `where`, and ranges tell what masks will say.

use array::{DataType, Scalar};
use compute::Condition;
use compute::predicate::{Holds, Predicate, masked};
use proptest::prelude::*;

use crate::golden::{bytes, data_type};
use crate::order::{golden, same};

fn predicate(text: &str) -> Predicate {
    let condition: Condition = text.parse().unwrap();
    condition.terms[0].1.clone()
}

fn mask(predicate: &Predicate, of: &DataType, values: &[u8]) -> Vec<bool> {
    let mut mask = vec![true; values.len() / of.size_bytes().unwrap()];
    predicate.mask(of, values, &mut mask).unwrap();
    mask
}

#[test]
fn masked_values_are_xarrays() {
    for row in golden() {
        let of = data_type(row["data_type"].as_str().unwrap());
        let values = bytes(&row["values"]);
        for case in row["masks"].as_array().unwrap() {
            let mask = mask(&predicate(case["where"].as_str().unwrap()), &of, &values);
            let (result, found) = masked(&of, &values, &mask).unwrap();
            assert_eq!(result, data_type(case["data_type"].as_str().unwrap()));
            assert!(
                same(&result, &found, &bytes(&case["result"])),
                "{of} {case}"
            );
        }
    }
}

#[test]
fn integers_are_compared_exactly() {
    let values = [i64::MIN, -1, 0, (1 << 53) + 1, i64::MAX]
        .map(i64::to_le_bytes)
        .concat();
    let of = DataType::Int64;
    let kept = |text: &str| mask(&predicate(text), &of, &values);
    assert_eq!(
        kept("a>9007199254740992"),
        [false, false, false, true, true]
    );
    assert_eq!(
        kept("a==9007199254740993"),
        [false, false, false, true, false]
    );
    assert_eq!(kept("a<18446744073709551615"), [true; 5]);
    assert_eq!(kept("a>-0.5"), [false, false, true, true, true]);
    assert_eq!(kept("a!=0.5"), [true; 5]);
    assert_eq!(kept("a==0.5"), [false; 5]);
    assert_eq!(kept("a<-inf"), [false; 5]);
    assert_eq!(kept("a>=-1,a<1"), [false, true, true, false, false]);
}

#[test]
fn times_that_are_not_only_differ() {
    let values = [i64::MIN, 3].map(i64::to_le_bytes).concat();
    let of = data_type("<M8[ns]");
    assert_eq!(mask(&predicate("time<5"), &of, &values), [false, true]);
    assert_eq!(mask(&predicate("time!=3"), &of, &values), [true, false]);
    let (result, bytes) = masked(&of, &values, &[true, false]).unwrap();
    assert_eq!(
        (result, bytes),
        (of, [i64::MIN; 2].map(i64::to_le_bytes).concat())
    );
    assert!(Predicate::data_type(&DataType::String).is_err());
    assert_eq!(Predicate::data_type(&DataType::Bool), Ok(DataType::Float32));
}

fn comparison() -> impl Strategy<Value = String> {
    let sign = prop::sample::select(vec!["<", "<=", ">", ">=", "==", "!="]);
    let value = prop::sample::select(vec!["-2", "-0.1", "0", "0.1", "0.5", "1", "2"]);
    let one = (sign, value).prop_map(|(sign, value)| format!("a{sign}{value}"));
    prop::collection::vec(one, 1..4).prop_map(|all| all.join(" and "))
}

proptest! {
    #[test]
    fn ranges_tell_what_masks_say(
        text in comparison(),
        values in prop::collection::vec(prop::sample::select(vec![-2f32, -0.1, 0.0, 0.1, 1.0, f32::NAN]), 1..6),
        as_integers in any::<bool>(),
    ) {
        let predicate = predicate(&text);
        let (of, bytes, missing) = if as_integers {
            let bytes = values.iter().map(|&value| value as i8 as u8).collect();
            (DataType::Int8, bytes, false)
        } else {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            (DataType::Float32, bytes, values.iter().any(|value| value.is_nan()))
        };
        let scalar = |value: f32| if as_integers {
            Scalar::Int(i64::from(value as i8))
        } else {
            Scalar::Float(f64::from(value))
        };
        let valid = values.iter().copied().filter(|value| as_integers || !value.is_nan());
        let valid: Vec<Scalar> = valid.map(scalar).collect();
        let least = valid.iter().copied().reduce(Scalar::min);
        let greatest = valid.iter().copied().reduce(Scalar::max);
        let mask = mask(&predicate, &of, &bytes);
        match predicate.may_hold(&of, least.zip(greatest), missing) {
            Holds::Never => prop_assert!(mask.iter().all(|keeps| !keeps)),
            Holds::Always => prop_assert!(mask.iter().all(|keeps| *keeps)),
            Holds::Sometimes => {}
        }
        if least == greatest && !missing {
            prop_assert_ne!(predicate.may_hold(&of, least.zip(greatest), missing), Holds::Sometimes);
        }
    }
}
