//! State that is sealed to a key which a plugin of age's holds: a real process over age's plugin protocol. This program is the test
//! and, under the name `age-plugin-drawer`, the plugin: a drawer that opens with a PIN.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::collections::HashMap;
use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;

use age::Identity as _;
use age::Recipient as _;
use age_core::format::FileKey;
use age_core::format::Stanza;
use age_core::secrecy::ExposeSecret as _;
use age_plugin::Callbacks;
use age_plugin::PluginHandler;
use age_plugin::identity;
use age_plugin::recipient;
use bastide::model::ClusterId;
use bastide::model::Content;
use bastide::model::LockHolder;
use bastide::store::Backup;
use bastide::store::Identity;
use bastide::store::PluginTalk;
use bastide::store::Recipients;
use bastide::store::Store;
use bastide::store::StoreError;
use bastide::store::Trust;
use bastide::store::restore_identity;

const NAME: &str = "drawer";
const PIN: &str = "4711";
/// Stands before the recipient of a drawer that will not stand beside others.
const ALONE: &[u8] = b"alone ";
const IN_PATH: &str = "BASTIDE_PLUGIN_IN_PATH";

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(machine) = arguments.iter().find_map(|word| word.strip_prefix("--age-plugin=")) {
        return age_plugin::run_state_machine(machine, Drawer);
    }
    if let [_, verb, name] = &arguments[..]
        && verb == "--new"
    {
        let key = age::x25519::Identity::generate();
        let public = key.to_public().to_string();
        let public = if name == "alone" { [ALONE, public.as_bytes()].concat() } else { public.into_bytes() };
        let plugin = if name == "alone" { NAME } else { name };
        age_plugin::print_new_identity(plugin, key.to_string().expose_secret().as_bytes(), &public);
        return Ok(());
    }
    // What test runners ask beside "run".
    if arguments.iter().any(|word| word == "--list") {
        println!("a_hardware_key_opens_the_state: test");
        return Ok(());
    }
    if std::env::var_os(IN_PATH).is_none() {
        let folder = tempfile::tempdir()?;
        std::os::unix::fs::symlink(std::env::current_exe()?, folder.path().join(format!("age-plugin-{NAME}")))?;
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", folder.path().display());
        let status = Command::new(std::env::current_exe()?).env("PATH", path).env(IN_PATH, "1").status()?;
        assert!(status.success(), "{status}");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    a_key_in_a_drawer_brings_the_identity_back(folder.path());
    println!("test a_key_in_a_drawer_brings_the_identity_back ... ok");
    what_was_sealed_to_others_is_sealed_to_the_drawer_alone(folder.path());
    println!("test what_was_sealed_to_others_is_sealed_to_the_drawer_alone ... ok");
    a_plugin_that_is_missing_or_stands_alone_is_named(folder.path());
    println!("test a_plugin_that_is_missing_or_stands_alone_is_named ... ok");
    Ok(())
}

/// A new key: the recipient, and the line by which the plugin knows the key.
fn new(name: &str) -> (String, Content) {
    let made = Command::new(std::env::current_exe().unwrap()).args(["--new", name]).output().unwrap();
    let text = String::from_utf8(made.stdout).unwrap();
    let recipient = text.lines().find_map(|line| line.strip_prefix("# recipient: ")).unwrap();
    (recipient.to_owned(), Content::new(text.clone()))
}

/// Whoever is asked for the PIN, and what they were asked.
struct Person {
    pin: Option<&'static str>,
    asked: Mutex<Vec<String>>,
}

impl Person {
    fn with(pin: Option<&'static str>) -> Arc<Self> {
        Arc::new(Self { pin, asked: Mutex::new(Vec::new()) })
    }
}

