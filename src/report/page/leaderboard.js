// Sorts tables by the head that is clicked, and hides the rows of models that are not looked for.
"use strict";

/** What a cell is sorted by: its number, or its text; undefined where it holds nothing. */
function valueOf(row, at) {
  const { dataset, textContent } = row.cells[at];
  if (row.cells[at].classList.contains("number")) return dataset.value === undefined ? undefined : Number(dataset.value);
  return textContent.trim().toLowerCase();
}

/** Below 0 where one value comes first; what is missing comes last in either direction. */
function compare(one, other, descending) {
  if (one === undefined || other === undefined) return (one === undefined) - (other === undefined);
  const order = typeof one === "number" ? one - other : one.localeCompare(other, "en", { numeric: true });
  return descending ? -order : order;
}

/** Each body is sorted by itself, so that measured rows and printed ones are never mixed. */
function sortTable(table, at, direction) {
  for (const body of table.tBodies) {
    const rows = [...body.rows];
    const descending = direction === "descending";
    if (direction === "none") rows.sort((one, other) => one.dataset.place - other.dataset.place);
    else rows.sort((one, other) => compare(valueOf(one, at), valueOf(other, at), descending));
    body.append(...rows);
  }
}

/** Numbers begin with the highest, names with the first; the third click restores the order of the page. */
function onHead(table, head) {
  const steps = head.classList.contains("number") ? ["descending", "ascending", "none"] : ["ascending", "descending", "none"];
  const direction = steps[(steps.indexOf(head.getAttribute("aria-sort")) + 1) % steps.length];
  for (const other of head.parentElement.cells) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", direction);
  sortTable(table, head.cellIndex, direction);
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const body of table.tBodies) [...body.rows].forEach((row, place) => (row.dataset.place = place));
  for (const head of table.tHead.rows[0].cells) {
    head.setAttribute("aria-sort", "none");
    head.querySelector("button").addEventListener("click", () => onHead(table, head));
  }
}

function filterRows(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [...document.querySelectorAll("tr[data-names]")];
  for (const row of rows) row.hidden = !words.every((word) => row.dataset.names.toLowerCase().includes(word));
  const board = rows.filter((row) => row.closest("#board"));
  const shown = board.filter((row) => !row.hidden).length;
  document.getElementById("rows").textContent = words.length ? `${shown} of ${board.length} rows` : "";
}

const filter = document.getElementById("filter");
filter.closest("form").hidden = false;
filter.addEventListener("input", () => filterRows(filter.value));
filter.closest("form").addEventListener("submit", (event) => event.preventDefault());
// A browser that goes back to the page may have kept the text.
filterRows(filter.value);
