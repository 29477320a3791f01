// The plan with what flows in it, and more of the node that was chosen.

import {get} from "./api.js";
import {lineChart} from "./charts.js";
import {attribute, h, table, text} from "./dom.js";
import * as format from "./format.js";
import {graph} from "./graph.js";

const KEPT = 300;

// What the manager has seen of the last minutes, and what it adds with every look.
class Series {
  constructor(id) {
    Object.assign(this, {id, at: [], nodes: new Map()});
  }

  async look() {
    const news = await get(`/v1/jobs/${this.id}/figures?since=${this.at.at(-1) ?? 0}`);
    this.at = [...this.at, ...news.at].slice(-KEPT);
    for (const node of news.nodes) {
      const known = this.nodes.get(node.path) ?? {};
      for (const key of ["rows-in", "rows-out", "bytes-in", "bytes-out", "busy", "backpressure", "watermark-lag", "lag"]) known[key] = [...(known[key] ?? []), ...node[key]].slice(-KEPT);
      this.nodes.set(node.path, known);
    }
  }

  column(path, key) {
    return this.nodes.get(path)?.[key] ?? [];
  }

  // Of nodes together; where none knows, nothing.
  sum(paths, key) {
    return this.at.map((_, i) => paths.map((path) => this.column(path, key)[i]).filter((value) => value !== null && value !== undefined).reduce((a, b) => (a ?? 0) + b, null));
  }

  most(paths, key) {
    return this.at.map((_, i) => paths.map((path) => this.column(path, key)[i]).filter((value) => value !== null && value !== undefined).reduce((a, b) => (a === null ? b : Math.max(a, b)), null));
  }

  rates(path) {
    if (!this.at.length) return null;
    const last = (key) => this.column(path, key).at(-1) ?? null;
    return {rowsIn: last("rows-in"), rowsOut: last("rows-out"), busy: last("busy"), backpressure: last("backpressure"), watermarkLag: last("watermark-lag"), lag: last("lag")};
  }
}

function tile(label, formatted) {
  const [value, unit, note] = [h("span"), h("span", {class: "unit"}), h("div", {class: "tile-note"})];
  const chart = lineChart(label, formatted, {spark: true});
  const element = h("div", {class: "tile"}, h("div", {class: "tile-label", text: label}), h("div", {class: "tile-value"}, value, unit), note, chart.element);
  return {element, update: (now, of, words, times, values) => {
    text(value, now);
    text(unit, of);
    text(note, words);
    attribute(chart.element, "hidden", values.length < 2);
    chart.update(times, values);
  }};
}

const watermark = (subtask) => (subtask.idle ? "idle" : subtask.watermark_seconds === null ? "–" : format.time(subtask.watermark_seconds * 1000));

const SUBTASKS = [
  {label: "Subtask", head: true, value: (one) => one.number},
  {label: "Rows in", num: true, value: (one) => format.exact(one.rows_in)},
  {label: "Rows out", num: true, value: (one) => format.exact(one.rows_out)},
  {label: "In", num: true, value: (one) => format.bytes(one.bytes_in)},
  {label: "Out", num: true, value: (one) => format.bytes(one.bytes_out)},
  {label: "Busy", num: true, value: (one) => format.duration(one.busy_seconds * 1000)},
  {label: "Backpressure", num: true, value: (one) => format.duration(one.backpressure_seconds * 1000)},
  {label: "Late", num: true, value: (one) => format.exact(one.late)},
  {label: "Broken", num: true, value: (one) => format.exact(one.broken)},
  {label: "Watermark", num: true, value: watermark},
  {label: "Held by split", num: true, value: (one) => one.held_by ?? ""},
];

const SPLITS = [
  {label: "Split", head: true, value: (one) => one.split},
  {label: "Records behind", num: true, value: (one) => format.exact(one.records)},
  {label: "Oldest waits for", num: true, value: (one) => format.duration(one.millis)},
];

// More of one node.
function detail(id, close) {
  const title = h("h2", {tabindex: "-1"});
  const rows = h("a", {class: "button", text: "Rows"});
  const charts = [
    [lineChart("Rows in per second", format.count), "rows-in"], [lineChart("Rows out per second", format.count), "rows-out"],
    [lineChart("Busy", format.percent, {most: 1}), "busy"], [lineChart("Backpressure", format.percent, {most: 1, held: true}), "backpressure"],
    [lineChart("Event time behind", format.lag), "watermark-lag"],
  ];
  const subtasks = table("Subtasks", SUBTASKS, (one) => one.number, "dense");
  const splits = table("Splits", SPLITS, (one) => one.split);
  const element = h("section", {class: "detail", "aria-label": "The chosen node", hidden: true},
    h("div", {class: "detail-head"}, title, h("div", {class: "actions"}, rows, h("button", {type: "button", text: "Close", onclick: close}))), h("div", {class: "charts"}, charts.map(([chart]) => chart.element)), subtasks.element, splits.element);
  return {element, title, update: (vertex, series) => {
    attribute(element, "hidden", !vertex);
    if (!vertex) return;
    const status = vertex["status-detail"];
    attribute(rows, "href", `#/jobs/${id}/rows/${encodeURIComponent(vertex.name)}`);
    text(title, [vertex.name, status?.plugin].filter(Boolean).join(" · "));
    for (const [chart, key] of charts) {
      const values = series.column(vertex.name, key);
      attribute(chart.element, "hidden", key === "watermark-lag" && !values.some((value) => value !== null));
      chart.update(series.at, values);
    }
    const all = (status?.subtasks ?? []).map((subtask, number) => ({number, ...subtask}));
    attribute(subtasks.element, "hidden", all.length === 0);
    subtasks.update(all);
    const lags = Object.entries(status?.lag ?? {}).map(([split, of]) => ({split, ...of}));
    attribute(splits.element, "hidden", lags.length === 0);
    splits.update(lags);
  }};
}

