//! Why systemd is ending this very process, and what hangs on it: its own job tells a stop from a
//! restart.

use fleet_core::name::UnitName;
use zbus::zvariant::{OwnedObjectPath, OwnedValue};

use super::SystemdError;
use super::dbus::Bus;

const SYSTEMD: &str = "org.freedesktop.systemd1";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// The type of the job that systemd runs for `unit` now: `stop`, `restart`, `start`…; `None` if
/// there is no job.
///
/// Asked once, on SIGTERM, over a connection of its own: by then the agent's may be busy.
pub async fn own_job(bus: &Bus, unit: &UnitName) -> Result<Option<String>, SystemdError> {
    let away = |error: zbus::Error| SystemdError::Unavailable(error.to_string());
    let bus = bus.connect(None).await.map_err(away)?;
    let path = path_of(&bus, unit.as_str()).await.map_err(away)?;
    let job = get(&bus, path.as_str(), UNIT, "Job").await.map_err(away)?;
    let (id, job): (u32, OwnedObjectPath) =
        job.try_into().map_err(|error: zbus::zvariant::Error| away(error.into()))?;
    if id == 0 {
        return Ok(None);
    }
    let kind =
        get(&bus, job.as_str(), "org.freedesktop.systemd1.Job", "JobType").await.map_err(away)?;
    Ok(String::try_from(kind).ok())
}

/// The units that are bound to `unit` (`BindsTo=`), each with its active state.
pub async fn bound_units(
    bus: &Bus,
    unit: &UnitName,
) -> Result<Vec<(String, String)>, SystemdError> {
    let away = |error: zbus::Error| SystemdError::Unavailable(error.to_string());
    let bus = bus.connect(None).await.map_err(away)?;
    let path = match path_of(&bus, unit.as_str()).await {
        Err(zbus::Error::MethodError(error, ..)) if error == NO_SUCH_UNIT => return Ok(Vec::new()), // nobody knows it, so nothing is
        path => path.map_err(away)?,
    };
    let names = get(&bus, path.as_str(), UNIT, "BoundBy").await.map_err(away)?;
    let names: Vec<String> =
        names.try_into().map_err(|error: zbus::zvariant::Error| away(error.into()))?;
    let mut bound = Vec::with_capacity(names.len());
    for name in names {
        let path = match path_of(&bus, &name).await {
            Err(zbus::Error::MethodError(error, ..)) if error == NO_SUCH_UNIT => continue, // it has ended meanwhile
            path => path.map_err(away)?,
        };
        let active = get(&bus, path.as_str(), UNIT, "ActiveState").await.map_err(away)?;
        bound.push((name, String::try_from(active).unwrap_or_default()));
    }
    Ok(bound)
}

async fn path_of(bus: &zbus::Connection, unit: &str) -> Result<OwnedObjectPath, zbus::Error> {
    let manager = "/org/freedesktop/systemd1";
    let reply = bus
        .call_method(
            Some(SYSTEMD),
            manager,
            Some("org.freedesktop.systemd1.Manager"),
            "GetUnit",
            &(unit,),
        )
        .await?;
    reply.body().deserialize()
}

async fn get(
    bus: &zbus::Connection,
    path: &str,
    interface: &str,
    property: &str,
) -> Result<OwnedValue, zbus::Error> {
    bus.call_method(Some(SYSTEMD), path, Some(PROPERTIES), "Get", &(interface, property))
        .await?
        .body()
        .deserialize()
}
