//! Signed notes and checkpoints: text with Ed25519 signatures under it.
//!
//! Spec: C2SP `signed-note`, `tlog-checkpoint`, `tlog-cosignature`.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _};
use sha2::{Digest as _, Sha256};

use super::merkle::TreeHash;

/// Longest note, in bytes.
const MAX_NOTE_BYTES: usize = 64 << 10;
/// Most signatures of a note.
const MAX_SIGNATURES: usize = 64;
/// Bytes of a cosignature's time.
const TIME_BYTES: usize = 8;

/// What a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// The text of notes: a log's key.
    Note = 1,
    /// Checkpoints, together with the time: a witness's key.
    Cosignature = 4,
}

/// A public key with its name; written as `name+id+base64`, a *vkey*.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: u32,
    kind: KeyKind,
    key: ed25519_dalek::VerifyingKey,
}

impl VerifierKey {
    fn new(name: &str, kind: KeyKind, key: ed25519_dalek::VerifyingKey) -> Self {
        Self {
            name: name.to_owned(),
            id: key_id(name, kind, key.as_bytes()),
            kind,
            key,
        }
    }

    /// The key's name: a log's origin, or what a witness is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it signs.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Checks a signature of `text`; gives the time of a cosignature, in seconds since 1970.
    fn check(&self, text: &str, signature: &[u8]) -> Result<Option<u64>, String> {
        let wrong = || format!("the signature of {} is wrong", self.name);
        let (time, signature) = match self.kind {
            KeyKind::Note => (None, signature),
            KeyKind::Cosignature => {
                let (time, rest) = signature
                    .split_first_chunk::<TIME_BYTES>()
                    .ok_or_else(wrong)?;
                (Some(u64::from_be_bytes(*time)), rest)
            }
        };
        let signature = Signature::from_slice(signature).map_err(|_| wrong())?;
        let message = match time {
            None => text.to_owned(),
            Some(time) => cosigned(text, time),
        };
        self.key
            .verify_strict(message.as_bytes(), &signature)
            .map_err(|_| wrong())?;
        Ok(time)
    }
}

/// What a witness signs of a checkpoint.
fn cosigned(text: &str, seconds: u64) -> String {
    format!("cosignature/v1\ntime {seconds}\n{text}")
}

fn key_id(name: &str, kind: KeyKind, key: &[u8]) -> u32 {
    let hasher = Sha256::new().chain_update(name).chain_update(b"\n");
    let hash = hasher
        .chain_update([kind as u8])
        .chain_update(key)
        .finalize();
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

/// Checks the name of a key.
///
/// # Errors
/// If it is empty or has spaces, plus signs or control characters.
fn check_name(name: &str) -> Result<(), String> {
    let is_bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    if name.is_empty() || name.len() > 255 || name.contains(is_bad) {
        return Err(format!(
            "{name:?} is not the name of a key: 1 to 255 bytes without spaces and plus signs"
        ));
    }
    Ok(())
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![self.kind as u8];
        bytes.extend_from_slice(self.key.as_bytes());
        let key = STANDARD.encode(&bytes);
        write!(f, "{}+{:08x}+{key}", self.name, self.id)
    }
}

/// The parts of `name+id+base64`.
fn parts(text: &str) -> Option<(&str, u32, u8, [u8; 32])> {
    let (name, rest) = text.split_once('+')?;
    let (id, key) = rest.split_once('+')?;
    let is_hex = id.len() == 8 && id.bytes().all(|b| b.is_ascii_hexdigit());
    let id = u32::from_str_radix(id, 16).ok().filter(|_| is_hex)?;
    let key = STANDARD.decode(key).ok()?;
    let (kind, key) = key.split_first()?;
    Some((name, id, *kind, key.try_into().ok()?))
}

impl FromStr for VerifierKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |reason: &str| format!("{text:?} is no verifier key: {reason}");
        let (name, id, kind, key) = parts(text)
            .ok_or_else(|| wrong("expected name+id+key, as quarr key show prints it"))?;
        check_name(name)?;
        let kind = match kind {
            1 => KeyKind::Note,
            4 => KeyKind::Cosignature,
            _ => return Err(wrong("only Ed25519 keys are known")),
        };
        let key = ed25519_dalek::VerifyingKey::from_bytes(&key)
            .map_err(|_| wrong("its bytes are not a key"))?;
        let key = Self::new(name, kind, key);
        match key.id == id {
            true => Ok(key),
            false => Err(wrong("name, id and key do not belong together")),
        }
    }
}

/// A private key with its name, which signs notes; written as `PRIVATE+KEY+name+id+base64`.
#[derive(Clone)]
pub struct SigningKey {
    name: String,
    key: ed25519_dalek::SigningKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.name)
    }
}

