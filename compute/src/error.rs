//! What can go wrong in a computation.

/// A computation that has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The reducer has no meaning for the data type.
    #[error("{reducer} of {data_type} is not defined")]
    Undefined {
        /// The reducer.
        reducer: &'static str,
        /// The data type.
        data_type: String,
    },
    /// No value to choose from, as NumPy has it.
    #[error("{reducer} of no values: {reason}")]
    Empty {
        /// The reducer.
        reducer: &'static str,
        /// Why there are none.
        reason: &'static str,
    },
    /// Statistics of stored values do not tell.
    #[error("{reducer} does not follow from statistics: {reason}")]
    NotInStatistics {
        /// The reducer.
        reducer: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// Attributes that should say how values are packed, but do not.
    #[error("attribute {name:?} {reason}")]
    Attribute {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Text that is no label, or no labels.
    #[error("label {label} {reason}")]
    LabelText {
        /// The text, quoted and shortened.
        label: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Labels that the coordinate does not have, or that mean nothing along it.
    #[error("coordinate {coordinate:?} {reason}")]
    Label {
        /// Name of the coordinate.
        coordinate: String,
        /// What is wrong, and where the coordinate reaches.
        reason: String,
        /// Labels it has, nearest first.
        suggestions: Vec<String>,
    },
    /// A parameter of a computation that makes no sense.
    #[error("{name} {reason}")]
    Parameter {
        /// Its name.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Text that names no reducer.
    #[error("unknown reducer {name:?}, known are {}", crate::Reducer::NAMES.join(", "))]
    UnknownReducer {
        /// The name as given.
        name: String,
    },
}
