// Elements, made and kept up to date. Text is always set as text, never parsed: what jobs and plugins say cannot become markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "text") element.textContent = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

// An element: h("a", {href: "#/", onclick: go}, "text", another).
export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

// Sets a text only if it is another: nothing is announced, selected or drawn anew for nothing.
export function text(element, value) {
  const wanted = String(value ?? "");
  if (element.textContent !== wanted) element.textContent = wanted;
}

export function attribute(element, name, value) {
  if (value === null || value === undefined || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else {
    const wanted = value === true ? "" : String(value);
    if (element.getAttribute(name) !== wanted) element.setAttribute(name, wanted);
  }
}

export function width(element, share) {
  const wanted = `${Math.round(Math.min(1, Math.max(0, share || 0)) * 1000) / 10}%`;
  if (element.style.width !== wanted) element.style.width = wanted;
}

// Keeps the children of an element in step with items: the same key keeps its element, and with it the focus. `make(item)` gives an object with `element` and `update(item)`.
export function keep(parent, items, key, make) {
  parent.kept ??= new Map();
  const wanted = new Map(items.map((item) => [key(item), item]));
  // First, or all that comes behind would be moved, and what is moved loses the focus.
  for (const [id, one] of parent.kept) {
    if (wanted.has(id)) continue;
    one.element.remove();
    parent.kept.delete(id);
  }
  let place = parent.firstElementChild;
  for (const [id, item] of wanted) {
    const one = parent.kept.get(id) ?? make(item);
    parent.kept.set(id, one);
    one.update(item);
    if (one.element === place) place = place.nextElementSibling;
    else parent.insertBefore(one.element, place);
  }
}

// A table whose rows are kept: columns are {label, num, head, cell(item) -> text or node, update}.
export function table(caption, columns, key, kind = "") {
  const body = h("tbody");
  const heads = columns.map((column) => h("th", {scope: "col", class: column.num ? "num" : null, text: column.label}));
  const element = h("div", {class: `table stacks ${kind}`.trim()},
    h("table", {}, h("caption", {class: "visually-hidden", text: caption}), h("thead", {}, h("tr", {}, heads)), body));
  const make = (item) => {
    const cells = columns.map((column) => {
      const cell = h(column.head ? "th" : "td", {scope: column.head ? "row" : null, class: [column.num ? "num" : "", column.class ?? ""].join(" ").trim() || null, "data-label": column.label});
      const own = column.make?.(item);
      if (own) cell.append(own.element);
      return {cell, own};
    });
    const row = h("tr", {}, cells.map(({cell}) => cell));
    const update = (now) => columns.forEach((column, i) => {
      if (cells[i].own) cells[i].own.update(now);
      else text(cells[i].cell, column.value(now));
    });
    return {element: row, update};
  };
  return {element, update: (items) => keep(body, items, key, make)};
}

export function badge() {
  const element = h("span", {class: "badge"});
  return {
    element,
    update(state, tone) {
      text(element, state);
      attribute(element, "data-tone", tone);
    },
  };
}

// Says something once, to ears too, and goes.
export function toast(message, tone) {
  const element = h("div", {class: "toast", "data-tone": tone, text: message});
  const box = document.getElementById("toasts");
  box.append(element);
  setTimeout(() => element.remove(), tone === "bad" ? 12000 : 6000);
}
