//! NumPy's files: one array in `.npy`, several in `.npz`.
//!
//! ```text
//! .npy:  magic │ header, a Python literal │ elements
//! .npz:  zip of .npy ─► stored members are read where they are, deflated ones unpacked to a file
//! ```
//!
//! Left out: pickled objects, which are never read, and structured types.
//!
//! Source: numpy.lib.format.

mod header;

use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use array::{Elements, Region};
use zip::{CompressionMethod, ZipArchive};

use crate::Error;
use crate::flat::FlatArray;
use crate::named::{Named, groups};
use crate::scratch::{copy_exactly, scratch_file};
use crate::source::{Group, Reader, Refused, Variable};

/// Most members of an `.npz`.
const MAX_MEMBERS: usize = 100_000;

/// An open `.npy` file.
#[derive(Debug)]
pub(crate) struct NpyFile {
    path: PathBuf,
    file: File,
    array: FlatArray,
}

impl NpyFile {
    /// Opens a file and reads its header. The array is called like the file.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is no such file, or holds what cannot be kept.
    pub(crate) fn open(path: &Path, name: &str) -> Result<(Self, Vec<Group>), Error> {
        let read = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        let mut prefix = [0; header::PREFIX_BYTES];
        let known = length.min(prefix.len() as u64) as usize;
        file.read_exact_at(&mut prefix[..known], 0).map_err(read)?;
        let malformed = |reason| Error::Malformed {
            path: path.to_owned(),
            reason,
        };
        let (start, begin) = header::extent(&prefix[..known]).map_err(malformed)?;
        if begin as u64 > length {
            return Err(malformed("it ends inside its header".into()));
        }
        let mut bytes = vec![0; begin - start];
        file.read_exact_at(&mut bytes, start as u64).map_err(read)?;
        let array = header::parse(&bytes, begin as u64, length).map_err(malformed)?;
        let named = Named {
            path: name.to_owned(),
            shape: array.shape.clone(),
            data_type: array.element.data_type.clone(),
            handle: 0,
        };
        let path = path.to_owned();
        Ok((Self { path, file, array }, groups(vec![named])))
    }
}

impl Reader for NpyFile {
    fn format(&self) -> &'static str {
        "NumPy npy"
    }

    fn read(&self, _: &Variable, region: &Region) -> Result<Elements, Error> {
        self.array.read(&self.file, &self.path, region)
    }
}

/// An open `.npz` file.
#[derive(Debug)]
pub(crate) struct NpzFile {
    path: PathBuf,
    archive: Mutex<ZipArchive<BufReader<File>>>,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    /// Its number in the archive.
    at: usize,
    /// Bytes when unpacked.
    bytes: u64,
    is_stored: bool,
    array: FlatArray,
    /// The file its bytes are in and where they begin there, once its checksum was found right.
    ready: Mutex<Option<(Arc<File>, u64)>>,
}

impl NpzFile {
    /// Opens an archive and reads the header of each member.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is no such file.
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<Group>), Error> {
        let read = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let malformed = |reason: String| Error::Malformed {
            path: path.to_owned(),
            reason,
        };
        let file = File::open(path).map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        let archive = ZipArchive::new(BufReader::new(file));
        let mut archive = archive.map_err(|error| malformed(error.to_string()))?;
        if archive.len() > MAX_MEMBERS {
            return Err(malformed(format!("it has more than {MAX_MEMBERS} members")));
        }
        let (mut members, mut named, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for at in 0..archive.len() {
            match Member::open(&mut archive, at, length) {
                Ok((name, member)) => {
                    named.push(Named {
                        path: name,
                        shape: member.array.shape.clone(),
                        data_type: member.array.element.data_type.clone(),
                        handle: members.len(),
                    });
                    members.push(member);
                }
                Err(one) => refused.push(one),
            }
        }
        if named.is_empty() && refused.iter().any(|one| one.name.ends_with("zarr.json")) {
            return Err(malformed(
                "it is a zipped Zarr hierarchy: unzip it first".into(),
            ));
        }
        let mut groups = groups(named);
        if let Some(root) = groups.first_mut() {
            root.refused = refused;
        }
        let file = Self {
            path: path.to_owned(),
            archive: Mutex::new(archive),
            members,
        };
        Ok((file, groups))
    }

    /// The file a member's bytes are in, and where; unpacks it and checks its checksum at first.
    fn ready(&self, member: &Member) -> Result<(Arc<File>, u64), Error> {
        let mut ready = member.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = &*ready {
            return Ok(found.clone());
        }
        let mut archive = self.archive.lock().unwrap_or_else(PoisonError::into_inner);
        let found = unpack(&mut archive, member, &self.path).map_err(|source| Error::Read {
            path: self.path.clone(),
            source,
        })?;
        Ok(ready.insert(found).clone())
    }
}

