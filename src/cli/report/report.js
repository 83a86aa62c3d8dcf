// Draws the two charts from the numbers in the page; again when the colours of the page change, wider when it gets wider.
(() => {
  'use strict';
  const data = JSON.parse(document.getElementById('series').textContent);
  const at = id => document.getElementById(id);
  const charts = [];
  const total = data.seconds.map((_, i) => data.offers[i] + data.fallbacks[i]);
  const rate = total.map((clicks, i) => clicks ? data.offers[i] / clicks * 100 : null);
  const number = value => value == null ? '–' : value.toLocaleString('en-US');
  const percent = value => value == null ? '–' : value.toFixed(1) + ' %';
  const short = value =>
    value >= 1e6 ? value / 1e6 + ' M' : value >= 1e4 ? value / 1e3 + ' k' : number(value);
  const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const bars = uPlot.paths.bars({ size: [0.85, 40] });
  const format = data.step < 24 * 3600 ? '{YYYY}-{MM}-{DD} {HH}:{mm}' : '{YYYY}-{MM}-{DD}';

  // No part of a click, and nothing between two points.
  const counts = Array.from({ length: 13 }, (_, power) => [1, 2, 5].map(digit => digit * 10 ** power)).flat();
  const hour = 3600, day = 24 * hour;
  const times = [60, 120, 300, 600, 900, 1800, hour, 2 * hour, 3 * hour, 4 * hour, 6 * hour, 12 * hour, day, 2 * day, 7 * day,
    14 * day, 28 * day, 91 * day, 182 * day, 365 * day, 1826 * day].filter(step => step >= data.step);

  const axes = values => {
    const axis = {
      stroke: colour('--soft'),
      font: '12px system-ui, sans-serif',
      grid: { stroke: colour('--grid'), width: 1 },
      ticks: { show: false },
    };
    // From the step on: how it is spelled, and what is added where the day begins.
    const date = '{YYYY}-{MM}-{DD}';
    const dates = [
      [28 * day, date, null, null, null, null, null, null, 1],
      [day, '{MM}-{DD}', '\n{YYYY}', null, null, null, null, null, 1],
      [60, '{HH}:{mm}', '\n' + date, null, '\n{MM}-{DD}', null, null, null, 1],
    ];
    return [
      { ...axis, grid: { show: false }, values: dates, incrs: times },
      { ...axis, size: 64, incrs: counts, values: (_, all) => all.map(values) },
    ];
  };

  const draw = (id, series, columns, scales, values) => {
    const place = at(id);
    const options = {
      width: place.clientWidth,
      height: 190,
      tzDate: second => uPlot.tzDate(new Date(second * 1000), 'Etc/UTC'),
      cursor: { sync: { key: 'time' }, y: false },
      scales: { x: { range: (_, min, max) => [min - data.step / 2, max + data.step / 2] }, ...scales },
      axes: axes(values),
      series: [{ label: 'Time', value: format }, ...series],
    };
    charts.push(new uPlot(options, [data.seconds, ...columns], place));
  };

  const drawAll = () => {
    charts.splice(0).forEach(chart => chart.destroy());
    const hidden = { show: false };
    draw('clicks', [
      // The bar of all clicks, and before it that of the ones with an offer: what is left to be seen went to a fallback.
      { label: 'to a fallback', fill: colour('--fallback'), width: 0, paths: bars, points: hidden,
        value: (_, value, __, i) => i == null ? '–' : number(data.fallbacks[i]) },
      { label: 'to an offer', fill: colour('--offer'), width: 0, paths: bars, points: hidden,
        value: (_, value) => number(value) },
    ], [total, data.offers], { y: { range: (_, min, max) => [0, Math.max(max, 1) * 1.05] } }, short);
    draw('rate', [
      { label: 'Fill rate', stroke: colour('--offer'), width: 2, value: (_, value) => percent(value),
        points: { show: rate.length < 60, size: 5, fill: colour('--offer') } },
    ], [rate], { y: { range: [0, 100] } }, value => value + ' %');
  };

  drawAll();
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawAll);
  let width = at('clicks').clientWidth;
  new ResizeObserver(() => {
    if (at('clicks').clientWidth === width) return;
    width = at('clicks').clientWidth;
    charts.forEach(chart => chart.setSize({ width, height: 190 }));
  }).observe(at('clicks'));
})();
