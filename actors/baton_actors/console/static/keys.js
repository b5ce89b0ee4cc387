// Keys: none fires in a field. What a key does is a link or a button of the page, so that all of it works without keys.
const GO = { r: "/", f: "/flows", q: "/queues", a: "/attention", s: "/spend", l: "/log" };
const HELP = [
  ["/", "search"], ["Ctrl-K", "find anything"], ["j k", "next, previous row"], ["Enter l", "open"], ["Esc h", "back"],
  ["g r, g f, g q, g a, g s, g l", "runs, flows, queues, attention, spend, log"], ["n N", "next, previous failure"],
  ["← →", "message before, after; with Shift ten"], ["Home End", "first, last message"], ["p", "play"],
  ["1 … 5", "graph, timeline, steps, log, output"], ["[ ]", "previous, next run of the list"], ["f", "follow"],
  ["space", "freeze, go on"], ["x", "mark a run"], ["d", "compare the two marked"], ["D", "compare with the parent"],
  ["r F X", "retry, fork, cancel (each asks)"], ["e", "export"], ["c", "copy the command"], ["y", "copy the link"],
  ["t", "dark or light"], [".", "dense"], ["?", "this"],
];
let going = 0;
let here = "";

const rows = () => [...document.querySelectorAll("[data-rows] [data-href]")];
const inField = (target) => target.closest?.("input, textarea, select, [contenteditable]");
const press = (key) => document.querySelector(`[data-key="${CSS.escape(key)}"]`);

function move(by, wanted = () => true) {
  const all = rows();
  let at = all.findIndex((row) => row.classList.contains("at"));
  let next = at;
  do next += by; while (all[next] && !wanted(all[next]));
  if (at < 0 && by < 0) return;
  if (!all[next]) return;
  all[at]?.classList.remove("at");
  all[next].classList.add("at");
  here = all[next].dataset.href;
  all[next].querySelector("a")?.focus({ preventScroll: true });
  all[next].scrollIntoView({ block: "nearest" });
}

export function say(text) {
  document.getElementById("said").textContent = text;
}

async function copy(text, what) {
  await navigator.clipboard.writeText(text);
  say(`copied ${what}`);
}

function theme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
}

function dense() {
  const root = document.documentElement;
  if (root.dataset.dense) delete root.dataset.dense;
  else root.dataset.dense = "yes";
  localStorage.setItem("dense", root.dataset.dense ?? "");
}

function help() {
  const dialog = document.getElementById("help");
  const list = document.createElement("dl");
  for (const [key, what] of HELP) {
    const term = document.createElement("dt");
    term.textContent = key;
    const said = document.createElement("dd");
    said.textContent = what;
    list.append(term, said);
  }
  dialog.replaceChildren(list);
  dialog.showModal();
}

const KEYS = {
  "/": () => press("search")?.focus(),
  "?": help,
  j: () => move(1),
  k: () => move(-1),
  n: () => move(1, (row) => row.querySelector(".failed")),
  N: () => move(-1, (row) => row.querySelector(".failed")),
  l: () => { const row = document.querySelector(".at[data-href]"); if (row) location.href = row.dataset.href; },
  h: () => history.back(),
  t: theme,
  ".": dense,
  " ": () => document.body.dispatchEvent(new Event("baton:freeze")),
  c: () => copy(document.getElementById("command")?.textContent ?? "", "the command"),
  y: () => copy(location.href, "the link"),
  g: () => { going = Date.now(); },
};

document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "k") {
    event.preventDefault();
    press("palette")?.click();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (inField(event.target)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (document.querySelector("dialog[open]")) return;
  if (going && Date.now() - going < 1500 && GO[event.key]) {
    going = 0;
    location.href = GO[event.key];
    return;
  }
  going = 0;
  const linked = press(event.shiftKey && event.key.length > 1 ? `Shift-${event.key}` : event.key);
  const does = KEYS[event.key];
  if (!linked && !does) return;
  if (event.key === " " && event.target.closest?.("button, summary")) return;
  event.preventDefault();
  if (linked) linked.click();
  else does(event);
});

document.addEventListener("click", (event) => {
  const key = event.target.closest?.("[data-key]")?.dataset.key;
  if (key === "theme") theme();
  if (key === "help") help();
  const row = event.target.closest?.("[data-href]");
  if (row && !event.target.closest("a, button, input, label, summary") && !getSelection().toString()) location.href = row.dataset.href;
});

// The row that one is at stays so while the list changes.
document.body.addEventListener("htmx:sse:after:message", () => {
  if (here && !document.querySelector(".at[data-href]")) {
    document.querySelector(`[data-rows] [data-href="${CSS.escape(here)}"]`)?.classList.add("at");
  }
});

export { KEYS, move, press };
