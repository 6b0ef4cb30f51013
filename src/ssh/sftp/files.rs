//! What a client asks of files, and the answers.
//!
//! Everything that can be made large is bounded: a packet, a path, what is read at once, the entries
//! of a directory at once, the handles that are open. Only regular files are opened, and without
//! waiting: opening a pipe or a device could take forever or do something.

use std::collections::BTreeMap;
use std::fs::{self, File, ReadDir};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use russh_sftp::extensions::{
    self, FsyncExtension, HardlinkExtension, LimitsExtension, Statvfs, StatvfsExtension,
};
use russh_sftp::protocol::{
    Attrs, Data, Extended, ExtendedReply, FileAttributes, Handle, Name, Open, OpenFlags, Packet,
    StatusCode, Symlink, Version,
};
use russh_sftp::{de, ser};
use rustix::fs::{CWD, Mode, OFlags, RenameFlags, renameat_with, statvfs};
use rustix::io::Errno;

use super::{MAX_PACKET, attributes};

/// Files and directories that are open at a time, in one channel.
pub(super) const MAX_HANDLES: usize = 64;

/// Bytes that are read at once, and written; the rest of a packet is for what is around them.
const MAX_DATA: usize = MAX_PACKET - 1024;

/// The longest path, bytes: what the system takes.
const MAX_PATH: usize = 4096;

/// Entries of a directory in one answer.
const BATCH: usize = 100;

/// OpenSSH's own extension for renaming as the system does it: what was there is replaced.
pub(super) const POSIX_RENAME: &str = "posix-rename@openssh.com";

/// The kinds of packet that a client may send (the drafts' 3): all but `init`, which is 1.
const REQUESTS: std::ops::RangeInclusive<u8> = 3..=20;
const INIT: u8 = 1;
const EXTENDED: u8 = 200;

/// The files of one channel.
pub(super) struct Files {
    base: PathBuf,
    open: BTreeMap<u32, Opened>,
    /// No handle is ever used again.
    next: u32,
    greeted: bool,
}

enum Opened {
    File(File),
    Directory(PathBuf, ReadDir),
}

/// Why there is nothing but a status.
pub(super) struct Refusal {
    code: StatusCode,
    why: String,
}

pub(super) type Answer = Result<Packet, Refusal>;

impl Files {
    /// Paths that are not absolute are from `base` on.
    pub(super) fn new(base: PathBuf) -> Self {
        Self {
            base,
            open: BTreeMap::new(),
            next: 0,
            greeted: false,
        }
    }

    /// Answers a packet, whatever it is.
    pub(super) fn answer(&mut self, packet: Bytes) -> Bytes {
        let (id, decoded) = decode(packet);
        let answer = decoded.and_then(|packet| self.act(packet));
        encode(id, answer)
    }

