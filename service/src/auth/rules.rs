//! Which claims of a JWT give which grants.

use std::str::FromStr;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::access::Grant;

/// `claim=value[,claim=value…]:role[:repository[:prefix]]`: a token with all these claims has this
/// grant.
///
/// A claim that is a list has each of its values; `scope` and `scp` are lists of words. A name with
/// dots that no claim has is a path: `realm_access.roles`. The value `*` is any. `:`, `,`, `=` and `%`
/// of names and values are percent-encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    conditions: Vec<(String, String)>,
    grant: Grant,
}

impl Rule {
    /// Whether it is about tokens of one issuer alone.
    pub fn names_issuer(&self) -> bool {
        let is_issuer = |(claim, value): &(String, String)| claim == "iss" && value != "*";
        self.conditions.iter().any(is_issuer)
    }

    /// The grant, if the claims fulfil the conditions.
    pub fn grant(&self, claims: &Map<String, Value>) -> Option<&Grant> {
        let holds = |(claim, value): &(String, String)| has(claims, claim, value);
        self.conditions.iter().all(holds).then_some(&self.grant)
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("{text:?} is no claim=value:role[:repository[:prefix]]");
        let (conditions, grant) = text.split_once(':').ok_or_else(form)?;
        let decode = |text: &str| {
            let decoded = percent_decode_str(text).decode_utf8();
            decoded.map(String::from).map_err(|_| form())
        };
        let condition = |text: &str| {
            let (claim, value) = text.split_once('=').ok_or_else(form)?;
            if claim.is_empty() || value.is_empty() {
                return Err(form());
            }
            Ok((decode(claim)?, decode(value)?))
        };
        let conditions = conditions.split(',').map(condition);
        Ok(Self {
            conditions: conditions.collect::<Result<_, _>>()?,
            grant: grant.parse()?,
        })
    }
}

fn has(claims: &Map<String, Value>, claim: &str, value: &str) -> bool {
    let found = claims.get(claim).or_else(|| {
        let mut names = claim.split('.');
        let first = claims.get(names.next()?)?;
        names.try_fold(first, |found, name| found.get(name))
    });
    let is_words = matches!(claim, "scope" | "scp");
    match found {
        Some(Value::Array(values)) => values.iter().any(|found| is(found, value, false)),
        Some(found) => is(found, value, is_words),
        None => false,
    }
}

fn is(found: &Value, value: &str, is_words: bool) -> bool {
    match found {
        Value::Null | Value::Array(_) | Value::Object(_) => false,
        _ if value == "*" => true,
        Value::String(text) if is_words => text.split(' ').any(|word| word == value),
        Value::String(text) => text == value,
        Value::Bool(found) => found.then_some("true").unwrap_or("false") == value,
        Value::Number(number) => number.to_string().as_str() == value,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims() -> Map<String, Value> {
        let claims = json!({
            "iss": "https://login.example", "sub": "ada", "groups": ["staff", "a:b"], "scope": "openid data",
            "level": 3, "verified": true, "realm_access": { "roles": ["ops"] }, "a.b": "flat", "a": { "b": "deep" },
        });
        claims.as_object().unwrap().clone()
    }

    #[test]
    fn claims_are_matched_whole() {
        for (rule, holds) in [
            ("groups=staff:reader", true),
            ("groups=staf:reader", false),
            ("groups=Staff:reader", false),
            ("groups=a%3Ab:reader", true),
            ("scope=data:reader", true),
            ("scope=dat:reader", false),
            ("sub=*:reader", true),
            ("missing=*:reader", false),
            ("level=3:reader", true),
            ("verified=true:reader", true),
            ("realm_access.roles=ops:reader", true),
            ("realm_access=*:reader", false),
            ("a.b=flat:reader", true),
            ("a.b=deep:reader", false),
            ("groups=staff,sub=ada:reader", true),
            ("groups=staff,sub=bob:reader", false),
        ] {
            let parsed: Rule = rule.parse().unwrap();
            assert_eq!(parsed.grant(&claims()).is_some(), holds, "{rule}");
        }
        let issuer: Rule = "iss=https%3A//login.example:writer:demo:/a"
            .parse()
            .unwrap();
        assert!(issuer.names_issuer());
        assert_eq!(
            issuer.grant(&claims()),
            Some(&"writer:demo:a".parse().unwrap())
        );
    }

    #[test]
    fn rules_that_mean_nothing_are_refused() {
        for wrong in [
            "",
            "groups=staff",
            "staff:reader",
            "=x:reader",
            "groups=:reader",
            "groups=staff:owner",
            "groups=a:b:reader",
        ] {
            assert!(wrong.parse::<Rule>().is_err(), "{wrong}");
        }
    }
}
