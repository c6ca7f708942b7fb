//! Which container images are on this host, by podman's own list of them.
//!
//! fleetd's service may write nothing that podman needs to write, so podman is not asked here: a
//! service that pulls asks it. The list spares that service where the image is there.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

/// Where root's podman lists its images, by default.
const LIST: &str = "/var/lib/containers/storage/overlay-images/images.json";

/// A list of thousands of images is not read: it is some hundred bytes an image.
const LONGEST_LIST: u64 = 4 * 1024 * 1024;

#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    names: Vec<String>,
}

/// Whether podman has an image of this name, as
/// [`Image::full_name`](fleet_core::unit::image::Image::full_name) gives it. False also where that
/// cannot be told, as with another `graphroot=`.
pub fn is_there(name: &str) -> bool {
    is_listed(Path::new(LIST), name)
}

fn is_listed(list: &Path, name: &str) -> bool {
    let Ok(file) = File::open(list) else { return false };
    let mut text = Vec::new();
    if file.take(LONGEST_LIST).read_to_end(&mut text).is_err() {
        return false;
    }
    let images: Vec<Listed> = serde_json::from_slice(&text).unwrap_or_default();
    images.iter().flat_map(|image| &image.names).any(|listed| listed == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_there_if_podmans_list_has_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("images.json");
        assert!(!is_listed(&list, "h1:5000/web:1"));
        let text = r#"[{"id":"a","digest":"sha256:1","names":["h1:5000/web:1","localhost/b:2"]},
            {"id":"b"}]"#;
        std::fs::write(&list, text).unwrap();
        assert!(is_listed(&list, "h1:5000/web:1") && is_listed(&list, "localhost/b:2"));
        assert!(!is_listed(&list, "h1:5000/web"));
        std::fs::write(&list, "[{").unwrap();
        assert!(!is_listed(&list, "h1:5000/web:1"), "half a list says nothing");
    }
}
