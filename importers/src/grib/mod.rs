//! GRIB2: fields of weather models.
//!
//! ```text
//! messages ─► fields ─┬─ of the same quantity on the same grid: a variable
//!                     └─ number, time, step, level, each where there are several: its dimensions
//! box ─► the fields it meets, each decoded whole; NaN where there is none
//! ```
//!
//! Left out and refused by name: grids without axes of latitude and longitude, products other than
//! forecasts, analyses and statistics over time or an ensemble.
//!
//! Source: WMO Manual on Codes, FM 92 GRIB; names and coordinates as cfgrib gives them.

mod grid;
mod message;
mod parameters;
mod product;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use ::grib::Grib2SubmessageDecoder;
use array::{DataType, Elements, Region};

use self::grid::Grid;
use self::message::{Field, Span};
use self::product::{Position, Quantity};
use crate::Error;
use crate::recent::Recent;
use crate::source::{Attribute, Attributes, Group, Reader, Refused, Variable};

/// Decoded fields that are kept for the next box.
const RECENT_BYTES: usize = 64 << 20;
/// Longest section that is unpacked.
const MAX_PACKED_BYTES: u64 = 1 << 30;
/// Most places for fields that a variable may have, most of them without one.
const MAX_PLACES: usize = 50_000_000;
/// Warnings that are told one by one.
const MAX_WARNINGS: usize = 20;

/// An open GRIB2 file.
#[derive(Debug)]
pub(crate) struct GribFile {
    path: PathBuf,
    file: File,
    contents: Vec<Content>,
    recent: Recent<Span, Vec<f32>>,
    warnings: Vec<String>,
}

/// What a variable's values are.
#[derive(Debug)]
enum Content {
    /// One or more axes of a cube of fields, which is stored whole.
    Numbers(Vec<u8>),
    Fields(Fields),
}

/// The fields of a variable.
#[derive(Debug)]
struct Fields {
    /// Lengths of the dimensions before latitude and longitude.
    outer: Vec<u64>,
    columns: usize,
    points: usize,
    /// By place in those dimensions, in C order.
    places: BTreeMap<u64, Packed>,
}

/// Where a field is in the file.
#[derive(Clone, Copy, Debug)]
struct Packed {
    packing: Span,
    bitmap: Span,
    values: Span,
}

