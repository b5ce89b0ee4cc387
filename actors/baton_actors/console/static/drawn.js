// What is drawn of a run, and not written: the branches of a fan-out as cells, and time. And the way through its messages.
import { say } from "./keys.js";
import { took } from "./live.js";

const { body } = document, $ = (id) => document.getElementById(id);
const make = (tag, given) => Object.assign(document.createElement(tag), given);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
let known = {};
const probe = make("i", { hidden: true });
body.append(probe);
function colour(name) {
  probe.style.color = `var(--${name})`;
  return known[name] ??= getComputedStyle(probe).color;
}
// A canvas of this height in a place, a line below it for what is pointed at, and its pen; `listen` gets a new one.
function canvasIn(place, high, role, listen) {
  let canvas = place.querySelector("canvas");
  if (!canvas) {
    canvas = make("canvas", { tabIndex: 0, role });
    place.append(canvas, make("p", { className: "said-of", ariaLive: "polite" }));
    listen(canvas, place.lastChild);
  }
  const ratio = devicePixelRatio || 1, wide = place.clientWidth, size = [wide, high].map((each) => Math.round(each * ratio));
  if (canvas.width !== size[0] || canvas.height !== size[1]) {
    [canvas.width, canvas.height] = size;
    canvas.style.width = `${wide}px`;
    canvas.style.height = `${high}px`;
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, wide, high);
  return [canvas, pen, wide];
}

// ---- cells: by sign what they are, in which colour, the most urgent first

const SIGNS = {
  f: ["failed", "failed"], y: ["waits for a retry", "retry"], r: ["running", "running"], q: ["queued", "waiting"],
  s: ["stopped", "stopped"], ".": ["not begun", "waiting"], d: ["done", "done"],
};
const URGENT = Object.keys(SIGNS).join("");
const fields = new Map();

class Field {
  at = -1;
  by = "index";

  take(place) {
    this.place = place;
    const { cells, took: lengths, errors } = place.dataset;
    if (this.raw === cells + lengths) return;
    this.raw = cells + lengths;
    this.signs = cells;
    this.took = lengths.split(",").map((each) => each ? parseInt(each, 36) : -1);
    this.errors = {};
    for (const [error, ranges] of JSON.parse(errors)) for (const range of ranges.split(",")) {
      const [from, to] = range.split("-").map(Number);
      for (let index = from; index <= (to ?? from); index++) this.errors[index] = error;
    }
    this.sort(this.by);
  }

  sort(by) {
    this.by = by;
    const key = { index: () => 0, time: (index) => -this.took[index], state: (index) => URGENT.indexOf(this.signs[index]) }[by];
    this.order = Uint32Array.from(this.signs, (_, index) => index).sort((one, other) => key(one) - key(other) || one - other);
  }

  paint() {
    const { signs, order, place } = this, count = signs.length, small = count > 2000, size = small ? 4 : count > 100 ? 10 : 14;
    const box = place.querySelector(".drawn"), pitch = this.pitch = size + (small ? 1 : 2), per = this.per = Math.max(1, Math.floor(box.clientWidth / pitch));
    const [canvas, pen] = canvasIn(box, Math.ceil(count / per) * pitch + 1, "application", (...made) => this.listen(box, ...made));
    const spot = (number) => [number % per * pitch, Math.floor(number / per) * pitch];
    for (const sign in SIGNS) {
      pen.fillStyle = pen.strokeStyle = colour(SIGNS[sign][1]);
      pen.globalAlpha = sign === "d" ? 0.55 : 1;
      for (let number = 0; number < count; number++) {
        if (signs[order[number]] !== sign) continue;
        const [x, y] = spot(number);
        if (small) pen.fillRect(x, y, size, size);
        else shape(pen, sign, x, y, size);
      }
    }
    pen.globalAlpha = 1;
    if (this.at >= 0) {
      const [x, y] = spot(this.at);
      pen.strokeStyle = colour("ink");
      pen.strokeRect(x - 0.5, y - 0.5, size + 1, size + 1);
    }
    canvas.ariaLabel = `${count} branches by ${this.by}: arrows move, n finds a failure, Enter opens`;
  }

