//! What nobody should send: each gets one clear error with a 4xx status, and the store is as it
//! was.

use anyhow::{Context, Result, ensure};
use fleet_core::converge::SETTLED_MS;
use fleet_core::wire::ErrorBody;
use fleet_tests::cluster::{Cluster, Said, scenario};

use crate::{SLEEPER, lab};

const JSON: &str = "Content-Type: application/json";

#[test]
fn each_bad_input_gets_one_clear_error_and_leaves_the_store_as_it_was() -> Result<()> {
    scenario(&lab("bad-input", 1), |cluster| {
        cluster.submit("web@.service", SLEEPER)?;
        cluster.start("good.service", SLEEPER)?;
        let before = settled_store(cluster)?;
        // All of them, so that one answer that is not as it should be does not hide another.
        let sorts = [
            bad_unit_files_over_the_api,
            bad_unit_files_with_fleetctl,
            bad_names,
            bad_counts,
            bad_requests,
        ];
        let problems: Vec<String> = sorts
            .iter()
            .filter_map(|sort| sort(cluster, &before).err())
            .map(|e| format!("{e:#}"))
            .collect();
        ensure!(problems.is_empty(), "{}", problems.join("\n"));
        unknown_keys_are_warned_of_with_the_nearest_known_one(cluster)
    })
}

fn bad_unit_files_over_the_api(cluster: &Cluster, before: &str) -> Result<()> {
    let huge = format!("[Service]\nExecStart=/bin/true\n{}", "# no end\n".repeat(130_000));
    let cases: &[(&str, &str, u16, &[&str])] = &[
        ("empty", "", 400, &["no options"]),
        ("only comments", "# nothing\n; here\n", 400, &["no options"]),
        ("prose", "this is not a unit file\n", 400, &["line 1"]),
        ("a late error", "[Service]\nExecStart=/bin/true\n\nwhat is this\n", 400, &["line 4"]),
        ("an option without a section", "ExecStart=/bin/true\n", 400, &["line 1"]),
        ("binary", "\u{7f}ELF\u{2}\u{1}\u{1}\u{0}\u{0}\u{0}", 400, &["line 1"]),
        ("a NUL byte", "[Service]\nExecStart=/bin/tr\u{0}ue\n", 400, &["line 2", "NUL"]),
        ("huge", &huge, 413, &["1 MiB"]),
        (
            "what no stop ends",
            "[Unit]\nRefuseManualStop=yes\n[Service]\nExecStart=/bin/true\n",
            400,
            &["line 2: RefuseManualStop"],
        ),
        (
            "MachineID with Global",
            "[X-Fleet]\nMachineID=a\nGlobal=true\n",
            400,
            &["MachineID cannot be used with Global", "line 3: Global=true"],
        ),
        (
            "a companion in conflict",
            "[X-Fleet]\nMachineOf=a.service\nConflicts=a.*\n",
            400,
            &["unresolvable requirements", "line 2: MachineOf=a.service"],
        ),
    ];
    for (what, text, status, says) in cases {
        let body =
            serde_json::json!({ "name": "bad.service", "desiredState": "launched", "text": text })
                .to_string();
        let answer = put(cluster, "units/bad.service", &body)?;
        answer.is_refused(what, &[*status], says)?;
        store_is(cluster, before, what)?;
    }
    let options = r#"{"desiredState":"inactive","options":[{"section":"Service","name":"ExecStart","value":"/bin/true\nUser=root"}]}"#;
    put(cluster, "units/bad.service", options)?.is_refused(
        "a newline in a value",
        &[400],
        &["newline"],
    )?;
    put(cluster, "units/bad.service", r#"{"desiredState":"launched"}"#)?.is_refused(
        "no options",
        &[409],
        &["options"],
    )?;
    put(
        cluster,
        "units/bad.service",
        r#"{"desiredState":"flying","text":"[Service]\nExecStart=/a\n"}"#,
    )?
    .is_refused("a state that is none", &[400], &["flying", "launched"])?;
    store_is(cluster, before, "options")
}

