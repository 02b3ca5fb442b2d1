// The status page: asks /api/page again and again, and shows what it says.
// Everything that comes from the engine is set as text, never as markup: names and the words of checks may be anybody's.
"use strict";
(() => {
const EVERY = 2000, HIDDEN = 10000, LATEST = 15000, PATIENCE = 10000;
const WINDOW = 300000, KEEP = 151, PAGE = 20;
const $ = (id) => document.getElementById(id);

// ---- words and numbers
const grouped = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
function short(n) {
  if (!(n >= 10000)) return grouped.format(n || 0);
  const at = Math.min(4, Math.floor(Math.log10(n) / 3));
  const value = n / 1000 ** at;
  return value.toFixed(value < 100 ? 1 : 0) + ["", "k", "M", "G", "T"][at];
}
const count = (n) => (n < 1e6 ? grouped.format(n) : short(n));
const bits = (bytes) => short(bytes * 8).replace(/([kMGT]?)$/, " $1bit/s");
function span(s) {
  if (!(s >= 0)) return "";
  s = Math.floor(s);
  if (s < 60) return s + "s";
  if (s < 3600) return Math.floor(s / 60) + "m" + (s % 60) + "s";
  if (s < 86400) return Math.floor(s / 3600) + "h" + Math.floor(s / 60 % 60) + "m";
  return Math.floor(s / 86400) + "d" + Math.floor(s / 3600 % 24) + "h";
}
const ms = (n) => (n < 10000 ? (n / 1000).toFixed(1) + "s" : span(n / 1000));
const clock = (at) => new Date(at).toLocaleTimeString("en-GB");
const many = (n, one, more) => n + " " + (n === 1 ? one : more || one + "s");

// ---- the document
function el(tag, attributes, ...inside) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value !== undefined && value !== null) node.setAttribute(key, value);
  }
  node.append(...inside.filter((one) => one !== null && one !== undefined));
  return node;
}
function svg(tag, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
function attribute(node, key, value) {
  if (node.getAttribute(key) !== value) node.setAttribute(key, value);
}

// A cell is a text, or { text, small, tone, title, meter, lines: [[class, text]], progress: [now, of] }.
function fill(cell, what) {
  const spec = typeof what === "string" ? { text: what } : what;
  const seen = JSON.stringify(spec);
  if (cell.seen === seen) return;
  cell.seen = seen;
  const inside = [];
  if (spec.tone) inside.push(el("span", { class: "badge " + spec.tone }, spec.text));
  else if (spec.meter !== undefined) {
    inside.push(el("meter", { min: 0, max: 1, high: 0.8, optimum: 0.2, value: spec.meter, "aria-label": spec.text }), " " + spec.text);
  } else if (spec.text) inside.push(spec.text);
  if (spec.progress) {
    const [now, of] = spec.progress;
    inside.push(" ", el("progress", { value: of - now, max: of || 1, "aria-label": "drained" }));
  }
  for (const [kind, text] of spec.lines || []) inside.push(el("span", { class: "check " + kind }, text));
  if (spec.small) inside.push(el("small", {}, spec.small));
  cell.replaceChildren(...inside);
  cell.title = spec.title || "";
  cell.classList.toggle("empty", inside.length === 0);
}

// Rows by their keys, in order, moved only where they must be: who has the focus keeps it.
function place(parent, nodes) {
  const focus = document.activeElement;
  const wanted = new Set(nodes);
  for (const node of [...parent.children]) if (!wanted.has(node)) node.remove();
  nodes.forEach((node, at) => {
    if (parent.children[at] !== node) parent.insertBefore(node, parent.children[at] || null);
  });
  if (focus && focus !== document.activeElement && parent.contains(focus)) focus.focus({ preventScroll: true });
}

// A column is [name, class].
function head(table, columns) {
  const cells = columns.map(([name, kind], at) => el("th", { scope: "col", role: "columnheader", class: `c${at} ${kind}` }, name));
  table.append(el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...cells)));
}
function cells(columns, first) {
  return columns.map(([name, kind], at) => {
    const shown = at === 0 && first ? undefined : name;
    return el("td", { role: "cell", class: `c${at} ${kind}`, "data-name": shown || undefined });
  });
}
class Grid {
  constructor(table, columns) {
    this.columns = columns;
    this.rows = new Map();
    head(table, columns);
    this.body = el("tbody", { role: "rowgroup" });
    table.append(this.body);
  }
  draw(list) {
    const rows = new Map();
    for (const [key, values, tone] of list) {
      const row = this.rows.get(key) || el("tr", { role: "row" }, ...cells(this.columns, true));
      attribute(row, "class", "t-" + (tone || "good"));
      values.forEach((value, at) => fill(row.children[at], value));
      rows.set(key, row);
    }
    this.rows = rows;
    place(this.body, [...rows.values()]);
  }
}