  listen(box, canvas, line) {
    this.line = line;
    const bar = make("p", { className: "sorts", textContent: "Sort by " });
    for (const by of ["index", "time", "state"]) bar.append(make("button", {
      type: "button", className: "quiet", textContent: by, ariaPressed: String(by === this.by), onclick: ({ target }) => {
        for (const each of bar.children) each.ariaPressed = String(each === target);
        this.at = -1;
        this.sort(by);
        this.paint();
      },
    }));
    box.prepend(bar);
    const placed = ({ offsetX: x, offsetY: y }) => {
      const number = Math.floor(x / this.pitch) + Math.floor(y / this.pitch) * this.per;
      return x < this.per * this.pitch && number < this.signs.length ? number : -1;
    };
    canvas.onmousemove = (event) => this.move(placed(event));
    canvas.onmouseleave = () => this.move(-1);
    canvas.onclick = (event) => { this.move(placed(event)); this.open(); };
    canvas.onfocus = () => this.move(Math.max(this.at, 0));
    canvas.onkeydown = (event) => {
      const { key } = event, { at, per, order, signs } = this, last = signs.length - 1;
      let to = { ArrowLeft: at - 1, ArrowRight: at + 1, ArrowUp: at - per, ArrowDown: at + per, Home: 0, End: last, Enter: at }[key];
      if (key === "Enter") this.open();
      if (key === "n" || key === "N") {
        to = at;
        do to += key === "n" ? 1 : -1; while (signs[order[to]] && signs[order[to]] !== "f");
        if (to < 0 || to > last) { to = at; say("no other failure"); }
      }
      if (to === undefined) return;
      event.preventDefault();
      event.stopPropagation();
      this.move(clamp(to, 0, last));
    };
  }

  get name() { return this.place.dataset.name.replace("#", this.order[this.at]); }

  move(to) {
    if (to === this.at) return;
    this.at = to;
    this.paint();
    const index = this.order[to], ms = this.took[index];
    this.line.textContent = to < 0 ? "" : [this.name, SIGNS[this.signs[index]][0], ms >= 0 && took(ms), this.errors[index]].filter(Boolean).join(" · ");
  }

  open() { if (this.at >= 0) location.href = this.place.dataset.steps + encodeURIComponent(this.name); }
}

function shape(pen, sign, x, y, size) {
  const half = size / 2;
  pen.beginPath();
  if (sign === "s") pen.fillRect(x, y + half - 1.5, size, 3);
  else if (sign === "d" || sign === "f") pen.fillRect(x, y, size, size);
  else if (sign === "y") {
    pen.fillRect(x, y + half, size, half);
    pen.strokeRect(x + 0.5, y + 0.5, size - 1, size - 1);
  } else pen.arc(x + half, y + half, { r: half - 1, q: size / 3.2, ".": size / 6 }[sign], 0, 7);
  if (sign === "r") pen.stroke();
  else pen.fill();
  if (sign === "f") {
    pen.strokeStyle = colour("paper");
    pen.moveTo(x + 2.5, y + 2.5);
    pen.lineTo(x + size - 2.5, y + size - 2.5);
    pen.moveTo(x + size - 2.5, y + 2.5);
    pen.lineTo(x + 2.5, y + size - 2.5);
    pen.stroke();
  }
}

// ---- time: steps from above, what is folded of it, and what of it is seen

const BAND = 160, AXIS = 24, MANY = 24, COUNTED = 2000, KEPT = 0.04;
const time = { from: 0 };

function readStrokes([name, count, lanes, within, path]) {
  const insets = within.split(";"), read = lanes.split(";").map((lane, number) => {
    const [[, sign, begin], ...parts] = lane.matchAll(/([a-z])(\d*)/g);
    let at = +begin;
    const spans = parts.map(([, kind, length]) => [kind, at, at = length ? at + +length : Infinity]);
    return { sign, begin: +begin, spans, end: at, calls: insets[number] ? insets[number].split(",").map((each) => each.split("-")) : [] };
  });
  return { name, count, lanes: read, path, high: count === 1 ? 18 : count <= MANY ? clamp(96 / count, 3, 8) * count : BAND };
}

