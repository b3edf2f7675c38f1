// The samples of every dataset as columns, and the questions put to them. Knows nothing of what is on the page.
"use strict";

// A page that was opened from disk may not fetch files. Its data are scripts, each of which hands one value to `receive`.
const received = new Map();

function receive(name, value) {
  received.set(name, value);
}

/** The value of the file `data/<name>.js`. */
function load(name) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = `data/${name}.js`;
    script.onload = () => {
      script.remove();
      const value = received.get(name);
      received.delete(name);
      if (value === undefined) reject(new Error(`data/${name}.js is damaged`));
      else resolve(value);
    };
    script.onerror = () => {
      script.remove();
      reject(new Error(`data/${name}.js cannot be read`));
    };
    document.head.append(script);
  });
}

/** The numbers of a column, which files hold as the base64 text of their little-endian bytes. */
function column(Numbers, text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let at = 0; at < bytes.length; at += 1) bytes[at] = letters.charCodeAt(at);
  return new Numbers(bytes.buffer);
}

// Scores are kept in steps of 1/240, which the scores of the VQA metrics (multiples of 1/30) are exactly. The writer rounds
// towards the inside: 0, 240 and less than HALF mean no credit, full credit and less than half, whatever the metric.
const FULL = 240;
const HALF = 120;

/** The lowest score of each outcome, and the first above it. */
const OUTCOMES = { any: [0, FULL + 1], wrong: [0, HALF], right: [HALF, FULL + 1], none: [0, 1], part: [1, FULL] };

/** Marks of a sample: a model is wrong about it, a model is right. */
const WRONG = 1;
const RIGHT = 2;

/** The marks that a sample has to have; undefined where it is not marks that decide. */
const AGREEMENTS = { any: undefined, disagree: WRONG | RIGHT, differ: undefined, wrong: WRONG, right: RIGHT };

const ORDERS = {
  given: null,
  worst: { by: "score", descending: false },
  best: { by: "score", descending: true },
  farthest: { by: "distance", descending: true },
  nearest: { by: "distance", descending: false },
};

/** Strings in which words are looked for, regardless of case. One long text is searched far faster than many short ones. */
class TextIndex {
  constructor(strings) {
    const lower = strings.map((text) => text.toLowerCase());
    this.starts = new Uint32Array(lower.length + 1);
    lower.forEach((text, at) => (this.starts[at + 1] = this.starts[at] + text.length + 1));
    this.text = lower.join("\n");
  }

  /** Marks the strings that contain a word in lower case. */
  containing(word) {
    const { starts, text } = this;
    const marks = new Uint8Array(starts.length - 1);
    let string = 0;
    for (let at = text.indexOf(word); at >= 0; at = text.indexOf(word, starts[string])) {
      while (starts[string + 1] <= at) string += 1;
      marks[string] = 1;
      string += 1;
      if (string === marks.length) break;
    }
    return marks;
  }
}

/** What is known of a dataset's samples, position by position. */
class Dataset {
  constructor(about, file) {
    this.about = about;
    this.questions = file.questions;
    this.answers = file.answers;
    this.types = column(Uint8Array, file.types);
    this.images = column(Uint32Array, file.images);
    this.imageFiles = column(Uint8Array, file.image_files);
    this.people = column(Uint32Array, file.people);
    this.peopleEnds = column(Uint32Array, file.people_ends);
    this.models = new Map();
    this.size = this.questions.length;
    this.questionIndex = new TextIndex(this.questions);
    this.answerIndex = new TextIndex(this.answers);
    this.spellings = sameSpelling(this.answers);
  }

  addModel(number, file) {
    this.models.set(number, {
      answers: file.answers && column(Uint32Array, file.answers),
      scores: file.scores && column(Uint8Array, file.scores),
      distances: file.distances.map((distances) => distances && column(Float32Array, distances)),
    });
  }

  answer(model, sample) {
    const answers = this.models.get(model)?.answers;
    return answers ? this.answers[answers[sample]] : undefined;
  }

  /** The score from 0 to 1, to the next of its steps. */
  share(model, sample) {
    const score = this.models.get(model)?.scores?.[sample];
    return score === undefined ? undefined : score / FULL;
  }

  distance(model, modality, sample) {
    const distance = this.models.get(model)?.distances[modality]?.[sample];
    return Number.isNaN(distance) ? undefined : distance;
  }

  /** The different answers of people, the most frequent first. */
  answersOfPeople(sample) {
    const start = sample === 0 ? 0 : this.peopleEnds[sample - 1];
    return Array.from(this.people.subarray(start, this.peopleEnds[sample]), (answer) => this.answers[answer]);
  }

