//! An Arrow IPC stream of one record batch with one row: a column for each variable, then one for each
//! coordinate.
//!
//! A tensor of fixed-size numbers is one `arrow.fixed_shape_tensor`, a scalar a plain value. Texts and
//! bytes are lists of their elements in C order. What the types of Arrow do not say is in the
//! metadata of the columns, as JSON: `shape` and `dimensions` of lists, `attributes`; `coordinates`
//! in the metadata of the schema names the columns that are coordinates.
//!
//! `bfloat16` is widened to `float32`; dates of days, hours and minutes become seconds. NaT, the least
//! integer, is null as a scalar and stays within a tensor, where NumPy reads it as NaT.

use std::collections::HashMap;
use std::sync::Arc;

use ::array::{DataType, Elements, Tensor, TimeUnit};
use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{
    Array as _, ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, FixedSizeBinaryArray,
    FixedSizeListArray, ListArray, PrimitiveArray, RecordBatch, StringArray, make_array,
};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, DataType as Type, Field, Schema, TimeUnit as Unit};
use serde_json::json;

use super::cells::{self, array};
use super::{Answer, Variable};
use crate::error::Failure;

/// An answer as a stream.
///
/// # Errors
/// 406 for types Arrow does not have.
pub(super) fn encode(answer: Answer) -> Result<Vec<u8>, Failure> {
    let coordinates: Vec<String> = answer
        .proper_coordinates()
        .map(|coordinate| coordinate.name.clone())
        .collect();
    let proper: Vec<Variable> = answer.proper_coordinates().cloned().collect();
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    let mut size = 0;
    for variable in answer.variables.into_iter().chain(proper) {
        size += variable.tensor.elements.size_bytes();
        let (field, column) = column(variable)?;
        fields.push(field);
        columns.push(column);
    }
    let metadata = match coordinates.is_empty() {
        true => HashMap::new(),
        false => HashMap::from([("coordinates".into(), json!(coordinates).to_string())]),
    };
    let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
    let write = || {
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
        let mut writer = StreamWriter::try_new(Vec::with_capacity(size + 4096), &schema)?;
        writer.write(&batch)?;
        writer.finish()?;
        writer.into_inner()
    };
    write().map_err(|error| Failure::not_acceptable(format!("Arrow cannot hold it: {error}")))
}

/// A variable as a column of one row.
fn column(variable: Variable) -> Result<(Field, ArrayRef), Failure> {
    let Variable {
        name,
        dimensions,
        tensor,
        attributes,
    } = variable;
    let mut metadata = HashMap::new();
    if !attributes.is_empty() {
        metadata.insert("attributes".into(), json!(attributes).to_string());
    }
    let shape = tensor.shape.clone();
    let values = values(&name, tensor)?;
    let too_long = || {
        let detail = format!("{name} has more elements than an Arrow tensor holds, 2^31 - 1");
        Failure::not_acceptable(detail)
    };
    let column: ArrayRef = if shape.is_empty() {
        with_null_for_nat(values)
    } else if is_tensor_element(values.data_type()) {
        let mut extension = json!({ "shape": shape });
        if dimensions.iter().any(Option::is_some) {
            extension["dim_names"] = json!(names(&dimensions));
        }
        metadata.insert(
            "ARROW:extension:name".into(),
            "arrow.fixed_shape_tensor".into(),
        );
        metadata.insert("ARROW:extension:metadata".into(), extension.to_string());
        let length = i32::try_from(values.len()).map_err(|_| too_long())?;
        let item = Field::new("item", values.data_type().clone(), false);
        // A list of no elements does not say how many lists there are.
        let list = FixedSizeListArray::try_new_with_length(Arc::new(item), length, values, None, 1);
        Arc::new(list.map_err(|error| Failure::not_acceptable(error.to_string()))?)
    } else {
        metadata.insert("shape".into(), json!(shape).to_string());
        metadata.insert("dimensions".into(), json!(dimensions).to_string());
        let length = i32::try_from(values.len()).map_err(|_| too_long())?;
        let offsets = OffsetBuffer::new(ScalarBuffer::from(vec![0, length]));
        let item = Field::new("item", values.data_type().clone(), false);
        Arc::new(ListArray::new(Arc::new(item), offsets, values, None))
    };
    let is_nullable = column.null_count() > 0;
    let field = Field::new(name, column.data_type().clone(), is_nullable).with_metadata(metadata);
    Ok((field, column))
}

