"use strict";
// The status page. What the relay says comes as events, each with all there is to see; it is put
// into the page as text and never as markup.

const at = (id) => document.getElementById(id);

// An element with a class, text and children; `null` children are left out.
function make(kind, name, ...inside) {
  const made = document.createElement(kind);
  if (name) made.className = name;
  made.append(...inside.filter((it) => it !== null));
  return made;
}

let stream = null;
let again = 0;

function door(wrong) {
  if (stream) stream.close();
  stream = null;
  clearTimeout(again);
  at("networks").replaceChildren();
  at("who").textContent = "";
  at("live").textContent = "";
  at("live").className = "";
  at("out").hidden = true;
  at("door").hidden = false;
  at("wrong").hidden = !wrong;
  at("wrong").textContent = wrong || "";
}

async function problem(answer) {
  try {
    const said = await answer.json();
    return said.detail + (said.hint ? " – " + said.hint : "");
  } catch {
    return "the relay answers " + answer.status;
  }
}

// Who may look gets a stream; who may not gets the door.
async function enter(wrong) {
  let answer;
  try {
    answer = await fetch("/page/session");
  } catch {
    return later();
  }
  if (answer.status === 401) return door(wrong);
  if (!answer.ok) return answer.status >= 500 ? later() : door(await problem(answer));
  const who = await answer.json();
  at("door").hidden = true;
  at("wrong").hidden = true;
  at("who").textContent = who.name || who.subject;
  at("out").hidden = !who.signed_in;
  listen();
}

function later() {
  at("live").textContent = "the relay does not answer; trying again";
  at("live").className = "";
  clearTimeout(again);
  again = setTimeout(enter, 2000);
}

function listen() {
  if (stream) stream.close();
  let shown = false;
  stream = new EventSource("/page/events");
  stream.addEventListener("state", (event) => {
    shown = true;
    show(JSON.parse(event.data));
    at("live").textContent = "live";
    at("live").className = "on";
  });
  // The relay is away, or the login is over: which, it says when it is asked.
  stream.onerror = async () => {
    stream.close();
    stream = null;
    later();
    if (shown) return;
    const answer = await fetch("/page/events").catch(() => null);
    if (answer?.status === 503) at("live").textContent = await problem(answer);
    else answer?.body?.cancel();
  };
}

function show(state) {
  const networks = state.networks.map(network);
  if (!networks.length) {
    const note = "There is no network yet. 'cw network create NAME' makes one.";
    networks.push(make("p", "note", note));
  }
  if (state.more) networks.push(make("p", "note", "There are more; these are the first."));
  at("networks").replaceChildren(...networks);
}

function network(it) {
  const online = it.nodes.filter((node) => node.online).length;
  const count = online + " of " + it.nodes.length + (it.more ? "+" : "") + " online";
  const head = make("header", "", make("h2", "", it.id), it.hidden ? null : make("p", "", count));
  const nodes = make("ul", "nodes", ...it.nodes.map(node));
  const empty = it.hidden
    ? "Its nodes are shown to its members."
    : "No nodes yet. 'cw network invite' prints what brings one in.";
  const made = make("section", "network", head, it.nodes.length ? nodes : make("p", "note", empty));
  if (it.more) made.append(make("p", "note", "There are more; these are the first."));
  return made;
}

function node(it) {
  const name = make("span", "name dot", it.name);
  const since = it.online ? "online" : it.last_seen ? "last seen " + when(it.last_seen) : "never seen";
  const made = make(
    "li",
    "node " + (it.online ? "online" : "offline"),
    name,
    make("span", "about", since + " · " + it.owner),
    what(it),
  );
  made.dataset.node = it.name;
  return made;
}

function what(it) {
  const made = make("div", "what");
  if (!it.online) return made;
  if (it.paths === null) {
    made.append(make("p", "about", "its ways are not known at this relay"));
  } else if (!it.paths.length) {
    made.append(make("p", "about", "no tunnel to another node now"));
  } else {
    made.append(make("h3", "", "Ways"), make("ul", "ways", ...it.paths.map(way)));
  }
  if (it.sessions) {
    made.append(make("h3", "", "Sessions"));
    if (it.sessions.length) made.append(make("ul", "sessions", ...it.sessions.map(session)));
    else made.append(make("p", "about", "none"));
  }
  return made;
}

function way(it) {
  const kind = it.direct ? make("span", "direct", "direct") : make("span", "relayed", "by the relay");
  const rtt = it.rtt_ms === null ? null : make("span", "rtt", it.rtt_ms.toFixed(1) + " ms");
  return make("li", "", make("span", "", "→ " + it.to), kind, rtt);
}

function session(it) {
  const name = it.name === null ? null : make("span", "", it.name);
  return make("li", "", make("span", "number", String(it.id)), name, make("span", it.status, it.status));
}

function when(text) {
  const at = new Date(text);
  const near = Date.now() - at < 20 * 3600 * 1000;
  return near ? at.toLocaleTimeString() : at.toLocaleDateString();
}

at("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const token = at("token").value.trim();
  at("token").value = "";
  const answer = await fetch("/page/session", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ token }),
  }).catch(() => null);
  if (!answer) return door("the relay does not answer");
  if (answer.ok) enter();
  else door(await problem(answer));
});

at("out").addEventListener("click", async () => {
  const answer = await fetch("/page/session", { method: "DELETE" }).catch(() => null);
  if (answer?.ok) return door();
  const why = answer ? await problem(answer) : "the relay does not answer";
  at("live").textContent = "still signed in: " + why;
  at("live").className = "";
});

fetch("/api/v1/auth/config")
  .then((answer) => answer.json())
  .then((config) => {
    at("provider").hidden = !["oidc", "github"].includes(config.auth_mode);
  })
  .catch(() => null);

// Words of ours alone: an address that somebody else has made says nothing here.
const REFUSED = {
  not_allowed: "You are not among those who may come – ask whoever runs the relay.",
  login_denied: "The provider was told no – sign in again, and agree there.",
  login_expired: "That took too long – sign in again.",
  provider_unreachable: "The provider does not answer – try again later.",
};
const refused = new URLSearchParams(location.search).get("refused");
if (refused) history.replaceState(null, "", "/");
const known = refused && Object.hasOwn(REFUSED, refused);
enter(known ? REFUSED[refused] : refused ? "That did not work – sign in again." : "");