// ---- what was, for the charts: a ring of samples for each line, never longer than KEEP
class Ring {
  constructor(lanes) {
    this.times = new Float64Array(KEEP);
    this.values = Array.from({ length: lanes }, () => new Float64Array(KEEP));
    this.length = this.next = 0;
  }
  push(at, ...values) {
    this.times[this.next] = at;
    values.forEach((value, lane) => { this.values[lane][this.next] = value || 0; });
    this.next = (this.next + 1) % KEEP;
    this.length = Math.min(KEEP, this.length + 1);
  }
  each(lane, use) {
    for (let n = 0; n < this.length; n++) {
      const at = (this.next - this.length + n + KEEP) % KEEP;
      use(this.times[at], this.values[lane][at]);
    }
  }
  highest(from) {
    let most = 0;
    this.values.forEach((_, lane) => this.each(lane, (at, value) => { if (at >= from) most = Math.max(most, value); }));
    return most;
  }
}
// A line of a ring as a path; a gap in time is a gap in the line.
function path(ring, lane, now, width, height, most, area) {
  let line = "", last = 0, begun = 0;
  const close = () => (area && line ? `L${last.toFixed(1)} ${height}L${begun.toFixed(1)} ${height}Z` : "");
  let before = -Infinity;
  ring.each(lane, (at, value) => {
    if (at < now - WINDOW) return;
    const x = width * (1 - (now - at) / WINDOW), y = height - (height - 2) * Math.min(1, value / most);
    const gap = at - before > 3 * HIDDEN;
    if (gap) { line += close(); begun = x; }
    line += `${gap ? "M" : "L"}${x.toFixed(1)} ${y.toFixed(1)}`;
    before = at;
    last = x;
  });
  return line + close();
}
class Chart {
  constructor(parent, name, lanes, least, form) {
    Object.assign(this, { name, least, form, ring: new Ring(lanes) });
    this.now = el("p", { class: "now" }, "–");
    this.more = el("p", { class: "more" });
    this.picture = svg("svg", { viewBox: "0 0 200 46", preserveAspectRatio: "none", role: "img" });
    this.picture.append(svg("line", { class: "base", x1: 0, x2: 200, y1: 45.5, y2: 45.5 }));
    this.area = svg("path", { class: "area" });
    this.lines = Array.from({ length: lanes }, (_, at) => svg("path", { class: at ? "line b" : "line" }));
    this.picture.append(this.area, ...this.lines);
    parent.append(el("div", { class: "chart" }, el("h3", {}, name), this.now, this.more, this.picture));
  }
  draw(at, values, now, more) {
    this.ring.push(at, ...values);
    say(this.now, now);
    say(this.more, more);
    this.more.classList.toggle("second", values.length > 1);
    const most = Math.max(this.least, this.ring.highest(at - WINDOW));
    attribute(this.area, "d", path(this.ring, 0, at, 200, 45, most, true));
    this.lines.forEach((line, lane) => attribute(line, "d", path(this.ring, lane, at, 200, 45, most, false)));
    attribute(this.picture, "aria-label", `${this.name} in the last five minutes: now ${now}, at most ${this.form(most)}`);
  }
  forget() {
    this.ring = new Ring(this.lines.length);
  }
}
const percent = (share) => Math.round(share * 100) + " %";
const charts = $("charts");
const packets = new Chart(charts, "Packets a second", 2, 10, short);
const volume = new Chart(charts, "Traffic", 2, 1000, bits);
const fresh = new Chart(charts, "New flows a second", 1, 5, short);
const flows = new Chart(charts, "Active flows", 2, 5, short);
const dropped = new Chart(charts, "Dropped a second", 1, 5, short);
const load = new Chart(charts, "Busiest worker", 2, 1, percent);
const sparks = new Map();

