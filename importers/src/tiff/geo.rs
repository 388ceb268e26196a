//! Where the pixels of a GeoTIFF are on earth.
//!
//! Source: OGC GeoTIFF 1.1, "GeoKeyDirectoryTag", "Coordinate transformation"; GDAL's GTiff driver
//! for what pixels as points mean.

use crate::source::{Attribute, Attributes};

/// GeoKeys by number: what a pixel is, and the codes of the coordinate system.
const RASTER_TYPE: u16 = 1025;
const GEODETIC_CRS: u16 = 2048;
const PROJECTED_CRS: u16 = 3072;
/// A pixel stands for a point.
const IS_POINT: u16 = 2;
/// The coordinate system is none of EPSG.
const USER_DEFINED: u16 = 32767;

/// The affine map from columns and rows, counted from the corner of the first pixel, to x and y:
/// `x = [0] + column [1] + row [2]`, `y = [3] + column [4] + row [5]`, as GDAL has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Transform(pub(super) [f64; 6]);

/// What the tags say.
#[derive(Debug, Default)]
pub(super) struct Tags {
    pub(super) scale: Vec<f64>,
    pub(super) tie_points: Vec<f64>,
    pub(super) matrix: Vec<f64>,
    pub(super) keys: Vec<u16>,
    pub(super) text: Option<String>,
}

impl Tags {
    /// The value of a key that is a number.
    fn key(&self, wanted: u16) -> Option<u16> {
        let keys = self.keys.get(4..)?.chunks_exact(4);
        let found = keys.into_iter().find(|key| key[0] == wanted && key[1] == 0);
        found.map(|key| key[3])
    }

    fn is_point(&self) -> bool {
        self.key(RASTER_TYPE) == Some(IS_POINT)
    }

    /// Where pixels are; `None` if that is not told.
    pub(super) fn transform(&self) -> Option<Transform> {
        let mut map = match (&self.matrix[..], &self.scale[..], &self.tie_points[..]) {
            (matrix, ..) if matrix.len() == 16 => [
                matrix[3], matrix[0], matrix[1], matrix[7], matrix[4], matrix[5],
            ],
            (_, [x_scale, y_scale, ..], [i, j, _, x, y, _]) => [
                x - i * x_scale,
                *x_scale,
                0.0,
                y + j * y_scale,
                0.0,
                -y_scale,
            ],
            _ => return None,
        };
        if self.is_point() {
            // The tie point is the middle of its pixel.
            map[0] -= (map[1] + map[2]) / 2.0;
            map[3] -= (map[4] + map[5]) / 2.0;
        }
        map.iter()
            .all(|number| number.is_finite())
            .then_some(Transform(map))
    }

    /// The attributes of `spatial_ref`, as rioxarray looks for them.
    pub(super) fn attributes(&self) -> Attributes {
        let text = |text: String| Attribute::Text(text);
        let mut attributes = Vec::new();
        let projected = self.key(PROJECTED_CRS).filter(|&code| code != USER_DEFINED);
        let geodetic = self.key(GEODETIC_CRS).filter(|&code| code != USER_DEFINED);
        let is_user_defined = self.key(PROJECTED_CRS) == Some(USER_DEFINED);
        if let Some(code) = projected.or(geodetic.filter(|_| !is_user_defined)) {
            attributes.push(("spatial_ref".into(), text(format!("EPSG:{code}"))));
        }
        if let Some(citation) = self.text.as_ref().filter(|text| !text.is_empty()) {
            attributes.push(("geo_ascii_params".into(), text(citation.clone())));
        }
        if let Some(Transform(map)) = self.transform() {
            let numbers: Vec<String> = map.iter().map(|number| format!("{number:?}")).collect();
            attributes.push(("GeoTransform".into(), text(numbers.join(" "))));
        }
        attributes
    }

    /// What a pixel is, in GDAL's word.
    pub(super) fn area_or_point(&self) -> &'static str {
        if self.is_point() { "Point" } else { "Area" }
    }
}

impl Transform {
    /// That of an image which is nowhere: columns and rows.
    pub(super) const IDENTITY: Self = Self([0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);

    /// First value and step of the middles of pixels along x and along y; `None` if the image is
    /// turned, so that there are none.
    pub(super) fn axes(self) -> Option<[(f64, f64); 2]> {
        let [x, x_step, x_row, y, y_column, y_step] = self.0;
        let is_turned = x_row != 0.0 || y_column != 0.0;
        (!is_turned).then_some([(x, x_step), (y, y_step)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_have_a_place() {
        let mut tags = Tags {
            scale: vec![10.0, 20.0, 0.0],
            tie_points: vec![0.0, 0.0, 0.0, 500.0, 4000.0, 0.0],
            keys: vec![1, 1, 0, 2, 1025, 0, 1, 1, 3072, 0, 1, 32633],
            ..Tags::default()
        };
        assert_eq!(
            tags.transform(),
            Some(Transform([500.0, 10.0, 0.0, 4000.0, 0.0, -20.0]))
        );
        let attributes = tags.attributes();
        assert_eq!(
            attributes[0],
            ("spatial_ref".into(), Attribute::Text("EPSG:32633".into()))
        );
        assert_eq!(
            attributes[1].1,
            Attribute::Text("500.0 10.0 0.0 4000.0 0.0 -20.0".into())
        );
        tags.keys[7] = IS_POINT;
        assert_eq!(
            tags.transform(),
            Some(Transform([495.0, 10.0, 0.0, 4010.0, 0.0, -20.0]))
        );
        tags.matrix = vec![
            0.0, 1.0, 0.0, 5.0, 2.0, 0.0, 0.0, 6.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0,
        ];
        assert_eq!(tags.transform().unwrap().axes(), None);
        // Keys cut short say nothing.
        for length in 0..4 {
            tags.keys.truncate(length);
            assert_eq!(tags.key(RASTER_TYPE), None);
        }
    }
}
