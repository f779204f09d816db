//! The test hosts themselves: what the other tests rely on.

use std::time::Duration;

use anyhow::Result;
use bed::Bed;

const NAMES: [&str; 2] = ["h1", "h2"];

#[test]
fn hosts_boot_and_every_switch_does_what_it_says() -> Result<()> {
    let bed = Bed::boot(&NAMES)?;
    let [one, two] = NAMES.map(|name| bed.host(name));
    assert_eq!(one.ssh("systemctl is-system-running --wait || true; hostname")?.lines().last(), Some("h1"));
    let as_ops = one.command_as_ops("sudo id -un").output()?;
    assert_eq!(String::from_utf8_lossy(&as_ops.stdout).trim(), "root");

    let ping = format!("ping -c1 -W1 {}", two.address());
    one.ssh(&ping)?;
    two.cut()?;
    assert!(one.ssh(&ping).is_err(), "a cut host answers");
    two.heal()?;
    one.until(&ping, Duration::from_mins(1))?;
    bed.partition("h1", "h2")?;
    assert!(one.ssh(&ping).is_err(), "a host beyond a partition answers");
    bed.unite()?;
    one.until(&ping, Duration::from_mins(1))?;

    two.freeze()?;
    assert!(two.ssh("true").is_err(), "a frozen host answers");
    two.thaw()?;
    two.wait()?;

    let boot = two.boot_id()?;
    two.reboot()?;
    two.wait()?;
    assert_ne!(two.boot_id()?, boot, "the same boot after a reboot");

    two.power_cut()?;
    two.save("clean")?;
    two.power_on()?;
    two.wait()?;
    two.ssh("touch /etc/dirty /var/dirty")?;
    two.power_cut()?;
    two.restore("clean")?;
    two.power_on()?;
    two.wait()?;
    assert_eq!(two.ssh("ls -d /etc/dirty /var/dirty 2>/dev/null || true")?, "");
    Ok(())
}

#[test]
fn beds_stand_side_by_side() -> Result<()> {
    let one = Bed::boot(&["h1"])?;
    let other = Bed::boot(&["h1"])?;
    one.host("h1").ssh("touch /etc/first")?;
    assert!(other.host("h1").ssh("test -e /etc/first").is_err());
    drop(one);
    other.host("h1").ssh("true")?;
    Ok(())
}
