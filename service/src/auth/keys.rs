//! API keys: kept in the object store beside the jobs, so that all nodes know the same ones.
//!
//! ```text
//! .quarr/auth/keys/<id>/00000001.json    made
//! .quarr/auth/keys/<id>/00000002.json    rotated, then revoked: each change is the next object
//! ```
//!
//! Versions are put-if-absent and hold everything, so two admins who change one key at the same time
//! do not undo each other: the second tries again on what the first made. All keys are held in memory
//! and read again when they are older than [`FRESH_FOR`]: a token is looked up without a request to the
//! store, whether or not there is such a key.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use storage::{Put, Store};
use tracing::warn;

use super::access::{Grant, GrantInfo, Principal};
use super::token::{self, KeyId, Secret, SecretHash};
use crate::error::Failure;

const FOLDER: &str = ".quarr/auth/keys";
/// How long keys that were read count as the newest. A revoked key works no longer than this, on any
/// node that reaches the store.
pub const FRESH_FOR: Duration = Duration::from_secs(5);
/// How long they are used when the store does not answer.
pub const STALE_AFTER: Duration = Duration::from_secs(30);
/// Most keys of a store. Each takes some 500 bytes of memory.
const MAX_KEYS: usize = 10_000;
/// Most bytes of a stored key.
const MAX_RECORD_BYTES: u64 = 64 << 10;
/// Most grants of a key.
const MAX_GRANTS: usize = 64;
/// How often a change is tried again because another one was faster.
const ATTEMPTS: usize = 8;
/// Longest overlap of a rotation.
const MAX_OVERLAP: TimeDelta = TimeDelta::days(30);

/// A secret, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StoredSecret {
    /// SHA-256, 64 hex digits; see [`SecretHash`].
    hash: String,
    /// When it ends; of the newest one, when the key does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<DateTime<Utc>>,
}

/// A key, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    name: String,
    grants: Vec<Grant>,
    created: DateTime<Utc>,
    created_by: String,
    /// When this version was made.
    changed: DateTime<Utc>,
    changed_by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked: Option<DateTime<Utc>>,
    /// The newest first; two at most.
    secrets: Vec<StoredSecret>,
}

impl Record {
    fn is_live(&self, now: DateTime<Utc>) -> bool {
        self.revoked.is_none() && self.expires.is_none_or(|expires| now < expires)
    }
}

/// A key, as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct KeyInfo {
    /// Names it in tokens; public.
    pub id: String,
    /// What commits and the audit log call whoever uses it.
    pub name: String,
    /// What it may do.
    pub grants: Vec<GrantInfo>,
    /// `live`, `expired` or `revoked`.
    pub state: String,
    /// When it was made.
    #[schema(value_type = String)]
    pub created: DateTime<Utc>,
    /// Who made it.
    pub created_by: String,
    /// When it was changed last.
    #[schema(value_type = String)]
    pub changed: DateTime<Utc>,
    /// When it ends, if it does by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub expires: Option<DateTime<Utc>>,
    /// When it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub revoked: Option<DateTime<Utc>>,
    /// Until when the token before the last rotation works as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub overlap_until: Option<DateTime<Utc>>,
}

/// A key with its token, which is shown this once.
#[derive(Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NewToken {
    /// The token: whoever has it is the principal.
    pub token: String,
    /// The key.
    pub key: KeyInfo,
}

/// A key to make.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// What its user is called.
    pub name: String,
    /// What it may do.
    pub grants: Vec<Grant>,
    /// When it ends, if it does by itself.
    pub expires: Option<DateTime<Utc>>,
    /// Who makes it.
    pub by: String,
}

/// A key in memory.
#[derive(Clone, Debug)]
struct Known {
    version: u32,
    record: Arc<Record>,
    hashes: [(SecretHash, Option<DateTime<Utc>>); 2],
}

impl Known {
    fn new(version: u32, record: Record) -> Option<Self> {
        let mut hashes = [(SecretHash::NONE, None); 2];
        for (place, secret) in hashes.iter_mut().zip(&record.secrets) {
            *place = (SecretHash::parse(&secret.hash)?, secret.until);
        }
        Some(Self {
            version,
            record: Arc::new(record),
            hashes,
        })
    }

