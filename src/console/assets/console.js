// Draws charts, and brings what is marked `data-live` up to date. Every page says the same without it.
"use strict";

(() => {
  const LIVE_EVERY_MS = 5000;

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // What each chart draws: the names of the series in the answer, and how they are shown.
  const CHARTS = {
    clicks: {
      unit: "/s",
      least: 1,
      lines: [
        { series: "offers", label: "to offers", colour: "--series-1", fill: true },
        { series: "fallbacks", label: "to fallbacks", colour: "--series-2" },
        { series: "others", label: "bots, probes, refused", colour: "--series-3", dash: [4, 4] },
      ],
    },
    fill: {
      unit: " %",
      most: 100,
      lines: [{ series: "fill_rate", label: "fill rate", colour: "--series-1", fill: true }],
    },
  };

  const two = (number) => String(number).padStart(2, "0");

  const clock = (seconds, fine) => {
    const at = new Date(seconds * 1000);
    return `${two(at.getHours())}:${two(at.getMinutes())}` + (fine ? `:${two(at.getSeconds())}` : "");
  };

  // Of a young process there is little to draw: a minute has room all the same.
  const range = (_, from, to) => {
    const end = to || Date.now() / 1000;
    return [Math.min(from || end, end - 60), end];
  };

  // The samples that have none before and none after them.
  const alone = (plot, nth) => {
    const values = plot.data[nth];
    const has = (index) => values[index] !== null && values[index] !== undefined;
    return [...values.keys()].filter((index) => has(index) && !has(index - 1) && !has(index + 1));
  };

  // Between ticks of the time axis, in seconds. Two minutes, too, so that there are always several.
  const STEPS = [5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];

  // Of a label such as 20:15:30, and some room to the next.
  const LABEL_WIDTH = 66;

  const options = (chart, width) => {
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    const most = (top) => (chart.most ? chart.most : Math.max(top || 0, chart.least) * 1.1);
    return {
      width,
      height: 210,
      // The label at the end is in the middle of its tick, too.
      padding: [null, LABEL_WIDTH / 2, null, null],
      cursor: { drag: { x: false, y: false } },
      scales: { x: { time: true, range }, y: { range: (_, __, top) => [0, most(top)] } },
      axes: [
        {
          ...axis,
          size: 30,
          incrs: STEPS,
          space: LABEL_WIDTH,
          values: (_, ticks, __, ___, step) => ticks.map((tick) => clock(tick, step < 60)),
        },
        { ...axis, size: 52, values: (_, ticks) => ticks.map((tick) => `${tick}`) },
      ],
      series: [
        { label: "at", value: (_, at) => (at ? clock(at, true) : "–") },
        ...chart.lines.map((line) => ({
          label: line.label,
          stroke: colour(line.colour),
          width: 1.6,
          dash: line.dash,
          fill: line.fill ? colour(line.colour) + "22" : undefined,
          // Between others it is a line; alone it would be nothing.
          points: { size: 4, width: 0, fill: colour(line.colour), filter: alone },
          value: (_, value) => (value === null || value === undefined ? "–" : value.toFixed(1) + chart.unit),
        })),
      ],
    };
  };

  const columns = (chart, answer) => [answer.at, ...chart.lines.map((line) => answer[line.series])];

  const startCharts = (place) => {
    const drawn = new Map();
    let answer = null;

    const draw = (anew) => {
      for (const element of place.querySelectorAll("[data-chart]")) {
        const chart = CHARTS[element.dataset.chart];
        if (!chart) continue;
        const plot = drawn.get(element);
        if (plot && !anew) {
          plot.setData(columns(chart, answer));
          continue;
        }
        if (plot) plot.destroy();
        drawn.set(element, new uPlot(options(chart, element.clientWidth), columns(chart, answer), element));
      }
    };

    const load = async () => {
      const reply = await fetch(place.dataset.series, { headers: { Accept: "application/json" } });
      if (!reply.ok) return;
      answer = await reply.json();
      draw(false);
    };

    new ResizeObserver(() => {
      for (const [element, plot] of drawn) {
        if (plot.width !== element.clientWidth) plot.setSize({ width: element.clientWidth, height: 210 });
      }
    }).observe(place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => answer && draw(true));
    return load;
  };

  // Asks for the same page again and takes over what is live. What has the focus is left alone.
  const refresh = async () => {
    const reply = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (reply.redirected) return location.reload();
    if (!reply.ok) return;
    const page = new DOMParser().parseFromString(await reply.text(), "text/html");
    for (const old of document.querySelectorAll("[data-live][id]")) {
      const fresh = page.getElementById(old.id);
      if (fresh && !old.contains(document.activeElement)) old.replaceChildren(...fresh.childNodes);
    }
  };

  const tasks = [...document.querySelectorAll("[data-series]")].map(startCharts);
  for (const load of tasks) load().catch(() => {});
  if (document.querySelector("main [data-live]")) tasks.push(refresh);

  let busy = false;
  setInterval(async () => {
    if (document.hidden || busy) return;
    busy = true;
    // The node may be away for a moment; the page stays as it was.
    await Promise.allSettled(tasks.map((task) => task()));
    busy = false;
  }, LIVE_EVERY_MS);
})();
