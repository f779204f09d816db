use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::Bed;

/// Stands in for programs, ahead of them on the scripts' PATH. It counts the calls that match a pattern and makes them, but
/// for the one that was asked for. There it waits; or a copy breaks off in the middle, all else is not begun, and the script
/// dies. Or it waits at any call of a list, one at a time; there words that [`STEADY`] knows count as equal.
const STAND_IN: &str = r#"#!/bin/sh
me=${0##*/}
for real in "/usr/bin/$me" "/usr/sbin/$me"; do [ ! -x "$real" ] || break; done
if [ ! -f /var/points/at ]; then exec "$real" "$@"; fi
read -r at how pattern < /var/points/at
case "$me $*" in $pattern) ;; *) exec "$real" "$@" ;; esac
exec 7>>/var/points/calls
flock 7
if [ "$how" = each ]; then
  words=$(echo "$me $*" | sed -f /var/points/steady)
  echo "$words" >&7
  point="$(grep -cxF -e "$words" /var/points/calls) $words"
  if [ -e /var/points/reached ] || [ -e /var/points/go ] || ! grep -qxF -e "$point" /var/points/wanted; then
    exec 7>&-
    exec "$real" "$@"
  fi
  echo "$point" > /var/points/reached.new
  /bin/mv /var/points/reached.new /var/points/reached
  exec 7>&-
  until [ -e /var/points/go ]; do sleep 0.05; done
  /bin/rm -f /var/points/reached
  exec "$real" "$@"
fi
echo "$me $*" >&7
if [ "$(wc -l < /var/points/calls)" != "$at" ]; then
  exec 7>&-
  exec "$real" "$@"
fi
exec 7>&-
if [ "$how" = hold ]; then
  : > /var/points/reached
  until [ -e /var/points/go ]; do sleep 0.05; done
  /bin/rm -f /var/points/reached
  exec "$real" "$@"
fi
case $me in
  cp | install)
    for word in "$@"; do from=${to:-} to=$word; done
    head -c $(($(stat -c %s "$from") / 2)) "$from" > "$to"
    ;;
esac
# The script is the process that was entered from outside: its parent is not of this host.
script=$$ mine=
while parent=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$script/status") && [ "$parent" != 0 ]; do
  mine="$mine $script "
  script=$parent
done
children=$(cat "/proc/$script/task/$script/children")
kill -9 "$script"
# What beats beside the work would end by itself some seconds later.
for child in $children; do
  case $mine in *" $child "*) ;; *) kill -9 "$child" 2>/dev/null ;; esac
done
exit 1
"#;

/// Puts `#` in the place of words that are others in each run: digests, names of runs, times. They are words of hexadecimal digits, T and Z,
/// long ones, or less long ones of decimal digits alone.
const STEADY: &str = r"
s/[0-9A-Fa-fTZ]\{16,\}/#/g
:again
s/\(^\|[^0-9A-Fa-fTZ]\)[0-9]\{8,15\}\([^0-9A-Fa-fTZ]\|$\)/\1#\2/
t again
";

/// Places where a host's scripts are held or killed: found by what they do, not by the time at which they do it, so that every
/// machine, fast or slow, comes by all of them.
#[derive(Debug, Clone)]
pub struct Points {
    /// `/var/points` of the host, seen from outside.
    folder: PathBuf,
}

impl Points {
    /// Every program by which scripts change files.
    pub const FILES: &[&str] = &["chmod", "chown", "cp", "install", "mkdir", "mv", "rm", "rmdir", "sync", "tar"];

    /// Puts stand-ins for `programs` onto a host that runs.
    pub fn install(bed: &Bed, host: &str, programs: &[&str]) -> Result<Self> {
        let points = Self::on(bed, host);
        fs::create_dir(&points.folder)?;
        fs::write(points.folder.join("stand-in"), STAND_IN)?;
        fs::write(points.folder.join("steady"), STEADY)?;
        let names = programs.join(" ");
        let script = format!("for name in {names}; do install -m 755 /var/points/stand-in /usr/local/sbin/$name; done");
        bed.host(host).ssh(&script)?;
        Ok(points)
    }

    /// Those of a host that has them.
    pub fn on(bed: &Bed, host: &str) -> Self {
        Self { folder: bed.folder().join(host).join("var/points") }
    }

    /// From now on calls are counted, and none is stopped.
    pub fn watch(&self) -> Result<()> {
        self.arm("0 hold *")
    }

    /// From now on calls are counted, and the script that makes the `nth` dies there.
    pub fn kill_at(&self, nth: usize) -> Result<()> {
        self.arm(&format!("{nth} kill *"))
    }

    /// From now on calls are counted that match the shell's `pattern`, and the `nth` waits before it begins.
    pub fn hold_at(&self, nth: usize, pattern: &str) -> Result<()> {
        self.arm(&format!("{nth} hold {pattern}"))
    }

    /// From now on calls are counted, and whichever first stands in `wanted` waits before it begins: `3 mv a b` is the third `mv a b`, with
    /// `#` for what is another in each run.
    pub fn hold_at_any(&self, wanted: &[String]) -> Result<()> {
        fs::write(self.folder.join("wanted"), wanted.join("\n") + "\n")?;
        self.arm("0 each *")
    }

    /// What is held, as it stands in the list.
    pub fn held(&self) -> Result<Option<String>> {
        match fs::read_to_string(self.folder.join("reached")) {
            Ok(text) => Ok(Some(text.trim_end().to_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn arm(&self, what: &str) -> Result<()> {
        for name in ["reached", "go"] {
            remove(&self.folder.join(name))?;
        }
        fs::write(self.folder.join("calls"), "")?;
        // Whole, as a stand-in reads it at any moment.
        fs::write(self.folder.join("at.new"), format!("{what}\n"))?;
        Ok(fs::rename(self.folder.join("at.new"), self.folder.join("at"))?)
    }

    /// Whether the call to be held was made.
    pub fn reached(&self) -> bool {
        self.folder.join("reached").exists()
    }

    /// The call that is held goes on. It was seen to, unless whoever made it ended it meanwhile.
    pub fn go_on(&self) -> Result<()> {
        fs::write(self.folder.join("go"), "")?;
        // Whoever is held looks every 50 ms.
        for _ in 0..100 {
            if !self.reached() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Counts no more, and returns the calls that were made: program and arguments.
    pub fn calls(&self) -> Result<Vec<String>> {
        remove(&self.folder.join("at"))?;
        Ok(fs::read_to_string(self.folder.join("calls"))?.lines().map(str::to_owned).collect())
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
