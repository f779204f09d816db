//! Snapshots of etcd: taken, listed, proven, removed; on hosts, in a bucket, in a folder here.

mod drill;
mod list;
pub(super) mod origin;
pub(super) mod pipe;
mod putting;
mod save;
mod shelf;
mod site;
mod verify;

pub use drill::Drill;
pub use drill::DrillLimits;
pub use drill::DrillOptions;
pub use drill::DrillStep;
pub use drill::LastRestore;
pub use drill::drill;
pub use list::Listed;
pub use list::Place;
pub use list::Seen;
pub use list::delete;
pub(super) use list::furthest;
pub use list::list;
pub use list::prune;
pub use save::SaveOptions;
pub use save::Saved;
pub use save::save;
pub(super) use save::take;
pub(super) use site::Site;
pub use verify::Proof;
pub(super) use verify::etcd_image;
pub(super) use verify::pick;
pub use verify::verify;
