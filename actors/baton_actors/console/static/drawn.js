// What is drawn of a run, and not written: the branches of a fan-out as cells, and time. And the way through its messages.
import { say } from "./keys.js";

const $ = (id) => document.getElementById(id);
const make = (tag, name) => Object.assign(document.createElement(tag), { className: name ?? "" });
const known = {};
const probe = make("i");
probe.hidden = true;
document.body.append(probe);
function colour(name) {
  if (!known[name]) {
    probe.style.color = `var(--${name})`;
    known[name] = getComputedStyle(probe).color;
  }
  return known[name];
}
const took = (ms) => ms < 1000 ? `${Math.round(ms)} ms` : ms < 60000 ? `${+(ms / 1000).toPrecision(3)} s`
  : ms < 3600000 ? `${Math.floor(ms / 60000)} min ${Math.round(ms / 1000) % 60} s` : `${Math.floor(ms / 3600000)} h ${Math.round(ms / 60000) % 60} min`;

function canvasIn(place, high) {
  let canvas = place.querySelector("canvas");
  if (!canvas) {
    canvas = make("canvas");
    canvas.tabIndex = 0;
    place.append(canvas, Object.assign(make("p", "said-of"), { ariaLive: "polite" }));
  }
  const ratio = devicePixelRatio || 1, wide = place.clientWidth;
  if (canvas.width !== Math.round(wide * ratio) || canvas.height !== Math.round(high * ratio)) {
    canvas.width = Math.round(wide * ratio);
    canvas.height = Math.round(high * ratio);
    canvas.style.width = `${wide}px`;
    canvas.style.height = `${high}px`;
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, wide, high);
  return [canvas, pen, wide];
}

// ---- cells --------------------------------------------------------------------------------------------------------

const WORDS = { ".": "not begun", q: "queued", r: "running", y: "waits for a retry", d: "done", f: "failed", s: "stopped" };
const HUES = { ".": "waiting", q: "waiting", r: "running", y: "retry", d: "done", f: "failed", s: "stopped" };
const URGENT = "fyrqs.d";
const fields = new Map();

class Field {
  constructor() {
    this.at = -1;
    this.by = "index";
  }

  take(place) {
    this.place = place;
    const { cells, took: lengths, errors } = place.dataset;
    if (this.raw === cells + lengths) return;
    this.raw = cells + lengths;
    this.signs = cells;
    this.took = lengths.split(",").map((each) => each ? parseInt(each, 36) : -1);
    this.errors = new Map();
    for (const [error, ranges] of JSON.parse(errors)) {
      for (const range of ranges.split(",")) {
        const [from, to] = range.split("-").map(Number);
        for (let index = from; index <= (to ?? from); index++) this.errors.set(index, error);
      }
    }
    this.sort();
  }

  sort() {
    this.order = Uint32Array.from({ length: this.signs.length }, (_, index) => index);
    const urgent = (index) => URGENT.indexOf(this.signs[index]);
    if (this.by === "time") this.order.sort((one, other) => this.took[other] - this.took[one] || one - other);
    if (this.by === "state") this.order.sort((one, other) => urgent(one) - urgent(other) || one - other);
  }

  paint() {
    const count = this.signs.length, small = count > 2000, size = small ? 4 : count > 100 ? 10 : 14;
    const pitch = this.pitch = size + (small ? 1 : 2);
    const box = this.place.querySelector(".drawn");
    this.per = Math.max(1, Math.floor(box.clientWidth / pitch));
    const [canvas, pen] = canvasIn(box, Math.ceil(count / this.per) * pitch + 1);
    if (!this.canvas) this.listen(box, canvas);
    for (const sign of Object.keys(HUES)) {
      pen.fillStyle = pen.strokeStyle = colour(HUES[sign]);
      pen.globalAlpha = sign === "d" ? 0.55 : 1;
      for (let place = 0; place < count; place++) {
        if (this.signs[this.order[place]] !== sign) continue;
        const x = (place % this.per) * pitch, y = Math.floor(place / this.per) * pitch;
        if (small) pen.fillRect(x, y, size, size);
        else shape(pen, sign, x, y, size);
      }
    }
    pen.globalAlpha = 1;
    if (this.at >= 0 && this.at < count) {
      pen.strokeStyle = colour("ink");
      pen.strokeRect((this.at % this.per) * pitch - 0.5, Math.floor(this.at / this.per) * pitch - 0.5, size + 1, size + 1);
    }
    canvas.ariaLabel = `${count} branches, sorted by ${this.by}. Arrows move, n finds a failure, Enter opens`;
  }

