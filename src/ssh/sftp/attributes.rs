//! Attributes and names of files as the protocol has them.

use std::ffi::OsStr;
use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use russh_sftp::protocol::{File as Named, FileAttributes};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, futimens, utimensat};

/// The bits of a mode that may be set.
const MODE: u32 = 0o7777;

/// What is known of a file. The library's own conversion calls everything that is no directory a
/// regular file.
pub(super) fn of(metadata: &Metadata) -> FileAttributes {
    // Seconds since 1970 in 32 bits; what does not fit is the nearest that does.
    let seconds = |time: i64| Some(u32::try_from(time.max(0)).unwrap_or(u32::MAX));
    FileAttributes {
        size: Some(metadata.len()),
        uid: Some(metadata.uid()),
        gid: Some(metadata.gid()),
        permissions: Some(metadata.mode()),
        atime: seconds(metadata.atime()),
        mtime: seconds(metadata.mtime()),
        ..FileAttributes::default()
    }
}

/// An entry of a directory. A name that is not UTF-8 is shown as well as it can be.
pub(super) fn entry(name: &OsStr, metadata: Option<&Metadata>) -> Named {
    let attributes = metadata.map_or_else(FileAttributes::empty, of);
    let mut named = Named::new(name.to_string_lossy(), attributes);
    if let Some(letter) = metadata.and_then(letter) {
        // It begins with what `ls -l` begins with, of which the library knows two.
        named.longname.replace_range(..1, letter);
    }
    named
}

fn letter(metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    Some(match () {
        () if kind.is_dir() => "d",
        () if kind.is_symlink() => "l",
        () if kind.is_fifo() => "p",
        () if kind.is_socket() => "s",
        () if kind.is_block_device() => "b",
        () if kind.is_char_device() => "c",
        () if kind.is_file() => "-",
        () => return None,
    })
}

/// What changes of a file, but for its length.
pub(super) fn set(path: &Path, wanted: &FileAttributes) -> io::Result<()> {
    if let Some(mode) = wanted.permissions {
        fs::set_permissions(path, Permissions::from_mode(mode & MODE))?;
    }
    if let Some(times) = times(wanted) {
        utimensat(CWD, path, &times, AtFlags::empty())?;
    }
    if wanted.uid.is_some() || wanted.gid.is_some() {
        std::os::unix::fs::chown(path, wanted.uid, wanted.gid)?;
    }
    Ok(())
}

/// The same of a file that is open, and its length.
pub(super) fn set_open(file: &fs::File, wanted: &FileAttributes) -> io::Result<()> {
    if let Some(size) = wanted.size {
        file.set_len(size)?;
    }
    if let Some(mode) = wanted.permissions {
        file.set_permissions(Permissions::from_mode(mode & MODE))?;
    }
    if let Some(times) = times(wanted) {
        futimens(file, &times)?;
    }
    if wanted.uid.is_some() || wanted.gid.is_some() {
        std::os::unix::fs::fchown(file, wanted.uid, wanted.gid)?;
    }
    Ok(())
}

fn times(wanted: &FileAttributes) -> Option<Timestamps> {
    let time = |seconds: u32| Timespec {
        tv_sec: seconds.into(),
        tv_nsec: 0,
    };
    Some(Timestamps {
        last_access: time(wanted.atime?),
        last_modification: time(wanted.mtime?),
    })
}