// ---- what is asked for; it stands in the address, so that a reload or a colleague sees the same
const wish = { filter: "", trouble: false, sort: "trouble", page: 0, open: new Map() };
function readWish() {
  const told = new URLSearchParams(location.hash.slice(1));
  wish.filter = (told.get("filter") || "").slice(0, 100);
  wish.trouble = told.get("trouble") === "1";
  const sort = told.get("sort");
  wish.sort = [...$("sort").options].some((option) => option.value === sort) ? sort : "trouble";
  wish.page = Math.min(1e6, Math.max(0, parseInt(told.get("page"), 10) || 0));
  wish.open = new Map(told.getAll("open").slice(0, PAGE).map((name) => [name, 0]));
  $("filter").value = wish.filter;
  $("trouble").checked = wish.trouble;
  $("sort").value = wish.sort;
}
function words(forEngine) {
  const out = new URLSearchParams();
  if (wish.filter.trim()) out.set("filter", wish.filter);
  if (wish.trouble) out.set("trouble", "1");
  if (wish.sort !== "trouble") out.set("sort", wish.sort);
  if (wish.page) out.set("page", wish.page);
  if (forEngine) out.set("size", PAGE);
  for (const [name, from] of wish.open) {
    out.append("open", name);
    if (forEngine && from) out.append("from", from);
  }
  return out.toString();
}
function changed(first) {
  if (first) wish.page = 0;
  const hash = words(false);
  history.replaceState(null, "", hash ? "#" + hash : location.pathname);
  poll();
}
function toggle(name, open) {
  wish.open.delete(name);
  if (open) wish.open.set(name, 0);
  // The one that was opened first closes.
  if (wish.open.size > PAGE) wish.open.delete(wish.open.keys().next().value);
}

// ---- asking
let timer = 0, asking = null, fails = 0, lostSince = 0, me = null, edition = null, before = null, latest = null;
async function get(path, signal) {
  const answer = await fetch(location.origin + path, { signal, cache: "no-store", credentials: "same-origin" });
  if (answer.ok) return answer.json();
  throw Object.assign(new Error(refusal(await answer.text()).words), { status: answer.status });
}
// What a refusal says: that of the protocol has it as `error`.
function refusal(text) {
  try {
    const told = JSON.parse(text);
    return { told, words: String(told.error || "").slice(0, 500) };
  } catch {
    return { told: null, words: text.trim().slice(0, 500) };
  }
}
async function poll() {
  clearTimeout(timer);
  if (asking) asking.abort();
  const own = asking = new AbortController();
  const late = setTimeout(() => own.abort(), PATIENCE);
  try {
    if (!me) await whoami(own.signal);
    const picture = await get("/api/page?" + words(true), own.signal);
    if (asking !== own) return;
    found();
    draw(picture);
  } catch (error) {
    if (asking !== own) return;
    lost(error);
  } finally {
    clearTimeout(late);
    if (asking === own) {
      asking = null;
      timer = setTimeout(poll, pause());
    }
  }
}
function pause() {
  const usual = document.hidden ? HIDDEN : EVERY;
  return fails ? Math.max(usual, Math.min(LATEST, EVERY * 2 ** (fails - 1))) : usual;
}
async function whoami(signal) {
  try {
    me = await get("/api/me", signal);
  } catch (error) {
    if (error.status !== 404) throw error;
    me = { name: null, role: "reader" };
  }
  const role = me.role === "admin" ? "admin" : "reader";
  say($("user"), me.name ? `${me.name} (${role})` : role);
  $("user").title = role === "admin" ? "may change servers and weights" : "may see all and change nothing";
}
function lost(error) {
  fails += 1;
  lostSince = lostSince || Date.now();
  // Who is there next may know this user by another role.
  me = null;
  const why = error.status === 401 ? "the password is not taken; reload the page to log in"
    : error.status ? error.message || "HTTP " + error.status
    : error.name === "AbortError" ? "it does not answer" : "nothing answers";
  const next = Math.round(pause() / 1000);
  const words = `Not connected since ${clock(lostSince)}: ${why}. `;
  // Read aloud once, not with each try.
  if (!$("lost").firstChild || $("lost").firstChild.textContent !== words) {
    $("lost").replaceChildren(el("span", {}, words), el("span", { "aria-live": "off" }));
  }
  say($("lost").lastChild, `What stands below is of then; tried again every ${next} s.`);
  $("lost").hidden = false;
  document.body.classList.add("stale");
  document.title = "not connected – Evenkeel";
}
function found() {
  if (fails) {
    fails = lostSince = 0;
    $("lost").hidden = true;
    $("lost").replaceChildren();
    document.body.classList.remove("stale");
  }
}

