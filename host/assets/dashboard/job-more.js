// Why a job has failed, what its processes have written, and what it was configured with.

import {get, getText} from "./api.js";
import {attribute, h, keep, table, text} from "./dom.js";
import * as format from "./format.js";

export function exceptions(body, id) {
  const root = h("pre", {tabindex: "0", "aria-label": "Root cause"});
  const when = h("span", {class: "note"});
  const cause = h("section", {class: "section", "aria-label": "Root cause"}, h("div", {class: "section-head"}, h("h2", {text: "Root cause"}), when), root);
  const list = h("div");
  const former = h("section", {class: "section", "aria-label": "Earlier failures"}, h("div", {class: "section-head"}, h("h2", {text: "Earlier failures"})), list);
  const none = h("p", {class: "empty section", text: "Nothing has gone wrong."});
  body.append(cause, former, none);
  const where = (one) => [`attempt ${one.attempt + 1}`, one.endpoint ? `on ${one.endpoint}` : null, format.time(one.timestamp)].filter(Boolean).join(", ");
  const make = () => {
    const [head, words] = [h("h3", {class: "crumbs"}), h("pre", {tabindex: "0"})];
    return {element: h("div", {class: "section"}, head, words), update: (one) => {
      text(head, where(one));
      text(words, one.stacktrace);
    }};
  };
  return {update: async () => {
    const {exceptionHistory} = await get(`/v1/jobs/${id}/exceptions`);
    const [newest, ...others] = exceptionHistory.entries;
    attribute(none, "hidden", newest !== undefined);
    attribute(cause, "hidden", newest === undefined);
    attribute(former, "hidden", others.length === 0);
    if (!newest) return;
    text(root, newest.stacktrace);
    text(when, where(newest));
    keep(list, others, (one) => one.attempt, make);
  }};
}

export function logs(body, id) {
  const log = h("pre", {class: "log", tabindex: "0", "aria-label": "Log"});
  const filter = h("input", {type: "search", placeholder: "Show lines with…", "aria-label": "Show lines with", oninput: () => show()});
  const follow = h("input", {type: "checkbox", checked: true});
  const trouble = h("p", {class: "field-error", role: "alert", hidden: true});
  const none = h("p", {class: "empty"});
  let [all, busy, next, complete] = ["", false, 0, false];
  body.append(h("div", {class: "tools"}, h("div", {class: "grow"}, filter), h("label", {class: "check"}, follow, "Follow"), h("button", {type: "button", text: "Reload", onclick: () => load()})), trouble, none, log);
  function show() {
    const wanted = filter.value.toLowerCase();
    const lines = all.split("\n");
    text(log, wanted ? lines.filter((line) => line.toLowerCase().includes(wanted)).join("\n") : all);
    text(none, all.trim() ? "No line has that." : "Its processes have not written anything.");
    attribute(none, "hidden", log.textContent.trim() !== "");
    attribute(log, "hidden", log.textContent.trim() === "");
    if (follow.checked) log.scrollTop = log.scrollHeight;
  }
  async function load() {
    if (busy) return;
    busy = true;
    try {
      all = await getText(`/v1/jobs/${id}/logs`);
      trouble.hidden = true;
      show();
    } catch (error) {
      trouble.textContent = `The log cannot be had: ${error.message}`;
      trouble.hidden = false;
    } finally {
      busy = false;
      next = Date.now() + 3000;
    }
  }
  return {update: async (job) => {
    const due = Date.now() >= next && follow.checked && !complete;
    if (!due) return;
    await load();
    // What was written before the end was known is there now.
    complete = trouble.hidden && format.isOver(job.state);
  }};
}

const SETTINGS = [
  {label: "Key", head: true, class: "mono", value: (one) => one.key},
  {label: "Value", class: "mono", value: (one) => one.value},
  {label: "Origin", value: (one) => one.origin},
];

export function configuration(body, id) {
  const list = table("Configuration", SETTINGS, (one) => one.key);
  const note = h("p", {class: "empty section", hidden: true, text: "Nothing is configured beyond the pipeline file."});
  body.append(h("div", {class: "section"}, note, list.element));
  let asked = -1;
  return {update: async (job) => {
    // It changes with a start of the job alone.
    if (asked === job.attempt) return;
    const {configuration: all} = await get(`/v1/jobs/${id}/config`);
    asked = job.attempt;
    attribute(note, "hidden", all.length > 0);
    attribute(list.element, "hidden", all.length === 0);
    list.update(all);
  }};
}
