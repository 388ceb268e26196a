//! Where the private keys of transparency logs are kept: in a directory of this machine, never in
//! the store.
//!
//! ```text
//! <repository id>.key    one a line: signing keys, the newest first; then public keys that signed once
//! <repository id>.head   the largest head they signed: entries and root
//! <repository id>.lock   held by the process that signs
//! ```
//!
//! The head is what a store that was rolled back or rewritten is told by: keep both files together,
//! and one copy of them.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use storage::tlog::{Extended, SigningKey, TreeHash, VerifierKey};
use uuid::Uuid;

/// Only its owner reads it.
const PRIVATE_MODE: u32 = 0o600;
/// Largest file that is taken for keys, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// The keys of one log.
#[derive(Clone, Debug, Default)]
pub struct LogKeys {
    /// Those that sign, the newest first; none if the log is not signed here.
    pub signing: Vec<SigningKey>,
    /// Those that signed once.
    pub retired: Vec<VerifierKey>,
}

impl LogKeys {
    /// The public keys of those that sign, the newest first.
    pub fn verifiers(&self) -> Vec<VerifierKey> {
        self.signing.iter().map(SigningKey::verifier).collect()
    }

    /// The public keys of all that sign or signed.
    pub fn known(&self) -> Vec<VerifierKey> {
        [self.verifiers(), self.retired.clone()].concat()
    }

    /// The log's name, if it has a key.
    fn origin(&self) -> Option<&str> {
        self.signing.first().map(SigningKey::name)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut keys = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            match line.starts_with("PRIVATE+") {
                true => keys.signing.push(SigningKey::from_secret(line)?),
                false => keys.retired.push(line.parse()?),
            }
        }
        match keys.origin() {
            Some(origin) if keys.known().iter().all(|key| key.name() == origin) => Ok(keys),
            _ => Err("not the keys of one log".into()),
        }
    }

    fn to_text(&self) -> String {
        let signing = self.signing.iter().map(SigningKey::to_secret);
        let retired = self.retired.iter().map(ToString::to_string);
        signing.chain(retired).map(|line| line + "\n").collect()
    }
}

/// A directory of keys.
#[derive(Clone, Debug)]
pub struct KeyDirectory(PathBuf);

