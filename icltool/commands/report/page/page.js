// The view: controls, address fragment, pages and keys.

const PER_PAGE = 24;
const FIELDS = ["q", "view", "a", "b", "data", "source", "method", "shots", "seed", "outcome", "metric", "sort", "page"];
const control = (name) => document.getElementById(name);
const cards = document.getElementById("cards");
let view, units = [], waiting;

function defaults() {
  const last = D.settings.source.lastIndexOf(D.settings.source[0]);
  const first = Math.min(1, last);
  return {
    q: "", view: "one", a: Math.max(0, last), b: Math.max(0, D.kind === "sequences" ? first : 0), data: "", source: "",
    method: "", shots: "", seed: "", outcome: "", metric: 0, sort: "id", page: 1,
  };
}

/** The view as a fragment; what is as at the start is left out. */
function encode(state) {
  const start = defaults();
  const parts = new URLSearchParams();
  for (const name of FIELDS) if (String(state[name]) !== String(start[name])) parts.set(name, state[name]);
  return "?" + parts.toString();
}

/** The view that a fragment names; null where it names a section. Values that do not fit are left out. */
function decode(fragment) {
  if (fragment.length > 1 && !fragment.startsWith("#?")) return null;
  const state = defaults();
  const given = new URLSearchParams(fragment.slice(2));
  for (const name of FIELDS) {
    const value = given.get(name);
    if (value === null) continue;
    const options = control(name)?.tagName === "SELECT" && name !== "sort" && name !== "outcome" ? [...control(name).options] : null;
    if (options && !options.some((option) => option.value === value)) continue;
    state[name] = ["a", "b", "metric"].includes(name) ? Number(value) : value;
  }
  state.page = Math.max(1, parseInt(state.page, 10) || 1);
  return state;
}

function fill(name, options, hideSingle = true) {
  control(name).replaceChildren(...options.map(([value, text, off]) => element("option", { value, disabled: off }, text)));
  if (hideSingle) control(name).parentElement.toggleAttribute("data-single", options.filter(([value]) => value !== "").length < 2);
}

const distinct = (values) => [...new Set(values)];
const all = (options, word = "all") => [["", word], ...options];

function fillControls() {
  const { method, shots, seed } = D.settings;
  const settings = method.map((_, s) => [String(s), settingName(s, true)]);
  const pairs = settings.length > 1;
  fill("view", [["one", "single"], ...(pairs ? [["pair", "side by side"]] : [])]);
  fill("a", settings, false);
  fill("b", settings, false);
  fill("data", all(D.datasets.map((name, i) => [String(i), name])));
  fill("source", all(D.sources.map((name, i) => [String(i), name])));
  fill("method", all(distinct(method).map((name) => [name, name])));
  const counted = D.kind === "sequences" ? shots.filter((k) => k > 0) : shots;
  fill("shots", all(distinct(counted).sort((x, y) => x - y).map((k) => [String(k), String(k)])));
  fill("seed", all(distinct(seed).sort((x, y) => x - y).map((k) => [String(k), String(k)])));
  fill("metric", D.metrics.map((name, i) => [String(i), name]));
  if (D.kind === "sequences") control("method-label").textContent = "Beam";
}

/** Outcomes that nothing on the page has are there, and off. */
function fillForView() {
  const pair = view.view === "pair";
  const results = D.results.setting.map((_, r) => r);
  const marked = results.some((r) => judged(r, view.metric));
  const single = OUTCOMES.filter(([key]) => marked || !["right", "wrong"].includes(key))
    .map(([key, text, holds]) => [key, named(text), !results.some((r) => holds(r, view.metric))]);
  fill("outcome", all([...(pair ? PAIR_OUTCOMES.map(([key, text]) => [key, text]) : []), ...single], "any"), false);
  fill("sort", Object.entries(pair ? PAIR_ORDERS : ORDERS).map(([key, [text]]) => [key, named(text)]), false);
  for (const box of document.querySelectorAll("[data-for]")) {
    box.hidden = box.dataset.for !== (pair ? "pair" : "one") || box.hasAttribute("data-single");
  }
  for (const name of ["view", "data", "metric"]) control(name).parentElement.hidden = control(name).parentElement.hasAttribute("data-single");
}

const named = (text) => (D.kind === "sequences" ? text.replace("zero-shot", "no demonstrations").replace("query", "anchor") : text);

function show(next, { address = "replace", focus = false } = {}) {
  const changed = !view || view.view !== next.view || view.metric !== next.metric;
  view = next;
  if (changed) fillForView();
  for (const name of ["outcome", "sort"]) {
    if (![...control(name).options].some((option) => option.value === view[name])) view[name] = defaults()[name];
  }
  for (const name of FIELDS) if (control(name) && control(name).value !== String(view[name])) control(name).value = view[name];
  units = unitsOf(view);
  const pages = Math.max(1, Math.ceil(units.length / PER_PAGE));
  view.page = Math.min(view.page, pages);
  draw(pages);
  const fragment = "#" + encode(view);
  if (address === "push") history.pushState(null, "", fragment);
  else if (address === "replace" && (location.hash || fragment !== "#?")) history.replaceState(null, "", fragment);
  if (focus) {
    control("count").focus({ preventScroll: true });
    control("strip").scrollIntoView();
  }
}

