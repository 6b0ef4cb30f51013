"""Comes in by SSH with asyncssh: through the relay's front door, and end to end to a node's own
server. Then has both looked over by ssh-audit.

`dev-1` gives terminals, files and ports, `dev-2` terminals alone. Everything is on the loopback
interface, and ends with this process. Each check prints one line; the first that fails ends the run
with its reason.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import asyncssh

import hostile

CW, AUDIT = sys.argv[1:]
LIMIT = 60
TOKEN = "of-the-administrator"

# What ssh-audit may say of an algorithm, and why it is there all the same. Anything else it warns of
# fails this check.
EXPLAINED = {
    # Offered after the post-quantum hybrid, for the many clients that have none: OpenSSH before
    # 9.9, dropbear before 2025, PuTTY.
    ("kex", "curve25519-sha256"): "post-quantum",
    ("kex", "curve25519-sha256@libssh.org"): "post-quantum",
}


class Stage:
    """A relay and two nodes that have joined its network."""

    def __init__(self, directory):
        self.directory = directory
        kept = {name: value for name, value in os.environ.items() if "CODEWIRE" not in name}
        self.environment = {**kept, "CODEWIRE_RELAY_AUTH_TOKEN": TOKEN, "CODEWIRE_DIRECT": "0"}
        self.relay = None

    def start(self):
        where = "127.0.0.1:0"
        words = ["relay", "serve", "--base-url", f"http://{where}", "--data-dir", self.path("relay")]
        words += ["--listen", where, "--stun-listen", where, "--ssh-listen", where]
        log = open(self.path("relay.log"), "wb")
        self.relay = subprocess.Popen(
            [CW, *words], env={**self.environment, "CODEWIRE_HOME": self.path("r")}, stderr=log
        )
        log.close()
        self.ssh_port = int(self.told(r"SSH listening on \S+:(\d+)"))
        port = self.told(r"HTTP listening on \S+:(\d+)")
        self.url = f"http://127.0.0.1:{port}"
        self.cw("dev-1", "network", "create", "alpha", "--relay-url", self.url)
        for node in ["dev-1", "dev-2"]:
            invite = self.cw("dev-1", "network", "invite", "--mine", "--relay-url", self.url)
            self.cw(node, "network", "join", "--relay-url", self.url, invite.strip())

    def told(self, pattern):
        for _ in range(LIMIT * 10):
            found = re.search(pattern, Path(self.path("relay.log")).read_text())
            if found:
                return found[1]
            assert self.relay.poll() is None, "the relay has ended"
            try:
                self.relay.wait(0.1)
            except subprocess.TimeoutExpired:
                pass
        raise AssertionError(f"the relay has not said {pattern}")

    def path(self, name):
        return str(Path(self.directory, name))

    def node(self, name):
        more = {"CODEWIRE_HOME": self.path(name), "CODEWIRE_NODE_NAME": name, "CODEWIRE_SSH": "relay"}
        if name == "dev-1":
            more |= {"CODEWIRE_SSH_SFTP": "1", "CODEWIRE_SSH_FORWARD": "1"}
        return {**self.environment, **more}

    def cw(self, node, *words):
        done = subprocess.run(
            [CW, *words], env=self.node(node), capture_output=True, text=True, timeout=LIMIT
        )
        assert done.returncode == 0, f"cw {words}: {done.stderr}"
        return done.stdout

    def host_key(self, *where):
        key = asyncssh.read_private_key(Path(self.directory, *where, "ssh_host_ed25519"))
        return key.convert_to_public()

    def door(self, user, **more):
        """A connection to the front door, whose key is known."""
        more.setdefault("client_keys", [])
        known = ([self.host_key("relay")], [], [])
        return asyncssh.connect(
            "127.0.0.1", self.ssh_port, username=user, known_hosts=known, agent_path=None, config=[],
            connect_timeout=LIMIT, login_timeout=LIMIT, **more,
        )

    def logs(self):
        logs = [Path(self.path("relay.log")), *Path(self.directory).glob("dev-*/*.log")]
        return [log for log in logs if log.exists()]

    def end(self):
        for node in ["dev-1", "dev-2"]:
            subprocess.run([CW, "stop", "--grace", "0"], env=self.node(node), capture_output=True)
        if self.relay:
            self.relay.terminate()
            self.relay.wait(LIMIT)


async def run(connection, command, **more):
    return await asyncio.wait_for(connection.run(command, **more), LIMIT)


async def until(stream, part):
    """Reads until a terminal has shown `part`."""
    seen = ""

    async def read():
        nonlocal seen
        while part not in seen:
            more = await stream.read(4096)
            assert more, f"the end, after {seen!r}"
            seen += more

    await asyncio.wait_for(read(), LIMIT)
    return seen


async def refused(opening):
    """Something that is not to be had."""
    try:
        await asyncio.wait_for(opening, LIMIT)
    except (asyncssh.Error, asyncssh.ChannelListenError, OSError) as error:
        return str(error)
    raise AssertionError("it was not refused")


async def commands(connection):
    done = await run(connection, "echo out; echo err >&2; exit 7")
    assert (done.exit_status, done.stdout, done.stderr) == (7, "out\n", "err\n"), done
    data = bytes(range(256)) * 8192
    done = await run(connection, "cat", input=data, encoding=None)
    assert done.exit_status == 0 and done.stdout == data, len(done.stdout)
    print("ok: commands, their streams and how they ended")

    # `kill` alone would be cw's.
    done = await run(connection, "exec sh -c 'kill -TERM $$'")
    assert done.exit_signal and done.exit_signal[0] == "TERM", done
    script = "trap 'echo got; exit 9' INT; echo ready; while :; do sleep 0.1; done"
    for name, status in [("INT", 9), ("KILL", None)]:
        process = await connection.create_process(script)
        await until(process.stdout, "ready")
        process.send_signal(name)
        done = await asyncio.wait_for(process.wait(), LIMIT)
        if status:
            assert (done.exit_status, done.stdout) == (status, "\ngot\n"[1:]), done
        else:
            assert done.exit_signal[0] == name, done
    print("ok: signals, both ways")

    environment = {"LANG": "C", "LC_TIME": "x", "LD_PRELOAD": "x", "CW_SESSION_ID": "7", "FOO": "x"}
    show = '/bin/echo "$LANG|$LC_TIME|$LD_PRELOAD|$CW_SESSION_ID|$FOO"'
    # Nobody asks for answers to these: none may be taken for that to the command.
    for _ in range(20):
        done = await run(connection, show, env=environment)
        assert done.stdout == "C|x|||\n", done
    print("ok: some variables, and no others")


async def terminals(connection):
    process = await connection.create_process(term_type="xterm", term_size=(100, 30))
    process.stdin.write("stty size\n")
    await until(process.stdout, "30 100")
    process.change_terminal_size(77, 33)
    process.stdin.write("stty size\n")
    await until(process.stdout, "33 77")
    process.stdin.write("exit 3\n")
    done = await asyncio.wait_for(process.wait(), LIMIT)
    assert done.exit_status == 3, done
    print("ok: a shell in a terminal, with its size")


async def verbs(stage, connection):
    """Every command of cw is cw's, and is told from others."""
    listed = re.findall(r"^  ([a-z][a-z-]*)  ", stage.cw("dev-1", "--help"), re.MULTILINE)
    names = [name for name in dict.fromkeys(listed) if name != "help"]
    assert len(names) > 30 and "attach" in names, names
    for name in names:
        there = await run(connection, f"{name} --help")
        assert there.exit_status == 0, f"{name}: {there.stderr}"
        assert there.stdout == stage.cw("dev-1", name, "--help"), f"{name}: {there.stdout}"
    done = await run(connection, "launch worker -- sh -c 'echo begun; read -r x'")
    assert done.exit_status == 0, done
    listed = json.loads((await run(connection, "list --json")).stdout)
    assert "worker" in json.dumps(listed), listed
    done = await run(connection, "send worker enough")
    assert done.exit_status == 0, done
    done = await run(connection, "wait worker")
    assert done.exit_status == 0, done
    done = await run(connection, "logs worker")
    assert "begun" in done.stdout, done
    done = await run(connection, "logs nobody")
    assert done.exit_status == 3 and "[session_not_found]" in done.stderr, done
    print(f"ok: {len(names)} commands of cw")


