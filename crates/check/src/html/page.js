"use strict";
// The page's script: three views of one history on a canvas. No library, nothing loaded.
const D = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const N = D.process.length, GUTTER = 96, AXIS = 26, TOP = 16;
const plot = $("plot"), map = $("map"), pen = plot.getContext("2d"), mapPen = map.getContext("2d");
const KINDS = ["read", "write", "compare-and-set", "other"], FILLS = ["read", "write", "both", "other"];
let color = {};
let finding = null, view = "time", x0 = 0, x1 = 1, scroll = 0, hover = -1, matches = [], match = -1, width = 0, height = 0;
let layout = null, offending = new Set(), steps = [];

const lastEnd = (() => { let e = 1; for (let i = 0; i < N; i++) e = Math.max(e, D.start[i] + Math.max(D.took[i], 0)); return e; })();
const kindOf = i => D.kind[i] & 3, failed = i => (D.kind[i] & 4) !== 0, unknown = i => (D.kind[i] & 8) !== 0;
const textOf = i => D.texts[D.text[i]];
const endOf = i => D.took[i] < 0 ? lastEnd * 1.02 : D.start[i] + D.took[i];
const escapeText = t => t.replace(/[&<>"]/g, c => "&#" + c.charCodeAt(0) + ";");
const number = v => (v || 0).toLocaleString("en", { maximumFractionDigits: 2 });

// A layout gives every operation that a view shows a row and two x; rows hold them by x, for fast look-up.
function makeLayout(ops, from, to, names) {
  const rowOf = new Map(), rows = [];
  const processes = [...new Set(ops.map(i => D.process[i]))].sort((a, b) => names[a].localeCompare(names[b], "en", { numeric: true }));
  processes.forEach((p, r) => { rowOf.set(p, r); rows.push({ name: names[p], ops: [], reach: [] }); });
  const a = new Map(), small = ops.length <= 5000;
  const X0 = small ? a : new Float64Array(N), X1 = small ? new Map() : new Float64Array(N);
  const put = small ? (m, i, v) => m.set(i, v) : (m, i, v) => { m[i] = v; };
  const get = small ? (m, i) => m.get(i) : (m, i) => m[i];
  let low = Infinity, high = -Infinity;
  ops.forEach((i, n) => {
    const f = from(i, n), t = to(i, n);
    put(X0, i, f); put(X1, i, t); low = Math.min(low, f); high = Math.max(high, t);
    rows[rowOf.get(D.process[i])].ops.push(i);
  });
  for (const row of rows) {
    row.ops.sort((p, q) => get(X0, p) - get(X0, q));
    let reach = -Infinity;
    for (const i of row.ops) row.reach.push(reach = Math.max(reach, get(X1, i)));
  }
  if (!ops.length) { low = 0; high = 1; }
  const pad = Math.max((high - low) * .02, .3 * (high - low) / Math.max(ops.length, 1));
  return { rows, rowOf, has: i => rowOf.has(D.process[i]) && (small ? X0.has(i) : true), from: i => get(X0, i), to: i => get(X1, i), low: low - pad, high: high + pad, ops };
}
const all = Array.from({ length: N }, (_, i) => i);
const timeLayout = makeLayout(all, i => D.start[i], endOf, D.processes);

// The counter-example: only what offends; times become ranks, so that nothing is too narrow to see.
function exampleLayout() {
  const ops = [...offending].sort((a, b) => a - b);
  const moments = [...new Set(ops.flatMap(i => D.shared ? [D.start[i], endOf(i)] : [2 * i, 2 * i + 1]))].sort((a, b) => a - b);
  const rank = new Map(moments.map((m, r) => [m, r]));
  return makeLayout(ops, i => rank.get(D.shared ? D.start[i] : 2 * i), i => rank.get(D.shared ? endOf(i) : 2 * i + 1), D.processes);
}
function orderOf() { return (finding && finding.order) || (D.findings.find(f => f.order) || {}).order; }
function orderLayout() {
  const place = new Map(orderOf().map((i, n) => [i, n]));
  return makeLayout(orderOf(), i => place.get(i), i => place.get(i) + .88, D.processes);
}
// Where each operation of a linearization may have taken effect: as early as its call and those before it allow.
const points = (() => {
  const f = D.findings.find(f => f.level === "linearizable" && f.order);
  if (!f || !D.shared) return null;
  let t = -Infinity;
  return f.order.map(i => ({ i, t: t = Math.max(t, D.start[i]) }));
})();

function views() {
  const out = [];
  if (offending.size) out.push(["example", "Counter-example"]);
  out.push(["time", D.shared ? "Timeline" : "History"]);
  if (orderOf()) out.push(["order", "Order found"]);
  return out;
}
function show(name) {
  if (!views().some(([n]) => n === name)) name = views()[0][0];
  view = name;
  layout = view === "example" ? exampleLayout() : view === "order" ? orderLayout() : timeLayout;
  scroll = 0; fit();
  // So many places that each has room for what its bar says.
  if (view === "order") x1 = Math.min(layout.high, x0 + Math.max(4, (plot.clientWidth - GUTTER) / 76));
  $("views").innerHTML = views().map(([n, t]) => `<button role="tab" data-view="${n}" aria-selected="${n === view}">${t}</button>`).join("");
  $("goto").style.display = offending.size && view !== "example" ? "" : "none";
}
function fit() { x0 = layout.low; x1 = layout.high; draw(); }

function select(f) {
  finding = f;
  offending = new Set((f && f.operations) || []);
  steps = (f && f.steps) || [];
  for (const b of $("levels").children) b.setAttribute("aria-pressed", String(f && b.dataset.level === f.level));
  const box = $("finding");
  box.className = f ? f.verdict : "";
  box.style.display = f ? "" : "none";
  if (f) {
    const head = f.verdict === "holds" ? `This history is ${f.title}.` : f.verdict === "unknown" ? `Whether it is ${f.title} is unknown: ${f.headline}` : `Not ${f.title}: ${f.headline}.`;
    let html = `<h2>${escapeText(head)}</h2><div class="by">${escapeText(f.algorithm)}${f.reason && f.reason !== f.headline ? " · " + escapeText(f.reason) : ""}</div>`;
    if (steps.length) html += `<details${steps.length <= 6 ? " open" : ""}><summary>${offending.size} of ${number(D.total)} operations, ${steps.length} steps</summary><ol>` +
      steps.map(s => `<li><b>${escapeText(s[2])}</b> ${escapeText(s[3])}</li>`).join("") + "</ol></details>";
    box.innerHTML = html;
  }
  show(offending.size ? "example" : view === "example" ? "time" : view);
}

// ---- drawing ----
function rowHeight() {
  const room = height - AXIS - TOP - 4;
  const most = view === "example" ? 110 : 46, least = view === "example" ? 54 : 22;
  return Math.max(least, Math.min(most, room / layout.rows.length));
}
const toPixel = x => GUTTER + (x - x0) / (x1 - x0) * (width - GUTTER);
const toX = px => x0 + (px - GUTTER) / (width - GUTTER) * (x1 - x0);
const rowTop = r => AXIS + TOP + r * rowHeight() - scroll;
function firstVisible(row, x) { let a = 0, b = row.reach.length; while (a < b) { const m = (a + b) >> 1; row.reach[m] < x ? a = m + 1 : b = m; } return a; }

function readColors() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["bg", "card", "ink", "muted", "line", "stripe", "read", "read-ink", "write", "write-ink", "both", "both-ink", "other", "other-ink", "dead", "bad", "bad-soft", "good", "mark", "arrow", "order"])
    color[name] = style.getPropertyValue("--" + name).trim();
}
let pending = false;
function draw() { if (!pending) { pending = true; requestAnimationFrame(() => { pending = false; paint(); paintMap(); }); } }
function size(canvas, context) {
  const scale = window.devicePixelRatio || 1, box = canvas.getBoundingClientRect();
  if (canvas.width !== Math.round(box.width * scale) || canvas.height !== Math.round(box.height * scale)) {
    canvas.width = Math.round(box.width * scale); canvas.height = Math.round(box.height * scale);
  }
  context.setTransform(scale, 0, 0, scale, 0, 0);
  return [box.width, box.height];
}
function paint() {
  [width, height] = size(plot, pen);
  const h = rowHeight(), total = layout.rows.length * h;
  scroll = Math.max(0, Math.min(scroll, total - (height - AXIS - TOP - 4)));
  pen.fillStyle = color.card; pen.fillRect(0, 0, width, height);
  layout.rows.forEach((row, r) => {
    const y = rowTop(r);
    if (y > height || y + h < AXIS) return;
    if (r % 2) { pen.fillStyle = color.stripe; pen.fillRect(0, y, width, h); }
  });
  axis();
  pen.save(); pen.beginPath(); pen.rect(GUTTER, AXIS, width - GUTTER, height); pen.clip();
  const labels = [];
  layout.rows.forEach((row, r) => { const y = rowTop(r); if (y < height && y + h > AXIS) paintRow(row, y, h, labels); });
  if (view === "time" && points) paintPoints(h);
  if (view === "order") paintPath(h);
  paintMarks(h);
  paintSteps(h);
  paintLabels(labels);
  if (hover >= 0 && layout.has(hover)) { outline(hover, h, color.ink, 1.5); paintSource(hover, h); }
  pen.restore();
  gutter(h);
}
function barOf(h) { const bar = view === "example" ? Math.min(30, h * .45) : Math.max(8, Math.min(26, h - 8)); return { bar, top: view === "example" ? h * .36 : (h - bar) / 2 }; }
function paintRow(row, y, h, labels) {
  const { bar, top } = barOf(h);
  let last = -1, lastFill = "";
  for (let n = firstVisible(row, x0); n < row.ops.length; n++) {
    const i = row.ops[n], from = layout.from(i);
    if (from > x1) break;
    const a = toPixel(from), b = Math.max(toPixel(layout.to(i)), a + 1), w = b - a;
    const fill = failed(i) ? "dead" : FILLS[kindOf(i)];
    // Bars narrower than a pixel that fall on one that is drawn already change nothing.
    if (w < 1.5 && b <= last && fill === lastFill) continue;
    last = b; lastFill = fill;
    pen.globalAlpha = unknown(i) ? .35 : 1;
    pen.fillStyle = color[fill];
    if (w > 6) { pen.beginPath(); pen.roundRect(a, y + top, w, bar, Math.min(5, bar / 3)); pen.fill(); }
    else pen.fillRect(a, y + top, w, bar);
    pen.globalAlpha = 1;
    const left = Math.max(a, GUTTER), room = Math.min(b, width) - left - 8;
    const text = textOf(i), size = view === "example" ? 14 : Math.min(12.5, bar * .72);
    if (room > 16 && size > 7) {
      pen.font = `${view === "example" ? 600 : 500} ${size}px system-ui, sans-serif`;
      const wide = pen.measureText(text).width;
      if (wide <= room) {
        pen.fillStyle = failed(i) || unknown(i) ? color.ink : color[fill + "-ink"] || color.ink;
        pen.textBaseline = "middle"; pen.textAlign = "left";
        pen.fillText(text, left + (room + 8 - wide) / 2, y + top + bar / 2 + .5);
      } else if (view === "example") labels.push([text, (a + b) / 2, y + top - 11]);
    } else if (view === "example") labels.push([text, (a + b) / 2, y + top - 11]);
  }
}
// What a bar says where it is too narrow to say it inside; over the arrows.
function paintLabels(labels) {
  pen.textAlign = "center"; pen.textBaseline = "middle"; pen.font = "600 13px system-ui, sans-serif";
  for (const [text, x, y] of labels) {
    pen.strokeStyle = color.card; pen.lineWidth = 4; pen.lineJoin = "round"; pen.strokeText(text, x, y);
    pen.fillStyle = color.ink; pen.fillText(text, x, y);
  }
}
function placeOf(i, h) {
  const { bar, top } = barOf(h), y = rowTop(layout.rowOf.get(D.process[i])) + top;
  return { a: toPixel(layout.from(i)), b: Math.max(toPixel(layout.to(i)), toPixel(layout.from(i)) + 1), y, bar };
}
function outline(i, h, stroke, line) {
  const p = placeOf(i, h), grow = 2;
  pen.strokeStyle = stroke; pen.lineWidth = line;
  const w = Math.max(p.b - p.a, 3);
  pen.beginPath(); pen.roundRect(p.a - grow, p.y - grow, w + 2 * grow, p.bar + 2 * grow, 6); pen.stroke();
}
function paintMarks(h) {
  const from = x0 - (x1 - x0), to = x1 + (x1 - x0);
  const near = i => layout.has(i) && layout.to(i) >= from && layout.from(i) <= to;
  if (matches.length) {
    let last = -1;
    for (const i of matches) { if (!near(i)) continue; const a = Math.round(toPixel(layout.from(i))); if (matches.length > 2000 && a === last) continue; last = a; outline(i, h, color.mark, 2.5); }
    if (match >= 0 && near(matches[match])) outline(matches[match], h, color.mark, 4);
  }
  for (const i of offending) if (near(i)) outline(i, h, color.bad, 2);
}
function arrow(ax, ay, bx, by, stroke, dash, bend) {
  const mx = (ax + bx) / 2, my = (ay + by) / 2 + bend, angle = Math.atan2(by - my, bx - mx);
  pen.strokeStyle = pen.fillStyle = stroke; pen.lineWidth = 1.8; pen.setLineDash(dash);
  pen.beginPath(); pen.moveTo(ax, ay); pen.quadraticCurveTo(mx, my, bx, by); pen.stroke(); pen.setLineDash([]);
  pen.beginPath(); pen.moveTo(bx, by);
  pen.lineTo(bx - 8 * Math.cos(angle - .4), by - 8 * Math.sin(angle - .4));
  pen.lineTo(bx - 8 * Math.cos(angle + .4), by - 8 * Math.sin(angle + .4)); pen.fill();
  return [(ax + bx) / 4 + mx / 2, (ay + by) / 4 + my / 2];
}
// Whether another bar of the row lies between two.
function between(before, after) {
  const [low, high] = [Math.min(layout.from(before), layout.from(after)), Math.max(layout.from(before), layout.from(after))];
  return layout.rows[layout.rowOf.get(D.process[before])].ops.some(i => layout.from(i) > low && layout.from(i) < high);
}
// Steps of the contradiction: each arrow says "before".
function paintSteps(h) {
  const taken = [];
  steps.forEach(([before, after, why], n) => {
    if (!layout.has(before) || !layout.has(after)) return;
    const p = placeOf(before, h), q = placeOf(after, h);
    if (view !== "example" && (Math.max(p.a, q.a) < GUTTER - 200 || Math.min(p.b, q.b) > width + 200)) return;
    const same = D.process[before] === D.process[after], down = q.y > p.y;
    const back = why === "not seen", stroke = back ? color.bad : why === "write order" ? color.order : color.arrow;
    // Within a row: straight between neighbours, else over the bars between, or under them where it leads back.
    const straight = same && why === "session" && view === "example" && q.a - p.b < (width - GUTTER) * .6 && !between(before, after);
    // Two arrows between the same bars stand apart.
    const pair = steps.some(s => s[0] === after && s[1] === before) ? (back || why === "write order" ? 16 : -16) : 0;
    const ax = straight ? p.b : (p.a + p.b) / 2 + pair, bx = straight ? q.a : (q.a + q.b) / 2 + pair;
    const ay = straight ? p.y + p.bar / 2 : same ? (back ? p.y + p.bar + 2 : p.y - 2) : down ? p.y + p.bar + 2 : p.y - 2;
    const by = straight ? q.y + q.bar / 2 : same ? (back ? q.y + q.bar + 2 : q.y - 2) : down ? q.y - 2 : q.y + q.bar + 2;
    const gap = Math.hypot(bx - ax, by - ay);
    if (gap < 14) return;
    const bend = straight || !same ? 0 : (back ? 1 : -1) * Math.min(view === "example" ? 44 : 26, 8 + gap / 6);
    let [mx, my] = arrow(ax, ay, bx, by, stroke, back ? [5, 4] : [], bend);
    if (view === "example" ? gap > 40 : gap > 70) {
      pen.font = "600 11.5px system-ui, sans-serif";
      const w = pen.measureText(why).width + 8;
      for (let tries = 0; tries < 6 && taken.some(t => Math.abs(t[0] - mx) < (t[2] + w) / 2 && Math.abs(t[1] - my) < 16); tries++) my += 16;
      taken.push([mx, my, w]);
      pen.fillStyle = color.card; pen.globalAlpha = .88; pen.fillRect(mx - w / 2, my - 8, w, 16); pen.globalAlpha = 1;
      pen.fillStyle = stroke; pen.textAlign = "center"; pen.textBaseline = "middle"; pen.fillText(why, mx, my);
    }
  });
}
function paintPoints(h) {
  let a = 0, b = points.length;
  while (a < b) { const m = (a + b) >> 1; points[m].t < x0 ? a = m + 1 : b = m; }
  const shown = [];
  for (let n = Math.max(0, a - 1); n < points.length && shown.length < 301; n++) { shown.push(points[n]); if (points[n].t > x1) break; }
  if (shown.length > 300) return;
  // Points at one moment are spread a little, in their order.
  let last = -Infinity;
  const at = shown.map(p => { const x = last = Math.max(toPixel(p.t) + 3, last + 2), q = placeOf(p.i, h); return [x, q.y + q.bar / 2]; });
  pen.strokeStyle = color.good; pen.lineWidth = 1; pen.globalAlpha = .55; pen.beginPath();
  at.forEach(([x, y], n) => n ? pen.lineTo(x, y) : pen.moveTo(x, y)); pen.stroke(); pen.globalAlpha = 1; pen.fillStyle = color.good;
  for (const [x, y] of at) { pen.beginPath(); pen.arc(x, y, 2.6, 0, 7); pen.fill(); }
}
function paintPath(h) {
  const order = layout.ops, from = Math.max(0, Math.floor(x0) - 1), to = Math.min(order.length, Math.ceil(x1) + 1);
  if (to - from > 300) return;
  pen.strokeStyle = color.good; pen.lineWidth = 1.2; pen.globalAlpha = .6; pen.beginPath();
  for (let n = from; n + 1 < to; n++) { const p = placeOf(order[n], h), q = placeOf(order[n + 1], h); pen.moveTo(p.b, p.y + p.bar / 2); pen.lineTo(q.a, q.y + q.bar / 2); }
  pen.stroke(); pen.globalAlpha = 1;
}
let writers = null;
function paintSource(i, h) {
  if (kindOf(i) !== 0) return;
  if (!writers) { writers = new Map(); for (let j = 0; j < N; j++) if (kindOf(j) === 1) writers.set(textOf(j).replace(":=", "="), j); }
  const j = writers.get(textOf(i));
  if (j === undefined || !layout.has(j)) return;
  const p = placeOf(j, h), q = placeOf(i, h);
  outline(j, h, color.ink, 1.5);
  arrow((p.a + p.b) / 2, p.y + p.bar / 2, (q.a + q.b) / 2, q.y + q.bar / 2, color.ink, [2, 3], 0);
}
function axis() {
  pen.fillStyle = color.card; pen.fillRect(0, 0, width, AXIS);
  pen.strokeStyle = color.line; pen.lineWidth = 1; pen.beginPath(); pen.moveTo(0, AXIS - .5); pen.lineTo(width, AXIS - .5); pen.stroke();
  pen.font = "11.5px system-ui, sans-serif"; pen.fillStyle = color.muted; pen.textBaseline = "middle"; pen.textAlign = "left";
  pen.fillText(view === "order" ? "place in order" : view === "example" ? "order of events" : D.shared ? "time" : "order in file", 14, AXIS / 2);
  if (view === "example") return;
  const rough = (x1 - x0) / Math.max(2, (width - GUTTER) / 120), power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(m => m * power).find(s => s >= rough);
  pen.textAlign = "center";
  for (let x = Math.ceil(x0 / step) * step; x <= x1; x += step) {
    const px = toPixel(x);
    if (px < GUTTER + 8 || (x < 0 && view !== "time")) continue;
    pen.fillText(number(Math.abs(x) < step / 1e6 ? 0 : x), px, AXIS / 2);
    pen.globalAlpha = .6; pen.beginPath(); pen.moveTo(px, AXIS); pen.lineTo(px, height); pen.stroke(); pen.globalAlpha = 1;
  }
}
function gutter(h) {
  pen.fillStyle = color.card; pen.fillRect(0, AXIS, GUTTER, height);
  pen.strokeStyle = color.line; pen.beginPath(); pen.moveTo(GUTTER - .5, AXIS); pen.lineTo(GUTTER - .5, height); pen.stroke();
  pen.textAlign = "right"; pen.textBaseline = "middle"; pen.fillStyle = color.ink;
  pen.save(); pen.beginPath(); pen.rect(0, AXIS, GUTTER, height); pen.clip();
  layout.rows.forEach((row, r) => {
    const y = rowTop(r) + h / 2;
    if (y < AXIS - h || y > height + h) return;
    pen.font = `${Math.min(13, h * .62)}px system-ui, sans-serif`;
    let name = /^\d+$/.test(row.name) ? "process " + row.name : row.name;
    while (name.length > 3 && pen.measureText(name).width > GUTTER - 16) name = name.slice(0, -2) + "…";
    pen.fillText(name, GUTTER - 10, y);
  });
  pen.restore();
}

