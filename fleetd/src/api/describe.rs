//! A route and what it says of itself: its parameters, bodies and answers. Handlers can be
//! registered in no other way, so the documents made of this (`openapi`, `discovery`) name every
//! route that there is.

use axum::extract::Request;
use axum::handler::Handler;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{MethodFilter, MethodRouter};
use fleet_core::wire;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::Api;
use super::error::ApiError;

/// Answer headers of writes.
pub(super) const WRITTEN: &[(&str, &str)] = &[
    (
        wire::REVISION_HEADER,
        "The store's revision of this write: a follow from there misses nothing.",
    ),
    (
        wire::WARNING_HEADER,
        "One warning a value, as `line N: …`; may be absent, may come several times.",
    ),
];

/// One path with the methods that it takes.
pub(super) struct Resource {
    pub(super) path: &'static str,
    pub(super) operations: Vec<Operation>,
    methods: MethodRouter<Api>,
    refusal: Option<(StatusCode, &'static str)>,
}

/// One method on one path, in words and schemas.
pub(super) struct Operation {
    /// `GET`.
    pub(super) method: Method,
    /// Names it in generated clients: `setUnit`.
    pub(super) id: &'static str,
    /// One sentence.
    pub(super) summary: &'static str,
    /// What follows the `?`.
    pub(super) query: Vec<Parameter>,
    /// The body that it takes.
    pub(super) takes: Option<SchemaOf>,
    /// Whether it takes bytes, and no JSON.
    pub(super) takes_bytes: bool,
    /// A body that it takes, for people and for programs that try it.
    pub(super) example: Option<Value>,
    /// What it answers when all is well, and refusals in a form of its own.
    pub(super) answers: Vec<Answer>,
    /// The statuses of its errors.
    pub(super) errors: Vec<StatusCode>,
    /// Its resource and method in fleet 1.0's discovery document.
    pub(super) discovery: Option<(&'static str, &'static str)>,
}

/// A good answer, or a refusal in a form of its own.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) says: &'static str,
    pub(super) body: Body,
    /// Header names, each with what it says.
    pub(super) headers: &'static [(&'static str, &'static str)],
}

/// What stands in an answer.
pub(super) enum Body {
    None,
    Json(SchemaOf),
    /// Something else, of this media type.
    Other(&'static str),
}

/// Gives the schema of a type, and leaves it with the generator.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// A parameter of the query.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) says: &'static str,
    pub(super) schema: Value,
    pub(super) required: bool,
}

impl Resource {
    /// Nothing at `path` yet.
    pub(super) fn at(path: &'static str) -> Resource {
        Resource { path, operations: Vec::new(), methods: MethodRouter::new(), refusal: None }
    }

    /// `GET`, and with it `HEAD`, which fleet 1.0 refused: its own clients never send it, and
    /// proxies and health checks expect it.
    pub(super) fn get<H: Handler<T, Api>, T: 'static>(
        self,
        handler: H,
        says: Operation,
    ) -> Resource {
        self.on(MethodFilter::GET, Method::GET, handler, says)
    }

    /// `PUT`.
    pub(super) fn put<H: Handler<T, Api>, T: 'static>(
        self,
        handler: H,
        says: Operation,
    ) -> Resource {
        self.on(MethodFilter::PUT, Method::PUT, handler, says)
    }

    /// `POST`.
    pub(super) fn post<H: Handler<T, Api>, T: 'static>(
        self,
        handler: H,
        says: Operation,
    ) -> Resource {
        self.on(MethodFilter::POST, Method::POST, handler, says)
    }

    /// `PATCH`.
    pub(super) fn patch<H: Handler<T, Api>, T: 'static>(
        self,
        handler: H,
        says: Operation,
    ) -> Resource {
        self.on(MethodFilter::PATCH, Method::PATCH, handler, says)
    }

    /// `DELETE`.
    pub(super) fn delete<H: Handler<T, Api>, T: 'static>(
        self,
        handler: H,
        says: Operation,
    ) -> Resource {
        self.on(MethodFilter::DELETE, Method::DELETE, handler, says)
    }

    /// Answers other methods so, not with 405 and the list of those allowed.
    pub(super) fn refusing(self, status: StatusCode, message: &'static str) -> Resource {
        Resource { refusal: Some((status, message)), ..self }
    }

    fn on<H: Handler<T, Api>, T: 'static>(
        mut self,
        filter: MethodFilter,
        method: Method,
        handler: H,
        says: Operation,
    ) -> Resource {
        self.methods = self.methods.on(filter, handler);
        self.operations.push(Operation { method, ..says });
        self
    }

    /// The handlers; other methods are answered in fleet 1.0's words.
    pub(super) fn into_methods(self) -> MethodRouter<Api> {
        let names: Vec<&str> =
            self.operations.iter().map(|operation| operation.method.as_str()).collect();
        let (last, others) = names.split_last().expect("a route has a method");
        let listed = if others.is_empty() {
            last.to_string()
        } else {
            format!("{} and {last}", others.join(", "))
        };
        let (status, message) = match self.refusal {
            Some((status, message)) => (status, message.to_string()),
            None => (
                StatusCode::METHOD_NOT_ALLOWED,
                format!("only {listed} supported against this resource"),
            ),
        };
        // fleet 1.0's sentence stays as it was; the header is true.
        let allowed: Vec<&str> = names
            .iter()
            .flat_map(|name| [Some(*name), (*name == "GET").then_some("HEAD")])
            .flatten()
            .collect();
        let allow = HeaderValue::from_str(&allowed.join(", ")).expect("method names are plain");
        self.methods.fallback(move |_: Request| async move {
            let mut response = ApiError::new(status, message).into_response();
            response.headers_mut().insert(header::ALLOW, allow);
            response
        })
    }
}