    /// Files and directories that are open.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn count(&self) -> usize {
        self.open.len()
    }

    /// The same as [`Self::answer`], for a packet that has been looked at.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn answer_to(&mut self, packet: Packet) -> Bytes {
        let id = packet.get_request_id();
        encode(id, self.act(packet))
    }

    fn act(&mut self, packet: Packet) -> Answer {
        let id = packet.get_request_id();
        if !self.greeted && !matches!(packet, Packet::Init(_)) {
            return Err(bad("the first packet is not init"));
        }
        match packet {
            Packet::Init(_) => self.greet(),
            Packet::Open(open) => self.open(open),
            Packet::Close(close) => self.close(id, &close.handle),
            Packet::Read(read) => self.read(id, &read.handle, read.offset, read.len),
            Packet::Write(write) => {
                let file = self.file(&write.handle)?;
                done(id, file.write_all_at(&write.data, write.offset))
            }
            Packet::Lstat(lstat) => attrs(id, fs::symlink_metadata(self.path(&lstat.path)?)),
            Packet::Stat(stat) => attrs(id, fs::metadata(self.path(&stat.path)?)),
            Packet::Fstat(fstat) => match self.opened(&fstat.handle)? {
                Opened::File(file) => attrs(id, file.metadata()),
                Opened::Directory(path, _) => attrs(id, fs::metadata(path)),
            },
            Packet::SetStat(set) => {
                let path = self.path(&set.path)?;
                set_path(&path, &set.attrs)?;
                done(id, Ok(()))
            }
            Packet::FSetStat(set) => {
                match self.opened(&set.handle)? {
                    Opened::File(file) => attributes::set_open(file, &set.attrs)?,
                    Opened::Directory(path, _) => set_path(path, &set.attrs)?,
                }
                done(id, Ok(()))
            }
            Packet::OpenDir(open) => {
                let path = self.path(&open.path)?;
                self.keep(id, || {
                    let entries = fs::read_dir(&path)?;
                    Ok(Opened::Directory(path, entries))
                })
            }
            Packet::ReadDir(read) => self.list(id, &read.handle),
            Packet::Remove(remove) => done(id, fs::remove_file(self.path(&remove.filename)?)),
            Packet::MkDir(make) => {
                let mode = Mode::from_raw_mode(make.attrs.permissions.unwrap_or(0o777) & 0o777);
                let made = rustix::fs::mkdir(&self.path(&make.path)?, mode);
                done(id, made.map_err(io::Error::from))
            }
            Packet::RmDir(remove) => done(id, fs::remove_dir(self.path(&remove.path)?)),
            Packet::RealPath(real) => named(id, &real_path(&self.path(&real.path)?)?),
            Packet::ReadLink(read) => named(id, &fs::read_link(self.path(&read.path)?)?),
            Packet::Rename(rename) => {
                let (old, new) = (self.path(&rename.oldpath)?, self.path(&rename.newpath)?);
                done(id, rename_to_nothing(&old, &new))
            }
            Packet::Symlink(link) => self.link(&link),
            Packet::Extended(extended) => self.extended(extended),
            _ => Err(unsupported("this is for servers to say")),
        }
    }

    fn greet(&mut self) -> Answer {
        if self.greeted {
            return Err(bad("init has been before"));
        }
        self.greeted = true;
        let mut version = Version::new();
        version.extensions = [
            (POSIX_RENAME, "1"),
            (extensions::STATVFS, "2"),
            (extensions::HARDLINK, "1"),
            (extensions::FSYNC, "1"),
            (extensions::LIMITS, "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        Ok(version.into())
    }

    fn open(&mut self, open: Open) -> Answer {
        let path = self.path(&open.filename)?;
        let mode = open.attrs.permissions.unwrap_or(0o666) & 0o777;
        self.keep(open.id, || {
            let file = open_regular(&path, flags(open.pflags), Mode::from_raw_mode(mode))?;
            Ok(Opened::File(file))
        })
    }

    /// Opens something, if there is room for it.
    fn keep(&mut self, id: u32, open: impl FnOnce() -> Result<Opened, Refusal>) -> Answer {
        if self.open.len() >= MAX_HANDLES {
            let why = format!("no more than {MAX_HANDLES} files and directories may be open");
            return Err(failure(why));
        }
        let Some(next) = self.next.checked_add(1) else {
            return Err(failure("this channel has opened too many files".to_owned()));
        };
        let opened = open()?;
        let handle = self.next.to_string();
        self.open.insert(self.next, opened);
        self.next = next;
        Ok(Handle { id, handle }.into())
    }

    fn close(&mut self, id: u32, handle: &str) -> Answer {
        let closed = handle.parse().ok().and_then(|id| self.open.remove(&id));
        closed.ok_or_else(no_handle)?;
        done(id, Ok(()))
    }

    fn opened(&mut self, handle: &str) -> Result<&mut Opened, Refusal> {
        let opened = handle.parse().ok().and_then(|id| self.open.get_mut(&id));
        opened.ok_or_else(no_handle)
    }

    fn file(&mut self, handle: &str) -> Result<&File, Refusal> {
        match self.opened(handle)? {
            Opened::File(file) => Ok(file),
            Opened::Directory(..) => Err(bad("this is a directory")),
        }
    }

    fn read(&mut self, id: u32, handle: &str, offset: u64, len: u32) -> Answer {
        let file = self.file(handle)?;
        let mut data = vec![0; MAX_DATA.min(len as usize)];
        let read = file.read_at(&mut data, offset)?;
        if read == 0 {
            return Err(eof());
        }
        data.truncate(read);
        Ok(Data { id, data }.into())
    }

    fn list(&mut self, id: u32, handle: &str) -> Answer {
        let Opened::Directory(_, entries) = self.opened(handle)? else {
            return Err(bad("this is no directory"));
        };
        let mut files = Vec::new();
        for entry in entries.by_ref().take(BATCH) {
            let entry = entry?;
            // It may be gone by now.
            let metadata = entry.metadata().ok();
            files.push(attributes::entry(&entry.file_name(), metadata.as_ref()));
        }
        if files.is_empty() {
            return Err(eof());
        }
        Ok(Name { id, files }.into())
    }

    /// The drafts have the new link first, OpenSSH has it last, and all clients follow OpenSSH.
    fn link(&self, link: &Symlink) -> Answer {
        let (target, at) = (&link.linkpath, &link.targetpath);
        let target = checked(target)?;
        done(link.id, std::os::unix::fs::symlink(target, self.path(at)?))
    }

    fn extended(&mut self, extended: Extended) -> Answer {
        let id = extended.id;
        let mut data = Bytes::from(extended.data);
        let malformed = |_| bad("the extension's words are malformed");
        match extended.request.as_str() {
            POSIX_RENAME => {
                // The same two words.
                let names: HardlinkExtension = de::from_bytes(&mut data).map_err(malformed)?;
                let (old, new) = (self.path(&names.oldpath)?, self.path(&names.newpath)?);
                done(id, fs::rename(old, new))
            }
            extensions::HARDLINK => {
                let names: HardlinkExtension = de::from_bytes(&mut data).map_err(malformed)?;
                let (old, new) = (self.path(&names.oldpath)?, self.path(&names.newpath)?);
                done(id, fs::hard_link(old, new))
            }
            extensions::FSYNC => {
                let which: FsyncExtension = de::from_bytes(&mut data).map_err(malformed)?;
                done(id, self.file(&which.handle)?.sync_all())
            }
            extensions::LIMITS => reply(
                id,
                &LimitsExtension {
                    max_packet_len: MAX_PACKET as u64,
                    max_read_len: MAX_DATA as u64,
                    max_write_len: MAX_DATA as u64,
                    max_open_handles: MAX_HANDLES as u64,
                },
            ),
            extensions::STATVFS => {
                let which: StatvfsExtension = de::from_bytes(&mut data).map_err(malformed)?;
                reply(id, &space(&self.path(&which.path)?)?)
            }
            _ => Err(unsupported("this extension is not known here")),
        }
    }

    fn path(&self, text: &str) -> Result<PathBuf, Refusal> {
        let text = checked(text)?;
        Ok(match text {
            // `join` would leave a slash at its end.
            "" => self.base.clone(),
            text => self.base.join(text),
        })
    }
}

/// A request, or why it is none, with its number as far as there is one.
pub(super) fn decode(mut packet: Bytes) -> (u32, Result<Packet, Refusal>) {
    let kind = packet.first().copied().unwrap_or_default();
    let id = packet.get(1..5).and_then(|id| id.try_into().ok());
    // In its place `init` has the version.
    let id = id.filter(|_| kind != INIT).map_or(0, u32::from_be_bytes);
    if !REQUESTS.contains(&kind) && kind != INIT && kind != EXTENDED {
        return (id, Err(unsupported("there is no such request")));
    }
    let decoded = Packet::try_from(&mut packet);
    (id, decoded.map_err(|error| bad(&error.to_string())))
}

pub(super) fn encode(id: u32, answer: Answer) -> Bytes {
    let packet =
        answer.unwrap_or_else(|Refusal { code, why }| Packet::status(id, code, &why, "en"));
    // What is too long for the length of a packet was never made.
    Bytes::try_from(packet).unwrap_or_default()
}

/// A path as the client has it. What is not UTF-8 comes with a mark in the place of its bytes; it
/// would be the name of another file.
fn checked(text: &str) -> Result<&str, Refusal> {
    if text.len() > MAX_PATH {
        return Err(bad(&format!("a path is longer than {MAX_PATH} bytes")));
    }
    if text.contains(['\0', char::REPLACEMENT_CHARACTER]) {
        return Err(bad("a path is not UTF-8, or has NUL in it"));
    }
    Ok(text)
}

fn flags(asked: OpenFlags) -> OFlags {
    let writes = asked.intersects(OpenFlags::WRITE | OpenFlags::APPEND);
    let mut flags = match (asked.contains(OpenFlags::READ), writes) {
        (true, true) => OFlags::RDWR,
        (_, false) => OFlags::RDONLY,
        (false, true) => OFlags::WRONLY,
    };
    let more = [
        (OpenFlags::APPEND, OFlags::APPEND),
        (OpenFlags::CREATE, OFlags::CREATE),
        (OpenFlags::EXCLUDE, OFlags::EXCL),
    ];
    for (asked_for, flag) in more {
        if asked.contains(asked_for) {
            flags |= flag;
        }
    }
    if writes && asked.contains(OpenFlags::TRUNCATE) {
        flags |= OFlags::TRUNC;
    }
    flags
}

fn open_regular(path: &Path, flags: OFlags, mode: Mode) -> Result<File, Refusal> {
    let refusal = || failure("it is no regular file".to_owned());
    // The opening itself does something to a pipe or a device. What it is may have changed since.
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(refusal());
    }
    let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(path, flags, mode).map_err(io::Error::from)?);
    if !file.metadata()?.is_file() {
        return Err(refusal());
    }
    Ok(file)
}