// ---- overview ----
let density = null;
function paintMap() {
  const [w, h] = size(map, mapPen), span = layout.high - layout.low, px = x => (x - layout.low) / span * w;
  if (!density || density.layout !== layout || density.w !== w) {
    const bins = new Float64Array(Math.max(1, Math.ceil(w / 3)));
    for (const i of layout.ops) bins[Math.min(bins.length - 1, Math.max(0, Math.floor(px(layout.from(i)) / 3)))]++;
    density = { layout, w, bins, max: bins.reduce((a, b) => Math.max(a, b), 1) };
  }
  mapPen.fillStyle = color.bg; mapPen.fillRect(0, 0, w, h);
  mapPen.fillStyle = color.other; mapPen.globalAlpha = .55;
  density.bins.forEach((v, b) => { const t = v / density.max * (h - 12); mapPen.fillRect(b * 3, h - 4 - t, 2, t); });
  mapPen.globalAlpha = 1;
  const tick = (i, fill, t) => { if (layout.has(i)) { mapPen.fillStyle = fill; mapPen.fillRect(px(layout.from(i)) - 1, 2, t, h - 4); } };
  if (matches.length <= 5000) for (const i of matches) tick(i, color.mark, 1.5);
  for (const i of offending) tick(i, color.bad, 2.5);
  const a = px(x0), b = px(x1);
  mapPen.strokeStyle = color.ink; mapPen.lineWidth = 1.5; mapPen.strokeRect(Math.max(1, a), 1.5, Math.max(4, Math.min(w - 1, b) - Math.max(1, a)), h - 3);
}

