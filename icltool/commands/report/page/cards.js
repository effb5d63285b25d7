// Cards: everything from data becomes a text node or the value of alt, never markup.

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const written = (text, tag = "span", kind = "") => element(tag, { dir: "auto", class: ("data " + kind).trim() }, text);
const number = (value, digits) => {
  if (value === null) return "–";
  const text = value.toFixed(digits);
  return /[1-9]/.test(text) ? text.replace("-", "−") : text.replace("-", "");
};
const signed = (value, digits) => {
  const text = number(value, digits);
  return value > 0 && /[1-9]/.test(text) ? "+" + text : text;
};
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

function settingName(s, whole = false) {
  const { method, shots, seed, source } = D.settings;
  const parts = [method[s]];
  if (D.kind === "sequences") return shots[s] ? `${method[s]}, ${plural(shots[s], "shot")}` : method[s];
  if (shots[s]) parts.push(plural(shots[s], "shot"));
  if (method.some((name, i) => name === method[s] && source[i] === source[s] && seed[i] !== seed[s])) parts.push(`seed ${seed[s]}`);
  if (whole && D.sources.length > 1) parts.push(D.sources[source[s]]);
  return parts.join(", ");
}

function pictures(places, alt) {
  return places.map((place, i) => element("img", {
    width: D.images.width[place], height: D.images.height[place], decoding: "async", src: images?.[place],
    alt: places.length > 1 ? `${alt}, ${i + 1} of ${places.length}` : alt, "data-image": images ? null : place,
  }));
}

function field(name, ...content) {
  return element("div", {}, element("dt", {}, name), element("dd", {}, ...content));
}

function card(unit, view, number) {
  const q = D.results.query[unit[0]];
  const id = `card-${number}`;
  const pair = unit.length > 1;
  const word = D.kind === "sequences" ? "Anchor" : "Query";
  const link = element("a", { href: "#" + encode({ ...defaults(), q: `#${D.queries.id[q]}`, data: String(D.queries.dataset[q]) }) },
    `${word} ${D.queries.id[q]}`);
  const shown = [D.datasets[D.queries.dataset[q]]];
  if (!pair) shown.push(settingName(D.results.setting[unit[0]], severalSources(q)));
  const made = element("article", { class: "card", "aria-labelledby": id, tabindex: "-1" },
    element("h3", { id }, link), element("p", { class: "under", dir: "auto" }, shown.join(" · ")));
  const thumbnails = pictures(D.queries.images[q], `Image of ${word.toLowerCase()} ${D.queries.id[q]}`);
  const thumbnail = thumbnails.length > 1 ? element("div", { class: "several" }, ...thumbnails) : thumbnails[0] ?? null;
  const asked = element("dl", { class: "fields" });
  if (D.queries.question[q]) asked.append(field("Question", written(D.queries.question[q])));
  if (D.queries.references[q].length) asked.append(field("References", references(D.queries.references[q])));
  const said = element("dl", { class: "fields" });
  if (pair) said.append(difference(unit, view.metric));
  else answerFields(said, unit[0], view.metric);
  const about = element("div", { class: "about" }, asked, element("div", {}, said, pair ? null : badges(unit[0])));
  made.append(element("div", { class: thumbnail ? "asked" : "asked bare" }, thumbnail, about));
  if (pair) {
    made.append(element("div", { class: "sides" }, ...unit.map((r, i) => side(r, view.metric, "AB"[i]))));
  } else {
    made.append(...demonstrations(unit[0]), ...prompt(unit[0]));
  }
  return made;
}

/** References with how often each occurs, most frequent first (of ten annotators' answers many are the same). */
function references(list) {
  const counts = new Map();
  for (const text of list) counts.set(text, (counts.get(text) ?? 0) + 1);
  const several = [...counts].sort((x, y) => y[1] - x[1]);
  return element("ul", {}, ...several.map(([text, n]) => element("li", {}, written(text), n > 1 ? ` × ${n}` : "")));
}

let asking = null;

/** Whether several evaluations ask the queries of this one's data set. */
function severalSources(q) {
  if (!asking) {
    asking = D.datasets.map(() => new Set());
    D.results.setting.forEach((s, r) => asking[D.queries.dataset[D.results.query[r]]].add(D.settings.source[s]));
  }
  return asking[D.queries.dataset[q]].size > 1;
}

