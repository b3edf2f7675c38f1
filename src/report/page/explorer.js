// The list of samples, the controls and the keys.
"use strict";

const ROWS = 100;

const filters = element("filters");
const list = element("list");

/** The numbers of the selected samples, the place of the row that keys move, and the page of the list that is shown. */
let selected = new Uint32Array(0);
let cursor = 0;
let listed;

const pageOf = (place) => Math.floor(place / ROWS);

/** Shows another state. `keep` makes it a step of its own, to which the browser can go back. */
function show(changes, { keep = false } = {}) {
  const before = state;
  state = { ...state, ...changes };
  writeAddress(before, keep);
  render(before);
}

/** Brings the page from one state to the present one. */
function render(before) {
  const same = before && Object.keys(state).every((name) => name === "sample" || state[name] === before[name]);
  if (!same) {
    selected = samples.select({ ...state, distance: shownDistance() });
    cursor = 0;
  }
  const place = state.sample === undefined ? -1 : selected.indexOf(state.sample);
  if (place >= 0) cursor = place;
  if (!same) listed = undefined;
  renderList();
  renderSteps(place);
  if (!before || before.sample !== state.sample || before.model !== state.model) renderDetail();
  if (before?.sample !== state.sample) showPlace(before);
}

/** Brings what was opened or closed into view, and the focus to where it still makes sense. */
function showPlace(before) {
  if (before && before.sample === undefined) {
    element("detail").focus({ preventScroll: true });
  } else if (before && state.sample === undefined && !list.contains(document.activeElement) && !filters.contains(document.activeElement)) {
    focusList();
  }
  if (state.sample !== undefined) {
    element("detail").scrollTop = 0;
    // In a narrow window the sample takes the place of the list, which may have been scrolled.
    element("detail").scrollIntoView({ block: "start" });
  }
  cursorLink()?.scrollIntoView({ block: "nearest" });
}

function options(select, names) {
  select.replaceChildren(...names.map(([value, text]) => make("option", { value }, text)));
}

function fillFilters() {
  const { datasets, models, limit } = samples.catalogue;
  const named = models.map(({ name, zero_shot }, number) => [number, zero_shot ? `${name} (zero-shot)` : name]);
  options(filters.dataset, [["", "all"], ...datasets.map(({ name, label }) => [name, label])]);
  options(filters.type, [["", "all"], ...answerTypes().map((name) => [name, name])]);
  options(filters.model, named);
  options(filters.other, [["", "any or none"], ...named]);
  options(filters.distance, Array.from(distances, ([name, { label }]) => [name, label]));
  if (distances.size === 0) for (const part of filters.querySelectorAll(".distance")) part.remove();
  for (const name of ["other", "agreement"]) if (models.length < 2) filters[name].parentElement.hidden = true;
  element("limit").textContent = limit === null ? "" : `first ${limit} of each dataset`;
}

/** Shows the state in the controls. */
function setFilters() {
  for (const name of Object.keys(usual)) {
    const value = String(state[name] ?? "");
    if (filters[name] && filters[name].value !== value) filters[name].value = value;
  }
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
    other: number(filters.other),
    agreement: filters.agreement.value,
    distance: filters.distance?.value,
    from: number(filters.from),
    to: number(filters.to),
    order: filters.order.value,
  };
}

/** Shows the page of the list that the cursor is on. */
function renderList() {
  const page = pageOf(cursor);
  if (page === listed) {
    markCursor();
    return;
  }
  listed = page;
  const rows = selected.subarray(page * ROWS, (page + 1) * ROWS);
  const count = (number) => number.toLocaleString("en");
  element("count").textContent = `${count(selected.length)} of ${count(samples.size)} samples`;
  element("page").textContent = selected.length ? `${count(page * ROWS + 1)}–${count(page * ROWS + rows.length)}` : "";
  setUsable("previous-page", page > 0);
  setUsable("next-page", (page + 1) * ROWS < selected.length);
  list.start = page * ROWS + 1;
  const nothing = () => make("li", { class: "nothing" }, "No sample has all of this. ", make("button", { type: "reset", form: "filters" }, "Reset the filters"));
  const focused = list.contains(document.activeElement);
  const address = addressOf({ ...state, sample: undefined });
  const distance = shownDistance();
  list.replaceChildren(...(rows.length ? Array.from(rows, (number) => row(number, address, distance)) : [nothing()]));
  list.scrollTop = 0;
  markCursor();
  if (focused) focusList();
}

/** Buttons that do nothing for now keep the focus, which disabled ones lose. */
function setUsable(id, usable) {
  element(id).setAttribute("aria-disabled", !usable);
}