impl Operation {
    /// An operation that may fail because the store is away, or because too many are asked for at
    /// once; say what else it answers.
    pub(super) fn new(id: &'static str, summary: &'static str) -> Operation {
        Operation {
            method: Method::GET,
            id,
            summary,
            query: Vec::new(),
            takes: None,
            takes_bytes: false,
            example: None,
            answers: Vec::new(),
            errors: vec![
                StatusCode::TOO_MANY_REQUESTS,
                StatusCode::INTERNAL_SERVER_ERROR,
                StatusCode::SERVICE_UNAVAILABLE,
            ],
            discovery: None,
        }
    }

    /// It never asks the store.
    pub(super) fn without_store(self) -> Operation {
        Operation { errors: Vec::new(), ..self }
    }

    /// It answers 200 with this JSON.
    pub(super) fn gives<T: JsonSchema>(self, says: &'static str) -> Operation {
        self.answers(StatusCode::OK, says, Body::Json(schema_of::<T>))
    }

    /// It may answer so.
    pub(super) fn answers(
        mut self,
        status: StatusCode,
        says: &'static str,
        body: Body,
    ) -> Operation {
        self.answers.push(Answer { status, says, body, headers: &[] });
        self
    }

    /// It refuses so in a form of its own. What fails before it is asked is told in fleet's.
    pub(super) fn refuses<T: JsonSchema>(self, status: u16, says: &'static str) -> Operation {
        let status = StatusCode::from_u16(status).expect("an HTTP status");
        self.answers(status, says, Body::Json(schema_of_either::<T, wire::ErrorBody>))
    }

    /// Headers of its good answers.
    pub(super) fn headers(mut self, headers: &'static [(&'static str, &'static str)]) -> Operation {
        for answer in &mut self.answers {
            answer.headers = headers;
        }
        self
    }

    /// It takes this as JSON.
    pub(super) fn takes<T: JsonSchema>(mut self) -> Operation {
        self.takes = Some(schema_of::<T>);
        self.errors([400, 408, 413, 429])
    }

    /// It takes bytes, whatever they are.
    pub(super) fn takes_bytes(self) -> Operation {
        Operation { takes_bytes: true, ..self }.errors([400, 408, 413, 429])
    }

    /// An example of what it takes.
    pub(super) fn example(self, body: Value) -> Operation {
        Operation { example: Some(body), ..self }
    }

    /// It may fail with these statuses.
    pub(super) fn errors<const N: usize>(mut self, statuses: [u16; N]) -> Operation {
        self.errors.extend(
            statuses.iter().map(|&status| StatusCode::from_u16(status).expect("an HTTP status")),
        );
        self.errors.sort();
        self.errors.dedup();
        self
    }

    /// A parameter of the query that is a text.
    pub(super) fn query(self, name: &'static str, says: &'static str) -> Operation {
        self.query_of(name, says, json!({"type": "string"}))
    }

    /// A parameter of the query with a schema of its own.
    pub(super) fn query_of(
        mut self,
        name: &'static str,
        says: &'static str,
        schema: Value,
    ) -> Operation {
        self.query.push(Parameter { name, says, schema, required: false });
        self
    }

    /// The last parameter must be given.
    pub(super) fn required(mut self) -> Operation {
        self.query.iter_mut().rev().take(1).for_each(|parameter| parameter.required = true);
        self
    }

    /// It stands in fleet 1.0's discovery document, as this method of this resource.
    pub(super) fn discovered_as(self, resource: &'static str, method: &'static str) -> Operation {
        Operation { discovery: Some((resource, method)), ..self }
    }
}

/// The schema of `T`, by reference where it has a name.
pub(super) fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// The schema of what is either.
fn schema_of_either<T: JsonSchema, U: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let either = [generator.subschema_for::<T>(), generator.subschema_for::<U>()];
    json_schema!({"anyOf": either})
}

/// The parameters that stand in a path, in order: `unitName` in `/units/{unitName}`.
pub(super) fn path_parameters(path: &str) -> impl Iterator<Item = &str> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names.map(|name| name.trim_start_matches('*'))
}

/// What `{unitName}` in a path is.
pub(super) const UNIT_NAME_SAYS: &str = "The unit's name, `web@3.service`.";
