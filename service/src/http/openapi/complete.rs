//! What all routes have in common, added to the generated document, so that no route has to say it.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

/// Examples of requests and answers: by method and path, then `request` or a status.
const EXAMPLES: &str = include_str!("examples.json");

/// Parameters of paths: name, description, pattern.
const PATH_PARAMETERS: [(&str, &str, &str); 10] = [
    (
        "repository",
        "The repository.",
        "^[a-z0-9][a-z0-9._-]{0,62}$",
    ),
    (
        "reference",
        "A branch, a tag, a commit id or a prefix of one of at least 8 digits, `x~n` or `x@time`.",
        "",
    ),
    (
        "name",
        "The branch or tag: not hexadecimal digits alone.",
        BRANCH,
    ),
    ("path", "The node, its names separated by `/`.", ""),
    ("key", "A key of the Zarr store.", ""),
    ("from", "The earlier commit, as `reference`.", ""),
    ("to", "The later commit, as `reference`.", ""),
    ("sequence", "The number of the entry.", ""),
    (
        "tile",
        "`checkpoint`, or a tile as C2SP tlog-tiles names it.",
        "",
    ),
    ("id", "What the service called it.", ""),
];

const BRANCH: &str = "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$";
const UUID: &str = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$";
const TRANSACTION: &str = "^[a-z0-9][a-z0-9._-]{0,62}:[0-9a-f]{32}$";