impl PluginTalk for Person {
    fn show(&self, _: &str) {}
    fn confirm(&self, _: &str) -> Option<bool> {
        None
    }
    fn text(&self, _: &str) -> Option<String> {
        None
    }
    fn secret(&self, question: &str) -> Option<Content> {
        self.asked.lock().unwrap().push(question.to_owned());
        self.pin.map(Content::new)
    }
}

fn holder() -> LockHolder {
    LockHolder { run: "1f".to_owned(), who: "anna@laptop".to_owned(), command: "up".to_owned(), since: 0 }
}

/// A state that is sealed to these as well.
fn state(folder: &Path, recipients: &[String]) -> Store {
    let identity = Identity::generate(&ClusterId("0123456789abcdef0123456789abcdef".to_owned())).unwrap();
    let recipients = Recipients::parse(recipients).unwrap();
    Store::create(folder, "demo", identity, recipients, Backup::Recipients, 0, &holder()).unwrap().0
}

fn a_key_in_a_drawer_brings_the_identity_back(folder: &Path) {
    let (recipient, key) = new(NAME);
    assert!(recipient.starts_with("age1drawer1"), "{recipient}");
    let store = state(&folder.join("one"), &[recipient]);
    let copy = store.sealed_copy().unwrap();
    let person = Person::with(Some(PIN));
    let back = restore_identity(&copy, &key, &Trust::OnFirstUse, Some(person.clone())).unwrap();
    assert_eq!(back.signer(), store.identity().signer());
    assert_eq!(*person.asked.lock().unwrap(), ["PIN of the drawer"], "asked once");
    for (whom, why) in [(Some("0000"), "another PIN"), (None, "nobody to ask")] {
        let refused = restore_identity(&copy, &key, &Trust::OnFirstUse, Some(Person::with(whom)));
        assert!(
            matches!(refused, Err(StoreError::Plugin { .. } | StoreError::WrongIdentity { .. })),
            "{why}: {refused:?}"
        );
    }
    let (_, other) = new(NAME);
    let stranger = restore_identity(&copy, &other, &Trust::OnFirstUse, Some(Person::with(Some(PIN))));
    assert!(stranger.is_err(), "another drawer's key opened it");
}

fn what_was_sealed_to_others_is_sealed_to_the_drawer_alone(folder: &Path) {
    let soft = age::x25519::Identity::generate();
    let mut store = state(&folder.join("two"), &[soft.to_public().to_string()]);
    let soft = Content::new(soft.to_string().expose_secret());
    assert!(restore_identity(&store.sealed_copy().unwrap(), &soft, &Trust::OnFirstUse, None).is_ok());
    let (recipient, key) = new(NAME);
    let lock = store.lock(&holder()).unwrap();
    store.rekey(&lock, Recipients::parse(&[recipient]).unwrap(), Backup::Recipients).unwrap();
    let copy = store.sealed_copy().unwrap();
    assert!(restore_identity(&copy, &soft, &Trust::OnFirstUse, None).is_err(), "the former recipient opens it");
    assert!(restore_identity(&copy, &key, &Trust::OnFirstUse, Some(Person::with(Some(PIN)))).is_ok());
}

fn a_plugin_that_is_missing_or_stands_alone_is_named(folder: &Path) {
    let (absent, key) = new("absent");
    // Whoever only reads needs no plugin.
    let store = state(&folder.join("three"), &[absent]);
    let missing = StoreError::PluginMissing { program: "age-plugin-absent".to_owned() };
    assert_eq!(store.sealed_copy().unwrap_err(), missing);
    let (present, _) = new(NAME);
    let copy = state(&folder.join("four"), &[present]).sealed_copy().unwrap();
    assert_eq!(restore_identity(&copy, &key, &Trust::OnFirstUse, None).unwrap_err(), missing);
    let (alone, _) = new("alone");
    let refused = state(&folder.join("five"), &[alone]).sealed_copy().unwrap_err();
    assert!(matches!(&refused, StoreError::Plugin { reason } if reason.contains("beside others")), "{refused}");
}

