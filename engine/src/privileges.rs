//! Starting as root and not staying root. *Once per process, before any mail.*
//!
//! Ports below 1024, the memlock limit and the data directory want root; nothing after that does. The order is fixed:
//! raise limits, bind, own the data directory, then [`drop_to`]. Once dropped, there is no way back.

use nix::unistd::{Gid, Uid, User, chown, initgroups, setgid, setuid};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{ffi::CString, io, path::Path};
use thiserror::Error;

/// What one shard locks at most: rings and registered buffers of its executor.
pub const MEMLOCK_PER_SHARD: u64 = 2 << 20;
/// File descriptors worth asking for: two a connection, and segments.
const DESCRIPTORS: u64 = 65_536;

/// Why the process may not run as it should.
#[derive(Debug, Error)]
pub enum PrivilegeError {
    /// Too little memory may be locked for io_uring.
    #[error(
        "the memlock limit is {have} KiB, io_uring needs {need} KiB for {shards} shards; raise it (ulimit -l, \
         LimitMEMLOCK= in the unit) or start as root"
    )]
    Memlock {
        /// Limit in force, KiB.
        have: u64,
        /// Needed, KiB.
        need: u64,
        /// For how many shards.
        shards: u16,
    },
    /// `user =` names nobody.
    #[error("user = \"{0}\": no such user on this host")]
    NoUser(String),
    /// The kernel refused.
    #[error("cannot become user \"{user}\": {step}: {reason}")]
    Refused {
        /// The user wanted.
        user: String,
        /// The call that failed.
        step: &'static str,
        /// Why.
        reason: String,
    },
    /// `user =` is given, but the process is not root.
    #[error("user = \"{0}\" needs a start as root; start as root, or as that user without the setting")]
    NotRoot(String),
}

/// Raises memlock and descriptor limits as far as allowed.
///
/// # Errors
/// [`PrivilegeError::Memlock`] when even the raised limit is too small for `shards`.
pub fn raise_limits(shards: u16) -> Result<(), PrivilegeError> {
    let need = MEMLOCK_PER_SHARD * u64::from(shards.max(1));
    let have = raise(Resource::Memlock, need);
    raise(Resource::Nofile, DESCRIPTORS);
    // The executor itself refuses less than 512 KiB; newer kernels charge rings to the cgroup instead.
    if have < 512 << 10 {
        return Err(PrivilegeError::Memlock { have: have >> 10, need: need >> 10, shards });
    }
    Ok(())
}

/// Raises one limit to `want`, or as near as the hard limit allows; returns the limit in force.
fn raise(resource: Resource, want: u64) -> u64 {
    let old = getrlimit(resource);
    let Some(current) = old.current else { return u64::MAX };
    if current >= want {
        return current;
    }
    let maximum = old.maximum.map(|maximum| maximum.max(want));
    if setrlimit(resource, Rlimit { current: Some(want), maximum }).is_ok() {
        return want;
    }
    let reachable = old.maximum.map_or(want, |maximum| maximum.min(want));
    match setrlimit(resource, Rlimit { current: Some(reachable), maximum: old.maximum }) {
        Ok(()) => reachable,
        Err(_) => current,
    }
}

/// What holds for the whole process from its start: files that it makes are for its own user only (they hold mail and keys),
/// and neither it nor what it starts can gain privileges. Called before the first thread is made, so that all inherit it.
pub fn confine() {
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    if let Err(error) = rustix::thread::set_no_new_privs(true) {
        tracing::warn!("no_new_privs cannot be set: {error}");
    }
}

/// Gives `paths` to `name`, then becomes that user for good, in all threads.
///
/// # Errors
/// [`PrivilegeError`] names the step that failed; the process must not go on as root then.
pub fn drop_to(name: &str, paths: &[&Path]) -> Result<(), PrivilegeError> {
    if !Uid::effective().is_root() {
        return Err(PrivilegeError::NotRoot(name.into()));
    }
    let refused = |step, reason: &dyn std::fmt::Display| PrivilegeError::Refused {
        user: name.into(),
        step,
        reason: reason.to_string(),
    };
    let user = User::from_name(name)
        .map_err(|error| refused("looking it up", &error))?
        .ok_or_else(|| PrivilegeError::NoUser(name.into()))?;
    for path in paths {
        give(path, user.uid, user.gid).map_err(|error| refused("chown of its files", &error))?;
    }
    let c_name = CString::new(name).map_err(|error| refused("its name", &error))?;
    initgroups(&c_name, user.gid).map_err(|error| refused("initgroups", &error))?;
    setgid(user.gid).map_err(|error| refused("setgid", &error))?;
    setuid(user.uid).map_err(|error| refused("setuid", &error))?;
    if !user.uid.is_root() && setuid(Uid::from_raw(0)).is_ok() {
        return Err(refused("giving up root", &"root could be taken back"));
    }
    Ok(())
}

/// Changes the owner of `path` and all below it. Links are not followed.
fn give(path: &Path, uid: Uid, gid: Gid) -> io::Result<()> {
    let meta = match path.symlink_metadata() {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if meta.is_symlink() {
        return Ok(());
    }
    chown(path, Some(uid), Some(gid))?;
    if meta.is_dir() {
        for entry in path.read_dir()? {
            give(&entry?.path(), uid, gid)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_can_be_raised_or_the_error_says_how() {
        if let Err(error) = raise_limits(2) {
            assert!(error.to_string().contains("LimitMEMLOCK"), "{error}");
        }
    }

    #[test]
    fn an_unknown_user_is_named() {
        let error = drop_to("no-such-user-here", &[]).unwrap_err();
        assert!(error.to_string().contains("no-such-user-here"), "{error}");
    }
}