    fn info(&self, id: KeyId) -> KeyInfo {
        let (record, now) = (&self.record, Utc::now());
        let state = match record.revoked {
            Some(_) => "revoked",
            None if record.is_live(now) => "live",
            None => "expired",
        };
        let before = record.secrets.get(1).and_then(|secret| secret.until);
        KeyInfo {
            id: id.to_string(),
            name: record.name.clone(),
            grants: record.grants.iter().cloned().map(GrantInfo::from).collect(),
            state: state.to_owned(),
            created: record.created,
            created_by: record.created_by.clone(),
            changed: record.changed,
            expires: record.expires,
            revoked: record.revoked,
            overlap_until: before.filter(|until| record.is_live(now) && now < *until),
        }
    }
}

/// Why a token is not taken. Whoever sent it is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// There is no such key.
    Unknown,
    /// The secret is another one, or one that was rotated out.
    Secret,
    /// The key has expired.
    Expired,
    /// The key was revoked.
    Revoked,
}

impl Rejected {
    /// As a word.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Unknown => "unknown-key",
            Self::Secret => "wrong-secret",
            Self::Expired => "expired-key",
            Self::Revoked => "revoked-key",
        }
    }
}

#[derive(Debug, Default)]
struct Table {
    keys: HashMap<KeyId, Known>,
    /// When it was read.
    read: Option<Instant>,
}

/// The API keys of a store.
#[derive(Debug)]
pub struct Keys {
    store: Store,
    table: Mutex<Arc<Table>>,
    /// Held while they are read: one request reads them for all.
    reading: tokio::sync::Mutex<()>,
}

