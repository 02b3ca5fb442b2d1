//! Files that are always whole: written under another name, to the disk, and renamed.
//!
//! Owns that order, and that a file which could not be written leaves the old one as it was. Never decides what is in it.

use std::fs::{self, File, Metadata};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The folder of a file.
pub fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A path with something after its name.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Puts a text in a file's place; when this returns, it is on the disk. `like`: the file whose owner and permissions it takes;
/// without one, only its owner may read it.
///
/// # Errors
/// The first step that failed; the file is as it was.
pub fn replace(path: &Path, text: &[u8], like: Option<&Metadata>) -> io::Result<()> {
    let draft = with_suffix(path, &format!(".{}.new", std::process::id()));
    let _ = fs::remove_file(&draft);
    let write = || -> io::Result<()> {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&draft)?;
        if let Some(like) = like {
            // The permissions first: who has given a file away may not be allowed to change them any more.
            file.set_permissions(fs::Permissions::from_mode(like.permissions().mode() & 0o7777))?;
            let own = file.metadata()?;
            if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
                std::os::unix::fs::fchown(&file, Some(like.uid()), Some(like.gid()))?;
            }
        }
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        File::open(folder(path))?.sync_all()
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&draft);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_or_stays() {
        let folder = std::env::temp_dir().join(format!("evenkeel-whole-file-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("lb.toml");
        replace(&path, b"one", None).expect("is written");
        assert_eq!(fs::metadata(&path).expect("is there").mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("is ours");
        let like = fs::metadata(&path).expect("is there");
        replace(&path, b"two", Some(&like)).expect("is written");
        let now = fs::metadata(&path).expect("is there");
        assert_eq!((fs::read(&path).expect("is read"), now.mode() & 0o777), (b"two".to_vec(), 0o640));
        let nowhere = folder.join("no").join("lb.toml");
        assert!(replace(&nowhere, b"three", None).is_err());
        let left: Vec<_> = fs::read_dir(&folder).expect("is read").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["lb.toml"]);
        fs::remove_dir_all(&folder).expect("is ours");
    }
}