fn bad_unit_files_with_fleetctl(cluster: &Cluster, before: &str) -> Result<()> {
    cluster.lab.sh(
        "h1",
        "cp /bin/true /root/units/binary.service; : > /root/units/empty.service; \
        head -c 2000000 /dev/zero | tr '\\0' '#' > /root/units/huge.service",
    )?;
    cluster.write_unit("late.service", "[Service]\nExecStart=/bin/true\nwhat is this\n")?;
    for (name, says) in [
        ("binary", ""),
        ("empty", ""),
        ("huge", "1 MiB"),
        ("late", "late.service:3:"),
        ("absent", "absent.service"),
    ] {
        let name = format!("{name}.service");
        let path = format!("/root/units/{name}");
        let said = cluster.fleetctl("h1", &["start", &path])?;
        ensure!(
            said.code == 1 && said.err.contains(&name) && said.err.contains(says),
            "{name}: {said:?}"
        );
        // One error, and hints at most.
        let errors = said
            .err
            .lines()
            .filter(|line| !line.starts_with("Hint:") && !line.starts_with(' '))
            .count();
        ensure!(errors == 1 && said.out.is_empty(), "{name}: {said:?}");
    }
    store_is(cluster, before, "files")
}

fn bad_names(cluster: &Cluster, before: &str) -> Result<()> {
    let body = r#"{"desiredState":"inactive","text":"[Service]\nExecStart=/bin/true\n"}"#;
    let long = format!("{}.service", "a".repeat(260));
    let cases = [
        ("noSuffix", "must contain"),
        ("a.exe", "exe"),
        ("a%20b.service", "character"),
        ("..%2F..%2Fetc%2Fpasswd.service", "character"),
        ("@.service", "@"),
        (".service", "."),
        (long.as_str(), "256"),
        ("a@.mount", "mount"),
        ("%C3%A4.service", "character"),
        ("%FF.service", ""),
    ];
    for (name, says) in cases {
        put(cluster, &format!("units/{name}"), body)?.is_refused(name, &[400], &[says])?;
    }
    let other = r#"{"name":"other.service","desiredState":"inactive","text":"[Service]\nExecStart=/bin/true\n"}"#;
    put(cluster, "units/this.service", other)?.is_refused(
        "two names",
        &[400],
        &["this.service", "other.service"],
    )?;
    store_is(cluster, before, "names")
}

fn bad_counts(cluster: &Cluster, before: &str) -> Result<()> {
    for (count, says) in [
        ("-1", "-1"),
        ("1000000000", "1000000000"),
        ("1.5", ""),
        ("\"many\"", ""),
        ("99999999999999999999", ""),
        ("null", ""),
    ] {
        let body = format!("{{\"replicas\":{count}}}");
        put(cluster, "units/web@.service/replicas", &body)?.is_refused(count, &[400], &[says])?;
    }
    put(cluster, "units/good.service/replicas", r#"{"replicas":2}"#)?.is_refused(
        "no template",
        &[400],
        &["template"],
    )?;
    put(cluster, "units/absent@.service/replicas", r#"{"replicas":2}"#)?.is_refused(
        "absent",
        &[404],
        &["not exist"],
    )?;
    for argument in ["web=-1", "web=1000000000", "web=1e3", "web=", "web", "=3", "absent=3"] {
        let said = cluster.fleetctl("h1", &["scale", argument])?;
        ensure!(
            (said.code == 1 || said.code == 2) && !said.err.is_empty() && said.out.is_empty(),
            "{argument}: {said:?}"
        );
    }
    store_is(cluster, before, "counts")
}

fn bad_requests(cluster: &Cluster, before: &str) -> Result<()> {
    for body in
        ["", "garbage", "{", "[]", "[5]", "\"text\"", "{\"desiredState\":7}", "\u{1}\u{2}\u{3}"]
    {
        put(cluster, "units/bad.service", body)?.is_refused(body, &[400], &["decode body"])?;
        put(cluster, "units/web@.service/replicas", body)?.is_refused(
            body,
            &[400],
            &["decode body"],
        )?;
        // There a list is what is wanted.
        if !body.starts_with('[') {
            call(cluster, &["-X", "PATCH", "-H", JSON], "machines", body)?.is_refused(
                body,
                &[400],
                &[],
            )?;
        }
    }
    let huge = " ".repeat(6 * 1024 * 1024);
    put(cluster, "units/bad.service", &huge)?.is_refused("a huge body", &[413], &["1 MiB"])?;
    let text = r#"{"desiredState":"inactive","text":"[Service]\nExecStart=/bin/true\n"}"#;
    call(cluster, &["-X", "PUT", "-H", "Content-Type: text/plain"], "units/bad.service", text)?
        .is_refused("another type", &[415], &["application/json"])?;
    for token in ["garbage!", "EwBMLg==", "ZAAAAA==", "AAAA"] {
        for resource in ["units", "state"] {
            get(cluster, &format!("{resource}?nextPageToken={token}"))?.is_refused(
                token,
                &[400],
                &[],
            )?;
        }
    }
    get(cluster, "units?pageSize=-1")?.is_refused("a page size", &[400], &["pageSize"])?;
    get(cluster, "units/absent.service")?.is_refused("an absent unit", &[404], &["not exist"])?;
    call(cluster, &["-X", "DELETE"], "units/absent.service", "")?.is_refused(
        "an absent unit",
        &[404],
        &["not exist"],
    )?;
    call(cluster, &["-X", "POST", "-H", JSON], "units", "{}")?.is_refused(
        "another method",
        &[405],
        &["GET"],
    )?;
    get(cluster, "units/good.service/journal?output=short%20--root=/")?.is_refused(
        "an option slipped in",
        &[400],
        &["output"],
    )?;
    store_is(cluster, before, "requests")
}

