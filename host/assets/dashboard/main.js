// The way around: which page an address means, whether the job manager answers, and its token.

import {Away, Refused, token, Unauthorized} from "./api.js";
import {attribute, h, text} from "./dom.js";
import {job} from "./job.js";
import {jobs} from "./jobs.js";
import {taskManagers} from "./taskmanagers.js";

const main = document.getElementById("content");
const [linkBox, linkText, away] = ["link", "link-text", "away"].map((id) => document.getElementById(id));
let shown = null;

// Heard by every look of a page.
function link(state, error, pause) {
  if (error instanceof Unauthorized) {
    signIn();
    return;
  }
  if (error instanceof Refused && error.status === 404) {
    missing(error.message);
    return;
  }
  attribute(linkBox, "data-state", state);
  text(linkText, state === "live" ? "Live" : "Away");
  attribute(away, "hidden", state === "live");
  if (state === "live") return;
  const again = `Trying again every ${Math.round(pause / 1000)} s.`;
  if (error instanceof Away) text(away, `The job manager is away: ${error.message}. What you see is old. ${again}`);
  else text(away, `${error instanceof Refused ? "The job manager says" : "This page cannot show it"}: ${error.message}. ${again}`);
}

function clear() {
  shown?.end();
  shown = null;
  main.replaceChildren();
}

function missing(why) {
  clear();
  document.title = "Not found · Standpipe";
  main.append(h("h1", {tabindex: "-1", text: "Not found"}), h("p", {class: "section"}, `${why} `, h("a", {href: "#/", text: "Go to all jobs"})));
}

function signIn() {
  const wrong = token.get() !== null;
  token.clear();
  clear();
  attribute(away, "hidden", true);
  attribute(linkBox, "data-state", "waiting");
  text(linkText, "Signed out");
  document.title = "Token · Standpipe";
  const input = h("input", {type: "password", id: "token", required: true, autocomplete: "off", "aria-describedby": "token-note"});
  const form = h("form", {onsubmit: (event) => {
    event.preventDefault();
    token.set(input.value.trim());
    route();
  }}, h("label", {for: "token", text: "Token"}), input, wrong ? h("div", {class: "field-error", role: "alert", text: "The job manager does not know that token."}) : null, h("button", {class: "primary", text: "Go on"}));
  main.append(h("section", {class: "sign-in"}, h("h1", {tabindex: "-1", text: "This job manager wants a token"}),
    h("p", {id: "token-note", class: "tile-note", text: "The content of the file that it was started with (--token-file). It is kept in this tab only, until you close it."}), form));
  input.focus();
}

const PAGES = [[/^\/?$/, jobs], [/^\/taskmanagers$/, taskManagers], [/^\/jobs\/([0-9a-f]{32})(?:\/([a-z]*)(?:\/(.+))?)?$/, job]];

function route() {
  const address = location.hash.slice(1);
  const [found, page] = PAGES.map(([pattern, page]) => [pattern.exec(address), page]).find(([found]) => found) ?? [];
  const before = shown !== null || main.querySelector("h1") !== null;
  clear();
  if (!found) {
    missing("There is no such page.");
    return;
  }
  shown = page(main, link, found.slice(1));
  document.title = `${shown.title} · Standpipe`;
  for (const item of document.querySelectorAll("[data-nav]")) attribute(item, "aria-current", item.dataset.nav === shown.nav ? "page" : null);
  // After the first page the keyboard and the screen reader go on where the new one begins.
  if (before) main.querySelector("h1")?.focus({preventScroll: true});
  scrollTo(0, 0);
}

addEventListener("hashchange", route);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
route();
