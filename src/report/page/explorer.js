// The list of samples and the sample that is open. What is shown is a state; the address of the page says which.
"use strict";

const ROWS = 100;

const element = (id) => document.getElementById(id);
const filters = element("filters");
const list = element("list");

let samples;
/** Filters by name, and the number of the open sample, if one is. */
let state;
/** The numbers of the selected samples, and the place of the row that keys move. */
let selected = new Uint32Array(0);
let cursor = 0;

// Elements. Texts of datasets and models only ever become text nodes or attributes.

/** An element with attributes and children; a child that is undefined is left out. */
function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined) made.setAttribute(name, value);
  made.append(...children.filter((child) => child !== undefined));
  return made;
}

function options(select, names) {
  select.replaceChildren(...names.map(([value, text]) => make("option", { value }, text)));
}

// State and address.

const modelName = (number) => samples.catalogue.models[number].name;

/** The distances that any model has, as (model, modality). */
function knownDistances() {
  const found = new Map();
  for (const { models } of samples.catalogue.datasets) {
    for (const { model, shifts } of models) {
      shifts.forEach((shift, modality) => shift && found.set(`${model} ${modality}`, { model, modality }));
    }
  }
  return [...found.values()].sort((a, b) => a.model - b.model || a.modality - b.modality);
}

/** The name of a distance in the address: modality and model. */
function distanceName({ model, modality }) {
  return `${samples.catalogue.modalities[modality].name}:${modelName(model)}`;
}

/** The model whose answers are shown where none is named: the first that has answered and was fine-tuned, if there is one. */
function firstModel() {
  const { models, datasets } = samples.catalogue;
  const answered = new Set(datasets.flatMap((dataset) => dataset.models).filter((one) => one.answers).map((one) => one.model));
  const known = models.map((_, number) => number);
  return known.find((number) => answered.has(number) && !models[number].zero_shot) ?? known.find((number) => answered.has(number)) ?? 0;
}

function defaults() {
  const model = firstModel();
  const distances = knownDistances();
  const own = distances.filter((distance) => distance.model === model);
  const joint = (distance) => samples.catalogue.modalities[distance.modality].name === "joint";
  const distance = own.find(joint) ?? own[0] ?? distances[0];
  return {
    text: "", dataset: undefined, type: undefined, model, outcome: "any", agreement: "any", distance,
    from: undefined, to: undefined, order: "given", sample: undefined,
  };
}

/** The state that an address tells of; what it names wrongly is as if it were not there. */
function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const read = defaults();
  const number = (name) => (given.get(name)?.trim() && Number.isFinite(Number(given.get(name))) ? Number(given.get(name)) : undefined);
  const model = samples.catalogue.models.findIndex(({ name }) => name === given.get("model"));
  const [, dataset, position] = given.get("sample")?.match(/^(.*)\/(\d+)$/s) ?? [];
  if (model >= 0) read.model = model;
  read.text = given.get("text") ?? "";
  read.dataset = samples.catalogue.datasets.find(({ name }) => name === given.get("dataset"))?.name;
  read.type = answerTypes().find((name) => name === given.get("type"));
  if (Object.hasOwn(OUTCOMES, given.get("outcome") ?? "")) read.outcome = given.get("outcome");
  if (Object.hasOwn(AGREEMENTS, given.get("agreement") ?? "")) read.agreement = given.get("agreement");
  if (Object.hasOwn(ORDERS, given.get("order") ?? "")) read.order = given.get("order");
  read.distance = knownDistances().find((distance) => distanceName(distance) === given.get("distance")) ?? read.distance;
  read.from = number("from");
  read.to = number("to");
  if (dataset !== undefined) read.sample = samples.find(dataset, Number(position));
  return read;
}

