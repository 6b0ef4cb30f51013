// Drives `cw mcp-server` with the official TypeScript client: every kind of thing once.
import assert from "node:assert/strict";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { ResourceUpdatedNotificationSchema } from "@modelcontextprotocol/sdk/types.js";

const cw = process.argv[2];
const transport = new StdioClientTransport({ command: cw, args: ["mcp-server"], env: process.env });
const client = new Client({ name: "check", version: "1.0.0" });
await client.connect(transport);

const call = async (name, args, options) => {
  const result = await client.callTool({ name, arguments: args }, undefined, options);
  assert.ok(!result.isError, `${name}: ${JSON.stringify(result.content)}`);
  return result.structuredContent;
};

const { tools } = await client.listTools();
assert.equal(tools.length, 18);
console.log(`ok: ${tools.length} tools for the TypeScript client`);

const { session_id } = await call("codewire_launch_session", {
  command: ["sh", "-c", "while read -r x; do echo got:$x; done"],
  name: "typescript",
});
const changed = new Promise((resolve) =>
  client.setNotificationHandler(ResourceUpdatedNotificationSchema, (told) => resolve(told.params.uri)),
);
const uri = `cw://sessions/${session_id}/log`;
await client.subscribeResource({ uri });
await call("codewire_send_input", { session_id, input: "hello" });
const waited = await call("codewire_wait_for", { session_id, until: "output", pattern: "got:hello" });
assert.ok(waited.done);
// The subscription may begin after the first words; more of them follow.
const more = setInterval(() => call("codewire_send_input", { session_id, input: "more" }), 300);
assert.equal(await changed, uri);
clearInterval(more);
await client.unsubscribeResource({ uri });
const log = await client.readResource({ uri });
assert.match(log.contents[0].text, /got:hello/);
console.log("ok: who follows a resource is told that it has changed");

let progress = 0;
const long = await call(
  "codewire_wait_for",
  { session_id, timeout_seconds: 12 },
  { onprogress: () => (progress += 1), resetTimeoutOnProgress: true },
);
assert.equal(long.done, false);
assert.ok(progress >= 2, `${progress} notices`);
console.log("ok: a long call tells of its progress");

const cancel = new AbortController();
const cancelled = call("codewire_wait_for", { session_id, timeout_seconds: 40 }, { signal: cancel.signal });
setTimeout(() => cancel.abort("enough"), 200);
await assert.rejects(cancelled);
assert.ok((await call("codewire_get_session_status", { session_id })).pid);
console.log("ok: a call is called off, the session runs on");

const failed = await client.callTool({ name: "codewire_kill_session", arguments: { session_id: 9999 } });
assert.ok(failed.isError);
await call("codewire_kill_session", { session_id, grace_seconds: 1 });
await client.close();
console.log("ok: the TypeScript client is done");
