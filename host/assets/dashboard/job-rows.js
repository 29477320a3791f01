// Rows of a node as they pass: the last ones as a table, and its numbers as charts over event time.

import {Away, get, Refused, Unauthorized} from "./api.js";
import {attribute, h, keep, table, text} from "./dom.js";
import * as format from "./format.js";
import {rowCharts} from "./row-charts.js";

// Milliseconds that a look waits for rows.
const WAIT = 600;
const LIMITS = [20, 50, 200];
// Rows that the charts show, and rows of one look for them.
const CHARTED = 4000;
const AT_ONCE = 1000;

const isNumber = (type) => /^(u?int|float|decimal)/.test(type);

// Whoever looks has a name, by which one look goes on where the last one has ended.
function name() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function choice(label, options, onchange) {
  const element = h("select", {onchange: () => onchange(element.value)}, options.map(([value, words]) => h("option", {value, text: words})));
  return {element, labelled: h("label", {class: "choice"}, h("span", {text: label}), element)};
}

export function rows(body, id, [wanted]) {
  let [tap, live, ended, number, dropped, begun] = [name(), true, false, 0, 0, 0];
  // The look that had rows last, and how often one began anew by itself.
  let [seen, gaps] = [null, 0];
  let [columns, all, shown] = [null, [], null];
  let node = wanted ? decodeURIComponent(wanted) : null;
  const nodes = choice("Node", [], (value) => location.replace(`#/jobs/${id}/rows/${encodeURIComponent(value)}`));
  const limit = choice("Rows", LIMITS.map((n) => [n, `last ${n}`]), () => show());
  limit.element.value = LIMITS[1];
  const toggle = h("button", {type: "button", onclick: () => go(!live)});
  const said = h("span", {class: "note", role: "status"});
  const counted = h("p", {class: "note"});
  const trouble = h("p", {class: "field-error", role: "alert", hidden: true});
  const none = h("p", {class: "empty", text: "Waiting for rows…"});
  const place = h("div");
  const charts = rowCharts();
  const charted = h("section", {class: "section", "aria-label": "Charts", hidden: true}, h("div", {class: "section-head"}, h("h2", {text: "Charts"}), h("span", {class: "note", text: "Its numbers over event time, as the rows have passed"})), charts.element);
  body.append(h("div", {class: "tools"}, nodes.labelled, limit.labelled, toggle, said), counted, trouble, none,
    h("section", {class: "section", "aria-label": "Rows"}, h("div", {class: "section-head"}, h("h2", {text: "Rows"}), h("span", {class: "note", text: "As they pass, the newest first"})), place), charted);

  function go(on) {
    live = on;
    // What passes meanwhile is not looked at.
    if (on) tap = name();
    text(toggle, live ? "Stop" : "Start");
    text(said, ended ? "The job has ended." : live ? "Live" : "Stopped");
    attribute(toggle, "disabled", ended);
  }

  // A table is made for its columns.
  function lay(found) {
    if (JSON.stringify(found) === JSON.stringify(columns)) return;
    [columns, all] = [found, []];
    const cells = columns.map((column, i) => ({label: column.name, num: isNumber(column.type), value: (row) => row.values[i] ?? "–"}));
    shown = table(`Rows of ${node}`, [{label: "#", head: true, class: "minor", value: (row) => format.exact(row.number)}, ...cells], (row) => row.number, "dense rows");
    // A keyboard can scroll it.
    attribute(shown.element, "tabindex", "0");
    attribute(shown.element, "role", "group");
    attribute(shown.element, "aria-label", `Rows of ${node}`);
    place.replaceChildren(shown.element);
    attribute(charted, "hidden", !charts.lay(columns));
  }

  function show() {
    const rate = begun ? ` in ${format.duration(Date.now() - begun)}` : "";
    text(counted, columns ? `${format.plural(number, "row")} seen${rate}${dropped ? `; ${format.exact(dropped)} have passed between two looks and are not shown` : ""}${gaps ? "; others are missing, as the job or the look began anew" : ""}` : "");
    attribute(none, "hidden", all.length > 0);
    text(none, ended ? "The job has ended: its rows pass no more." : live ? "Waiting for rows…" : "Nothing was looked at.");
    shown?.update(all.slice(-Number(limit.element.value)).reverse());
    charts.update(all);
  }

  async function look() {
    const [most, looks] = [columns && charted.hidden ? Number(limit.element.value) : AT_ONCE, tap];
    const found = await get(`/v1/jobs/${id}/collect?node=${encodeURIComponent(node)}&tap=${tap}&newest=true&limit=${most}&timeout=${WAIT}&format=table`);
    // It was stopped, or another page is there.
    if (!live || looks !== tap) return;
    begun ||= Date.now();
    dropped += found.dropped;
    if (found.opened && seen === looks) gaps += 1;
    if (found.rows.length > 0) seen = looks;
    if (found.columns) lay(found.columns);
    for (const values of found.rows) all.push({number: (number += 1), values});
    all = all.slice(-CHARTED);
    if (found.ended) {
      ended = true;
      go(false);
    }
  }

  go(true);
  return {update: async (job) => {
    const paths = job.vertices.map((vertex) => vertex.name);
    keep(nodes.element, paths, (path) => path, (path) => ({element: h("option", {value: path, text: path}), update: () => {}}));
    node ??= paths[0] ?? null;
    // By its name alone, too.
    node = paths.find((path) => path === node || format.nameOf(path) === node) ?? node;
    if (nodes.element.value !== node && paths.includes(node)) nodes.element.value = node;
    if (format.isOver(job.state) && !ended && !begun) {
      ended = true;
      go(false);
    }
    if (live && node) {
      try {
        await look();
        attribute(trouble, "hidden", true);
      } catch (error) {
        if (error instanceof Away || error instanceof Unauthorized || (error instanceof Refused && error.status === 404)) throw error;
        text(trouble, `Rows of ${node} cannot be shown: ${error.message}`);
        attribute(trouble, "hidden", false);
      }
    }
    show();
  }};
}