impl GribFile {
    /// Opens a file and finds its fields.
    ///
    /// # Errors
    /// [`Error::Malformed`] if a message is not one.
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<Group>), Error> {
        let read = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        let fields = message::fields(&file, length).map_err(|reason| Error::Malformed {
            path: path.to_owned(),
            reason,
        })?;
        let mut cubes = Cubes::default();
        fields.iter().for_each(|field| cubes.add(field));
        let mut opening = Opening::default();
        cubes.build(&mut opening);
        let group = Group {
            path: Vec::new(),
            attributes: Vec::new(),
            variables: opening.variables,
            refused: cubes.refused.into_values().collect(),
        };
        let file = Self {
            path: path.to_owned(),
            file,
            contents: opening.contents,
            recent: Recent::new(RECENT_BYTES),
            warnings: cubes.warnings,
        };
        Ok((file, vec![group]))
    }

    fn field(&self, packed: Packed, points: usize) -> Result<std::sync::Arc<Vec<f32>>, Error> {
        if let Some(found) = self.recent.get(&packed.values) {
            return Ok(found);
        }
        let malformed = |reason: String| Error::Malformed {
            path: self.path.clone(),
            reason: format!("the field at byte {}: {reason}", packed.values.0),
        };
        let section = |(at, length): Span| {
            if length > MAX_PACKED_BYTES {
                return Err(malformed(format!("a section takes {length} bytes")));
            }
            let mut bytes = vec![0; length as usize];
            let read = self.file.read_exact_at(&mut bytes, at);
            read.map(|()| bytes).map_err(|source| Error::Read {
                path: self.path.clone(),
                source,
            })
        };
        let (five, six, seven) = (
            section(packed.packing)?,
            section(packed.bitmap)?,
            section(packed.values)?,
        );
        if six.len() < 6 || six[5] == 0 && six.len() - 6 < points.div_ceil(8) {
            return Err(malformed("its bitmap is too short".into()));
        }
        // The library may panic on sections that contradict themselves.
        let decoded = catch_unwind(AssertUnwindSafe(|| {
            let decoder = Grib2SubmessageDecoder::new(points, five, six, seven)?;
            let values = decoder.dispatch()?;
            Ok(values.take(points + 1).collect::<Vec<f32>>())
        }));
        let values = match decoded {
            Ok(Ok(values)) => values,
            Ok(Err::<_, ::grib::GribError>(error)) => return Err(malformed(error.to_string())),
            Err(_) => return Err(malformed("it cannot be unpacked".into())),
        };
        if values.len() != points {
            let found = values.len();
            return Err(malformed(format!(
                "it unpacks to {found} values, not {points}"
            )));
        }
        let bytes = values.len() * size_of::<f32>();
        Ok(self.recent.put(packed.values, values, bytes))
    }

    fn fields(&self, fields: &Fields, region: &Region) -> Result<Vec<u8>, Error> {
        let outer = fields.outer.len();
        let (rows, columns) = (region.range(outer), region.range(outer + 1));
        let width = (columns.end - columns.start) as usize;
        let missing: Vec<u8> = f32::NAN.to_le_bytes().repeat(width);
        let mut out = Vec::new();
        let size = array::shape::size_bytes(region.shape(), &DataType::Float32)?;
        let room = out.try_reserve_exact(size);
        room.map_err(|_| array::Error::TooLarge { what: "box" })?;
        let corner = Region::new(
            region.start()[..outer].to_vec(),
            region.shape()[..outer].to_vec(),
        )?;
        for at in corner.positions() {
            let place = array::shape::linear_index(&at, &fields.outer);
            let field = match fields.places.get(&place) {
                Some(packed) => Some(self.field(*packed, fields.points)?),
                None => None,
            };
            for row in rows.clone() {
                let start = row as usize * fields.columns + columns.start as usize;
                match &field {
                    Some(values) => {
                        let values = values[start..start + width].iter();
                        out.extend(values.flat_map(|value| value.to_le_bytes()));
                    }
                    None => out.extend_from_slice(&missing),
                }
            }
        }
        Ok(out)
    }
}

impl Reader for GribFile {
    fn format(&self) -> &'static str {
        "GRIB2"
    }

    fn read(&self, variable: &Variable, region: &Region) -> Result<Elements, Error> {
        let bytes = match &self.contents[variable.handle] {
            Content::Fields(fields) => self.fields(fields, region)?,
            Content::Numbers(bytes) => {
                let whole = Elements::Fixed(bytes.clone());
                let covered = Region::whole(&variable.shape);
                let (data_type, fill) = (&variable.data_type, [0; 8]);
                return crate::boxes::fit(data_type, &fill, &whole, &covered, region);
            }
        };
        Ok(Elements::Fixed(bytes))
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }
}

/// Fields by what they are of.
#[derive(Default)]
struct Cubes {
    /// By quantity and number of the grid.
    cubes: BTreeMap<(Quantity, usize), Vec<(Position, Packed)>>,
    /// Each with the section that described it.
    grids: Vec<(std::sync::Arc<[u8]>, Grid)>,
    refused: BTreeMap<String, Refused>,
    warnings: Vec<String>,
}

impl Cubes {
    fn add(&mut self, field: &Field) {
        let found = Quantity::of(field);
        let name = match &found {
            Ok((quantity, _)) => quantity.full_name(),
            Err(_) => format!("field at byte {}", field.values.0),
        };
        let placed = found
            .and_then(|(quantity, position)| Ok((quantity, position, self.grid(&field.grid)?)));
        match placed {
            Ok((quantity, position, grid)) => {
                let packed = Packed {
                    packing: field.packing,
                    bitmap: field.bitmap,
                    values: field.values,
                };
                self.cubes
                    .entry((quantity, grid))
                    .or_default()
                    .push((position, packed));
            }
            Err(reason) => {
                self.refused.insert(name.clone(), Refused { name, reason });
            }
        }
    }

    /// The number of the grid a section 3 describes.
    fn grid(&mut self, section: &std::sync::Arc<[u8]>) -> Result<usize, String> {
        // Most fields have the grid of the one before.
        let known = self.grids.iter().rposition(|(known, _)| known == section);
        if let Some(at) = known {
            return Ok(at);
        }
        let grid = Grid::of(section)?;
        if let Some(at) = self.grids.iter().position(|(_, known)| *known == grid) {
            return Ok(at);
        }
        self.grids.push((section.clone(), grid));
        Ok(self.grids.len() - 1)
    }

