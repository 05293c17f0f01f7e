"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const SVG = "http://www.w3.org/2000/svg";

// --- what a mark or a cell says, on hover and on focus -------------------------------------------------------------
const tip = document.getElementById("tip");
let told = null;

function tell(element) {
  hush();
  told = element;
  tip.textContent = element.dataset.tip;
  tip.hidden = false;
  element.setAttribute("aria-describedby", "tip");
  const box = (element.querySelector(".reach") || element).getBoundingClientRect();
  const room = 8;
  const left = Math.min(Math.max(room, box.left + box.width / 2 - tip.offsetWidth / 2), innerWidth - tip.offsetWidth - room);
  const above = box.top - tip.offsetHeight - room;
  tip.style.left = `${Math.max(room, left)}px`;
  tip.style.top = `${above < room ? box.bottom + room : above}px`;
  const row = element.dataset.row && element.closest(".panel:has(table)")?.querySelector(`tr[data-row="${element.dataset.row}"]`);
  if (row) row.classList.add("on");
}

function hush() {
  if (!told) return;
  told.removeAttribute("aria-describedby");
  all(".on").forEach((row) => row.classList.remove("on"));
  tip.hidden = true;
  told = null;
}

const pointed = (event) => event.target.closest && event.target.closest("[data-tip]");
document.addEventListener("pointerover", (event) => {
  const found = pointed(event);
  if (found) tell(found);
  else if (told && told !== document.activeElement) hush();
});
document.addEventListener("focusin", (event) => (pointed(event) ? tell(pointed(event)) : hush()));
document.addEventListener("focusout", hush);
document.addEventListener("keydown", (event) => event.key === "Escape" && hush());
addEventListener("scroll", () => told && told !== document.activeElement && hush(), { passive: true });

all(".mark").forEach((mark) => {
  mark.setAttribute("role", "img");
  mark.setAttribute("tabindex", 0);
  mark.setAttribute("aria-label", mark.dataset.tip.replaceAll("\n", "; "));
});

// --- one stop of the tab key for each table and chart, arrow keys inside -------------------------------------------
function rove(container, cells, columns) {
  const focusable = () => cells().filter((cell) => cell.getClientRects().length);
  const only = (chosen) => cells().forEach((cell) => cell.setAttribute("tabindex", cell === chosen ? 0 : -1));
  const first = cells()[0];
  if (!first) return;
  only(first);
  container.addEventListener("focusin", (event) => pointed(event) && only(pointed(event)));
  container.addEventListener("keydown", (event) => {
    const here = focusable();
    const at = here.indexOf(document.activeElement);
    const goal = at < 0 ? undefined : columns(event.key, here, at);
    if (goal && goal !== document.activeElement) {
      event.preventDefault();
      goal.focus();
    }
  });
}

function along(key, here, at) {
  const steps = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: here.length - 1 };
  return here[steps[key]];
}

function across(key, here, at) {
  const row = here[at].parentElement;
  if (key === "ArrowRight" || key === "ArrowLeft") return along(key, here, at);
  if (key === "Home" || key === "End") {
    const own = here.filter((cell) => cell.parentElement === row);
    return key === "Home" ? own[0] : own[own.length - 1];
  }
  if (key !== "ArrowUp" && key !== "ArrowDown") return undefined;
  const rows = [...row.parentElement.children];
  const next = rows[rows.indexOf(row) + (key === "ArrowDown" ? 1 : -1)];
  return next && here.find((cell) => cell.parentElement === next && cell.cellIndex >= here[at].cellIndex);
}

all("tbody[data-roving]").forEach((body) => rove(body, () => all("[data-tip]", body), across));
all(".chart").forEach((chart) => rove(chart, () => all(".mark", chart), along));

// --- sorting -------------------------------------------------------------------------------------------------------
function key(row, column) {
  const text = (row.cells[column] ? row.cells[column].textContent : "").trim();
  const number = parseFloat(text.replace(/[−–]/g, "-").replace(/,/g, ""));
  return { text, number: /^[-+−]?[\d.]/.test(text) ? number : NaN };
}

function sort(heading) {
  const table = heading.closest("table");
  const column = heading.cellIndex;
  const down = heading.getAttribute("aria-sort") === "ascending";
  all("th[aria-sort]", table).forEach((other) => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => ({ row, ...key(row, column) }));
  const numeric = rows.some((one) => !isNaN(one.number)) && rows.every((one) => !isNaN(one.number) || /^$|^[-–]/.test(one.text));
  const last = (one) => (numeric ? isNaN(one.number) : one.text === "");
  rows.sort((one, other) => {
    if (last(one) || last(other)) return last(one) - last(other);
    const order = numeric ? one.number - other.number : one.text.localeCompare(other.text, "en", { numeric: true });
    return down ? -order : order;
  });
  body.append(...rows.map((one) => one.row));
}

