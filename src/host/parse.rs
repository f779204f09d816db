//! What `scripts/observe.sh` printed, read into [`ObservedHost`]. Pure; whatever a host answers is a value or an error.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde_json::Value;

use crate::model::Access;
use crate::model::Component;
use crate::model::Content;
use crate::model::Digest;
use crate::model::HostName;
use crate::model::HostRecord;
use crate::model::ImageRef;
use crate::model::Lacks;
use crate::model::LockHolder;
use crate::model::ObservedFile;
use crate::model::ObservedHost;
use crate::model::ObservedUnit;
use crate::model::RemotePath;
use crate::model::Scope;
use crate::model::Squatter;
use crate::model::UnitName;

/// Containers of RKE v1 (rke v1.6: services/*.go, cluster/network.go), by name or by prefix.
const RKE_CONTAINERS: [&str; 11] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "nginx-proxy",
    "service-sidekick",
    "etcd-rolling-snapshots",
    "cert-deployer",
    "rke-",
];

/// The scope as `observe.sh` reads it from stdin.
pub(crate) fn scope_text(scope: &Scope) -> String {
    let mut lines = Vec::new();
    let mut add = |kind: &str, values: &mut dyn Iterator<Item = String>| {
        lines.extend(values.map(|value| format!("{kind} {value}\n")));
    };
    add("file", &mut scope.files.iter().map(ToString::to_string));
    add("seeded", &mut scope.seeded.iter().map(ToString::to_string));
    add("directory", &mut scope.directories.iter().map(ToString::to_string));
    add("unit", &mut scope.units.iter().map(ToString::to_string));
    // A name that no user can have is not looked for.
    let users = scope.users.iter().filter(|user| !user.is_empty() && !user.contains(char::is_whitespace));
    add("user", &mut users.cloned());
    add("uid", &mut scope.uids.iter().map(ToString::to_string));
    add("port", &mut scope.ports.iter().map(ToString::to_string));
    lines.push("end -\n".to_owned());
    lines.concat()
}

/// Reads an answer, or says which part of it makes no sense.
pub(crate) fn observed(node: &HostName, scope: &Scope, answer: &[u8]) -> Result<ObservedHost, String> {
    let text = std::str::from_utf8(answer).map_err(|_| "it is not text".to_owned())?;
    let sections = Sections::split(text)?;
    let mut host = facts(&sections)?;
    host.record = record(&sections)?;
    let none = BTreeMap::new();
    let recorded = host.record.as_ref().map_or(&none, |record| &record.files);
    let file =
        |path: &RemotePath| scope.files.contains(path) || scope.seeded.contains(path) || recorded.contains_key(path);
    let mut digests = digests(sections.lines("sha256"))?;
    for line in sections.lines("stat") {
        let (path, kind, access) = stat(line).ok_or_else(|| format!("stat line {line:?}"))?;
        match (kind, file(&path)) {
            (Kind::File, true) => {
                let digest = digests.remove(&path).ok_or_else(|| format!("{path} cannot be read"))?;
                let certificate = scope.seeded.contains(&path).then(|| sections.certificate(&path)).flatten();
                host.files.insert(path, ObservedFile { digest, access, certificate });
            }
            (Kind::Folder, false) => {
                host.directories.insert(path, access);
            }
            (Kind::Folder, true) => return Err(format!("{path} is a folder, not a file")),
            (Kind::File, false) => return Err(format!("{path} is a file, not a folder")),
            (Kind::Other, _) => return Err(format!("{path} is neither a file nor a folder")),
        }
    }
    host.units = units(&sections)?;
    users(&sections, scope, &mut host)?;
    host.images = sections.lines("images").filter_map(image).collect();
    host.pods = pods(node, sections.text("pods"))?;
    host.etcd_gone = sections.lines("etcd").any(|line| line == "gone");
    host.lock = holder(sections.text("lock"))?;
    host.squatters = squatters(&sections, scope);
    Ok(host)
}

/// The holder in JSON, where there is one.
pub(crate) fn holder(text: &str) -> Result<Option<LockHolder>, String> {
    match text.trim() {
        "" => Ok(None),
        json => serde_json::from_str(json).map(Some).map_err(|error| format!("lock: {error}")),
    }
}

/// Parts of the answer by name.
struct Sections<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Sections<'a> {
    fn split(text: &'a str) -> Result<Self, String> {
        let mut sections = BTreeMap::new();
        let mut rest = text.strip_prefix("== ").ok_or("it does not begin as it should")?;
        loop {
            let (name, after) = rest.split_once('\n').ok_or("it is cut off")?;
            if name == "end" {
                return Ok(Self(sections));
            }
            // An empty section has no line of its own between its head and the next one.
            let (body, next) = if let Some(next) = after.strip_prefix("== ") {
                ("", next)
            } else {
                let end = after.find("\n== ").ok_or("it is cut off")?;
                (&after[..=end], &after[end + "\n== ".len()..])
            };
            if sections.insert(name, body).is_some() {
                return Err(format!("section {name:?} comes twice"));
            }
            rest = next;
        }
    }
    fn text(&self, name: &str) -> &'a str {
        self.0.get(name).copied().unwrap_or_default()
    }
    fn lines(&self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.text(name).lines().filter(|line| !line.is_empty())
    }
    fn certificate(&self, path: &RemotePath) -> Option<String> {
        let text = self.0.get(format!("certificate {path}").as_str())?;
        text.contains("-----END CERTIFICATE-----").then(|| (*text).to_owned())
    }
}