  listen(box, canvas) {
    this.canvas = canvas;
    canvas.setAttribute("role", "application");
    const bar = make("p", "sorts");
    bar.append("Sort by ");
    for (const by of ["index", "time", "state"]) {
      const button = make("button", "quiet");
      button.type = "button";
      button.textContent = by;
      button.ariaPressed = String(by === this.by);
      button.onclick = () => {
        for (const each of bar.querySelectorAll("button")) each.ariaPressed = String(each === button);
        this.by = by;
        this.at = -1;
        this.sort();
        this.paint();
      };
      bar.append(button, " ");
    }
    box.prepend(bar);
    const placed = (event) => {
      const place = Math.floor(event.offsetX / this.pitch) + Math.floor(event.offsetY / this.pitch) * this.per;
      return event.offsetX < this.per * this.pitch && place >= 0 && place < this.signs.length ? place : -1;
    };
    canvas.onmousemove = (event) => this.move(placed(event));
    canvas.onmouseleave = () => this.move(-1);
    canvas.onclick = (event) => { this.move(placed(event)); this.open(); };
    canvas.onfocus = () => { if (this.at < 0) this.move(0); };
    canvas.onkeydown = (event) => {
      const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.per, ArrowDown: this.per };
      const { key } = event, last = this.signs.length - 1;
      let to = this.at;
      if (key in steps) to = Math.min(Math.max(this.at + steps[key], 0), last);
      else if (key === "Home") to = 0;
      else if (key === "End") to = last;
      else if (key === "n" || key === "N") {
        const by = key === "n" ? 1 : -1;
        do to += by; while (to >= 0 && to <= last && this.signs[this.order[to]] !== "f");
        if (to < 0 || to > last) { to = this.at; say("no other failure"); }
      } else if (key === "Enter") this.open();
      else return;
      event.preventDefault();
      event.stopPropagation();
      this.move(to);
    };
  }

  name() {
    return this.place.dataset.name.replace("#", this.order[this.at]);
  }

  move(to) {
    if (to === this.at) return;
    this.at = to;
    this.paint();
    const index = this.order[to], line = this.place.querySelector(".said-of");
    line.textContent = to < 0 ? "" : [this.name(), WORDS[this.signs[index]],
      this.took[index] >= 0 ? took(this.took[index]) : "", this.errors.get(index) ?? ""].filter(Boolean).join(" · ");
  }

  open() {
    if (this.at >= 0) location.href = this.place.dataset.steps + encodeURIComponent(this.name());
  }
}

function shape(pen, sign, x, y, size) {
  const half = size / 2;
  if (sign === "d") pen.fillRect(x, y, size, size);
  else if (sign === "." || sign === "q") {
    pen.beginPath();
    pen.arc(x + half, y + half, sign === "q" ? size / 3.2 : size / 6, 0, 7);
    pen.fill();
  } else if (sign === "r") {
    pen.lineWidth = 2;
    pen.beginPath();
    pen.arc(x + half, y + half, half - 1, 0, 7);
    pen.stroke();
    pen.lineWidth = 1;
  } else if (sign === "y") {
    pen.fillRect(x, y + half, size, half);
    pen.strokeRect(x + 0.5, y + 0.5, size - 1, size - 1);
  } else if (sign === "s") pen.fillRect(x, y + half - 1.5, size, 3);
  else {
    pen.fillRect(x, y, size, size);
    pen.strokeStyle = colour("paper");
    pen.lineWidth = 1.5;
    pen.beginPath();
    pen.moveTo(x + 2.5, y + 2.5);
    pen.lineTo(x + size - 2.5, y + size - 2.5);
    pen.moveTo(x + size - 2.5, y + 2.5);
    pen.lineTo(x + 2.5, y + size - 2.5);
    pen.stroke();
    pen.strokeStyle = colour("failed");
    pen.lineWidth = 1;
  }
}

// ---- time ---------------------------------------------------------------------------------------------------------

const BAND = 160, AXIS = 24, MANY = 24, COUNTED = 2000, FOLDED = 0.2;
const KINDS = { w: "working", q: "waiting for a worker", j: "waiting for branches", y: "waiting for a retry", p: "waiting for people or events", a: "waiting for what it asked", h: "waiting" };
const time = { raw: "", groups: [], gaps: [], from: 0, to: 1, place: null };

