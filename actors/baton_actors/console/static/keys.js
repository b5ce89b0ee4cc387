// Keys: none fires in a field. What a key does is a link or a button of the page, so that all of it works without keys.
const GO = { r: "/", f: "/flows", q: "/queues", a: "/attention", s: "/spend", l: "/log" };
let going = 0;

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

const help = () => document.getElementById("help").showModal();

// Finding, and the neighbours of a run in its list, are had when somebody wants them.
const found = () => import("./palette.js");

// What is typed at once goes into its field already.
function find() {
  const dialog = document.getElementById("palette");
  dialog.querySelector("input").value = "";
  dialog.showModal();
  found().then((palette) => palette.open());
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
  Escape: () => history.back(),
  t: theme,
  ".": dense,
  " ": () => document.body.dispatchEvent(new Event("baton:freeze")),
  c: () => copy(document.getElementById("command")?.textContent ?? "", "the command"),
  y: () => copy(location.href, "the link"),
  "[": async () => (await found()).beside("before"),
  "]": async () => (await found()).beside("after"),
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
  if (key === "palette") find();
  const row = event.target.closest?.("[data-href]");
  if (row && !event.target.closest("a, button, input, label, summary") && !getSelection().toString()) location.href = row.dataset.href;
});

export { KEYS, move, press };