const PRIVATE: &str = "PRIVATE+KEY+";

impl SigningKey {
    /// A new key from the system's randomness.
    ///
    /// # Errors
    /// If `name` cannot name a key.
    pub fn generate(name: &str) -> Result<Self, String> {
        check_name(name)?;
        let seed: [u8; 32] = rand::random();
        Ok(Self {
            name: name.to_owned(),
            key: ed25519_dalek::SigningKey::from_bytes(&seed),
        })
    }

    /// The key's name: the log's origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The public half.
    pub fn verifier(&self) -> VerifierKey {
        VerifierKey::new(&self.name, KeyKind::Note, self.key.verifying_key())
    }

    /// The key in full, for its file.
    pub fn to_secret(&self) -> String {
        let mut bytes = vec![KeyKind::Note as u8];
        bytes.extend_from_slice(self.key.as_bytes());
        let id = self.verifier().id;
        format!("{PRIVATE}{}+{id:08x}+{}", self.name, STANDARD.encode(bytes))
    }

    /// Reads what [`SigningKey::to_secret`] gives; never repeats it in a message.
    ///
    /// # Errors
    /// If it is something else.
    pub fn from_secret(text: &str) -> Result<Self, String> {
        let wrong = || "not a signing key: expected PRIVATE+KEY+name+id+key".to_owned();
        let text = text.strip_prefix(PRIVATE).ok_or_else(wrong)?;
        let (name, id, kind, seed) = parts(text).ok_or_else(wrong)?;
        check_name(name)?;
        let key = Self {
            name: name.to_owned(),
            key: ed25519_dalek::SigningKey::from_bytes(&seed),
        };
        match kind == KeyKind::Note as u8 && key.verifier().id == id {
            true => Ok(key),
            false => Err("name, id and signing key do not belong together".into()),
        }
    }

    fn sign(&self, text: &str) -> NoteSignature {
        NoteSignature {
            name: self.name.clone(),
            id: self.verifier().id,
            signature: self.key.sign(text.as_bytes()).to_vec(),
        }
    }
}

/// One signature under a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    name: String,
    id: u32,
    signature: Vec<u8>,
}

impl NoteSignature {
    /// The name of the key, as the line says it.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn is_of(&self, key: &VerifierKey) -> bool {
        self.name == key.name && self.id == key.id
    }
}

impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.id.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.signature);
        writeln!(f, "— {} {}", self.name, STANDARD.encode(bytes))
    }
}

impl FromStr for NoteSignature {
    type Err = String;

    /// Reads a line, without its newline.
    fn from_str(line: &str) -> Result<Self, String> {
        let wrong = || format!("{line:?} is no signature line");
        let (name, signature) = line
            .strip_prefix("— ")
            .and_then(|rest| rest.split_once(' '))
            .ok_or_else(wrong)?;
        check_name(name)?;
        let bytes = STANDARD.decode(signature).map_err(|_| wrong())?;
        let (id, signature) = bytes.split_first_chunk::<4>().ok_or_else(wrong)?;
        if signature.is_empty() {
            return Err(wrong());
        }
        Ok(Self {
            name: name.to_owned(),
            id: u32::from_be_bytes(*id),
            signature: signature.to_vec(),
        })
    }
}

/// Text with signatures under it. Means nothing until a known key has signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedNote {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// A key whose signature is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The key's name.
    pub name: String,
    /// When a witness signed, in seconds since 1970.
    pub time: Option<u64>,
}

impl SignedNote {
    /// A note, signed with these keys.
    pub(crate) fn sign(text: String, keys: &[SigningKey]) -> Self {
        let signatures = keys.iter().map(|key| key.sign(&text)).collect();
        Self { text, signatures }
    }

    /// What is signed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signatures, right or not.
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Whether there is a signature that claims to be of this key.
    pub fn is_signed_with(&self, key: &VerifierKey) -> bool {
        self.signatures.iter().any(|signature| signature.is_of(key))
    }

    /// Adds those of `lines` that `key` made and that are right; says whether there was one.
    ///
    /// # Errors
    /// If a line is no signature, or one of the key is wrong.
    pub fn add_signatures(&mut self, lines: &str, key: &VerifierKey) -> Result<bool, String> {
        let mut has_signed = false;
        for line in lines.lines() {
            let signature: NoteSignature = line.parse()?;
            if signature.is_of(key) {
                key.check(&self.text, &signature.signature)?;
                self.signatures.push(signature);
                has_signed = true;
            }
        }
        Ok(has_signed)
    }