    /// Makes variables of the cubes.
    fn build(&mut self, opening: &mut Opening) {
        let mut names: BTreeMap<String, usize> = BTreeMap::new();
        for (quantity, _) in self.cubes.keys() {
            *names.entry(quantity.name()).or_default() += 1;
        }
        for ((quantity, grid), fields) in std::mem::take(&mut self.cubes) {
            let short = quantity.name();
            let name = match names.get(&short) {
                Some(1) => short,
                _ => quantity.full_name(),
            };
            let name = opening.free_name(&name);
            let grid = &self.grids[grid].1;
            match opening.cube(&name, &quantity, grid, &fields) {
                Ok(doubled) if doubled > 0 && self.warnings.len() < MAX_WARNINGS => {
                    let warning = format!(
                        "{doubled} fields of {name} are for a place that has one already and are left out"
                    );
                    self.warnings.push(warning);
                }
                Ok(_) => {}
                Err(reason) => {
                    self.refused.insert(name.clone(), Refused { name, reason });
                }
            }
        }
    }
}

/// A file's variables while they are being made.
#[derive(Default)]
struct Opening {
    variables: Vec<Variable>,
    contents: Vec<Content>,
    /// Coordinates by their name as cfgrib has it, and their values.
    axes: BTreeMap<(&'static str, Vec<u8>), String>,
    levels: BTreeMap<(u8, Vec<u8>), String>,
    taken: BTreeSet<String>,
}

impl Opening {
    fn free_name(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let mut count = 1;
        while !self.taken.insert(name.clone()) {
            count += 1;
            name = format!("{wanted}_{count}");
        }
        name
    }

    fn variable(
        &mut self,
        name: &str,
        dimensions: &[String],
        shape: Vec<u64>,
        data_type: DataType,
        attributes: Attributes,
        content: Content,
    ) {
        self.variables.push(Variable {
            name: name.to_owned(),
            dimensions: dimensions.to_vec(),
            shape,
            data_type,
            attributes,
            chunk_shape: None,
            handle: self.contents.len(),
        });
        self.contents.push(content);
    }

    /// The name of a coordinate with these values: of one dimension if there are several.
    fn axis(
        &mut self,
        wanted: &'static str,
        data_type: DataType,
        bytes: Vec<u8>,
        attributes: Attributes,
    ) -> String {
        let key = (wanted, bytes.clone());
        if let Some(name) = self.axes.get(&key) {
            return name.clone();
        }
        let name = self.free_name(wanted);
        self.coordinate(&name, data_type, bytes, attributes);
        self.axes.insert(key, name.clone());
        name
    }

    fn coordinate(
        &mut self,
        name: &str,
        data_type: DataType,
        bytes: Vec<u8>,
        attributes: Attributes,
    ) {
        let count = bytes.len() / 8;
        let (dimensions, shape) = match count {
            1 => (Vec::new(), Vec::new()),
            count => (vec![name.to_owned()], vec![count as u64]),
        };
        self.variable(
            name,
            &dimensions,
            shape,
            data_type,
            attributes,
            Content::Numbers(bytes),
        );
    }

    fn level(&mut self, surface: u8, bytes: Vec<u8>) -> String {
        let key = (surface, bytes.clone());
        if let Some(name) = self.levels.get(&key) {
            return name.clone();
        }
        let (wanted, units, standard_name) = parameters::level(surface);
        let name = self.free_name(&wanted);
        let mut attributes = texts(&[("units", units), ("standard_name", standard_name)]);
        if surface == 100 {
            attributes.extend(texts(&[("positive", "down"), ("long_name", "pressure")]));
        }
        self.coordinate(&name, DataType::Float64, bytes, attributes);
        self.levels.insert(key, name.clone());
        name
    }

