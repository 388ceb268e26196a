use std::io::Cursor;

use ::tiff::encoder::{Compression, TiffEncoder, colortype};

use super::*;

fn written(bytes: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    file
}

/// An image of 7 x 5 pixels with three bands, in strips of two rows.
fn image(compression: Compression) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut file)
        .unwrap()
        .with_compression(compression);
    let mut image = encoder.new_image::<colortype::RGB16>(7, 5).unwrap();
    image.rows_per_strip(2).unwrap();
    let tags = image.encoder();
    tags.write_tag(Tag::ModelPixelScaleTag, &[10.0, 20.0, 0.0][..])
        .unwrap();
    tags.write_tag(
        Tag::ModelTiepointTag,
        &[0.0, 0.0, 0.0, 500.0, 4000.0, 0.0][..],
    )
    .unwrap();
    tags.write_tag(Tag::GdalNodata, "9").unwrap();
    let pixels: Vec<u16> = (0..7 * 5 * 3).collect();
    image.write_data(&pixels).unwrap();
    file.into_inner()
}

fn value(band: u64, row: u64, column: u64) -> u16 {
    ((row * 7 + column) * 3 + band) as u16
}

#[test]
fn pixels_are_read_by_band() {
    for compression in [
        Compression::Uncompressed,
        Compression::Lzw,
        Compression::Deflate(Default::default()),
        Compression::Packbits,
    ] {
        let file = written(&image(compression));
        let (tiff, groups) = TiffFile::open(file.path()).unwrap();
        let data = &groups[0].variables[0];
        assert_eq!(
            (&data.shape[..], &data.data_type),
            (&[3, 5, 7][..], &DataType::UInt16)
        );
        for (start, shape) in [
            ([0, 0, 0], [3, 5, 7]),
            ([1, 1, 2], [1, 3, 4]),
            ([2, 4, 6], [1, 1, 1]),
        ] {
            let region = Region::new(start.to_vec(), shape.to_vec()).unwrap();
            let wanted = region
                .positions()
                .flat_map(|at| value(at[0], at[1], at[2]).to_le_bytes());
            assert_eq!(
                tiff.read(data, &region).unwrap(),
                Elements::Fixed(wanted.collect())
            );
        }
        let coordinate = |name: &str| {
            let variable = groups[0].variables.iter().find(|v| v.name == name).unwrap();
            let Elements::Fixed(bytes) = tiff
                .read(variable, &Region::whole(&variable.shape))
                .unwrap()
            else {
                panic!("numbers");
            };
            bytes
                .chunks_exact(8)
                .map(|b| f64::from_le_bytes(b.try_into().unwrap()))
                .collect::<Vec<_>>()
        };
        assert_eq!(coordinate("x")[..2], [505.0, 515.0]);
        assert_eq!(coordinate("y")[..2], [3990.0, 3970.0]);
        assert!(
            data.attributes
                .contains(&("_FillValue".into(), Attribute::Integers(vec![9])))
        );
    }
}

#[test]
fn damage_is_an_error_or_other_pixels() {
    let good = image(Compression::Lzw);
    let read_all = |bytes: &[u8]| {
        let file = written(bytes);
        let Ok((tiff, groups)) = TiffFile::open(file.path()) else {
            return;
        };
        for variable in &groups[0].variables {
            let shape: Vec<u64> = variable.shape.iter().map(|&length| length.min(8)).collect();
            let _ = tiff.read(variable, &Region::whole(&shape));
        }
    };
    for at in 0..good.len() {
        read_all(&good[..at]);
        for bit in [0, 3, 7] {
            let mut flipped = good.clone();
            flipped[at] ^= 1 << bit;
            read_all(&flipped);
        }
    }
}