function readStrokes(text) {
  return JSON.parse(text).map(([name, count, lanes, within, path]) => {
    const insets = within ? within.split(";") : [];
    const read = lanes.split(";").map((lane, number) => {
      const spans = [];
      let at = 0;
      const parts = lane.matchAll(/([a-z])(\d*)/g);
      const [, sign, begin] = parts.next().value;
      at = Number(begin);
      for (const [, kind, length] of parts) {
        spans.push([kind, at, length === "" ? Infinity : at + Number(length)]);
        at = spans.at(-1)[2];
      }
      const calls = insets[number] ? insets[number].split(",").map((each) => each.split("-")) : [];
      return { sign, begin: Number(begin), spans, calls };
    });
    if (count > MANY) read.sort((one, other) => one.begin - other.begin);
    const high = count === 1 ? 18 : count <= MANY ? Math.max(3, Math.min(8, 96 / count)) * count : BAND;
    return { name, count, lanes: read, path, high };
  });
}

// Times in which nothing works, and which are more than a fifth of all, take little room.
function findGaps(end) {
  const works = [];
  for (const group of time.groups) for (const lane of group.lanes) for (const [kind, from, to] of lane.spans) {
    if (kind === "w") works.push([from, Math.min(to, end)]);
  }
  works.sort((one, other) => one[0] - other[0]);
  const gaps = [];
  let reached = 0;
  for (const [from, to] of [...works, [end, end]]) {
    if (from - reached > FOLDED * end && end > 2000) gaps.push([reached, from]);
    reached = Math.max(reached, to);
  }
  return gaps;
}

const folded = (ms) => {
  let less = 0;
  for (const [from, to] of time.gaps) if (ms > from) less += (Math.min(ms, to) - from) * (1 - time.kept);
  return ms - less;
};
const unfolded = (value) => {
  let ms = value;
  for (const [from, to] of time.gaps) {
    if (ms <= from) break;
    const inside = (to - from) * time.kept;
    ms = ms < from + inside ? from + (ms - from) / time.kept : ms + (to - from) * (1 - time.kept);
  }
  return ms;
};
const xOf = (ms) => time.left + (folded(ms) - time.from) / (time.to - time.from) * time.wide;
const msAt = (x) => unfolded(time.from + (x - time.left) / time.wide * (time.to - time.from));

function takeTime(place) {
  const data = place.dataset;
  time.place = place;
  if (time.raw !== data.strokes) {
    time.raw = data.strokes;
    time.groups = readStrokes(data.strokes);
    time.heard = performance.now();
  }
  time.now = data.now === "" ? null : Number(data.now);
  paintTime();
}

function paintTime() {
  const { place, groups } = time, data = place.dataset;
  const end = Math.max(time.now === null ? Number(data.end || data.last || 1) : time.now + performance.now() - time.heard, 1);
  const before = time.all;
  time.gaps = findGaps(end);
  time.kept = 0.04;
  const all = time.all = folded(end);
  if (!before || (time.from === 0 && Math.abs(time.to - before) < 0.001)) {
    time.from = 0;
    time.to = all;
  }
  const box = place.querySelector(".drawn"), high = groups.reduce((sum, group) => sum + group.high + 8, 4) + AXIS;
  const [canvas, pen, wide] = canvasIn(box, high);
  if (!time.canvas) listenTime(canvas);
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
    if (group.count > COUNTED) paintCounts(pen, group, end);
    else paintLanes(pen, group, end);
    pen.restore();
    pen.fillStyle = colour("ink");
    pen.fillText(fit(pen, group.count > 1 ? `${group.name} ×${group.count}` : group.name, time.left - 12), 0, y + Math.min(group.high, 18) / 2);
    y += group.high + 8;
  }
  paintAxis(pen, y, wide, end);
  canvas.ariaLabel = `Who worked and waited when, over ${took(end)}. The table of steps says the same`;
}

function fit(pen, text, room) {
  while (text.length > 2 && pen.measureText(text).width > room) text = `${text.slice(0, -2)}…`;
  return text;
}