    /// Makes the variable of a quantity; gives how many of its fields had a place that was taken.
    fn cube(
        &mut self,
        name: &str,
        quantity: &Quantity,
        grid: &Grid,
        fields: &[(Position, Packed)],
    ) -> Result<usize, String> {
        let sorted = |value: fn(&Position) -> i64| -> Vec<i64> {
            let values: BTreeSet<i64> =
                fields.iter().map(|(position, _)| value(position)).collect();
            values.into_iter().collect()
        };
        let (numbers, times, steps) =
            (sorted(|p| p.number), sorted(|p| p.time), sorted(|p| p.step));
        let mut levels: Vec<f64> = fields.iter().map(|(position, _)| position.level).collect();
        levels.sort_by(f64::total_cmp);
        levels.dedup();
        if quantity.surface == 100 {
            // From the ground up, as files usually have them.
            levels.reverse();
        }
        let lengths = [numbers.len(), times.len(), steps.len(), levels.len()];
        let places = lengths.iter().try_fold(1usize, |n, &l| n.checked_mul(l));
        if places.is_none_or(|places| places > MAX_PLACES) {
            return Err(format!("its fields are spread over {lengths:?} places"));
        }
        let axes = self.outer_axes(quantity, [&numbers, &times, &steps], &levels);
        let is_dimension = |axis: usize| lengths[axis] > 1;
        let outer: Vec<usize> = (0..4).filter(|&axis| is_dimension(axis)).collect();
        let outer_lengths: Vec<u64> = outer.iter().map(|&axis| lengths[axis] as u64).collect();
        let mut found = BTreeMap::new();
        let mut doubled = 0;
        for (position, packed) in fields {
            let level = levels.iter().position(|level| *level == position.level);
            let at = [
                numbers.binary_search(&position.number).ok(),
                times.binary_search(&position.time).ok(),
                steps.binary_search(&position.step).ok(),
                level,
            ];
            let at: Vec<u64> = outer
                .iter()
                .filter_map(|&axis| at[axis])
                .map(|at| at as u64)
                .collect();
            let place = array::shape::linear_index(&at, &outer_lengths);
            match found.entry(place) {
                std::collections::btree_map::Entry::Vacant(place) => {
                    place.insert(*packed);
                }
                std::collections::btree_map::Entry::Occupied(_) => doubled += 1,
            }
        }
        let valid = self.valid_time(&axes, &times, &steps);
        let (latitude, longitude) = self.horizontal(grid);
        let mut dimensions: Vec<String> = outer.iter().map(|&axis| axes[axis].clone()).collect();
        let scalars: Vec<&str> = (0..4)
            .filter(|&axis| !is_dimension(axis))
            .map(|axis| axes[axis].as_str())
            .chain([valid.as_str()])
            .chain((grid.latitudes.len() == 1).then_some(latitude.as_str()))
            .chain((grid.longitudes.len() == 1).then_some(longitude.as_str()))
            .collect();
        let mut attributes = describe(quantity, grid);
        attributes.extend(texts(&[("coordinates", &scalars.join(" "))]));
        attributes.push(("_FillValue".into(), Attribute::Floats(vec![f64::NAN])));
        dimensions.extend([latitude, longitude]);
        let (rows, columns) = (grid.latitudes.len(), grid.longitudes.len());
        let mut shape = outer_lengths.clone();
        shape.extend([rows as u64, columns as u64]);
        let content = Content::Fields(Fields {
            outer: outer_lengths,
            columns,
            points: grid.points(),
            places: found,
        });
        self.variable(
            name,
            &dimensions,
            shape,
            DataType::Float32,
            attributes,
            content,
        );
        Ok(doubled)
    }

    /// Names of the coordinates number, time, step and level.
    fn outer_axes(
        &mut self,
        quantity: &Quantity,
        [numbers, times, steps]: [&[i64]; 3],
        levels: &[f64],
    ) -> [String; 4] {
        let bytes = |values: &[i64]| {
            values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect()
        };
        let since = [
            ("units", "seconds since 1970-01-01"),
            ("calendar", "proleptic_gregorian"),
        ];
        let number = texts(&[
            ("long_name", "ensemble member numerical id"),
            ("standard_name", "realization"),
            ("units", "1"),
        ]);
        let mut time = texts(&since);
        time.extend(texts(&[
            ("long_name", "initial time of forecast"),
            ("standard_name", "forecast_reference_time"),
        ]));
        let step = texts(&[
            ("units", "seconds"),
            ("dtype", "timedelta64[ns]"),
            ("long_name", "time since forecast_reference_time"),
            ("standard_name", "forecast_period"),
        ]);
        let level = levels
            .iter()
            .flat_map(|level| level.to_le_bytes())
            .collect();
        [
            self.axis("number", DataType::Int64, bytes(numbers), number),
            self.axis("time", DataType::Int64, bytes(times), time),
            self.axis("step", DataType::Int64, bytes(steps), step),
            self.level(quantity.surface, level),
        ]
    }

