//! The files of an instance on this host. Replicas of one text share their template's file, so that
//! one more writes nothing and systemd need not read its folder again; a replica of another text,
//! and a unit submitted by name, has a file of its own.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use fleet_core::app::{BundleRef, FILES_DIR};
use fleet_core::configuration::Uses;
use fleet_core::converge::FencedBy;
use fleet_core::name::UnitName;
use fleet_core::unit::file::{ShortHash, UnitFile};
use fleet_core::unit::on_failure::OnFailure;
use fleet_core::unit::update;
use fleet_core::unit::xfleet::Constraints;

use super::Agent;
use super::apply::TextKey;
use super::bundles::Whole;
use super::dropin::drop_in;
use super::fence;
use super::markers::Template;
use crate::systemd::quadlet::{Made, Translated, With, one_by_one};

/// How many rendered texts are kept: a machine has about as many texts at work at once. Each
/// spares a run of podman's generator.
const KEPT: usize = 64;

/// Texts that were rendered, by text and, where an instance needs one of its own, by instance.
#[derive(Default)]
pub(super) struct Cache(BTreeMap<(TextKey, Option<UnitName>), Arc<Rendered>>);

/// A text as this host runs it: Quadlet units are services here, by podman's own generator.
pub(super) struct Rendered {
    text: String,
    file: UnitFile,
    pub(super) oneshot: bool,
    /// Whether it stays up when its program has ended.
    pub(super) remains: bool,
    /// Whether it has an `[Install]` section.
    pub(super) installs: bool,
    /// Whether its start starts other units, which it is bound to or requires, and which are not
    /// here for its sake.
    pub(super) bound: bool,
    /// The services that it needs beside its own.
    pub(super) beside: BTreeMap<UnitName, Made>,
    /// What comes with it.
    pub(super) bundle: Option<BundleRef>,
    /// Whether it is this instance's alone.
    own: bool,
    /// Whether systemd puts the values of a configuration into its environment.
    configured: bool,
    /// How long an instance must have been up before it counts as healthy, if the text or the kind
    /// of the unit says so.
    pub(super) settles_ms: Option<u64>,
    /// What the text says of failures.
    pub(super) on_failure: OnFailure,
}

impl Rendered {
    /// The text, parsed.
    pub(super) fn file(&self) -> &UnitFile {
        &self.file
    }

    /// Whether it requires a service beside it that is made of a Quadlet file of these kinds.
    pub(super) fn requires_beside(&self, kinds: &[&str]) -> bool {
        let required = self.file.values("Unit", "Requires").flat_map(str::split_whitespace);
        let made = required.filter_map(|service| self.beside.get(service));
        made.map(|made| made.quadlet.suffix()).any(|kind| kinds.contains(&kind))
    }
}

impl Agent {
    /// Makes ready what `instance` is to run. Most often a pass writes many replicas of one
    /// template.
    pub(super) async fn render(
        &mut self,
        instance: &UnitName,
        key: &TextKey,
        text: &str,
    ) -> Result<Arc<Rendered>, String> {
        // The generator leaves a template's specifiers to systemd: what it makes of a template
        // holds for all its instances.
        let name = if is_replica(instance, &key.0) { &key.0 } else { instance };
        for of in [None, Some(instance.clone())] {
            if let Some(rendered) = self.rendered.0.get(&(key.clone(), of)) {
                return Ok(Arc::clone(rendered));
            }
        }
        let of_user = text;
        let bundle = BundleRef::of(&UnitFile::parse_lenient(text));
        let whole = bundle.as_ref().map(|bundle| self.whole(bundle)).transpose()?;
        let others = whole.iter().flat_map(|whole| whole.quadlets.keys());
        let own = name.is_quadlet() && one_by_one(name, others);
        let name = if own { instance } else { name };
        let (text, beside) = match name.is_quadlet() {
            true => {
                let Translated { main, beside } = self.translate(name, text, whole).await?;
                (main, beside)
            }
            false => (text.to_string(), BTreeMap::new()),
        };
        let file = UnitFile::parse_lenient(&text);
        let (oneshot, installs) =
            (file.last("Service", "Type") == Some("oneshot"), file.has_section("Install"));
        let bound = ["BindsTo", "Requires", "Requisite"]
            .into_iter()
            .flat_map(|key| file.values("Unit", key))
            .flat_map(str::split_whitespace)
            .any(|other| !beside.contains_key(other));
        let remains = file.last("Service", "RemainAfterExit").is_some_and(is_yes);
        let configured = !name.is_quadlet() && Uses::in_text(of_user).is_some();
        let of_user = UnitFile::parse_lenient(of_user);
        let rendered = Arc::new(Rendered {
            text,
            file,
            oneshot,
            remains,
            installs,
            bound,
            settles_ms: update::settles_ms(&key.0, &of_user),
            on_failure: Constraints::from_file(&of_user).on_failure,
            beside,
            bundle,
            own,
            configured,
        });
        if self.rendered.0.len() >= KEPT {
            self.rendered.0.clear();
        }
        let of = own.then(|| instance.clone());
        self.rendered.0.insert((key.clone(), of), Arc::clone(&rendered));
        Ok(rendered)
    }