// ---- services
const COLUMNS = [["Service / server", "wide"], ["State", ""], ["Weight", "num"], ["Active", "num"], ["Inactive", "num"], ["New/s", "num"],
  ["Packets/s", "num"], ["Traffic", "num"], ["Checks and more", "wide"], ["", "wide"]];
const table = $("table");
head(table, COLUMNS);
const groups = new Map();
const both = (one, other, form) => ({ text: "→ " + form(one), small: "← " + form(other), title: "to servers, and from servers where that passes by" });
const rates = (r) => [short(r.connections), both(r.in_packets, r.out_packets, short), both(r.in_bytes, r.out_bytes, bits)];

function group(name) {
  const row = el("tr", { role: "row" }, ...cells(COLUMNS, true));
  const opener = el("button", { type: "button", class: "toggle", "aria-expanded": "false" });
  const end = el("small", { class: "endline" });
  row.children[0].append(opener, end);
  opener.addEventListener("click", () => {
    toggle(name, opener.getAttribute("aria-expanded") !== "true");
    attribute(opener, "aria-expanded", String(wish.open.has(name)));
    changed(false);
  });
  const picture = svg("svg", { class: "spark", viewBox: "0 0 96 22", preserveAspectRatio: "none", role: "img" });
  const area = svg("path", { class: "area" }), line = svg("path", { class: "line" });
  picture.append(svg("line", { class: "base", x1: 0, x2: 96, y1: 21.5, y2: 21.5 }), area, line);
  row.children[9].append(picture);
  const more = el("tr", { role: "row", class: "more" }, el("td", { role: "cell", colspan: "10", class: "wide" }));
  return { name, body: el("tbody", { role: "rowgroup" }, row), row, opener, end, picture, area, line, more, servers: new Map() };
}
function limits(l) {
  const parts = [];
  if (l.max_connections) parts.push(`${count(l.connections || 0)} of ${count(l.max_connections)} flows`);
  if (l.max_rate) parts.push(count(l.max_rate) + " new a second");
  if (l.client_max_connections) parts.push(count(l.client_max_connections) + " a client");
  if (l.client_max_rate) parts.push(count(l.client_max_rate) + " new a second a client");
  return `at most ${parts.join(", ")}; ${count(l.refused)} refused`;
}
function removed(r) {
  const end = r.port ? (r.address.includes(":") ? `[${r.address}]:${r.port}` : `${r.address}:${r.port}`) : r.address;
  return `${end} was removed: ${many(r.flows, "flow")} left`;
}
function drawService(one, at) {
  const own = groups.get(one.name) || group(one.name);
  attribute(own.row, "class", "service t-" + one.tone);
  say(own.opener, one.name);
  attribute(own.opener, "aria-expanded", String(one.open));
  say(own.end, `${one.protocol} ${one.end}`);
  const lines = [];
  if (one.limits) lines.push([one.limits.refused ? "warn" : "", limits(one.limits)]);
  if (one.quorum) lines.push([one.quorum.up ? "" : "bad", `quorum: weight ${one.quorum.weight} of ${one.quorum.least}`]);
  for (const gone of (one.removed || []).slice(0, 5)) lines.push(["", removed(gone)]);
  const told = [{ text: one.word, tone: one.tone, small: `${one.serving} of ${one.of} serve` }, "", count(one.active), count(one.inactive),
    ...rates(one.rates), { text: `${one.scheduler}, ${one.method}`, lines }];
  told.forEach((value, n) => fill(own.row.children[n + 1], value));

  let ring = sparks.get(one.name);
  if (!ring) sparks.set(one.name, ring = new Ring(1));
  ring.push(at, one.rates.in_packets + one.rates.out_packets);
  const most = Math.max(10, ring.highest(at - WINDOW));
  attribute(own.area, "d", path(ring, 0, at, 96, 21, most, true));
  attribute(own.line, "d", path(ring, 0, at, 96, 21, most, false));
  attribute(own.picture, "aria-label", `packets a second in the last five minutes, at most ${short(most)}`);

  const servers = new Map();
  for (const server of one.servers) {
    const key = server.end + (server.sorry ? " sorry" : "");
    const row = own.servers.get(key) || el("tr", { role: "row" }, ...cells(COLUMNS, true));
    drawServer(row, one, server);
    servers.set(key, row);
  }
  own.servers = servers;
  const rows = [own.row, ...servers.values()];
  const shown = one.servers.length, last = one.servers_from + shown;
  if (shown < one.servers_of) {
    more(own, one, last);
    rows.push(own.more);
  } else own.more.seen = "";
  place(own.body, rows);
  groups.set(one.name, own);
  return own.body;
}
// What is not shown of a service's servers, and the way there.
function more(own, one, last) {
  const seen = [one.open, one.servers_from, last, one.servers_of].join();
  if (own.more.seen === seen) return;
  own.more.seen = seen;
  const button = (text, act, off) => {
    const node = el("button", { type: "button" }, text);
    node.disabled = off;
    node.addEventListener("click", () => { act(); changed(false); });
    return node;
  };
  const go = (from) => () => { if (wish.open.has(one.name)) wish.open.set(one.name, Math.max(0, from)); };
  own.more.firstChild.replaceChildren(...(one.open ? [
    button("← before", go(one.servers_from - 50), one.servers_from === 0), ` ${one.servers_from + 1} to ${last} of ${one.servers_of} servers `,
    button("after →", go(last), last >= one.servers_of),
  ] : [button(`${one.servers_of - last} more like these: open`, () => toggle(one.name, true), false)]));
}
function check(one, now) {
  const kind = one.check.split(" ")[0];
  const what = one.last === "unable" ? "could not ask: " + one.result : one.result || one.last || "no result yet";
  const when = one.at ? `, ${span(now - one.at)} ago, ${one.took_ms.toFixed(1)} ms` : "";
  const since = one.since && one.state !== "starting" ? `; ${one.state} for ${span(now - one.since)}` : "";
  const tone = one.state === "down" ? "bad" : one.warning || one.last === "bad" || one.last === "unable" ? "warn" : "";
  return [tone, `${kind}: ${what}${when}${since}${one.warning ? "; " + one.warning : ""}`];
}
function drained(d) {
  if (!d.flows) return "drained: no flows left";
  const left = `${count(d.flows)} of ${count(Math.max(d.of, d.flows))} flows left`;
  if (d.seconds_left === null || d.seconds_left === undefined) return "draining: " + left;
  return d.seconds_left ? `draining: ${left}, ${d.seconds_left} s to the deadline` : `drained: ${left}`;
}
function drawServer(row, service, one) {
  attribute(row, "class", "server t-" + one.tone);
  attribute(row, "data-server", one.end);
  const kind = [one.sorry ? "sorry server" : "", one.method === service.method ? "" : one.method].filter(Boolean).join(", ");
  const weight = one.weight === one.configured_weight ? String(one.weight) : `${one.weight} of ${one.configured_weight}`;
  const lines = one.checks.map((each) => check(each, latest.now));
  if (one.checks_more) lines.push(["", `${one.checks_more} more checks`]);
  const told = !one.why || one.checks.some((each) => each.result && one.why.includes(each.result) && each.state === "down");
  if (!told) lines.unshift([one.tone === "bad" ? "bad" : "why", one.why]);
  const more = { text: "", lines };
  if (one.drain) Object.assign(more, { text: drained(one.drain), progress: [one.drain.flows, Math.max(one.drain.of, one.drain.flows)] });
  const full = one.upper_threshold ? `of ${count(one.upper_threshold)}` : "";
  const values = [
    { text: one.end, small: kind, title: one.hop && "next hop " + one.hop },
    { text: one.word, tone: one.tone, small: one.for_s === null ? "" : "for " + span(one.for_s) },
    { text: weight, small: one.weight_percent < 100 ? one.weight_percent + " % of it" : "" },
    { text: count(one.active), small: full }, count(one.inactive), ...rates(one.rates), more,
  ];
  values.forEach((value, at) => fill(row.children[at], value));
  const place = row.children[9], may = me && me.role === "admin" && !one.sorry;
  if (may && !place.firstChild) {
    const button = el("button", { type: "button", class: "change" }, "Change…");
    button.addEventListener("click", () => ask(row.about));
    place.append(button);
  } else if (!may) place.replaceChildren();
  place.classList.toggle("empty", !may);
  if (may) attribute(place.firstChild, "aria-label", `Change ${one.end} of ${service.name}`);
  row.about = { service: service.name, server: one };
}
function drawServices(picture, at) {
  const { list, matched, page, pages } = picture.services;
  const names = new Set(list.map((one) => one.name));
  for (const name of groups.keys()) if (!names.has(name)) groups.delete(name);
  for (const name of sparks.keys()) if (!names.has(name)) sparks.delete(name);
  const bodies = list.map((one) => drawService(one, at));
  place(table, [table.tHead, ...bodies]);
  const all = picture.totals.services;
  say($("services-count"), matched === all ? String(all) : `${matched} of ${all}`);
  $("nothing").hidden = list.length > 0;
  if (!list.length) say($("nothing"), all ? "No service is like that. Clear the search, or show all." : "No services are configured.");
  wish.page = page;
  $("pager").hidden = pages < 2;
  say($("at"), `page ${page + 1} of ${pages}`);
  $("before").disabled = page === 0;
  $("after").disabled = page + 1 >= pages;
}

