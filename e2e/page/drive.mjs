// The relay's status page as somebody sees it: what it shows to nobody, how one signs in, nodes,
// sessions and ways that appear and go while it is open, on a wide screen and on a phone, and that
// a login that is ended ends what is shown. Everything is on the loopback interface and ends with
// this process.

import { spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const [cw, executablePath, pictures] = process.argv.slice(2);
const LIMIT = 60_000;
const WIDE = { width: 1100, height: 640 };
const PHONE = { width: 390, height: 844 };

const home = mkdtempSync(join(tmpdir(), "cw-page-"));
const token = randomBytes(24).toString("hex");
const clean = Object.entries(process.env).filter(([name]) => !name.startsWith("CODEWIRE_"));
let checks = 0;

function check(is, what) {
  if (!is) throw new Error(what);
  checks += 1;
}

function port() {
  return new Promise((told, failed) => {
    const socket = createServer().on("error", failed);
    socket.listen(0, "127.0.0.1", () => {
      const { port } = socket.address();
      socket.close(() => told(port));
    });
  });
}

const url = `http://127.0.0.1:${await port()}`;

function environment(node) {
  return {
    ...Object.fromEntries(clean),
    CODEWIRE_HOME: join(home, node),
    CODEWIRE_NODE_NAME: node,
    CODEWIRE_REPORT: "sessions",
    CODEWIRE_RELAY_URL: url,
    CODEWIRE_RELAY_AUTH_TOKEN: token,
  };
}

function on(node, ...args) {
  const done = spawnSync(cw, args, { env: environment(node), encoding: "utf8", timeout: LIMIT });
  if (done.status !== 0) throw new Error(`${node}: cw ${args.join(" ")}: ${done.stderr}`);
  return done.stdout.trim();
}

function serve() {
  const args = ["relay", "serve", "--data-dir", join(home, "relay"), "--base-url", url];
  args.push("--listen", url.slice("http://".length), "--stun-listen", "");
  const relay = spawn(cw, args, { env: environment("relay"), stdio: ["ignore", "ignore", "pipe"] });
  return new Promise((ready, failed) => {
    let said = "";
    relay.on("exit", () => failed(new Error(`the relay ended: ${said}`)));
    relay.stderr.on("data", (text) => {
      said += text;
      if (said.includes("HTTP listening")) ready(relay);
    });
  });
}

// What the browser complains about is a failure, but for the answers that this asks for.
function watch(page, complaints) {
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => {
    const isExpected = message.text().includes("status of 401");
    if (message.type() === "error" && !isExpected) complaints.push(message.text());
  });
}

async function fits(page, size) {
  await page.setViewportSize(size);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  check(wide <= size.width, `the page is ${wide} wide where there are ${size.width}`);
  const small = await page.evaluate(() =>
    [...document.querySelectorAll("button, input, .button")]
      .filter((it) => it.checkVisibility() && it.getBoundingClientRect().height < 40)
      .map((it) => it.textContent || it.id),
  );
  check(small.length === 0, `too small for a finger: ${small}`);
}

async function picture(page, name, size) {
  await fits(page, size);
  if (pictures) await page.screenshot({ path: join(pictures, `${name}.png`), fullPage: false });
}

async function door(page, context) {
  await page.goto(url);
  await page.waitForSelector("#form:visible");
  const text = await page.textContent("body");
  check(!/home|dev-1|admin/.test(text), "the door says something of what is behind it");
  await picture(page, "door-wide", WIDE);
  await picture(page, "door-phone", PHONE);
  await page.fill("#token", "a wrong one");
  await page.click("#form button");
  await page.waitForSelector("#wrong:visible");
  check(/does not know who you are/.test(await page.textContent("#wrong")), "what is wrong is told");
  check((await context.cookies()).length === 0, "a wrong token has no cookie");
  await page.fill("#token", token);
  await page.click("#form button");
  await page.waitForSelector("[data-node=dev-1].online");
  const [cookie] = await context.cookies();
  check(cookie.httpOnly && cookie.sameSite === "Strict", "the cookie is for the page alone");
  check(cookie.value !== token, "the relay's token stays out of the browser");
  check((await page.evaluate(() => document.cookie)) === "", "no script sees the cookie");
}

async function life(page) {
  // A page that was loaded again would have forgotten this.
  await page.evaluate(() => (window.mark = 1));
  on("dev-2", "network", "join", on("dev-1", "network", "invite", "--mine"));
  await page.waitForSelector("[data-node=dev-2].online");
  check(/2 of 2 online/.test(await page.textContent("#networks")), "both are counted");
  on("dev-1", "launch", "--name", "coder", "--", "sleep", "600");
  on("dev-2", "launch", "--name", "reviewer", "--", "sleep", "600");
  await page.waitForSelector("[data-node=dev-1] .sessions :text('coder')");
  await page.waitForSelector("[data-node=dev-2] .sessions .running");
  on("dev-1", "node", "ping", "dev-2");
  await page.waitForSelector("[data-node=dev-1] .ways :text('dev-2')");
  await page.waitForSelector("[data-node=dev-2] .ways .rtt");
  await picture(page, "status-wide", WIDE);
  await picture(page, "status-phone", PHONE);
  on("dev-2", "stop");
  await page.waitForSelector("[data-node=dev-2].offline");
  check(/last seen/.test(await page.textContent("[data-node=dev-2]")), "when it was there is told");
  check(/1 of 2 online/.test(await page.textContent("#networks")), "one is left");
  await picture(page, "offline-phone", PHONE);
  check((await page.evaluate(() => window.mark)) === 1, "the page was loaded again");
}

// Whoever has got a script into a name or a page of it would still not run it.
async function policy(page) {
  const ran = await page.evaluate(() => {
    const script = document.createElement("script");
    script.textContent = "window.ran = 1";
    document.head.append(script);
    return window.ran === 1;
  });
  check(!ran, "an inline script runs");
}

async function end(page) {
  const authorization = `Bearer ${token}`;
  const ended = await fetch(`${url}/api/v1/auth/logins`, {
    method: "DELETE",
    headers: { authorization },
  });
  check(ended.ok, "the logins are ended");
  await page.waitForSelector("#form:visible");
  check((await page.$$(".node")).length === 0, "what was shown is shown no more");
}

let relay;
let browser;
try {
  relay = await serve();
  on("dev-1", "network", "create", "home");
  on("dev-1", "network", "join", on("dev-1", "network", "invite", "--mine"));
  const args = ["--no-sandbox", "--disable-gpu"];
  browser = await chromium.launch({ executablePath, args });
  const context = await browser.newContext({ viewport: WIDE });
  context.setDefaultTimeout(LIMIT);
  const page = await context.newPage();
  const complaints = [];
  watch(page, complaints);
  await door(page, context);
  await life(page);
  check(complaints.length === 0, `the browser complains: ${complaints}`);
  await policy(page);
  await end(page);
  console.log(`${checks} checks of the page`);
} finally {
  await browser?.close();
  for (const node of ["dev-1", "dev-2"]) {
    spawnSync(cw, ["stop"], { env: environment(node), timeout: LIMIT });
  }
  relay?.removeAllListeners("exit");
  relay?.kill();
  rmSync(home, { recursive: true, force: true });
}