all("table.sortable thead button").forEach((button) => button.addEventListener("click", () => sort(button.parentElement)));

// --- tabs ----------------------------------------------------------------------------------------------------------
function choose(tab, tabs) {
  tabs.forEach((other) => {
    const chosen = other === tab;
    other.setAttribute("aria-selected", chosen);
    other.tabIndex = chosen ? 0 : -1;
    document.getElementById(other.getAttribute("aria-controls")).hidden = !chosen;
  });
}

all(".tabs").forEach((list) => {
  const tabs = all("button", list);
  list.hidden = false;
  choose(tabs[0], tabs);
  list.addEventListener("click", (event) => tabs.includes(event.target) && choose(event.target, tabs));
  list.addEventListener("keydown", (event) => {
    const goal = along(event.key, tabs, tabs.indexOf(document.activeElement));
    if (!goal) return;
    event.preventDefault();
    choose(goal, tabs);
    goal.focus();
  });
});

// --- families ------------------------------------------------------------------------------------------------------
all(".families").forEach((field) => {
  field.hidden = false;
  field.addEventListener("change", () => {
    const off = new Set(all("input:not(:checked)", field).map((box) => box.value));
    all("[data-family]", field.parentElement).forEach((part) => part.classList.toggle("off", off.has(part.dataset.family)));
  });
});

// --- zoom: the view is a scale k and a shift of the drawn coordinates ----------------------------------------------
function nice(low, high) {
  const raw = (high - low) / 6;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= raw);
  const ticks = [];
  for (let at = Math.ceil(low / step); at * step <= high; at++) ticks.push(+(at * step).toPrecision(10));
  return ticks;
}

function decades(low, high) {
  if (high / low < 8) return nice(low, high);
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
    for (const part of [1, 2, 5]) ticks.push(+(part * 10 ** power).toPrecision(3));
  return ticks.filter((tick) => tick >= low && tick <= high);
}

class Zoom {
  constructor(figure) {
    this.svg = figure.querySelector(".chart");
    const { x, y, width, height, h, v } = this.svg.dataset;
    this.box = { x: +x, y: +y, width: +width, height: +height };
    this.scales = [h, v].map((text) => {
      const [kind, low, high] = text.split(" ");
      const log = kind === "log";
      return { log, low: log ? Math.log(low) : +low, high: log ? Math.log(high) : +high };
    });
    this.lines = this.svg.querySelector(".zoomed");
    this.parts = all("[data-x]", this.svg);
    this.ticks = this.svg.querySelector(".ticks");
    this.view = { k: 1, x: 0, y: 0 };
    const bar = figure.querySelector(".zoom");
    bar.hidden = false;
    bar.addEventListener("click", (event) => this.press(event.target.dataset.zoom));
    this.svg.addEventListener("pointerdown", (event) => event.pointerType === "mouse" && event.button === 0 && this.drag(event));
    this.svg.addEventListener("dblclick", () => this.press("reset"));
  }

  press(what) {
    const { x, y, width, height } = this.box;
    if (what === "reset") this.show({ k: 1, x: 0, y: 0 });
    if (what === "in") this.about(x + width / 2, y + height / 2, 1.6);
    if (what === "out") this.about(x + width / 2, y + height / 2, 1 / 1.6);
  }

  about(x, y, factor) {
    const k = this.view.k * factor;
    this.show({ k, x: x - (x - this.view.x) * factor, y: y - (y - this.view.y) * factor });
  }

  show(view) {
    const k = Math.min(Math.max(view.k, 1), 60);
    const { x, y, width, height } = this.box;
    const held = (shift, low, size) => Math.min(Math.max(shift, (low + size) * (1 - k)), low * (1 - k));
    this.view = { k, x: held(view.x, x, width), y: held(view.y, y, height) };
    this.draw();
  }

  draw() {
    const { k, x, y } = this.view;
    const box = this.box;
    this.lines.setAttribute("transform", `matrix(${k} 0 0 ${k} ${x} ${y})`);
    this.svg.classList.toggle("closer", k !== 1);
    this.parts.forEach((part) => {
      const from = [+part.dataset.x, +part.dataset.y];
      const to = [k * from[0] + x, k * from[1] + y];
      const inside = to[0] >= box.x - 1 && to[0] <= box.x + box.width + 1 && to[1] >= box.y - 1 && to[1] <= box.y + box.height + 1;
      part.setAttribute("transform", `translate(${to[0] - from[0]} ${to[1] - from[1]})`);
      part.classList.toggle("out", !inside);
    });
    this.ticks.replaceChildren(...(k === 1 ? [] : [...this.marks(0), ...this.marks(1)]));
  }

