//! Units with an `[Install]` section: enabled many at once, between the writing of their files and
//! their first start.

use std::collections::BTreeSet;

use fleet_core::converge::{Marker, Trouble};
use fleet_core::name::UnitName;
use fleet_core::unit::file::UnitFile;
use fleet_core::unit::intake;
use tracing::warn;

use super::Agent;
use crate::systemd::SystemdError;

/// How many units one call enables: systemd does nothing else meanwhile.
const ENABLED_AT_ONCE: usize = 100;

/// A unit whose files are written and that is not noted yet.
pub(super) struct Written {
    pub(super) instance: UnitName,
    pub(super) marker: Marker,
    /// Whether fleet had written no such unit here before.
    pub(super) is_new: bool,
}

impl Agent {
    /// Whether enabling `instance` leaves the host's own units alone: it would put a link in place
    /// of one, or enable one.
    pub(super) async fn spares_the_host(
        &self,
        instance: &UnitName,
        file: &UnitFile,
    ) -> Result<(), String> {
        for (option, other) in intake::install_names(instance, file)? {
            let path = self
                .systemd
                .host_defines(&other.systemd_name())
                .await
                .map_err(|e| e.to_string())?;
            let rule =
                if option == "Alias" { "takes the place of none" } else { "enables only its own" };
            if let Some(path) = path {
                return Err(format!(
                    "{option}={other}: this machine has a {other} of its own ({path}); fleet {rule}"
                ));
            }
        }
        Ok(())
    }

    /// Notes what is written.
    pub(super) async fn note_written(
        &mut self,
        Written { instance, marker, .. }: Written,
    ) -> Result<(), String> {
        if self.instances.marker(&instance).is_none_or(|old| old.hash != marker.hash) {
            // The failures were the old text's. What follows is the new one's: taken for another
            // text's again, its start would count as nobody's, and settle a period late.
            let trouble = &mut self.instances.of(&instance).trouble;
            let (text, config) = (marker.hash.clone(), trouble.config);
            *trouble = Trouble { text, config, ..Trouble::default() };
        }
        let shared = marker.shared;
        self.instances.set_marker(&instance, marker).map_err(|e| e.to_string())?;
        match instance.systemd_name().template() {
            Some(template) if !shared => self.drop_unshared(&template).await,
            _ => Ok(()),
        }
    }

    /// Enables what was written, many units a call, and notes it. One that systemd refuses holds up
    /// no other.
    pub(super) async fn enable(
        &mut self,
        written: Vec<Written>,
        failed: &mut BTreeSet<UnitName>,
        now_ms: u64,
    ) {
        let names: Vec<UnitName> =
            written.iter().map(|written| written.instance.systemd_name()).collect();
        let mut answers = Vec::with_capacity(names.len());
        let mut away: Option<String> = None;
        for chunk in names.chunks(ENABLED_AT_ONCE) {
            let answer = match &away {
                Some(problem) => Err(SystemdError::Unavailable(problem.clone())),
                None => self.systemd.enable(chunk).await,
            };
            if let Err(SystemdError::Unavailable(problem)) = &answer {
                away = Some(problem.clone());
            }
            match answer {
                Ok(()) => answers.extend(chunk.iter().map(|_| Ok(()))),
                Err(error) if chunk.len() == 1 => answers.push(Err(error)),
                Err(SystemdError::Unavailable(problem)) => {
                    answers.extend(
                        chunk.iter().map(|_| Err(SystemdError::Unavailable(problem.clone()))),
                    );
                }
                // Which of them it is, systemd does not say.
                Err(_) => {
                    for name in chunk {
                        answers.push(self.systemd.enable(std::slice::from_ref(name)).await);
                    }
                }
            }
        }
        for (written, answer) in written.into_iter().zip(answers) {
            let instance = written.instance.clone();
            let noted = match answer {
                Ok(()) => {
                    self.instances.notes.note_links_due();
                    self.note_written(written).await
                }
                Err(error) => {
                    // What was never here leaves nothing; what was keeps its marker, and is written
                    // again.
                    if written.is_new
                        && let Err(problem) = self.remove(&instance).await
                    {
                        warn!(unit = %instance, "{problem}");
                    }
                    Err(error.to_string())
                }
            };
            if let Err(problem) = noted {
                self.fail(&instance, problem, now_ms);
                failed.insert(instance);
            }
        }
    }
}
