//! Every route, with what it takes and gives. Under fleet 1.0's two prefixes are its v1 resources
//! and our additions.

use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::StatusCode;
use fleet_core::check::StoreCheck;
use fleet_core::{transfer, wire};
use serde_json::{Value, json};

use super::describe::{Body, Operation, Resource};
use super::{
    availability, debug, documents, events, fencing, follow, import, journal, machines, page,
    revisions, state, status, units,
};

/// Answer headers of writes.
const WRITTEN: &[(&str, &str)] = &[
    (
        wire::REVISION_HEADER,
        "The store's revision of this write: a follow from there misses nothing.",
    ),
    (
        wire::WARNING_HEADER,
        "One warning a value, as `line N: …`; may be absent, may come several times.",
    ),
];

/// The routes under `/fleet/v1` and `/v1-alpha`.
pub(super) fn under_prefix() -> Vec<Resource> {
    vec![
        Resource::at("/units").get(
            units::list,
            paged(Operation::new("listUnits", "The units, by name, replicas among them."))
                .query_of("brief", "Whether to leave out their \
                    options.", json!({"type": "boolean", "default": false}))
                .gives::<wire::UnitPage>("A page of units.")
                .discovered_as("Units", "List"),
        ),
        Resource::at("/units/{unitName}")
            .get(
                units::show,
                Operation::new("getUnit", "One unit, with its text.")
                    .gives::<wire::Unit>("The unit.")
                    .errors([400, 404])
                    .discovered_as("Units", "Get"),
            )
            .put(
                units::submit,
                Operation::new("setUnit", "Submits a unit, replaces its text, or changes its \
                    desired state.")
                    .takes::<wire::Unit>()
                    .example(json!({
                        "desiredState": "launched",
                        "options": [{"section": "Service", "name": "ExecStart", "value": "/bin/sleep infinity"}],
                    }))
                    .answers(StatusCode::CREATED, "It was created, or its text \
                        replaced.", Body::None)
                    .answers(StatusCode::NO_CONTENT, "Its desired state was set.", Body::None)
                    .headers(WRITTEN)
                    .errors([409, 415])
                    .discovered_as("Units", "Set"),
            )
            .delete(
                units::destroy,
                Operation::new("destroyUnit", "Takes a unit off its machines and forgets it.")
                    .answers(StatusCode::NO_CONTENT, "It was destroyed.", Body::None)
                    .headers(WRITTEN)
                    .errors([400, 404, 409])
                    .discovered_as("Units", "Delete"),
            ),
        Resource::at("/units/{unitName}/replicas").put(
            units::scale,
            Operation::new("scaleUnit", "Sets the wanted count of a template, and launches it if \
                it was inactive.")
                .takes::<wire::Scale>()
                .example(json!({"replicas": 5}))
                .gives::<wire::Scaled>("The count before, and now.")
                .headers(WRITTEN)
                .errors([404, 409, 415]),
        ),
        Resource::at("/units/{unitName}/restart").post(
            units::restart,
            Operation::new("restartUnit", "Restarts a launched unit wherever it runs.")
                .takes::<wire::Restart>()
                .example(json!({}))
                .answers(StatusCode::ACCEPTED, "It will be restarted.", Body::None)
                .headers(WRITTEN)
                .errors([404, 409, 415]),
        ),
        Resource::at("/units/{unitName}/revisions").get(
            revisions::list,
            Operation::new("listUnitRevisions", "The texts that a unit has had since it was \
                submitted, newest first.")
                .gives::<wire::RevisionPage>("The texts, by number and hash.")
                .errors([400, 404]),
        ),
        Resource::at("/units/{unitName}/rollback").post(
            revisions::rollback,
            Operation::new("rollbackUnit", "Gives a unit an earlier text again, as a new \
                revision; its desired state stays.")
                .takes::<wire::Rollback>()
                .example(json!({}))
                .gives::<wire::RolledBack>("The revisions before and now.")
                .headers(WRITTEN)
                .errors([404, 409, 415]),
        ),
        Resource::at("/units/{unitName}/status").get(
            status::status,
            Operation::new("getUnitStatus", "What `systemctl status` says, from the machines that \
                run the unit.")
                .query("machine", "The machine that is asked, as one fleetd asks another.")
                .answers(StatusCode::OK, "systemctl's \
                    words.", Body::Other("text/plain; \
                    charset=utf-8"))
                .headers(&[
                    (wire::EXIT_STATUS_HEADER, "systemctl's exit status; the highest where it was \
                        asked several times, 1 if a machine did not answer."),
                    (wire::PROBLEM_HEADER, "A machine that did not answer, and why; the answer \
                        lacks what it runs."),
                ])
                .errors([400, 404, 409, 421, 429, 502]),
        ),
        Resource::at("/units/{unitName}/journal").get(
            journal::journal,
            Operation::new("getUnitJournal", "The unit's journal, from the machines that run it, \
                as one stream.")
                .query_of(
                    "lines",
                    "How many lines of the past.",
                    json!({"type": "integer", "minimum": 0, "maximum": u32::MAX, "default": 10}),
                )
                .query_of(
                    "follow",
                    "Whether to go on with each new line, for ever.",
                    json!({"type": "boolean", "default": false}),
                )
                .query_of(
                    "output",
                    "journalctl's format.",
                    json!({"type": "string", "enum": journal::OUTPUTS, "default": "short"}),
                )
                .query_of(
                    "agoMs",
                    "Where to begin instead, in milliseconds before now.",
                    json!({"type": "integer", "minimum": 0, "maximum": u32::MAX}),
                )
                .query_of(
                    "notes",
                    "Whether to say which machines do not answer, in lines that begin with a NUL \
                        byte. Else an answer that lacks some breaks off, unless it is followed.",
                    json!({"type": "boolean", "default": false}),
                )
                .query("machine", "The machine that is asked, as one fleetd asks another.")
                .answers(StatusCode::OK, "Lines of the \
                    journal.", Body::Other("text/plain; \
                    charset=utf-8"))
                .errors([400, 404, 409, 421, 429, 502]),
        ),
        Resource::at("/units/{unitName}/fencing").get(
            fencing::show,
            Operation::new(
                "getUnitFencing",
                "By whose lease the unit's fenced instances live and until when, or what the \
                    leader waits for.",
            )
            .gives::<wire::FencingPage>("One entry an instance and machine; none if the unit is \
                not fenced.")
            .errors([400, 404]),
        ),
        Resource::at("/fencing").get(
            fencing::own,
            Operation::new(
                "getFencing",
                "What this machine itself knows of fenced units: its keeper's lease; as the \
                    leader, who waits.",
            )
            .query("machine", "The machine that is asked, as one fleetd asks another.")
            .query("unit", "Only what waits of this unit.")
            .gives::<wire::OwnFencing>("What it knows.")
            .errors([421]),
        ),
        Resource::at("/state").get(
            state::list,
            paged(Operation::new("listUnitStates", "What systemd says of each unit on each \
                machine."))
                .query("machineID", "Only of this machine.")
                .query("unitName", "Only of this unit.")
                .query_of("brief", "Whether the first digits of hashes will \
                    do.", json!({"type": "boolean", "default": false}))
                .gives::<wire::UnitStatePage>("A page of states, by unit, then machine.")
                .discovered_as("UnitState", "List"),
        ),
        Resource::at("/state/{unitName}").get(
            state::show,
            Operation::new("getUnitState", "What systemd says of one unit, on the first machine \
                that reports it.")
                .gives::<wire::UnitState>("The state; one with a name alone where no machine \
                    reports any.")
                .errors([400])
                .discovered_as("UnitState", "Get"),
        ),
        Resource::at("/machines")
            .get(
                machines::list,
                paged(Operation::new("listMachines", "The machines of the cluster, by id."))
                    .gives::<wire::MachinePage>("A page of machines.")
                    .discovered_as("Machines", "List"),
            )
            .patch(
                machines::patch,
                Operation::new("patchMachines", "Sets and removes labels of machines.")
                    .takes::<machines::Operations>()
                    .example(json!([{
                        "op": "add",
                        "path": "/c2e1b5180a5ec645aa037c911a0f20bb/metadata/region",
                        "value": "eu",
                    }]))
                    .answers(StatusCode::NO_CONTENT, "All was carried out.", Body::None)
                    .headers(WRITTEN)
                    .errors([404, 409, 415])
                    .discovered_as("Machines", "Patch"),
            ),
        Resource::at("/machines/{machineID}/availability")
            .get(
                availability::show,
                Operation::new("getMachineAvailability", "Whether a machine takes instances, and \
                    what is still on it.")
                    .gives::<wire::MachineAvailability>("That.")
                    .errors([400, 404]),
            )
            .put(
                availability::set,
                Operation::new("setMachineAvailability", "Cordons or drains a machine, or has it \
                    take instances again.")
                    .takes::<wire::AvailabilityWish>()
                    .example(json!({"availability": "active"}))
                    .answers(StatusCode::NO_CONTENT, "It was set.", Body::None)
                    .headers(WRITTEN)
                    .errors([404, 409, 415]),
            ),
        Resource::at("/export").get(
            import::export,
            Operation::new("exportCluster", "Units with what is wanted of them, and machines' \
                settings, all of one revision.")
                .gives::<transfer::Export>("The cluster, but for what runs where."),
        ),
        Resource::at("/import").post(
            import::import.layer(DefaultBodyLimit::max(transfer::MAX_IMPORT_BYTES)),
            Operation::new("importCluster", "Takes an exported cluster, all of it or nothing.")
                .query_of("dryRun", "Only say what would \
                    change.", json!({"type": "boolean", "default": false}))
                .query_of(
                    "replace",
                    "Replace units that are there and differ; else they refuse the import.",
                    json!({"type": "boolean", "default": false}),
                )
                .takes::<transfer::Export>()
                .gives::<transfer::Imported>("What changes.")
                .headers(&[(wire::REVISION_HEADER, "The store's revision of the last write; \
                    absent on a dry run.")])
                .errors([409, 415]),
        ),
        Resource::at("/follow").get(
            follow::follow,
            Operation::new("followUnits", "How far units are: one line at once, one at each \
                change, for ever.")
                .query_of(
                    "unit",
                    "A unit to follow.",
                    json!({"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": follow::MAX_UNITS}),
                )
                .required()
                .answers(StatusCode::OK, "A JSON document a line, of the type \
                    Progress.", Body::Other("application/x-ndjson"))
                .errors([400, 429]),
        ),
        Resource::at("/events").get(
            events::list,
            Operation::new("listEvents", "What the leaders decided and why, oldest first.")
                .query("unit", "Only what concerns this unit: of a template all replicas.")
                .query("machine", "Only what concerns this machine, by its whole or short id.")
                .query_of("lines", "Only so many of the \
                    newest.", json!({"type": "integer", "minimum": 0}))
                .query_of(
                    "follow",
                    "Whether to answer with a JSON document a line, of the type Event, and to go \
                        on with each new one, for ever.",
                    json!({"type": "boolean", "default": false}),
                )
                .gives::<wire::EventPage>("The events.")
                .errors([400, 429]),
        ),
        Resource::at("/store/check").get(
            debug::check,
            Operation::new("checkStore", "Reads every document, and says what is \
                wrong.").gives::<StoreCheck>("What was found."),
        ),
        Resource::at("/debug/snapshot").get(
            debug::snapshot,
            Operation::new("getSnapshot", "Everything that the leader's last plan saw, and the \
                plan's digest.")
                .query("plan", "The digest of another plan, as events name it; the leader keeps \
                    the last few.")
                .query("machine", "The machine that is asked, as one fleetd asks another.")
                .gives::<Value>("The snapshot, for `fleetctl debug replay`; its form is this \
                    version's own.")
                .errors([404, 502]),
        ),
        Resource::at("/version").get(
            super::version,
            Operation::new("getVersion", "fleetd's \
                version.").without_store().gives::<wire::Version>("The version."),
        ),
        Resource::at("/discovery")
            .get(
                documents::discovery,
                Operation::new("getDiscovery", "fleet 1.0's part of this API, in Google's \
                    discovery format.")
                    .without_store()
                    .gives::<Value>("The discovery document."),
            )
            .refusing(StatusCode::BAD_REQUEST, "only HTTP GET supported against this resource"),
        Resource::at("/openapi.json").get(
            documents::openapi,
            Operation::new("getOpenapi", "This document.").without_store().gives::<Value>("The OpenAPI 3.1 document."),
        ),
    ]
}

/// The routes beside the prefixes.
pub(super) fn at_root() -> Vec<Resource> {
    vec![
        Resource::at("/metrics").get(
            super::metrics,
            Operation::new("getMetrics", "Counters, in Prometheus' text form.")
                .without_store()
                .answers(StatusCode::OK, "The counters.", Body::Other("text/plain; version=0.0.4")),
        ),
    ]
}

/// A list that comes in pages.
fn paged(operation: Operation) -> Operation {
    operation
        .query("nextPageToken", "Which page: the `nextPageToken` of the page before.")
        .query_of(
            "pageSize",
            "How many items a page holds; the same for all pages of a list.",
            json!({"type": "integer", "minimum": 1, "maximum": page::LARGEST_PAGE, "default": wire::PAGE_ITEMS}),
        )
        .errors([400])
}