/// Arrow wants all names or none.
fn names(dimensions: &[Option<String>]) -> Vec<String> {
    let name = |(axis, name): (usize, &Option<String>)| {
        name.clone().unwrap_or_else(|| format!("dim_{axis}"))
    };
    dimensions.iter().enumerate().map(name).collect()
}

/// Whether a tensor can be of it: numbers, which all readers know how to lay out.
fn is_tensor_element(data_type: &Type) -> bool {
    data_type.is_primitive() || *data_type == Type::Boolean
}

/// The elements, in C order.
fn values(name: &str, tensor: Tensor) -> Result<ArrayRef, Failure> {
    let refused = |reason: &str| {
        let detail = format!(
            "{name} is of type {}, {reason}: ask for f=json or f=octet-stream",
            tensor.data_type
        );
        Failure::not_acceptable(detail)
    };
    let data_type = tensor.data_type.clone();
    let bytes = match tensor.elements {
        Elements::Fixed(ref bytes) => bytes,
        Elements::Variable(ref elements) => {
            let too_long = || refused("and longer than an Arrow array holds, 2^31 - 1 bytes");
            let offsets = elements.offsets().iter().map(|&o| i32::try_from(o).ok());
            let offsets = offsets.collect::<Option<Vec<i32>>>().ok_or_else(too_long)?;
            let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
            let bytes = Buffer::from_vec(elements.bytes().to_vec());
            return Ok(match data_type {
                DataType::String => Arc::new(
                    StringArray::try_new(offsets, bytes, None)
                        .map_err(|_| refused("but is not valid UTF-8"))?,
                ),
                _ => Arc::new(BinaryArray::new(offsets, bytes, None)),
            });
        }
    };
    Ok(match data_type {
        DataType::Bool => {
            let bits = bytes.iter().map(|&byte| byte != 0);
            Arc::new(BooleanArray::new(BooleanBuffer::from_iter(bits), None))
        }
        DataType::Int8 => primitive::<Int8Type>(tensor),
        DataType::Int16 => primitive::<Int16Type>(tensor),
        DataType::Int32 => primitive::<Int32Type>(tensor),
        DataType::Int64 => primitive::<Int64Type>(tensor),
        DataType::UInt8 => primitive::<UInt8Type>(tensor),
        DataType::UInt16 => primitive::<UInt16Type>(tensor),
        DataType::UInt32 => primitive::<UInt32Type>(tensor),
        DataType::UInt64 => primitive::<UInt64Type>(tensor),
        DataType::Float16 => primitive::<Float16Type>(tensor),
        DataType::Float32 => primitive::<Float32Type>(tensor),
        DataType::Float64 => primitive::<Float64Type>(tensor),
        DataType::BFloat16 => {
            let widened = cells::widened(&data_type, bytes);
            Arc::new(PrimitiveArray::<Float32Type>::from(widened))
        }
        DataType::DateTime64 { unit, scale_factor } => {
            let (unit, ticks) = time_unit(unit, scale_factor)
                .ok_or_else(|| refused("whose unit Arrow does not have"))?;
            let scaled = scaled(bytes, ticks)
                .ok_or_else(|| refused("and too far from 1970 for Arrow's units"))?;
            let timestamps = reinterpreted(Type::Timestamp(unit, None), scaled);
            timestamps.map_err(|error| refused(&error.to_string()))?
        }
        DataType::TimeDelta64 { unit, scale_factor } => {
            let (unit, ticks) = time_unit(unit, scale_factor)
                .ok_or_else(|| refused("whose unit Arrow does not have"))?;
            let scaled =
                scaled(bytes, ticks).ok_or_else(|| refused("and too long for Arrow's units"))?;
            let durations = reinterpreted(Type::Duration(unit), scaled);
            durations.map_err(|error| refused(&error.to_string()))?
        }
        DataType::FixedLengthUtf32 { .. } => {
            let texts = cells::bytes(&tensor).map(|cell| cells::text(&data_type, cell));
            Arc::new(
                texts
                    .map(Option::unwrap_or_default)
                    .map(Some)
                    .collect::<StringArray>(),
            )
        }
        DataType::NullTerminatedBytes { .. } => {
            let cells = cells::bytes(&tensor).map(cells::without_padding);
            Arc::new(cells.map(Some).collect::<BinaryArray>())
        }
        DataType::RawBits { length_bytes } | DataType::RawBytes { length_bytes } => {
            let values = Buffer::from_slice_ref(bytes);
            let array = FixedSizeBinaryArray::try_new(length_bytes as i32, values, None);
            Arc::new(array.map_err(|error| refused(&error.to_string()))?)
        }
        DataType::Complex64
        | DataType::Complex128
        | DataType::String
        | DataType::VariableLengthBytes => return Err(refused("which Arrow does not have")),
    })
}

