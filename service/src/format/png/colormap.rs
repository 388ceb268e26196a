//! Colours for numbers, from tables of colours at equal distances.

use std::str::FromStr;

use crate::error::Failure;

/// A sequence of colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say which")]
pub enum Colormap {
    #[default]
    Viridis,
    Magma,
    Inferno,
    Plasma,
    Cividis,
    Turbo,
    Gray,
    RdBu,
    /// From blue to red: what is above the middle is warm.
    BuRd,
    Coolwarm,
}

/// By the names Matplotlib has for them.
const ALL: [(&str, Colormap); 10] = [
    ("viridis", Colormap::Viridis),
    ("magma", Colormap::Magma),
    ("inferno", Colormap::Inferno),
    ("plasma", Colormap::Plasma),
    ("cividis", Colormap::Cividis),
    ("turbo", Colormap::Turbo),
    ("gray", Colormap::Gray),
    ("RdBu", Colormap::RdBu),
    ("RdBu_r", Colormap::BuRd),
    ("coolwarm", Colormap::Coolwarm),
];

impl FromStr for Colormap {
    type Err = Failure;

    fn from_str(name: &str) -> Result<Self, Failure> {
        let found = ALL
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, colormap)| *colormap).ok_or_else(|| {
            let known = ALL.map(|(known, _)| known).join(", ");
            let detail = format!("{name:?} is none of {known}");
            Failure::bad_request("colormap", detail)
        })
    }
}

impl Colormap {
    /// Its name.
    pub fn name(self) -> &'static str {
        let found = ALL.iter().find(|(_, colormap)| *colormap == self);
        found.map_or("viridis", |(name, _)| name)
    }

    /// Red, green and blue at a share of the way from its first colour to its last.
    pub fn color(self, share: f64) -> [u8; 3] {
        let (table, share) = match self {
            Self::BuRd => (RDBU.as_slice(), 1.0 - share),
            other => (other.table(), share),
        };
        let last = table.len() - 1;
        let place = share.clamp(0.0, 1.0) * last as f64;
        let below = (place.floor() as usize).min(last);
        let above = (below + 1).min(last);
        let part = place - below as f64;
        let channel = |shift: u32| {
            let value = |place: usize| f64::from(table[place] >> shift & 0xFF);
            (value(below) + part * (value(above) - value(below))).round() as u8
        };
        [channel(16), channel(8), channel(0)]
    }

    fn table(self) -> &'static [u32] {
        match self {
            Self::Viridis => &VIRIDIS,
            Self::Magma => &MAGMA,
            Self::Inferno => &INFERNO,
            Self::Plasma => &PLASMA,
            Self::Cividis => &CIVIDIS,
            Self::Turbo => &TURBO,
            Self::Gray => &[0x00_0000, 0xFF_FFFF],
            Self::RdBu | Self::BuRd => &RDBU,
            Self::Coolwarm => &COOLWARM,
        }
    }
}

// Source of the tables: every 16th colour of Matplotlib's (CC0; turbo: Apache-2.0). RdBu is
// ColorBrewer's (Apache-2.0), in full.
const VIRIDIS: [u32; 17] = [
    0x440154, 0x48186a, 0x472d7b, 0x424086, 0x3b528b, 0x33638d, 0x2c728e, 0x26828e, 0x21918c,
    0x1fa088, 0x28ae80, 0x3fbc73, 0x5ec962, 0x84d44b, 0xaddc30, 0xd8e219, 0xfde725,
];
const MAGMA: [u32; 17] = [
    0x000004, 0x0a0822, 0x1d1147, 0x36106b, 0x51127c, 0x6a1c81, 0x832681, 0x9c2e7f, 0xb73779,
    0xd0416f, 0xe75263, 0xf56b5c, 0xfc8961, 0xfea772, 0xfec488, 0xfde2a3, 0xfcfdbf,
];
const INFERNO: [u32; 17] = [
    0x000004, 0x0b0724, 0x210c4a, 0x3d0965, 0x57106e, 0x71196e, 0x8a226a, 0xa32c61, 0xbc3754,
    0xd24644, 0xe45a31, 0xf1731d, 0xf98e09, 0xfcac11, 0xf9cb35, 0xf2ea69, 0xfcffa4,
];
const PLASMA: [u32; 17] = [
    0x0d0887, 0x310597, 0x4c02a1, 0x6600a7, 0x7e03a8, 0x9511a1, 0xaa2395, 0xbc3587, 0xcc4778,
    0xda5a6a, 0xe66c5c, 0xf0804e, 0xf89540, 0xfdac33, 0xfdc527, 0xf8df25, 0xf0f921,
];
const CIVIDIS: [u32; 17] = [
    0x00224e, 0x002e6a, 0x1a386f, 0x32436d, 0x434e6c, 0x535a6d, 0x61656f, 0x6f7073, 0x7d7c78,
    0x8c8878, 0x9b9476, 0xaba072, 0xbcae6c, 0xcdbb63, 0xdec958, 0xf0d846, 0xfee838,
];
const TURBO: [u32; 17] = [
    0x30123b, 0x4040a2, 0x466be3, 0x4294ff, 0x28bceb, 0x18ddc2, 0x32f298, 0x6dfe62, 0xa4fc3c,
    0xcdec34, 0xeecf3a, 0xfdac34, 0xfb7e21, 0xeb500e, 0xd02f05, 0xa91601, 0x7a0403,
];
const COOLWARM: [u32; 17] = [
    0x3b4cc0, 0x4e68d8, 0x6282ea, 0x779af7, 0x8db0fe, 0xa3c2fe, 0xb9d0f9, 0xccd9ed, 0xdddcdc,
    0xecd3c5, 0xf5c4ac, 0xf7b093, 0xf4987a, 0xeb7d62, 0xdd5f4b, 0xca3b37, 0xb40426,
];
const RDBU: [u32; 11] = [
    0x67001f, 0xb2182b, 0xd6604d, 0xf4a582, 0xfddbc7, 0xf7f7f7, 0xd1e5f0, 0x92c5de, 0x4393c3,
    0x2166ac, 0x053061,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read_at_and_between_their_colours() {
        assert_eq!(Colormap::Viridis.color(0.0), [0x44, 0x01, 0x54]);
        assert_eq!(Colormap::Viridis.color(1.0), [0xFD, 0xE7, 0x25]);
        assert_eq!(Colormap::Gray.color(0.5), [128; 3]);
        assert_eq!(Colormap::BuRd.color(0.0), Colormap::RdBu.color(1.0));
        assert_eq!(Colormap::Gray.color(f64::INFINITY), [255; 3]);
    }

    #[test]
    fn names_are_found_in_any_case() {
        for (name, colormap) in ALL {
            assert_eq!(name.to_uppercase().parse::<Colormap>().ok(), Some(colormap));
            assert_eq!(colormap.name(), name);
        }
    }
}
