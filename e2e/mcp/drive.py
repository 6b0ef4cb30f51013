"""Drives every tool of `cw mcp-server` with the official Python client.

Real sessions on a real node, whose directory is in CODEWIRE_HOME. Each check prints one line; the
first that fails ends the run with its reason.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
from contextlib import asynccontextmanager

from mcp import ClientSession
from mcp.client.stdio import StdioServerParameters, stdio_client

CW = sys.argv[1]
LIMIT = 60


@asynccontextmanager
async def client(**more):
    """A server of its own, and a client that has greeted it."""
    environment = {**os.environ, **more}
    server = StdioServerParameters(command=CW, args=["mcp-server"], env=environment)
    async with stdio_client(server) as (reader, writer):
        async with ClientSession(reader, writer) as session:
            await session.initialize()
            yield session


async def call(session, tool, **arguments):
    """Calls a tool that has to succeed; returns its structured part and its text."""
    result = await asyncio.wait_for(session.call_tool(tool, arguments), LIMIT)
    text = "".join(part.text for part in result.content)
    assert not result.is_error, f"{tool}: {text}"
    return result.structured_content, text


async def fails(session, tool, code, **arguments):
    result = await asyncio.wait_for(session.call_tool(tool, arguments), LIMIT)
    text = "".join(part.text for part in result.content)
    assert result.is_error and f"[{code}]" in text, f"{tool}: {text}"


def cw(*words):
    done = subprocess.run([CW, *words], capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, f"cw {words}: {done.stderr}"
    return done.stdout


async def sessions(session):
    tools = (await session.list_tools()).tools
    assert len(tools) == 18, [tool.name for tool in tools]
    for tool in tools:
        assert tool.name.startswith("codewire_") and tool.description, tool
        assert tool.input_schema["type"] == "object" and tool.output_schema, tool
        assert tool.annotations.read_only_hint is not None, tool
    print(f"ok: {len(tools)} tools, each with schemas and hints")

    launched, text = await call(
        session,
        "codewire_launch_session",
        command=["sh", "-c", "echo begin; while read -r x; do echo got:$x; done"],
        name="echo",
        tags=["worker"],
        env=["GREETING=hi"],
    )
    number = launched["session_id"]
    assert text == f"Launched session {number}" and launched["name"] == "echo"
    listed, _ = await call(session, "codewire_list_sessions", status_filter="running")
    assert [one["name"] for one in listed["sessions"]] == ["echo"], listed
    sent, _ = await call(session, "codewire_send_input", session_id="echo", input="hello")
    assert sent["bytes"] == 6
    waited, _ = await call(
        session, "codewire_wait_for", session_id=number, until="output", pattern="got:hello"
    )
    assert waited["done"] and not waited["failed"], waited
    read, text = await call(session, "codewire_read_session_output", session_id=number)
    assert "begin" in text and "got:hello" in read["output"], read
    await call(session, "codewire_send_input", session_id=number, input="C-d", keys=True)
    watched, text = await call(session, "codewire_watch_session", session_id=number)
    assert watched["done"] and "[Session completed (0)]" in text, watched
    status, _ = await call(session, "codewire_get_session_status", session_id=number)
    assert status["status"] == "completed (0)" and status["exit_code"] == 0, status
    print("ok: a session is launched, typed into, read, watched and seen to its end")

    await call(session, "codewire_launch_session", command=["sleep", "600"], tags=["idle"])
    pending, _ = await call(session, "codewire_wait_for", tags=["idle"], timeout_seconds=1)
    assert not pending["done"], pending
    killed, _ = await call(session, "codewire_kill_session", tags=["idle"])
    assert killed["count"] == 1
    failing, _ = await call(session, "codewire_launch_session", command=["sh", "-c", "exit 3"])
    waited, _ = await call(session, "codewire_wait_for", session_id=failing["session_id"])
    assert waited["failed"] == [failing["session_id"]], waited
    print("ok: waiting tells failure from success and says when it is not over")

    events, _ = await call(session, "codewire_subscribe", after_cursor=0, event_types=["session.status"])
    assert len(events["events"]) >= 2 and events["cursor"] > 0 and not events["gap"], events
    none, _ = await call(
        session, "codewire_subscribe", after_cursor=events["cursor"], max_duration_seconds=1
    )
    assert none["cursor"] >= events["cursor"]
    print("ok: events are told from a cursor on")


async def bad_input(session):
    await fails(session, "codewire_get_session_status", "session_not_found", session_id=999)
    await fails(session, "codewire_kill_session", "bad_request")
    await fails(session, "codewire_send_input", "bad_request", session_id=1)
    await fails(session, "codewire_launch_session", "command_not_found", command=["no-such-program"])
    await fails(session, "codewire_msg", "session_not_found", body="x", to_name="nobody")
    await fails(session, "codewire_reply", "request_not_found", request_id="req_x", body="x", from_session_id=1)
    await fails(session, "codewire_list_nodes", "no_network")
    await fails(session, "codewire_get_session_status", "no_network", session_id="dev-9:coder")
    try:
        await session.call_tool("codewire_nonsense", {})
        raise AssertionError("a tool that is none")
    except Exception as error:
        assert "unknown tool" in str(error), error
    print("ok: what is wrong is said with a code, and harms nobody")


async def large(session):
    big, _ = await call(
        session, "codewire_launch_session", command=["sh", "-c", "seq 1 300000"], name="big"
    )
    await call(session, "codewire_wait_for", session_id="big")
    text, offset, parts = "", 0, 0
    while offset is not None:
        read, _ = await call(
            session,
            "codewire_read_session_output",
            session_id=big["session_id"],
            offset=offset,
            max_chars=500_000,
        )
        assert len(read["output"]) <= 500_000
        text += read["output"]
        offset, parts = read["next_offset"], parts + 1
    assert text.split() == [str(n) for n in range(1, 300_001)], "a line is lost or doubled"
    print(f"ok: {len(text)} characters in {parts} parts, none lost")


async def resources(session):
    await call(
        session,
        "codewire_launch_session",
        command=["sh", "-c", "printf 'on the screen'; read -r x; echo; echo $x; sleep 600"],
        name="shown",
    )
    await call(session, "codewire_wait_for", session_id="shown", until="output", pattern="on the screen")
    listed = {str(one.uri): one for one in (await session.list_resources()).resources}
    assert any(uri.endswith("/screen") for uri in listed), listed
    templates = (await session.list_resource_templates()).resource_templates
    assert len(templates) == 3, templates
    screen = await session.read_resource("cw://sessions/shown/screen")
    assert screen.contents[0].text.startswith("on the screen"), screen
    log = await session.read_resource("cw://sessions/big/log")
    assert log.contents[0].text.endswith("300000\n"), log.contents[0].text[-40:]
    await call(session, "codewire_msg", body="for the inbox", to_name="shown")
    inbox = await session.read_resource("cw://sessions/shown/inbox")
    assert json.loads(inbox.contents[0].text)[-1]["body"] == "for the inbox"
    prompts = {prompt.name for prompt in (await session.list_prompts()).prompts}
    assert prompts == {"supervisor", "worker"}
    prompt = await session.get_prompt("supervisor", {"task": "mend the roof"})
    assert "mend the roof" in prompt.messages[0].content.text
    print("ok: resources and prompts are listed and read")


async def at_once(session):
    names = [f"many-{n}" for n in range(20)]
    await asyncio.gather(
        *(
            call(session, "codewire_launch_session", command=["cat"], name=name, tags=["many"])
            for name in names
        )
    )
    waits = [
        asyncio.create_task(call(session, "codewire_wait_for", session_id=name, timeout_seconds=40))
        for name in names
    ]
    quick = [call(session, "codewire_get_session_status", session_id=name) for name in names * 4]
    for status, _ in await asyncio.gather(*quick):
        assert status["status"] == "running"
    await call(session, "codewire_kill_session", tags=["many"], grace_seconds=1)
    for waited, _ in await asyncio.gather(*waits):
        assert waited["done"]
    print("ok: 100 calls at once, 20 of them waiting")


WORKER = """
import asyncio, os, sys
sys.argv = [sys.argv[0], {cw!r}]
sys.path.insert(0, {here!r})
from drive import call, client, fails
async def work():
    async with client() as session:
        me = os.environ["CW_SESSION_NAME"]
        for _ in range(100):
            read, _ = await call(session, "codewire_read_messages", session_id=me)
            asked = [one for one in read["messages"] if one.get("state") == "pending"]
            if asked:
                break
            await call(session, "codewire_subscribe", session_id=me, max_duration_seconds=1)
        await call(session, "codewire_reply", request_id=asked[0]["request_id"], body=f"{{me}} is done")
        await call(session, "codewire_msg", to_name="boss", body=f"{{me}} says goodbye")
        await fails(session, "codewire_msg", "sender_forbidden", to_name="boss", body="x", from_session_id="boss")
    print("result of", me)