fn facts(sections: &Sections<'_>) -> Result<ObservedHost, String> {
    let wrong = || "its facts".to_owned();
    let mut lines = sections.lines("facts");
    let mut next = || lines.next().ok_or_else(wrong);
    let names: Vec<&str> = next()?.split(' ').collect();
    let [hostname, kernel, architecture] = names[..] else { return Err(wrong()) };
    let boot_id = next()?;
    let clock = next()?.parse().map_err(|_| wrong())?;
    let (blocks, block) = next()?.split_once(' ').ok_or_else(wrong)?;
    let (blocks, block): (u64, u64) = (blocks.parse().map_err(|_| wrong())?, block.parse().map_err(|_| wrong())?);
    let cgroup_v2 = next()? == "v2";
    let swap = lines.next().is_some_and(|count| count != "0");
    let mut none = || lines.next() == Some("0");
    let lacks = Lacks { default_route: none(), name_server: none() };
    let os = |key: &str| {
        let value = sections.lines("os").find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
    };
    let systemd = sections.lines("systemd").next().and_then(|line| line.split(' ').nth(1)).unwrap_or("0");
    let digits = systemd.find(|c: char| !c.is_ascii_digit()).unwrap_or(systemd.len());
    Ok(ObservedHost {
        os: format!("{} {}", os("ID"), os("VERSION_ID")).trim().to_owned(),
        kernel: kernel.to_owned(),
        architecture: architecture.to_owned(),
        hostname: hostname.to_owned(),
        boot_id: boot_id.to_owned(),
        clock,
        systemd: systemd[..digits].parse().unwrap_or(0),
        cgroup_v2,
        swap,
        lacks,
        free_bytes: blocks.saturating_mul(block),
        ..ObservedHost::default()
    })
}

fn record(sections: &Sections<'_>) -> Result<Option<HostRecord>, String> {
    let text = sections.text("record").trim();
    if text.is_empty() {
        return Ok(None);
    }
    let record: HostRecord = serde_json::from_str(text).map_err(|error| format!("record.json: {error}"))?;
    // The script reads the paths line by line. Where somebody laid the file out anew it would miss some.
    let seen: BTreeSet<&str> = sections.lines("recorded").collect();
    if seen != record.files.keys().map(RemotePath::as_str).collect() {
        return Err("record.json is not laid out as bastide writes it".to_owned());
    }
    Ok(Some(record))
}

#[derive(Clone, Copy)]
enum Kind {
    File,
    Folder,
    Other,
}

/// `MODE UID GID RAWMODE PATH` of `stat -c '%a %u %g %f %n'`.
fn stat(line: &str) -> Option<(RemotePath, Kind, Access)> {
    let mut fields = line.splitn(5, ' ');
    let mode = u32::from_str_radix(fields.next()?, 8).ok()?;
    let uid = fields.next()?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    // File type bits, inode(7).
    let kind = match u32::from_str_radix(fields.next()?, 16).ok()? & 0o170_000 {
        0o100_000 => Kind::File,
        0o040_000 => Kind::Folder,
        _ => Kind::Other,
    };
    Some((RemotePath::new(fields.next()?).ok()?, kind, Access { mode, uid, gid }))
}

fn digests<'a>(lines: impl Iterator<Item = &'a str>) -> Result<BTreeMap<RemotePath, Digest>, String> {
    lines
        .map(|line| {
            let (digest, path) = line.split_once("  ").ok_or_else(|| format!("digest line {line:?}"))?;
            let path = RemotePath::new(path).map_err(|error| error.to_string())?;
            Ok((path, digest.parse().map_err(|_| format!("digest line {line:?}"))?))
        })
        .collect()
}

fn units(sections: &Sections<'_>) -> Result<BTreeMap<UnitName, ObservedUnit>, String> {
    let mut inputs = BTreeMap::new();
    for line in sections.lines("inputs") {
        // A marker that was damaged says nothing: the unit is started again.
        if let Some((unit, digest)) = line.split_once(' ')
            && let Ok(digest) = digest.parse::<Digest>()
        {
            inputs.insert(unit, digest);
        }
    }
    let names: Vec<&str> = sections.lines("units").collect();
    let states = sections.text("unit states").trim();
    if states.is_empty() {
        return Ok(BTreeMap::new());
    }
    let blocks: Vec<&str> = states.split("\n\n").collect();
    if blocks.len() != names.len() {
        return Err(format!("{} unit states for {} units", blocks.len(), names.len()));
    }
    let mut units = BTreeMap::new();
    for (name, block) in names.into_iter().zip(blocks) {
        let property =
            |key: &str| block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default();
        if property("LoadState") == "not-found" {
            continue;
        }
        let unit = ObservedUnit {
            active: property("ActiveState") == "active",
            enabled: property("UnitFileState") == "enabled",
            failed: property("ActiveState") == "failed",
            inputs: inputs.get(name).copied(),
        };
        units.insert(UnitName::new(name).map_err(|error| error.to_string())?, unit);
    }
    Ok(units)
}