// Of gaps, in which nothing works, little is kept.
function folded(ms) {
  for (const [from, to] of time.gaps.toReversed()) if (ms > from) ms -= (Math.min(ms, to) - from) * (1 - KEPT);
  return ms;
}
function unfolded(ms) {
  for (const [from, to] of time.gaps) {
    const less = (to - from) * (1 - KEPT);
    ms = ms <= from ? ms : ms < to - less ? from + (ms - from) / KEPT : ms + less;
  }
  return ms;
}
const xOf = (ms) => time.left + (folded(ms) - time.from) / (time.to - time.from) * time.wide;
const msAt = (x) => unfolded(time.from + (x - time.left) / time.wide * (time.to - time.from));
function see(from, to) {
  time.from = Math.max(from, 0);
  time.to = Math.max(Math.min(to, time.all), time.from + 1);
  paintTime();
}

function takeTime(place) {
  const { strokes, gaps } = place.dataset;
  time.place = place;
  time.gaps = JSON.parse(gaps);
  if (time.raw !== strokes) time.groups = JSON.parse(time.raw = strokes).map(readStrokes);
  paintTime();
}

function paintTime() {
  const { place, groups, all } = time, { end: ended, begin, deadline } = place.dataset;
  const end = Math.max(ended || Date.now() - begin, 1);
  time.all = folded(end);
  if (!all || (!time.from && time.to === all)) time.to = time.all;
  const high = groups.reduce((sum, group) => sum + group.high + 8, 4);
  const [canvas, pen, wide] = canvasIn(place.querySelector(".drawn"), high + AXIS, "img", listenTime);
  time.left = Math.min(150, wide / 4);
  time.wide = wide - time.left - 12;
  pen.font = "12px system-ui, sans-serif";
  pen.textBaseline = "middle";
  let y = 4;
  for (const group of groups) {
    group.y = y;
    pen.save();
    pen.beginPath();
    pen.rect(time.left, y - 2, time.wide + 12, group.high + 4);
    pen.clip();
    (group.count > COUNTED ? paintCounts : paintLanes)(pen, group, end);
    pen.restore();
    pen.fillStyle = colour("ink");
    let text = group.name + (group.count > 1 ? ` ×${group.count}` : "");
    while (text.length > 2 && pen.measureText(text).width > time.left - 12) text = `${text.slice(0, -2)}…`;
    pen.fillText(text, 0, y + Math.min(group.high, 18) / 2);
    y += group.high + 8;
  }
  paintAxis(pen, high, end);
  if (deadline && deadline <= end * 1.02) mark(pen, xOf(+deadline), high, "failed");
  const { ms } = $("scrubber").dataset;
  if (ms) {
    const x = Math.max(xOf(+ms), time.left);
    pen.globalAlpha = 0.65;
    pen.fillStyle = colour("paper");
    pen.fillRect(x, 0, wide, high);
    pen.globalAlpha = 1;
    mark(pen, x, high, "ink");
    pen.fillRect(x - 3, high + 4, 6, 8);
  }
  canvas.ariaLabel = `Who worked and waited when, in ${took(end)}: the table of steps says the same`;
}

function mark(pen, x, high, name) {
  pen.fillStyle = colour(name);
  pen.fillRect(x, 0, 1, high + 6);
}

