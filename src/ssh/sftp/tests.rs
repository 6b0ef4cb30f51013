//! Files over SSH: what is answered to whom, and to whom means no good.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use russh_sftp::protocol::{
    Close, Extended, FSetStat, FileAttributes, Fstat, Init, Lstat, MkDir, Open, OpenDir, OpenFlags,
    Packet, Read, ReadDir, ReadLink, RealPath, Remove, Rename, RmDir, SetStat, Stat, StatusCode,
    Symlink, Write,
};

use super::files::{Files, MAX_HANDLES, POSIX_RENAME};
use super::{Input, MAX_PACKET, TooLong, hear_anything};

/// Files in a directory of the test's own.
struct Talk {
    files: Files,
    dir: tempfile::TempDir,
}

impl Talk {
    fn begin() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path().to_owned());
        let mut talk = Self { files, dir };
        let Packet::Version(version) = talk.ask(Init::new()) else {
            panic!("a version");
        };
        assert_eq!(version.version, 3);
        talk
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn ask(&mut self, packet: impl Into<Packet>) -> Packet {
        let bytes = Bytes::try_from(packet.into()).unwrap();
        self.ask_raw(bytes.slice(4..))
    }

    fn ask_raw(&mut self, packet: Bytes) -> Packet {
        let mut answer = self.files.answer(packet).slice(4..);
        assert!(answer.len() <= MAX_PACKET);
        Packet::try_from(&mut answer).unwrap()
    }

    #[track_caller]
    fn status(&mut self, packet: impl Into<Packet>) -> StatusCode {
        status(&self.ask(packet))
    }

    #[track_caller]
    fn open(&mut self, name: &str, pflags: OpenFlags) -> String {
        match self.ask(open(name, pflags)) {
            Packet::Handle(handle) => handle.handle,
            other => panic!("{name}: {other:?}"),
        }
    }

    fn open_dir(&mut self, path: &str) -> String {
        let (id, path) = (1, path.to_owned());
        match self.ask(OpenDir { id, path }) {
            Packet::Handle(handle) => handle.handle,
            other => panic!("{other:?}"),
        }
    }
}

#[track_caller]
fn status(packet: &Packet) -> StatusCode {
    match packet {
        Packet::Status(status) => status.status_code,
        other => panic!("{other:?}"),
    }
}

fn open(name: &str, pflags: OpenFlags) -> Open {
    Open {
        id: 1,
        filename: name.to_owned(),
        pflags,
        attrs: FileAttributes::empty(),
    }
}

fn read(handle: &str, offset: u64, len: u32) -> Read {
    Read {
        id: 7,
        handle: handle.to_owned(),
        offset,
        len,
    }
}

fn rename(old: &str, new: &str) -> Rename {
    Rename {
        id: 1,
        oldpath: old.to_owned(),
        newpath: new.to_owned(),
    }
}

#[test]
fn what_is_written_is_read() {
    let mut talk = Talk::begin();
    let create = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::TRUNCATE;
    let handle = talk.open("new", create);
    for (offset, data) in [(3, b"def".to_vec()), (0, b"abc".to_vec())] {
        let (id, handle) = (1, handle.clone());
        let write = Write {
            id,
            handle,
            offset,
            data,
        };
        assert_eq!(talk.status(write), StatusCode::Ok);
    }
    assert_eq!(talk.status(Close { id: 1, handle }), StatusCode::Ok);
    assert_eq!(fs::read(talk.path("new")).unwrap(), b"abcdef");

    let handle = talk.open("new", OpenFlags::READ);
    match talk.ask(read(&handle, 2, u32::MAX)) {
        Packet::Data(data) => assert_eq!((data.id, &data.data[..]), (7, &b"cdef"[..])),
        other => panic!("{other:?}"),
    }
    assert_eq!(talk.status(read(&handle, 6, 10)), StatusCode::Eof);
    // What is appended is, wherever it should go.
    let append = talk.open("new", OpenFlags::APPEND);
    let write = Write {
        id: 1,
        handle: append,
        offset: 0,
        data: b"!".to_vec(),
    };
    assert_eq!(talk.status(write), StatusCode::Ok);
    assert_eq!(fs::read(talk.path("new")).unwrap(), b"abcdef!");
}

#[test]
fn a_read_is_no_longer_than_a_packet() {
    let mut talk = Talk::begin();
    fs::write(talk.path("long"), vec![7; 2 * MAX_PACKET]).unwrap();
    let handle = talk.open("long", OpenFlags::READ);
    match talk.ask(read(&handle, 0, u32::MAX)) {
        Packet::Data(data) => assert_eq!(data.data.len(), MAX_PACKET - 1024),
        other => panic!("{other:?}"),
    }
    for offset in [u64::MAX, 1 << 63] {
        assert_ne!(talk.status(read(&handle, offset, 10)), StatusCode::Ok);
    }
}