/// A header of writes: name, description, pattern of what it may be beside `*`, and whether it may be `*`.
type Header = (&'static str, &'static str, Option<&'static str>, bool);

const IDEMPOTENCY_KEY: Header = (
    "Idempotency-Key",
    "A request with the same key takes effect once.",
    Some("^[!#-~]{1,255}$"),
    false,
);
const IF_MATCH: Header = (
    "If-Match",
    "The commit the branch has to be at, in quotes.",
    Some(r#"^"[0-9a-f]{64}"$"#),
    true,
);
const IF_NONE_MATCH: Header = (
    "If-None-Match",
    "`*`: only if nothing is there.",
    None,
    true,
);

/// Statuses that any route may answer with, those with parameters in their path, those that take a
/// body, and those that read values, which may lie in files that are not Quarr's.
const ANYWHERE: [u16; 7] = [400, 414, 421, 431, 500, 503, 504];
const WHERE_NAMED: [u16; 1] = [404];
const WITH_BODY: [u16; 3] = [408, 413, 415];
const OF_VALUES: [u16; 1] = [502];
const IN_TRANSACTIONS: [u16; 1] = [409];

/// Completes the document.
///
/// # Panics
/// If an example is of no operation: the examples are part of the program.
pub(super) fn complete(mut document: Value) -> Value {
    let mut examples: Map<String, Value> = serde_json::from_str(EXAMPLES).unwrap_or_default();
    let paths = document["paths"].as_object_mut();
    for (path, operations) in paths.into_iter().flatten() {
        for (method, operation) in operations.as_object_mut().into_iter().flatten() {
            let name = format!("{} {path}", method.to_uppercase());
            name_operation(method, operation);
            let is_write = matches!(method.as_str(), "put" | "post" | "delete")
                && !["/points/", "/nearest/"]
                    .iter()
                    .any(|part| path.contains(part))
                && !path.starts_with("/v1/auth/");
            leave_out_null(operation);
            name_bytes(operation.get_mut("requestBody"));
            describe_parameters(path, is_write, operation);
            if path.starts_with("/v1/") {
                add_statuses(path, operation);
            }
            if is_write {
                add_conditions(method, path, operation);
            }
            let mut examples = examples.remove(&name).unwrap_or_default();
            complete_responses(operation, &mut examples);
            if let Some(example) = examples.get_mut("request") {
                let body = &mut operation["requestBody"]["content"]["application/json"];
                body["example"] = example.take();
            }
        }
    }
    assert!(
        examples.is_empty(),
        "examples of no operation: {examples:?}"
    );
    flatten_schemas(&mut document);
    document
}

/// Makes one object of schemas that are several: each alone would refuse the members of the others.
fn flatten_schemas(document: &mut Value) {
    let Some(schemas) = document["components"]["schemas"].as_object_mut() else {
        return;
    };
    let named = schemas.clone();
    for schema in schemas.values_mut() {
        flatten(schema, &named);
        let choices = schema.get_mut("oneOf").and_then(Value::as_array_mut);
        for choice in choices.into_iter().flatten() {
            flatten(choice, &named);
        }
    }
}

fn flatten(schema: &mut Value, named: &Map<String, Value>) {
    let parts = schema.as_object_mut().and_then(|own| own.remove("allOf"));
    let Some(Value::Array(parts)) = parts else {
        return;
    };
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for part in &parts {
        let name = part["$ref"].as_str();
        let name = name.and_then(|link| link.rsplit('/').next());
        let part = name.and_then(|name| named.get(name)).unwrap_or(part);
        properties.extend(part["properties"].as_object().cloned().unwrap_or_default());
        required.extend(part["required"].as_array().cloned().unwrap_or_default());
    }
    schema["type"] = json!("object");
    schema["properties"] = Value::Object(properties);
    schema["required"] = Value::Array(required);
    schema["additionalProperties"] = json!(false);
}

/// Ids are names of handlers, which are unique in their module, which is the tag.
fn name_operation(method: &str, operation: &mut Value) {
    let tag = operation["tags"][0].as_str().unwrap_or_default();
    let handler = operation["operationId"].as_str().unwrap_or_default();
    let suffix = if method == "head" { "_head" } else { "" };
    operation["operationId"] = json!(format!("{tag}_{handler}{suffix}"));
}

fn parameters(operation: &mut Value) -> impl Iterator<Item = &mut Value> {
    let parameters = operation.get_mut("parameters");
    parameters
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

/// What is optional is left out: no parameter and no body is null.
fn leave_out_null(operation: &mut Value) {
    for parameter in parameters(operation) {
        not_null(&mut parameter["schema"]);
    }
    let bodies = operation
        .get_mut("requestBody")
        .and_then(|body| body.get_mut("content"))
        .and_then(Value::as_object_mut);
    for body in bodies.into_iter().flat_map(Map::values_mut) {
        if let Some(schema) = body.get_mut("schema") {
            not_null(schema);
        }
    }
}

/// Bytes are no list of numbers, which is what the generator takes them for.
fn name_bytes(message: Option<&mut Value>) {
    let content = message.and_then(|message| message.get_mut("content"));
    let content = content.and_then(Value::as_object_mut);
    for (kind, body) in content.into_iter().flatten() {
        if !kind.contains("json") && body["schema"]["type"] == "array" {
            body["schema"] = json!({ "type": "string", "format": "binary" });
        }
    }
}

fn not_null(schema: &mut Value) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [one] = types.as_mut_slice() {
            schema["type"] = one.take();
        }
    }
    if let Some(Value::Array(choices)) = schema.get_mut("oneOf") {
        choices.retain(|choice| choice["type"] != "null");
        if let [one] = choices.as_mut_slice() {
            let one = one.take();
            if let Some(own) = schema.as_object_mut() {
                own.remove("oneOf");
                own.extend(one.as_object().cloned().unwrap_or_default());
            }
        }
    }
}

fn describe_parameters(path: &str, is_write: bool, operation: &mut Value) {
    for parameter in parameters(operation) {
        let known = PATH_PARAMETERS
            .iter()
            .find(|(name, ..)| parameter["in"] == "path" && parameter["name"] == *name);
        let Some((name, description, pattern)) = known else {
            continue;
        };
        let description = match *name {
            "key" if path.starts_with("/v1/auth/") => "The id or the name of the API key.",
            _ => description,
        };
        if parameter["description"].is_null() {
            parameter["description"] = json!(description);
        }
        let pattern = match *name {
            "id" if path.starts_with("/v1/transactions/") => TRANSACTION,
            "id" => UUID,
            "reference" if is_write => BRANCH,
            _ => pattern,
        };
        if !pattern.is_empty() {
            parameter["schema"]["pattern"] = json!(pattern);
        }
    }
}

fn add_statuses(path: &str, operation: &mut Value) {
    let named = WHERE_NAMED.iter().filter(|_| path.contains('{'));
    // A transaction that is closed takes nothing and shows nothing.
    let staged = path.starts_with("/v1/transactions/{id}/");
    let staged = IN_TRANSACTIONS.iter().filter(|_| staged);
    let takes_body = !operation["requestBody"].is_null();
    let bodies = WITH_BODY.iter().filter(|_| takes_body);
    let reads_values = [
        "/data/",
        "/reduce/",
        "/points/",
        "/nearest/",
        "/product/",
        "/zarr/",
    ];
    let reads_values = reads_values.iter().any(|part| path.contains(part));
    let values = OF_VALUES.iter().filter(|_| reads_values);
    for status in ANYWHERE
        .iter()
        .chain(named)
        .chain(staged)
        .chain(bodies)
        .chain(values)
    {
        let responses = &mut operation["responses"];
        if responses[status.to_string()].is_null() {
            responses[status.to_string()] = problem();
        }
    }
}

/// The headers that make a write happen once, or only where the client last looked.
fn add_conditions(method: &str, path: &str, operation: &mut Value) {
    let branch_moves = path.contains("/refs/")
        || ["/merge", "/reset", "/revert", "/cherry-pick", "/commit"]
            .iter()
            .any(|end| path.ends_with(end));
    let creates = method == "put" && (path.contains("/nodes") || path.contains("/zarr/"));
    let wanted = [
        Some(IDEMPOTENCY_KEY),
        branch_moves.then_some(IF_MATCH),
        creates.then_some(IF_NONE_MATCH),
    ];
    let mut all: Vec<Value> = parameters(operation).map(Value::take).collect();
    for (name, description, pattern, may_be_any) in wanted.into_iter().flatten() {
        let pattern = pattern.map(|pattern| json!({ "type": "string", "pattern": pattern }));
        let any = may_be_any.then(|| json!({ "type": "string", "enum": ["*"] }));
        let schema = match (pattern, any) {
            (Some(pattern), Some(any)) => json!({ "anyOf": [any, pattern] }),
            (pattern, any) => json!(pattern.or(any)),
        };
        all.push(json!({
            "name": name,
            "in": "header",
            "description": description,
            "required": false,
            "schema": schema,
        }));
    }
    operation["parameters"] = Value::Array(all);
    let condition = (branch_moves || creates).then_some("412");
    for status in ["422"].into_iter().chain(condition) {
        if operation["responses"][status].is_null() {
            operation["responses"][status] = problem();
        }
    }
}

fn problem() -> Value {
    json!({ "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Problem" } } } })
}

fn complete_responses(operation: &mut Value, examples: &mut Value) {
    let responses = operation["responses"].as_object_mut();
    for (status, response) in responses.into_iter().flatten() {
        if response["description"].is_null() {
            response["description"] = json!(reason(status));
        }
        let is_problem = status.as_str() >= "400";
        if is_problem
            && let Some(content) = response["content"].as_object_mut()
            && let Some(body) = content.remove("application/json")
        {
            // RFC 9457.
            content.insert("application/problem+json".into(), body);
        }
        name_bytes(Some(response));
        if let Some(example) = examples.get_mut(status.as_str()) {
            response["content"]["application/json"]["example"] = example.take();
        }
    }
}

/// What a status means, in the words of RFC 9110.
fn reason(status: &str) -> &'static str {
    let status = status.parse().ok();
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    status
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Answer")
}
