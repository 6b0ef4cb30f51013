//! Files over SSH, with OpenSSH's `sftp` and `scp`: through the relay, and end to end.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use e2e::Done;
use e2e::front::Front;
use e2e::substrate::Host;

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

const OPEN: &str = "[node]\nssh = \"relay\"\nssh_sftp = true\n";

/// No two of its pieces are the same.
fn bytes(length: u32) -> Vec<u8> {
    (0..length)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 23) as u8)
        .collect()
}

/// What a batch of commands for `sftp` leads to, at `dev-1` through the relay.
fn sftp(front: &Front, batch: &str) -> Done {
    let port = front.port();
    let arguments = ["-P", &port, "-b", "-", "dev-1@127.0.0.1"];
    front.tool("sftp", "id", &arguments, batch.as_bytes())
}

/// The same, end to end.
fn sftp_over(front: &Front, batch: &str) -> Done {
    let relay = format!("127.0.0.1:{}", front.port());
    let arguments = ["-J", &relay, "-b", "-", "dev-1"];
    front.tool("sftp", "id", &arguments, batch.as_bytes())
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).expect("the file is there")
}

#[test]
fn s37_files_go_there_and_back_whole() {
    let Some(front) = Front::set(CW, OPEN) else {
        return;
    };
    front.play(|front| {
        front.register();
        front.authorize(Host::Dev1);
        let there = front.dir.join("there");
        fs::create_dir(&there).unwrap();
        let large = bytes(20 << 20);
        fs::write(front.dir.join("large"), &large).unwrap();
        let dir = there.display();
        // The first way is the relay's, the second end to end.
        let put = format!("put large {dir}/large\nls -l {dir}\nget {dir}/large back\n");
        let done = sftp(front, &put).ok();
        let listed = done.stdout.lines().find(|line| line.ends_with("large"));
        assert!(
            done.stdout.contains(&large.len().to_string()) && listed.is_some(),
            "{done}"
        );
        assert!(read(&there.join("large")) == large, "it came damaged");
        assert!(read(&front.dir.join("back")) == large, "it came damaged");
        fs::remove_file(front.dir.join("back")).unwrap();
        let _ = sftp_over(front, &format!("get {dir}/large back\n")).ok();
        assert!(read(&front.dir.join("back")) == large, "it came damaged");

        // What was there already is not sent again: it is left as it is, even wrong.
        let mut part = large[..7 << 20].to_vec();
        part[0] ^= 0xff;
        let resumed = [&part[..], &large[7 << 20..]].concat();
        fs::write(there.join("up"), &part).unwrap();
        fs::write(front.dir.join("down"), &part).unwrap();
        let resume = format!("reput large {dir}/up\nreget {dir}/large down\n");
        let _ = sftp_over(front, &resume).ok();
        assert!(read(&there.join("up")) == resumed, "it was not resumed");
        assert!(
            read(&front.dir.join("down")) == resumed,
            "it was not resumed"
        );
    });
}

#[test]
fn s37_files_are_named_listed_moved_and_removed() {
    let Some(front) = Front::set(CW, OPEN) else {
        return;
    };
    front.play(|front| {
        front.register();
        let there = front.dir.join("there");
        fs::create_dir(&there).unwrap();
        fs::write(front.dir.join("small"), "small").unwrap();
        let batch = "mkdir d\nput small d/one\nchmod 600 d/one\nln -s one d/link\nln d/one d/hard\n\
             rename d/one d/two\nls -1 d\ndf\nrm d/hard\nrm d/link\nmkdir d/empty\nrmdir d/empty\n";
        let done = sftp(front, &format!("cd {}\n{batch}", there.display())).ok();
        let names: Vec<_> = done
            .stdout
            .lines()
            .filter(|line| line.starts_with("d/"))
            .collect();
        assert_eq!(names, ["d/hard", "d/link", "d/two"], "{done}");
        let left: Vec<_> = fs::read_dir(there.join("d")).unwrap().collect();
        assert_eq!(left.len(), 1);
        let two = fs::metadata(there.join("d/two")).unwrap();
        assert_eq!(two.permissions().mode() & 0o777, 0o600);
        // What is not there, and what may not be.
        for (batch, part) in [
            ("get nowhere/file x\n", "not found"),
            ("rmdir d\n", "Failure"),
            ("get /dev/zero x\n", "not a regular file"),
            ("put small /proc/nothing\n", "No such file"),
        ] {
            let done = sftp(front, &format!("cd {}\n{batch}", there.display()));
            assert!(
                done.stderr.contains(part) && done.status == Some(1),
                "{done}"
            );
        }

        // Whole trees, by either protocol of scp.
        fs::create_dir_all(front.dir.join("tree/below")).unwrap();
        fs::write(front.dir.join("tree/below/file"), "deep").unwrap();
        let port = front.port();
        for (old, name) in [(&[][..], "new"), (&["-O"][..], "old")] {
            let target = format!("dev-1@127.0.0.1:{}/{name}", there.display());
            let up = [old, &["-r", "-p", "-P", &port, "tree", &target]].concat();
            let _ = front.tool("scp", "id", &up, b"").ok();
            assert_eq!(read(&there.join(name).join("below/file")), b"deep");
            let back = format!("back-{name}");
            let down = [old, &["-r", "-P", &port, &target, &back]].concat();
            let _ = front.tool("scp", "id", &down, b"").ok();
            assert_eq!(read(&front.dir.join(back).join("below/file")), b"deep");
        }
    });
}

