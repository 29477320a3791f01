// Task managers, their slots and what runs in them.

import {get, Poller} from "./api.js";
import {attribute, h, table, text, width} from "./dom.js";
import * as format from "./format.js";

const columns = [
  {label: "Host", head: true, value: (one) => one.path},
  {label: "Slots", make: () => {
    const words = h("span");
    const bar = h("span");
    return {element: h("div", {class: "slots"}, words, h("div", {class: "meter"}, bar)), update: (one) => {
      text(words, `${one.slotsNumber - one.freeSlots} of ${one.slotsNumber} in use`);
      width(bar, one.slotsNumber ? (one.slotsNumber - one.freeSlots) / one.slotsNumber : 0);
    }};
  }},
  {label: "Jobs", make: () => {
    const list = h("span");
    return {element: list, update: (one) => {
      const wanted = JSON.stringify(one.allocatedSlots);
      if (list.dataset.shown === wanted) return;
      list.dataset.shown = wanted;
      const links = one.allocatedSlots.flatMap((job, i) => [i ? ", " : null, h("a", {href: `#/jobs/${job.jobId}`, text: `${job.name} (${job.slots})`})]);
      list.replaceChildren(...(links.length ? links.filter(Boolean) : ["nothing runs here"]));
    }};
  }},
  {label: "Process", num: true, value: (one) => one.pid},
  {label: "Up for", num: true, value: (one) => format.duration(Date.now() - one.since)},
  {label: "Heard of", num: true, value: (one) => `${format.duration(Math.max(0, Date.now() - one.timeSinceLastHeartbeat))} ago`},
  {label: "Id", class: "mono quiet", value: (one) => one.id.slice(0, 8)},
];

export function taskManagers(main, link) {
  const list = table("Task managers", columns, (one) => one.id);
  const empty = h("p", {class: "empty"}, "No task manager is here. ", h("code", {text: `standpipe taskmanager --slots 4 --jobmanager ${location.origin}`}), " starts one.");
  main.append(h("h1", {tabindex: "-1", text: "Task managers"}), h("div", {class: "section"}, empty, list.element));
  const poller = new Poller(async () => {
    const {taskmanagers} = await get("/v1/taskmanagers");
    attribute(empty, "hidden", taskmanagers.length > 0);
    attribute(list.element, "hidden", taskmanagers.length === 0);
    list.update(taskmanagers);
  }, 2000, link);
  return {title: "Task managers", nav: "taskmanagers", end: () => poller.end()};
}
