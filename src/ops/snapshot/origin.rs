//! A snapshot's bytes, wherever they lie.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::ops::OpsError;
use crate::ops::snapshot::Listed;
use crate::ops::snapshot::Place;
use crate::ops::snapshot::Site;
use crate::ops::snapshot::pipe::Door;
use crate::ops::snapshot::pipe::Remote;
use crate::ops::snapshot::site;
use crate::store;

/// What a snapshot is read from. Only for threads that may block.
pub(in crate::ops) trait Input: std::io::Read + std::io::Seek + Send {}
impl<T: std::io::Read + std::io::Seek + Send> Input for T {}

/// One copy of a snapshot, which can be read any number of times.
#[derive(Clone)]
pub(in crate::ops) enum Origin {
    /// In a file here.
    File(PathBuf),
    /// On a host or in the bucket.
    Remote(Box<Remote>),
}

impl Origin {
    /// The copy at `place`.
    pub(in crate::ops) fn of(site: &Site, place: &Place, listed: &Listed) -> Result<Self, OpsError> {
        let door = match place {
            Place::Local { path } => return Ok(Self::File(path.clone())),
            Place::Host { host } => {
                let silent = || OpsError::Impossible(format!("{host}: does not answer"));
                let machine = Arc::clone(site.fleet.get(host).ok_or_else(silent)?);
                Door::Host(machine, site::folder()?, listed.file.clone())
            }
            Place::Bucket { .. } => Door::Bucket(site.bucket()?, listed.file.clone()),
        };
        Ok(Self::Remote(Box::new(Remote::new(door, listed.size, Handle::current()))))
    }

    /// From its beginning.
    pub(in crate::ops) fn open(&self) -> Result<Box<dyn Input>, OpsError> {
        Ok(match self {
            Self::File(path) => Box::new(store::open_file(path)?),
            Self::Remote(remote) => Box::new((**remote).clone()),
        })
    }

    /// For people: a path here, a host and a path on it, or an object's address.
    pub(in crate::ops) fn path(&self) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Remote(remote) => remote.door.path().into(),
        }
    }
}
