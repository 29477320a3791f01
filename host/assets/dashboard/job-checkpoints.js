// Checkpoints and savepoints: how large, how long, what went wrong.

import {get} from "./api.js";
import {barChart} from "./charts.js";
import {attribute, badge, h, table, text} from "./dom.js";
import * as format from "./format.js";

const TONES = {COMPLETED: "good", FAILED: "bad", IN_PROGRESS: "accent"};
const WORDS = {COMPLETED: "Durable", FAILED: "Given up", IN_PROGRESS: "In progress"};

const COLUMNS = [
  {label: "Number", head: true, value: (one) => one.id},
  {label: "Kind", value: (one) => (one.is_savepoint ? "Savepoint" : "Checkpoint")},
  {label: "State", make: () => {
    const state = badge();
    return {element: state.element, update: (one) => state.update(WORDS[one.status] ?? one.status, TONES[one.status])};
  }},
  {label: "Triggered", class: "nowrap", value: (one) => format.time(one.trigger_timestamp)},
  {label: "Duration", num: true, value: (one) => format.duration(one.end_to_end_duration)},
  {label: "Size", num: true, value: (one) => (one.status === "COMPLETED" ? format.bytes(one.state_size) : "")},
  {label: "Written", num: true, value: (one) => (one.status === "COMPLETED" ? format.bytes(one.checkpointed_size) : "")},
  {label: "Where, or why not", class: "mono", value: (one) => one.failure_message ?? (one.is_savepoint ? one.external_path : "") ?? ""},
];

function tile(label) {
  const [value, note] = [h("span"), h("div", {class: "tile-note"})];
  return {element: h("div", {class: "tile"}, h("div", {class: "tile-label", text: label}), h("div", {class: "tile-value"}, value), note), update: (now, words) => {
    text(value, now);
    text(note, words);
  }};
}

export function checkpoints(body, id) {
  const tiles = ["Durable", "Given up", "Newest takes", "Newest is"].map(tile);
  const [took, size] = [barChart("Duration", format.duration), barChart("Size", format.bytes)];
  const list = table("Checkpoints, newest first", COLUMNS, (one) => one.id);
  const empty = h("p", {class: "empty"});
  const charts = h("div", {class: "detail"}, h("div", {class: "charts"}, took.element, size.element));
  body.append(h("div", {class: "tiles"}, tiles.map((one) => one.element)), h("div", {class: "section"}, charts), h("section", {class: "section", "aria-label": "History"}, h("div", {class: "section-head"}, h("h2", {text: "History"}), h("span", {class: "note", text: "newest first"})), empty, list.element));
  return {update: async (job) => {
    const all = await get(`/v1/jobs/${id}/checkpoints`);
    const last = all.latest.completed;
    const age = job.status?.checkpoints?.age_seconds;
    tiles[0].update(format.exact(all.counts.completed), last ? `the newest is number ${last.id}` : "");
    tiles[1].update(format.exact(all.counts.failed), all.trouble ?? "");
    tiles[2].update(last ? format.duration(last.end_to_end_duration) : "–", last ? `${format.duration(all.summary.end_to_end_duration.avg)} on average` : "");
    tiles[3].update(last ? format.bytes(last.state_size) : "–", last && age !== null && age !== undefined && !format.isOver(job.state) ? `durable since ${format.duration(age * 1000)}` : "");
    const history = all.history;
    const drawn = history.filter((one) => one.status !== "IN_PROGRESS").slice(0, 40).reverse();
    const kind = (one) => (one.status === "FAILED" ? "failed" : one.is_savepoint ? "savepoint" : "");
    took.update(drawn.map((one) => ({value: one.end_to_end_duration, kind: kind(one), title: `${one.id}: ${format.duration(one.end_to_end_duration)}`})));
    size.update(drawn.map((one) => ({value: one.state_size, kind: kind(one), title: `${one.id}: ${format.bytes(one.state_size)}`})));
    attribute(charts, "hidden", drawn.length === 0);
    text(empty, job.status && !job.status.checkpoints ? "This pipeline takes no checkpoints: checkpoint: {interval: 10s} in its file turns them on." : "There is none yet.");
    attribute(empty, "hidden", history.length > 0);
    attribute(list.element, "hidden", history.length === 0);
    list.update(history);
  }};
}
