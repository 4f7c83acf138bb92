
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("values").textContent);
  const list = document.getElementById("cards");
  const tools = document.getElementById("tools");
  const nothing = document.getElementById("none");
  const cards = Array.from(list.children, (element, place) => {
    const [uncertainty, flags, numbers] = data.rows[place];
    return { element, place, uncertainty, flags, numbers, name: element.querySelector("h3").textContent };
  });
  const byName = new Intl.Collator("en", { numeric: true });

  const control = (text, element) => {
    const label = document.createElement("label");
    label.append(text, element);
    tools.append(label);
    return element;
  };
  const choice = (text, options) => {
    const select = document.createElement("select");
    for (const [value, name] of options) select.append(new Option(name, value));
    return control(text, select);
  };

  const search = control("Search by name", document.createElement("input"));
  search.type = "search";
  search.autocomplete = "off";
  const flag = data.flags.length
    ? choice("Quality flag", [
        ["", "all images"],
        ["any", "with a flag"],
        ["none", "without a flag"],
        ...data.flags.map((name, index) => [String(index), name]),
      ])
    : null;
  const sort = choice("Sort by", [
    ["start", data.certainty ? "uncertainty" : "order of the input"],
    ["name", "name"],
    ...data.columns.map((column, index) => [String(index), column.title]),
  ]);
  const turn = document.createElement("button");
  turn.type = "button";
  turn.textContent = "Reverse order";
  turn.setAttribute("aria-pressed", "false");
  const count = document.createElement("output");
  tools.append(turn, count);
  tools.hidden = false;

  const format = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
  const shown = (value) =>
    value === null ? "not defined" : Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : format.format(value);
  const fact = (column, value) => {
    const line = document.createElement("div");
    const term = document.createElement("dt");
    const said = document.createElement("dd");
    term.textContent = column.title;
    said.textContent = shown(value);
    line.append(term, said);
    return line;
  };

  const flagged = (card) => {
    if (!flag || flag.value === "") return true;
    if (flag.value === "any") return card.flags.length > 0;
    if (flag.value === "none") return card.flags.length === 0;
    return card.flags.includes(Number(flag.value));
  };
  // Numbers fall, names rise; images without the number come last either way.
  const ordered = () => {
    const sign = turn.getAttribute("aria-pressed") === "true" ? -1 : 1;
    const column = Number(sort.value);
    const compare =
      sort.value === "start"
        ? (a, b) => a.place - b.place
        : sort.value === "name"
          ? (a, b) => byName.compare(a.name, b.name)
          : (a, b) => b.numbers[column] - a.numbers[column];
    const known = (card) => Number.isNaN(column) || card.numbers[column] !== null;
    const sorted = cards.filter(known).sort((a, b) => sign * compare(a, b) || a.place - b.place);
    return sorted.concat(cards.filter((card) => !known(card)));
  };
  const nameValue = (card) => {
    card.sorted?.remove();
    const column = data.columns[sort.value];
    if (!column) return;
    card.sorted = fact(column, card.numbers[sort.value]);
    card.sorted.className = "sorted";
    card.element.querySelector("dl").prepend(card.sorted);
  };
  const update = () => {
    const wanted = search.value.trim().toLowerCase();
    const visible = ordered().filter((card) => flagged(card) && card.name.toLowerCase().includes(wanted));
    visible.forEach(nameValue);
    // At once: a thousand single moves would each lay out the page anew.
    list.replaceChildren(...visible.map((card) => card.element));
    count.textContent = `${visible.length.toLocaleString("en")} of ${cards.length.toLocaleString("en")} shown`;
    nothing.hidden = visible.length > 0;
  };
  search.addEventListener("input", update);
  if (flag) flag.addEventListener("change", update);
  sort.addEventListener("change", update);
  turn.addEventListener("click", () => {
    turn.setAttribute("aria-pressed", String(turn.getAttribute("aria-pressed") !== "true"));
    update();
  });

  // The other numbers of a card are built when they are asked for: 1,000 cards of 50 would make the page slow to open.
  for (const card of data.columns.length ? cards : []) {
    const details = document.createElement("details");
    const summary = document.createElement("summary");
    summary.textContent = "All measurements";
    details.append(summary);
    details.addEventListener(
      "toggle",
      () => {
        const all = document.createElement("dl");
        data.columns.forEach((column, index) => all.append(fact(column, card.numbers[index])));
        details.append(all);
      },
      { once: true },
    );
    card.element.append(details);
  }

  // Pictures that nobody has scrolled to yet would be missing on paper.
  window.addEventListener("beforeprint", () => {
    for (const image of document.images) image.loading = "eager";
  });
  count.textContent = `${cards.length.toLocaleString("en")} shown`;
})();
