//! Who shares a template's file, who has one of its own, and what a restarted fleetd makes of it.

use super::*;

#[tokio::test]
async fn replicas_of_one_text_share_their_templates_file_and_the_last_takes_it_along() {
    let mut host = Host::new().await;
    let web = host.text("web@.service", 1, OLD).await;
    host.run(&[("web@1.service", &web), ("web@2.service", &web), ("web@70.service", &web)]).await;
    assert_eq!(host.files(), "web@.service=old");
    assert_eq!(host.running(), "web@1.service web@2.service web@70.service");
    let (writes, starts) = (host.sim.counters().write, host.sim.counters().start);
    host.run(&[
        ("web@1.service", &web),
        ("web@2.service", &web),
        ("web@3.service", &web),
        ("web@70.service", &web),
    ])
    .await;
    assert_eq!(
        (host.sim.counters().write, host.sim.counters().start),
        (writes, starts + 1),
        "one more writes nothing"
    );
    host.run(&[("web@70.service", &web)]).await;
    assert_eq!(host.files(), "web@.service=old");
    host.run(&[]).await;
    assert_eq!((host.files(), host.running()), (String::new(), String::new()));
    assert_eq!(host.sim.counters().reload, 0);
}

#[tokio::test]
async fn a_unit_submitted_by_name_has_a_file_of_its_own_beside_the_templates() {
    let mut host = Host::new().await;
    let (web, own) =
        (host.text("web@.service", 1, OLD).await, host.text("web@2.service", 1, NEW).await);
    host.run(&[("web@1.service", &web), ("web@2.service", &own)]).await;
    assert_eq!(host.files(), "web@.service=old web@2.service=new");
    host.run(&[("web@2.service", &own)]).await;
    assert_eq!(host.files(), "web@2.service=new");
    host.run(&[("web@2.service", &web)]).await;
    assert_eq!(
        (host.files().as_str(), host.running().as_str()),
        ("web@.service=old", "web@2.service")
    );
}

#[tokio::test]
async fn a_new_text_for_all_is_one_file_and_one_reload() {
    let mut host = Host::new().await;
    let old = host.text("web@.service", 1, OLD).await;
    host.run(&[("web@1.service", &old), ("web@2.service", &old)]).await;
    let new = host.text("web@.service", 2, NEW).await;
    host.run(&[("web@1.service", &new), ("web@2.service", &new)]).await;
    let counters = host.sim.counters();
    assert_eq!(
        (host.files().as_str(), counters.reload, counters.restart),
        ("web@.service=new", 1, 2)
    );
}

#[tokio::test]
async fn in_a_rolling_update_those_that_wait_keep_their_text_in_files_of_their_own() {
    let mut host = Host::new().await;
    let old = host.text("web@.service", 1, OLD).await;
    host.run(&[("web@1.service", &old), ("web@2.service", &old), ("web@3.service", &old)]).await;
    let new = host.text("web@.service", 2, NEW).await;
    host.run(&[("web@1.service", &new), ("web@2.service", &old), ("web@3.service", &old)]).await;
    assert_eq!(host.files(), "web@.service=new web@2.service=old web@3.service=old");
    assert_eq!(host.sim.counters().restart, 1, "nobody else is touched");
    host.run(&[("web@1.service", &new), ("web@2.service", &new), ("web@3.service", &new)]).await;
    assert_eq!((host.files().as_str(), host.sim.counters().restart), ("web@.service=new", 3));
}

#[tokio::test]
async fn two_texts_of_one_template_that_are_written_in_one_pass_are_each_their_own() {
    for install in ["", "[Install]\nWantedBy=a.target\n"] {
        let mut host = Host::new().await;
        let texts =
            [OLD, NEW, "[Service]\nExecStart=/bin/newer\n"].map(|text| format!("{text}{install}"));
        let first = host.text("web@.service", 1, &texts[0]).await;
        host.run(&[("web@2.service", &first)]).await;
        let second = host.text("web@.service", 2, &texts[1]).await;
        let third = host.text("web@.service", 3, &texts[2]).await;
        let before = host.sim.counters();
        host.run(&[
            ("web@1.service", &third),
            ("web@2.service", &second),
            ("web@3.service", &third),
        ])
        .await;
        for (name, text) in [
            ("web@1.service", &texts[2]),
            ("web@2.service", &texts[1]),
            ("web@3.service", &texts[2]),
        ] {
            assert_eq!(
                host.sim.running_text(&UnitName::trusted(name)).as_ref(),
                Some(text),
                "{name}"
            );
        }
        let after = host.sim.counters();
        assert_eq!(
            (after.start - before.start, after.restart - before.restart),
            (2, 1),
            "each is started with its text at once"
        );
    }
}

