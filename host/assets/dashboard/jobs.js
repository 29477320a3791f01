// The first page: what the cluster has, what runs, what has run.

import {get, Poller} from "./api.js";
import {attribute, badge, h, table, text, width} from "./dom.js";
import * as format from "./format.js";

function tile(label) {
  const value = h("span");
  const unit = h("span", {class: "unit"});
  const note = h("div", {class: "tile-note"});
  const bar = h("span");
  const meter = h("div", {class: "meter", hidden: true}, bar);
  const element = h("div", {class: "tile"}, h("div", {class: "tile-label", text: label}), h("div", {class: "tile-value"}, value, unit), note, meter);
  return {
    element,
    update(now, of, words, share) {
      text(value, now);
      text(unit, of ?? "");
      text(note, words ?? "");
      attribute(meter, "hidden", share === undefined);
      width(bar, share);
    },
  };
}

const columns = (now) => [
  {label: "Job", head: true, make: () => {
    const link = h("a", {class: "row-link"});
    return {element: link, update: (job) => {
      text(link, job.name);
      attribute(link, "href", `#/jobs/${job.jid}`);
    }};
  }},
  {label: "State", make: () => {
    const state = badge();
    return {element: state.element, update: (job) => state.update(format.word(job.state), format.tone(job.state))};
  }},
  {label: "Started", class: "nowrap", value: (job) => format.time(job["start-time"])},
  ...(now ? [] : [{label: "Ended", class: "nowrap", value: (job) => format.time(job["end-time"])}]),
  {label: "Duration", num: true, value: (job) => format.duration(job.duration)},
  {label: "Subtasks", num: true, value: (job) => format.exact(job.tasks.total)},
  {label: "Id", class: "mono quiet", value: (job) => job.jid.slice(0, 8)},
];

function section(title, words, now) {
  const note = h("span", {class: "note"});
  const list = table(title, columns(now), (job) => job.jid);
  const empty = h("p", {class: "empty"}, words);
  const element = h("section", {class: "section", "aria-label": title}, h("div", {class: "section-head"}, h("h2", {text: title}), note), empty, list.element);
  return {
    element,
    update(jobs) {
      text(note, jobs.length ? format.plural(jobs.length, "job") : "");
      attribute(empty, "hidden", jobs.length > 0);
      attribute(list.element, "hidden", jobs.length === 0);
      list.update(jobs);
    },
  };
}

export function jobs(main, link) {
  const tiles = ["Running jobs", "Slots in use", "Task managers", "Ended jobs"].map(tile);
  const submit = h("span", {}, "Nothing runs. ", h("code", {text: "standpipe deploy FILE"}), " submits a pipeline to this cluster.");
  const [running, over] = [section("Running jobs", submit, true), section("Completed jobs", "No job has ended yet.", false)];
  main.append(h("h1", {tabindex: "-1", text: "Jobs"}), h("div", {class: "tiles"}, tiles.map((one) => one.element)), running.element, over.element);
  const poller = new Poller(async () => {
    const [overview, list] = await Promise.all([get("/v1/overview"), get("/v1/jobs/overview")]);
    const [total, free] = [overview["slots-total"], overview["slots-available"]];
    const waiting = list.jobs.filter((job) => job.state === "CREATED").length;
    tiles[0].update(overview["jobs-running"], "", waiting ? `${waiting} waiting for slots` : "");
    tiles[1].update(total - free, `of ${total}`, total ? "" : "No task manager has come yet", total ? (total - free) / total : undefined);
    tiles[2].update(overview.taskmanagers, "", "");
    tiles[3].update(overview["jobs-finished"] + overview["jobs-failed"] + overview["jobs-cancelled"], "",
      [[overview["jobs-finished"], "finished"], [overview["jobs-failed"], "failed"], [overview["jobs-cancelled"], "cancelled"]].filter(([n]) => n).map(([n, w]) => `${n} ${w}`).join(", "));
    running.update(list.jobs.filter((job) => !format.isOver(job.state)));
    over.update(list.jobs.filter((job) => format.isOver(job.state)).sort((a, b) => b["end-time"] - a["end-time"]));
  }, 2000, link);
  return {title: "Jobs", nav: "jobs", end: () => poller.end()};
}