fn users(sections: &Sections<'_>, scope: &Scope, host: &mut ObservedHost) -> Result<(), String> {
    for line in sections.lines("users") {
        let fields: Vec<&str> = line.split(':').collect();
        let numbers = |at: usize| fields.get(at).and_then(|field| field.parse::<u32>().ok());
        let (Some(name), Some(uid), Some(gid)) = (fields.first(), numbers(2), numbers(3)) else {
            return Err(format!("user line {line:?}"));
        };
        if scope.users.contains(*name) {
            host.users.insert((*name).to_owned(), (uid, gid));
        } else if scope.uids.contains(&uid) {
            host.taken_uids.insert(uid, (*name).to_owned());
        }
    }
    Ok(())
}

/// `REF TYPE DIGEST ...` of `ctr images ls`. Names that are not of the form `registry/name:tag` are somebody else's.
fn image(line: &str) -> Option<(ImageRef, Digest)> {
    let mut fields = line.split_whitespace();
    let name = ImageRef::new(fields.next()?).ok()?;
    Some((name, fields.nth(1)?.parse().ok()?))
}

/// Static pods of `crictl pods -o json` by their name in the manifest, each with its newest sandbox's inputs.
fn pods(node: &HostName, text: &str) -> Result<BTreeMap<String, Option<Digest>>, String> {
    if text.trim().is_empty() {
        return Ok(BTreeMap::new());
    }
    let answer: Value = serde_json::from_str(text).map_err(|error| format!("crictl's answer: {error}"))?;
    let suffix = format!("-{node}");
    let mut newest: BTreeMap<String, (i64, Option<Digest>)> = BTreeMap::new();
    for item in answer["items"].as_array().into_iter().flatten() {
        let annotation = |name: &str| item["annotations"][name].as_str();
        // Set by the kubelet on every pod that comes from its manifest folder.
        if annotation("kubernetes.io/config.source") != Some("file") {
            continue;
        }
        let Some(name) = item["metadata"]["name"].as_str() else { continue };
        let name = name.strip_suffix(&suffix).unwrap_or(name).to_owned();
        let created = item["createdAt"].as_str().and_then(|text| text.parse().ok());
        let created = created.or_else(|| item["createdAt"].as_i64()).unwrap_or(0);
        let inputs = annotation(Component::INPUTS_ANNOTATION).and_then(|digest| digest.parse().ok());
        if newest.get(&name).is_none_or(|(other, _)| *other <= created) {
            newest.insert(name, (created, inputs));
        }
    }
    Ok(newest.into_iter().map(|(name, (_, inputs))| (name, inputs)).collect())
}

fn squatters(sections: &Sections<'_>, scope: &Scope) -> Vec<Squatter> {
    let processes = sections.lines("processes").map(|name| Squatter::Process(name.to_owned()));
    let rke = |name: &&str| {
        RKE_CONTAINERS.iter().any(|known| name == known || (known.ends_with('-') && name.starts_with(known)))
    };
    let containers = sections.lines("containers").filter(rke).map(|name| Squatter::RkeContainer(name.to_owned()));
    let folders = sections.lines("folders").filter_map(|path| Some(Squatter::Folder(RemotePath::new(path).ok()?)));
    let ports = sections.lines("listeners").filter_map(listener).filter(|port| scope.ports.contains(port));
    let all: BTreeSet<Squatter> = processes.chain(containers).chain(folders).chain(ports.map(Squatter::Port)).collect();
    all.into_iter().collect()
}

/// The port of a listening line of `/proc/net/tcp`, proc_pid_net(5): `sl local:port remote:port 0A ...`.
fn listener(line: &str) -> Option<u16> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let local = fields.get(1)?;
    if *fields.get(3)? != "0A" {
        return None;
    }
    u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()
}

/// What `read.sh` printed; none where it was cut off.
pub(super) fn contents(mut output: &[u8]) -> Option<BTreeMap<RemotePath, Content>> {
    let mut contents = BTreeMap::new();
    loop {
        let end = output.iter().position(|byte| *byte == b'\n')?;
        let line = std::str::from_utf8(&output[..end]).ok()?;
        if line == "end" {
            return Some(contents);
        }
        let (size, path) = line.strip_prefix("file ")?.split_once(' ')?;
        let (content, rest) = output[end + 1..].split_at_checked(size.parse().ok()?)?;
        contents.insert(RemotePath::new(path).ok()?, Content::new(content));
        output = rest.strip_prefix(b"\n")?;
    }
}

#[cfg(test)]
mod tests;
