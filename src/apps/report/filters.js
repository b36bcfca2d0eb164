const {rows, shown, shortcuts, most} = JSON.parse(document.getElementById("rows").textContent);
const filters = {};
for (const field of document.querySelectorAll("#filters [name]")) filters[field.name] = field;
function matches(row) {
  const [, category, caption, , , rank] = row, {text, of, from, to, alone} = filters;
  return caption.toLowerCase().includes(text.value.trim().toLowerCase())
    && (!of || of.value === "" || of.value === category)
    && (from.value === "" || rank >= +from.value) && (to.value === "" || rank <= +to.value)
    && !(alone.checked && shortcuts.some(column => row[column]));
}
function show() {
  const matching = rows.filter(matches), first = matching.slice(0, most);
  const cut = matching.length > most ? `, the first ${most} are shown` : "";
  document.getElementById("matching").textContent = `${matching.length} of ${rows.length} queries match${cut}`;
  document.querySelector("#list tbody").replaceChildren(...first.map(row => {
    const line = document.createElement("tr");
    for (const column of shown) {
      line.insertCell().textContent = column < 7 ? row[column] ?? "" : row[column] ? "\u2713" : "";
    }
    return line;
  }));
}
// A link may carry filters: report.html#text=red&from=11&alone=on
for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
  if (filters[name]) filters[name].type === "checkbox" ? filters[name].checked = true : filters[name].value = value;
}
document.getElementById("filters").addEventListener("input", show);
show();
