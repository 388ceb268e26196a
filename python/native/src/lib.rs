//! The module `quarr._native`: the service inside a Python process.
//!
//! ```text
//! request ─► router (the one that `quarr serve` has) ─► tokio ─► done ─► future of the event loop
//! view    ─► key of a Zarr store ─► answered at once, or as a request is
//! ```
//!
//! Bodies are handed over without a copy. Nothing here knows what is asked: names, formats and errors
//! are those of the HTTP interface.

mod body;
mod bridge;
mod engine;
mod process;
mod view;

use pyo3::prelude::*;

#[pymodule(name = "_native")]
mod native {
    #[pymodule_export]
    use crate::body::Body;
    #[pymodule_export]
    use crate::engine::{Engine, Stream};
    #[pymodule_export]
    use crate::view::View;
}
