// What a page says of itself: how far it is behind, times that go on, and that its stream is asleep.
let came = 0;
let last = 0;
let age = 0;
let best = Infinity;
const lags = [];
window.batonLags = lags; // read by tests and by the benchmark

const body = document.body;
const bar = () => document.getElementById("lag");

body.addEventListener("lag", (event) => {
  const [told, sent] = event.detail.data.split(" ").map(Number);
  const now = performance.now();
  // Our clock and the server's are not the same: what the quickest took is their difference, and the rest is a delay.
  // The little that is added each time is for clocks that run apart.
  best = Math.min(best + (now - last) * 1e-4, now - sent);
  age = told + now - sent - best;
  came = last = now;
});

body.addEventListener("htmx:sse:after:message", (event) => {
  if (event.detail.message.event || !came) return;
  const began = came;
  came = 0;
  requestAnimationFrame(() => setTimeout(() => {
    const lag = age + performance.now() - began;
    lags.push(lag);
    if (lags.length > 1000) lags.shift();
    say(`live · ${Math.round(lag)} ms behind`);
  }));
});

body.addEventListener("htmx:sse:error", () => say("no answer from the console: is it still running?"));
body.addEventListener("htmx:sse:after:connection", () => say("live"));
let sleeps = false;
// Who sleeps does not call again by itself: it would send another tab to sleep, and that one it.
body.addEventListener("htmx:sse:before:connection", (event) => { if (sleeps) event.preventDefault(); });
body.addEventListener("asleep", () => {
  frozen = sleeps = true;
  say("asleep: other tabs are live. Load the page to wake it");
});

body.addEventListener("gone", (event) => say(event.detail.data || "live"));

function say(text) {
  const place = bar();
  if (place) place.textContent = text;
}

// Frozen: parts that come are not painted, until the same key again.
let frozen = false;
body.addEventListener("htmx:sse:before:message", (event) => {
  if (frozen && !event.detail.message.event) event.preventDefault();
});
body.addEventListener("baton:freeze", () => {
  frozen = !frozen;
  if (frozen) say("frozen: space goes on");
  else location.reload();
});

// What is the reader's stays, though the part that comes knows nothing of it: what is open, and the row that one is at.
htmx.registerExtension("kept", {
  htmx_before_morph_node: (old, { newNode }) => {
    if (old.tagName === "DETAILS") newNode.open = old.open;
    if (old.classList?.contains("at") && old.dataset.href) newNode.classList.add("at");
  },
});

// Times that go on, once a second.
function tick() {
  for (const each of document.querySelectorAll("[data-since]")) {
    const seconds = Math.max((Date.now() - Date.parse(each.dataset.since)) / 1000, 0);
    each.textContent = words(seconds);
  }
}
function words(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
// How long so many milliseconds are, as drawings say it.
export const took = (ms) => ms < 1e3 ? `${Math.round(ms)} ms` : ms < 6e4 ? `${+(ms / 1e3).toPrecision(3)} s` : words(ms / 1e3);
setInterval(tick, 1000);
tick();
body.addEventListener("htmx:sse:after:message", tick);