function paintLanes(pen, { lanes, count, y: top, high: all }, end) {
  const pitch = all / lanes.length, usual = Math.max(0.8, pitch - (count > 1 && pitch > 4 ? 1 : 0)), right = time.left + time.wide + 12;
  // Failures last: nothing is over them.
  for (const failed of [false, true]) lanes.forEach((lane, number) => {
    if ((lane.sign === "f") !== failed) return;
    const y = top + number * pitch, high = failed ? Math.max(usual, 2) : usual, until = Math.min(lane.end, end);
    for (const [kind, from, to] of lane.spans) {
      const works = kind === "w", x = xOf(from), wide = Math.max(xOf(Math.min(to, end)) - x, works ? 0.8 : 0);
      if (x > right || x + wide < time.left) continue;
      pen.globalAlpha = works || kind === "y" ? 1 : 0.5;
      pen.fillStyle = pen.strokeStyle = colour(works ? { f: "failed", d: "done", s: "stopped" }[lane.sign] ?? "running" : kind === "y" ? "retry" : "waiting");
      if (kind === "y") for (let at = x; at < x + wide; at += 4) pen.fillRect(at, y, 2, high);
      else if (kind === "p" && high > 4) pen.strokeRect(x + 0.5, y + 0.5, wide - 1, high - 1);
      else pen.fillRect(x, y, wide, high);
    }
    pen.globalAlpha = 0.4;
    pen.fillStyle = colour("ink");
    for (const [from, length] of lane.calls) {
      const x = xOf(+from);
      pen.fillRect(x, y + high * 0.3, Math.max(xOf(length ? +from + +length : end) - x, 1), high * 0.4);
    }
    pen.globalAlpha = 1;
    if (count === 1) {
      // Behind its bar; where there is no room, in it; and if it is too short for that, in front of it.
      const text = took(until - lane.begin), room = pen.measureText(text).width + 6, x = Math.max(xOf(until), time.left);
      const within = x + room > right, begun = Math.max(xOf(lane.begin), time.left), fits = x - begun > room + 6;
      if (within && fits) pen.fillStyle = colour(lane.spans.at(-1)?.[0] === "w" ? "paper" : "ink");
      pen.fillText(text, within ? (fits ? x : begun) - room : x + 6, y + 9);
    }
  });
}

// Of very many: how many worked, waited and failed, for each column of pixels.
function paintCounts(pen, { lanes, y }, end) {
  const columns = Math.ceil(time.wide), works = new Int32Array(columns + 2), waits = works.slice(), fails = works.slice();
  const column = (ms) => clamp(Math.floor(xOf(Math.min(ms, end)) - time.left), 0, columns);
  for (const { sign, spans, end: ended } of lanes) {
    for (const [kind, from, to] of spans) {
      const into = kind === "w" ? works : waits, first = column(from);
      into[first]++;
      into[Math.max(column(to), first + (kind === "w"))]--;
    }
    if (sign === "f") fails[column(ended)]++;
  }
  let most = 1;
  for (let x = 1; x <= columns; x++) {
    works[x] += works[x - 1];
    waits[x] += waits[x - 1];
    most = Math.max(most, works[x] + waits[x]);
  }
  const bar = (name, x, from, high, wide = 1) => {
    pen.fillStyle = colour(name);
    pen.fillRect(time.left + x, y + BAND - from - high, wide, high);
  };
  for (let x = 0; x <= columns; x++) {
    const one = works[x] / most * BAND;
    bar("running", x, 0, one);
    bar("waiting", x, one, waits[x] / most * BAND);
    if (fails[x]) bar("failed", x, 0, Math.max(fails[x] / most * BAND, 6), 2);
  }
}

function paintAxis(pen, y, end) {
  const right = time.left + time.wide, room = Math.max((time.to - time.from) / time.wide * 90, 1), power = 10 ** Math.floor(Math.log10(room));
  const step = [1, 2, 5, 10].find((each) => each * power >= room) * power;
  pen.fillStyle = colour("dim");
  let last = -99;
  for (let ms = Math.ceil(msAt(time.left) / step) * step; ms <= end; ms += step) {
    const x = xOf(ms);
    if (x > right) break;
    pen.fillRect(x, y, 1, 4);
    if (x - last > 70 && x < right - 20) pen.fillText(took(ms), (last = x) + 3, y + 13);
  }
  for (const [from, to] of time.gaps) pen.fillText("≈", (xOf(from) + xOf(to)) / 2 - 4, y - 6);
}

