"""What somebody sends over SSH who has come in and means no good: row A5 of the threat model.

Each vector has a connection of its own, which may end. Afterwards somebody new is served.
"""

import asyncio

import asyncssh
from asyncssh.packet import Boolean, Byte, String, UInt32

LIMIT = 60
OPEN, ADJUST, DATA, EXTENDED, REQUEST = 90, 93, 94, 95, 98


def request(name, payload, reply=True):
    return lambda channel: channel.send_packet(REQUEST, String(name), Boolean(reply), payload)


def terminal(modes):
    size = b"".join(UInt32(number) for number in [80, 24, 0, 0])
    return String("xterm") + size + String(modes)


def adjust(channel):
    for _ in range(4):
        channel.send_packet(ADJUST, UInt32(0xFFFFFFFF))


def crowd(channel):
    for number in range(10_000):
        number = UInt32(number + 1_000)
        channel._conn.send_packet(OPEN, String("session"), number, UInt32(1 << 21), UInt32(1 << 15))


def elsewhere(channel):
    """For channels that there are not."""
    for number in [7, 0x7FFFFFFF, 0xFFFFFFFF]:
        channel._conn.send_packet(DATA, UInt32(number), String("x"))
        channel._conn.send_packet(REQUEST, UInt32(number), String("shell"), Boolean(True))
        channel._conn.send_packet(ADJUST, UInt32(number), UInt32(1))


def opening(kind, window=1 << 21, size=1 << 15, rest=b""):
    return lambda channel: channel._conn.send_packet(
        OPEN, String(kind), UInt32(9), UInt32(window), UInt32(size), rest
    )


WHERE = String("127.0.0.1") + UInt32(0xFFFFFFFF) + String("x" * 70_000) + UInt32(0)
VECTORS = {
    "a terminal whose name is longer than memory": request("pty-req", UInt32(0xFFFFFFF8) + b"xterm"),
    "a terminal whose name has no end": request("pty-req", UInt32(20) + b"xterm"),
    "a terminal of nothing": request("pty-req", b""),
    "a terminal with 200 modes": request("pty-req", terminal(b"\x01\0\0\0\0" * 200 + b"\0")),
    "a terminal with half a mode": request("pty-req", terminal(b"\x01\0\0")),
    "a terminal with modes and no end of them": request("pty-req", terminal(b"\xff" * 4096)),
    "a terminal of 4294967295 columns": request(
        "pty-req", String("x\0\n\x1b[") + UInt32(0xFFFFFFFF) * 4 + String("")
    ),
    "half a size": request("window-change", UInt32(80), False),
    "a size of nothing": request("window-change", UInt32(0) * 4, False),
    "a size of 4294967295": request("window-change", UInt32(0xFFFFFFFF) * 4, False),
    "a variable with NUL": request("env", String("LC_X\0Y") + String("a\0b")),
    "a variable with a newline": request("env", String("LC_X\nY=z") + String("a\nb")),
    "a variable without a value": request("env", String("LC_X")),
    "a variable of 30 KB": request("env", String("LC_" + "X" * 30_000) + String("x")),
    "a command with NUL": request("exec", String("echo a\0b")),
    "a command of nothing": request("exec", b""),
    "a signal of nothing": request("signal", b"", False),
    "a signal that there is not": request("signal", String("\x1b[2J\0"), False),
    "a subsystem that there is not": request("subsystem", String("../../bin/sh")),
    "a request that there is not": request("x" * 20_000, b""),
    "a request that is no text": request(b"\xff\xfe", b""),
    "a break": request("break", UInt32(0xFFFFFFFF)),
    "an end of the other side": request("exit-status", UInt32(7), False),
    "windows beyond all bounds": adjust,
    "extended data of a kind that there is not": lambda channel: channel.send_packet(
        EXTENDED, UInt32(0xFFFFFFFF), String("x")
    ),
    "data whose length is wrong": lambda channel: channel.send_packet(DATA, UInt32(0xFFFFFFF0), b"x"),
    "channels that there are not": elsewhere,
    "10,000 channels": crowd,
    "a channel without a window": opening("session", window=0),
    "a channel whose packets have no room": opening("session", size=0),
    "a channel with all the room there is": opening("session", 0xFFFFFFFF, 0xFFFFFFFF),
    "a channel of a kind that there is not": opening("x" * 20_000),
    "a port beyond all ports": opening("direct-tcpip", rest=WHERE),
    "a port of nothing": opening("direct-tcpip"),
    "a socket": opening("direct-streamlocal@openssh.com", rest=String("/run/docker.sock") * 2),
    "an agent of ours": opening("auth-agent@openssh.com"),
    "a display of ours": opening("x11", rest=String("127.0.0.1") + UInt32(6000)),
    "global requests": lambda channel: [
        channel._conn.send_packet(80, String(name), Boolean(True), b"\xff" * 40)
        for name in ["tcpip-forward", "cancel-tcpip-forward", "streamlocal-forward@openssh.com", ""]
    ],
    "a packet that there is not": lambda channel: channel._conn.send_packet(191, Byte(0)),
    "a login after the login": lambda channel: channel._conn.send_packet(
        50, String("root"), String("ssh-connection"), String("none")
    ),
}

# Asked for properly, and not to be had.
REFUSED = {
    "an agent": ("auth-agent-req@openssh.com", b""),
    "a display": ("x11-req", Boolean(False) + String("MIT-MAGIC-COOKIE-1") + String("00") + UInt32(0)),
    "another subsystem": ("subsystem", String("netconf")),
}


async def ended(channel, connection):
    """The program, or the connection that it was in."""
    try:
        channel.write_eof()
        await asyncio.wait_for(channel.wait_closed(), LIMIT)
    except (asyncssh.Error, OSError, ValueError):
        pass
    connection.abort()
    await asyncio.wait_for(connection.wait_closed(), LIMIT)


async def rows(connect):
    """Throws everything at a server; `connect` makes a connection."""
    for name, send in VECTORS.items():
        connection = await connect()
        try:
            channel, _ = await connection.create_session(asyncssh.SSHClientSession, "cat")
            send(channel)
            await ended(channel, connection)
            async with await connect() as fresh:
                done = await asyncio.wait_for(fresh.run("echo still"), LIMIT)
                assert done.stdout == "still\n", done
        except (TimeoutError, asyncssh.Error, OSError) as error:
            raise AssertionError(f"{name}: {error!r}") from error
    for name, (kind, payload) in REFUSED.items():
        async with await connect() as connection:
            channel, _ = await connection.create_session(asyncssh.SSHClientSession, "cat")
            is_taken = await asyncio.wait_for(channel._make_request(kind.encode(), payload), LIMIT)
            assert not is_taken, f"{name} is to be had"
    print(f"ok: {len(VECTORS) + len(REFUSED)} requests that mean no good")


async def flood(door, key):
    """Many who guess, and one who comes with a key."""

    async def guess(number):
        try:
            await door("dev-1", password=f"guess-{number}")
        except (asyncssh.Error, OSError):
            return
        raise AssertionError("a guess was right")

    guesses = [asyncio.create_task(guess(number)) for number in range(100)]
    async with door("dev-1", client_keys=[key]) as connection:
        assert (await connection.run("echo in")).stdout == "in\n"
    await asyncio.wait_for(asyncio.gather(*guesses), LIMIT)
    print(f"ok: {len(guesses)} who guess")