function hatch(pen) {
  if (time.hatch?.of === colour("retry")) return time.hatch.pattern;
  const tile = make("canvas"), brush = tile.getContext("2d");
  tile.width = tile.height = 6;
  brush.strokeStyle = colour("retry");
  brush.lineWidth = 1.5;
  for (const shift of [-6, 0, 6]) {
    brush.moveTo(shift - 1, 7);
    brush.lineTo(shift + 7, -1);
  }
  brush.stroke();
  time.hatch = { of: colour("retry"), pattern: pen.createPattern(tile, "repeat") };
  return time.hatch.pattern;
}

function paintLanes(pen, group, end) {
  const pitch = group.high / group.lanes.length, high = Math.max(0.8, pitch - (group.count > 1 && pitch > 4 ? 1 : 0));
  // Failures last, so that nothing is over them.
  for (const failed of [false, true]) {
    group.lanes.forEach((lane, number) => {
      if ((lane.sign === "f") !== failed) return;
      const y = group.y + number * pitch, tall = failed ? Math.max(high, 2) : high;
      for (const [kind, from, to] of lane.spans) {
        const x = xOf(from), wide = Math.max(xOf(Math.min(to, end)) - x, kind === "w" ? 0.8 : 0);
        if (x > time.left + time.wide + 12 || x + wide < time.left) continue;
        if (kind === "w") {
          pen.fillStyle = colour(failed ? "failed" : lane.sign === "d" ? "done" : lane.sign === "s" ? "stopped" : "running");
          pen.fillRect(x, y, wide, tall);
        } else if (kind === "p" && tall > 4) {
          pen.strokeStyle = colour("dim");
          pen.strokeRect(x + 0.5, y + 0.5, wide - 1, tall - 1);
        } else {
          pen.fillStyle = kind === "y" ? hatch(pen) : colour("waiting");
          pen.globalAlpha = kind === "y" ? 1 : 0.5;
          pen.fillRect(x, y, wide, tall);
          pen.globalAlpha = 1;
        }
      }
      pen.fillStyle = "rgb(0 0 0 / 35%)";
      for (const [from, length] of lane.calls) {
        const x = xOf(Number(from)), to = length === "" ? end : Number(from) + Number(length);
        pen.fillRect(x, y + tall * 0.3, Math.max(xOf(to) - x, 1), tall * 0.4);
      }
      if (group.count === 1) {
        const text = took(Math.min(lane.spans.at(-1)[2], end) - lane.begin), x = Math.max(xOf(Math.min(lane.spans.at(-1)[2], end)), time.left);
        const room = pen.measureText(text).width, inside = x + 6 + room > time.left + time.wide + 12;
        pen.fillStyle = colour(inside ? "ink" : "dim");
        pen.fillText(text, inside ? x - room - 6 : x + 6, y + 9);
      }
    });
  }
}

function paintCounts(pen, group, end) {
  const columns = Math.ceil(time.wide) + 2, counts = { w: new Int32Array(columns + 1), q: new Int32Array(columns + 1) };
  const failures = new Int32Array(columns + 1);
  const column = (ms) => Math.min(Math.max(Math.floor(xOf(ms) - time.left), 0), columns);
  for (const lane of group.lanes) {
    for (const [kind, from, to] of lane.spans) {
      const into = counts[kind === "w" ? "w" : "q"];
      into[column(from)]++;
      into[Math.max(column(Math.min(to, end)), column(from) + (kind === "w" ? 1 : 0))]--;
    }
    if (lane.sign === "f") failures[column(lane.spans.at(-1)[2])]++;
  }
  let works = 0, waits = 0, most = 1;
  const columnsOf = [];
  for (let x = 0; x < columns; x++) {
    works += counts.w[x];
    waits += counts.q[x];
    most = Math.max(most, works + waits);
    columnsOf.push([works, waits, failures[x]]);
  }
  columnsOf.forEach(([works, waits, failed], x) => {
    const one = works / most * BAND, two = waits / most * BAND, bottom = group.y + BAND, at = time.left + x;
    pen.fillStyle = colour("running");
    pen.fillRect(at, bottom - one, 1, one);
    pen.fillStyle = colour("waiting");
    pen.fillRect(at, bottom - one - two, 1, two);
    if (failed) {
      pen.fillStyle = colour("failed");
      pen.fillRect(at - 0.5, bottom - Math.max(failed / most * BAND, 6), 2, Math.max(failed / most * BAND, 6));
    }
  });
}

