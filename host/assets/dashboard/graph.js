// The plan as a graph: a button for every node, laid out by the longest way from a source, and what flows between them.

import {attribute, h, keep, svg, text, width} from "./dom.js";
import * as format from "./format.js";

// The layer of each node, and its lane in it.
function layout(nodes) {
  const layers = new Map();
  // A plan is in topological order.
  for (const node of nodes) layers.set(node.id, 1 + Math.max(0, ...node.inputs.map((input) => layers.get(input.id) ?? 0)));
  const lanes = new Map();
  const used = new Map();
  for (const node of nodes) {
    const layer = layers.get(node.id);
    const before = node.inputs.map((input) => lanes.get(input.id)).filter((lane) => lane !== undefined);
    const taken = used.get(layer) ?? new Set();
    let lane = before.length ? Math.min(...before) : 1;
    while (taken.has(lane)) lane += 1;
    lanes.set(node.id, lane);
    used.set(layer, taken.add(lane));
  }
  return nodes.map((node) => ({node, layer: layers.get(node.id), lane: lanes.get(node.id)}));
}

const EXCHANGES = {HASH: "by key", REBALANCE: "in turns", FORWARD: ""};

function card(onpick) {
  const role = h("span");
  const parallelism = h("span");
  const name = h("span", {class: "node-name"});
  const rate = h("b");
  const unit = h("span");
  const bars = ["Busy", "Backpressure"].map((label) => {
    const bar = h("span");
    const value = h("span", {class: "value"});
    const element = h("span", {class: "node-bar"}, h("span", {text: label}), h("span", {class: label === "Backpressure" ? "meter held" : "meter"}, bar), value);
    return {element, bar, value};
  });
  const foot = h("span", {class: "node-foot"});
  const element = h("button", {class: "node", type: "button", onclick: () => onpick(element.dataset.path)},
    h("span", {class: "node-top"}, role, parallelism), name, h("span", {class: "node-rate"}, rate, unit), bars.map((bar) => bar.element), foot);
  return {
    element,
    update({node, layer, lane, figures, picked, running}) {
      element.dataset.path = node.path;
      element.style.setProperty("--layer", layer);
      element.style.setProperty("--lane", lane);
      const {rates, detail} = figures;
      text(role, [node.role, detail?.plugin].filter(Boolean).join(" · "));
      text(parallelism, `× ${node.parallelism}`);
      text(name, format.nameOf(node.path));
      const flow = rates ? (node.role === "source" || node.role === "sink" ? rates.rowsOut : rates.rowsIn) : null;
      text(rate, running ? format.count(flow) : format.count(node.role === "sink" || node.role === "source" ? detail?.rows_out : detail?.rows_in));
      text(unit, running ? " rows/s" : " rows");
      const shares = [rates?.busy, rates?.backpressure];
      bars.forEach((bar, i) => {
        attribute(bar.element, "hidden", !running);
        width(bar.bar, shares[i]);
        text(bar.value, format.percent(shares[i]));
      });
      const held = detail?.held_by ? `, held by split ${detail.held_by}` : "";
      const lag = running && rates?.watermarkLag !== null && rates?.watermarkLag !== undefined ? `Event time ${format.lag(rates.watermarkLag)}${rates.watermarkLag < 0 ? "" : " behind"}${held}` : "";
      const idle = running && detail?.idle ? "Idle: nothing comes" : "";
      text(foot, detail?.degraded ? `Degraded: ${detail.degraded}` : idle || lag);
      foot.className = detail?.degraded ? "node-foot bad" : "node-foot";
      attribute(element, "data-tone", detail?.degraded ? "bad" : rates?.backpressure > 0.5 ? "warn" : null);
      attribute(element, "aria-pressed", picked ? "true" : "false");
    },
  };
}

// The graph of a plan. `pick(path)` is called when a node is chosen.
export function graph(pick) {
  const paths = svg("g");
  const labels = svg("g");
  const lines = svg("svg", {"aria-hidden": "true"}, paths, labels);
  const cards = h("div", {class: "graph", role: "group", "aria-label": "The plan: choose a node to see more of it"});
  const legend = h("ul", {class: "legend"},
    h("li", {}, h("i"), "Busy: time in the node's own code"),
    h("li", {}, h("i", {class: "held"}), "Backpressure: waiting because what is behind cannot take more"));
  const element = h("div", {}, h("div", {class: "graph-box"}, h("div", {class: "plan"}, lines, cards), legend));
  let placed = [];
  let flows = new Map();

  function draw() {
    const box = cards.getBoundingClientRect();
    const where = new Map(placed.map((one) => [one.node.id, cards.kept?.get(one.node.id)?.element.getBoundingClientRect()]));
    const down = matchMedia("(max-width: 720px)").matches;
    const edges = [];
    for (const {node} of placed) {
      for (const input of node.inputs) {
        const [from, to] = [where.get(input.id), where.get(node.id)];
        if (!from || !to) continue;
        const [x1, y1] = down ? [from.left + from.width / 2, from.bottom] : [from.right, from.top + from.height / 2];
        const [x2, y2] = down ? [to.left + to.width / 2, to.top] : [to.left, to.top + to.height / 2];
        const points = [x1 - box.left, y1 - box.top, x2 - box.left, y2 - box.top];
        edges.push({id: `${input.id}>${node.id}`, points, down, label: EXCHANGES[input.ship_strategy] ?? "", flow: flows.get(input.id) ?? 0});
      }
    }
    keep(paths, edges, (edge) => edge.id, () => {
      const line = svg("path", {class: "edge"});
      return {element: line, update: ({points: [x1, y1, x2, y2], flow, down}) => {
        const bend = down ? `${x1} ${(y1 + y2) / 2} ${x2} ${(y1 + y2) / 2}` : `${(x1 + x2) / 2} ${y1} ${(x1 + x2) / 2} ${y2}`;
        attribute(line, "d", `M${x1} ${y1}C${bend} ${x2} ${y2}`);
        attribute(line, "class", flow > 0 ? "edge flows" : "edge");
      }};
    });
    keep(labels, edges.filter((edge) => edge.label), (edge) => edge.id, () => {
      const label = svg("text", {class: "edge-label"});
      return {element: label, update: ({points: [x1, y1, x2, y2], label: words}) => {
        attribute(label, "x", (x1 + x2) / 2);
        attribute(label, "y", (y1 + y2) / 2 - 7);
        text(label, words);
      }};
    });
  }

  new ResizeObserver(draw).observe(cards);
  return {
    element,
    // `figures(path)` gives {rates, detail} of a node.
    update(nodes, figures, picked, running) {
      placed = layout(nodes);
      flows = new Map(nodes.map((node) => [node.id, running ? figures(node.path).rates?.rowsOut ?? 0 : 0]));
      const shown = placed.map((one) => ({...one, figures: figures(one.node.path), picked: one.node.path === picked, running}));
      cards.style.setProperty("--layers", Math.max(1, ...placed.map((one) => one.layer)));
      cards.style.setProperty("--lanes", Math.max(1, ...placed.map((one) => one.lane)));
      keep(cards, shown, (one) => one.node.id, () => card(pick));
      draw();
    },
  };
}