fn set_path(path: &Path, wanted: &FileAttributes) -> Result<(), Refusal> {
    if let Some(size) = wanted.size {
        open_regular(path, OFlags::WRONLY, Mode::empty())?.set_len(size)?;
    }
    Ok(attributes::set(path, wanted)?)
}

/// Nothing is replaced, as the drafts want it.
fn rename_to_nothing(old: &Path, new: &Path) -> io::Result<()> {
    match renameat_with(CWD, old, CWD, new, RenameFlags::NOREPLACE) {
        // File systems that cannot promise it.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => match fs::symlink_metadata(new) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => fs::rename(old, new),
        },
        renamed => Ok(renamed?),
    }
}

/// Where a path leads; its last part need not be there.
fn real_path(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                return Err(error);
            };
            Ok(fs::canonicalize(parent)?.join(name))
        }
        found => found,
    }
}

fn space(path: &Path) -> io::Result<Statvfs> {
    let found = statvfs(path)?;
    Ok(Statvfs {
        block_size: found.f_bsize,
        fragment_size: found.f_frsize,
        blocks: found.f_blocks,
        blocks_free: found.f_bfree,
        blocks_avail: found.f_bavail,
        inodes: found.f_files,
        inodes_free: found.f_ffree,
        inodes_avail: found.f_favail,
        fs_id: found.f_fsid,
        // Read-only, and without setuid: the two that the extension names have the system's bits.
        flags: found.f_flag.bits() & 3,
        name_max: found.f_namemax,
    })
}

