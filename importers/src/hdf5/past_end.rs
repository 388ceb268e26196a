//! Cells of a variable past the end of its dataset, which is shorter than an unlimited dimension.
//!
//! netCDF gives them the variable's `_FillValue`, else the default fill value of the type.
//!
//! Source: netcdf.h, `NC_FILL_…`.

use array::DataType;

use crate::source::{Attribute, Attributes};

/// The element such cells hold, in memory order.
pub(super) fn element(data_type: &DataType, attributes: &Attributes) -> Vec<u8> {
    let own = attributes.iter().find(|(name, _)| name == "_FillValue");
    let own = own.map(|(_, value)| value);
    let integer = |default: i128| match own {
        Some(Attribute::Integers(values)) => values.first().copied().unwrap_or(default),
        _ => default,
    };
    let float = match own {
        Some(Attribute::Floats(values)) => values.first().copied(),
        Some(Attribute::Integers(values)) => values.first().map(|&value| value as f64),
        _ => None,
    };
    let float = float.unwrap_or(9.969_209_968_386_869e36);
    match data_type {
        DataType::Int8 => (integer(-127) as i8).to_le_bytes().to_vec(),
        DataType::Int16 => (integer(-32_767) as i16).to_le_bytes().to_vec(),
        DataType::Int32 => (integer(-2_147_483_647) as i32).to_le_bytes().to_vec(),
        DataType::Int64 => (integer(-9_223_372_036_854_775_806) as i64)
            .to_le_bytes()
            .to_vec(),
        DataType::UInt8 => (integer(255) as u8).to_le_bytes().to_vec(),
        DataType::UInt16 => (integer(65_535) as u16).to_le_bytes().to_vec(),
        DataType::UInt32 => (integer(4_294_967_295) as u32).to_le_bytes().to_vec(),
        DataType::UInt64 => (integer(18_446_744_073_709_551_614) as u64)
            .to_le_bytes()
            .to_vec(),
        DataType::Float32 => (float as f32).to_le_bytes().to_vec(),
        DataType::Float64 => float.to_le_bytes().to_vec(),
        other => text(other, own),
    }
}

/// Text is filled with its `_FillValue`, else with NUL, as are the types netCDF has no default for.
fn text(data_type: &DataType, own: Option<&Attribute>) -> Vec<u8> {
    let mut bytes = match own {
        Some(Attribute::Text(text)) => text.clone().into_bytes(),
        _ => Vec::new(),
    };
    if let Some(size) = data_type.size_bytes() {
        bytes.resize(size, 0);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_netcdf() {
        let none = Vec::new();
        assert_eq!(element(&DataType::Int16, &none), (-32_767i16).to_le_bytes());
        assert_eq!(
            element(&DataType::Float32, &none),
            9.969_21e36f32.to_le_bytes()
        );
        let char = DataType::NullTerminatedBytes { length_bytes: 1 };
        assert_eq!(element(&char, &none), [0]);
        let dash = vec![("_FillValue".into(), Attribute::Text("-".into()))];
        assert_eq!(element(&char, &dash), *b"-");
        assert_eq!(element(&DataType::String, &dash), *b"-");
    }
}
