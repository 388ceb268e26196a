//! JWTs of an issuer on this machine: those that hold, and all the ways in which they do not.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaKeyPair,
};
use serde_json::{Map, Value, json};
use service::auth::{OidcSettings, Settings};
use tokio::net::TcpListener;

use crate::auth::Guarded;
use crate::support::MAIN;

/// For these tests alone.
const RSA_KEY: &[u8] = include_bytes!("fixtures/rsa-key.der");

enum Key {
    Rsa(Box<RsaKeyPair>),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Key {
    fn rsa() -> Self {
        Self::Rsa(Box::new(RsaKeyPair::from_pkcs8(RSA_KEY).unwrap()))
    }

    fn p256() -> Self {
        let (how, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let document = EcdsaKeyPair::generate_pkcs8(how, &random).unwrap();
        Self::P256(EcdsaKeyPair::from_pkcs8(how, document.as_ref(), &random).unwrap())
    }

    fn ed25519() -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Ed25519(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap())
    }

    fn jwk(&self, id: &str) -> Value {
        let text = |bytes: &[u8]| BASE64.encode(bytes);
        match self {
            Self::Rsa(key) => {
                let public = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({ "kty": "RSA", "kid": id, "use": "sig", "n": text(&public.n), "e": text(&public.e) })
            }
            Self::P256(key) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "kid": id, "x": text(x), "y": text(y) })
            }
            Self::Ed25519(key) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "alg": "EdDSA", "x": text(key.public_key().as_ref()) })
            }
        }
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                let padding: &'static dyn ring::signature::RsaEncoding = match algorithm {
                    "PS256" => &RSA_PSS_SHA256,
                    _ => &RSA_PKCS1_SHA256,
                };
                key.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
            Self::P256(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed25519(key) => key.sign(message).as_ref().to_vec(),
        }
    }
}