    /// The name of the coordinate with the sums of times and steps.
    fn valid_time(&mut self, axes: &[String; 4], times: &[i64], steps: &[i64]) -> String {
        let sums = times
            .iter()
            .flat_map(|time| steps.iter().map(move |step| time + step));
        let bytes: Vec<u8> = sums.flat_map(i64::to_le_bytes).collect();
        // The same sums may be those of other times and steps.
        let key = [
            bytes.as_slice(),
            axes[1].as_bytes(),
            b"/",
            axes[2].as_bytes(),
        ]
        .concat();
        if let Some(name) = self.axes.get(&("valid_time", key.clone())) {
            return name.clone();
        }
        let name = self.free_name("valid_time");
        let all = [(&axes[1], times.len()), (&axes[2], steps.len())];
        let several = all.iter().filter(|(_, count)| *count > 1);
        let dimensions: Vec<String> = several.clone().map(|(name, _)| (*name).clone()).collect();
        let shape: Vec<u64> = several.map(|(_, count)| *count as u64).collect();
        let attributes = texts(&[
            ("units", "seconds since 1970-01-01"),
            ("calendar", "proleptic_gregorian"),
            ("standard_name", "time"),
            ("long_name", "time"),
        ]);
        let content = Content::Numbers(bytes);
        self.variable(
            &name,
            &dimensions,
            shape,
            DataType::Int64,
            attributes,
            content,
        );
        self.axes.insert(("valid_time", key), name.clone());
        name
    }

    fn horizontal(&mut self, grid: &Grid) -> (String, String) {
        let mut axis = |name: &'static str, units: &str, values: &[f64]| {
            let bytes: Vec<u8> = values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
            if let Some(known) = self.axes.get(&(name, bytes.clone())) {
                return known.clone();
            }
            let free = self.free_name(name);
            let attributes = texts(&[
                ("units", units),
                ("standard_name", name),
                ("long_name", name),
            ]);
            let (dimensions, shape) = ([free.clone()], vec![values.len() as u64]);
            let content = Content::Numbers(bytes.clone());
            self.variable(
                &free,
                &dimensions,
                shape,
                DataType::Float64,
                attributes,
                content,
            );
            self.axes.insert((name, bytes), free.clone());
            free
        };
        let latitude = axis("latitude", "degrees_north", &grid.latitudes);
        let longitude = axis("longitude", "degrees_east", &grid.longitudes);
        (latitude, longitude)
    }
}

/// The attributes of a variable.
fn describe(quantity: &Quantity, grid: &Grid) -> Attributes {
    let mut attributes = Vec::new();
    if let Some(parameter) = quantity.parameter() {
        attributes.extend(texts(&[
            ("long_name", parameter.long_name),
            ("units", parameter.units),
            ("standard_name", parameter.standard_name),
        ]));
    }
    let [discipline, category, number] = quantity.code;
    for (name, value) in [
        ("GRIB_discipline", discipline),
        ("GRIB_parameterCategory", category),
        ("GRIB_parameterNumber", number),
        ("GRIB_typeOfFirstFixedSurface", quantity.surface),
    ] {
        attributes.push((name.into(), Attribute::Integers(vec![value.into()])));
    }
    attributes.extend(texts(&[("GRIB_gridType", grid.name)]));
    if let Some(process) = quantity.process {
        attributes.extend(texts(&[("GRIB_stepType", &parameters::process(process))]));
    } else {
        attributes.extend(texts(&[("GRIB_stepType", "instant")]));
    }
    attributes
}

/// Attributes of text, without those that say nothing.
fn texts(pairs: &[(&str, &str)]) -> Attributes {
    let pairs = pairs.iter().filter(|(_, text)| !text.is_empty());
    pairs
        .map(|(name, text)| ((*name).to_owned(), Attribute::Text((*text).to_owned())))
        .collect()
}

#[cfg(test)]
mod tests;
