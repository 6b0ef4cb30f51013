//! For tests and fuzzers: a client that says anything, to files in a directory of its own.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::{Bytes, BytesMut};
use russh_sftp::de;
use russh_sftp::extensions::{self, HardlinkExtension, StatvfsExtension};
use russh_sftp::protocol::{Extended, Init, Packet};

use super::files::{Files, MAX_HANDLES, POSIX_RENAME, decode, encode};
use super::{Input, MAX_PACKET};

/// The only names that such a client reaches, whatever it says: it must not lead out of its
/// directory, and two requests should meet.
const NAMES: [&str; 6] = ["a", "b", "c", "a/b", "c/d", "."];

/// What servers say: a version, the answers, and that of an extension.
const ANSWERS: [u8; 7] = [2, 101, 102, 103, 104, 105, 201];

/// Takes a stream of packets. Each is answered, with its number and within the limits.
pub(in crate::ssh) fn hear_anything(data: &[u8]) {
    let place = Place::make();
    let mut files = Files::new(place.0.clone());
    let _ = files.answer_to(Packet::Init(Init::new()));
    let mut input = Input {
        bytes: BytesMut::from(data),
        ended: true,
    };
    while let Ok(Some(packet)) = input.packet() {
        let (id, decoded) = decode(packet);
        let answer = match decoded {
            Ok(packet) => files.answer_to(tame(packet)),
            Err(refusal) => encode(id, Err(refusal)),
        };
        assert!(files.count() <= MAX_HANDLES);
        is_an_answer(&answer, id);
    }
}

fn is_an_answer(answer: &Bytes, id: u32) {
    let (length, rest) = answer.split_first_chunk::<4>().expect("it has a length");
    assert_eq!(u32::from_be_bytes(*length) as usize, rest.len());
    assert!(rest.len() <= MAX_PACKET, "{} bytes", rest.len());
    assert!(ANSWERS.contains(&rest[0]), "{}", rest[0]);
    let to = rest.get(1..5).and_then(|id| id.try_into().ok());
    assert_eq!(to.map(u32::from_be_bytes), Some(id));
}

/// The same request for names of ours.
fn tame(mut packet: Packet) -> Packet {
    let name = |path: &mut String| {
        let sum: usize = path.bytes().map(usize::from).sum();
        NAMES[sum % NAMES.len()].clone_into(path);
    };
    match &mut packet {
        Packet::Open(open) => name(&mut open.filename),
        Packet::Lstat(lstat) => name(&mut lstat.path),
        Packet::Stat(stat) => name(&mut stat.path),
        Packet::SetStat(set) => name(&mut set.path),
        Packet::OpenDir(open) => name(&mut open.path),
        Packet::Remove(remove) => name(&mut remove.filename),
        Packet::MkDir(make) => name(&mut make.path),
        Packet::RmDir(remove) => name(&mut remove.path),
        Packet::RealPath(real) => name(&mut real.path),
        Packet::ReadLink(read) => name(&mut read.path),
        Packet::Rename(rename) => {
            name(&mut rename.oldpath);
            name(&mut rename.newpath);
        }
        Packet::Symlink(link) => {
            name(&mut link.linkpath);
            name(&mut link.targetpath);
        }
        Packet::Extended(extended) => tame_extended(extended, name),
        _ => {}
    }
    packet
}

fn tame_extended(extended: &mut Extended, name: impl Fn(&mut String)) {
    let mut data = Bytes::copy_from_slice(&extended.data);
    let tamed: Option<Vec<u8>> = match extended.request.as_str() {
        POSIX_RENAME | extensions::HARDLINK => de::from_bytes::<HardlinkExtension>(&mut data)
            .ok()
            .and_then(|mut names| {
                name(&mut names.oldpath);
                name(&mut names.newpath);
                names.try_into().ok()
            }),
        extensions::STATVFS => {
            de::from_bytes::<StatvfsExtension>(&mut data)
                .ok()
                .and_then(|mut which| {
                    name(&mut which.path);
                    which.try_into().ok()
                })
        }
        _ => return,
    };
    // What is malformed stays so.
    extended.data = tamed.unwrap_or_default();
}

/// A directory that goes when it is dropped.
struct Place(PathBuf);

impl Place {
    fn make() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("cw-sftp-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).expect("a directory of our own can be made");
        Self(dir)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        use std::os::unix::fs::PermissionsExt as _;
        // Its mode may have been changed.
        let _ = fs::set_permissions(&self.0, fs::Permissions::from_mode(0o700));
        let _ = fs::remove_dir_all(&self.0);
    }
}