/** The address of a state, without what is as by default. */
function addressOf(shown) {
  const usual = defaults();
  const told = new URLSearchParams();
  for (const name of ["text", "dataset", "type", "outcome", "agreement", "from", "to", "order"]) {
    if (shown[name] !== usual[name]) told.set(name, shown[name]);
  }
  if (shown.model !== usual.model) told.set("model", modelName(shown.model));
  if (shown.distance && distanceName(shown.distance) !== distanceName(usual.distance)) {
    told.set("distance", distanceName(shown.distance));
  }
  if (shown.sample !== undefined) told.set("sample", sampleName(shown.sample));
  return `#${told}`;
}

function sampleName(number) {
  const { dataset, sample } = samples.locate(number);
  return `${dataset.about.name}/${sample}`;
}

/** Shows another state. `keep` makes it a step of its own, to which the browser can go back. */
function show(changes, { keep = false } = {}) {
  const before = state;
  state = { ...state, ...changes };
  writeAddress(before, keep);
  render(before);
}

// Browsers stop pages that change their address too often, as typing and held keys would.
const ADDRESS_DELAY_MS = 150;
let addressTimer;

function writeAddress(before, keep) {
  clearTimeout(addressTimer);
  if (!keep) {
    addressTimer = setTimeout(() => location.replace(addressOf(state)), ADDRESS_DELAY_MS);
    return;
  }
  if (addressOf(before) !== location.hash) location.replace(addressOf(before));
  location.hash = addressOf(state);
}

/** Brings the page from one state to the present one. */
function render(before) {
  const same = before && Object.keys(state).every((name) => name === "sample" || state[name] === before[name]);
  if (!same) {
    selected = samples.select(state);
    cursor = 0;
  }
  if (state.sample !== undefined) {
    const place = selected.indexOf(state.sample);
    if (place >= 0) cursor = place;
  }
  renderList();
  if (!before) cursorLink()?.scrollIntoView({ block: "nearest" });
  if (!before || before.sample !== state.sample || before.model !== state.model) renderDetail();
}

// Filters.

function answerTypes() {
  return [...new Set(samples.catalogue.datasets.flatMap(({ types }) => types))].sort();
}

function fillFilters() {
  const { datasets, models, modalities } = samples.catalogue;
  const distances = knownDistances();
  const several = new Set(distances.map(({ model }) => model)).size > 1;
  options(filters.dataset, [["", "all"], ...datasets.map(({ name, label }) => [name, label])]);
  options(filters.type, [["", "all"], ...answerTypes().map((name) => [name, name])]);
  options(filters.model, models.map(({ name, zero_shot }, number) => [number, zero_shot ? `${name} (zero-shot)` : name]));
  const label = ({ model, modality }) => modalities[modality].label + (several ? `, ${modelName(model)}` : "");
  options(filters.distance, distances.map((distance) => [distanceName(distance), label(distance)]));
  if (distances.length === 0) for (const part of filters.querySelectorAll(".distance")) part.remove();
  if (models.length < 2) filters.agreement.parentElement.hidden = true;
}

/** Shows the state in the controls. */
function setFilters() {
  for (const name of ["text", "dataset", "type", "model", "outcome", "agreement", "from", "to", "order"]) {
    const value = String(state[name] ?? "");
    if (filters[name] && filters[name].value !== value) filters[name].value = value;
  }
  if (filters.distance && state.distance) filters.distance.value = distanceName(state.distance);
}

/** What the controls say. */
function givenFilters() {
  const number = (input) => (input && input.value !== "" ? Number(input.value) : undefined);
  return {
    text: filters.text.value.trim(),
    dataset: filters.dataset.value || undefined,
    type: filters.type.value || undefined,
    model: Number(filters.model.value),
    outcome: filters.outcome.value,
    agreement: filters.agreement.value,
    distance: knownDistances().find((distance) => distanceName(distance) === filters.distance?.value),
    from: number(filters.from),
    to: number(filters.to),
    order: filters.order.value,
  };
}

// List.

