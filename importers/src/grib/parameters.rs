//! Names of common parameters and levels.
//!
//! Source: WMO Manual on Codes, GRIB2 code tables 4.2 and 4.5; names, units and standard names as
//! ecCodes and cfgrib give them.

/// How a parameter is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) long_name: &'static str,
    pub(super) units: &'static str,
    pub(super) standard_name: &'static str,
}

/// Discipline, category and number, and where the name depends on it the height above ground in
/// metres; name, long name, units, standard name.
type Row = (
    [u8; 3],
    Option<u32>,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

#[rustfmt::skip]
const PARAMETERS: &[Row] = &[
    ([0, 0, 0], Some(2), "t2m", "2 metre temperature", "K", "air_temperature"),
    ([0, 0, 0], None, "t", "Temperature", "K", "air_temperature"),
    ([0, 0, 2], None, "pt", "Potential temperature", "K", "air_potential_temperature"),
    ([0, 0, 4], None, "tmax", "Maximum temperature", "K", "air_temperature"),
    ([0, 0, 5], None, "tmin", "Minimum temperature", "K", "air_temperature"),
    ([0, 0, 6], Some(2), "d2m", "2 metre dewpoint temperature", "K", "dew_point_temperature"),
    ([0, 0, 6], None, "dpt", "Dew point temperature", "K", "dew_point_temperature"),
    ([0, 0, 10], None, "lhtfl", "Latent heat net flux", "W m**-2", "surface_upward_latent_heat_flux"),
    ([0, 0, 11], None, "shtfl", "Sensible heat net flux", "W m**-2", "surface_upward_sensible_heat_flux"),
    ([0, 0, 17], None, "skt", "Skin temperature", "K", "surface_temperature"),
    ([0, 1, 0], None, "q", "Specific humidity", "kg kg**-1", "specific_humidity"),
    ([0, 1, 1], Some(2), "r2", "2 metre relative humidity", "%", "relative_humidity"),
    ([0, 1, 1], None, "r", "Relative humidity", "%", "relative_humidity"),
    ([0, 1, 2], None, "mixr", "Humidity mixing ratio", "kg kg**-1", "humidity_mixing_ratio"),
    ([0, 1, 3], None, "pwat", "Precipitable water", "kg m**-2", "atmosphere_mass_content_of_water_vapor"),
    ([0, 1, 7], None, "prate", "Precipitation rate", "kg m**-2 s**-1", "precipitation_flux"),
    ([0, 1, 8], None, "tp", "Total Precipitation", "kg m**-2", "precipitation_amount"),
    ([0, 1, 9], None, "ncpcp", "Large-scale precipitation (non-convective)", "kg m**-2", ""),
    ([0, 1, 10], None, "acpcp", "Convective precipitation (water)", "kg m**-2", "convective_precipitation_amount"),
    ([0, 1, 11], None, "sde", "Snow depth", "m", "surface_snow_thickness"),
    ([0, 1, 13], None, "sdwe", "Water equivalent of accumulated snow depth (deprecated)", "kg m**-2", ""),
    ([0, 1, 22], None, "clwmr", "Cloud mixing ratio", "kg kg**-1", ""),
    ([0, 1, 60], None, "sd", "Snow depth water equivalent", "kg m**-2", "surface_snow_amount"),
    ([0, 2, 0], None, "wdir", "Wind direction", "Degree true", "wind_from_direction"),
    ([0, 2, 1], None, "ws", "Wind speed", "m s**-1", "wind_speed"),
    ([0, 2, 2], Some(10), "u10", "10 metre U wind component", "m s**-1", "eastward_wind"),
    ([0, 2, 2], Some(100), "u100", "100 metre U wind component", "m s**-1", "eastward_wind"),
    ([0, 2, 2], None, "u", "U component of wind", "m s**-1", "eastward_wind"),
    ([0, 2, 3], Some(10), "v10", "10 metre V wind component", "m s**-1", "northward_wind"),
    ([0, 2, 3], Some(100), "v100", "100 metre V wind component", "m s**-1", "northward_wind"),
    ([0, 2, 3], None, "v", "V component of wind", "m s**-1", "northward_wind"),
    ([0, 2, 8], None, "w", "Vertical velocity", "Pa s**-1", "lagrangian_tendency_of_air_pressure"),
    ([0, 2, 9], None, "wz", "Geometric vertical velocity", "m s**-1", "upward_air_velocity"),
    ([0, 2, 10], None, "absv", "Absolute vorticity", "s**-1", "atmosphere_absolute_vorticity"),
    ([0, 2, 12], None, "vo", "Vorticity (relative)", "s**-1", "atmosphere_relative_vorticity"),
    ([0, 2, 13], None, "d", "Divergence", "s**-1", "divergence_of_wind"),
    ([0, 2, 22], None, "gust", "Wind speed (gust)", "m s**-1", "wind_speed_of_gust"),
    ([0, 3, 1], None, "prmsl", "Pressure reduced to MSL", "Pa", "air_pressure_at_mean_sea_level"),
    ([0, 3, 4], None, "z", "Geopotential", "m**2 s**-2", "geopotential"),
    ([0, 3, 5], None, "gh", "Geopotential height", "gpm", "geopotential_height"),
    ([0, 3, 6], None, "h", "Geometrical height", "m", "height"),
    ([0, 4, 7], None, "sdswrf", "Surface downward short-wave radiation flux", "W m**-2", "surface_downwelling_shortwave_flux_in_air"),
    ([0, 5, 3], None, "sdlwrf", "Surface downward long-wave radiation flux", "W m**-2", "surface_downwelling_longwave_flux_in_air"),
    ([0, 6, 1], None, "tcc", "Total Cloud Cover", "%", "cloud_area_fraction"),
    ([0, 6, 3], None, "lcc", "Low cloud cover", "%", "low_type_cloud_area_fraction"),
    ([0, 6, 4], None, "mcc", "Medium cloud cover", "%", "medium_type_cloud_area_fraction"),
    ([0, 6, 5], None, "hcc", "High cloud cover", "%", "high_type_cloud_area_fraction"),
    ([0, 7, 6], None, "cape", "Convective available potential energy", "J kg**-1", "atmosphere_convective_available_potential_energy_wrt_surface"),
    ([0, 7, 7], None, "cin", "Convective inhibition", "J kg**-1", "atmosphere_convective_inhibition_wrt_surface"),
    ([0, 19, 0], None, "vis", "Visibility", "m", "visibility_in_air"),
    ([2, 0, 0], None, "lsm", "Land-sea mask", "(0 - 1)", "land_binary_mask"),
    ([2, 0, 2], None, "st", "Soil temperature", "K", "soil_temperature"),
    ([10, 0, 3], None, "swh", "Significant height of combined wind waves and swell", "m", "sea_surface_wave_significant_height"),
    ([10, 2, 0], None, "siconc", "Sea ice area fraction", "(0 - 1)", "sea_ice_area_fraction"),
    ([10, 3, 0], None, "sst", "Sea surface temperature", "K", "sea_surface_temperature"),
];

/// Surface type; name of its coordinate, units, standard name.
#[rustfmt::skip]
const LEVELS: &[(u8, &str, &str, &str)] = &[
    (1, "surface", "1", ""),
    (2, "cloudBase", "1", ""),
    (3, "cloudTop", "1", ""),
    (6, "maxWind", "1", ""),
    (7, "tropopause", "1", ""),
    (8, "nominalTop", "1", ""),
    (10, "atmosphere", "1", ""),
    (100, "isobaricInhPa", "hPa", "air_pressure"),
    (101, "meanSea", "1", ""),
    (102, "heightAboveSea", "m", "height_above_mean_sea_level"),
    (103, "heightAboveGround", "m", "height"),
    (104, "sigma", "1", "atmosphere_sigma_coordinate"),
    (105, "hybrid", "1", "atmosphere_hybrid_sigma_pressure_coordinate"),
    (106, "depthBelowLand", "m", "depth"),
    (107, "theta", "K", ""),
    (109, "potentialVorticity", "K m2 kg-1 s-1", ""),
    (160, "depthBelowSea", "m", "depth"),
];

/// What a parameter is called at a height above ground, or at any level.
pub(super) fn parameter(code: [u8; 3], height: Option<f64>) -> Option<Parameter> {
    let at = |wanted: &Option<u32>| match wanted {
        Some(metres) => height == Some(f64::from(*metres)),
        None => true,
    };
    let row = PARAMETERS.iter().find(|row| row.0 == code && at(&row.1))?;
    Some(Parameter {
        name: row.2,
        long_name: row.3,
        units: row.4,
        standard_name: row.5,
    })
}

/// Name, units and standard name of the coordinate of a type of surface.
pub(super) fn level(surface: u8) -> (String, &'static str, &'static str) {
    match LEVELS.iter().find(|level| level.0 == surface) {
        Some((_, name, units, standard_name)) => ((*name).to_owned(), units, standard_name),
        None => (format!("level_type_{surface}"), "", ""),
    }
}

/// A word for a statistical process over time, by code table 4.10.
pub(super) fn process(code: u8) -> String {
    match code {
        0 => "avg".into(),
        1 => "accum".into(),
        2 => "max".into(),
        3 => "min".into(),
        4 => "diff".into(),
        5 => "rms".into(),
        6 => "sd".into(),
        other => format!("process_{other}"),
    }
}