impl Keys {
    /// The keys of a store; none is read yet.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            table: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
        }
    }

    fn table(&self) -> Arc<Table> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.clone()
    }

    /// The keys as they were at most [`FRESH_FOR`] ago.
    ///
    /// # Errors
    /// 503 if they are older than [`STALE_AFTER`] and the store does not answer.
    async fn fresh(&self) -> Result<Arc<Table>, Failure> {
        let is_fresh = |table: &Table| table.read.is_some_and(|read| read.elapsed() < FRESH_FOR);
        let known = self.table();
        if is_fresh(&known) {
            return Ok(known);
        }
        let _turn = self.reading.lock().await;
        let known = self.table();
        if is_fresh(&known) {
            return Ok(known);
        }
        match self.read(&known).await {
            Ok(table) => Ok(table),
            Err(failure) if known.read.is_some_and(|read| read.elapsed() < STALE_AFTER) => {
                let reason = &failure.problem().detail;
                warn!(%reason, "the API keys cannot be read: those read before count");
                Ok(known)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Reads the versions that are not `known` yet.
    async fn read(&self, known: &Table) -> Result<Arc<Table>, Failure> {
        let read = Instant::now();
        let mut newest: BTreeMap<KeyId, u32> = BTreeMap::new();
        for (key, _) in self.store.list(FOLDER).await? {
            if let Some((id, version)) = parse_key(&key) {
                let last = newest.entry(id).or_default();
                *last = version.max(*last);
            }
        }
        let mut keys = HashMap::with_capacity(newest.len());
        for (id, version) in newest {
            let before = known.keys.get(&id).filter(|known| known.version == version);
            let found = match before {
                Some(before) => before.clone(),
                // One that cannot be understood is no key. It is not replaced by the version before,
                // which may be what was revoked.
                None => match self.stored(id, version).await? {
                    Some(found) => found,
                    None => continue,
                },
            };
            keys.insert(id, found);
        }
        let table = Arc::new(Table {
            keys,
            read: Some(read),
        });
        *self.table.lock().unwrap_or_else(PoisonError::into_inner) = table.clone();
        Ok(table)
    }

    async fn stored(&self, id: KeyId, version: u32) -> Result<Option<Known>, Failure> {
        let key = object_key(id, version);
        let bytes = match self.store.get_at_most(&key, MAX_RECORD_BYTES).await {
            Ok(bytes) => bytes,
            Err(storage::Error::Corrupt { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let record = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let known = record.and_then(|record| Known::new(version, record));
        if known.is_none() {
            warn!(%key, "the record of an API key makes no sense: the key does not work");
        }
        Ok(known)
    }

    /// Whether there is any key, also one that does not work any more.
    ///
    /// # Errors
    /// 503 if the store does not answer.
    pub async fn are_there(&self) -> Result<bool, Failure> {
        Ok(!self.store.list(FOLDER).await?.is_empty())
    }

    /// Who a token is of. The inner error says why nobody, with the key if there is one.
    ///
    /// The same work is done whether or not there is such a key and whatever is wrong with it.
    ///
    /// # Errors
    /// 503 if it cannot be told.
    pub async fn identify(
        &self,
        token: &str,
    ) -> Result<Result<Principal, (Rejected, Option<String>)>, Failure> {
        let table = self.fresh().await?;
        let Some((id, secret)) = token::parse(token) else {
            return Ok(Err((Rejected::Unknown, None)));
        };
        let now = Utc::now();
        let hash = secret.hash(id);
        let known = table.keys.get(&id);
        let none = [(SecretHash::NONE, None); 2];
        let hashes = known.map_or(&none, |known| &known.hashes);
        let mut is_right = false;
        for (stored, until) in hashes {
            let is_current = until.is_none_or(|until| now < until);
            is_right |= stored.matches(&hash) & is_current;
        }
        let Some(known) = known else {
            return Ok(Err((Rejected::Unknown, None)));
        };
        let record = &known.record;
        let named = Some(record.name.clone());
        Ok(match record.revoked {
            _ if !is_right => Err((Rejected::Secret, named)),
            Some(_) => Err((Rejected::Revoked, named)),
            None if !record.is_live(now) => Err((Rejected::Expired, named)),
            None => Ok(Principal {
                id: format!("key:{id}"),
                name: record.name.clone(),
                grants: record.grants.clone(),
            }),
        })
    }

    /// All keys, the oldest first.
    ///
    /// # Errors
    /// 503 if the store does not answer.
    pub async fn list(&self) -> Result<Vec<KeyInfo>, Failure> {
        let table = self.newest().await?;
        let mut found: Vec<KeyInfo> = table.keys.iter().map(|(id, key)| key.info(*id)).collect();
        found.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(found)
    }

    async fn newest(&self) -> Result<Arc<Table>, Failure> {
        let _turn = self.reading.lock().await;
        let known = self.table();
        self.read(&known).await
    }

    /// The key that an id names, or the only live one of this name.
    async fn find(&self, key: &str) -> Result<(KeyId, Known), Failure> {
        let table = self.newest().await?;
        if let Ok(id) = key.parse::<KeyId>()
            && let Some(known) = table.keys.get(&id)
        {
            return Ok((id, known.clone()));
        }
        let now = Utc::now();
        let is_it = |known: &Known| known.record.name == key && known.record.is_live(now);
        let mut found = table.keys.iter().filter(|(_, known)| is_it(known));
        match (found.next(), found.next()) {
            (Some((id, known)), None) => Ok((*id, known.clone())),
            (Some(_), Some(_)) => {
                let detail = format!("several live keys are called {key:?}: name it by its id");
                Err(Failure::conflict(detail))
            }
            (None, _) => Err(Failure::not_found(format!(
                "there is no live API key {key:?}"
            ))),
        }
    }

    /// The key that an id names, or the only live one of this name.
    ///
    /// # Errors
    /// 404 if there is none, 409 if several live ones have the name.
    pub async fn show(&self, key: &str) -> Result<KeyInfo, Failure> {
        let (id, known) = self.find(key).await?;
        Ok(known.info(id))
    }

    /// Makes a key.
    ///
    /// # Errors
    /// 400 for a name or an end that cannot be, 409 if a live key has the name.
    pub async fn create(&self, new: NewKey) -> Result<NewToken, Failure> {
        check_name(&new.name)?;
        let now = Utc::now();
        if new.expires.is_some_and(|expires| expires <= now) {
            return Err(Failure::bad_request("expires", "it has passed already"));
        }
        if new.grants.is_empty() || new.grants.len() > MAX_GRANTS {
            let detail = format!("a key has 1 to {MAX_GRANTS} grants");
            return Err(Failure::bad_request("grants", detail));
        }
        let table = self.newest().await?;
        if table.keys.len() >= MAX_KEYS {
            let detail = format!("there are {MAX_KEYS} keys, the most a store has");
            return Err(Failure::too_large(MAX_KEYS as u64, detail));
        }
        let is_live = |known: &Known| known.record.is_live(now);
        if table
            .keys
            .values()
            .any(|known| known.record.name == new.name && is_live(known))
        {
            let detail = format!(
                "a live API key is called {:?}: rotate or revoke it",
                new.name
            );
            return Err(Failure::conflict(detail));
        }
        let (id, secret) = (KeyId::random(), Secret::random());
        let record = Record {
            name: new.name,
            grants: new.grants,
            created: now,
            created_by: new.by.clone(),
            changed: now,
            changed_by: new.by,
            expires: new.expires,
            revoked: None,
            secrets: vec![StoredSecret {
                hash: secret.hash(id).hex(),
                until: None,
            }],
        };
        if !self.put(id, 1, &record).await? {
            return Err(Failure::broken("a random id of a key is taken"));
        }
        self.shown(id, &secret).await
    }

    /// Gives a key a new secret; the one before works for `overlap` more.
    ///
    /// # Errors
    /// 400 for an overlap of over 30 days, 404 if there is no such key, 409 if it does not work any
    /// more.
    pub async fn rotate(
        &self,
        key: &str,
        overlap: TimeDelta,
        by: &str,
    ) -> Result<NewToken, Failure> {
        if overlap < TimeDelta::zero() || overlap > MAX_OVERLAP {
            return Err(Failure::bad_request(
                "overlap",
                "it is not from 0 to 30 days",
            ));
        }
        let secret = Secret::random();
        let id = self
            .change(key, by, |id, record, now| {
                let mut before = record.secrets.first().cloned();
                if let Some(before) = &mut before {
                    before.until = Some(now + overlap);
                }
                let newest = StoredSecret {
                    hash: secret.hash(id).hex(),
                    until: None,
                };
                record.secrets = std::iter::once(newest).chain(before).collect();
            })
            .await?;
        self.shown(id, &secret).await
    }

    /// Has a key not work any more.
    ///
    /// # Errors
    /// 404 if there is no such key, 409 if it does not work any more.
    pub async fn revoke(&self, key: &str, by: &str) -> Result<KeyInfo, Failure> {
        let revoke = |_: KeyId, record: &mut Record, now| record.revoked = Some(now);
        let id = self.change(key, by, revoke).await?;
        self.show(&id.to_string()).await
    }

    async fn change(
        &self,
        key: &str,
        by: &str,
        change: impl Fn(KeyId, &mut Record, DateTime<Utc>),
    ) -> Result<KeyId, Failure> {
        for _ in 0..ATTEMPTS {
            let (id, known) = self.find(key).await?;
            let now = Utc::now();
            if !known.record.is_live(now) {
                let detail = format!("API key {key:?} does not work any more: make a new one");
                return Err(Failure::conflict(detail));
            }
            let mut record = Record::clone(&known.record);
            change(id, &mut record, now);
            record.changed = now;
            by.clone_into(&mut record.changed_by);
            if self.put(id, known.version + 1, &record).await? {
                return Ok(id);
            }
        }
        Err(Failure::busy("others change this API key all the time"))
    }

    /// Stores a version; whether it was free.
    async fn put(&self, id: KeyId, version: u32, record: &Record) -> Result<bool, Failure> {
        let bytes =
            serde_json::to_vec(record).map_err(|error| Failure::broken(error.to_string()))?;
        let key = object_key(id, version);
        match self.store.put_if_absent(&key, bytes.clone().into()).await? {
            Put::Created => Ok(true),
            // The answer may have been lost: then it is our own.
            Put::AlreadyThere => {
                let there = self.store.get_at_most(&key, MAX_RECORD_BYTES).await?;
                Ok(there.is_some_and(|there| there == bytes))
            }
        }
    }

    async fn shown(&self, id: KeyId, secret: &Secret) -> Result<NewToken, Failure> {
        Ok(NewToken {
            token: secret.token(id),
            key: self.show(&id.to_string()).await?,
        })
    }
}

fn check_name(name: &str) -> Result<(), Failure> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
    let begins = name
        .chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphanumeric());
    // What reads as an id would hide the key of that id.
    let is_id = name.parse::<KeyId>().is_ok();
    if begins && name.len() <= 64 && name.chars().all(is_plain) && !is_id && name != "anonymous" {
        return Ok(());
    }
    let detail = format!(
        "{name:?} must be 1 to 64 letters, digits, '.', '_', '-', '@', begin with a letter or digit, and be no id nor \"anonymous\""
    );
    Err(Failure::bad_request("name", detail))
}

fn object_key(id: KeyId, version: u32) -> String {
    format!("{FOLDER}/{id}/{version:08}.json")
}

fn parse_key(key: &str) -> Option<(KeyId, u32)> {
    let rest = key.strip_prefix(FOLDER)?.strip_prefix('/')?;
    let (id, version) = rest.split_once('/')?;
    let version = version.strip_suffix(".json")?.parse().ok()?;
    Some((id.parse().ok()?, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::new(Store::open("memory://").unwrap())
    }

    fn new(name: &str) -> NewKey {
        NewKey {
            name: name.into(),
            grants: vec!["reader:demo".parse().unwrap()],
            expires: None,
            by: "test".into(),
        }
    }

    fn tomorrow() -> TimeDelta {
        TimeDelta::days(1)
    }

    #[tokio::test]
    async fn a_token_names_its_principal_until_it_is_revoked() {
        let keys = keys();
        let made = keys.create(new("ada")).await.unwrap();
        let ada = keys.identify(&made.token).await.unwrap().unwrap();
        assert_eq!(
            (ada.name.as_str(), ada.id),
            ("ada", format!("key:{}", made.key.id))
        );
        keys.revoke("ada", "test").await.unwrap();
        let (why, name) = keys.identify(&made.token).await.unwrap().unwrap_err();
        assert_eq!((why, name.as_deref()), (Rejected::Revoked, Some("ada")));
        // Its name is free again; it itself cannot come back.
        assert_eq!(
            keys.rotate(&made.key.id, tomorrow(), "t")
                .await
                .err()
                .unwrap()
                .problem()
                .status,
            409
        );
        keys.create(new("ada")).await.unwrap();
    }

    #[tokio::test]
    async fn a_rotated_token_works_for_the_overlap_alone() {
        let keys = keys();
        let first = keys.create(new("ada")).await.unwrap();
        let second = keys.rotate("ada", tomorrow(), "test").await.unwrap();
        assert!(second.key.overlap_until.is_some());
        for token in [&first.token, &second.token] {
            assert!(keys.identify(token).await.unwrap().is_ok());
        }
        let third = keys.rotate("ada", TimeDelta::zero(), "test").await.unwrap();
        for token in [&first.token, &second.token] {
            let (why, _) = keys.identify(token).await.unwrap().unwrap_err();
            assert_eq!(why, Rejected::Secret);
        }
        assert!(keys.identify(&third.token).await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn what_is_stored_has_no_secret() {
        let keys = keys();
        let made = keys.create(new("ada")).await.unwrap();
        let id = made.key.id.parse().unwrap();
        let stored = keys.store.get(&object_key(id, 1)).await.unwrap().unwrap();
        let stored = String::from_utf8(stored.to_vec()).unwrap();
        let secret = &made.token[made.token.len() - 72..made.token.len() - 8];
        assert!(!stored.contains(secret) && !stored.contains(&made.token));
    }

    #[tokio::test]
    async fn changes_at_the_same_time_do_not_undo_each_other() {
        let keys = keys();
        keys.create(new("ada")).await.unwrap();
        let other = Keys::new(keys.store.clone());
        let (rotated, revoked) = tokio::join!(
            keys.rotate("ada", tomorrow(), "one"),
            other.revoke("ada", "two"),
        );
        revoked.unwrap();
        if let Ok(rotated) = rotated {
            keys.newest().await.unwrap();
            assert!(keys.identify(&rotated.token).await.unwrap().is_err());
        }
    }

    #[tokio::test]
    async fn records_that_make_no_sense_are_no_keys() {
        let keys = keys();
        let made = keys.create(new("ada")).await.unwrap();
        let next = object_key(made.key.id.parse().unwrap(), 2);
        keys.store.put_if_absent(&next, "{}".into()).await.unwrap();
        keys.newest().await.unwrap();
        assert!(keys.identify(&made.token).await.unwrap().is_err());
    }

    #[tokio::test]
    async fn names_and_ends_are_checked() {
        let keys = keys();
        for name in [
            "",
            "a b",
            "-a",
            "a\n",
            "0123456789abcdef",
            "anonymous",
            &"a".repeat(65),
        ] {
            assert_eq!(
                keys.create(new(name)).await.unwrap_err_status(),
                400,
                "{name:?}"
            );
        }
        let over = NewKey {
            expires: Some(Utc::now() - TimeDelta::seconds(1)),
            ..new("ada")
        };
        assert_eq!(keys.create(over).await.unwrap_err_status(), 400);
        let none = NewKey {
            grants: Vec::new(),
            ..new("ada")
        };
        assert_eq!(keys.create(none).await.unwrap_err_status(), 400);
        keys.create(new("ada")).await.unwrap();
        assert_eq!(keys.create(new("ada")).await.unwrap_err_status(), 409);
    }

    trait Status {
        fn unwrap_err_status(self) -> u16;
    }

    impl Status for Result<NewToken, Failure> {
        fn unwrap_err_status(self) -> u16 {
            self.err().map_or(0, |failure| failure.problem().status)
        }
    }
}