#[test]
fn directories_come_in_batches_and_end() {
    let mut talk = Talk::begin();
    for n in 0..250 {
        fs::write(talk.path(&format!("{}{n}", "n".repeat(200))), "x").unwrap();
    }
    let handle = talk.open_dir("");
    let mut batches = Vec::new();
    let last = loop {
        let (id, handle) = (1, handle.clone());
        match talk.ask(ReadDir { id, handle }) {
            Packet::Name(name) => batches.push(name.files.len()),
            other => break status(&other),
        }
    };
    assert_eq!((batches, last), (vec![100, 100, 50], StatusCode::Eof));
}

#[test]
fn names_look_as_ls_has_them() {
    let mut talk = Talk::begin();
    fs::create_dir(talk.path("dir")).unwrap();
    symlink("nowhere", talk.path("link")).unwrap();
    fs::write(talk.path("file"), "12345").unwrap();
    let handle = talk.open_dir(".");
    let Packet::Name(mut name) = talk.ask(ReadDir { id: 1, handle }) else {
        panic!("names");
    };
    name.files
        .sort_by(|one, other| one.filename.cmp(&other.filename));
    let first: Vec<_> = name.files.iter().map(|file| &file.longname[..1]).collect();
    assert_eq!(first, ["d", "-", "l"]);
    assert_eq!(name.files[1].attrs.size, Some(5));
    assert!(name.files[1].longname.ends_with(" file"));
}

#[test]
fn handles_are_few_and_never_come_again() {
    let mut talk = Talk::begin();
    fs::write(talk.path("file"), "x").unwrap();
    let mut handles: Vec<_> = (0..MAX_HANDLES)
        .map(|_| talk.open("file", OpenFlags::READ))
        .collect();
    assert_eq!(
        talk.status(open("file", OpenFlags::READ)),
        StatusCode::Failure
    );
    let (id, path) = (1, String::new());
    assert_eq!(talk.status(OpenDir { id, path }), StatusCode::Failure);
    let handle = handles.pop().unwrap();
    let close = || Close {
        id: 1,
        handle: handle.clone(),
    };
    assert_eq!(talk.status(close()), StatusCode::Ok);
    assert_eq!(talk.status(close()), StatusCode::Failure);
    assert_ne!(talk.open("file", OpenFlags::READ), handle);
    for none in ["", "0x1", "-1", "4294967296", "no such handle"] {
        assert_eq!(talk.status(read(none, 0, 1)), StatusCode::Failure, "{none}");
    }
}