function paintAxis(pen, y, wide, end) {
  const right = time.left + time.wide;
  pen.strokeStyle = colour("line");
  pen.fillStyle = colour("dim");
  const first = msAt(time.left), span = (time.to - time.from) / Math.max(time.wide / 90, 1);
  const power = 10 ** Math.floor(Math.log10(Math.max(span, 1)));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= span) ?? power * 10;
  let last = -99;
  for (let ms = Math.ceil(first / step) * step, count = 0; count < 400 && ms <= end; ms += step, count++) {
    const gap = time.gaps.find(([from, to]) => ms > from && ms < to);
    if (gap) { ms = Math.floor(gap[1] / step) * step; continue; }
    const x = xOf(ms);
    if (x > right + 1) break;
    pen.fillRect(x, y, 1, 4);
    if (x - last > 70 && x < right - 20) { pen.fillText(took(ms), x + 3, y + 13); last = x; }
  }
  for (const [from, to] of time.gaps) {
    const x = (xOf(from) + xOf(to)) / 2;
    if (x < time.left || x > right) continue;
    pen.fillStyle = colour("shade");
    pen.fillRect(xOf(from), 0, xOf(to) - xOf(from), y);
    pen.fillStyle = colour("dim");
    pen.fillText("≈", x - 4, y - 8);
  }
  const mark = (ms, name, dashed) => {
    const x = xOf(ms);
    if (x < time.left - 1 || x > right + 12) return;
    pen.strokeStyle = colour(name);
    pen.setLineDash(dashed ? [4, 3] : []);
    pen.beginPath();
    pen.moveTo(x, 0);
    pen.lineTo(x, y + 6);
    pen.stroke();
    pen.setLineDash([]);
  };
  const { deadline } = time.place.dataset;
  if (deadline && Number(deadline) <= end * 1.02) mark(Number(deadline), "failed", true);
  const at = $("scrubber")?.dataset.ms;
  if (at !== undefined) {
    const x = Math.max(xOf(Number(at)), time.left);
    pen.globalAlpha = 0.65;
    pen.fillStyle = colour("paper");
    pen.fillRect(x, 0, Math.max(wide - x, 0), y);
    pen.globalAlpha = 1;
    mark(Number(at), "ink", false);
    pen.fillStyle = colour("ink");
    pen.beginPath();
    pen.moveTo(x - 5, y + 12);
    pen.lineTo(x + 5, y + 12);
    pen.lineTo(x, y + 5);
    pen.fill();
  }
}

function listenTime(canvas) {
  time.canvas = canvas;
  canvas.setAttribute("role", "img");
  const line = time.place.querySelector(".said-of");
  const groupAt = (y) => time.groups.find((group) => y >= group.y && y < group.y + group.high);
  let held = null;
  canvas.onwheel = (event) => {
    if (document.activeElement !== canvas && !event.ctrlKey) return;
    event.preventDefault();
    const at = folded(msAt(event.offsetX)), by = event.deltaY > 0 ? 1.25 : 0.8;
    time.from = Math.max(0, at - (at - time.from) * by);
    time.to = Math.max(Math.min(time.all, at + (time.to - at) * by), time.from + 1);
    paintTime();
  };
  canvas.ondblclick = () => { time.from = 0; time.to = time.all; paintTime(); };
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    const axis = event.offsetY > canvas.clientHeight - AXIS;
    held = { x: event.offsetX, from: time.from, to: time.to, axis, moved: false };
    if (axis) scrub(event);
  };
  const scrub = (event) => go(`${time.place.dataset.path}?at=${Math.max(Math.round(msAt(event.offsetX)), 0)}ms`);
  canvas.onpointermove = (event) => {
    if (held?.axis) return scrub(event);
    if (held) {
      const by = (held.x - event.offsetX) / time.wide * (held.to - held.from);
      held.moved ||= Math.abs(held.x - event.offsetX) > 3;
      const shift = Math.min(Math.max(by, -held.from), time.all - held.to);
      time.from = held.from + shift;
      time.to = held.to + shift;
      return paintTime();
    }
    const group = groupAt(event.offsetY), ms = msAt(event.offsetX);
    const lane = group?.count <= MANY ? group.lanes[Math.floor((event.offsetY - group.y) / group.high * group.count)] : null;
    const span = lane?.spans.find(([, from, to]) => ms >= from && ms < to);
    line.textContent = !group || event.offsetX < time.left ? "" : [group.name, `at ${took(Math.max(ms, 0))}`,
      span ? `${KINDS[span[0]]} ${took(Math.min(span[2], unfolded(time.all)) - span[1])}` : ""].filter(Boolean).join(" · ");
  };
  canvas.onpointerup = (event) => {
    const group = groupAt(event.offsetY);
    if (held && !held.axis && !held.moved && group?.path && event.offsetX < time.left) location.href = group.path;
    held = null;
  };
  canvas.onkeydown = (event) => {
    const by = { "+": 0.8, "-": 1.25, "0": 0 }[event.key];
    if (by === undefined) return;
    event.stopPropagation();
    const middle = (time.from + time.to) / 2, half = (time.to - time.from) / 2 * by;
    time.from = by ? Math.max(0, middle - half) : 0;
    time.to = by ? Math.min(time.all, middle + half) : time.all;
    paintTime();
  };
}

