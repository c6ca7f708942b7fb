//! Bodies of requests: taken in within limits, and read as the Go of fleet 1.0 read them.

use std::fmt;

use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use fleet_core::transfer::MAX_IMPORT_BYTES;
use fleet_core::wire;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor,
};
use serde_json::{Map, Value};

use super::Api;
use super::error::ApiError;
use super::guests::Source;

/// How many values a body may hold. Each takes 100 bytes of memory or so, and may be two bytes of
/// JSON. The largest import of real units holds some 200,000.
const MAX_VALUES: usize = 1_000_000;

/// Reads the whole body before its handler runs: within its limit, within a time that a slow
/// sender cannot stretch, and within what all bodies together may take.
pub(super) async fn take_in(
    State(api): State<Api>,
    source: Source,
    request: Request,
    next: Next,
) -> Response {
    if ![Method::PUT, Method::POST, Method::PATCH].contains(request.method()) {
        return next.run(request).await;
    }
    let is_import = is_import(request.uri().path());
    // Not JSON: the bytes of a file.
    let is_file = request.uri().path().contains("/blobs/");
    let limit = if is_import { MAX_IMPORT_BYTES } else { wire::MAX_BODY_BYTES };
    let (parts, body) = request.into_parts();
    // One that does not say how long it is may become as long as it may.
    let length = body
        .size_hint()
        .exact()
        .map_or(limit, |length| usize::try_from(length).unwrap_or(usize::MAX));
    if length > limit {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    }
    let _room = match api.shared.budgets.body(source, length, is_import) {
        Ok(room) => room,
        Err(refusal) => return ApiError::from(refusal).into_response(),
    };
    let time = api.shared.limits.body_time(length);
    match tokio::time::timeout(time, to_bytes(body, limit)).await {
        Ok(Ok(body)) if !is_file && values(&body) > MAX_VALUES => {
            let message = format!("the request holds more than {MAX_VALUES} JSON values");
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message).into_response()
        }
        Ok(Ok(body)) => next.run(Request::from_parts(parts, Body::from(body))).await,
        Ok(Err(error)) if is_over_limit(&error) => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        Ok(Err(error)) => ApiError::invalid(format!("the body broke off: {error}")).into_response(),
        Err(_) => {
            let message = format!("the body did not arrive within {} s", time.as_secs());
            ApiError::new(StatusCode::REQUEST_TIMEOUT, message).into_response()
        }
    }
}

/// Whether it is the path of `/import` under one of the prefixes, and not something of that name.
pub(super) fn is_import(path: &str) -> bool {
    path.rsplit_once('/').is_some_and(|(prefix, last)| {
        last == "import" && (prefix.ends_with("/v1") || prefix.ends_with("/v1-alpha"))
    })
}

/// How many values a JSON text holds at most: each but the first stands behind one of these.
fn values(body: &[u8]) -> usize {
    let (mut values, mut in_text, mut escaped) = (1, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_text,
            b'"' => in_text = !in_text,
            b',' | b'[' | b'{' if !in_text => values += 1,
            _ => {}
        }
    }
    values
}

fn is_over_limit(error: &axum::Error) -> bool {
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = next {
        if error.to_string() == "length limit exceeded" {
            return true;
        }
        next = error.source();
    }
    false
}

/// Reads a body of ours.
pub(super) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    // serde also reads a struct from an array, field by field: `[]` would be a unit with nothing in
    // it.
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(ApiError::invalid(
            "unable to decode body: expected a JSON object, not an array",
        ));
    }
    serde_json::from_slice(body).map_err(|error| undecodable(body, &error))
}

/// Reads a body that fleet 1.0 took, as it did: of these names the keys may be in any case, the
/// last of several counts, and `null` is as if nothing had been said.
pub(super) fn decode_as_go<T: DeserializeOwned>(
    body: &[u8],
    names: &'static [&'static str],
) -> Result<T, ApiError> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let read = Folded(names).deserialize(&mut deserializer).and_then(|value| {
        deserializer.end()?;
        let value = if value.is_null() { Value::Object(Map::new()) } else { value };
        if value.is_array() {
            return Err(Error::custom("expected a JSON object, not an array"));
        }
        serde_json::from_value(value)
    });
    read.map_err(|error| undecodable(body, &error))
}

/// What [`decode_as_go`] makes of a body, before it is anything.
pub(super) fn value_as_go(
    body: &[u8],
    names: &'static [&'static str],
) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = Folded(names).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