fn unknown_keys_are_warned_of_with_the_nearest_known_one(cluster: &Cluster) -> Result<()> {
    let path = cluster.write_unit(
        "typo.service",
        &format!("{SLEEPER}\n[X-Fleet]\nMachineMetdata=a=b\nConflict=x.*\n"),
    )?;
    let said = cluster.fleetctl("h1", &["submit", &path])?;
    ensure!(said.code == 0 && said.out == "Unit typo.service inactive\n", "{said:?}");
    for words in
        ["line 8", "did you mean \"MachineMetadata\"?", "line 9", "did you mean \"Conflicts\"?"]
    {
        ensure!(said.err.contains(words), "{words} is not in {said:?}");
    }
    Ok(())
}

/// A status and a body.
struct Answer {
    status: u16,
    body: String,
}

impl Answer {
    fn is_refused(&self, what: &str, statuses: &[u16], says: &[&str]) -> Result<()> {
        ensure!(statuses.contains(&self.status), "{what}: status {}, {}", self.status, self.body);
        let error: ErrorBody = serde_json::from_str(&self.body)
            .with_context(|| format!("{what}: the body is {:?}", self.body))?;
        // The sentence, and what it does not say where it is fleet 1.0's.
        let message = [Some(error.error.message), error.error.detail]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(": ");
        ensure!(
            error.error.code == self.status && !message.is_empty() && message.len() < 500,
            "{what}: {}",
            self.body
        );
        ensure!(
            !message.contains('\n') && says.iter().all(|words| message.contains(words)),
            "{what}: {message}"
        );
        Ok(())
    }
}

fn put(cluster: &Cluster, resource: &str, body: &str) -> Result<Answer> {
    call(cluster, &["-X", "PUT", "-H", JSON], resource, body)
}

fn get(cluster: &Cluster, resource: &str) -> Result<Answer> {
    call(cluster, &[], resource, "")
}

fn call(cluster: &Cluster, args: &[&str], resource: &str, body: &str) -> Result<Answer> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), body)?;
    let mut command = cluster.lab.outside("curl");
    command
        .args([
            "-sS",
            "--path-as-is",
            "--globoff",
            "--noproxy",
            "*",
            "--max-time",
            "20",
            "-w",
            "\n%{http_code}",
        ])
        .args(args);
    if args.iter().any(|arg| arg.contains("Content-Type")) {
        command.arg("--data-binary").arg(format!("@{}", file.path().display()));
    }
    command.arg(format!("http://{}:4100/fleet/v1/{resource}", cluster.lab.address("h1")?));
    let said = Said::from(command.output()?);
    let (body, status) =
        said.out.rsplit_once('\n').with_context(|| format!("{resource}: {said:?}"))?;
    Ok(Answer { status: status.parse()?, body: body.to_owned() })
}

/// The store once the last report of what was started has been written.
fn settled_store(cluster: &Cluster) -> Result<String> {
    let mut last = cluster.store()?;
    let mut same = 0;
    // Reports change once more when what came up counts as up, after SETTLED_MS.
    while same * 300 <= 2 * SETTLED_MS {
        std::thread::sleep(std::time::Duration::from_millis(300));
        let now = cluster.store()?;
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    Ok(last)
}

fn store_is(cluster: &Cluster, before: &str, what: &str) -> Result<()> {
    ensure!(cluster.store()? == before, "after {what} the store is no longer as it was");
    Ok(())
}