/// Elements that Arrow has as they are.
fn primitive<T: ArrowPrimitiveType>(tensor: Tensor) -> ArrayRef {
    let Elements::Fixed(bytes) = tensor.elements else {
        return Arc::new(PrimitiveArray::<T>::from_iter_values([]));
    };
    let count = bytes.len() / size_of::<T::Native>();
    let is_aligned = bytes.as_ptr().align_offset(align_of::<T::Native>()) == 0;
    let buffer = match is_aligned {
        true => Buffer::from_vec(bytes),
        // Buffers of Arrow's own are aligned for all types.
        false => Buffer::from_slice_ref(&bytes),
    };
    let values = ScalarBuffer::new(buffer, 0, count);
    Arc::new(PrimitiveArray::<T>::new(values, None))
}

/// Arrow's unit, and how many of it a tick is.
fn time_unit(unit: TimeUnit, scale: u32) -> Option<(Unit, i64)> {
    let (unit, ticks) = match unit {
        TimeUnit::Week => (Unit::Second, 7 * 86_400),
        TimeUnit::Day => (Unit::Second, 86_400),
        TimeUnit::Hour => (Unit::Second, 3_600),
        TimeUnit::Minute => (Unit::Second, 60),
        TimeUnit::Second => (Unit::Second, 1),
        TimeUnit::Millisecond => (Unit::Millisecond, 1),
        TimeUnit::Microsecond => (Unit::Microsecond, 1),
        TimeUnit::Nanosecond => (Unit::Nanosecond, 1),
        TimeUnit::Year
        | TimeUnit::Month
        | TimeUnit::Picosecond
        | TimeUnit::Femtosecond
        | TimeUnit::Attosecond
        | TimeUnit::Generic => return None,
    };
    Some((unit, ticks * i64::from(scale)))
}

/// Ticks in Arrow's unit; NaT stays.
fn scaled(bytes: &[u8], factor: i64) -> Option<Vec<i64>> {
    let ticks = bytes.chunks_exact(8).map(|b| i64::from_le_bytes(array(b)));
    let scale = |ticks: i64| match ticks {
        i64::MIN => Some(ticks),
        ticks => ticks.checked_mul(factor),
    };
    ticks.map(scale).collect()
}

/// Whole numbers as a type of the same layout, those of a date or a duration.
fn reinterpreted(data_type: Type, ticks: Vec<i64>) -> Result<ArrayRef, ArrowError> {
    let ticks = PrimitiveArray::<Int64Type>::from(ticks).into_data();
    Ok(make_array(
        ticks.into_builder().data_type(data_type).build()?,
    ))
}