/// The plugin: what it seals is sealed to an x25519 key, which is in the drawer.
struct Drawer;

impl PluginHandler for Drawer {
    type RecipientV1 = Sealer;
    type IdentityV1 = Opener;

    fn recipient_v1(self) -> io::Result<Sealer> {
        Ok(Sealer::default())
    }
    fn identity_v1(self) -> io::Result<Opener> {
        Ok(Opener::default())
    }
}

#[derive(Default)]
struct Sealer {
    to: Vec<age::x25519::Recipient>,
    alone: bool,
}

impl recipient::RecipientPluginV1 for Sealer {
    fn add_recipient(&mut self, index: usize, name: &str, bytes: &[u8]) -> Result<(), recipient::Error> {
        let bare = bytes.strip_prefix(ALONE);
        self.alone |= bare.is_some();
        let text = std::str::from_utf8(bare.unwrap_or(bytes)).unwrap_or_default();
        match text.parse() {
            Ok(recipient) if name == NAME => self.to.push(recipient),
            _ => return Err(recipient::Error::Recipient { index, message: "no drawer of mine".to_owned() }),
        }
        Ok(())
    }

    fn add_identity(&mut self, index: usize, _: &str, _: &[u8]) -> Result<(), recipient::Error> {
        Err(recipient::Error::Identity { index, message: "seals to recipients alone".to_owned() })
    }

    fn labels(&mut self) -> HashSet<String> {
        self.alone.then(|| "alone".to_owned()).into_iter().collect()
    }

    fn wrap_file_keys(
        &mut self,
        file_keys: Vec<FileKey>,
        _: impl Callbacks<recipient::Error>,
    ) -> io::Result<Result<Vec<Vec<Stanza>>, Vec<recipient::Error>>> {
        let wrap = |key: &FileKey| {
            let stanzas = self.to.iter().flat_map(|recipient| recipient.wrap_file_key(key).unwrap().0);
            // Grease stanzas may stand among them.
            let ours = stanzas.filter(|stanza| stanza.tag == "X25519");
            ours.map(|stanza| Stanza { tag: NAME.to_owned(), ..stanza }).collect()
        };
        Ok(Ok(file_keys.iter().map(wrap).collect()))
    }
}

#[derive(Default)]
struct Opener(Vec<age::x25519::Identity>);

impl identity::IdentityPluginV1 for Opener {
    fn add_identity(&mut self, index: usize, name: &str, bytes: &[u8]) -> Result<(), identity::Error> {
        match std::str::from_utf8(bytes).unwrap_or_default().parse() {
            Ok(key) if name == NAME => self.0.push(key),
            _ => return Err(identity::Error::Identity { index, message: "no key of mine".to_owned() }),
        }
        Ok(())
    }

    fn unwrap_file_keys(
        &mut self,
        files: Vec<Vec<Stanza>>,
        mut callbacks: impl Callbacks<identity::Error>,
    ) -> io::Result<HashMap<usize, Result<FileKey, Vec<identity::Error>>>> {
        let mut opened = HashMap::new();
        for (file, stanzas) in files.into_iter().enumerate() {
            for stanza in stanzas.into_iter().filter(|stanza| stanza.tag == NAME) {
                let pin = callbacks.request_secret("PIN of the drawer")?;
                if !pin.is_ok_and(|pin| pin.expose_secret() == PIN) {
                    let message = "the PIN is wrong".to_owned();
                    opened.insert(
                        file,
                        Err(vec![identity::Error::Stanza { file_index: file, stanza_index: 0, message }]),
                    );
                    continue;
                }
                let stanza = Stanza { tag: "X25519".to_owned(), ..stanza };
                if let Some(Ok(key)) = self.0.iter().find_map(|identity| identity.unwrap_stanza(&stanza)) {
                    opened.insert(file, Ok(key));
                }
            }
        }
        Ok(opened)
    }
}