function renderList() {
  const page = Math.floor(cursor / ROWS);
  const rows = selected.subarray(page * ROWS, (page + 1) * ROWS);
  const count = (number) => number.toLocaleString("en");
  element("count").textContent = `${count(selected.length)} of ${count(samples.size)} samples`;
  element("page").textContent = selected.length ? `${count(page * ROWS + 1)}–${count(page * ROWS + rows.length)}` : "";
  element("previous-page").disabled = page === 0;
  element("next-page").disabled = (page + 1) * ROWS >= selected.length;
  list.start = page * ROWS + 1;
  const nothing = make("li", { class: "nothing" }, "No sample has all of this. ", make("button", { type: "reset", form: "filters" }, "Reset the filters"));
  list.replaceChildren(...(rows.length ? Array.from(rows, row) : [nothing]));
  markCursor();
}

function row(number) {
  const { dataset, sample } = samples.locate(number);
  const { about } = dataset;
  const people = dataset.answersOfPeople(sample)[0];
  const said = dataset.answer(state.model, sample);
  const distance = state.distance && dataset.distance(state.distance.model, state.distance.modality, sample);
  const notes = [about.label, dataset.type(sample), distance !== undefined && `distance ${distance.toFixed(2)}`];
  const link = make("a", { href: addressOf({ ...state, sample: number }) },
    thumbnail(dataset, sample),
    make("span", { class: "words" },
      make("span", { class: "question" }, dataset.questions[sample]),
      make("span", { class: "answers" },
        said === undefined ? make("span", { class: "muted" }, "no answer") : make("span", { class: "said" }, shown(said)),
        badge(dataset.share(state.model, sample)),
        people === undefined ? undefined : make("span", { class: "muted" }, `people: ${people}`)),
      make("span", { class: "notes" }, notes.filter(Boolean).join(" · "))));
  link.dataset.number = number;
  return make("li", {}, link);
}

/** An answer, or a word for one that has no letters. */
function shown(answer) {
  return answer.trim() === "" ? "(empty)" : answer;
}

function thumbnail(dataset, sample) {
  const source = dataset.image(sample);
  if (!source) return make("span", { class: "thumbnail", "aria-hidden": "true" });
  return make("img", { class: "thumbnail", src: source, alt: "", loading: "lazy", width: 56, height: 56 });
}

/** A score from 0 to 1 in percent, with a colour and a sign that say the same. */
function badge(score, decimals = 0) {
  if (score === undefined) return undefined;
  const right = score >= 0.5;
  return make("span", { class: `badge ${right ? "right" : "wrong"}` }, `${right ? "✓" : "✗"} ${(100 * score).toFixed(decimals)}`);
}

/** The link of the row that keys move. */
function cursorLink() {
  return list.querySelector(`a[data-number="${selected[cursor]}"]`);
}

