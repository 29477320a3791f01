// A job: its head with what can be done to it, and a tab for each way to look at it.

import {get, patch, Poller, post, settle} from "./api.js";
import {ask, checkbox, number} from "./dialogs.js";
import {attribute, badge, h, keep, text, toast} from "./dom.js";
import * as format from "./format.js";
import {overview} from "./job-overview.js";
import {checkpoints} from "./job-checkpoints.js";
import {configuration, exceptions, logs} from "./job-more.js";
import {rows} from "./job-rows.js";

const TABS = [["", "Overview", overview], ["rows", "Rows", rows], ["checkpoints", "Checkpoints", checkpoints], ["exceptions", "Exceptions", exceptions], ["logs", "Logs", logs], ["configuration", "Configuration", configuration]];

// What has been asked of a job is followed to its end, and told.
async function follow(job, request, done) {
  const {location} = await settle(`/v1/jobs/${job.jid}/savepoints/${request["request-id"]}`);
  toast(done(location));
}

function later(promise) {
  promise.catch((error) => toast(error.message, "bad"));
}

function actions(current) {
  const savepoint = async () => {
    try {
      const request = await post(`/v1/jobs/${current().jid}/savepoints`, {"cancel-job": false});
      toast("The savepoint is being taken.");
      await follow(current(), request, (place) => `The savepoint is durable: ${place}`);
    } catch (error) {
      toast(error.message, "bad");
    }
  };
  const stop = () => ask({
    title: `Stop ${current().name}?`,
    words: "Its sources stop, what is on its way is delivered, and the job ends. A savepoint is taken last, from which it can go on.",
    fields: [checkbox("Fire open windows, as if the sources had ended (it cannot go on then)", false)],
    yes: "Stop with a savepoint",
    act: async ([drain]) => {
      const job = current();
      const request = await post(`/v1/jobs/${job.jid}/stop`, {drain});
      later(follow(job, request, (place) => `${job.name} has stopped with the savepoint ${place}`));
    },
  });
  const rescale = () => ask({
    title: `Rescale ${current().name}`,
    words: "The job stops with a savepoint and goes on from there with another number of subtasks.",
    fields: [number("Parallelism", current().slots, 1, 4096)],
    yes: "Rescale",
    act: async ([parallelism]) => {
      const job = current();
      const request = await patch(`/v1/jobs/${job.jid}/rescaling?parallelism=${parallelism}`);
      toast(`${job.name} is being rescaled to ${parallelism}.`);
      later(settle(`/v1/jobs/${job.jid}/rescaling/${request["request-id"]}`).then(() => toast(`${job.name} goes on with a parallelism of ${parallelism}.`)));
    },
  });
  const cancel = () => ask({
    title: `Cancel ${current().name}?`,
    words: "It ends at once. Nothing more is delivered or committed; what is durable stays.",
    yes: "Cancel the job",
    no: "Let it run",
    danger: true,
    act: async () => {
      await patch(`/v1/jobs/${current().jid}?mode=cancel`);
      toast(`${current().name} is being cancelled.`);
    },
  });
  const buttons = [["Savepoint", savepoint], ["Stop…", stop], ["Rescale…", rescale], ["Cancel…", cancel, "danger"]].map(([label, onclick, kind]) => h("button", {type: "button", class: kind, text: label, onclick}));
  const element = h("div", {class: "actions", role: "group", "aria-label": "Actions"}, buttons);
  return {
    element,
    update(job, canRescale) {
      const running = job.state === "RUNNING";
      buttons.slice(0, 3).forEach((button) => (button.disabled = !running));
      attribute(buttons[2], "hidden", !canRescale);
      buttons[3].disabled = format.isOver(job.state) || job.state === "CANCELLING";
      attribute(element, "hidden", format.isOver(job.state));
    },
  };
}

