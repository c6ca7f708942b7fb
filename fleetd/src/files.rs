//! Small files, written whole or not at all.

use std::io::{self, Write};
use std::path::Path;

/// Replaces `path` by `bytes`: a reader, or a crash, sees the old file or the new one.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = std::fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    std::fs::rename(&temporary, path)
}
