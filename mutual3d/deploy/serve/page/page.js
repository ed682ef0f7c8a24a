"use strict";
// The page of a service: it asks /table once, then sends what is chosen to /predict, or frames of the webcam to /stream.

const find = (id) => document.getElementById(id);
const state = { table: null, rows: [], source: null, name: "", camera: null };
const sides = { a: { place: 0, here: null, asked: 0 }, b: { place: 0, here: null, asked: 0 } };
const FRAME_WIDTH = 320;
const MOST_FRAMES_A_SECOND = 15;
const MOST_WINDOWS = 100;
// Milliseconds that whoever looks at the page waits for what takes long.
const PATIENCE = 60000;

// ---- Small helpers ----------------------------------------------------------------------------------------------------

function make(name, attributes = {}, text = null) {
  const isDrawn = ["svg", "g", "line", "path", "circle", "text", "title"].includes(name);
  const element = isDrawn ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== null) element.textContent = text;
  return element;
}

function digits(value) {
  return Number(value.toPrecision(3)).toLocaleString("en", { maximumSignificantDigits: 3, useGrouping: false });
}

function tell(sentence) {
  find("problem").textContent = sentence;
  find("problem").hidden = !sentence;
}

function accuracyOf(row) {
  return `${row.accuracy.toFixed(1)} ${state.table.unit}`;
}

async function answerOf(response) {
  let body = null;
  try { body = await response.json(); } catch { /* told below */ }
  if (response.ok && body !== null) return body;
  throw new Error(body && body.detail ? body.detail : `the service answered with status ${response.status}`);
}

// ---- The budget and the plot ------------------------------------------------------------------------------------------

function showRow(side) {
  const row = state.rows[sides[side].place];
  const facts = find(`row-${side}`);
  facts.replaceChildren(make("b", {}, `${digits(row.latency_ms)} ms`), ` ${row.configuration} · ${state.table.metric} `, make("b", {}, accuracyOf(row)),
    ` · ${digits(row.gflops)} GFLOPs · ${digits(row.parameters / 1e6)} M parameters`);
  find(`budget-${side}`).setAttribute("aria-valuetext", `${digits(row.latency_ms)} milliseconds, ${accuracyOf(row)}`);
}

function scale(values, from, to, isLog) {
  const [low, high] = [Math.min(...values), Math.max(...values)].map((value) => (isLog ? Math.log(value) : value));
  const spread = high - low || 1;
  return (value) => from + (((isLog ? Math.log(value) : value) - low) / spread) * (to - from);
}

function ticksOf(low, high) {
  const rough = (high - low || 1) / 6;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * unit).find((candidate) => candidate >= rough);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + 1e-9; value += step) found.push(Number(value.toPrecision(6)));
  return found;
}

function drawPlot() {
  const plot = find("plot"), rows = state.rows, width = Math.max(260, plot.clientWidth || 520), right = width - 15;
  plot.setAttribute("viewBox", `0 0 ${width} 300`);
  const times = rows.map((row) => row.latency_ms), merits = rows.map((row) => row.accuracy);
  const isLog = Math.max(...times) > 8 * Math.min(...times);
  const x = scale(times, 62, width - 30, isLog), y = scale(merits, 225, 35, false);
  plot.replaceChildren(make("line", { class: "axis", x1: 50, x2: right, y1: 255, y2: 255 }), make("line", { class: "axis", x1: 50, x2: 50, y1: 15, y2: 255 }));
  const ends = [Math.min(...times), Math.max(...times)];
  let lastX = -100;
  for (const value of isLog ? [...new Set([ends[0], ...times, ends[1]])].sort((a, b) => a - b) : ticksOf(...ends)) {
    if (x(value) - lastX < 48) continue;
    lastX = x(value);
    plot.append(make("text", { x: lastX, y: 272, "text-anchor": "middle" }, digits(value)));
  }
  for (const value of ticksOf(Math.min(...merits), Math.max(...merits))) {
    plot.append(make("text", { x: 44, y: y(value) + 4, "text-anchor": "end" }, String(value)), make("line", { class: "axis", x1: 50, x2: right, y1: y(value), y2: y(value) }));
  }
  plot.append(make("text", { x: right, y: 293, "text-anchor": "end" }, "milliseconds of one clip here"), make("text", { x: 8, y: 14 }, `${state.table.metric}, ${state.table.unit}`));
  plot.append(make("path", { class: "front", d: rows.map((row, i) => `${i ? "L" : "M"}${x(row.latency_ms)} ${y(row.accuracy)}`).join("") }));
  rows.forEach((row, place) => {
    const point = make("circle", { class: "point", cx: x(row.latency_ms), cy: y(row.accuracy), r: 6 });
    point.append(make("title", {}, `${row.configuration}: ${digits(row.latency_ms)} ms, ${accuracyOf(row)}`));
    point.addEventListener("click", () => choose("a", place, true));
    plot.append(point);
  });
  for (const side of find("compare").checked ? ["b", "a"] : ["a"]) {
    const row = sides[side].here || rows[sides[side].place];
    const isRight = x(row.latency_ms) > width - 130, lift = side === "a" ? -13 : 24;
    const here = make("g", { class: side });
    here.append(make("circle", { class: "here", cx: x(row.latency_ms), cy: y(row.accuracy), r: 9 }),
      make("text", { class: "here-words", x: x(row.latency_ms), y: y(row.accuracy) + lift, "text-anchor": isRight ? "end" : "start" },
        find("compare").checked ? `${side.toUpperCase()}: you are here` : "you are here"));
    plot.append(here);
  }
}