function listenTime(canvas, line) {
  let held = null;
  const groupAt = (y) => time.groups.find((group) => y >= group.y && y < group.y + group.high);
  const zoom = (at, by) => see(at - (at - time.from) * by, at + (time.to - at) * by);
  const scrub = (event) => go(`${time.place.dataset.path}?at=${Math.max(Math.round(msAt(event.offsetX)), 0)}ms`);
  canvas.onwheel = (event) => {
    if (document.activeElement !== canvas && !event.ctrlKey) return;
    event.preventDefault();
    zoom(folded(msAt(event.offsetX)), event.deltaY > 0 ? 1.25 : 0.8);
  };
  canvas.ondblclick = () => see(0, time.all);
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    held = { x: event.offsetX, from: time.from, to: time.to, axis: event.offsetY > canvas.clientHeight - AXIS };
    if (held.axis) scrub(event);
  };
  canvas.onpointermove = (event) => {
    const { offsetX: x, offsetY: y } = event;
    if (held?.axis) scrub(event);
    else if (held) {
      held.moved ||= Math.abs(held.x - x) > 3;
      const by = clamp((held.x - x) / time.wide * (held.to - held.from), -held.from, time.all - held.to);
      see(held.from + by, held.to + by);
    } else line.textContent = x < time.left ? "" : [groupAt(y)?.name, took(msAt(x))].filter(Boolean).join(" · ");
  };
  canvas.onpointerup = (event) => {
    const path = groupAt(event.offsetY)?.path;
    if (path && event.offsetX < time.left && !held?.moved && !held?.axis) location.href = path;
    held = null;
  };
  canvas.onkeydown = (event) => {
    const by = { "+": 0.8, "-": 1.25 }[event.key];
    if (by) zoom((time.from + time.to) / 2, by);
    else if (event.key === "0") see(0, time.all);
    else return;
    event.stopPropagation();
  };
}

// ---- the way through the messages: the parts of the page are had anew, but for what is of the whole run

let busy = false, next = null, pushed = -1e4, here = location.pathname + location.search;
const isLive = body.hasAttribute("hx-sse:connect");

async function go(href) {
  next = href;
  if (isLive) { location.href = href; return; }
  if (busy) return;
  busy = true;
  while (next) {
    const began = performance.now(), url = new URL(next, location.href);
    next = null;
    await htmx.ajax("GET", `/parts?but=timeline,kin&of=${encodeURIComponent(url.pathname + url.search)}`, { source: body, target: body, swap: "none" });
    const { at } = $("scrubber").dataset;
    if (url.search) url.search = `?at=${at}`;
    // One step back leads to before the steps that were made in a row.
    history[began - pushed < 1e3 ? "replaceState" : "pushState"]({}, "", url);
    pushed = performance.now();
    here = url.pathname + url.search;
    document.title = document.title.replace(/^Message \d+/, `Message ${at}`);
    draw();
    (window.batonSteps ??= []).push(performance.now() - began); // read by tests and by the benchmark
  }
  busy = false;
}
addEventListener("popstate", () => { if (here !== location.pathname + location.search) location.reload(); });
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-step]");
  if (!link || event.ctrlKey || event.metaKey || isLive) return;
  event.preventDefault();
  go(link.href);
});

// Play: faster with each press, and then not any more.
let speed = 0, waiting;
async function play() {
  const link = document.querySelector('[data-key="ArrowRight"]'), ms = () => +$("scrubber").dataset.ms, before = ms();
  if (!link) speed = 0;
  $("play").textContent = speed ? `Playing ${speed}×` : "Play";
  if (!speed) return;
  await go(link.href);
  waiting = setTimeout(play, clamp((ms() - before) / speed, 20, 3e3));
}
function faster() {
  if (isLive) return go("?at=1");
  speed = { 0: 1, 1: 10, 10: 100, 100: 0 }[speed];
  clearTimeout(waiting);
  play();
}

// ---- again, whenever there is more or it is to look otherwise

function draw() {
  for (const place of document.querySelectorAll(".field")) {
    if (!fields.has(place.id)) fields.set(place.id, new Field());
    fields.get(place.id).take(place);
    fields.get(place.id).paint();
  }
  if ($("timeline")) takeTime($("timeline"));
  const button = $("play");
  if (button) Object.assign(button, { hidden: false, onclick: faster });
}
function redraw() {
  known = {};
  draw();
}
new MutationObserver(redraw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
addEventListener("resize", draw);
body.addEventListener("htmx:sse:after:message", (event) => { if (!event.detail.message.event) draw(); });
setInterval(() => { if (time.place?.dataset.end === "" && !document.hidden) paintTime(); }, 500);
draw();
export { draw, fields, time };
