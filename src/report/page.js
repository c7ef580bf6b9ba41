"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const COLORS = ["#3d6be0", "#ee7b30", "#8b5fd8", "#d93d6e", "#179fb8", "#9a8b1c", "#8a5a44", "#4a5878"];
const color = (i) => COLORS[i % COLORS.length];
const main = document.querySelector("main");

function element(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "line", "text", "circle", "rect", "title"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function number(x) {
  if (x === null || x === undefined) return "–";
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (size >= 1e-3 && size < 1e5) return Number(x.toPrecision(4)).toString();
  if (size >= 1e5 && size < 1e12) return x.toLocaleString("en", { maximumFractionDigits: 0 });
  return x.toExponential(2);
}

function compact(x) {
  return x === null ? "" : Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 4 }).format(x);
}

function seconds(x) {
  if (x === null) return "–";
  if (x < 60) return `${x.toFixed(1)} s`;
  const minutes = Math.floor(x / 60);
  return minutes < 60 ? `${minutes} min ${Math.round(x % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function card(title, ...children) {
  return element("section", { class: "card" }, title ? element("h3", {}, title) : null, ...children);
}

const dot = (i) => element("span", { class: "dot", style: `background:${color(i)}` });

// A point with its interval on a scale that all rows share.
function range(interval, low, high, stroke, target) {
  const svg = element("svg", { viewBox: "0 0 200 22", preserveAspectRatio: "none" });
  const at = (x) => (high > low ? 6 + (188 * (x - low)) / (high - low) : 100);
  const line = (attributes) => element("line", { "vector-effect": "non-scaling-stroke", ...attributes });
  svg.append(line({ x1: 6, x2: 194, y1: 11, y2: 11, stroke: "var(--rule)" }));
  if (target !== null && target >= low && target <= high) {
    svg.append(line({ x1: at(target), x2: at(target), y1: 2, y2: 20, stroke: "var(--goal)", "stroke-dasharray": "3 3" }));
  }
  svg.append(line({ x1: at(interval.low), x2: at(interval.high), y1: 11, y2: 11, stroke, "stroke-width": 5, opacity: 0.4 }));
  svg.append(line({ x1: at(interval.estimate), x2: at(interval.estimate), y1: 4, y2: 18, stroke, "stroke-width": 3 }));
  const ends = interval.low < interval.high ? ` [${number(interval.low)}, ${number(interval.high)}]` : "";
  svg.append(element("title", {}, number(interval.estimate) + ends));
  return svg;
}

function resultsTable(section) {
  const rows = section.rows;
  const point = (row) => ({ estimate: row.interquartile_mean, low: row.interquartile_mean, high: row.interquartile_mean });
  const measured = (row) => (row.interquartile_mean === null ? null : row.interval ?? point(row));
  const ends = rows.map(measured).filter(Boolean).flatMap((interval) => [interval.low, interval.high]);
  if (section.target !== null) ends.push(section.target);
  const [low, high] = [Math.min(...ends), Math.max(...ends)];
  const gap = rows.some((row) => row.optimality_gap !== null);
  const head = element("tr", {}, element("th", {}, "configuration"), element("th", { class: "n" }, "runs"),
    element("th", { class: "n" }, "IQM"), element("th", { class: "n" }, "95 % interval"),
    element("th", {}, ""), element("th", { class: "n" }, "mean"),
    gap ? element("th", { class: "n" }, "optimality gap") : null, element("th", { class: "n" }, "steps"),
    element("th", { class: "n" }, "time"), element("th", { class: "n" }, "steps/s"));
  const body = rows.map((row, i) => {
    const iqm = measured(row);
    const cell = (text) => element("td", { class: "n" }, text);
    const label = element("td", {}, i < COLORS.length ? dot(i) : null, row.label);
    for (const problem of row.problems) label.append(element("div", { class: "problem" }, problem));
    for (const note of row.notes) label.append(element("div", { class: "note" }, note));
    return element("tr", {}, label, cell(`${row.runs}`), cell(number(row.interquartile_mean)),
      cell(row.interval ? `${number(row.interval.low)} … ${number(row.interval.high)}` : "–"),
      element("td", { class: "range" }, iqm ? range(iqm, low, high, color(i), section.target) : ""),
      cell(number(row.mean)), gap ? cell(number(row.optimality_gap)) : null,
      cell(row.steps === null ? "–" : row.steps.toLocaleString("en")), cell(seconds(row.wall_seconds)),
      cell(row.steps_per_second >= 100 ? Math.round(row.steps_per_second).toLocaleString("en") : number(row.steps_per_second)));
  });
  const target = section.target === null ? "" : ` The dashed line is the target, ${number(section.target)}.`;
  const box = card(`${section.objective}, ${section.maximize ? "higher" : "lower"} is better`,
    element("div", { class: "scroll" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...body))),
    element("p", { class: "note" }, "Interquartile mean over runs with a stratified bootstrap 95 % interval." + target));
  box.classList.add("wide");
  return box;
}

function plot(holder, options, series) {
  const style = getComputedStyle(document.documentElement);
  const [muted, rule] = [style.getPropertyValue("--muted"), style.getPropertyValue("--rule")];
  const axis = { stroke: muted, grid: { stroke: rule, width: 1 }, ticks: { stroke: rule }, font: "11px system-ui" };
  const values = (u, splits) => splits.map(compact);
  const size = () => ({ width: Math.max(240, holder.clientWidth), height: options.height });
  const u = new uPlot({
    ...size(), series: options.series, bands: options.bands, hooks: options.hooks ?? {},
    cursor: { drag: { x: true, y: true, uni: 24 } },
    scales: { x: { time: false } }, legend: { show: true },
    axes: [{ ...axis, values, label: options.xLabel, labelSize: 18, labelFont: "12px system-ui" },
      { ...axis, values, size: 56 }],
  }, series, holder);
  new ResizeObserver(() => u.setSize(size())).observe(holder);
  return u;
}

function curvesCard(section) {
  if (!section.curves.length) return null;
  const choice = element("select", { "aria-label": "metric" },
    ...section.curves.map((curves, i) => element("option", { value: i }, curves.metric)));
  const holder = element("div");
  const several = section.rows.some((row) => row.runs > 1);
  const note = (several ? "Line: mean over seeds; band: middle half. " : "") + "Drag to zoom, double-click to go back.";
  const box = card(null, element("div", { class: "head" }, element("h3", {}, "Learning curves"), choice), holder,
    element("p", { class: "note" }, note));
  box.classList.add("wide");
  const draw = () => {
    holder.replaceChildren();
    const curves = section.curves[choice.value];
    const series = [{ label: "step", value: (u, x) => (x === null ? "" : x.toLocaleString("en")) }];
    const columns = [curves.steps];
    const bands = [];
    curves.groups.forEach((group, i) => {
      const value = (u, x) => number(x);
      const hidden = { label: "", stroke: "transparent", width: 0, points: { show: false }, spanGaps: true };
      columns.push(group.mean, group.high, group.low);
      series.push({ label: section.rows[i].label, stroke: color(i), width: 2, value, spanGaps: true,
        points: { show: group.mean.filter((x) => x !== null).length < 2 } }, { ...hidden, class: "band" }, { ...hidden, class: "band" });
      bands.push({ series: [3 * i + 2, 3 * i + 3], fill: color(i) + "2e" });
    });
    // A curve's band goes and comes with it.
    const setSeries = [(u, i, { show }) => {
      if (i % 3 === 1 && show !== undefined) for (const edge of [i + 1, i + 2]) u.setSeries(edge, { show });
    }];
    plot(holder, { series, bands, hooks: { setSeries }, height: 360, xLabel: "steps" }, columns);
    // The edges of a band are no curves of their own.
    holder.querySelectorAll(".u-legend .band, .u-legend tr.band").forEach((row) => row.remove());
  };
  choice.addEventListener("change", draw);
  requestAnimationFrame(draw);
  return box;
}

function profileCard(section) {
  if (!section.profile) return null;
  const holder = element("div");
  const shown = section.profile.groups.map((shares, i) => [shares, i]).filter(([shares]) => shares.length).slice(0, 8);
  const series = [{ label: section.objective, value: (u, x) => number(x) },
    ...shown.map(([, i]) => ({ label: section.rows[i].label, stroke: color(i), width: 2,
      points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }), value: (u, x) => number(x) }))];
  requestAnimationFrame(() => plot(holder, { series, height: 260, xLabel: section.objective },
    [section.profile.thresholds, ...shown.map(([shares]) => shares)]));
  return card("Performance profile", holder,
    element("p", { class: "note" }, `Share of runs that score ${section.maximize ? "above" : "below"} a value.`));
}

function pairsCard(section) {
  if (!section.pairs.length) return null;
  const rows = section.pairs.map((pair) => element("tr", {}, element("td", {}, pair.better), element("td", {}, pair.worse),
    element("td", { class: "range" }, range(pair.probability, 0, 1, "#3d6be0", 0.5)),
    element("td", { class: "n" }, pair.probability.estimate.toFixed(2))));
  return card("Probability of improvement", element("div", { class: "scroll" }, element("table", {},
    element("tr", {}, element("th", {}, "this"), element("th", {}, "over this"), element("th"), element("th")), ...rows)),
  element("p", { class: "note" }, "The chance that a run of the first beats a run of the second; an interval that " +
    "crosses one half (dashed) is no evidence."));
}

// One vertical axis a key, one line a configuration; the colour is the score.
function parallelCard(section) {
  const keys = section.keys;
  if (!keys) return null;
  const [width, height, top] = [Math.max(1100, 170 * (keys.keys.length + 1)), 250, 34];
  const svg = element("svg", { viewBox: `0 0 ${width} ${height + top + 16}`, style: `min-width:${width * 0.6}px` });
  const columns = [...keys.keys.map((key, k) => ({ key, values: keys.rows.map((row) => row.values[k]) })),
    { key: section.objective, values: keys.rows.map((row) => row.score) }];
  const gap = (width - 200) / Math.max(1, columns.length - 1);
  columns.forEach((column, c) => {
    column.x = 100 + gap * c;
    const numeric = column.values.every((value) => typeof value === "number");
    const distinct = [...new Set(column.values.map((value) => JSON.stringify(value)))].sort();
    if (numeric) {
      const [low, high] = [Math.min(...column.values), Math.max(...column.values)];
      const log = low > 0 && high / low > 50;
      const place = (x) => (log ? Math.log(x) : x);
      column.y = (value) => top + height * (high > low ? 1 - (place(value) - place(low)) / (place(high) - place(low)) : 0.5);
      column.ticks = [low, log ? Math.sqrt(low * high) : (low + high) / 2, high].map((x) => [number(x), column.y(x)]);
    } else {
      const at = (text) => top + height * (distinct.length > 1 ? 1 - distinct.indexOf(text) / (distinct.length - 1) : 0.5);
      column.y = (value) => at(JSON.stringify(value));
      column.ticks = distinct.map((text) => [text.replaceAll('"', ""), at(text)]);
    }
  });
  const scores = keys.rows.map((row) => row.score);
  const [low, high] = [Math.min(...scores), Math.max(...scores)];
  const order = keys.rows.map((row, r) => [row, r]).sort((a, b) => (section.maximize ? 1 : -1) * (a[0].score - b[0].score));
  for (const [row, r] of order) {
    const share = high > low ? (row.score - low) / (high - low) : 1;
    const good = section.maximize ? share : 1 - share;
    const points = columns.map((column) => `${column.x} ${column.y(column.values[r])}`);
    const stroke = `hsl(${225 + 140 * good} ${50 + 35 * good}% ${62 - 8 * good}%)`;
    svg.append(element("path", { d: `M${points.join("L")}`, stroke },
      element("title", {}, `${row.label}: ${number(row.score)}`)));
  }
  for (const column of columns) {
    svg.append(element("line", { class: "axis", x1: column.x, x2: column.x, y1: top, y2: top + height }));
    svg.append(element("text", { x: column.x, y: 16, "text-anchor": "middle" }, column.key.replace(/^agent\.|^model\./, "")));
    for (const [text, y] of column.ticks) {
      svg.append(element("text", { x: column.x - 6, y: y + 4, "text-anchor": "end", class: "tick" }, text));
    }
  }
  const box = card("Configurations", element("div", { class: "parallel scroll" }, svg),
    element("p", { class: "note" }, "A line a configuration, the best in orange."));
  box.classList.add("wide");
  return box;
}

function importanceCard(section) {
  if (!section.keys || !section.keys.importance.length) return null;
  const rows = section.keys.importance.map((item) => element("tr", {}, element("td", { class: "key" }, item.key),
    element("td", {}, element("div", { class: "bar" }, element("i", { style: `width:${100 * item.share}%` }))),
    element("td", { class: "n" }, `${(100 * item.share).toFixed(0)} %`)));
  return card("What matters", element("div", { class: "scroll" }, element("table", {}, ...rows)),
    element("p", { class: "note" }, "Share of the variance between configurations that each key explains alone (η²). " +
      "Few configurations make it large by chance."));
}

function differenceCard(section) {
  if (!section.difference.length) return null;
  const rows = section.difference.map(([key, base, best]) => element("tr", {}, element("td", { class: "key" }, key),
    element("td", { class: "n" }, base), element("td", { class: "n" }, best)));
  const head = element("tr", {}, element("th", {}, "key"), element("th", { class: "n" }, "base"),
    element("th", { class: "n" }, "best"));
  return card("The best configuration against the base",
    element("div", { class: "scroll" }, element("table", {}, head, ...rows)));
}

function mediaCard(section) {
  if (!section.media.length) return null;
  const figures = section.media.map((medium) => element("figure", {},
    element("img", { src: medium.uri, alt: medium.caption, loading: "lazy" }), element("figcaption", {}, medium.caption)));
  const box = card("Pictures", element("div", { class: "media" }, ...figures));
  box.classList.add("wide");
  return box;
}

document.querySelector("h1").textContent = data.title;
const runs = data.sections.reduce((sum, section) => sum + section.rows.reduce((n, row) => n + row.runs, 0), 0);
document.querySelector(".sub").textContent = `${runs} run${runs === 1 ? "" : "s"} · ` +
  data.sections.map((section) => section.name).join(", ");
for (const section of data.sections) {
  main.append(element("h2", {}, section.name));
  const cards = [resultsTable(section), curvesCard(section), profileCard(section), pairsCard(section),
    differenceCard(section), importanceCard(section), parallelCard(section), mediaCard(section)];
  main.append(element("div", { class: "grid" }, ...cards.filter(Boolean)));
}
if (data.failed.length) {
  main.append(element("h2", {}, "Failed trials"),
    card(null, ...data.failed.map((line) => element("div", { class: "problem" }, line))));
}
const facts = data.environment.flatMap(([key, value]) => [element("dt", {}, key), element("dd", {}, value)]);
document.querySelector("footer").append("Made by hotfire report.", element("dl", {}, ...facts));
