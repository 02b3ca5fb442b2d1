//! Files that make a prepared server last over a restart: settings for `sysctl.d`, a unit of systemd.
//!
//! Owns what is in them and where they are. Never enables a unit by a program: the link that `systemctl enable` makes is
//! written like the rest, and goes like the rest.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::wanted::{Step, Wanted, key_of};

const UNIT: &str = "evenkeel-realserver.service";

/// A file to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Where.
    pub path: PathBuf,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Text(String),
    Link(PathBuf),
}

impl File {
    /// Writes it, with the folders above.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        match &self.what {
            What::Text(text) => fs::write(&self.path, text),
            What::Link(target) => {
                if self.path.symlink_metadata().is_ok() {
                    fs::remove_file(&self.path)?;
                }
                symlink(target, &self.path)
            }
        }
    }
}

/// The files for a server below `etc`, in the order in which they are written.
pub fn files(etc: &Path, wanted: &Wanted) -> Vec<File> {
    let program = std::env::current_exe().unwrap_or_else(|_| "/usr/sbin/evenkeel".into());
    let unit = etc.join("systemd/system").join(UNIT);
    let link = etc.join("systemd/system/multi-user.target.wants").join(UNIT);
    vec![
        File { path: etc.join("sysctl.d/60-evenkeel-realserver.conf"), what: What::Text(settings(wanted)) },
        File { path: unit.clone(), what: What::Text(service(wanted, &program)) },
        File { path: link, what: What::Link(unit) },
    ]
}

/// The settings that the kernel has from the beginning: silence before the first address.
fn settings(wanted: &Wanted) -> String {
    let mut text =
        "# Written by `evenkeel realserver prepare --persist`; `evenkeel realserver undo` removes it.\n".to_owned();
    for step in wanted.steps() {
        if let Step::Set { path, value } = step {
            text += &format!("{} = {value}\n", key_of(&path));
        }
    }
    text
}

fn service(wanted: &Wanted, program: &Path) -> String {
    format!(
        "# Written by `evenkeel realserver prepare --persist`; `evenkeel realserver undo` removes it.\n[Unit]\n\
         Description=Service addresses of a real server behind Evenkeel\nAfter=systemd-sysctl.service network-pre.target\n\
         Before=network-online.target\n\n[Service]\nType=oneshot\nRemainAfterExit=yes\n\
         ExecStart={} realserver prepare {}\n\n[Install]\nWantedBy=multi-user.target\n",
        program.display(),
        wanted.options()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Method;

    #[test]
    fn the_files_say_what_was_asked_for() {
        let wanted = Wanted {
            vips: vec!["192.0.2.10".parse().unwrap()],
            method: Method::Ipip,
            interface: "lo".into(),
            over_v6: false,
            gue_port: 6080,
        };
        let settings = settings(&wanted);
        assert!(
            settings.contains("net.ipv4.conf.all.arp_ignore = 1\nnet.ipv4.conf.all.arp_announce = 2\n"),
            "{settings}"
        );
        let unit = service(&wanted, Path::new("/usr/sbin/evenkeel"));
        assert!(
            unit.contains("ExecStart=/usr/sbin/evenkeel realserver prepare --vip 192.0.2.10 --method ipip\n"),
            "{unit}"
        );
        let folder = std::env::temp_dir().join(format!("evenkeel-persist-{}", std::process::id()));
        for _ in 0..2 {
            files(&folder, &wanted).iter().for_each(|file| file.write().unwrap());
        }
        let link = folder.join("systemd/system/multi-user.target.wants").join(UNIT);
        assert!(fs::read_to_string(link).unwrap().contains("ExecStart="));
        fs::remove_dir_all(&folder).unwrap();
    }
}
