//! How much a child has written.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A child with more files than this is treated as one that filled its scratch folder.
const MAX_FILES: usize = 20_000;

/// Whether the files under `folder` hold more than `limit_bytes` of disk, or are absurdly many.
///
/// `RLIMIT_FSIZE` bounds one file; this bounds them all. A file that was unlinked while open is not seen: there can be
/// no more of those than open descriptors, each under the limit. What vanishes while it is looked at counts nothing.
pub(super) fn overflows(folder: &Path, limit_bytes: u64) -> bool {
    let mut folders = vec![folder.to_path_buf()];
    let (mut bytes, mut files) = (0_u64, 0_usize);
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let Ok(facts) = entry.metadata() else { continue };
            files += 1;
            // st_blocks counts units of 512 bytes whatever the file system's block is (stat(2)).
            bytes = bytes.saturating_add(facts.blocks() * 512);
            if bytes > limit_bytes || files > MAX_FILES {
                return true;
            }
            if facts.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_count_together_and_holes_do_not_count() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("v1080")).unwrap();
        std::fs::write(folder.path().join("a"), vec![1; 200_000]).unwrap();
        std::fs::write(folder.path().join("v1080/b"), vec![1; 200_000]).unwrap();
        std::fs::File::create(folder.path().join("hole")).unwrap().set_len(1 << 30).unwrap();
        assert!(overflows(folder.path(), 300_000));
        assert!(!overflows(folder.path(), 1_000_000));
    }
}