impl KeyDirectory {
    /// The keys in this directory, which need not exist yet.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// `quarr/keys` in the user's configuration directory; `None` without a home.
    pub fn of_user() -> Option<PathBuf> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let configuration = match variable("XDG_CONFIG_HOME") {
            Some(path) => PathBuf::from(path),
            None => PathBuf::from(variable("HOME")?).join(".config"),
        };
        Some(configuration.join("quarr").join("keys"))
    }

    fn file(&self, repository: Uuid, extension: &str) -> PathBuf {
        self.0.join(format!("{repository}.{extension}"))
    }

    /// The file with a repository's keys.
    pub fn key_file(&self, repository: Uuid) -> PathBuf {
        self.file(repository, "key")
    }

    /// A repository's keys; none if this directory has none.
    ///
    /// # Errors
    /// What is wrong with its file.
    pub fn keys(&self, repository: Uuid) -> Result<LogKeys, String> {
        let path = self.key_file(repository);
        match read(&path)? {
            None => Ok(LogKeys::default()),
            Some(text) => {
                LogKeys::parse(&text).map_err(|reason| format!("{}: {reason}", path.display()))
            }
        }
    }

    /// Makes the first key of a repository's log.
    ///
    /// # Errors
    /// If there is one, `origin` cannot name a log or is that of another, or the files cannot be
    /// written.
    pub fn create(&self, repository: Uuid, origin: &str) -> Result<SigningKey, String> {
        let path = self.key_file(repository);
        let key = SigningKey::generate(origin)?;
        if let Some(other) = self.log_of(origin)?.filter(|other| *other != path) {
            return Err(format!(
                "{origin} is the name of another log already, with the key {}",
                other.display()
            ));
        }
        let head = self.file(repository, "head");
        if !head.exists() {
            // Nothing is signed yet. From now on it may not be missing.
            write_new(&head, &format!("0 {}\n", TreeHash::empty()))
                .map_err(|error| format!("{}: {error}", head.display()))?;
        }
        match write_new(&path, &format!("{}\n", key.to_secret())) {
            Ok(()) => Ok(key),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(format!(
                "there is a key already, {}: quarr key rotate makes another",
                path.display()
            )),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    /// The file with the keys of the log of this name.
    fn log_of(&self, origin: &str) -> Result<Option<PathBuf>, String> {
        let Ok(files) = fs::read_dir(&self.0) else {
            return Ok(None);
        };
        for file in files.flatten() {
            let path = file.path();
            let is_key = path.extension().is_some_and(|extension| extension == "key");
            if let Some(text) = read(&path)?.filter(|_| is_key)
                && LogKeys::parse(&text).is_ok_and(|keys| keys.origin() == Some(origin))
            {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// Waits until no other process signs the log of a repository; none does until the file is
    /// dropped.
    ///
    /// # Errors
    /// If it cannot be locked.
    pub fn lock(&self, repository: Uuid) -> Result<fs::File, String> {
        let path = self.file(repository, "lock");
        let lock = || {
            let file = fs::OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(PRIVATE_MODE)
                .open(&path)?;
            file.lock()?;
            Ok(file)
        };
        lock().map_err(|error: io::Error| format!("{}: {error}", path.display()))
    }

    /// Makes another key, which signs from now on: together with those before it, or instead of
    /// them if they `retire`.
    ///
    /// # Errors
    /// If there is no key yet or the file cannot be written.
    pub fn rotate(&self, repository: Uuid, retire: bool) -> Result<LogKeys, String> {
        let mut keys = self.keys(repository)?;
        let origin = keys
            .origin()
            .ok_or("there is no key yet: make one with quarr key create")?;
        let new = SigningKey::generate(origin)?;
        if retire {
            keys.retired = keys.known();
            keys.signing.clear();
        }
        keys.signing.insert(0, new);
        let path = self.key_file(repository);
        replace(&path, &keys.to_text()).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(keys)
    }

    /// The largest head that was signed here.
    ///
    /// # Errors
    /// What is wrong with its file; also if there is none, as what was signed is not known then.
    pub fn signed(&self, repository: Uuid) -> Result<(u64, TreeHash), String> {
        let path = self.file(repository, "head");
        let Some(text) = read(&path)? else {
            return Err(format!(
                "{} is missing, which says what was signed: bring it back; if it is lost, and the published checkpoint is one that you trust, write the second and third line of that into it, separated by a space",
                path.display()
            ));
        };
        let parsed = text
            .trim_end()
            .split_once(' ')
            .and_then(|(size, root)| Some((size.parse().ok()?, TreeHash::from_base64(root)?)));
        parsed.ok_or_else(|| format!("{}: not a head that was signed", path.display()))
    }

    /// Notes down a head that is about to be signed, by whoever holds the lock.
    ///
    /// # Errors
    /// If the file cannot be written: then the head must not be signed.
    pub fn note_signed(&self, repository: Uuid, head: &Extended) -> Result<(), String> {
        let path = self.file(repository, "head");
        replace(&path, &format!("{} {}\n", head.size, head.root))
            .map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Whether there are no keys at all.
    pub fn is_empty(&self) -> bool {
        let Ok(files) = fs::read_dir(&self.0) else {
            return true;
        };
        let is_key = |file: fs::DirEntry| file.path().extension().is_some_and(|e| e == "key");
        !files.flatten().any(is_key)
    }
}

/// The text of a file; `None` if there is none.
fn read(path: &Path) -> Result<Option<String>, String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let length = match fs::metadata(path) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if length > MAX_FILE_BYTES {
        return Err(format!("{}: too large for a file of keys", path.display()));
    }
    fs::read_to_string(path).map(Some).map_err(failed)
}

fn write_synced(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PRIVATE_MODE)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn folder(path: &Path) -> io::Result<&Path> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    Ok(folder)
}

/// Writes a file under a name of its own, for it to be moved to its place in one step.
fn write_aside(path: &Path, text: &str) -> io::Result<PathBuf> {
    let aside = path.with_extension(format!("{}.new", Uuid::new_v4()));
    write_synced(&aside, text)?;
    Ok(aside)
}

/// Creates a file whole, or fails if there is one.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let folder = folder(path)?;
    let aside = write_aside(path, text)?;
    let linked = fs::hard_link(&aside, path);
    fs::remove_file(&aside)?;
    linked?;
    fs::File::open(folder)?.sync_all()
}

/// Replaces a file whole.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let folder = folder(path)?;
    let aside = write_aside(path, text)?;
    fs::rename(&aside, path)?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_private_and_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let keys = KeyDirectory::new(folder.path().join("a/b"));
        let id = Uuid::new_v4();
        assert!(keys.keys(id).unwrap().signing.is_empty());
        assert!(keys.rotate(id, false).is_err());
        assert!(keys.create(id, "a b").is_err());
        let first = keys.create(id, "log.example/x").unwrap();
        assert!(keys.create(id, "log.example/x").is_err());
        let other = keys.create(Uuid::new_v4(), "log.example/x").unwrap_err();
        assert!(other.contains("name of another log"), "{other}");
        let mode = fs::metadata(keys.key_file(id))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, PRIVATE_MODE);
        let both = keys.rotate(id, false).unwrap();
        assert_eq!(both.verifiers()[1], first.verifier());
        assert_eq!(keys.keys(id).unwrap().verifiers(), both.verifiers());
        let last = keys.rotate(id, true).unwrap();
        assert_eq!(last.signing.len(), 1);
        assert_eq!(last.retired, both.verifiers());
        assert_eq!(keys.keys(id).unwrap().retired, both.verifiers());
        fs::write(keys.key_file(id), "PRIVATE+KEY+x\n").unwrap();
        let error = keys.keys(id).unwrap_err();
        assert!(error.contains(".key: not a signing key"), "{error}");
        let head = Extended {
            size: 7,
            root: TreeHash::empty(),
        };
        assert_eq!(keys.signed(id), Ok((0, TreeHash::empty())));
        keys.note_signed(id, &head).unwrap();
        assert_eq!(keys.signed(id), Ok((7, TreeHash::empty())));
        assert!(
            keys.signed(Uuid::new_v4())
                .unwrap_err()
                .contains("is missing")
        );
        assert_eq!(fs::read_dir(folder.path().join("a/b")).unwrap().count(), 2);
    }
}
