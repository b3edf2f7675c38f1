// Parts of the document: elements, and the sample that is open. Texts of datasets and models only ever become text nodes or
// attributes.
"use strict";

const element = (id) => document.getElementById(id);

/** An element with attributes and children; a child that is undefined is left out. */
function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined) made.setAttribute(name, value);
  made.append(...children.filter((child) => child !== undefined));
  return made;
}

/** An answer, or a word for one that has no letters. */
function shown(answer) {
  return answer.trim() === "" ? "(empty)" : answer;
}

/** A score from 0 to 1 in percent, with a colour and a sign that say the same. */
function badge(score, decimals = 0) {
  if (score === undefined) return undefined;
  const right = score >= 0.5;
  return make("span", { class: `badge ${right ? "right" : "wrong"}` }, `${right ? "✓" : "✗"} ${(100 * score).toFixed(decimals)}`);
}

/** Shows the open sample once its details are read. */
async function renderDetail() {
  const number = state.sample;
  const place = element("sample");
  document.body.classList.toggle("open", number !== undefined);
  if (number === undefined) {
    place.replaceChildren(make("p", { class: "hint" }, "Choose a sample to see its image and what every model answered."));
    return;
  }
  try {
    const detail = await samples.detail(number);
    if (state.sample !== number) return;
    place.replaceChildren(...detailParts(number, detail));
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

function picture(dataset, sample) {
  const source = dataset.image(sample);
  const missing = (why) => make("p", { class: "picture missing" }, why);
  if (!source) {
    return missing(samples.catalogue.images ? "The image could not be read when this page was made." : "This page was made without images.");
  }
  const image = make("img", { src: source, alt: "The image that the question is about" });
  const place = make("p", { class: "picture" }, image);
  // Small drawings are enlarged without blur.
  image.addEventListener("load", () => image.classList.toggle("small", image.naturalWidth <= 128 && image.naturalHeight <= 128));
  image.addEventListener("error", () => place.replaceWith(missing(`${source} is missing or damaged.`)));
  return place;
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
      if (shift && distance !== undefined) lines.push(distanceLine({ model, modality, shift, distance }));
    });
  }
  if (lines.length === 0) return [];
  return [
    make("h2", {}, "Distance from the training questions"),
    table({ model: "text", of: "text", "this sample": "number", "mean of the dataset (95 % interval)": "number" }, lines),
  ];
}

function distanceLine({ model, modality, shift, distance }) {
  const { mean, interval } = shift;
  const bounds = interval ? ` (${interval[0].toFixed(2)} to ${interval[1].toFixed(2)})` : "";
  return make("tr", {},
    make("th", { scope: "row" }, modelName(model)),
    make("td", {}, samples.catalogue.modalities[modality].label),
    make("td", { class: "number" }, distance.toFixed(2)),
    make("td", { class: "number" }, mean.toFixed(2) + bounds));
}