// ---- the rest
const routers = new Grid($("vrrp"), [["Router", "wide"], ["State", ""], ["Since", ""], ["Priority", "num"], ["Master", "two"], ["Addresses", "wide"],
  ["Why", "wide"]]);
const workers = new Grid($("workers"), [["Worker", ""], ["Load", "two"], ["Received/s", "num"], ["Sent/s", "num"], ["Forwarded/s", "num"],
  ["Late", "num"], ["Ring full", "num"], ["Handed/s", "num"], ["Flows", "num"], ["Unproven", "num"]]);
const interfaces = new Grid($("interfaces"), [["Interface", ""], ["State", "two"], ["MTU", "num"], ["Queue : worker, mode", "two"], ["Taken/s", "num"],
  ["To the kernel/s", "num"], ["Notes", "wide"]]);
const drops = new Grid($("drops"), [["Reason", "wide"], ["A second", "num"], ["Since start", "num"], ["Means", "wide"]]);

function master(m) {
  if (!m) return "nobody known";
  return m.ours ? "this appliance" : `${m.address}, priority ${m.priority}, heard ${ms(m.heard_ms)} ago`;
}
function drawRouters(vrrp) {
  $("part-vrrp").hidden = !vrrp || !vrrp.routers.length;
  if (!vrrp) return;
  const tones = { MASTER: "good", BACKUP: "off", INIT: "warn", FAULT: "bad", STOP: "off" };
  routers.draw(vrrp.routers.map((one) => {
    const tone = tones[one.state] || "warn";
    const lines = one.evidence.slice(0, 5).map((e) => ["warn", `${e.kind}: ${e.text} (${many(e.count, "time")}, last ${ms(e.seen_ms)} ago)`]);
    const priority = one.priority === one.base_priority ? String(one.priority) : `${one.priority} of ${one.base_priority}`;
    return [one.name, [{ text: one.name, small: `${one.interface}, VRID ${one.vrid}` }, { text: one.state, tone }, ms(one.for_ms), priority,
      master(one.master), one.addresses.join(" "), { text: one.why, lines }], tone];
  }));
  const said = [...vrrp.groups.map((one) => `group ${one.name} (${one.routers.join(" ")}): ${one.state}`),
    ...vrrp.tracked.map((one) => `${one.what}: ${one.state}`)];
  list($("tracked"), said.map((text) => [text, ""]));
}
function list(parent, all) {
  const known = new Map([...parent.children].map((node) => [node.textContent, node]));
  place(parent, [...new Map(all)].map(([text, kind]) => {
    const node = known.get(text) || el("li", {}, text);
    attribute(node, "class", kind);
    return node;
  }));
}
// How much a counter grew in a second since the picture of before.
function rate(now, then, seconds) {
  return then === undefined || seconds <= 0 ? 0 : Math.max(0, now - then) / seconds;
}
function drawMachine(picture, then, seconds) {
  const old = new Map((then ? then.workers : []).map((one) => [one.worker, one]));
  workers.draw(picture.workers.map((one) => {
    const was = old.get(one.worker) || {};
    const per = (key) => short(rate(one[key], was[key], seconds));
    const state = one.running ? { text: percent(one.load), meter: one.load } : { text: "DEAD", tone: "bad" };
    return [one.worker, [`${one.worker} on core ${one.core}`, state, per("received"), per("sent"), per("forwarded"),
      { text: count(one.late), title: "frames that the kernel dropped because the worker was late" },
      { text: count(one.full), title: "frames that found the transmit ring full" }, per("handed"),
      { text: count(one.flows), small: "of " + short(one.flows_of) }, count(one.unproven)], one.running ? "good" : "bad"];
  }));
  const known = new Map((then ? then.interfaces : []).map((one) => [one.name, one]));
  interfaces.draw(picture.interfaces.map((one) => {
    const was = known.get(one.name) || {};
    const lines = one.refused.slice(0, 3).map((r) => ["", `no ${r.mode}: ${r.reason}`]);
    if (one.no_socket) lines.push(["warn", count(one.no_socket) + " frames for services came on queues without a worker"]);
    if (one.denied) lines.push(["", count(one.denied) + " frames of clients that the access lists deny were dropped"]);
    const queues = one.queues.slice(0, 16).map((q) => `${q.queue}:${q.worker} ${q.mode}`).join(", ");
    return [one.name, [{ text: one.name, small: one.driver }, { text: one.up ? "UP" : "DOWN", tone: one.up ? "good" : "bad" }, String(one.mtu),
      queues + (one.queues.length > 16 ? `, ${one.queues.length - 16} more` : ""), short(rate(one.taken, was.taken, seconds)),
      short(rate(one.passed, was.passed, seconds)), { text: "", lines }], one.up ? "good" : "bad"];
  }));
  const counted = new Map((then ? then.drops : []).map((one) => [one.reason, one.count]));
  let sum = 0;
  const rows = picture.drops.map((one) => {
    // A reason that was never seen before began at 0.
    const now = then ? rate(one.count, counted.get(one.reason) || 0, seconds) : 0;
    sum += now;
    return [one.reason, [one.reason, short(now), count(one.count), one.means], now > 0 ? "warn" : "good", now];
  });
  rows.sort((a, b) => (b[3] > 0) - (a[3] > 0));
  drops.draw(rows);
  $("drops").hidden = !rows.length;
  $("no-drops").hidden = rows.length > 0;
  return sum;
}
function draw(picture) {
  if (edition && picture.edition !== edition && !$("change").open) {
    // Another program answers: its page may be another one, too.
    location.reload();
    return;
  }
  edition = edition || picture.edition;
  const at = Date.now(), { totals, engine, config } = picture;
  // Another process counts from zero.
  const again = before && before.picture.engine.pid !== engine.pid;
  const then = before && !again ? before.picture : null, seconds = then ? (at - before.at) / 1000 : 0;
  latest = picture;
  const r = totals.rates;
  packets.draw(at, [r.in_packets, r.out_packets], short(r.in_packets), `${short(r.out_packets)} from servers`);
  volume.draw(at, [r.in_bytes, r.out_bytes], bits(r.in_bytes), `${bits(r.out_bytes)} from servers`);
  fresh.draw(at, [r.connections], short(r.connections), `${short(totals.connections)} since start`);
  flows.draw(at, [totals.active, totals.inactive], count(totals.active), `${count(totals.inactive)} inactive`);
  const loads = picture.workers.map((one) => one.load), busiest = Math.max(0, ...loads);
  const mean = loads.length ? loads.reduce((sum, one) => sum + one, 0) / loads.length : 0;
  load.draw(at, [busiest, mean], percent(busiest), `${percent(mean)} of ${many(loads.length, "worker")}`);
  const sum = drawMachine(picture, then, seconds);
  const all = picture.drops.reduce((all, one) => all + one.count, 0);
  dropped.draw(at, [sum], short(sum), `${short(all)} since start`);
  drawServices(picture, at);
  drawRouters(picture.vrrp);
  const alarms = [];
  if (config.last_error) alarms.push(["the last reload was refused: " + config.last_error, "bad"]);
  alarms.push(...picture.warnings.map((text) => [text, ""]));
  if (picture.warnings_more) alarms.push([`and ${picture.warnings_more} more; \`evenkeel status\` has them all`, ""]);
  list($("warnings"), alarms);
  $("alarms").hidden = !alarms.length;
  $("unsaved").hidden = !config.unsaved;
  if (config.unsaved) say($("unsaved-words"), `${many(config.unsaved, "change")} by command that the file does not have.`);
  $("save").hidden = !me || me.role !== "admin";
  const bad = totals.services_trouble, servers = totals.servers_trouble;
  const verdict = bad ? `${many(bad, "service")} with trouble, ${many(servers, "server")}` : alarms.length ? many(alarms.length, "warning") : "all is well";
  say($("verdict"), verdict);
  attribute($("verdict"), "class", "verdict " + (bad ? "bad" : alarms.length ? "warn" : "good"));
  document.title = (bad ? `(${bad}) ` : "") + "Evenkeel";
  const taken = config.taken_by_all < config.generation ? ", not yet taken by all workers" : "";
  say($("engine"), `${engine.version}, up ${span(engine.uptime_s)} · ${config.file}, loaded ${span(picture.now - config.loaded_at)} ago${taken} · ` +
    `${totals.servers_serving} of ${many(totals.servers, "server")} serve`);
  say($("fresh"), `As of ${clock(at)}.`);
  before = { at, picture: { engine: picture.engine, workers: picture.workers, interfaces: picture.interfaces, drops: picture.drops } };
  document.body.dataset.drawn = String(Number(document.body.dataset.drawn || 0) + 1);
}