async def files(stage, connection, second):
    here, there, back = (stage.path(name) for name in ["here", "there", "back"])
    data = os.urandom(3_000_000)
    Path(here).write_bytes(data)
    async with connection.start_sftp_client() as sftp:
        # With as many requests under way as it likes.
        await asyncio.wait_for(sftp.put(here, there), LIMIT)
        assert Path(there).read_bytes() == data
        await asyncio.wait_for(sftp.get(there, back, max_requests=512, block_size=4096), LIMIT)
        assert Path(back).read_bytes() == data
        assert (await sftp.stat(there)).size == len(data)
        await sftp.rename(there, there + "2")
        assert "there2" in await sftp.listdir(stage.directory)
        await sftp.truncate(there + "2", 5)
        assert Path(there + "2").read_bytes() == data[:5]
        assert (await sftp.statvfs(stage.directory)).bsize > 0
        async with sftp.open(there + "2", "ab") as file:
            await file.write(b"more")
        await sftp.remove(there + "2")
        assert not await sftp.exists(there + "2")
    assert await refused(second.start_sftp_client())
    print("ok: files, where they are given")


async def ports(stage, connection, second):
    async def answer(reader, writer):
        writer.write(b"heard " + await reader.read())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await connection.open_connection("127.0.0.1", port)
    writer.write(b"a question")
    writer.write_eof()
    heard = await asyncio.wait_for(reader.read(), LIMIT)
    assert heard == b"heard a question", heard
    for host in ["192.0.2.1", "relay.invalid", "0.0.0.0", "169.254.169.254", "127.0.0.2"]:
        await refused(connection.open_connection(host, port))
    await refused(second.open_connection("127.0.0.1", port))
    # Nothing of the relay's or the node's is opened for others, and no agent goes along.
    await refused(connection.forward_remote_port("", 0, "127.0.0.1", port))
    await refused(connection.open_unix_connection("/run/docker.sock"))
    server.close()
    print("ok: ports of the loopback, where they are given, and nothing else")


