"use strict";
// What the page holds, and which of it fits a view. A result is named by its position in the columns of D.results.

let D;
let images = null;

async function unpack(id) {
  const text = atob(document.getElementById(id).textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

const folded = (text) => text.normalize("NFKC").toLowerCase();

/** Words of a search: all must be found; what stands in quotes stays together. */
function termsOf(search) {
  return [...folded(search).matchAll(/"([^"]*)"?|(\S+)/g)].map((m) => (m[1] ?? m[2]).trim()).filter(Boolean);
}

let texts = null;

/** Lower-case texts to search in, made at the first search. */
function searchable() {
  if (texts) return texts;
  const { queries, icds, results } = D;
  texts = {
    queries: queries.id.map((_, i) => folded([queries.question[i], ...queries.references[i]].join("\n"))),
    icds: icds.id.map((_, i) => folded(icds.text[i] + "\n" + icds.label[i])),
    results: results.answer.map((answer, i) => folded(answer + "\n" + results.raw[i])),
  };
  return texts;
}

/** For each result whether every word of the search is found in it; null where nothing is searched for. */
function found(search) {
  const terms = termsOf(search);
  if (!terms.length) return null;
  const { queries, icds, results } = searchable();
  const hits = new Uint8Array(results.length).fill(1);
  for (const term of terms) {
    const id = /^#?(\d+)$/.exec(term)?.[1];
    const only = term.startsWith("#") && id !== undefined;
    const has = (list, ids) => list.map((text, i) => String(ids[i]) === id || (!only && text.includes(term)));
    const query = has(queries, D.queries.id);
    const icd = only ? icds.map(() => false) : has(icds, D.icds.id);
    for (let r = 0; r < hits.length; r++) {
      hits[r] &&= query[D.results.query[r]] || (!only && results[r].includes(term)) || D.results.icds[r].some((d) => icd[d]);
    }
  }
  return hits;
}

let measured = null;

/** The metric in which a result is shown: the chosen one, or its evaluation's first where that has not the chosen one. */
function metricOf(r, m) {
  if (!measured) {
    measured = D.sources.map(() => []);
    D.results.setting.forEach((s, i) => D.results.scores[i].forEach((v, k) => { measured[D.settings.source[s]][k] ||= v !== null; }));
  }
  const has = measured[D.settings.source[D.results.setting[r]]];
  const first = has.indexOf(true);
  return has[m] || first < 0 ? m : first;
}

const score = (r, m) => D.results.scores[r][metricOf(r, m)] ?? null;
const gain = (r, m) => D.results.gains[r][metricOf(r, m)] ?? null;
/** Figures by which more is better, whatever the metric. */
const better = (value, r, m) => (value === null ? null : D.lower[metricOf(r, m)] ? -value : value);
const goodScore = (r, m) => better(score(r, m), r, m);
const goodGain = (r, m) => better(gain(r, m), r, m);
const judged = (r, m) => D.judged[metricOf(r, m)];

const OUTCOMES = [
  ["right", "right (full score)", (r, m) => judged(r, m) && score(r, m) === 100],
  ["wrong", "wrong (score 0)", (r, m) => judged(r, m) && score(r, m) === 0],
  ["better", "better than zero-shot", (r, m) => goodGain(r, m) !== null && goodGain(r, m) > 0],
  ["worse", "worse than zero-shot", (r, m) => goodGain(r, m) !== null && goodGain(r, m) < 0],
  ["equal", "equal to zero-shot", (r, m) => gain(r, m) === 0],
  ["leak", "leak: shares something with the query", (r) => D.results.leaks[r] !== null],
  ["copied", "answer copied from a demonstration", (r) => D.results.copied[r].length > 0],
  ["missing", "no answer", (r) => D.results.missing[r] !== ""],
];
const PAIR_OUTCOMES = [
  ["a-wins", "A wins", (d) => d > 0],
  ["b-wins", "B wins", (d) => d < 0],
  ["tie", "tie", (d) => d === 0],
];

/** By how much the first of a pair is better than the second; null where that is unknown. */
function lead(unit, m) {
  const [a, b] = unit.map((r) => goodScore(r, m));
  const alike = metricOf(unit[0], m) === metricOf(unit[1], m);
  return !alike || a === null || b === null ? null : a - b;
}

const ORDERS = {
  id: ["query id, settings in turn", null],
  gain: ["gain, highest first", (unit, m) => goodGain(unit[0], m), -1],
  loss: ["loss, highest first", (unit, m) => goodGain(unit[0], m), 1],
  best: ["score, best first", (unit, m) => goodScore(unit[0], m), -1],
  worst: ["score, worst first", (unit, m) => goodScore(unit[0], m), 1],
};
const PAIR_ORDERS = {
  id: ["query id", null],
  lead: ["difference, A ahead first", lead, -1],
  behind: ["difference, B ahead first", lead, 1],
  best: ["score of A, best first", ORDERS.best[1], -1],
  worst: ["score of A, worst first", ORDERS.worst[1], 1],
};

/** What a view shows, in order: single results, or pairs of results of the same query. */
function unitsOf(view) {
  const pair = view.view === "pair";
  const hits = found(view.q);
  const m = view.metric;
  const wanted = OUTCOMES.find(([key]) => key === view.outcome)?.[2];
  const between = PAIR_OUTCOMES.find(([key]) => key === view.outcome)?.[2];
  const units = (pair ? pairsOf(view.a, view.b) : singlesOf(view)).filter((unit) => {
    if (view.data !== "" && D.queries.dataset[D.results.query[unit[0]]] !== Number(view.data)) return false;
    if (hits && !unit.some((r) => hits[r])) return false;
    if (wanted && !unit.some((r) => wanted(r, m))) return false;
    if (pair && between) {
      const ahead = lead(unit, m);
      return ahead !== null && between(ahead);
    }
    return true;
  });
  return sorted(units, (pair ? PAIR_ORDERS : ORDERS)[view.sort] ?? ORDERS.id, m);
}

function singlesOf(view) {
  const { method, shots, seed, source } = D.settings;
  const fits = method.map((name, s) =>
    (view.method === "" || name === view.method) && (view.shots === "" || shots[s] === Number(view.shots)) &&
    (view.seed === "" || seed[s] === Number(view.seed)) && (view.source === "" || source[s] === Number(view.source)));
  const sequences = D.kind === "sequences" && view.method === "";
  return D.results.setting.flatMap((s, r) => (fits[s] && !(sequences && shots[s] === 0) ? [[r]] : []));
}

function pairsOf(a, b) {
  const second = new Map();
  D.results.setting.forEach((s, r) => s === b && second.set(D.results.query[r], r));
  return D.results.setting.flatMap((s, r) => {
    const other = s === a ? second.get(D.results.query[r]) : undefined;
    return other === undefined ? [] : [[r, other]];
  });
}

/** In which round each result is shown, so that each round has every query once, not all of them by the same setting. */
function turnsOf(units) {
  const { query, setting } = D.results;
  const mine = new Map();
  for (const [r] of units) mine.set(query[r], [...(mine.get(query[r]) ?? []), r]);
  const turns = new Map();
  if (mine.size < 2) return turns;
  for (const [q, results] of mine) {
    results.sort((x, y) => setting[x] - setting[y] || x - y);
    results.forEach((r, i) => turns.set(r, (i + results.length - (q % results.length)) % results.length));
  }
  return turns;
}

/** By value; equal ones by query. Single results without a value: each query once, the settings in turn, then each once more. */
function sorted(units, order, m) {
  const [, value, sign] = order;
  const { query, setting } = D.results;
  const { dataset, id } = D.queries;
  const turns = order === ORDERS.id ? turnsOf(units) : new Map();
  const place = ([r]) => [turns.get(r) ?? 0, dataset[query[r]], id[query[r]], setting[r], r];
  const keyed = units.map((unit) => ({ unit, value: value ? value(unit, m) : null, place: place(unit) }));
  keyed.sort((x, y) => {
    if (x.value !== y.value) {
      if (x.value === null) return 1;
      if (y.value === null) return -1;
      return sign * (x.value - y.value);
    }
    for (let i = 0; i < x.place.length; i++) if (x.place[i] !== y.place[i]) return x.place[i] - y.place[i];
    return 0;
  });
  return keyed.map(({ unit }) => unit);
}