const NODES = [
  {label: "Node", head: true, value: (one) => one.vertex.name},
  {label: "Plugin", value: (one) => one.detail?.plugin ?? ""},
  {label: "Subtasks", num: true, class: "minor", value: (one) => one.vertex.parallelism},
  {label: "Rows in", num: true, class: "minor", value: (one) => format.exact(one.detail?.rows_in)},
  {label: "Rows out", num: true, class: "minor", value: (one) => format.exact(one.detail?.rows_out)},
  {label: "In/s", num: true, value: (one) => (one.running ? format.count(one.rates?.rowsIn) : "")},
  {label: "Out/s", num: true, value: (one) => (one.running ? format.count(one.rates?.rowsOut) : "")},
  {label: "Busy", num: true, value: (one) => (one.running ? format.percent(one.rates?.busy) : "")},
  {label: "Backpressure", num: true, value: (one) => (one.running ? format.percent(one.rates?.backpressure) : "")},
  {label: "Event time behind", num: true, value: (one) => (one.running ? format.lag(one.rates?.watermarkLag) : "")},
  {label: "Held by split", num: true, value: (one) => (one.running ? one.detail?.held_by ?? "" : "")},
];

export function overview(body, id) {
  const series = new Series(id);
  const tiles = [tile("Rows read", format.count), tile("Rows delivered", format.count), tile("Source lag", format.count), tile("Event time behind", format.lag)];
  let [picked, latest] = [null, null];
  const pick = (path) => {
    picked = picked === path ? null : path;
    if (latest) show(latest);
  };
  const plan = graph(pick);
  const more = detail(id, () => pick(picked));
  const nodes = table("Nodes", NODES, (one) => one.vertex.id, "dense");
  const waiting = h("p", {class: "empty", text: "The job's plan is on its way."});
  body.append(h("div", {class: "tiles"}, tiles.map((one) => one.element)),
    h("section", {class: "section", "aria-label": "Plan"}, h("div", {class: "section-head"}, h("h2", {text: "Plan"}), h("span", {class: "note", text: "Choose a node to see its subtasks, its charts and its rows"})), waiting, plan.element, more.element),
    h("section", {class: "section", "aria-label": "Nodes"}, h("div", {class: "section-head"}, h("h2", {text: "Nodes"})), nodes.element));

  function show(job) {
    const running = job.state === "RUNNING";
    const details = new Map(job.vertices.map((vertex) => [vertex.name, vertex["status-detail"]]));
    const paths = (role) => job.plan.nodes.filter((node) => node.operator === role).map((node) => node.description);
    const [sources, sinks, all] = [paths("source"), paths("sink"), job.vertices.map((vertex) => vertex.name)];
    const last = (values) => values.at(-1) ?? null;
    const total = job.status?.totals;
    const [read, given, lag, behind] = [series.sum(sources, "rows-in"), series.sum(sinks, "rows-out"), series.sum(sources, "lag"), series.most(all, "watermark-lag")];
    const rate = (values, rows) => (running ? [format.count(last(values)), "rows/s"] : [format.count(rows), "rows"]);
    tiles[0].update(...rate(read, total?.rows_in), total ? `${format.exact(total.rows_in)} rows, ${format.bytes(total.bytes_in)}` : "", series.at, read);
    tiles[1].update(...rate(given, total?.rows_out), total ? `${format.exact(total.rows_out)} rows, ${format.bytes(total.bytes_out)}` : "", series.at, given);
    const records = running ? total?.lag_records : null;
    tiles[2].update(format.count(records), records === null || records === undefined ? "" : "records", running && total?.lag_seconds ? `the oldest waits for ${format.duration(total.lag_seconds * 1000)}` : "", series.at, lag.some((v) => v !== null) ? lag : []);
    const slowest = job.vertices.map((vertex) => vertex["status-detail"]).find((status) => status?.held_by);
    tiles[3].update(running ? format.lag(last(behind)) : "–", "", running && slowest ? `held by split ${slowest.held_by}` : "", series.at, behind.some((v) => v !== null) ? behind : []);
    const planned = job.plan.nodes.map((node) => ({id: node.id, path: node.description, role: node.operator, parallelism: node.parallelism, inputs: node.inputs}));
    attribute(waiting, "hidden", planned.length > 0);
    plan.update(planned, (path) => ({rates: series.rates(path), detail: details.get(path)}), picked, running);
    more.update(job.vertices.find((vertex) => vertex.name === picked), series);
    nodes.update(job.vertices.map((vertex) => ({vertex, detail: details.get(vertex.name), rates: series.rates(vertex.name), running})));
  }

  return {update: async (job) => {
    await series.look();
    latest = job;
    show(job);
  }};
}