fn unpack(
    archive: &mut ZipArchive<BufReader<File>>,
    member: &Member,
    path: &Path,
) -> std::io::Result<(Arc<File>, u64)> {
    let mut packed = archive.by_index(member.at).map_err(std::io::Error::other)?;
    if member.is_stored {
        let start = packed.data_start();
        let start = start.ok_or_else(|| std::io::Error::other("a member without data"))?;
        copy_exactly(&mut packed, &mut std::io::sink(), member.bytes)?;
        return Ok((Arc::new(File::open(path)?), start));
    }
    let mut file = scratch_file(member.bytes)?;
    copy_exactly(&mut packed, &mut file, member.bytes)?;
    file.seek(SeekFrom::Start(0))?;
    Ok((Arc::new(file), 0))
}

impl Member {
    /// Reads the header of a member; gives its name too.
    fn open(
        archive: &mut ZipArchive<BufReader<File>>,
        at: usize,
        file_bytes: u64,
    ) -> Result<(String, Self), Refused> {
        let mut name = format!("member {at}");
        let mut open = || -> Result<Self, String> {
            let mut packed = archive.by_index(at).map_err(|error| error.to_string())?;
            name = packed
                .name()
                .map_err(|error| error.to_string())?
                .into_owned();
            let stem = name.strip_suffix(".npy").ok_or("it is no .npy member")?;
            name = stem.to_owned();
            let is_stored = match packed.compression() {
                CompressionMethod::Stored => true,
                CompressionMethod::Deflated => false,
                other => return Err(format!("it is compressed by {other}, not by deflate")),
            };
            let bytes = packed.size();
            if packed.compressed_size() > file_bytes || is_stored && bytes > file_bytes {
                return Err(format!("it claims {bytes} bytes, more than the file has"));
            }
            let failed = |error: std::io::Error| format!("its header cannot be read: {error}");
            let mut prefix = Vec::new();
            let wanted = header::PREFIX_BYTES as u64;
            (&mut packed)
                .take(wanted)
                .read_to_end(&mut prefix)
                .map_err(failed)?;
            let (start, begin) = header::extent(&prefix)?;
            let mut header = prefix.split_off(start.min(prefix.len()));
            let rest = (begin - start).saturating_sub(header.len()) as u64;
            (&mut packed)
                .take(rest)
                .read_to_end(&mut header)
                .map_err(failed)?;
            if header.len() < begin - start {
                return Err("it ends inside its header".into());
            }
            header.truncate(begin - start);
            let array = header::parse(&header, begin as u64, bytes)?;
            Ok(Self {
                at,
                bytes,
                is_stored,
                array,
                ready: Mutex::new(None),
            })
        };
        match open() {
            Ok(member) => Ok((name, member)),
            Err(reason) => Err(Refused { name, reason }),
        }
    }
}

impl Reader for NpzFile {
    fn format(&self) -> &'static str {
        "NumPy npz"
    }

    fn read(&self, variable: &Variable, region: &Region) -> Result<Elements, Error> {
        let member = &self.members[variable.handle];
        let (file, start) = self.ready(member)?;
        let mut array = member.array.clone();
        array.begin += start;
        array.read(&file, &self.path, region)
    }
}

#[cfg(test)]
mod tests;
