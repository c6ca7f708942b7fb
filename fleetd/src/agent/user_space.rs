//! A soft-reboot: `/run` is as it was, with all that fleet wrote, and what ran is stopped, by
//! nobody's wish. systemd itself may have started some of it again, by an `[Install]` section.

use std::collections::BTreeMap;

use fleet_core::converge::{Marker, Seen};
use fleet_core::name::UnitName;
use futures_util::future::join_all;
use tracing::{debug, info, warn};

use super::Agent;
use crate::systemd::SystemdError;

/// About how many units systemd is asked in one pass.
const QUESTIONS: usize = 64;

impl Agent {
    /// Notes which start of user space it is.
    pub(super) async fn enter_user_space(&mut self) -> Result<(), SystemdError> {
        let stamp = self.systemd.user_space().await?;
        match self.instances.enter_user_space(stamp) {
            Ok(()) => self.in_this_user_space = true,
            Err(error) => warn!("cannot note which start of user space it is: {error}"),
        }
        Ok(())
    }

    /// Finds out of what was launched in an earlier start of user space how it fares in this one:
    /// what is at rest is to start again, but for what systemd has run already. Answers whether
    /// there is more to ask soon.
    pub(super) async fn look_back(&mut self, host: &mut BTreeMap<UnitName, Seen>) -> bool {
        let (mut known, mut asked) = (Vec::new(), Vec::new());
        for (name, seen) in host.iter_mut() {
            let Some(marker) = seen.marker.as_ref().filter(|marker| marker.earlier) else {
                continue;
            };
            let runs = match &seen.systemd {
                Some(state) if state.job => continue, // it is about to be known
                Some(state) => state.active != "inactive",
                None => false,
            };
            // What ends by itself may have run to its end; what runs on would be up.
            if !runs && marker.has_done_its_work() && (marker.oneshot || marker.enabled) {
                seen.asking = true;
                asked.push(name.clone());
            } else {
                known.push((name.clone(), runs));
            }
        }
        let more = asked.len() > QUESTIONS;
        asked.truncate(QUESTIONS);
        let systemd = &self.systemd;
        let answers = join_all(asked.iter().map(|name| async {
            let ran = systemd.has_run(&name.systemd_name()).await;
            (name.clone(), ran)
        }));
        let mut news = more;
        for (name, ran) in answers.await {
            match ran {
                Ok(ran) => {
                    if ran {
                        info!(unit = %name, "systemd has run {name} since the soft-reboot");
                    }
                    known.push((name, ran));
                }
                Err(error) => {
                    debug!("{error}");
                    news = true;
                }
            }
        }
        for (name, ran) in known {
            let Some(seen) = host.get_mut(&name) else { continue };
            let Some(marker) = seen.marker.take() else { continue };
            let stopping = marker.stopping || !ran;
            let marker = Marker { earlier: false, stopping, ..marker };
            self.keep(&name, marker.clone());
            (seen.marker, seen.asking) = (Some(marker), false);
        }
        news
    }
}