/// A date or duration that is NaT as null; others as they are.
fn with_null_for_nat(value: ArrayRef) -> ArrayRef {
    let is_time = matches!(value.data_type(), Type::Timestamp(..) | Type::Duration(_));
    let data = value.to_data();
    let is_nat = |buffer: &Buffer| buffer.as_slice() == i64::MIN.to_le_bytes();
    if !is_time || !data.buffers().first().is_some_and(is_nat) {
        return value;
    }
    let nulls = NullBuffer::new_null(1);
    let null = data.into_builder().nulls(Some(nulls)).build();
    null.map_or(value, make_array)
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray as _;
    use arrow_array::{Array as _, RecordBatch};
    use arrow_ipc::reader::StreamReader;
    use serde_json::Value;

    use super::super::samples::{floats, grid, tensor, texts, variable};
    use super::*;

    fn read(answer: Answer) -> RecordBatch {
        let stream = encode(answer).unwrap();
        let mut reader = StreamReader::try_new(&stream[..], None).unwrap();
        let batch = reader.next().unwrap().unwrap();
        assert!(reader.next().is_none());
        assert_eq!(batch.num_rows(), 1);
        batch
    }

    fn one(tensor: Tensor) -> RecordBatch {
        let names = vec![""; tensor.shape.len()];
        read(Answer::of(variable("v", &names, tensor)))
    }

    #[test]
    fn tensors_are_fixed_shape_tensors() {
        let batch = read(grid());
        let schema = batch.schema();
        let metadata = schema.field(0).metadata();
        assert_eq!(metadata["ARROW:extension:name"], "arrow.fixed_shape_tensor");
        let extension: Value = serde_json::from_str(&metadata["ARROW:extension:metadata"]).unwrap();
        assert_eq!(
            extension,
            json!({"shape": [2, 3], "dim_names": ["lat", "x"]})
        );
        assert_eq!(metadata["attributes"], "{\"units\":\"K\"}");
        assert_eq!(schema.metadata()["coordinates"], "[\"lat\"]");
        let values = batch.column(0).as_fixed_size_list().values();
        let values = values.as_primitive::<Float32Type>().values();
        assert_eq!(values[..1], [1.5]);
        assert!(values[1].is_nan());
        let lat = batch.column(1).as_fixed_size_list().values();
        assert_eq!(
            lat.as_primitive::<Float64Type>().values()[..],
            [-10.0, 10.0]
        );
    }

    #[test]
    fn scalars_are_values_and_texts_lists() {
        let batch = one(floats(&[], &[2.5]));
        assert_eq!(batch.column(0).as_primitive::<Float32Type>().value(0), 2.5);
        let batch = one(texts(&[2, 1], &["größe", ""]));
        let list = batch.column(0).as_list::<i32>().value(0);
        let words: Vec<_> = list.as_string::<i32>().iter().flatten().collect();
        assert_eq!(words, ["größe", ""]);
        assert_eq!(batch.schema().field(0).metadata()["shape"], "[2,1]");
    }

    #[test]
    fn tensors_without_elements_have_a_row() {
        let batch = one(floats(&[0, 3], &[]));
        assert_eq!(batch.column(0).as_fixed_size_list().value_length(), 0);
    }

    #[test]
    fn dates_are_timestamps_and_nat_is_null_alone() {
        let days = DataType::DateTime64 {
            unit: TimeUnit::Day,
            scale_factor: 2,
        };
        let bytes = [1, i64::MIN].map(i64::to_le_bytes).concat();
        let batch = one(tensor(days.clone(), &[2], bytes));
        let ticks = batch.column(0).as_fixed_size_list().values().to_data();
        assert_eq!(ticks.buffers()[0].typed_data::<i64>(), [172_800, i64::MIN]);
        let batch = one(tensor(days.clone(), &[], i64::MIN.to_le_bytes().to_vec()));
        assert_eq!(batch.column(0).null_count(), 1);
        let far = tensor(days, &[], i64::MAX.to_le_bytes().to_vec());
        let refused = encode(Answer::of(variable("v", &[], far))).unwrap_err();
        assert_eq!(refused.problem().status, 406);
    }

    #[test]
    fn all_types_but_complex_have_a_place() {
        let time = |unit| DataType::TimeDelta64 {
            unit,
            scale_factor: 1,
        };
        for (data_type, size, is_held) in [
            (DataType::Bool, 1, true),
            (DataType::UInt8, 1, true),
            (DataType::Int64, 8, true),
            (DataType::Float16, 2, true),
            (DataType::BFloat16, 2, true),
            (time(TimeUnit::Nanosecond), 8, true),
            (time(TimeUnit::Month), 8, false),
            (DataType::Complex64, 8, false),
            (DataType::RawBits { length_bytes: 3 }, 3, true),
            (DataType::NullTerminatedBytes { length_bytes: 3 }, 3, true),
            (DataType::FixedLengthUtf32 { length_bytes: 4 }, 4, true),
        ] {
            let tensor = tensor(data_type.clone(), &[2], vec![1; 2 * size]);
            let encoded = encode(Answer::of(variable("v", &["x"], tensor)));
            assert_eq!(encoded.is_ok(), is_held, "{data_type}");
        }
    }
}
