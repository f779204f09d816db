//! What other rooms' errors become.

use std::path::Path;

use crate::api::ApiError;
use crate::api::probe::ProbeError;
use crate::model::HostName;
use crate::ops::OpsError;

impl From<ApiError> for OpsError {
    fn from(error: ApiError) -> Self {
        Self::Api(Box::new(error))
    }
}

impl OpsError {
    /// What came back from the etcd member on `host`.
    pub(in crate::ops) fn etcd(host: &HostName) -> impl Fn(ProbeError) -> Self + Copy {
        move |error| Self::Etcd { host: host.clone(), source: Box::new(error) }
    }

    /// A file of the operator's and what the system said.
    pub fn local(path: &Path, source: std::io::Error) -> Self {
        Self::Local { path: path.to_owned(), source }
    }
}