    /// Has podman translate a unit with what comes with it.
    async fn translate(
        &self,
        name: &UnitName,
        text: &str,
        whole: Option<Arc<Whole>>,
    ) -> Result<Translated, String> {
        // podman hands the values on into the container.
        let text = &self.configurations.hand_on(text);
        let Some(whole) = whole else {
            return self.generator.translate(name, &fence::with_token(text), With::default()).await;
        };
        let files = whole.files();
        let files: Vec<(&str, &[u8])> =
            files.iter().map(|file| (file.path, file.content)).collect();
        let fenced = fence::is_fenced(text);
        // The containers of a fenced pod get its token.
        let quadlets: Cow<'_, BTreeMap<UnitName, String>> = match fenced && name.suffix() == "pod" {
            true => Cow::Owned(
                whole
                    .quadlets
                    .iter()
                    .map(|(name, text)| match name.suffix() {
                        "container" => (name.clone(), fence::handing_on_token(text)),
                        _ => (name.clone(), text.clone()),
                    })
                    .collect(),
            ),
            false => Cow::Borrowed(&whole.quadlets),
        };
        let text = match name.suffix() {
            "container" => fence::with_token(text),
            _ => text.clone(),
        };
        let with = With { quadlets: Some(&quadlets), files: &files, root: Some(self.files.root()) };
        self.generator.translate(name, &text, with).await
    }

    /// Whether a service's text leads into a folder of files.
    pub(super) fn names_files(&self, text: &str) -> bool {
        text.contains(&*self.files.root().to_string_lossy()) || text.contains(FILES_DIR)
    }

    /// Puts the files that come with a unit where `service` finds them.
    pub(super) fn put_files_of(
        &mut self,
        service: &UnitName,
        bundle: Option<BundleRef>,
    ) -> Result<(), String> {
        let Some(bundle) = bundle else { return self.files.remove(service) };
        let whole = self.whole(&bundle)?;
        self.files.put(service, &whole.files())
    }

    /// Writes the files of `instance`. Answers whether it shares its template's.
    pub(super) async fn put_files(
        &mut self,
        instance: &UnitName,
        key: &TextKey,
        rendered: &Rendered,
        fence_by: Option<FencedBy>,
    ) -> Result<bool, String> {
        self.put_files_of(&instance.systemd_name(), rendered.bundle.clone())?;
        self.put_beside(instance, rendered, fence_by).await?;
        // What is enabled is linked by its own name, which needs a file of that name. What is
        // fenced has lines of its own.
        let common = !rendered.installs && fence_by.is_none() && !rendered.own;
        if is_replica(instance, &key.0) && common && self.share(instance, key, rendered).await? {
            return Ok(true);
        }
        let mut own = self.drop_in(instance, rendered);
        if let Some((by, keeper)) = fence_by.zip(self.keeper.as_ref()) {
            own.push_str(&fence::lines(&rendered.file, instance, by, &keeper.guard_dir));
        }
        self.systemd
            .write(&instance.systemd_name(), &rendered.text, &own)
            .await
            .map_err(|e| e.to_string())?;
        Ok(false)
    }

    /// fleet's own settings for an instance, but for what fences it.
    fn drop_in(&self, instance: &UnitName, rendered: &Rendered) -> String {
        let mut text = drop_in(instance, &rendered.file, &rendered.on_failure);
        if rendered.configured {
            text.push_str(&self.configurations.drop_in());
        }
        text
    }

    /// Takes away the file of a template that nobody shares any more.
    pub(super) async fn drop_unshared(&mut self, template: &UnitName) -> Result<(), String> {
        if self.instances.notes.template(template).is_none()
            || self.instances.sharers(template).next().is_some()
        {
            return Ok(());
        }
        self.systemd.remove(template).await.map_err(|e| e.to_string())?;
        self.instances.notes.remove_template(template).map_err(|e| e.to_string())
    }

    /// Has `instance` run its template's file, written anew if its text is another. False if
    /// another unit has that name here (`web@.container` beside `web@.service`).
    async fn share(
        &mut self,
        instance: &UnitName,
        (unit, _, hash): &TextKey,
        rendered: &Rendered,
    ) -> Result<bool, String> {
        let template = unit.systemd_name();
        let common = self.drop_in(&unit.replica(1), rendered);
        let present = self.instances.notes.template(&template);
        if present.is_some_and(|present| present.unit != *unit)
            && self.instances.sharers(&template).next().is_some()
        {
            return Ok(false);
        }
        let same = present.is_some_and(|present| {
            present.unit == *unit && present.hash == *hash && !present.writing
        });
        // A text that is written again was lost: systemd refused its start.
        let again = self
            .instances
            .marker(instance)
            .is_some_and(|marker| marker.shared && marker.hash == *hash);
        if !same || again {
            self.make_room(&template, instance, hash).await?;
            let before = self.instances.marker(instance).map(|marker| marker.hash.clone());
            let alike = before.filter(|_| self.alike.contains(instance));
            let intent = Template { unit: unit.clone(), hash: hash.clone(), writing: true, alike };
            self.instances.set_template(&template, intent.clone()).map_err(|e| e.to_string())?;
            self.systemd
                .write(&template, &rendered.text, &common)
                .await
                .map_err(|e| e.to_string())?;
            self.instances
                .set_template(&template, Template { writing: false, ..intent })
                .map_err(|e| e.to_string())?;
        }
        let own = self.drop_in(instance, rendered);
        let own = (own != common).then_some(own.as_str());
        self.systemd.share(&instance.systemd_name(), own).await.map_err(|e| e.to_string())?;
        Ok(true)
    }

    /// Gives a file of their own to those that go on with the template's old text; not to those
    /// whose write is due in this pass.
    async fn make_room(
        &mut self,
        template: &UnitName,
        instance: &UnitName,
        hash: &ShortHash,
    ) -> Result<(), String> {
        let stays = |name: &UnitName| name != instance && !self.rewriting.contains(name);
        let other = |name: &&UnitName| {
            stays(name) && self.instances.marker(name).is_some_and(|marker| marker.hash != *hash)
        };
        let others: Vec<UnitName> =
            self.instances.sharers(template).filter(other).cloned().collect();
        for name in others {
            self.systemd.unshare(&name.systemd_name()).await.map_err(|e| e.to_string())?;
            let Some(mut marker) = self.instances.marker(&name).cloned() else { continue };
            marker.shared = false;
            self.instances.set_marker(&name, marker).map_err(|e| e.to_string())?;
        }
        Ok(())
    }
}

/// systemd's words for yes.
fn is_yes(value: &str) -> bool {
    ["1", "yes", "y", "true", "t", "on"].iter().any(|yes| value.trim().eq_ignore_ascii_case(yes))
}

/// Whether `unit` is the template that counts `instance`.
fn is_replica(instance: &UnitName, unit: &UnitName) -> bool {
    unit.is_template() && instance.template().as_ref() == Some(unit)
}