#[tokio::test]
async fn files_of_an_older_fleetd_are_adopted_untouched_and_shared_at_the_next_text() {
    let mut host = Host::new().await;
    let old = host.text("web@.service", 1, OLD).await;
    let (one, two) = (UnitName::trusted("web@1.service"), UnitName::trusted("web@2.service"));
    host.run(&[("web@1.service", &old)]).await;
    // What 0.1 wrote: a file for each, and a marker without a word of sharing.
    let marker = host.folder.path().join("run/units/web@1.service.json");
    let text = std::fs::read_to_string(&marker).unwrap();
    std::fs::write(&marker, text.replace(",\"shared\":true", "")).unwrap();
    std::fs::remove_file(host.folder.path().join("run/units/web@.service.template")).unwrap();
    host.sim.unshare(&one).await.unwrap();
    host.sim.remove(&UnitName::trusted("web@.service")).await.unwrap();
    let before = host.sim.counters();
    host.restart_fleetd();
    host.run(&[("web@1.service", &old), ("web@2.service", &old)]).await;
    let after = host.sim.counters();
    assert_eq!(host.files(), "web@.service=old web@1.service=old");
    assert_eq!(
        (after.start, after.restart, after.reload),
        (before.start + 1, before.restart, before.reload),
        "only {two} starts"
    );
    let new = host.text("web@.service", 2, NEW).await;
    host.run(&[("web@1.service", &new), ("web@2.service", &new)]).await;
    assert_eq!(host.files(), "web@.service=new");
}

#[tokio::test]
async fn a_fleetd_that_died_while_it_wrote_a_template_anew_goes_on_with_it() {
    let mut host = Host::new().await;
    let old = host.text("web@.service", 1, OLD).await;
    host.run(&[("web@1.service", &old), ("web@2.service", &old)]).await;
    let new = host.text("web@.service", 2, NEW).await;
    // It had written the template and noted that, but no instance yet; meanwhile the user took the
    // text back.
    let template = UnitName::trusted("web@.service");
    host.sim.write(&template, NEW, "").await.unwrap();
    let noted = format!("{{\"unit\":\"web@.service\",\"hash\":\"{}\"}}", new.hash);
    std::fs::write(host.folder.path().join("run/units/web@.service.template"), noted).unwrap();
    host.restart_fleetd();
    host.run(&[("web@1.service", &old), ("web@2.service", &old)]).await;
    assert_eq!(
        (host.files().as_str(), host.running().as_str()),
        ("web@.service=old", "web@1.service web@2.service")
    );
}

#[tokio::test]
async fn a_name_that_stands_for_more_than_one_unit_or_is_too_long_is_written_nowhere() {
    let mut host = Host::new().await;
    let long = format!("{}.service", "a".repeat(251 - ".service".len()));
    for (name, expected) in [
        ("app-.service", "stands for every app-*.service"),
        (long.as_str(), "the name has 251 bytes"),
    ] {
        let placement = host.text(name, 1, OLD).await;
        host.run(&[(name, &placement)]).await;
        let said = host.said().unwrap_or_default();
        assert!(said.contains(expected) && host.files().is_empty(), "{said}");
        let status = host.status(name).await;
        assert!(
            status.restarts >= 5 && !status.gave_up,
            "no other machine would run it: {status:?}"
        );
        let notes = std::fs::read_dir(host.folder.path().join("run/units")).unwrap().count();
        assert_eq!(notes, 0, "nothing is left");
        host.run(&[]).await;
    }
}