function facts() {
  const element = h("dl", {class: "facts"});
  const make = () => {
    const [name, value] = [h("dt"), h("dd")];
    return {element: h("div", {}, name, value), update: (fact) => {
      text(name, fact[0]);
      text(value, fact[1]);
    }};
  };
  return {element, update: (job) => keep(element, [
    ["Started", format.time(job["start-time"])],
    format.isOver(job.state) ? ["Took", format.duration(job.duration)] : ["Up for", format.duration(job.duration)],
    ["Slots", job.slots],
    ["Restarts", job.restarts],
    ["Attempt", job.attempt + 1],
    ["Id", job.jid],
  ], (fact) => fact[0], make)};
}

// What the reader should know first.
function notices(job) {
  const all = [];
  if (job.state === "FAILED") all.push({id: "failed", tone: "bad", title: "The job has failed", words: job.why ?? "Its process has ended without a word."});
  else if (["RESTARTING", "FAILING"].includes(job.state) && job.why) all.push({id: "restarting", tone: "warn", title: "It failed and is started again", words: job.why});
  if (job.waits) all.push({id: "waits", tone: "warn", title: "It waits for slots", words: `It ${job.waits}. It starts by itself when a task manager with free slots comes.`});
  for (const vertex of job.vertices) {
    const why = format.isOver(job.state) ? null : vertex["status-detail"]?.degraded;
    if (why) all.push({id: `degraded ${vertex.name}`, tone: "warn", title: `${vertex.name} is degraded: it tries again, and nothing is lost`, words: why});
  }
  const trouble = format.isOver(job.state) ? null : job.status?.checkpoints?.trouble;
  if (trouble) all.push({id: "checkpoint", tone: "warn", title: "The last checkpoint was given up", words: trouble});
  return all;
}

function notice() {
  const [title, words] = [h("strong"), h("p")];
  const element = h("div", {class: "notice"}, h("div", {}, title, words));
  return {element, update: (one) => {
    attribute(element, "data-tone", one.tone);
    text(title, one.title);
    text(words, one.words);
  }};
}

export function job(main, link, [id, tab = "", ...rest]) {
  let current = null;
  let canRescale = false;
  const name = h("h1", {tabindex: "-1", text: "Job"});
  const state = badge();
  const does = actions(() => current);
  const known = facts();
  const notes = h("div", {role: "status"});
  const failures = h("span", {class: "count", hidden: true});
  const tabs = h("nav", {class: "tabs", "aria-label": "Job"}, TABS.map(([path, label]) => h("a", {href: `#/jobs/${id}${path ? `/${path}` : ""}`, "aria-current": path === tab ? "page" : null},
    label, path === "exceptions" ? failures : null)));
  const body = h("div", {class: "tab-body"});
  const [, label, view] = TABS.find(([path]) => path === tab) ?? TABS[0];
  main.append(h("div", {class: "crumbs"}, h("a", {href: "#/", text: "Jobs"}), " / "), h("div", {class: "job-head"}, h("div", {}, h("div", {class: "job-title"}, name, state.element), known.element), does.element), notes, tabs, body);
  // In a narrow window it may be outside.
  tabs.querySelector("[aria-current]")?.scrollIntoView({block: "nearest", inline: "center"});
  const shown = view(body, id, rest);
  const poller = new Poller(async () => {
    if (current === null) canRescale = (await get("/v1/config")).features?.["web-rescale"] ?? false;
    const found = await get(`/v1/jobs/${id}`);
    // Another page may be there by now.
    if (poller.ended) return;
    current = found;
    text(name, current.name);
    document.title = `${current.name} · ${label} · Standpipe`;
    state.update(format.word(current.state), format.tone(current.state));
    known.update(current);
    does.update(current, canRescale);
    keep(notes, notices(current), (one) => one.id, notice);
    const failed = current.restarts + (current.state === "FAILED" ? 1 : 0);
    text(failures, failed);
    attribute(failures, "hidden", failed === 0);
    await shown.update(current);
  }, 1000, link);
  return {title: "Job", nav: "jobs", end: () => poller.end()};
}