#[test]
fn files_are_given_only_by_who_says_so() {
    let Some(front) = Front::set(CW, "[node]\nssh = \"relay\"\n") else {
        return;
    };
    front.play(|front| {
        front.register();
        front.authorize(Host::Dev1);
        fs::write(front.dir.join("small"), "small").unwrap();
        for done in [sftp(front, "ls\n"), sftp_over(front, "ls\n")] {
            assert_eq!(done.status, Some(255), "{done}");
            assert!(done.stderr.contains("ssh_sftp = true"), "{done}");
        }
        let port = front.port();
        let target = format!("dev-1@127.0.0.1:{}/x", front.dir.display());
        let copied = front.tool("scp", "id", &["-P", &port, "small", &target], b"");
        assert_ne!(copied.status, Some(0));
        assert!(!front.dir.join("x").exists());
        // Another subsystem there is not; a shell there is.
        let other = ["-p", &port, "-s", "dev-1@127.0.0.1", "netconf"];
        assert_eq!(front.ssh("id", &other, b"").status, Some(255));
        let _ = front.at("dev-1", &["true"]).ok();
        // A node that does not exist says so.
        let nobody = ["-P", &port, "-b", "-", "nobody@127.0.0.1"];
        let done = front.tool("sftp", "id", &nobody, b"ls\n");
        assert!(done.stderr.contains("there is no node nobody"), "{done}");
    });
}

#[test]
fn a_client_of_files_that_means_no_good_is_answered_or_let_go() {
    let Some(front) = Front::set(CW, OPEN) else {
        return;
    };
    front.play(|front| {
        front.register();
        let port = front.port();
        let raw = ["-p", &port, "-s", "dev-1@127.0.0.1", "sftp"];
        let packet = |kind: u8, rest: &[u8]| {
            let length = u32::try_from(rest.len() + 1).unwrap();
            [&length.to_be_bytes()[..], &[kind], rest].concat()
        };
        let init = packet(1, &[0, 0, 0, 3]);
        // A length that no packet has is the end; it is not an end that is good.
        for length in [0, 256 * 1024 + 1, u32::MAX] {
            let bytes = [&init[..], &length.to_be_bytes(), &[7; 4096]].concat();
            let done = front.ssh("id", &raw, &bytes);
            assert_eq!(done.status, Some(1), "{length}: {done}");
        }
        // A packet that never ends, and one that is cut.
        let cut = [&init[..], &[0, 0, 255, 255, 3]].concat();
        assert_eq!(front.ssh("id", &raw, &cut).status, Some(0));
        // Thousands of requests at once, of which none makes sense, are answered one by one.
        let mut flood = init;
        for _ in 0..20_000 {
            flood.extend(packet(4, &[0, 0, 0, 9, 0, 0, 0, 1, b'x']));
        }
        let done = front.ssh("id", &raw, &flood).ok();
        assert!(
            done.stdout.len() > 20_000 * 20,
            "{} bytes",
            done.stdout.len()
        );
        let _ = sftp(front, "pwd\n").ok();
    });
}