#[test]
fn only_regular_files_are_opened_and_nothing_is_waited_for() {
    let mut talk = Talk::begin();
    let fifo = talk.path("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    fs::create_dir(talk.path("dir")).unwrap();
    for name in ["fifo", "dir", "/dev/null", "/dev/tty"] {
        for flags in [OpenFlags::READ, OpenFlags::WRITE] {
            let status = talk.status(open(name, flags));
            assert_ne!(status, StatusCode::Ok, "{name}");
        }
    }
    assert_eq!(talk.files.count(), 0);
}

#[test]
fn paths_have_an_end() {
    let mut talk = Talk::begin();
    for (path, expected) in [
        ("x".repeat(4097), StatusCode::BadMessage),
        ("x".repeat(4096), StatusCode::BadMessage),
        ("a\0b".to_owned(), StatusCode::BadMessage),
        ("a\u{fffd}b".to_owned(), StatusCode::BadMessage),
        ("nothing".to_owned(), StatusCode::NoSuchFile),
    ] {
        let shown = path.get(..10).unwrap_or(&path).to_owned();
        assert_eq!(talk.status(Stat { id: 1, path }), expected, "{shown}");
    }
    // Bytes that are no UTF-8.
    let mut packet = vec![17, 0, 0, 0, 1, 0, 0, 0, 3];
    packet.extend(b"a\xffb");
    assert_eq!(status(&talk.ask_raw(packet.into())), StatusCode::BadMessage);
}

#[test]
fn renaming_replaces_only_if_that_is_meant() {
    let mut talk = Talk::begin();
    fs::write(talk.path("old"), "old").unwrap();
    fs::write(talk.path("new"), "new").unwrap();
    assert_eq!(talk.status(rename("old", "new")), StatusCode::Failure);
    assert_eq!(fs::read(talk.path("new")).unwrap(), b"new");
    let mut data = Vec::new();
    for word in ["old", "new"] {
        data.extend(3_u32.to_be_bytes());
        data.extend(word.bytes());
    }
    let (id, request) = (1, POSIX_RENAME.to_owned());
    let posix = Extended { id, request, data };
    assert_eq!(talk.status(posix), StatusCode::Ok);
    assert_eq!(fs::read(talk.path("new")).unwrap(), b"old");
    assert_eq!(talk.status(rename("new", "third")), StatusCode::Ok);
    assert!(talk.path("third").exists() && !talk.path("new").exists());
}

#[test]
fn links_modes_and_times() {
    let mut talk = Talk::begin();
    let link = Symlink {
        id: 1,
        // As OpenSSH has them: first where it leads, then where it is.
        linkpath: "there".to_owned(),
        targetpath: "link".to_owned(),
    };
    assert_eq!(talk.status(link), StatusCode::Ok);
    let target = fs::read_link(talk.path("link")).unwrap();
    assert_eq!(target, Path::new("there"));
    let make = MkDir {
        id: 1,
        path: "there".to_owned(),
        attrs: FileAttributes::empty(),
    };
    assert_eq!(talk.status(make), StatusCode::Ok);
    let (id, path) = (1, "link/new".to_owned());
    match talk.ask(RealPath { id, path }) {
        Packet::Name(name) => {
            let real = fs::canonicalize(talk.path("there")).unwrap().join("new");
            assert_eq!(name.files[0].filename, real.to_string_lossy());
        }
        other => panic!("{other:?}"),
    }
    fs::write(talk.path("file"), "12345").unwrap();
    let set = SetStat {
        id: 1,
        path: "file".to_owned(),
        attrs: FileAttributes {
            size: Some(2),
            permissions: Some(0o100_640),
            atime: Some(1),
            mtime: Some(1_000_000_000),
            ..FileAttributes::empty()
        },
    };
    assert_eq!(talk.status(set), StatusCode::Ok);
    let file = fs::metadata(talk.path("file")).unwrap();
    assert_eq!(
        (file.len(), file.permissions().mode() & 0o7777, file.mtime()),
        (2, 0o640, 1_000_000_000)
    );
}

#[test]
fn what_is_no_request_is_answered_too() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::new(dir.path().to_owned());
    let mut talk = Talk { files, dir };
    // Before the greeting there is nothing.
    let (id, path) = (1, ".".to_owned());
    assert_eq!(talk.status(Stat { id, path }), StatusCode::BadMessage);
    let _ = talk.ask(Init::new());
    for (packet, expected) in [
        (vec![99], StatusCode::OpUnsupported),
        (vec![0, 0, 0, 0, 9], StatusCode::OpUnsupported),
        (vec![101, 0, 0, 0, 9], StatusCode::OpUnsupported),
        (vec![3], StatusCode::BadMessage),
        (
            vec![17, 0, 0, 0, 9, 255, 255, 255, 255],
            StatusCode::BadMessage,
        ),
        (vec![1, 0, 0, 0, 3], StatusCode::BadMessage),
    ] {
        let shown = format!("{packet:?}");
        assert_eq!(status(&talk.ask_raw(packet.into())), expected, "{shown}");
    }
    let (id, request) = (1, "copy-data".to_owned());
    let unknown = Extended {
        id,
        request,
        data: Vec::new(),
    };
    assert_eq!(talk.status(unknown), StatusCode::OpUnsupported);
}

#[test]
fn packets_are_cut_out_of_any_pieces() {
    let framed = |length: u32, bytes: &[u8]| [&length.to_be_bytes()[..], bytes].concat();
    let stream = [framed(3, b"abc"), framed(1, b"d")].concat();
    for piece in 1..stream.len() {
        let (mut input, mut packets) = (Input::default(), Vec::new());
        for part in stream.chunks(piece) {
            input.bytes.extend_from_slice(part);
            while let Some(packet) = input.packet().unwrap() {
                packets.push(packet);
            }
        }
        assert_eq!(packets, [&b"abc"[..], b"d"]);
    }
    for length in [0, 256 * 1024 + 1, u32::MAX] {
        let mut input = Input {
            bytes: BytesMut::from(&framed(length, b"x")[..]),
            ended: false,
        };
        assert_eq!(input.packet(), Err(TooLong), "{length}");
    }
}

fn path() -> impl Strategy<Value = String> {
    // Of what a name is made does not matter: it is made one of a few.
    prop_oneof![3 => "[a-f]{1,3}", 1 => ".{0,8}", 1 => Just("x".repeat(5000))]
}