function draw(pages) {
  const from = (view.page - 1) * PER_PAGE;
  const shown = units.slice(from, from + PER_PAGE);
  cards.replaceChildren(...shown.map((unit, i) => card(unit, view, from + i)));
  if (!shown.length) {
    const apart = view.view === "pair" && !pairsOf(view.a, view.b).length;
    cards.append(element("p", { class: "empty" }, apart ? "A and B have no query in common." : "Nothing fits these filters."));
  }
  const word = view.view === "pair" ? "pair" : D.kind === "sequences" ? "sequence" : "answer";
  const part = shown.length ? `, ${from + 1} to ${from + shown.length} shown` : "";
  control("count").textContent = `${plural(units.length, word)} found${part}`;
  for (const place of document.querySelectorAll(".place")) place.textContent = `Page ${view.page} of ${pages}`;
  for (const button of document.querySelectorAll(".previous")) button.disabled = view.page <= 1;
  for (const button of document.querySelectorAll(".next")) button.disabled = view.page >= pages;
}

function read() {
  const next = { ...view, page: 1 };
  for (const name of FIELDS) {
    if (name !== "page") next[name] = ["a", "b", "metric"].includes(name) ? Number(control(name).value) : control(name).value;
  }
  show(next);
}

function turn(by) {
  const pages = Math.max(1, Math.ceil(units.length / PER_PAGE));
  const page = Math.min(pages, Math.max(1, view.page + by));
  if (page === view.page) return false;
  show({ ...view, page }, { address: "push", focus: true });
  return true;
}

function step(by) {
  const list = [...cards.children];
  const at = list.indexOf(document.activeElement.closest(".card"));
  const next = list[at + by] ?? (at < 0 ? list[0] : null);
  if (next?.classList.contains("card")) next.focus();
  else if (turn(by)) cards.children[by > 0 ? 0 : cards.children.length - 1].focus();
}

function pressed(event) {
  if (!control("keys").checked || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input:not([type=checkbox]), select, textarea")) return;
  const actions = { j: () => step(1), k: () => step(-1), n: () => turn(1), p: () => turn(-1), "/": () => control("q").focus() };
  if (!Object.hasOwn(actions, event.key)) return;
  event.preventDefault();
  actions[event.key]();
}

function listen() {
  control("controls").addEventListener("submit", (event) => event.preventDefault());
  control("controls").addEventListener("change", (event) => event.target.id !== "q" && read());
  control("q").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(read, 120);
  });
  control("reset").addEventListener("click", () => show(defaults()));
  for (const button of document.querySelectorAll(".previous")) button.addEventListener("click", () => turn(-1));
  for (const button of document.querySelectorAll(".next")) button.addEventListener("click", () => turn(1));
  document.addEventListener("keydown", pressed);
  const moved = () => {
    const state = decode(location.hash);
    if (state) show(state, { address: "keep", focus: true });
  };
  addEventListener("hashchange", moved);
}

/** The button names the mode that it leads to. A choice is kept where the browser lets a file keep one. */
function themes() {
  const button = control("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const label = () => { button.textContent = dark() ? "Light mode" : "Dark mode"; };
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("icltool-theme", root.dataset.theme); } catch { /* nothing is kept */ }
    label();
  });
  system.addEventListener("change", label);
  label();
  button.hidden = false;
}

/** Only boxes that scroll are stops of the tab key. */
function stops() {
  for (const box of document.querySelectorAll(".scroll")) box.tabIndex = box.scrollWidth > box.clientWidth ? 0 : -1;
}

/** Images stand behind the script, as they are most of the file: cards that are there already get theirs. */
function fillImages() {
  images = JSON.parse(control("images").textContent);
  for (const image of document.querySelectorAll("img[data-image]")) {
    image.src = images[image.dataset.image];
    image.removeAttribute("data-image");
  }
  document.documentElement.dataset.images = String(Math.round(performance.now()));
}

async function start() {
  themes();
  stops();
  addEventListener("resize", stops);
  document.addEventListener("toggle", stops, true);
  try {
    D = await unpack("payload");
  } catch (error) {
    control("problem").textContent = `The gallery cannot be unpacked: ${error.message}. Browsers from 2023 on can.`;
    control("problem").hidden = false;
    return;
  }
  if (!D.results.setting.length) {
    control("problem").textContent = "There are no single results to look at.";
    control("problem").hidden = false;
  } else {
    fillControls();
    listen();
    for (const name of ["controls", "strip", "foot"]) control(name).hidden = false;
    show(decode(location.hash) ?? defaults(), { address: "keep" });
  }
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
}

start();
if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", fillImages);
else fillImages();
