// The list of runs: which are marked, kept while the list changes under them, and by which list the next run is found.
import { KEYS, say } from "./keys.js";

const PLACE = "marked";
const marked = new Set(JSON.parse(sessionStorage.getItem(PLACE) ?? "[]"));
const boxes = () => [...document.querySelectorAll("#runs input[name=run]")];

sessionStorage.setItem("list", location.search);

function paint() {
  for (const box of boxes()) box.checked = marked.has(box.value);
  const form = document.getElementById("chosen");
  for (const old of form.querySelectorAll("input[type=hidden]")) old.remove();
  const here = new Set(boxes().map((box) => box.value));
  for (const run of marked) {
    if (here.has(run)) continue;
    const field = document.createElement("input"); // marked, and on another page of the list by now
    Object.assign(field, { type: "hidden", name: "run", value: run });
    form.append(field);
  }
  document.getElementById("marked").textContent = marked.size ? `${marked.size} marked` : "mark runs with x";
}

function mark(run, is) {
  if (is) marked.add(run);
  else marked.delete(run);
  sessionStorage.setItem(PLACE, JSON.stringify([...marked]));
  paint();
}

document.addEventListener("change", (event) => {
  if (event.target.matches?.("#runs input[name=run]")) mark(event.target.value, event.target.checked);
});

document.getElementById("chosen").addEventListener("submit", (event) => {
  const does = event.submitter?.value;
  const refused = does === "compare" && marked.size !== 2 ? "mark two runs to compare them" : marked.size ? "" : "mark some runs first (x)";
  if (refused) {
    event.preventDefault();
    say(refused);
    return;
  }
  if (does === "cancel" || does === "retry") sessionStorage.removeItem(PLACE);
});

KEYS.x = () => {
  const box = document.querySelector("tr.at input[name=run]");
  if (box) mark(box.value, !marked.has(box.value));
  else say("go to a run first (j, k)");
};

document.body.addEventListener("htmx:sse:after:message", paint);
addEventListener("pageshow", paint);
paint();
