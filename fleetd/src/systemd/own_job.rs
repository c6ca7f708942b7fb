//! Why systemd is ending this very process: its own job tells a stop from a restart.

use fleet_core::name::UnitName;
use zbus::zvariant::{OwnedObjectPath, OwnedValue};

use super::SystemdError;
use super::dbus::Bus;

const SYSTEMD: &str = "org.freedesktop.systemd1";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// The type of the job that systemd runs for `unit` now: `stop`, `restart`, `start`…; `None` if there is no job.
///
/// Asked once, on SIGTERM, over a connection of its own: by then the agent's may be busy.
pub async fn own_job(bus: &Bus, unit: &UnitName) -> Result<Option<String>, SystemdError> {
    let away = |error: zbus::Error| SystemdError::Unavailable(error.to_string());
    let bus = bus.connect(None).await.map_err(away)?;
    let manager = "/org/freedesktop/systemd1";
    let reply = bus
        .call_method(Some(SYSTEMD), manager, Some("org.freedesktop.systemd1.Manager"), "GetUnit", &(unit.as_str(),))
        .await
        .map_err(away)?;
    let path: OwnedObjectPath = reply.body().deserialize().map_err(away)?;
    let job = get(&bus, path.as_str(), "org.freedesktop.systemd1.Unit", "Job").await.map_err(away)?;
    let (id, job): (u32, OwnedObjectPath) = job.try_into().map_err(|error: zbus::zvariant::Error| away(error.into()))?;
    if id == 0 {
        return Ok(None);
    }
    let kind = get(&bus, job.as_str(), "org.freedesktop.systemd1.Job", "JobType").await.map_err(away)?;
    Ok(String::try_from(kind).ok())
}

async fn get(bus: &zbus::Connection, path: &str, interface: &str, property: &str) -> Result<OwnedValue, zbus::Error> {
    bus.call_method(Some(SYSTEMD), path, Some(PROPERTIES), "Get", &(interface, property)).await?.body().deserialize()
}