// ---- what admins do
async function order(command, options) {
  const answer = await fetch(location.origin + "/api", {
    method: "POST", headers: { "Content-Type": "application/json" }, credentials: "same-origin",
    body: JSON.stringify({ version: 1, command, options }),
  });
  const { told, words } = refusal(await answer.text());
  if (told && told.ok) return told.answer;
  throw new Error(words || "HTTP " + answer.status);
}
let quiet = 0;
function toast(text) {
  clearTimeout(quiet);
  $("toast").textContent = text;
  quiet = setTimeout(() => { $("toast").textContent = ""; }, 8000);
}
let about = null;
const chosen = () => $("change-form").elements.what.value;
function name() {
  const what = chosen();
  say($("apply"), what === "weight" ? `Set weight ${$("weight").value}` : what === "drain" ? "Drain it" : what === "maintenance" ? "Into maintenance" : "Make it ready");
}
function ask(what) {
  about = what;
  const one = what.server;
  say($("change-of"), `${one.end} of ${what.service}`);
  say($("change-now"), `Now ${one.word}, weight ${one.configured_weight}, ${many(one.active, "active flow")}, ${one.inactive} inactive.`);
  $("weight").value = one.configured_weight;
  $("change-form").elements.what.value = one.admin === "ready" ? "drain" : "ready";
  say($("change-said"), "");
  $("apply").disabled = false;
  name();
  $("change").showModal();
}
$("change-form").addEventListener("input", (event) => {
  if (event.target === $("weight")) $("change-form").elements.what.value = "weight";
  say($("change-said"), "");
  name();
});
$("cancel").addEventListener("click", () => $("change").close());
$("change-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { service, server } = about, what = chosen();
  const weight = Number($("weight").value);
  if (what === "weight" && !($("weight").value.trim() && Number.isInteger(weight) && weight >= 0 && weight <= 65535)) {
    say($("change-said"), "A weight is a whole number from 0 to 65535.");
    return;
  }
  $("apply").disabled = true;
  say($("change-said"), "");
  try {
    const answer = what === "weight"
      ? await order("edit", { edits: [{ do: "edit-server", service, server: server.name, keys: { weight } }] })
      : await order("server", { action: what, server: server.name, service });
    $("change").close();
    const done = { ready: "is ready again", drain: "drains", maintenance: "is in maintenance", weight: `has weight ${weight}` }[what];
    toast(`${server.end} of ${service} ${done}.${answer && answer.warning ? " " + answer.warning : ""}`);
    poll();
  } catch (error) {
    say($("change-said"), "Refused: " + error.message);
    $("apply").disabled = false;
  }
});
$("save").addEventListener("click", async () => {
  if (!confirm("Write the changes that were made by command to the configuration file?")) return;
  try {
    const answer = await order("save", {});
    toast(`${many(answer.saved, "change")} saved to ${answer.file}.`);
    poll();
  } catch (error) {
    toast("Not saved: " + error.message);
  }
});

// ---- what everybody does
let typing = 0;
$("filter").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => { wish.filter = $("filter").value; changed(true); }, 200);
});
$("search").addEventListener("submit", (event) => event.preventDefault());
$("trouble").addEventListener("change", () => { wish.trouble = $("trouble").checked; changed(true); });
$("sort").addEventListener("change", () => { wish.sort = $("sort").value; changed(true); });
$("open-all").addEventListener("click", () => { for (const name of groups.keys()) toggle(name, true); changed(false); });
$("close-all").addEventListener("click", () => { wish.open.clear(); changed(false); });
$("before").addEventListener("click", () => { wish.page = Math.max(0, wish.page - 1); changed(false); });
$("after").addEventListener("click", () => { wish.page += 1; changed(false); });
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.target.closest("input, select, dialog")) {
    event.preventDefault();
    $("filter").focus();
  }
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
addEventListener("hashchange", () => { readWish(); poll(); });
addEventListener("online", poll);
readWish();
poll();
})();