function choose(side, place, isFinal) {
  sides[side].place = place;
  sides[side].here = null;
  find(`budget-${side}`).value = place;
  showRow(side);
  drawPlot();
  if (isFinal && !state.camera) predict([side]);
}

// ---- Results ----------------------------------------------------------------------------------------------------------

function showBars(panel, top) {
  const list = make("ol", { class: "bars" });
  for (const { name, probability } of top) {
    const item = make("li"), track = make("div", { class: "track" }), bar = make("div", { class: "bar" });
    bar.style.width = `${100 * probability}%`;
    track.append(bar);
    item.append(make("span", {}, name), make("span", { class: "number" }, `${(100 * probability).toFixed(1)} %`), track);
    list.append(item);
  }
  panel.append(list);
}

function heading(side, row) {
  const title = make("h3");
  if (find("compare").checked) title.append(make("b", { class: "mark" }, side.toUpperCase()));
  title.append(`${row.configuration}, ${digits(row.latency_ms)} ms, ${accuracyOf(row)}`);
  return title;
}

function showAnswer(side, answer) {
  const panel = find(`panel-${side}`), times = answer.times;
  panel.replaceChildren(heading(side, answer.row));
  showBars(panel, answer.top);
  if (answer.lowered) panel.append(make("p", { class: "soft note lowered" }, `The service is busy: ${answer.row.configuration} ran in place of ${answer.asked}.`));
  const seconds = answer.looked_at.map(([first, last]) => `${first.toFixed(2)} to ${last.toFixed(2)}`).join(", ");
  const looked = seconds ? `Looked at seconds ${seconds} of ${answer.duration.toFixed(2)}${answer.padded ? ", shorter than a clip" : ""}. ` : "";
  panel.append(make("p", { class: "soft" }, `${looked}Decoding ${digits(times.decode_ms)} ms, waiting ${digits(times.wait_ms)} ms, network ${digits(times.network_ms)} ms` +
    `${answer.batch > 1 ? ` for ${answer.batch} clips` : ""}.`));
  sides[side].here = answer.lowered ? answer.row : null;
  drawPlot();
}

// ---- Where it looked --------------------------------------------------------------------------------------------------

function drawCurve(curve, looks, place) {
  const seconds = looks.map((look) => look.second);
  const x = scale(seconds, 12, 276, false), y = (value) => 62 - 50 * value;
  curve.replaceChildren(make("line", { class: "axis", x1: 6, x2: 282, y1: 66, y2: 66 }));
  curve.append(make("path", { class: "curve", d: looks.map((look, i) => `${i ? "L" : "M"}${x(look.second)} ${y(look.activation)}`).join("") }));
  looks.forEach((look) => curve.append(make("circle", { class: "dot", cx: x(look.second), cy: y(look.activation), r: 3 })));
  curve.append(make("line", { class: "now", x1: x(seconds[place]), x2: x(seconds[place]), y1: 6, y2: 66 }));
  curve.append(make("text", { x: x(seconds[place]) > 200 ? 282 : 6, y: 82, "text-anchor": x(seconds[place]) > 200 ? "end" : "start" }, `second ${seconds[place].toFixed(2)}`));
}

