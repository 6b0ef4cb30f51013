// Logs in at a relay by oidc-provider: with a code, and by a browser, whose forms this fills in. With
// each algorithm by which that provider signs; somebody who is in no group that may; somebody who
// says no. Everything is on the loopback interface and ends with this process.

import { spawn } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { createServer as createSocket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

// It says at length that this is no place for it to be taken seriously.
console.warn = () => {};
console.info = () => {};
const { default: Provider } = await import("oidc-provider");

const [cw] = process.argv.slice(2);
const SECRET = "s3cret/of-the-relay";
const ALGORITHMS = ["RS256", "PS256", "ES256", "EdDSA"];
const LIMIT = 60_000;

const children = new Set();
let checks = 0;

function check(is, what) {
  if (!is) throw new Error(what);
  checks += 1;
}

/// A port that was free a moment ago.
function port() {
  return new Promise((told, failed) => {
    const socket = createSocket().on("error", failed);
    socket.listen(0, "127.0.0.1", () => {
      const { port } = socket.address();
      socket.close(() => told(port));
    });
  });
}

function keys() {
  const jwk = (kind, options, alg) => ({
    ...generateKeyPairSync(kind, options).privateKey.export({ format: "jwk" }),
    alg,
    kid: alg,
    use: "sig",
  });
  return [
    jwk("rsa", { modulusLength: 2048 }, "RS256"),
    jwk("rsa", { modulusLength: 2048 }, "PS256"),
    jwk("ec", { namedCurve: "P-256" }, "ES256"),
    jwk("ed25519", {}, "EdDSA"),
  ];
}

async function provider(relay) {
  let handle;
  const server = createServer((request, answer) => handle(request, answer));
  await new Promise((listens) => server.listen(0, "127.0.0.1", listens));
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const made = new Provider(issuer, {
    clients: ALGORITHMS.map((alg) => ({
      client_id: `relay-${alg}`,
      client_secret: SECRET,
      redirect_uris: [`${relay}/auth/callback`],
      grant_types: ["authorization_code", "urn:ietf:params:oauth:grant-type:device_code"],
      response_types: ["code"],
      id_token_signed_response_alg: alg,
    })),
    jwks: { keys: keys() },
    enabledJWA: { idTokenSigningAlgValues: ALGORITHMS },
    cookies: { keys: ["of a test"] },
    features: { deviceFlow: { enabled: true }, devInteractions: { enabled: true } },
    scopes: ["openid", "profile", "groups"],
    claims: { openid: ["sub"], profile: ["preferred_username"], groups: ["groups"] },
    conformIdTokenClaims: false,
    pkce: { required: () => true },
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({
        sub: id,
        preferred_username: id,
        groups: id === "ann" ? ["staff"] : ["guests"],
      }),
    }),
  });
  handle = made.callback();
  return { issuer, server };
}