fn attributes() -> impl Strategy<Value = FileAttributes> {
    let number = || proptest::option::of(any::<u32>());
    (
        proptest::option::of(any::<u64>()),
        number(),
        number(),
        number(),
    )
        .prop_map(|(size, owner, permissions, time)| FileAttributes {
            size,
            uid: owner,
            gid: owner,
            permissions,
            atime: time,
            mtime: time,
            ..FileAttributes::empty()
        })
}

fn handle() -> impl Strategy<Value = String> {
    prop_oneof![8 => (0..80_u32).prop_map(|handle| handle.to_string()), 1 => ".{0,8}"]
}

/// The number of every request.
const ID: u32 = 9;

fn with_handle() -> impl Strategy<Value = Packet> {
    let id = ID;
    prop_oneof![
        handle().prop_map(move |handle| Packet::Close(Close { id, handle })),
        handle().prop_map(move |handle| Packet::Fstat(Fstat { id, handle })),
        handle().prop_map(move |handle| Packet::ReadDir(ReadDir { id, handle })),
        (handle(), any::<u64>(), any::<u32>()).prop_map(move |(handle, offset, len)| {
            let offset = offset >> (len % 64);
            Packet::Read(Read {
                id,
                handle,
                offset,
                len,
            })
        }),
        (handle(), any::<u64>(), 0..64_u32).prop_map(move |(handle, offset, shift)| {
            Packet::Write(Write {
                id,
                handle,
                offset: offset >> shift,
                data: vec![7; shift as usize],
            })
        }),
        (handle(), attributes()).prop_map(move |(handle, attrs)| Packet::FSetStat(FSetStat {
            id,
            handle,
            attrs
        })),
    ]
}

fn with_path() -> impl Strategy<Value = Packet> {
    let id = ID;
    prop_oneof![
        path().prop_map(move |path| Packet::Stat(Stat { id, path })),
        path().prop_map(move |path| Packet::Lstat(Lstat { id, path })),
        path().prop_map(move |path| Packet::OpenDir(OpenDir { id, path })),
        path().prop_map(move |path| Packet::RealPath(RealPath { id, path })),
        path().prop_map(move |path| Packet::ReadLink(ReadLink { id, path })),
        path().prop_map(move |filename| Packet::Remove(Remove { id, filename })),
        path().prop_map(move |path| Packet::RmDir(RmDir { id, path })),
        (path(), attributes()).prop_map(move |(path, attrs)| Packet::MkDir(MkDir {
            id,
            path,
            attrs
        })),
        (path(), attributes()).prop_map(move |(path, attrs)| Packet::SetStat(SetStat {
            id,
            path,
            attrs
        })),
        (path(), path()).prop_map(|(old, new)| Packet::Rename(rename(&old, &new))),
        (path(), path()).prop_map(move |(linkpath, targetpath)| {
            Packet::Symlink(Symlink {
                id,
                linkpath,
                targetpath,
            })
        }),
    ]
}

fn extended() -> impl Strategy<Value = Packet> {
    let names = [
        POSIX_RENAME,
        "hardlink@openssh.com",
        "fsync@openssh.com",
        "limits@openssh.com",
        "statvfs@openssh.com",
        "?",
    ];
    (proptest::sample::select(names.to_vec()), path(), path()).prop_map(|(request, one, other)| {
        let mut data = Vec::new();
        for word in [one, other] {
            data.extend(u32::try_from(word.len()).unwrap().to_be_bytes());
            data.extend(word.bytes());
        }
        let (id, request) = (ID, request.to_owned());
        Packet::Extended(Extended { id, request, data })
    })
}

fn request() -> impl Strategy<Value = Packet> {
    let opening = (path(), 0..64_u32, attributes()).prop_map(|(filename, flags, attrs)| {
        let (id, pflags) = (ID, OpenFlags::from_bits_truncate(flags));
        Packet::Open(Open {
            id,
            filename,
            pflags,
            attrs,
        })
    });
    prop_oneof![3 => opening, 4 => with_handle(), 4 => with_path(), 1 => extended()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_hostile_client_gets_answers_and_nothing_else(
        requests in proptest::collection::vec(request(), 1..120),
        damage in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4),
    ) {
        let mut stream = Vec::new();
        for request in requests {
            stream.extend(Bytes::try_from(request).unwrap());
        }
        for (place, byte) in damage {
            let place = place % stream.len();
            stream[place] = byte;
        }
        hear_anything(&stream);
    }

    #[test]
    fn bytes_that_mean_nothing_get_answers_too(
        kind in prop_oneof![1..=21_u8, Just(200_u8), any::<u8>()],
        rest in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let length = u32::try_from(rest.len() + 1).unwrap().to_be_bytes();
        hear_anything(&[&length[..], &[kind], &rest].concat());
    }
}