/// An issuer, and how often its keys were fetched.
struct Issuer {
    url: String,
    keys: Arc<Mutex<Vec<Value>>>,
    fetched: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start(keys: Vec<Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/realm", listener.local_addr().unwrap());
        let (keys, fetched) = (Arc::new(Mutex::new(keys)), Arc::new(AtomicUsize::new(0)));
        let discovery = json!({ "issuer": url, "jwks_uri": format!("{url}/keys") });
        let (served, count) = (keys.clone(), fetched.clone());
        let router = Router::new()
            .route(
                "/realm/.well-known/openid-configuration",
                get(move || async move { Json(discovery) }),
            )
            .route(
                "/realm/keys",
                get(move || async move {
                    count.fetch_add(1, Ordering::Relaxed);
                    let keys = served.lock().unwrap().clone();
                    Json(json!({ "keys": keys }))
                }),
            );
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, keys, fetched }
    }

    fn claims(&self) -> Map<String, Value> {
        let now = now();
        let claims = json!({
            "iss": self.url, "aud": "quarr", "sub": "ada", "exp": now + 600, "nbf": now - 5,
            "groups": ["staff"], "email": "ada@example.org",
        });
        claims.as_object().unwrap().clone()
    }

    async fn guarded(&self) -> Guarded {
        Guarded::with(Settings {
            oidc: Some(OidcSettings {
                issuers: vec![self.url.clone()],
                audiences: vec!["quarr".into(), "quarr-test".into()],
                rules: vec![
                    "groups=staff:reader:demo".parse().unwrap(),
                    "groups=ops:writer".parse().unwrap(),
                ],
                name_claim: Some("email".into()),
            }),
            ..Settings::default()
        })
        .await
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

fn part(value: &Value) -> String {
    BASE64.encode(value.to_string())
}

fn token(key: &Key, header: &Value, claims: &Map<String, Value>) -> String {
    let message = format!("{}.{}", part(header), part(&Value::Object(claims.clone())));
    let signature = key.sign(header["alg"].as_str().unwrap_or(""), message.as_bytes());
    format!("{message}.{}", BASE64.encode(signature))
}

fn header(algorithm: &str, id: &str) -> Value {
    json!({ "alg": algorithm, "kid": id, "typ": "JWT" })
}

#[tokio::test]
async fn tokens_of_every_accepted_algorithm_name_their_principal() {
    let (rsa, p256, ed25519) = (Key::rsa(), Key::p256(), Key::ed25519());
    let mut keys = vec![rsa.jwk("r"), p256.jwk("p"), ed25519.jwk("e")];
    // Kinds that are not known stand beside the others.
    keys.push(json!({ "kty": "AKP", "kid": "q", "alg": "ML-DSA-65", "pub": "AA" }));
    keys.push(json!("nonsense"));
    let issuer = Issuer::start(keys).await;
    let guarded = issuer.guarded().await;
    for (key, algorithm, id) in [
        (&rsa, "RS256", "r"),
        (&rsa, "PS256", "r"),
        (&p256, "ES256", "p"),
        (&ed25519, "EdDSA", "e"),
    ] {
        let token = token(key, &header(algorithm, id), &issuer.claims());
        let answer = guarded.ask(&token, "GET", "/v1/auth/me", "").await;
        assert_eq!(
            answer.status,
            200,
            "{algorithm}: {:?}",
            guarded.audit().last()
        );
        let me = answer.json();
        assert_eq!(me["name"], "ada@example.org");
        assert_eq!(me["id"], format!("oidc:{}#ada", issuer.url));
        assert_eq!(
            me["grants"],
            json!([{ "role": "reader", "repository": "demo" }])
        );
        assert_eq!(guarded.status(&token, "GET", MAIN, "").await, 200);
        assert_eq!(
            guarded
                .status(&token, "PUT", &format!("{MAIN}/nodes/new"), "{}")
                .await,
            403
        );
    }
    assert_eq!(issuer.fetched.load(Ordering::Relaxed), 1);
    // An API key still is one.
    assert_eq!(guarded.status(&guarded.admin, "GET", MAIN, "").await, 200);
    let mut ops = issuer.claims();
    ops.insert("groups".into(), json!(["ops"]));
    let ops = token(&rsa, &header("RS256", "r"), &ops);
    let made = guarded
        .ask(&ops, "PUT", &format!("{MAIN}/nodes/new"), "{}")
        .await;
    assert_eq!(made.status, 200, "{:?}", made.body);
    assert_eq!(
        guarded.ask(&ops, "GET", MAIN, "").await.json()["author"],
        "ada@example.org"
    );
}

#[tokio::test]
async fn tokens_that_do_not_hold_are_refused_and_told_of() {
    let (rsa, p256) = (Key::rsa(), Key::p256());
    let jwk = rsa.jwk("r");
    let encryption =
        json!({ "kty": "RSA", "kid": "enc", "use": "enc", "n": jwk["n"], "e": jwk["e"] });
    let issuer = Issuer::start(vec![jwk.clone(), p256.jwk("p"), encryption]).await;
    let guarded = issuer.guarded().await;
    let claims = issuer.claims();
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        match value {
            Value::Null => claims.remove(name),
            value => claims.insert(name.into(), value),
        };
        token(&rsa, &header("RS256", "r"), &claims)
    };
    let good = token(&rsa, &header("RS256", "r"), &claims);
    assert_eq!(guarded.status(&good, "GET", MAIN, "").await, 200);
    let none = |algorithm: &str| {
        format!(
            "{}.{}.",
            part(&header(algorithm, "r")),
            part(&Value::Object(claims.clone()))
        )
    };
    // The public key as the secret of an HMAC.
    let confused = |secret: &[u8]| {
        let message = format!(
            "{}.{}",
            part(&header("HS256", "r")),
            part(&Value::Object(claims.clone()))
        );
        let signature = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, secret),
            message.as_bytes(),
        );
        format!("{message}.{}", BASE64.encode(signature.as_ref()))
    };
    let modulus = BASE64.decode(jwk["n"].as_str().unwrap()).unwrap();
    let mut forged: Vec<&str> = good.split('.').collect();
    let other = part(
        &json!({ "iss": issuer.url, "aud": "quarr", "sub": "eve", "exp": now() + 600, "groups": ["ops"] }),
    );
    forged[1] = &other;
    let (forged, long) = (forged.join("."), format!("{good}{}", "A".repeat(20_000)));
    let critical = json!({ "alg": "RS256", "kid": "r", "crit": ["b64"], "b64": false });
    for (token, reason) in [
        (none("none"), "algorithm"),
        (none("None"), "algorithm"),
        (none("RS256"), "signature"),
        (confused(&modulus), "algorithm"),
        (confused(jwk["n"].as_str().unwrap().as_bytes()), "algorithm"),
        (confused(b""), "algorithm"),
        (token(&rsa, &header("RS512", "r"), &claims), "algorithm"),
        // A key of another type than the algorithm's, or for something else.
        (token(&rsa, &header("RS256", "p"), &claims), "unknown-key"),
        (token(&p256, &header("ES256", "r"), &claims), "unknown-key"),
        (token(&rsa, &header("RS256", "enc"), &claims), "unknown-key"),
        (
            token(&Key::p256(), &header("ES256", "p"), &claims),
            "signature",
        ),
        (token(&rsa, &critical, &claims), "malformed"),
        (forged, "signature"),
        (with("exp", json!(now() - 60)), "expired"),
        (with("exp", Value::Null), "claims"),
        (with("exp", json!("9999999999")), "claims"),
        (with("nbf", json!(now() + 600)), "not-yet-valid"),
        (with("nbf", json!("soon")), "claims"),
        (with("aud", json!("other")), "audience"),
        (with("aud", json!(["other", "quarr2"])), "audience"),
        (with("aud", Value::Null), "claims"),
        (with("iss", json!("https://evil.example")), "issuer"),
        (with("iss", json!(format!("{}/", issuer.url))), "issuer"),
        (with("iss", Value::Null), "claims"),
        (with("sub", Value::Null), "claims"),
        (with("sub", json!("a\nb")), "claims"),
        (good.replace('.', ".."), "malformed"),
        (good.replacen('.', "", 1), "malformed"),
        (format!("{good}."), "malformed"),
        (long, "malformed"),
    ] {
        let answer = guarded.ask(&token, "GET", MAIN, "").await;
        assert_eq!(answer.status, 401, "{reason}");
        guarded.assert_denied(reason, &token);
        let line = guarded.audit().pop().unwrap().to_string();
        assert!(!line.contains(&token[..20.min(token.len())]), "{line}");
    }
    // Clocks may differ a little, and one of several audiences is enough.
    for token in [
        with("exp", json!(now() - 5)),
        with("nbf", json!(now() + 5)),
        with("aud", json!(["other", "quarr-test"])),
    ] {
        assert_eq!(
            guarded.status(&token, "GET", MAIN, "").await,
            200,
            "{:?}",
            guarded.audit().last()
        );
    }
    let nothing = with("groups", json!([]));
    assert_eq!(guarded.status(&nothing, "GET", MAIN, "").await, 404);
    assert_eq!(guarded.status(&nothing, "GET", "/v1/repos", "").await, 403);
}