function row(number, address, distance) {
  const { dataset, sample } = samples.locate(number);
  const people = dataset.answersOfPeople(sample)[0];
  const said = dataset.answer(state.model, sample);
  const notes = [dataset.about.label, dataset.type(sample), distance && distanceNote(dataset, sample, distance)];
  const link = make("a", { href: `${address}&${new URLSearchParams({ sample: sampleName(number) })}` },
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

function distanceNote(dataset, sample, { model, modality, named }) {
  const distance = dataset.distance(model, modality, sample);
  return distance === undefined ? undefined : `distance ${distance.toFixed(2)}${named ? ` (${modelName(model)})` : ""}`;
}

function thumbnail(dataset, sample) {
  const source = dataset.image(sample);
  const missing = () => make("span", { class: "thumbnail", "aria-hidden": "true" });
  if (!source) return missing();
  const image = make("img", { class: "thumbnail", src: source, alt: "", loading: "lazy", width: 56, height: 56 });
  image.addEventListener("error", () => image.replaceWith(missing()));
  return image;
}

/** The link of the row that keys move. */
function cursorLink() {
  return list.querySelector(`a[data-number="${selected[cursor]}"]`);
}

function focusList() {
  (cursorLink() ?? list).focus({ preventScroll: true });
  cursorLink()?.scrollIntoView({ block: "nearest" });
}

function markCursor() {
  for (const link of list.querySelectorAll("a")) {
    const number = Number(link.dataset.number);
    link.classList.toggle("cursor", number === selected[cursor]);
    if (number === state.sample) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

/** The steps from the open sample, which need not be among the selected ones. */
function renderSteps(place) {
  element("steps").hidden = state.sample === undefined;
  setUsable("previous-sample", place > 0);
  setUsable("next-sample", place >= 0 && place < selected.length - 1);
}

/** Opens the sample so many places from the open one. */
function step(by) {
  const place = selected.indexOf(state.sample);
  const next = place + by;
  if (place >= 0 && next >= 0 && next < selected.length) show({ sample: selected[next] });
}

/** Moves the cursor, turns the page where it leaves it, and takes an open sample along. */
function move(by) {
  if (selected.length === 0) return;
  const inList = list.contains(document.activeElement);
  if (state.sample !== undefined && selected.includes(state.sample)) {
    step(by);
  } else {
    // The first key shows where the cursor is.
    const started = document.activeElement.matches("#list a") || state.sample !== undefined;
    moveTo(started ? cursor + by : cursor);
  }
  if (inList || document.activeElement === document.body || state.sample === undefined) focusList();
}

function moveTo(place) {
  cursor = Math.max(0, Math.min(selected.length - 1, place));
  if (state.sample !== undefined) show({ sample: selected[cursor] });
  else renderList();
}

function turnPage(by) {
  const first = (pageOf(cursor) + by) * ROWS;
  if (first < 0 || first >= selected.length) return;
  cursor = first;
  renderList();
  list.querySelector("a").scrollIntoView({ block: "nearest" });
}

function closeSample() {
  show({ sample: undefined }, { keep: true });
}

const KEYS = {
  j: () => move(1),
  k: () => move(-1),
  ArrowDown: () => move(1),
  ArrowUp: () => move(-1),
  "/": () => filters.text.focus(),
  "?": () => element("help").showModal(),
  Escape: () => state.sample !== undefined && closeSample(),
};

/** Whether a key is for the list; elsewhere arrows scroll. */
function isOurs({ key, target, shiftKey }) {
  if (!Object.hasOwn(KEYS, key)) return false;
  if (key.startsWith("Arrow")) return !shiftKey && (target === document.body || list.contains(target));
  // On some keyboards the two signs are typed with Shift.
  return !shiftKey || key === "/" || key === "?";
}

function onKey(event) {
  const { key, target } = event;
  if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey || element("help").open) return;
  if (target.matches("input, select")) {
    if (key !== "Escape" && (key !== "Enter" || target !== filters.text)) return;
    event.preventDefault();
    focusList();
    return;
  }
  if (!isOurs(event)) return;
  event.preventDefault();
  KEYS[key]();
}

function onListClick(event) {
  const link = event.target.closest("a[data-number]");
  // With these keys the browser opens the link elsewhere.
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const sample = Number(link.dataset.number);
  if (sample === state.sample) element("detail").focus({ preventScroll: true });
  else show({ sample }, { keep: true });
}

function listen() {
  filters.addEventListener("input", () => show(givenFilters()));
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("reset", (event) => {
    event.preventDefault();
    show({ ...usual, sample: state.sample }, { keep: true });
    setFilters();
  });
  list.addEventListener("click", onListClick);
  const clicked = {
    "previous-page": () => turnPage(-1),
    "next-page": () => turnPage(1),
    "previous-sample": () => step(-1),
    "next-sample": () => step(1),
    close: closeSample,
    more: () => element("more").setAttribute("aria-expanded", filters.classList.toggle("all")),
    "help-button": () => element("help").showModal(),
  };
  for (const [id, action] of Object.entries(clicked)) element(id).addEventListener("click", action);
  document.addEventListener("keydown", onKey);
  window.addEventListener("popstate", () => {
    const before = state;
    followAddress();
    setFilters();
    render(before);
  });
}

async function start() {
  const catalogue = await load("catalogue");
  know(await Samples.load(catalogue, (share) => (element("progress").value = share)));
  fillFilters();
  state = readAddress();
  setFilters();
  for (const id of ["filters", "samples"]) element(id).hidden = false;
  element("loading").remove();
  render();
  listen();
}

start().catch((error) => element("loading").replaceChildren(make("p", { role: "alert" }, error.message)));
