const {header, rows, drawn, later, shown, shortcuts, most} = JSON.parse(document.getElementById("rows").textContent);
const CAPTION = 2, RANK = 5, TEXTS = 7;
const filters = {}, order = {column: null, down: false};
for (const field of document.querySelectorAll("#filters [name]")) filters[field.name] = field;

function matches(row) {
  const [, category, caption, , , rank] = row, {text, of, from, to, alone} = filters;
  return caption.toLowerCase().includes(text.value.trim().toLowerCase())
    && (!of || of.value === "" || of.value === category)
    && (from.value === "" || rank >= +from.value) && (to.value === "" || rank <= +to.value)
    && !(alone?.checked && shortcuts.some(column => row[column]));
}
function compare(one, other) {
  const [a, b] = [one, other].map(number => rows[number][order.column]);
  const sign = typeof a === "number" ? a - b : String(a).localeCompare(String(b), undefined, {numeric: true});
  return order.down ? -sign : sign;
}
function show() {
  const matching = [...rows.keys()].filter(number => matches(rows[number]));
  // Sorting keeps the order of the file among equals.
  if (order.column !== null) matching.sort(compare);
  const cut = matching.length > most ? `, the first ${most} are shown` : "";
  document.getElementById("matching").textContent = `${matching.length} of ${rows.length} queries match${cut}`;
  document.querySelector("#list tbody").replaceChildren(...matching.slice(0, most).map(line));
}
function line(number) {
  const line = document.createElement("tr");
  line.dataset.query = number;
  for (const column of shown) {
    const cell = line.insertCell(), value = rows[number][column];
    cell.dataset.title = header[column];
    if (column === CAPTION) {
      // A button, so that the keyboard reaches it.
      const button = cell.appendChild(document.createElement("button"));
      button.type = "button";
      button.ariaExpanded = "false";
      button.textContent = value;
    } else if (later[number]?.[column - RANK]) {
      // The ranking of another program ends before the target.
      cell.textContent = `>${value - 1}`;
    } else {
      cell.textContent = column < TEXTS ? value ?? "" : value ? "\u2713" : "\u2013";
    }
  }
  return line;
}

// ---- the pictures of a query ----
function figure(number, label, isTarget) {
  const figure = document.createElement("figure"), image = figure.appendChild(document.createElement("img"));
  figure.className = isTarget ? "target" : "";
  image.dataset.picture = number;
  image.alt = image.title = pictures[number][0];
  figure.appendChild(document.createElement("figcaption")).textContent = label;
  return figure;
}
function toggle(line) {
  const button = line.querySelector("button"), below = line.nextElementSibling;
  button.ariaExpanded = String(button.ariaExpanded !== "true");
  if (below?.className === "drawn") return below.remove();
  const [[reference], targets, answers] = drawn[line.dataset.query], row = document.createElement("tr");
  row.className = "drawn";
  const cell = row.insertCell(), box = cell.appendChild(document.createElement("div"));
  cell.colSpan = shown.length;
  box.className = "answers";
  box.append(figure(reference, "reference", false));
  answers.forEach((number, place) => {
    const isTarget = targets.includes(number);
    box.append(figure(number, `${place + 1}.${isTarget ? " target" : ""}`, isTarget));
  });
  for (const number of targets) if (!answers.includes(number)) box.append(figure(number, "target", true));
  placePictures(row);
  line.after(row);
}
document.querySelector("#list tbody").addEventListener("click", event => {
  const line = event.target.closest("tr[data-query]");
  // A text that is being marked is no click.
  if (line && getSelection().isCollapsed) toggle(line);
});
document.querySelector("#list thead").addEventListener("click", event => {
  const title = event.target.closest("th"), column = +title.querySelector("button").dataset.column;
  Object.assign(order, {column, down: order.column === column && !order.down});
  for (const other of title.parentElement.cells) other.removeAttribute("aria-sort");
  title.ariaSort = order.down ? "descending" : "ascending";
  show();
});

// A link may carry filters: report.html#text=red&from=11&alone=on
for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
  if (filters[name]) filters[name].type === "checkbox" ? filters[name].checked = true : filters[name].value = value;
}
document.getElementById("filters").addEventListener("input", show);
show();