  /** Where a sample's image is, or undefined where there is none. */
  image(sample) {
    const ending = [undefined, "png", "jpg"][this.imageFiles[this.images[sample]]];
    return ending && `images/${this.about.folder}/${this.images[sample]}.${ending}`;
  }

  type(sample) {
    return this.about.types[this.types[sample]];
  }

  /** Marks the samples that a query selects. */
  select(query) {
    const kept = new Uint8Array(this.size).fill(1);
    if (query.dataset !== undefined && query.dataset !== this.about.name) return kept.fill(0);
    if (query.type !== undefined) this.keepType(kept, query.type);
    if (query.outcome !== "any") this.keepOutcome(kept, query.model, OUTCOMES[query.outcome]);
    if (query.other !== undefined) this.keepOutcome(kept, query.other, OUTCOMES.wrong);
    if (query.agreement === "differ") this.keepDifferent(kept);
    else if (query.agreement !== "any") this.keepMarked(kept, AGREEMENTS[query.agreement]);
    if (query.from !== undefined || query.to !== undefined) this.keepDistance(kept, query);
    for (const word of words(query.text)) this.keepWord(kept, word);
    return kept;
  }

  keepType(kept, name) {
    const type = this.about.types.indexOf(name);
    for (let sample = 0; sample < this.size; sample += 1) kept[sample] &= this.types[sample] === type;
  }

  keepOutcome(kept, model, [low, end]) {
    const scores = this.models.get(model)?.scores;
    if (!scores) return kept.fill(0);
    for (let sample = 0; sample < this.size; sample += 1) kept[sample] &= scores[sample] >= low && scores[sample] < end;
  }

  /** Keeps samples about which models are right or wrong as the marks say. */
  keepMarked(kept, wanted) {
    const marks = new Uint8Array(this.size);
    for (const { scores } of this.models.values()) {
      if (!scores) continue;
      for (let sample = 0; sample < this.size; sample += 1) marks[sample] |= scores[sample] < HALF ? WRONG : RIGHT;
    }
    for (let sample = 0; sample < this.size; sample += 1) kept[sample] &= marks[sample] === wanted;
  }

  /** Keeps samples about which two models say something else, however they spell it. */
  keepDifferent(kept) {
    const { spellings } = this;
    const [first, ...others] = this.answersOfModels();
    const differ = new Uint8Array(this.size);
    for (const answers of others) {
      for (let sample = 0; sample < this.size; sample += 1) {
        if (!differ[sample]) differ[sample] = spellings[answers[sample]] !== spellings[first[sample]];
      }
    }
    for (let sample = 0; sample < this.size; sample += 1) kept[sample] &= differ[sample];
  }

  answersOfModels() {
    return [...this.models.values()].map((model) => model.answers).filter(Boolean);
  }

  keepDistance(kept, { distance, from = -Infinity, to = Infinity }) {
    const distances = distance && this.models.get(distance.model)?.distances[distance.modality];
    if (!distances) return kept.fill(0);
    // A missing distance is NaN, which is in no range.
    for (let sample = 0; sample < this.size; sample += 1) {
      kept[sample] &= distances[sample] >= from && distances[sample] <= to;
    }
  }

  /** Keeps samples with a word in the question, in a model's answer or in one of people. */
  keepWord(kept, word) {
    const found = this.questionIndex.containing(word);
    const inAnswer = this.answerIndex.containing(word);
    for (const answers of this.answersOfModels()) {
      for (let sample = 0; sample < this.size; sample += 1) found[sample] |= inAnswer[answers[sample]];
    }
    const { people, peopleEnds } = this;
    for (let sample = 0, at = 0; sample < this.size; sample += 1) {
      for (; at < peopleEnds[sample]; at += 1) found[sample] |= inAnswer[people[at]];
    }
    for (let sample = 0; sample < this.size; sample += 1) kept[sample] &= found[sample];
  }

  /** Numbers that ascend with the wanted order of the samples; those without a value come last. */
  sortKeys(order, { model, distance }) {
    const keys = new Uint32Array(this.size).fill(0xffffffff);
    const held = order.by === "score" ? this.models.get(model) : distance && this.models.get(distance.model);
    const values = order.by === "score" ? held?.scores : held?.distances[distance.modality];
    if (!values) return keys;
    const ascending = order.by === "score" ? (at) => values[at] : ascendingBits(values);
    for (let sample = 0; sample < this.size; sample += 1) {
      if (Number.isNaN(values[sample])) continue;
      keys[sample] = order.descending ? 0xfffffffe - ascending(sample) : ascending(sample);
    }
    return keys;
  }
}

