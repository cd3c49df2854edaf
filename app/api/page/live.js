// Watches a topic and consumes a group with EventSource. What comes from publishers becomes text, never markup.
"use strict";

const KEPT = 500;
const at = (id) => document.getElementById(id);
const path = (...parts) => "/v1/" + parts.map(encodeURIComponent).join("/");

function element(name, text, cls) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (cls) made.className = cls;
  return made;
}

async function call(method, target, body) {
  const headers = { accept: "application/json" };
  if (at("key").value) headers.authorization = "Bearer " + at("key").value;
  if (body !== undefined) headers["content-type"] = "application/json";
  const answer = await fetch(target, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const document = answer.status === 204 ? {} : await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(document.detail || `The server answered ${answer.status}.`);
  return document;
}

// One EventSource after the other: the browser reconnects by itself, unless it needs another ticket.
class Stream {
  constructor(target, params, place, listeners) {
    Object.assign(this, { target, params, place, listeners, last: "", ended: false, failures: 0 });
    this.open();
  }

  async open() {
    const params = new URLSearchParams(this.params);
    try {
      if (at("key").value) {
        params.set("ticket", (await call("POST", "/v1/stream-tickets", this.place)).ticket);
        if (this.last) params.set("lastEventId", this.last);
      }
    } catch (error) {
      this.listeners.failed(error.message);
      return;
    }
    if (this.ended) return;
    const source = (this.source = new EventSource(`${this.target}?${params}`));
    source.onopen = () => { this.failures = 0; this.listeners.opened(); };
    source.onerror = () => this.interrupted(source);
    for (const name of ["message", "gap", "problem"]) {
      source.addEventListener(name, (event) => {
        this.last = event.lastEventId;
        this.listeners[name]?.(JSON.parse(event.data));
      });
    }
  }

  interrupted(source) {
    if (this.ended || source !== this.source) return;
    if (source.readyState !== EventSource.CLOSED) this.listeners.waiting();
    else if (at("key").value && this.failures++ < 5) setTimeout(() => this.ended || this.open(), 1000 * this.failures);
    else this.explain();
  }

  // EventSource does not say why it was refused; a plain request does.
  async explain() {
    const stop = new AbortController();
    try {
      const answer = await fetch(`${this.target}?${new URLSearchParams(this.params)}`, { signal: stop.signal });
      const problem = answer.ok ? {} : await answer.json();
      this.listeners.failed(problem.detail || "The connection was refused.");
    } catch {
      this.listeners.failed("The server cannot be reached.");
    }
    stop.abort();
  }

  close() {
    this.ended = true;
    this.source?.close();
  }
}

function show(light, text, prefix = "") {
  at(prefix + "light").dataset.state = light;
  at(prefix + "state").textContent = text;
}

function trouble(text, prefix = "") {
  at(prefix + "trouble").textContent = text;
  at(prefix + "trouble").hidden = !text;
}

function listeners(prefix, idle, more) {
  return {
    opened: () => { show("open", idle, prefix); trouble("", prefix); },
    waiting: () => show("connecting", "Connecting again…", prefix),
    failed: (text) => { show("failed", "Stopped", prefix); trouble(text, prefix); more.stop(); },
    problem: (problem) => trouble(problem.detail, prefix),
    ...more,
  };
}

function shown(message) {
  const line = element("li");
  const where = element("div", undefined, "where");
  where.append(element("span", `${message.partition}:${message.offset}`));
  if (message.key !== null) where.append(element("b", message.key));
  if (message.attempt) where.append(element("span", `attempt ${message.attempt} of ${message.maxAttempts}`));
  where.append(element("time", new Date(message.publishedAt).toLocaleTimeString()));
  const payload = "message" in message ? JSON.stringify(message.message, null, 2) : `${message.contentType}, ${message.dataBase64.length} characters of base64`;
  line.append(where, element("pre", payload));
  return line;
}

// The topic

const watching = { stream: null, paused: false, held: [], count: 0, recent: [] };

function add(line) {
  at("empty").hidden = true;
  at("messages").prepend(line);
  while (at("messages").childElementCount > KEPT) at("messages").lastElementChild.remove();
}

function came(line) {
  watching.count += 1;
  watching.recent.push(performance.now());
  at("count").textContent = watching.count;
  if (!watching.paused) { add(line); return; }
  watching.held.push(line);
  if (watching.held.length > KEPT) watching.held.shift();
  at("waiting").textContent = `${watching.held.length} held back`;
}

function watch(topic) {
  watching.stream?.close();
  const params = { from: at("from").value };
  if (at("filter").value.trim()) params.filter = at("filter").value.trim();
  show("connecting", "Connecting…");
  trouble("");
  at("start").textContent = "Stop";
  at("pause").disabled = false;
  history.replaceState(null, "", `?${new URLSearchParams({ topic, ...params })}`);
  watching.stream = new Stream(path("topics", topic, "stream"), params, { topic }, listeners("", `Watching ${topic}`, {
    message: (message) => came(shown(message)),
    gap: ({ partitions }) => add(element("li", "Not retained any more: " + partitions
      .map((gap) => `${gap.partition}:${gap.from}–${gap.to}`).join(", "), "gap")),
    stop: stopWatching,
  }));
  suggest("groups", path("topics", topic, "groups"));
}

function stopWatching() {
  watching.stream?.close();
  watching.stream = null;
  at("start").textContent = "Watch";
  at("pause").disabled = true;
  if (watching.paused) pause();
}

function pause() {
  watching.paused = !watching.paused;
  at("pause").textContent = watching.paused ? "Go on" : "Pause";
  at("waiting").textContent = "";
  if (!watching.paused) watching.held.splice(0).forEach(add);
}

at("watch").addEventListener("submit", (event) => {
  event.preventDefault();
  if (watching.stream) { stopWatching(); show("idle", "Not connected"); } else watch(at("topic").value.trim());
});
at("pause").addEventListener("click", pause);
at("clear").addEventListener("click", () => {
  at("messages").replaceChildren();
  watching.held = [];
  watching.count = 0;
  at("count").textContent = "0";
  at("waiting").textContent = "";
  at("empty").hidden = false;
});
setInterval(() => {
  const now = performance.now();
  watching.recent = watching.recent.filter((time) => now - time < 3000);
  at("rate").textContent = Math.round(watching.recent.length / 3);
}, 500);

// The group

const member = { stream: null };

function settleable(message, topic, group) {
  const line = shown(message);
  const buttons = element("div", undefined, "buttons");
  for (const [verb, past] of [["ack", "acked"], ["nack", "nacked"], ["discard", "discarded"]]) {
    const button = element("button", verb[0].toUpperCase() + verb.slice(1));
    button.type = "button";
    button.dataset.verb = verb;
    button.addEventListener("click", async () => {
      for (const each of buttons.children) each.disabled = true;
      try {
        const body = { ackIds: [message.ackId] };
        if (verb !== "ack") body.reason = "by hand";
        await call("POST", path("topics", topic, "groups", group, verb), body);
        at(past).textContent = Number(at(past).textContent) + 1;
        trouble("", "group-");
      } catch (error) {
        trouble(error.message, "group-");
      }
      line.remove();
      at("group-empty").hidden = at("deliveries").childElementCount > 0;
    });
    buttons.append(button);
  }
  line.append(buttons);
  return line;
}

function join(topic, group) {
  const params = { max: at("max").value };
  show("connecting", "Connecting…", "group-");
  trouble("", "group-");
  at("join").textContent = "Leave";
  member.stream = new Stream(path("topics", topic, "groups", group, "stream"), params, { topic, group },
    listeners("group-", `Member of ${group}`, {
      message: (message) => {
        at("group-empty").hidden = true;
        at("deliveries").append(settleable(message, topic, group));
      },
      // What was out when the connection ended is handed back, and comes again.
      waiting: () => { show("connecting", "Connecting again…", "group-"); at("deliveries").replaceChildren(); },
      stop: leave,
    }));
}

function leave() {
  member.stream?.close();
  member.stream = null;
  at("join").textContent = "Join";
  at("deliveries").replaceChildren();
  at("group-empty").hidden = false;
}

at("consume").addEventListener("submit", (event) => {
  event.preventDefault();
  const topic = at("topic").value.trim();
  if (member.stream) { leave(); show("idle", "Not joined", "group-"); }
  else if (!topic) trouble("Pick a topic first.", "group-");
  else join(topic, at("group").value.trim());
});

// Beginning

async function suggest(list, target) {
  try {
    const { items } = await call("GET", `${target}?limit=100`);
    at(list).replaceChildren(...items.map((item) => Object.assign(element("option"), { value: item.name })));
  } catch {
    // Only suggestions: whoever may not list can still type.
  }
}

const given = new URLSearchParams(location.search);
at("topic").value = given.get("topic") || "";
at("filter").value = given.get("filter") || "";
if (given.get("from") === "earliest") at("from").value = "earliest";
at("topic").addEventListener("change", () => suggest("groups", path("topics", at("topic").value.trim(), "groups")));
suggest("topics", "/v1/topics");
if (at("topic").value) watch(at("topic").value);
else at("topic").focus();