function showLooks(panel, { class_name: name, probability, looks }) {
  const figure = make("figure", { class: "looks" }), image = make("img", { alt: `Where the network looked for ${name}` });
  const curve = make("svg", { viewBox: "0 0 288 88", role: "img", "aria-label": `Activation of ${name} over time` });
  const slider = make("input", { type: "range", min: 0, max: looks.length - 1, step: 1, "aria-label": "Frame" });
  const show = (place) => {
    image.src = looks[place].image;
    slider.setAttribute("aria-valuetext", `second ${looks[place].second.toFixed(2)}`);
    drawCurve(curve, looks, place);
  };
  const hottest = looks.reduce((best, look, place) => (look.activation > looks[best].activation ? place : best), 0);
  const told = looks[hottest].activation > 0 ? `What spoke for ${name} (${(100 * probability).toFixed(1)} %), and when:` : `No place in the clip spoke for ${name}.`;
  figure.append(make("figcaption", { class: "soft" }, told), image);
  if (looks.length > 1) figure.append(slider, curve);
  slider.value = hottest;
  slider.addEventListener("input", () => show(Number(slider.value)));
  show(hottest);
  panel.append(figure);
}

// ---- What it sees when ------------------------------------------------------------------------------------------------

// A long video is looked at in as many windows as a glance at the page takes.
const timelineQuery = (answer) => ({
  configuration: answer.row.configuration, window: Math.max(state.table.clip_seconds, answer.duration / MOST_WINDOWS).toFixed(3), deadline_ms: PATIENCE,
});

function showTimeline(panel, { segments, duration, windows }) {
  const figure = make("figure", { class: "when" }), list = make("ol");
  const told = segments.length ? `What it sees when, by ${windows} windows:` : `In none of ${windows} windows it is sure of a class.`;
  for (const { start, end, label, confidence } of segments) {
    const item = make("li"), seconds = `${start.toFixed(1)} to ${end.toFixed(1)} s`;
    const button = make("button", { type: "button" }, `${label} ${(100 * confidence).toFixed(0)} %, ${seconds}`);
    const track = make("div", { class: "track" }), bar = make("div", { class: "bar" });
    bar.style.marginLeft = `${(100 * start) / duration}%`;
    bar.style.width = `${(100 * (end - start)) / duration}%`;
    track.append(bar);
    button.append(track);
    button.addEventListener("click", () => { find("video").pause(); find("video").currentTime = start; });
    item.append(button);
    list.append(item);
  }
  figure.append(make("figcaption", { class: "soft" }, told), list);
  panel.append(figure);
}

async function send(path, source, query) {
  const form = new FormData();
  form.append("file", source, "upload");
  return answerOf(await fetch(`${path}?${new URLSearchParams(query)}`, { method: "POST", body: form }));
}

async function predict(which) {
  for (const side of which.filter((each) => state.source && !find(`panel-${each}`).hidden)) {
    const panel = find(`panel-${side}`), source = state.source, number = ++sides[side].asked;
    // What was asked for since makes an answer old.
    const isNewest = () => number === sides[side].asked && source === state.source;
    panel.classList.add("busy");
    try {
      const answer = await send("/predict", source, { latency_ms: state.rows[sides[side].place].latency_ms, top: 5 });
      if (!isNewest()) continue;
      tell("");
      showAnswer(side, answer);
      if (find("when").checked && answer.looked_at.length) {
        const timeline = await send("/timeline", source, timelineQuery(answer));
        if (isNewest() && find("when").checked) showTimeline(panel, timeline);
      }
      if (!find("look").checked) continue;
      const looks = await send("/explain", source, { configuration: answer.row.configuration, deadline_ms: PATIENCE });
      if (isNewest() && find("look").checked) showLooks(panel, looks);
    } catch (error) {
      if (!isNewest()) continue;
      panel.replaceChildren(make("p", { class: "soft" }, "No answer."));
      tell(error instanceof TypeError ? "The service does not answer." : `${error.message[0].toUpperCase()}${error.message.slice(1)}.`.replace(/\.\.$/, "."));
    } finally {
      if (number === sides[side].asked) panel.classList.remove("busy");
    }
  }
}