fn undecodable(body: &[u8], error: &serde_json::Error) -> ApiError {
    let problem = match error.is_eof() {
        true if body.is_empty() => "EOF".to_string(), // Go's word for nothing at all
        true => "unexpected EOF".to_string(),
        false => error.to_string(),
    };
    ApiError::invalid(format!("unable to decode body: {problem}"))
}

/// Reads a JSON value whose keys become these names where they differ in case alone. What is
/// `null` in an object is left out.
#[derive(Clone, Copy)]
struct Folded(&'static [&'static str]);

impl Folded {
    fn key(self, key: String) -> String {
        let named = self.0.iter().find(|name| name.eq_ignore_ascii_case(&key));
        named.map_or(key, |name| (*name).to_string())
    }
}

impl<'de> DeserializeSeed<'de> for Folded {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Folded {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            // All lists that fleet 1.0 took are of objects.
            all.push(if item.is_null() { Value::Object(Map::new()) } else { item });
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(self)?;
            if !value.is_null() {
                all.insert(self.key(key), value);
            }
        }
        Ok(Value::Object(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(body: &str) -> wire::Unit {
        decode_as_go(body.as_bytes(), wire::Unit::KEYS)
            .unwrap_or_else(|error| panic!("{body}: {}", error.message()))
    }

    #[test]
    fn keys_in_any_case_and_null_for_nothing_are_read_as_go_reads_them() {
        let expected = unit(
            r#"{"desiredState":"launched","options":[{"section":"Service","name":"ExecStart","value":"/x"}]}"#,
        );
        for body in [
            r#"{"DesiredState":"launched","Options":[{"Section":"Service","NAME":"ExecStart","Value":"/x"}]}"#,
            r#"{"desiredstate":"launched","options":[{"section":"Service","name":"ExecStart","value":"/x"}],"name":null}"#,
            r#"{"desiredState":"inactive","DESIREDSTATE":"launched","replicas":null,"text":null,"machineID":null,
                "options":[{"section":"Service","name":"ExecStart","value":"/y","Value":"/x"}]}"#,
        ] {
            assert_eq!(unit(body), expected, "{body}");
        }
        for body in ["null", "{}", r#"{"options":null,"desiredState":null}"#] {
            assert_eq!(unit(body), wire::Unit::default(), "{body}");
        }
    }

    #[test]
    fn what_an_option_leaves_out_is_empty() {
        let unit =
            unit(r#"{"options":[{"section":"Service","name":"ExecStart"},{"value":null},null]}"#);
        let seen: Vec<[&str; 3]> =
            unit.options.iter().map(|o| [&*o.section, &*o.name, &*o.value]).collect();
        assert_eq!(seen, [["Service", "ExecStart", ""], ["", "", ""], ["", "", ""]]);
    }

    #[test]
    fn every_field_of_a_unit_is_among_the_keys_that_are_read_in_any_case() {
        let option = fleet_core::unit::file::UnitOption {
            name: "x".into(),
            section: "x".into(),
            value: "x".into(),
        };
        let full = wire::Unit {
            current_state: "x".into(),
            desired_state: "x".into(),
            machine_id: "x".into(),
            name: "x".into(),
            options: vec![option],
            text: Some("x".into()),
            replicas: Some(1),
            hash: "x".into(),
            revision: Some(1),
            template: "x".into(),
            why: None,
            global: true,
            running: Some(1),
            wanted: Some(1),
        };
        let written = serde_json::to_value(full).unwrap();
        let options = written["options"][0].as_object().unwrap();
        for key in written.as_object().unwrap().keys().chain(options.keys()) {
            assert!(wire::Unit::KEYS.contains(&key.as_str()), "{key}");
        }
    }

    #[test]
    fn values_are_counted_and_what_stands_in_a_text_is_not() {
        for (body, expected) in [
            ("", 1),
            ("0", 1),
            (r#"{"text":"a,b[{\"c,"}"#, 2),
            ("[0,0,[],{}]", 7),
            (r#"{"a\\":1,"b":[2,3]}"#, 5),
        ] {
            assert_eq!(values(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn what_is_no_json_is_refused_in_gos_words() {
        let refusal = |body: &str| {
            decode_as_go::<wire::Unit>(body.as_bytes(), wire::Unit::KEYS)
                .unwrap_err()
                .message()
                .to_string()
        };
        assert_eq!(refusal(""), "unable to decode body: EOF");
        assert_eq!(refusal("{"), "unable to decode body: unexpected EOF");
        assert!(refusal("[]").contains("not an array"));
        assert!(refusal(r#"{"name":1}"#).contains("invalid type"));
        assert!(refusal("{} {}").contains("trailing"));
    }
}