async def passwords(stage):
    password = stage.cw("dev-1", "node", "qr").strip()
    async with stage.door("dev-1", password=password) as connection:
        assert (await run(connection, "echo in")).stdout == "in\n"
    await refused(stage.door("dev-1", password=password))
    await refused(stage.door("dev-2", password=stage.cw("dev-1", "node", "qr").strip()))
    print("ok: a password, once")


async def crowds(connection):
    """More channels than there may be; those that are stay."""
    processes = []
    try:
        for _ in range(64):
            processes.append(await connection.create_process("cat"))
    except asyncssh.ChannelOpenError:
        pass
    assert 8 <= len(processes) < 64, len(processes)
    for process in processes:
        process.stdin.write("hello\n")
        await until(process.stdout, "hello")
        process.stdin.write_eof()
        await asyncio.wait_for(process.wait(), LIMIT)
    assert (await run(connection, "echo again")).stdout == "again\n"
    print(f"ok: {len(processes)} channels of one connection")


def over(stage, door, node, key):
    """A connection end to end, to the node's own server by its own key."""
    known = ([stage.host_key(node)], [], [])
    return asyncssh.connect(
        node, 22, tunnel=door, username="me", client_keys=[key], known_hosts=known, agent_path=None,
        config=[], connect_timeout=LIMIT, login_timeout=LIMIT,
    )


async def audit(name, port):
    """No weak algorithm."""
    process = await asyncio.create_subprocess_exec(
        AUDIT, "--json", "--skip-rate-test", "--timeout", "20", "--port", str(port), "127.0.0.1",
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await asyncio.wait_for(process.communicate(), LIMIT)
    told = json.loads(out)
    complaints, count = [], 0
    for kind in ["kex", "key", "enc", "mac"]:
        # It has seen what it was to look at.
        assert told[kind], f"{name}: no {kind}"
        for one in told[kind]:
            count += 1
            notes = one.get("notes", {})
            for note in notes.get("fail", []):
                complaints.append(f"{kind} {one['algorithm']}: fails: {note}")
            for note in notes.get("warn", []):
                if EXPLAINED.get((kind, one["algorithm"]), "\0") not in note:
                    complaints.append(f"{kind} {one['algorithm']}: {note}")
    complaints += [str(cve) for cve in told.get("cves", [])]
    assert not complaints, f"{name}:\n" + "\n".join(complaints)
    print(f"ok: {name}: {count} algorithms, none of them weak")


async def audits(stage, door):
    await audit("the front door", stage.ssh_port)

    async def splice(reader, writer):
        async def pass_on(from_, to):
            try:
                while data := await from_.read(65536):
                    to.write(data)
                    await to.drain()
            except (OSError, asyncssh.Error):
                pass
            to.close()

        try:
            there, back = await door.open_connection("dev-1", 22)
        except asyncssh.Error:
            writer.close()
            return
        await asyncio.gather(pass_on(reader, back), pass_on(there, writer))

    server = await asyncio.start_server(splice, "127.0.0.1", 0)
    await audit("a node's own server", server.sockets[0].getsockname()[1])
    server.close()


async def main(stage):
    key = asyncssh.generate_private_key("ssh-ed25519", comment="me@e2e")
    public = stage.path("id.pub")
    key.write_public_key(public)
    await refused(stage.door("dev-1", client_keys=[key]))
    stage.cw("dev-1", "ssh-key", "add", public, "--relay-url", stage.url)
    stage.cw("dev-1", "ssh-key", "add", "--here", public)
    async with (
        stage.door("dev-1", client_keys=[key]) as connection,
        stage.door("alpha/dev-2", client_keys=[key]) as second,
    ):
        await commands(connection)
        await terminals(connection)
        await verbs(stage, connection)
        await files(stage, connection, second)
        await ports(stage, connection, second)
        await crowds(connection)
        await passwords(stage)
        async with over(stage, connection, "dev-1", key) as node:
            print("end to end:")
            await commands(node)
            await terminals(node)
            await files(stage, node, second)
            await ports(stage, node, second)
            await crowds(node)
        await refused(over(stage, connection, "dev-2", key))
        await audits(stage, connection)
        await hostile.rows(lambda: stage.door("dev-1", client_keys=[key]))
        await hostile.rows(lambda: over(stage, connection, "dev-1", key))
    # Last: who has guessed so often has to wait.
    await hostile.flood(stage.door, key)
    for log in stage.logs():
        assert "panicked" not in log.read_text(), log


with tempfile.TemporaryDirectory(prefix="cw") as directory:
    stage = Stage(directory)
    try:
        stage.start()
        asyncio.run(main(stage))
    except BaseException:
        for log in stage.logs():
            print(f"----- {log.name}\n{log.read_text()[-4000:]}", file=sys.stderr)
        raise
    finally:
        stage.end()
print("SSH: all is well")
