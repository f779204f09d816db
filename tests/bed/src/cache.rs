use std::path::Path;
use std::path::PathBuf;

/// What is kept between runs, outside the checkout: root file systems, built programs, bundles, running beds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache(PathBuf);

impl Cache {
    /// `BASTIDE_BED_CACHE`, else `bastide-bed` in the user's cache folder.
    pub fn from_environment() -> Self {
        let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let user = || folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
        Self(
            folder("BASTIDE_BED_CACHE")
                .unwrap_or_else(|| user().unwrap_or_else(|| "/var/cache".into()).join("bastide-bed")),
        )
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// Programs that every Kubernetes version shares.
    pub fn common(&self) -> PathBuf {
        self.0.join("artifacts/common")
    }

    /// Programs and images of a minor such as `1.37`.
    pub fn kubernetes(&self, minor: &str) -> PathBuf {
        self.0.join(format!("artifacts/k8s-{minor}"))
    }

    /// The bundle of a minor such as `1.37`, made by `cargo xtask bundle`.
    pub fn bundle(&self, minor: &str) -> PathBuf {
        self.0.join("bundles").join(minor)
    }

    /// A root file system by name: `trixie`, `haproxy-trixie`.
    pub fn rootfs(&self, name: &str) -> PathBuf {
        self.0.join("rootfs").join(name)
    }
}