/** The number of the first answer that is spelt alike but for case and white space around it, for each answer. */
function sameSpelling(answers) {
  const firsts = new Map();
  return Uint32Array.from(answers, (answer, at) => {
    const spelling = answer.trim().toLowerCase();
    if (!firsts.has(spelling)) firsts.set(spelling, at);
    return firsts.get(spelling);
  });
}

/** The words of a search; what stands in double quotes is one. */
function words(text) {
  return Array.from(text.toLowerCase().matchAll(/"([^"]+)"|[^\s"]+/g), (match) => match[1] ?? match[0]);
}

/** Integers in the order of floating-point numbers, which is that of their bits once the sign is dealt with. */
function ascendingBits(values) {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  return (at) => (bits[at] & 0x80000000 ? ~bits[at] : bits[at] | 0x80000000) >>> 0;
}

/** Sorts numbers by ascending keys, equal keys in the order given: two passes over 16 bits each. */
function sortByKeys(numbers, keys) {
  let from = numbers;
  let to = new Uint32Array(numbers.length);
  for (const shift of [0, 16]) {
    const ends = new Uint32Array(0x10001);
    for (const number of from) ends[((keys[number] >>> shift) & 0xffff) + 1] += 1;
    for (let digit = 1; digit < ends.length; digit += 1) ends[digit] += ends[digit - 1];
    for (const number of from) to[ends[(keys[number] >>> shift) & 0xffff]++] = number;
    [from, to] = [to, from === numbers ? new Uint32Array(numbers.length) : from];
  }
  return from;
}

/** All datasets one after the other; a sample's number counts through them. */
class Samples {
  constructor(catalogue) {
    this.catalogue = catalogue;
    this.datasets = [];
    this.bases = [0];
    this.details = new Map();
  }

  /** Reads all columns; `told` hears of the share that is read. */
  static async load(catalogue, told) {
    const samples = new Samples(catalogue);
    const total = catalogue.datasets.reduce((sum, about) => sum + about.size, 0);
    for (const about of catalogue.datasets) {
      const dataset = new Dataset(about, await load(`${about.folder}/questions`));
      for (const { model } of about.models) dataset.addModel(model, await load(`${about.folder}/model-${model}`));
      samples.datasets.push(dataset);
      samples.bases.push(samples.size + dataset.size);
      told(samples.size / total);
    }
    return samples;
  }

  get size() {
    return this.bases[this.bases.length - 1];
  }

  /** The dataset and the position in it. */
  locate(number) {
    let at = 0;
    while (this.bases[at + 1] <= number) at += 1;
    return { dataset: this.datasets[at], sample: number - this.bases[at] };
  }

  /** The number of a sample named by dataset and position, if there is one. */
  find(name, position) {
    const at = this.datasets.findIndex((dataset) => dataset.about.name === name);
    const known = at >= 0 && Number.isInteger(position) && position >= 0 && position < this.datasets[at].size;
    return known ? this.bases[at] + position : undefined;
  }

  /** The numbers of the samples that a query selects, in its order. */
  select(query) {
    const selected = new Uint32Array(this.size);
    let count = 0;
    this.datasets.forEach((dataset, at) => {
      const kept = dataset.select(query);
      for (let sample = 0; sample < kept.length; sample += 1) {
        if (kept[sample]) selected[count++] = this.bases[at] + sample;
      }
    });
    const found = selected.subarray(0, count);
    const order = ORDERS[query.order];
    return order ? sortByKeys(found, this.sortKeys(order, query)) : found;
  }

  sortKeys(order, query) {
    const keys = new Uint32Array(this.size);
    this.datasets.forEach((dataset, at) => keys.set(dataset.sortKeys(order, query), this.bases[at]));
    return keys;
  }

  /** What the columns leave out about a sample: identifiers, every answer of people with its count, exact scores. */
  async detail(number) {
    const { dataset, sample } = this.locate(number);
    const length = this.catalogue.page_length;
    const name = `${dataset.about.folder}/samples-${Math.floor(sample / length)}`;
    const page = this.details.get(name) ?? (await load(name));
    // The newest pages stay; a Map knows the order in which they came.
    this.details.delete(name);
    this.details.set(name, page);
    if (this.details.size > 50) this.details.delete(this.details.keys().next().value);
    return page[sample % length];
  }
}