function markCursor() {
  for (const link of list.querySelectorAll("a")) {
    const number = Number(link.dataset.number);
    link.classList.toggle("cursor", number === selected[cursor]);
    if (number === state.sample) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

/** Moves the cursor, turns the page where it leaves it, and takes an open sample along. */
function move(by) {
  if (selected.length === 0) return;
  // The first key shows where the cursor is.
  const started = list.contains(document.activeElement) || state.sample !== undefined;
  moveTo(started ? cursor + by : cursor);
}

function moveTo(place) {
  const page = Math.floor(cursor / ROWS);
  cursor = Math.max(0, Math.min(selected.length - 1, place));
  if (state.sample !== undefined) show({ sample: selected[cursor] });
  else if (Math.floor(cursor / ROWS) !== page) renderList();
  else markCursor();
  cursorLink()?.focus({ preventScroll: true });
  cursorLink()?.scrollIntoView({ block: "nearest" });
}

function turnPage(by) {
  cursor = (Math.floor(cursor / ROWS) + by) * ROWS;
  renderList();
  list.scrollTop = 0;
  list.querySelector("a")?.scrollIntoView({ block: "nearest" });
}

// The open sample.

async function renderDetail() {
  const number = state.sample;
  const place = element("detail");
  document.body.classList.toggle("open", number !== undefined);
  if (number === undefined) {
    place.replaceChildren(make("p", { class: "hint" }, "Choose a sample to see its image and what every model answered."));
    return;
  }
  try {
    const detail = await samples.detail(number);
    if (state.sample !== number) return;
    place.replaceChildren(...detailParts(number, detail));
    place.scrollTop = 0;
  } catch (error) {
    if (state.sample === number) place.replaceChildren(make("p", { class: "notice", role: "alert" }, error.message));
  }
}

function detailParts(number, detail) {
  const { dataset, sample } = samples.locate(number);
  const { about } = dataset;
  const facts = [
    ["dataset", about.label], ["shift", about.shift && `${about.shift}: ${about.shift_about}`],
    ["answer type", dataset.type(sample)], ["metric", about.metric],
    ["question", detail.question_id], ["image", detail.image_id],
  ];
  const fact = ([name, text]) => make("div", {}, make("dt", {}, name), make("dd", {}, text));
  return [
    detailBar(),
    make("div", { class: "front" },
      picture(dataset, sample),
      make("div", {},
        make("h1", {}, dataset.questions[sample]),
        make("dl", { class: "facts" }, ...facts.filter(([, text]) => text).map(fact)),
        ...peopleParts(detail.people))),
    ...modelParts(dataset, sample, detail.scores),
    ...distanceParts(dataset, sample),
  ];
}

function detailBar() {
  const button = (text, name, action) => {
    const made = make("button", { type: "button", class: "quiet", "aria-label": name, title: name }, text);
    made.addEventListener("click", action);
    return made;
  };
  const place = selected.indexOf(state.sample);
  const previous = button("‹", "Previous sample (k)", () => moveTo(cursor - 1));
  const next = button("›", "Next sample (j)", () => moveTo(cursor + 1));
  previous.disabled = place <= 0;
  next.disabled = place < 0 || place === selected.length - 1;
  const close = button("Close", "Close the sample (Esc)", closeSample);
  return make("div", { class: "bar" }, make("nav", { "aria-label": "Samples" }, previous, next), close);
}

function picture(dataset, sample) {
  const source = dataset.image(sample);
  if (!source) {
    const why = samples.catalogue.images ? "The image could not be read when this page was made." : "This page was made without images.";
    return make("p", { class: "picture missing" }, why);
  }
  const image = make("img", { src: source, alt: "The image that the question is about" });
  // Small drawings are enlarged without blur.
  image.addEventListener("load", () => image.classList.toggle("small", image.naturalWidth <= 128 && image.naturalHeight <= 128));
  return make("p", { class: "picture" }, image);
}

function peopleParts(people) {
  if (people.length === 0) return [];
  const total = people.reduce((sum, [, count]) => sum + count, 0);
  const bar = ([answer, count]) => {
    const length = make("span", { class: "length", "aria-hidden": "true" });
    length.style.width = `${(100 * count) / total}%`;
    return make("li", {}, length, make("span", { class: "said" }, shown(answer)), make("span", { class: "muted" }, `${count} of ${total}`));
  };
  return [make("h2", {}, "People said"), make("ul", { class: "people" }, ...people.map(bar))];
}

/** A table whose columns hold `text` or a `number`. */
function table(heads, rows) {
  const head = make("tr", {}, ...Object.entries(heads).map(([text, kind]) => make("th", { scope: "col", class: kind }, text)));
  return make("div", { class: "scroll" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
}

function modelParts(dataset, sample, scores) {
  const line = ({ model }, at) => {
    const said = dataset.answer(model, sample);
    const exact = scores[at];
    if (said === undefined) return undefined;
    return make("tr", model === state.model ? { class: "chosen" } : {},
      make("th", { scope: "row" }, modelName(model), samples.catalogue.models[model].zero_shot ? make("span", { class: "muted" }, " zero-shot") : undefined),
      make("td", {}, make("span", { class: "said" }, shown(said))),
      make("td", { class: "number" }, exact === null ? "-" : badge(exact, 2)));
  };
  const lines = dataset.about.models.map(line).filter(Boolean);
  if (lines.length === 0) return [];
  return [make("h2", {}, "Models said"), table({ model: "text", answer: "text", "score %": "number" }, lines)];
}

function distanceParts(dataset, sample) {
  const lines = [];
  for (const { model, shifts } of dataset.about.models) {
    shifts.forEach((shift, modality) => {
      const distance = dataset.distance(model, modality, sample);
      if (shift && distance !== undefined) lines.push(distanceLine(model, modality, shift, distance));
    });
  }
  if (lines.length === 0) return [];
  return [
    make("h2", {}, "Distance from the training questions"),
    table({ model: "text", of: "text", "this sample": "number", "mean of the dataset (95 % interval)": "number" }, lines),
  ];
}

function distanceLine(model, modality, { mean, interval }, distance) {
  const bounds = interval ? ` (${interval[0].toFixed(2)} to ${interval[1].toFixed(2)})` : "";
  return make("tr", {},
    make("th", { scope: "row" }, modelName(model)),
    make("td", {}, samples.catalogue.modalities[modality].label),
    make("td", { class: "number" }, distance.toFixed(2)),
    make("td", { class: "number" }, mean.toFixed(2) + bounds));
}

function openSample(number) {
  show({ sample: number }, { keep: true });
  element("detail").focus({ preventScroll: true });
}

function closeSample() {
  show({ sample: undefined }, { keep: true });
  (cursorLink() ?? list.querySelector("a"))?.focus();
}

// Keys and clicks.

const KEYS = {
  j: () => move(1),
  ArrowDown: () => move(1),
  k: () => move(-1),
  ArrowUp: () => move(-1),
  "/": () => filters.text.focus(),
  "?": () => element("help").showModal(),
  Escape: () => state.sample !== undefined && closeSample(),
};

function onKey(event) {
  const { key, target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || element("help").open) return;
  if (target.matches("input, select")) {
    if (key === "Escape" || (key === "Enter" && target === filters.text)) {
      event.preventDefault();
      target.blur();
      if (key === "Enter") moveTo(cursor);
    }
    return;
  }
  if (!Object.hasOwn(KEYS, key)) return;
  event.preventDefault();
  KEYS[key]();
}

function onListClick(event) {
  const link = event.target.closest("a[data-number]");
  // With these keys the browser opens the link elsewhere.
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  openSample(Number(link.dataset.number));
}

function listen() {
  filters.addEventListener("input", () => show(givenFilters()));
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("reset", (event) => {
    event.preventDefault();
    show({ ...defaults(), sample: state.sample }, { keep: true });
    setFilters();
  });
  list.addEventListener("click", onListClick);
  element("previous-page").addEventListener("click", () => turnPage(-1));
  element("next-page").addEventListener("click", () => turnPage(1));
  element("more").addEventListener("click", ({ target }) => target.setAttribute("aria-expanded", filters.classList.toggle("all")));
  element("help-button").addEventListener("click", () => element("help").showModal());
  document.addEventListener("keydown", onKey);
  window.addEventListener("hashchange", () => {
    const before = state;
    state = readAddress();
    if (addressOf(state) === addressOf(before)) return;
    setFilters();
    render(before);
  });
}

async function start() {
  const catalogue = await load("catalogue");
  samples = await Samples.load(catalogue, (share) => (element("progress").value = share));
  fillFilters();
  state = readAddress();
  setFilters();
  for (const id of ["filters", "samples"]) element(id).hidden = false;
  element("loading").remove();
  render();
  listen();
}

start().catch((error) => element("loading").replaceChildren(make("p", { role: "alert" }, error.message)));