/// A child, what it prints, and a promise of its end.
function start(words, env) {
  const child = spawn(cw, words, {
    env: { PATH: process.env.PATH, LANG: "C.UTF-8", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  children.add(child);
  const it = { child, text: "", waiting: [] };
  const hear = (chunk) => {
    it.text += chunk;
    it.waiting = it.waiting.filter((look) => !look());
  };
  child.stdout.on("data", hear);
  child.stderr.on("data", hear);
  it.ended = new Promise((told) =>
    child.on("close", (code) => {
      children.delete(child);
      told(code);
    }),
  );
  it.said = (pattern) =>
    new Promise((told, failed) => {
      const look = () => {
        const found = it.text.match(pattern);
        if (found) told(found);
        return found;
      };
      if (!look()) it.waiting.push(look);
      it.ended.then(() => failed(new Error(`no ${pattern} in: ${it.text}`)));
    });
  return it;
}

/// A browser: cookies, redirections, and forms that it fills in.
class Browser {
  cookies = new Map();

  constructor(user, { aborts = false } = {}) {
    this.user = user;
    this.aborts = aborts;
    this.said_no = false;
  }

  async fetch(url, options = {}) {
    const { pathname } = new URL(url);
    const sent = [...this.cookies.values()].filter(({ path }) => pathname.startsWith(path));
    const cookie = sent.map(({ name, value }) => `${name}=${value}`).join("; ");
    const answer = await fetch(url, {
      redirect: "manual",
      ...options,
      headers: { ...options.headers, cookie },
    });
    for (const line of answer.headers.getSetCookie()) {
      const [pair, ...rest] = line.split(";").map((part) => part.trim());
      const [name, value] = [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)];
      const path = rest.find((part) => /^path=/i.test(part))?.slice(5) ?? "/";
      const key = `${name};${path}`;
      if (value === "" || rest.some((part) => /^max-age=0$/i.test(part))) this.cookies.delete(key);
      else this.cookies.set(key, { name, value, path });
    }
    return answer;
  }

  /// Goes on until there is a page without a form; its text.
  async visit(url) {
    let options = {};
    for (let step = 0; step < 30; step += 1) {
      const answer = await this.fetch(url, options);
      const body = await answer.text();
      options = {};
      if (answer.status >= 300 && answer.status < 400) {
        url = new URL(answer.headers.get("location"), url).href;
        continue;
      }
      const form = body.match(/<form([^>]*)>([\s\S]*?)<\/form>/);
      if (!form) return `${answer.status} ${body}`;
      const attribute = (text, name) =>
        text.match(new RegExp(`\\b${name}="([^"]*)"`))?.[1].replaceAll("&amp;", "&");
      const fields = new URLSearchParams();
      for (const [input] of form[2].matchAll(/<input[^>]*>/g)) {
        const name = attribute(input, "name");
        if (name) fields.set(name, attribute(input, "value") ?? "");
      }
      if (fields.has("login")) fields.set("login", this.user);
      if (fields.has("password")) fields.set("password", "anything");
      if (this.said_no) return `${answer.status} ${body}`;
      if (this.aborts && fields.has("confirm")) {
        fields.set("abort", "yes");
        // What comes then is the form for another code.
        this.said_no = true;
      }
      url = new URL(attribute(form[1], "action"), url).href;
      options = {
        method: "POST",
        body: fields.toString(),
        headers: { "content-type": "application/x-www-form-urlencoded" },
      };
    }
    throw new Error(`there is no end of it: ${url}`);
  }
}

async function run(base) {
  const relayPort = await port();
  const relay = `http://127.0.0.1:${relayPort}`;
  const { issuer, server } = await provider(relay);
  let homes = 0;
  const person = () => {
    homes += 1;
    return { CODEWIRE_HOME: join(base, `h${homes}`), CODEWIRE_RELAY_URL: relay };
  };
  const serve = async (alg) => {
    const running = start(
      [
        "relay", "serve", "--base-url", relay, "--listen", `127.0.0.1:${relayPort}`,
        "--stun-listen", "", "--data-dir", join(base, "relay"), "--lock-wait", "20",
        "--auth-mode", "oidc", "--oidc-issuer", issuer, "--oidc-client-id", `relay-${alg}`,
        "--oidc-allowed-groups", "staff",
      ],
      { CODEWIRE_HOME: join(base, "r"), CW_OIDC_CLIENT_SECRET: SECRET },
    );
    await running.said(/HTTP listening on/);
    return running;
  };
  const stop = async (running) => {
    running.child.kill("SIGTERM");
    await running.ended;
  };

  const subjects = new Set();
  for (const alg of ALGORITHMS) {
    const running = await serve(alg);
    const me = person();
    const login = start(["login", "--browser"], me);
    const [, url] = await login.said(/(http:\S+\/auth\/login\?\S+)/);
    const page = await new Browser("ann").visit(url);
    check((await login.ended) === 0, `${alg}: ${login.text}\n${page}\n${running.text}`);
    const who = start(["whoami", "--json"], me);
    await who.ended;
    const { subject, name } = JSON.parse(who.text);
    check(name === "ann", who.text);
    subjects.add(subject);
    await stop(running);
  }
  check(subjects.size === 1, `one person, whatever signs: ${[...subjects]}`);

  const running = await serve("RS256");
  for (const [user, aborts, ends] of [
    ["ann", false, /Logged in to .* as ann/],
    ["bob", false, /\[not_allowed\]/],
    ["ann", true, /\[login_denied\]/],
  ]) {
    const login = start(["login"], person());
    const [url] = await login.said(/http:\S+\/device\?user_code=\S+/);
    const page = await new Browser(user, { aborts }).visit(url);
    await login.ended;
    check(ends.test(login.text), `${user} ${aborts}: ${login.text}\n${page}\n${running.text}`);
  }
  check(!running.text.includes(SECRET), "the secret is in the log");
  await stop(running);
  server.closeAllConnections();
  server.close();
}

const base = mkdtempSync(join(tmpdir(), "cw-oidc-"));
const late = setTimeout(() => {
  console.error("this takes too long");
  process.exit(1);
}, LIMIT * 3);
process.on("exit", () => {
  for (const child of children) child.kill("SIGKILL");
  rmSync(base, { recursive: true, force: true });
});
try {
  await run(base);
  console.log(`${checks} checks of logins by oidc-provider`);
} catch (error) {
  console.error(error);
  process.exitCode = 1;
}
clearTimeout(late);
for (const child of children) child.kill("SIGKILL");
