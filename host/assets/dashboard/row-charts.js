// Charts of rows: each numeric column over event time, a line for each value of a column that groups them. The reader chooses the columns; what is chosen first is a guess.

import {attribute, h, keep, svg, text} from "./dom.js";
import * as format from "./format.js";

const [WIDE, HIGH, MARGIN] = [600, 150, 8];
// More lines than that are no picture.
const MOST_GROUPS = 8;
const MOST_CHARTS = 12;
const NOTHING = "";

const isTime = (column) => /^(timestamp|date)/.test(column.type);
const isNumber = (column) => /^(u?int|float|decimal)/.test(column.type);
const isKey = (column) => column.type === "string" || /^u?int/.test(column.type);

// Texts are of UTC and say nothing of a zone.
const millis = (value) => Date.parse(value.length > 10 ? `${value.replace(" ", "T")}Z` : value);

function select(label, onchange) {
  const element = h("select", {onchange});
  return {element, labelled: h("label", {class: "choice"}, h("span", {text: label}), element), offer: (options, chosen) => {
    element.replaceChildren(...options.map(([value, words]) => h("option", {value, text: words})));
    element.value = chosen;
  }};
}

// The lines of a column: by group, points in the order of time.
function lines(rows, time, value, group) {
  const groups = new Map();
  for (const {values} of rows) {
    const [at, number] = [values[time] === null ? NaN : millis(values[time]), values[value] === null ? NaN : Number(values[value])];
    if (Number.isNaN(at) || !Number.isFinite(number)) continue;
    const key = group === null ? NOTHING : values[group] ?? "–";
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push([at, number]);
  }
  const sorted = [...groups].sort(([a], [b]) => a.localeCompare(b, undefined, {numeric: true}));
  return {all: sorted.length, lines: sorted.slice(0, MOST_GROUPS).map(([key, points]) => ({key, points: points.sort(([a], [b]) => a - b)}))};
}

function chart(item) {
  const drawn = svg("g");
  const picture = svg("svg", {viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", role: "img"}, drawn);
  const title = h("b", {text: item.name});
  const [from, to, scale] = [h("span"), h("span"), h("span")];
  const element = h("figure", {class: "chart row-chart"}, h("figcaption", {}, title, scale), picture, h("div", {class: "scale", "aria-hidden": "true"}, from, to));
  return {element, update: ({name, found, times}) => {
    const values = found.lines.flatMap((line) => line.points.map(([, value]) => value));
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const span = Math.max(1, times[1] - times[0]);
    const room = high > low ? high - low : Math.abs(high) || 1;
    const x = (at) => (MARGIN + (WIDE - 2 * MARGIN) * ((at - times[0]) / span)).toFixed(1);
    const y = (value) => (HIGH - MARGIN - (HIGH - 2 * MARGIN) * (high > low ? (value - low) / room : 0.5)).toFixed(1);
    drawn.replaceChildren(...found.lines.map((line, i) => {
      const points = line.points.map(([at, value]) => `${x(at)} ${y(value)}`);
      // A point alone is a dot: a line of no length with round ends.
      const path = points.length === 1 ? `M${points[0]}h0.01` : `M${points.join("L")}`;
      return svg("path", {class: `line group-${i}${points.length === 1 ? " dot" : ""}`, d: path});
    }));
    text(scale, values.length ? `${format.count(low)} to ${format.count(high)}` : "no numbers yet");
    text(from, format.time(times[0]));
    text(to, format.time(times[1]));
    const last = found.lines.map((line) => `${line.key ? `${line.key} ` : ""}${format.count(line.points.at(-1)[1])}`).join(", ");
    attribute(picture, "aria-label", values.length ? `${name} from ${format.time(times[0])} to ${format.time(times[1])}, ${format.count(low)} to ${format.count(high)}; last: ${last}` : `${name}: no numbers yet`);
  }};
}

export function rowCharts() {
  let [columns, rows] = [[], []];
  const redraw = () => update(rows);
  const [time, group] = [select("Over", redraw), select("A line for each", redraw)];
  const legend = h("ul", {class: "legend groups"});
  const more = h("p", {class: "note"});
  const grid = h("div", {class: "charts"});
  const element = h("div", {class: "row-charts"}, h("div", {class: "tools"}, time.labelled, group.labelled), legend, grid, more);

  // Offers what there is to choose; false: there is nothing to draw.
  function lay(found) {
    [columns, rows] = [found, []];
    const named = columns.map((column, i) => ({...column, i}));
    const times = named.filter(isTime);
    const first = times[0]?.i ?? -1;
    // A key is in front of a window's times, or a text.
    const key = named.find((column) => isKey(column) && column.i < first) ?? named.find((column) => column.type === "string");
    time.offer(times.map((column) => [column.i, column.name]), first);
    group.offer([[NOTHING, "(one line)"], ...named.filter(isKey).map((column) => [column.i, column.name])], key?.i ?? NOTHING);
    return times.length > 0 && named.some(isNumber);
  }

  function update(all) {
    rows = all;
    const [by, each] = [Number(time.element.value), group.element.value === NOTHING ? null : Number(group.element.value)];
    const numbers = columns.map((column, i) => ({...column, i})).filter((column) => isNumber(column) && column.i !== each).slice(0, MOST_CHARTS);
    if (!rows.length || !columns.length || !isTime(columns[by] ?? {type: ""})) return;
    let times = [Infinity, -Infinity];
    for (const {values} of rows) {
      const at = values[by] === null ? NaN : millis(values[by]);
      if (!Number.isNaN(at)) times = [Math.min(times[0], at), Math.max(times[1], at)];
    }
    if (times[0] > times[1]) return;
    const drawn = numbers.map((column) => ({name: column.name, found: lines(rows, by, column.i, each), times}));
    keep(grid, drawn, (one) => one.name, chart);
    const most = drawn.reduce((a, b) => (b.found.all > (a?.found.all ?? -1) ? b : a), null);
    const keys = each === null || !most ? [] : most.found.lines.map((line, i) => ({key: line.key, i}));
    keep(legend, keys, (one) => `${one.i} ${one.key}`, (one) => ({element: h("li", {}, h("i", {class: `group-${one.i}`}), h("span", {text: one.key})), update: () => {}}));
    const others = most ? most.found.all - most.found.lines.length : 0;
    text(more, others > 0 ? `${format.exact(others)} more values of ${columns[each].name} are not drawn` : "");
  }

  return {element, lay, update};
}