function showSource(blob, name) {
  stopCamera();
  state.source = blob;
  const video = find("video"), picture = find("picture"), isImage = /^image\//.test(blob.type);
  for (const shown of [video, picture]) if (shown.src) URL.revokeObjectURL(shown.src);
  const isVideo = !isImage && !/\.npy$/i.test(name);
  video.hidden = !isVideo;
  picture.hidden = !isImage;
  find("drop-words").hidden = isVideo || isImage;
  find("drop-words").textContent = name;
  video.removeAttribute("src");
  if (isVideo) { video.src = URL.createObjectURL(blob); video.play().catch(() => {}); }
  if (isImage) picture.src = URL.createObjectURL(blob);
  predict(["a", "b"]);
}

// A browser does not show every video that the service reads.
function showNameInstead() {
  find("video").hidden = true;
  find("drop-words").hidden = false;
  find("drop-words").textContent = "This browser shows no preview of this file.";
}

// ---- The webcam -------------------------------------------------------------------------------------------------------

async function startCamera() {
  tell("");
  if (!navigator.mediaDevices) { tell("A browser gives the webcam to https and to localhost alone."); return; }
  let media;
  try {
    media = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 } }, audio: false });
  } catch (error) {
    tell(`The browser gives no webcam (${error.name}).`);
    return;
  }
  state.source = null;
  const video = find("video");
  video.removeAttribute("src");
  video.srcObject = media;
  video.controls = false;
  video.hidden = false;
  find("picture").hidden = find("drop-words").hidden = true;
  find("deadline-field").hidden = false;
  find("webcam").setAttribute("aria-pressed", "true");
  find("webcam").textContent = "Stop the webcam";
  state.camera = { media, socket: null, timer: 0 };
  await video.play().catch(() => {});
  connect();
}

function connect() {
  const camera = state.camera, protocol = location.protocol === "https:" ? "wss" : "ws";
  if (camera.socket) camera.socket.close();
  clearInterval(camera.timer);
  const query = new URLSearchParams({ deadline_ms: Math.max(5, Number(find("deadline").value) || 200), fps: 4, top: 5 });
  const socket = new WebSocket(`${protocol}://${location.host}/stream?${query}`);
  camera.socket = socket;
  const canvas = document.createElement("canvas"), begin = performance.now();
  let isEncoding = false;
  socket.addEventListener("open", () => {
    camera.timer = setInterval(() => {
      const video = find("video");
      if (isEncoding || !video.videoWidth || socket.readyState !== WebSocket.OPEN || socket.bufferedAmount > 500000) return;
      canvas.width = FRAME_WIDTH;
      canvas.height = Math.round((FRAME_WIDTH * video.videoHeight) / video.videoWidth);
      canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
      const second = (performance.now() - begin) / 1000;
      isEncoding = true;
      canvas.toBlob((blob) => {
        isEncoding = false;
        if (blob && socket.readyState === WebSocket.OPEN) { socket.send(JSON.stringify({ second })); socket.send(blob); }
      }, "image/jpeg", 0.8);
    }, 1000 / Math.min(state.table.fps, MOST_FRAMES_A_SECOND));
  });
  socket.addEventListener("message", ({ data }) => {
    const answer = JSON.parse(data);
    if (answer.detail) { tell(`${answer.detail[0].toUpperCase()}${answer.detail.slice(1)}.`); return; }
    tell("");
    const panel = find("panel-a");
    panel.replaceChildren(heading("a", answer.row));
    showBars(panel, answer.top);
    panel.append(make("p", { class: "soft" }, `Seconds ${answer.start.toFixed(1)} to ${answer.end.toFixed(1)}, ${digits(answer.wait_ms + answer.network_ms)} ms` +
      `${answer.met ? "" : ", late"}${answer.dropped ? `, ${answer.dropped} windows left out` : ""}.`));
    sides.a.here = answer.row;
    drawPlot();
  });
  socket.addEventListener("close", ({ code }) => {
    if (state.camera && state.camera.socket === socket && code !== 1000) { stopCamera(); tell("The stream ended: the service is busy or gone."); }
  });
}