fn done(id: u32, done: io::Result<()>) -> Answer {
    done?;
    Ok(Packet::status(id, StatusCode::Ok, "", "en"))
}

fn attrs(id: u32, metadata: io::Result<fs::Metadata>) -> Answer {
    let attrs = attributes::of(&metadata?);
    Ok(Attrs { id, attrs }.into())
}

fn named(id: u32, path: &Path) -> Answer {
    let files = vec![russh_sftp::protocol::File::dummy(path.to_string_lossy())];
    Ok(Name { id, files }.into())
}

fn reply(id: u32, what: &impl serde::Serialize) -> Answer {
    let data = ser::to_bytes(what).map_err(|error| failure(error.to_string()))?;
    let data = data.to_vec();
    Ok(ExtendedReply { id, data }.into())
}

fn bad(why: &str) -> Refusal {
    let (code, why) = (StatusCode::BadMessage, why.to_owned());
    Refusal { code, why }
}

fn unsupported(why: &str) -> Refusal {
    let (code, why) = (StatusCode::OpUnsupported, why.to_owned());
    Refusal { code, why }
}

fn failure(why: String) -> Refusal {
    let code = StatusCode::Failure;
    Refusal { code, why }
}

fn eof() -> Refusal {
    let (code, why) = (StatusCode::Eof, "there is no more".to_owned());
    Refusal { code, why }
}

fn no_handle() -> Refusal {
    failure("nothing is open by this handle".to_owned())
}

/// As OpenSSH's server tells them.
impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        let code = match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => StatusCode::NoSuchFile,
            Some(Errno::PERM | Errno::ACCESS) => StatusCode::PermissionDenied,
            Some(Errno::NAMETOOLONG | Errno::INVAL) => StatusCode::BadMessage,
            Some(Errno::NOSYS | Errno::OPNOTSUPP) => StatusCode::OpUnsupported,
            _ => StatusCode::Failure,
        };
        let why = error.to_string();
        Self { code, why }
    }
}