#[tokio::test]
async fn keys_that_an_issuer_has_rotated_are_fetched_once() {
    let (old, new) = (Key::p256(), Key::p256());
    let issuer = Issuer::start(vec![old.jwk("old")]).await;
    let guarded = issuer.guarded().await;
    let of = |key: &Key, id: &str| token(key, &header("ES256", id), &issuer.claims());
    assert_eq!(guarded.status(&of(&old, "old"), "GET", MAIN, "").await, 200);
    *issuer.keys.lock().unwrap() = vec![new.jwk("new")];
    assert_eq!(guarded.status(&of(&new, "new"), "GET", MAIN, "").await, 200);
    assert_eq!(guarded.status(&of(&old, "old"), "GET", MAIN, "").await, 401);
    assert_eq!(issuer.fetched.load(Ordering::Relaxed), 2);
    // Whoever makes up ids has the issuer asked no more than once in a while.
    for id in ["a", "b", "c", ""] {
        assert_eq!(guarded.status(&of(&new, id), "GET", MAIN, "").await, 401);
    }
    assert_eq!(issuer.fetched.load(Ordering::Relaxed), 2);
    // A token that names no key is tried with those that fit.
    let unnamed = token(&new, &json!({ "alg": "ES256" }), &issuer.claims());
    assert_eq!(guarded.status(&unnamed, "GET", MAIN, "").await, 200);
}

#[tokio::test]
async fn an_issuer_that_is_away_is_no_reason_to_let_anyone_in() {
    let issuer = Issuer {
        // Nobody listens there.
        url: "http://127.0.0.1:9/realm".into(),
        keys: Arc::default(),
        fetched: Arc::default(),
    };
    let guarded = issuer.guarded().await;
    let token = token(&Key::p256(), &header("ES256", "p"), &issuer.claims());
    let answer = guarded.ask(&token, "GET", MAIN, "").await;
    assert_eq!(answer.status, 503);
    assert_eq!(guarded.status(&guarded.admin, "GET", MAIN, "").await, 200);
}