asyncio.run(work())
"""

BOSS = """
import asyncio, os, sys
sys.argv = [sys.argv[0], {cw!r}]
sys.path.insert(0, {here!r})
from drive import call, client, fails
async def lead():
    async with client() as session:
        names = ["first", "second"]
        for name in names:
            await call(session, "codewire_launch_session", name=name, tags=["team"],
                       command=[sys.executable, "-B", {worker!r}])
        answers = await asyncio.gather(*(
            call(session, "codewire_request", to_name=name, body="ready?", timeout_seconds=40)
            for name in names))
        assert [answer["reply"] for answer, _ in answers] == [f"{{name}} is done" for name in names], answers
        waited, _ = await call(session, "codewire_wait_for", tags=["team"], timeout_seconds=40)
        assert waited["done"] and not waited["failed"], waited
        for name in names:
            _, text = await call(session, "codewire_read_session_output", session_id=name)
            assert f"result of {{name}}" in text, text
        read, _ = await call(session, "codewire_read_messages", session_id="boss", tail=50)
        said = [(one["from_name"], one["body"]) for one in read["messages"] if one["type"] == "direct.message"]
        assert sorted(said) == [(name, f"{{name}} says goodbye") for name in names], said
    print("the team is done")
asyncio.run(lead())
"""


async def team(session):
    """A supervisor and two workers, each in a session, that know nothing but the tools."""
    home = os.environ["CODEWIRE_HOME"]
    paths = {}
    for name, text in (("worker", WORKER), ("boss", BOSS)):
        paths[name] = os.path.join(home, f"{name}.py")
        with open(paths[name], "w") as file:
            here = os.path.dirname(os.path.abspath(__file__))
            file.write(text.format(cw=CW, here=here, worker=paths.get("worker")))
    await call(
        session, "codewire_launch_session", name="boss", command=[sys.executable, "-B", paths["boss"]]
    )
    waited, _ = await call(session, "codewire_wait_for", session_id="boss")
    _, text = await call(session, "codewire_read_session_output", session_id="boss")
    assert waited["done"] and not waited["failed"] and "the team is done" in text, text
    print("ok: a supervisor leads two workers by tools alone, each is who it is")


async def vanished():
    """A client that is gone in the middle of a call leaves nothing behind."""
    server = subprocess.Popen([CW, "mcp-server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    greeting = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    lines = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": greeting},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call",
         "params": {"name": "codewire_wait_for", "arguments": {"session_id": "shown"}}},
    ]
    for line in lines:
        server.stdin.write(json.dumps(line).encode() + b"\n")
    server.stdin.flush()
    answer = json.loads(server.stdout.readline())
    assert answer["result"]["protocolVersion"] == "2024-11-05", answer
    server.stdin.close()
    assert server.wait(timeout=LIMIT) == 0
    server.stdout.close()
    print("ok: an old client is understood, and one that vanishes leaves nothing")


async def node_is_away():
    """A node that is killed comes back by itself; the next call finds it."""
    async with client() as session:
        pid = int(open(os.path.join(os.environ["CODEWIRE_HOME"], "codewire.pid")).read())
        os.kill(pid, 9)
        listed, _ = await call(session, "codewire_list_sessions")
        assert listed["sessions"], listed
    print("ok: a killed node is no matter")


@asynccontextmanager
async def relay(directory):
    """A relay on a free port, in whose network the node is."""
    token = "a token for tests"
    os.environ["CODEWIRE_RELAY_AUTH_TOKEN"] = token
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    words = ["relay", "serve", "--base-url", url, "--listen", f"127.0.0.1:{port}"]
    words += ["--stun-listen", "", "--data-dir", directory]
    served = subprocess.Popen([CW, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            done = subprocess.run([CW, "health", "--url", url], capture_output=True)
            if done.returncode == 0:
                break
            assert served.poll() is None, "the relay has ended"
            await asyncio.sleep(0.05)
        cw("network", "create", "team", "--relay-url", url)
        invite = cw("network", "invite", "--mine", "--relay-url", url).strip()
        cw("network", "join", "--relay-url", url, "--node-name", "dev-1", invite)
        yield
    finally:
        served.terminate()
        served.wait(LIMIT)


async def network(session):
    listed, _ = await call(session, "codewire_list_nodes")
    assert listed["network"] == "team", listed
    kv = "codewire_kv_"
    _, text = await call(session, kv + "list")
    assert text == "[]", text
    stored, text = await call(session, kv + "set", key="tasks/1", value="build it", ttl="1h")
    assert text == "Set default/tasks/1" and stored["expires_at"], (stored, text)
    found, text = await call(session, kv + "get", key="tasks/1")
    assert text == "build it" and found["changed_by"] == "dev-1", found
    await fails(session, kv + "get", "key_not_found", key="tasks/2")
    await fails(session, kv + "get", "namespace_reserved", key="x", namespace="relay")
    await fails(session, kv + "set", "ttl_invalid", key="x", value="y", ttl="soon")
    lock = {"key": "lock", "value": "mine", "ttl": "1h", "if_absent": True}
    tries = [session.call_tool(kv + "set", lock) for _ in range(20)]
    taken = [not result.is_error for result in await asyncio.gather(*tries)]
    assert taken.count(True) == 1, taken
    old = {"if_revision": stored["revision"]}
    await call(session, kv + "set", key="tasks/1", value="done", **old)
    await fails(session, kv + "set", "conflict", key="tasks/1", value="again", **old)
    large = "x" * (1024 * 1024)
    for number in range(3):
        await call(session, kv + "set", key=f"large/{number}", value=large)
    found, text = await call(session, kv + "get", key="large/2")
    assert text == large
    await fails(session, kv + "set", "body_too_large", key="large/3", value=large + "x")
    listed, _ = await call(session, kv + "list", prefix="large/")
    assert [entry["size"] for entry in listed["entries"]] == [len(large)] * 3, listed
    assert len(listed["entries"][0]["value"]) < 2000
    _, text = await call(session, kv + "delete", key="tasks/1")
    assert text == "Deleted default/tasks/1", text
    await fails(session, kv + "delete", "key_not_found", key="tasks/1")
    # By the node's name everything works as without.
    there, _ = await call(session, "codewire_launch_session", command=["sleep", "600"], name="far")
    await call(session, "codewire_msg", body="hello", to_name="dev-1:far")
    told, _ = await call(session, "codewire_read_messages", session_id="dev-1:far")
    assert told["messages"][-1]["body"] == "hello", told
    print("ok: nodes are listed, values are shared, one of 20 gets a lock")


async def patience(session):
    """A request that nobody answers yet has a handle by which it is waited for again."""
    await call(session, "codewire_launch_session", command=["sleep", "600"], name="slow")
    asked, _ = await call(
        session, "codewire_request", to_name="slow", body="ready?", timeout_seconds=1
    )
    assert asked["answered"] is False and asked["reply"] is None, asked
    waiting = asyncio.create_task(
        call(session, "codewire_request", resume=asked["request_id"], timeout_seconds=30)
    )
    await call(
        session, "codewire_reply", request_id=asked["request_id"], body="yes", from_session_id="slow"
    )
    answered, _ = await waiting
    assert answered["answered"] and answered["reply"] == "yes", answered
    await fails(session, "codewire_request", "usage", to_name="slow")
    await fails(session, "codewire_request", "request_not_found", resume="req_" + "0" * 32)
    print("ok: a request is waited for again")


async def main():
    async with client() as session:
        await sessions(session)
        await bad_input(session)
        await large(session)
        await resources(session)
        await at_once(session)
        await team(session)
        await patience(session)
        async with relay(os.environ["CODEWIRE_HOME"] + "-relay"):
            await network(session)
    await vanished()
    await node_is_away()
    cw("kill", "--all", "--grace", "1")


if __name__ == "__main__":
    asyncio.run(main())