// ---- moving about ----
function zoom(factor, px = (width + GUTTER) / 2) {
  const x = toX(px), span = (x1 - x0) * factor, most = (layout.high - layout.low) * 1.2;
  if (span > most) return fit();
  if (span < (layout.high - layout.low) * 1e-9 + 1e-6) return;
  x0 = x - (x - x0) * factor; x1 = x0 + span; draw();
}
function centre(from, to) { const pad = Math.max((to - from) * .25, (layout.high - layout.low) * 2e-5, 3); x0 = from - pad; x1 = to + pad; draw(); }
function goTo(ops) {
  const shown = ops.filter(i => layout.has(i));
  if (!shown.length) return;
  centre(Math.min(...shown.map(layout.from)), Math.max(...shown.map(i => Math.min(layout.to(i), layout.from(i) + (lastEnd - layout.low) * .05 + 1e3))));
  const r = layout.rowOf.get(D.process[shown[0]]);
  scroll = Math.max(0, r * rowHeight() - height / 2);
}
function search(text) {
  const wanted = text.trim().toLowerCase();
  matches = [];
  if (wanted) {
    const hit = D.texts.map(t => t.toLowerCase().replace(":=", "=").includes(wanted.replace(":=", "=")));
    const process = D.processes.map(p => ("process " + p).toLowerCase() === wanted || p.toLowerCase() === wanted);
    const id = /^(id )?\d+$/.test(wanted) ? Number(wanted.replace("id ", "")) : -1;
    for (let i = 0; i < N; i++) if (hit[D.text[i]] || process[D.process[i]] || D.id[i] === id) matches.push(i);
  }
  match = -1;
  $("found").textContent = wanted ? `${number(matches.length)} found` : "";
  draw();
}
function step(by) {
  if (!matches.length) return;
  if (view === "example") show("time");
  match = (match + by + matches.length) % matches.length;
  $("found").textContent = `${number(match + 1)} / ${number(matches.length)}`;
  const i = matches[match], half = Math.min((x1 - x0) / 2, (layout.high - layout.low) / Math.max(1, layout.ops.length / 200));
  if (layout.has(i)) { const c = Math.max(layout.low + half, Math.min(layout.high - half, layout.from(i))); x0 = c - half; x1 = c + half; scroll = Math.max(0, layout.rowOf.get(D.process[i]) * rowHeight() - height / 2); draw(); }
}
function under(px, py) {
  const h = rowHeight(), r = Math.floor((py - AXIS - TOP + scroll) / h);
  if (px < GUTTER || py < AXIS || !layout.rows[r]) return -1;
  const row = layout.rows[r], slack = 3 / (width - GUTTER) * (x1 - x0), x = toX(px);
  let best = -1, near = Infinity;
  for (let n = firstVisible(row, x - slack); n < row.ops.length; n++) {
    const i = row.ops[n];
    if (layout.from(i) > x + slack) break;
    const d = x < layout.from(i) ? layout.from(i) - x : Math.max(0, x - layout.to(i));
    if (d <= slack && d <= near) { near = d; best = i; }
  }
  return best;
}
function tip(event) {
  const box = plot.getBoundingClientRect(), px = event.clientX - box.left, py = event.clientY - box.top, i = under(px, py), t = $("tip");
  if (i !== hover) { hover = i; draw(); }
  t.hidden = i < 0;
  if (i < 0) return;
  const order = orderOf(), place = order && order.length <= 20000 ? order.indexOf(i) : -1;
  const times = D.shared ? `<br><span>called</span> ${number(D.start[i])} <span>answered</span> ${D.took[i] < 0 ? "never" : number(D.start[i] + D.took[i])}` : "";
  t.innerHTML = `<b>${escapeText(textOf(i))}</b> <span>${KINDS[kindOf(i)]}${failed(i) ? ", failed" : unknown(i) ? ", outcome unknown" : ""}</span><br>` +
    `<span>process</span> ${escapeText(D.processes[D.process[i]])} <span>id</span> ${D.id[i]}${times}` +
    (place >= 0 ? `<br><span>place in the order found</span> ${number(place)}` : "") + (offending.has(i) ? "<br><span>part of the counter-example</span>" : "");
  const left = Math.min(px + 14, width - t.offsetWidth - 8), topY = py + 18 + t.offsetHeight > height ? py - t.offsetHeight - 12 : py + 18;
  t.style.left = left + "px"; t.style.top = topY + "px";
}
let grip = null;
plot.addEventListener("pointerdown", e => { grip = { x: e.clientX, y: e.clientY, x0, x1, scroll }; plot.setPointerCapture(e.pointerId); plot.classList.add("pulling"); });
plot.addEventListener("pointermove", e => {
  if (!grip) return tip(e);
  const dx = (e.clientX - grip.x) / (width - GUTTER) * (grip.x1 - grip.x0);
  x0 = grip.x0 - dx; x1 = grip.x1 - dx; scroll = grip.scroll - (e.clientY - grip.y); $("tip").hidden = true; draw();
});
plot.addEventListener("pointerup", () => { grip = null; plot.classList.remove("pulling"); });
plot.addEventListener("pointerleave", () => { hover = -1; $("tip").hidden = true; draw(); });
plot.addEventListener("wheel", e => {
  e.preventDefault();
  if (e.shiftKey || Math.abs(e.deltaX) > Math.abs(e.deltaY)) { const d = (e.deltaX || e.deltaY) / (width - GUTTER) * (x1 - x0); x0 += d; x1 += d; draw(); }
  else if (e.altKey) { scroll += e.deltaY; draw(); }
  else zoom(Math.exp(e.deltaY * .0016), e.clientX - plot.getBoundingClientRect().left);
}, { passive: false });
function mapMove(e) {
  if (e.buttons !== 1) return;
  const box = map.getBoundingClientRect(), x = layout.low + (e.clientX - box.left) / box.width * (layout.high - layout.low);
  let span = x1 - x0;
  if (span >= (layout.high - layout.low) * .98) span /= 20;
  x0 = x - span / 2; x1 = x + span / 2; draw();
}
map.addEventListener("pointerdown", mapMove); map.addEventListener("pointermove", mapMove);
$("in").onclick = () => zoom(.5); $("out").onclick = () => zoom(2); $("fit").onclick = fit;
$("goto").onclick = () => goTo([...offending]);
$("views").onclick = e => { if (e.target.dataset.view) show(e.target.dataset.view); };
$("levels").onclick = e => { const f = D.findings.find(f => f.level === e.target.dataset.level); if (f) select(f); };
$("search").oninput = e => search(e.target.value);
$("search").onkeydown = e => { if (e.key === "Enter") { e.preventDefault(); step(e.shiftKey ? -1 : 1); } };
addEventListener("keydown", e => {
  if (e.target === $("search")) return;
  const span = x1 - x0, keys = {
    "+": () => zoom(.7), "=": () => zoom(.7), "-": () => zoom(1.4), "0": fit, v: () => goTo([...offending]), n: () => step(1), p: () => step(-1),
    ArrowLeft: () => { x0 -= span * .1; x1 -= span * .1; draw(); }, ArrowRight: () => { x0 += span * .1; x1 += span * .1; draw(); },
    ArrowUp: () => { scroll -= 40; draw(); }, ArrowDown: () => { scroll += 40; draw(); }, "/": () => $("search").focus(),
  };
  if (keys[e.key] && !e.ctrlKey && !e.metaKey) { e.preventDefault(); keys[e.key](); }
});
addEventListener("resize", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColors(); draw(); });

