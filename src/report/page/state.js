// What the explorer shows, and the address that says so.
"use strict";

let samples;
/** Filters by name, and the number of the open sample, if one is; numbers, texts and undefined. */
let state;
/** The state that an empty address tells of. */
let usual;
/** Distances by their names in addresses: that of the chosen model in a modality, or that of a model named. */
let distances = new Map();

const modelName = (number) => samples.catalogue.models[number].name;
const modelNumbers = () => samples.catalogue.models.map((_, number) => number);

function answerTypes() {
  return [...new Set(samples.catalogue.datasets.flatMap(({ types }) => types))].sort();
}

/** Says what is known of the samples; before this there is no state. */
function know(read) {
  samples = read;
  distances = knownDistances();
  const joint = distances.has("joint") ? "joint" : distances.keys().next().value;
  usual = {
    text: "", dataset: undefined, type: undefined, model: firstModel(), outcome: "any", other: undefined, agreement: "any",
    distance: joint, from: undefined, to: undefined, order: "given", sample: undefined,
  };
}

function knownDistances() {
  const { datasets, modalities } = samples.catalogue;
  const measured = new Set();
  for (const { models } of datasets) {
    for (const { model, shifts } of models) shifts.forEach((shift, modality) => shift && measured.add(`${model} ${modality}`));
  }
  const found = new Map();
  const models = modelNumbers().filter((model) => modalities.some((_, modality) => measured.has(`${model} ${modality}`)));
  modalities.forEach(({ name, label }, modality) => {
    if (models.some((model) => measured.has(`${model} ${modality}`))) found.set(name, { modality, label });
  });
  if (models.length < 2) return found;
  for (const model of models) {
    modalities.forEach(({ name, label }, modality) => {
      if (!measured.has(`${model} ${modality}`)) return;
      found.set(`${name}:${modelName(model)}`, { modality, model, label: `${label}, ${modelName(model)}` });
    });
  }
  return found;
}

/** The distance that is shown, as modality and model, and whether the model was named. */
function shownDistance() {
  const found = distances.get(state.distance);
  return found && { modality: found.modality, model: found.model ?? state.model, named: found.model !== undefined };
}

/** The model whose answers are shown where none is named: the first that has answered and was fine-tuned, if there is one. */
function firstModel() {
  const { models, datasets } = samples.catalogue;
  const answered = new Set(datasets.flatMap((dataset) => dataset.models).filter((one) => one.answers).map((one) => one.model));
  const known = modelNumbers().filter((number) => answered.has(number));
  return known.find((number) => !models[number].zero_shot) ?? known[0] ?? 0;
}

/** The state that an address tells of; what it names wrongly is as if it were not there. */
function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const number = (name) => (given.get(name)?.trim() && Number.isFinite(Number(given.get(name))) ? Number(given.get(name)) : undefined);
  const model = (name) => modelNumbers().find((one) => given.has(name) && modelName(one) === given.get(name));
  const one = (name, known) => (known.includes(given.get(name)) ? given.get(name) : usual[name]);
  const [, dataset, position] = given.get("sample")?.match(/^(.*)\/(\d+)$/s) ?? [];
  return {
    text: given.get("text") ?? "",
    dataset: one("dataset", samples.catalogue.datasets.map(({ name }) => name)),
    type: one("type", answerTypes()),
    model: model("model") ?? usual.model,
    outcome: one("outcome", Object.keys(OUTCOMES)),
    other: model("other"),
    agreement: one("agreement", Object.keys(AGREEMENTS)),
    distance: one("distance", [...distances.keys()]),
    from: number("from"),
    to: number("to"),
    order: one("order", Object.keys(ORDERS)),
    sample: dataset === undefined ? undefined : samples.find(dataset, Number(position)),
  };
}

/** The address of a state, without what is as usual. */
function addressOf(shown) {
  const told = new URLSearchParams();
  for (const [name, value] of Object.entries(shown)) {
    if (value === undefined || value === usual[name]) continue;
    if (name === "sample") told.set(name, sampleName(value));
    else told.set(name, name === "model" || name === "other" ? modelName(value) : value);
  }
  return `#${told}`;
}

function sampleName(number) {
  const { dataset, sample } = samples.locate(number);
  return `${dataset.about.name}/${sample}`;
}

// Browsers stop pages that change their address too often, as typing and held keys would.
const ADDRESS_DELAY_MS = 250;
let addressTimer;

/** Writes the address of the state, which no event tells of. With `keep` it is a step of its own, behind that of `before`. */
function writeAddress(before, keep) {
  clearTimeout(addressTimer);
  if (!keep) {
    addressTimer = setTimeout(() => history.replaceState(null, "", addressOf(state)), ADDRESS_DELAY_MS);
    return;
  }
  const [old, now] = [addressOf(before), addressOf(state)];
  if (old !== location.hash) history.replaceState(null, "", old);
  if (old !== now) history.pushState(null, "", now);
}

/** Takes the state from the address, as when the browser goes back. */
function followAddress() {
  clearTimeout(addressTimer);
  state = readAddress();
}
