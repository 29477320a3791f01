// Small charts: a line over the last minutes, bars over the last checkpoints. Each says in words what it shows.

import {attribute, h, svg, text} from "./dom.js";

const [WIDE, HIGH] = [300, 80];

// The smallest round number that is not less.
function ceiling(value) {
  if (!(value > 0)) return 1;
  const size = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((factor) => factor * size).find((round) => round >= value);
}

function path(times, values, span, top) {
  const end = times.at(-1);
  let [line, area, first, last] = ["", "", null, null];
  times.forEach((time, i) => {
    const value = values[i];
    if (value === null || value === undefined) return;
    const x = WIDE * (1 - (end - time) / span);
    const y = HIGH - 4 - (HIGH - 10) * Math.min(1, Math.max(0, value) / top);
    line += `${line ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
    first ??= x;
    last = x;
  });
  if (line) area = `${line}L${last.toFixed(1)} ${HIGH}L${first.toFixed(1)} ${HIGH}Z`;
  return {line, area};
}

// `update(times, values)`: times in milliseconds, values may be null. `format` is for one value, `most` the top of the scale where it is known.
export function lineChart(label, format, {spark = false, held = false, most = null} = {}) {
  const [line, area] = [svg("path", {class: "line"}), svg("path", {class: "area"})];
  const picture = svg("svg", {viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", role: "img"}, area, line);
  const now = h("b");
  const [from, top] = [h("span"), h("span")];
  const element = h("figure", {class: `chart${spark ? " spark" : ""}${held ? " held" : ""}`},
    spark ? null : h("figcaption", {}, h("span", {text: label}), now), picture,
    spark ? null : h("div", {class: "scale", "aria-hidden": "true"}, from, top));
  return {
    element,
    update(times, values) {
      const known = values.filter((value) => value !== null && value !== undefined);
      const last = values.at(-1) ?? null;
      const highest = known.length ? Math.max(...known) : 0;
      const scale = most ?? ceiling(highest);
      const span = Math.max(60000, times.length ? times.at(-1) - times[0] : 0);
      const drawn = times.length > 1 ? path(times, values, span, scale) : {line: "", area: ""};
      attribute(line, "d", drawn.line);
      attribute(area, "d", drawn.area);
      text(now, format(last));
      text(from, `last ${Math.round(span / 60000)} min`);
      text(top, `scale 0 – ${format(scale)}`);
      attribute(picture, "aria-label", known.length ? `${label}: now ${format(last)}, at most ${format(highest)} in the last ${Math.round(span / 60000)} minutes` : `${label}: no data yet`);
    },
  };
}

// `update(items)`: {value, kind, title}, oldest first.
export function barChart(label, format) {
  const bars = svg("g", {class: "bars"});
  const picture = svg("svg", {viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", role: "img"}, bars);
  const now = h("b");
  const [from, top] = [h("span"), h("span")];
  const element = h("figure", {class: "chart"}, h("figcaption", {}, h("span", {text: label}), now), picture, h("div", {class: "scale", "aria-hidden": "true"}, from, top));
  return {
    element,
    update(items) {
      const highest = Math.max(0, ...items.map((item) => item.value));
      const scale = ceiling(highest);
      const step = WIDE / Math.max(items.length, 20);
      bars.replaceChildren(...items.map((item, i) => {
        const high = Math.max(2, (HIGH - 8) * (item.value / scale));
        const bar = svg("rect", {class: item.kind, x: (i * step + step * 0.14).toFixed(1), width: (step * 0.72).toFixed(1), y: (HIGH - high).toFixed(1), height: high.toFixed(1)});
        bar.append(svg("title", {text: item.title}));
        return bar;
      }));
      text(now, items.length ? format(items.at(-1).value) : "–");
      text(from, items.length ? `last ${items.length}` : "none yet");
      text(top, `scale 0 – ${format(scale)}`);
      attribute(picture, "aria-label", items.length ? `${label} of the last ${items.length} checkpoints: newest ${format(items.at(-1).value)}, most ${format(highest)}` : `${label}: none yet`);
    },
  };
}