function stopCamera() {
  const camera = state.camera;
  if (!camera) return;
  state.camera = null;
  clearInterval(camera.timer);
  if (camera.socket) camera.socket.close();
  camera.media.getTracks().forEach((track) => track.stop());
  const video = find("video");
  video.srcObject = null;
  video.controls = true;
  video.hidden = true;
  find("drop-words").hidden = false;
  find("deadline-field").hidden = true;
  find("webcam").setAttribute("aria-pressed", "false");
  find("webcam").textContent = "Use the webcam";
  sides.a.here = null;
  drawPlot();
}

// ---- Start ------------------------------------------------------------------------------------------------------------

function listen() {
  const drop = find("drop"), file = find("file");
  file.addEventListener("change", () => { if (file.files.length) showSource(file.files[0], file.files[0].name); file.value = ""; });
  drop.addEventListener("keydown", (event) => { if (event.target === drop && ["Enter", " "].includes(event.key)) { event.preventDefault(); file.click(); } });
  find("video").addEventListener("click", (event) => event.preventDefault());
  find("video").addEventListener("error", () => { if (find("video").getAttribute("src")) showNameInstead(); });
  for (const name of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", name === "dragover");
      if (name === "drop" && event.dataTransfer.files.length) showSource(event.dataTransfer.files[0], event.dataTransfer.files[0].name);
    });
  }
  find("sample").addEventListener("change", async ({ target }) => {
    if (target.value === "") return;
    try {
      const response = await fetch(`/samples/${target.value}`);
      if (!response.ok) await answerOf(response);
      showSource(await response.blob(), target.selectedOptions[0].textContent);
    } catch (error) { tell(error.message); }
  });
  for (const side of ["a", "b"]) {
    find(`budget-${side}`).addEventListener("input", ({ target }) => choose(side, Number(target.value), false));
    find(`budget-${side}`).addEventListener("change", ({ target }) => choose(side, Number(target.value), true));
  }
  find("compare").addEventListener("change", ({ target }) => {
    find("slider-b").hidden = find("panel-b").hidden = !target.checked;
    choose("b", 0, false);
    drawPlot();
    if (!state.camera) predict(["a", "b"]);
  });
  for (const [name, drawn] of [["look", ".looks"], ["when", ".when"]]) {
    find(name).addEventListener("change", ({ target }) => {
      if (!target.checked) document.querySelectorAll(drawn).forEach((figure) => figure.remove());
      else if (!state.camera) predict(["a", "b"]);
    });
  }
  find("webcam").addEventListener("click", () => (state.camera ? stopCamera() : startCamera()));
  find("deadline").addEventListener("change", () => { if (state.camera) connect(); });
  addEventListener("resize", drawPlot);
  find("theme").addEventListener("click", () => {
    const root = document.documentElement, isDark = matchMedia("(prefers-color-scheme: dark)").matches;
    const shown = root.dataset.theme || (isDark ? "dark" : "light");
    root.dataset.theme = shown === "dark" ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* a browser that keeps nothing */ }
  });
}

async function start() {
  try { if (localStorage.getItem("theme")) document.documentElement.dataset.theme = localStorage.getItem("theme"); } catch { /* as above */ }
  try {
    const [table, health, samples] = await Promise.all(["/table", "/health", "/samples"].map(async (path) => answerOf(await fetch(path))));
    state.table = table;
    state.rows = table.rows.filter((row) => row.on_front);
    find("about").textContent = `${health.model}, ${table.classes} classes, in ${health.runtime === "eager" ? "PyTorch" : health.runtime}: one network, at any budget.`;
    find("conditions").textContent = `Accuracy: ${table.conditions}. Milliseconds: ${table.device}.`;
    const { bytes, seconds } = health.limits;
    find("limits").textContent = `Videos, images and .npy clips of up to ${digits(bytes / 1e6)} MB and ${seconds} s.`;
    for (const { number, name } of samples) find("sample").append(make("option", { value: number }, name));
    find("sample-field").hidden = !samples.length;
    for (const side of ["a", "b"]) find(`budget-${side}`).max = state.rows.length - 1;
    choose("a", state.rows.length - 1, false);
    choose("b", 0, false);
    listen();
    document.body.dataset.ready = "yes";
  } catch (error) {
    tell(`The service does not answer: ${error.message}.`);
  }
}

start();
