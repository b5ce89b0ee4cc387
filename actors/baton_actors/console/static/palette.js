// Find anything (Ctrl-K): runs, flows, actors and pages from the console, actions from the page itself. And the next and
// the previous run of the list that was looked at last.
import { say } from "./keys.js";

const dialog = document.getElementById("palette");
let asked = 0;

const field = dialog.querySelector("input");
const list = dialog.querySelector("ul");
let filled = Promise.resolve();

// The dialog is open, and perhaps something is written in it by now.
export function open() {
  filled = fill(field.value);
}

field.addEventListener("input", open);
field.addEventListener("keydown", (event) => {
  const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (by) {
    event.preventDefault();
    const all = [...list.querySelectorAll("a, button")];
    const at = all.findIndex((each) => each.classList.contains("at"));
    all[at]?.classList.remove("at");
    const next = all[(at + by + all.length) % all.length];
    next?.classList.add("at");
    next?.scrollIntoView({ block: "nearest" });
  } else if (event.key === "Escape") {
    event.preventDefault(); // a field of words would be emptied first
    dialog.close();
  } else if (event.key === "Enter") {
    event.preventDefault();
    filled.then(() => (list.querySelector(".at") ?? list.querySelector("a, button"))?.click());
  }
});

async function fill(words) {
  const number = ++asked;
  const found = actions(words);
  let rest = [];
  try {
    const answer = await fetch(`/find.json?q=${encodeURIComponent(words)}`, { headers: { accept: "application/json" } });
    rest = answer.ok ? await answer.json() : [];
  } catch {
    say("no answer from the console: is it still running?");
  }
  if (number !== asked) return;
  list.replaceChildren(...rest.map(link), ...found);
  list.querySelector("a, button")?.classList.add("at");
}

function item(child, kind) {
  const line = document.createElement("li");
  const what = document.createElement("span");
  what.className = "dim";
  what.textContent = kind;
  line.append(child, what);
  return line;
}

function link(each) {
  const to = document.createElement("a");
  to.href = each.path;
  to.textContent = each.text;
  return item(to, each.about ? `${each.kind} · ${each.about}` : each.kind);
}

function actions(words) {
  const found = [];
  for (const each of document.querySelectorAll("[data-key]")) {
    const text = each.textContent.trim() || each.getAttribute("aria-label") || "";
    if (!text || each.dataset.key === "palette" || !text.toLowerCase().includes(words.trim().toLowerCase())) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.addEventListener("click", () => {
      dialog.close();
      if (each.matches("input")) each.focus();
      else each.click();
    });
    found.push(item(button, each.dataset.key.length === 1 ? `action · ${each.dataset.key}` : "action"));
  }
  return found;
}

export async function beside(to) {
  const run = location.pathname.match(/^\/runs\/([^/]+)/)?.[1];
  if (!run) return;
  const of = new URLSearchParams({ run: decodeURIComponent(run), list: (sessionStorage.getItem("list") ?? "").replace(/^\?/, "") });
  const answer = await fetch(`/beside.json?${of}`);
  const path = answer.ok ? (await answer.json())[to] : "";
  if (path) location.href = path;
  else say(to === "before" ? "this is the first of the list" : "this is the last of the list");
}