// ---- start ----
readColors();
$("name").textContent = D.name;
$("facts").textContent = [`${number(D.total)} operations` + (N < D.total ? ` (${number(N)} shown)` : ""), `${number(timeLayout.rows.length)} processes`, `${number(D.keys.length)} ${D.keys.length === 1 ? "key" : "keys"}`, D.model, D.format]
  .concat(D.staleness && D.staleness.stale ? [`${number(D.staleness.stale)} stale reads, the oldest by ${number(D.staleness.oldest)}`] : []).concat(D.warnings).join(" · ");
const strongest = D.findings.find(f => f.verdict === "holds");
$("levels").innerHTML = D.findings.map(f => `<button class="${f.verdict}${f === strongest ? " strongest" : ""}" data-level="${f.level}" title="${f.verdict}">${escapeText(f.title)}</button>`).join("");
const used = new Set(); for (let i = 0; i < N; i++) used.add(kindOf(i));
$("legend").innerHTML = [...used].sort().map(k => `<span><i style="background:var(--${FILLS[k]})"></i>${KINDS[k]}</span>`).join("") +
  (D.findings.some(f => f.verdict === "violated") ? `<span><i style="border:2px solid var(--bad)"></i>offending</span>` : "") + (points ? `<span><i style="background:var(--good);border-radius:50%"></i>effect</span>` : "");
select(D.findings.find(f => f.verdict === "violated") || strongest || D.findings[0] || null);
const asked = new URLSearchParams(location.hash.slice(1));
if (asked.get("level")) { const f = D.findings.find(f => f.level === asked.get("level")); if (f) select(f); }
if (asked.get("view")) { show(asked.get("view")); if (asked.get("view") === "time" && offending.size && N > 2000 && asked.get("fit") === null) goTo([...offending]); }
if (asked.get("find")) { $("search").value = asked.get("find"); search(asked.get("find")); step(1); }