function answerFields(fields, r, chosen) {
  const m = metricOf(r, chosen);
  const { answer, raw, missing } = D.results;
  if (missing[r]) fields.append(field("Answer", element("em", {}, "none: "), written(missing[r])));
  else if (D.kind === "evaluations") {
    fields.append(field("Answer", answer[r] ? written(answer[r], "span", "answer") : element("em", {}, "empty")));
    if (raw[r].trim() !== answer[r].trim()) fields.append(field("As generated", written(raw[r])));
  }
  const zero = withoutIcds(r);
  if (zero !== null) fields.append(field("Zero-shot", D.results.missing[zero] ? "no answer" : written(D.results.answer[zero])));
  if (score(r, m) !== null) fields.append(field(D.metrics[m], number(score(r, m), D.digits[m]), " ", gainOf(r, m) ?? ""));
  if (D.kind === "sequences" && gain(r, m) !== null) {
    fields.append(field("Without ICDs", number(score(r, m) - gain(r, m), D.digits[m])));
  }
  const others = D.metrics.map((_, i) => i).filter((i) => i !== m && (D.results.scores[r][i] ?? null) !== null);
  if (others.length) fields.append(field("Other metrics", written(others.map((i) => otherScore(r, i)).join(", "), "span", "others")));
  if (D.results.steps[r].length) {
    const steps = D.results.steps[r].map((v, i) => `${i + 1}: ${signed(v, stepDigits())}`);
    fields.append(field("Gain by step", element("span", { class: "others" }, steps.join(", "))));
  }
}

let zeros = null;

/** The zero-shot result of the same evaluation and query; null where there is none, or for itself. */
function withoutIcds(r) {
  const { setting, query } = D.results;
  const { method, source } = D.settings;
  if (D.kind === "sequences") return null;
  if (!zeros) {
    zeros = new Map();
    setting.forEach((s, i) => method[s] === "zero-shot" && zeros.set(`${source[s]}:${query[i]}`, i));
  }
  return method[setting[r]] === "zero-shot" ? null : zeros.get(`${source[setting[r]]}:${query[r]}`) ?? null;
}

const stepDigits = () => Math.max(3, D.gain_digits[0] ?? 0);

function otherScore(r, i) {
  const above = D.results.gains[r][i] ?? null;
  const more = above === null ? "" : ` (${signed(above, D.gain_digits[i])})`;
  return `${D.metrics[i]} ${number(D.results.scores[r][i], D.digits[i])}${more}`;
}

/** The gain over zero-shot, its sign in words and as an arrow. */
function gainOf(r, m) {
  const value = gain(r, m);
  if (value === null) return null;
  const against = D.kind === "sequences" ? "no demonstrations" : "zero-shot";
  if (value === 0) return element("span", { class: "gain" }, `= equal to ${against}`);
  const ahead = goodGain(r, m) > 0;
  const text = `${ahead ? "▲" : "▼"} ${signed(value, D.gain_digits[m])} ${ahead ? "better" : "worse"} than ${against}`;
  return element("span", { class: `gain ${ahead ? "better" : "worse"}` }, text);
}

function difference(unit, chosen) {
  const m = metricOf(unit[0], chosen);
  const ahead = lead(unit, m);
  if (ahead === null) return field("A − B", "unknown");
  const raw = score(unit[0], m) - score(unit[1], m);
  const said = ahead === 0 ? "tie" : ahead > 0 ? "A wins" : "B wins";
  return field(`A − B`, `${signed(raw, D.gain_digits[m])} ${D.metrics[m]}: `, element("strong", {}, said));
}

function badges(r) {
  const list = element("ul", { class: "badges", "aria-label": "Flags" });
  for (const [kind, count] of Object.entries(D.results.leaks[r] ?? {})) {
    const what = { image: "the query’s image", group: "the query’s group", question: "the question", text: "text and answer" }[kind] ?? kind;
    list.append(element("li", { class: "badge" }, `Leak: ${plural(count, "demonstration")} with ${what}`));
  }
  if (D.results.copied[r].length) {
    const places = D.results.copied[r].map((i) => i + 1).join(", ");
    list.append(element("li", { class: "badge" }, `Copied: the answer is the label of demonstration ${places}`));
  }
  if (D.results.missing[r]) list.append(element("li", { class: "badge" }, "No answer"));
  return list.childElementCount ? list : null;
}

function demonstrations(r) {
  const list = D.results.icds[r];
  if (!list.length) return [element("p", { class: "list" }, "No demonstrations")];
  const copied = new Set(D.results.copied[r]);
  const items = list.map((d, i) => element("li", {},
    ...pictures(D.icds.images[d], `Image of demonstration ${D.icds.id[d]}`),
    element("span", { class: "number" }, `${i + 1} · id ${D.icds.id[d]}${copied.has(i) ? " · copied" : ""}`),
    D.icds.text[d] ? written(D.icds.text[d], "span", "long") : null,
    D.icds.label[d] ? written(D.icds.label[d], "span", D.icds.text[d] ? "label long" : "long") : null));
  return [
    element("p", { class: "list" }, `${plural(list.length, "demonstration")}, in prompt order`),
    element("ol", { class: "icds" }, ...items),
  ];
}

function prompt(r) {
  if (!D.results.prompt[r]) return [];
  const details = element("details", {}, element("summary", {}, "Exact prompt"));
  details.append(written(D.results.prompt[r], "pre"));
  return [details];
}

function side(r, m, letter) {
  const fields = element("dl", { class: "fields" });
  answerFields(fields, r, m);
  return element("section", { class: "side" },
    element("h4", { dir: "auto" }, `${letter}: ${settingName(D.results.setting[r], true)}`),
    fields, badges(r), ...demonstrations(r), ...prompt(r));
}