    /// Those of `keys` that signed this.
    ///
    /// # Errors
    /// If none did, or a signature of one of them is wrong.
    pub fn verify(&self, keys: &[VerifierKey]) -> Result<Vec<Signed>, String> {
        let mut signed: Vec<Signed> = Vec::new();
        for signature in &self.signatures {
            let Some(key) = keys.iter().find(|key| signature.is_of(key)) else {
                continue;
            };
            let time = key.check(&self.text, &signature.signature)?;
            let name = key.name.clone();
            if !signed.iter().any(|earlier| earlier.name == name) {
                signed.push(Signed { name, time });
            }
        }
        match signed.is_empty() {
            false => Ok(signed),
            true => {
                let by: Vec<&str> = self.signatures.iter().map(|s| s.name.as_str()).collect();
                let keys: Vec<&str> = keys.iter().map(VerifierKey::name).collect();
                Err(format!(
                    "signed by {}, but with none of the given keys ({})",
                    by.join(" and "),
                    keys.join(", ")
                ))
            }
        }
    }
}

impl fmt::Display for SignedNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures
            .iter()
            .try_for_each(|signature| signature.fmt(f))
    }
}

impl FromStr for SignedNote {
    type Err = String;

    fn from_str(note: &str) -> Result<Self, String> {
        if note.len() > MAX_NOTE_BYTES {
            return Err(format!("{} bytes are too many for a note", note.len()));
        }
        if note.contains(|c: char| c < ' ' && c != '\n') {
            return Err("a note with control characters".into());
        }
        let end = note.rfind("\n\n").ok_or("a note without signatures")?;
        let (text, signatures) = (&note[..=end], &note[end + 2..]);
        let signatures = signatures
            .strip_suffix('\n')
            .ok_or("a note that does not end in a newline")?;
        if signatures.split('\n').count() > MAX_SIGNATURES {
            return Err("a note with too many signatures".into());
        }
        Ok(Self {
            text: text.to_owned(),
            signatures: signatures
                .split('\n')
                .map(str::parse)
                .collect::<Result<_, _>>()?,
        })
    }
}

/// A tree head: how many entries the log has, and the root over them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// What the log is called.
    pub origin: String,
    /// Its entries.
    pub size: u64,
    /// The root over them.
    pub root: TreeHash,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, self.root)
    }
}

impl FromStr for Head {
    type Err = String;

    /// Reads the text of a checkpoint; lines after the first three are passed over.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "not the text of a checkpoint".to_owned();
        let text = text.strip_suffix('\n').ok_or_else(wrong)?;
        let mut lines = text.split('\n');
        let mut line = || lines.next().filter(|line| !line.is_empty());
        let (origin, size, root) = (line(), line(), line());
        let (Some(origin), Some(size), Some(root)) = (origin, size, root) else {
            return Err(wrong());
        };
        let number: u64 = size.parse().map_err(|_| wrong())?;
        if number.to_string() != size || lines.any(str::is_empty) {
            return Err(wrong());
        }
        Ok(Self {
            origin: origin.to_owned(),
            size: number,
            root: TreeHash::from_base64(root).ok_or_else(wrong)?,
        })
    }
}

/// A signed tree head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// What is signed.
    pub head: Head,
    /// The note that says so.
    pub note: SignedNote,
}

impl Checkpoint {
    /// Signs a head. That it is consistent with all that were signed before is the caller's.
    pub(crate) fn sign(head: Head, keys: &[SigningKey]) -> Self {
        let note = SignedNote::sign(head.to_string(), keys);
        Self { head, note }
    }

    /// Checks that the log's own key has signed it; gives everyone of `keys` who has.
    ///
    /// # Errors
    /// If none of `keys` is the log's, none of those signed it, or a signature is wrong.
    pub fn verify(&self, keys: &[VerifierKey]) -> Result<Vec<Signed>, String> {
        let own = |key: &&VerifierKey| key.kind == KeyKind::Note && key.name == self.head.origin;
        let own: Vec<VerifierKey> = keys.iter().filter(own).cloned().collect();
        if own.is_empty() {
            let names: Vec<&str> = keys.iter().map(VerifierKey::name).collect();
            return Err(format!(
                "it is a checkpoint of {}, and none of the given keys is that log's ({})",
                self.head.origin,
                names.join(", ")
            ));
        }
        self.note.verify(&own)?;
        self.note.verify(keys)
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.note.fmt(f)
    }
}