  marks(axis) {
    const { k, x, y } = this.view;
    const box = this.box;
    const scale = this.scales[axis];
    const [start, size, shift] = axis === 0 ? [box.x, box.width, x] : [box.y + box.height, -box.height, y];
    const place = (value) => k * (start + (size * ((scale.log ? Math.log(value) : value) - scale.low)) / (scale.high - scale.low)) + shift;
    const value = (at) => {
      const found = scale.low + (((at - shift) / k - start) / size) * (scale.high - scale.low);
      return scale.log ? Math.exp(found) : found;
    };
    const [low, high] = [value(start), value(start + size)];
    return (scale.log ? decades(low, high) : nice(low, high)).flatMap((tick) => {
      const at = place(tick);
      const line = document.createElementNS(SVG, "line");
      const text = document.createElementNS(SVG, "text");
      const ends = axis === 0 ? [at, box.y, at, box.y + box.height] : [box.x, at, box.x + box.width, at];
      ["x1", "y1", "x2", "y2"].forEach((name, index) => line.setAttribute(name, ends[index]));
      text.setAttribute("x", axis === 0 ? at : box.x - 4);
      text.setAttribute("y", axis === 0 ? box.y + box.height + 11 : at + 3);
      text.setAttribute("text-anchor", axis === 0 ? "middle" : "end");
      text.textContent = String(tick);
      return [line, text];
    });
  }

  where(event) {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(this.svg.getScreenCTM().inverse());
    const { x, y, width, height } = this.box;
    return [Math.min(Math.max(point.x, x), x + width), Math.min(Math.max(point.y, y), y + height)];
  }

  drag(event) {
    const start = this.where(event);
    const choice = document.createElementNS(SVG, "rect");
    choice.setAttribute("class", "choice");
    let end = start;
    const move = (moved) => {
      end = this.where(moved);
      if (!choice.parentNode && Math.hypot(end[0] - start[0], end[1] - start[1]) > 5) this.svg.append(choice);
      const edges = { x: Math.min(start[0], end[0]), y: Math.min(start[1], end[1]) };
      choice.setAttribute("x", edges.x);
      choice.setAttribute("y", edges.y);
      choice.setAttribute("width", Math.abs(end[0] - start[0]));
      choice.setAttribute("height", Math.abs(end[1] - start[1]));
    };
    const stop = () => {
      removeEventListener("pointermove", move);
      removeEventListener("pointerup", stop);
      if (!choice.parentNode) return;
      choice.remove();
      const [wide, high] = [Math.abs(end[0] - start[0]), Math.abs(end[1] - start[1])];
      const { x, y, width, height } = this.box;
      const factor = Math.min(width / Math.max(wide, 1), height / Math.max(high, 1));
      const middle = [0, 1].map((axis) => ((start[axis] + end[axis]) / 2 - [this.view.x, this.view.y][axis]) / this.view.k);
      const k = Math.min(this.view.k * factor, 60);
      this.show({ k, x: x + width / 2 - k * middle[0], y: y + height / 2 - k * middle[1] });
    };
    event.preventDefault();
    addEventListener("pointermove", move);
    addEventListener("pointerup", stop);
  }
}

all("figure.zoomable").forEach((figure) => new Zoom(figure));

// --- light, dark, or as the system ---------------------------------------------------------------------------------
const THEMES = { "": ["light dark", "◐", "as the system"], light: ["light", "☀", "light"], dark: ["dark", "☾", "dark"] };
const toggle = document.getElementById("theme");

function paint(theme) {
  const [scheme, sign, name] = THEMES[theme] || THEMES[""];
  document.documentElement.style.colorScheme = scheme;
  toggle.textContent = sign;
  toggle.setAttribute("aria-label", `Colours: ${name}`);
  toggle.dataset.theme = theme;
}

function remembered(theme) {
  try {
    if (theme === undefined) return localStorage.getItem("senet-bench-theme") || "";
    localStorage.setItem("senet-bench-theme", theme);
  } catch {
    // a page opened from a file may have no storage
  }
  return theme || "";
}

toggle.hidden = false;
toggle.addEventListener("click", () => {
  const order = matchMedia("(prefers-color-scheme: dark)").matches ? ["", "light", "dark"] : ["", "dark", "light"];
  paint(remembered(order[(order.indexOf(toggle.dataset.theme) + 1) % 3]));
});
paint(remembered());
