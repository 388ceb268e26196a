//! Files elsewhere, copied to scratch files to be read.

use std::path::Path;

use array::{Elements, Region};
use storage::ExternalFile;
use tempfile::TempPath;

use crate::Error;
use crate::blocking::blocking;
use crate::pieces::Pieces;
use crate::scratch::check_room;
use crate::source::{Reader, Source, Storage, Variable};

/// A source that is read from a scratch file, which goes with it.
#[derive(Debug)]
struct Fetched {
    source: Source,
    url: String,
    file: TempPath,
}

/// The error, about the file that was fetched and not its copy.
fn about(url: &str, file: &Path, error: Error) -> Error {
    match error {
        Error::Malformed { path, reason } if path == file => Error::Malformed {
            path: url.into(),
            reason,
        },
        Error::Read { path, source } if path == file => Error::Read {
            path: url.into(),
            source,
        },
        other => other,
    }
}

/// Copies a file and opens the copy.
///
/// # Errors
/// [`Error::Read`] if there is no room for it; [`Error::Storage`] if it cannot be fetched; else as
/// [`Source::open`].
pub(super) async fn fetch(
    file: &ExternalFile,
    fetched: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<Source, Error> {
    let (name, length, url) = (file.name(), file.length(), file.url());
    let shown = url.clone();
    let failed = move |source| Error::Read {
        path: shown.into(),
        source,
    };
    // The extension may tell the format.
    let extension = name
        .rsplit_once('.')
        .map_or(String::new(), |(_, e)| format!(".{e}"));
    let made = blocking(move || {
        let made = check_room(length).and_then(|()| {
            tempfile::Builder::new()
                .prefix("quarr-")
                .suffix(&extension)
                .tempfile()
        });
        made.map_err(failed)
    });
    let path = made.await?.into_temp_path();
    file.download(&path, &|bytes| fetched(bytes, length))
        .await?;
    blocking(move || {
        let opened = Source::open_called(&path, &name);
        let source = opened.map_err(|error| about(&url, &path, error))?;
        let groups = source.groups().to_vec();
        let file = path;
        Ok(Source::new(groups, Fetched { source, url, file }))
    })
    .await
}

impl Reader for Fetched {
    fn format(&self) -> &'static str {
        self.source.format()
    }

    fn read(&self, variable: &Variable, region: &Region) -> Result<Elements, Error> {
        let read = self.source.read(variable, region);
        read.map_err(|error| about(&self.url, &self.file, error))
    }

    fn warnings(&self) -> Vec<String> {
        self.source.warnings()
    }

    fn pieces(&self, variable: &Variable) -> Result<Pieces, String> {
        self.source.pieces(variable)
    }

    fn storage(&self, variable: &Variable) -> Storage {
        self.source.storage(variable)
    }

    fn copy(&self) -> Option<(&Path, &str)> {
        Some((&self.file, &self.url))
    }
}