impl FromStr for Checkpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let note: SignedNote = text.parse()?;
        Ok(Self {
            head: note.text.parse()?,
            note,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the documentation of Go's `golang.org/x/mod/sumdb/note`.
    const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const PETER_SECRET: &str =
        "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    const TEXT: &str = "If you think cryptography is the answer to your problem,\n\
                        then you don't know what your problem is.\n";
    const SIGNED: &str = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    #[test]
    fn the_known_note_is_signed_and_read_as_known() {
        let key = SigningKey::from_secret(PETER_SECRET).unwrap();
        assert_eq!(key.verifier().to_string(), PETER);
        assert_eq!(key.to_secret(), PETER_SECRET);
        let note = SignedNote::sign(TEXT.into(), &[key]);
        assert_eq!(note.to_string(), format!("{TEXT}\n{SIGNED}"));
        let peter: VerifierKey = PETER.parse().unwrap();
        let parsed: SignedNote = note.to_string().parse().unwrap();
        assert_eq!(parsed, note);
        let signed = parsed.verify(std::slice::from_ref(&peter)).unwrap();
        assert_eq!(signed[0].name, "PeterNeumann");
        let other = SigningKey::generate("PeterNeumann").unwrap();
        assert!(parsed.verify(&[other.verifier()]).is_err());
        let changed = note.to_string().replace("problem is", "question is");
        let changed: SignedNote = changed.parse().unwrap();
        assert!(changed.verify(&[peter]).is_err());
    }

    #[test]
    fn signatures_of_unknown_keys_do_not_matter_and_wrong_ones_of_known_keys_do() {
        let (one, two) = (SigningKey::generate("a"), SigningKey::generate("b"));
        let (one, two) = (one.unwrap(), two.unwrap());
        let note = SignedNote::sign("x\n".into(), &[one.clone(), two.clone()]);
        assert_eq!(note.verify(&[two.verifier()]).unwrap().len(), 1);
        let both = [one.verifier(), two.verifier()];
        assert_eq!(note.verify(&both).unwrap().len(), 2);
        let mut broken = note;
        broken.signatures[0].signature[0] ^= 1;
        assert_eq!(broken.verify(&[two.verifier()]).unwrap().len(), 1);
        assert!(broken.verify(&both).is_err());
    }

    #[test]
    fn what_is_no_note_is_refused() {
        for bad in [
            "",
            "x\n",
            "x\n\n",
            "x\n\n— a AAAAAAA=",
            "x\n\n— a AAAA\n",
            "x\n\n— a b c\n",
            "x\n\n- a AAAAAAA=\n",
            "x\t\n\n— a AAAAAAA=\n",
            "x\n\n— a+b AAAAAAA=\n",
        ] {
            assert!(bad.parse::<SignedNote>().is_err(), "{bad:?}");
        }
        let root = TreeHash::empty();
        for bad in [
            format!("a\n1\n{root}"),
            format!("a\n01\n{root}\n"),
            format!("\n1\n{root}\n"),
            format!("a\n1\n{root}\n\n"),
            "a\n1\nAAAA\n".into(),
        ] {
            assert!(bad.parse::<Head>().is_err(), "{bad:?}");
        }
        assert_eq!(format!("a\n1\n{root}\n").parse::<Head>().unwrap().size, 1);
        for bad in [
            "",
            "a",
            "a+00000000+",
            "a b+c74f20a3+AAAA",
            &PETER.replace('c', "d"),
        ] {
            assert!(bad.parse::<VerifierKey>().is_err(), "{bad:?}");
        }
    }

    /// Example of the specification of cosignatures, as text to be signed.
    #[test]
    fn a_witness_signs_the_time_too() {
        let text =
            "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
        let key = SigningKey::generate("w").unwrap();
        let witness = VerifierKey::new("w", KeyKind::Cosignature, key.key.verifying_key());
        let message = cosigned(text, 1_679_315_147);
        assert!(message.starts_with("cosignature/v1\ntime 1679315147\nexample.com/"));
        let mut signature = 1_679_315_147u64.to_be_bytes().to_vec();
        signature.extend(key.key.sign(message.as_bytes()).to_bytes());
        let line = NoteSignature {
            name: "w".into(),
            id: witness.id,
            signature,
        };
        let log = SigningKey::generate("example.com/behind-the-sofa").unwrap();
        let mut checkpoint = Checkpoint::sign(text.parse().unwrap(), std::slice::from_ref(&log));
        let added = checkpoint.note.add_signatures(&line.to_string(), &witness);
        assert_eq!(added, Ok(true));
        let parsed: Checkpoint = checkpoint.to_string().parse().unwrap();
        let signed = parsed.verify(&[log.verifier(), witness.clone()]).unwrap();
        assert_eq!(signed[1].time, Some(1_679_315_147));
        assert!(parsed.verify(std::slice::from_ref(&witness)).is_err());
        let later: NoteSignature = {
            let mut line = line;
            line.signature[7] += 1;
            line
        };
        assert!(
            checkpoint
                .note
                .add_signatures(&later.to_string(), &witness)
                .is_err()
        );
    }
}
