//! What lies on machines and is asked of them: volumes of podman, and images that their registries
//! have newer.

use serde::{Deserialize, Serialize};

/// A volume of podman that fleet made on a machine, for a `.volume` unit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Volume {
    /// podman's name for it: `systemd-data`.
    pub name: String,
    /// The unit that it was made for: `data.volume`.
    pub unit: String,
    /// The application that this is of, if it is of one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub app: String,
    /// The machine that it is on.
    #[serde(rename = "machineID")]
    pub machine_id: String,
    /// How much it takes on the disk, in bytes; absent if that cannot be told in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// The instances on the machine that use it now; absent if there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub used_by: Vec<String>,
    /// The instance that used it last.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_user: String,
    /// When that was, by the machine's clock, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used_ms: Option<u64>,
}

/// A machine that could not be asked, or not for everything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Unasked {
    /// The machine.
    #[serde(rename = "machineID")]
    pub machine_id: String,
    /// Why.
    pub problem: String,
}

/// `GET /volumes`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct VolumePage {
    /// The volumes, by name and machine.
    pub volumes: Vec<Volume>,
    /// The machines whose volumes, or their sizes, are not known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<Unasked>,
}

/// An image that an instance runs, and whether its registry has another one under that name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ImageCheck {
    /// The instance: `web@1.container`.
    pub unit: String,
    /// The machine that it runs on.
    #[serde(rename = "machineID")]
    pub machine_id: String,
    /// The image's name.
    pub image: String,
    /// What the unit's `AutoUpdate=` says: `registry` or `local`.
    pub policy: String,
    /// podman's word: `pending` if there is another one, `false` if not, `failed` if it cannot be
    /// told.
    pub updated: String,
}

/// `GET /images/check`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ImageCheckPage {
    /// The images, by unit and machine.
    pub images: Vec<ImageCheck>,
    /// The machines that could not be asked, or not for every image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<Unasked>,
}