// ---- the way through the messages ---------------------------------------------------------------------------------

let busy = false, next = null, pushed = 0;
const isLive = () => document.body.hasAttribute("hx-sse:connect");

async function go(href, { back = false } = {}) {
  if (isLive()) { location.href = href; return; }
  if (busy) { next = href; return; }
  busy = true;
  try {
    do {
      next = null;
      const began = performance.now(), url = new URL(href, location.href);
      await htmx.ajax("GET", `/parts?but=timeline,kin&of=${encodeURIComponent(url.pathname + url.search)}`, { source: document.body, target: document.body, swap: "none" });
      const bar = $("scrubber").dataset, at = url.searchParams.get("at");
      if (at) url.searchParams.set("at", bar.at);
      if (!back) {
        history[performance.now() - pushed < 1000 ? "replaceState" : "pushState"]({}, "", url);
        pushed = performance.now();
      }
      document.title = document.title.replace(/^Message \d+/, `Message ${bar.at}`);
      draw();
      (window.batonSteps ??= []).push(performance.now() - began);
      href = next;
    } while (href);
  } finally {
    busy = false;
  }
}

addEventListener("popstate", () => {
  const there = location.pathname.includes("/messages/") === Boolean($("message"));
  if (isLive() || !there || !(location.search.includes("at=") || $("message"))) location.reload();
  else go(location.href, { back: true });
});
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[data-step]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || isLive()) return;
  event.preventDefault();
  go(link.href);
});

let playing = 0;
function offerPlay() {
  const place = $("play");
  if (!place || place.firstChild) return;
  const button = make("button", "button"), speed = make("select");
  button.type = "button";
  button.dataset.key = "p";
  button.textContent = "Play";
  speed.ariaLabel = "How fast";
  for (const times of [1, 10, 100]) speed.append(new Option(`${times}×`, times));
  const play = async () => {
    const link = document.querySelector('[data-key="ArrowRight"]');
    if (!link) return stop();
    const was = Number($("scrubber").dataset.ms ?? 0);
    await go(link.href);
    const wait = (Number($("scrubber").dataset.ms ?? 0) - was) / Number(speed.value);
    if (playing) playing = setTimeout(play, Math.min(Math.max(wait, 20), 3000));
  };
  const stop = () => { clearTimeout(playing); playing = 0; button.textContent = "Play"; };
  button.onclick = () => {
    if (playing) return stop();
    if (isLive()) { location.href = `?at=1&play=${speed.value}`; return; }
    playing = 1;
    button.textContent = "Pause";
    play();
  };
  place.append(button, " ", speed);
  const asked = new URLSearchParams(location.search).get("play");
  if (asked && !isLive()) { speed.value = asked; button.click(); }
}

// ---- drawing again ------------------------------------------------------------------------------------------------

function draw() {
  for (const place of document.querySelectorAll(".field")) {
    if (!fields.has(place.id)) fields.set(place.id, new Field());
    const field = fields.get(place.id);
    if (field.canvas && !place.contains(field.canvas)) field.canvas = null;
    field.take(place);
    field.paint();
  }
  const place = $("timeline");
  if (place?.dataset.strokes) takeTime(place);
  offerPlay();
}
function redraw() {
  for (const name of Object.keys(known)) delete known[name];
  draw();
}
new MutationObserver(redraw).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
addEventListener("resize", draw);
document.body.addEventListener("htmx:sse:after:message", (event) => { if (!event.detail.message.event) draw(); });
setInterval(() => { if (time.place && time.now !== null && !document.hidden) paintTime(); }, 500);
draw();
export { draw, fields, time };
