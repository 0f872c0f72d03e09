"use strict";
// The interactive parts of the page: the pad to draw on and the confusion matrix.

const element = (id) => document.getElementById(id);
const read = (id) => (element(id) ? JSON.parse(element(id).textContent) : null);

// Returns a figure with a digit from the page's sprite sheet; it shows the digit on the pad.
function digitOf({ position, caption, title }) {
  const figure = element("digit-template").content.firstElementChild.cloneNode(true);
  const digit = figure.querySelector(".digit");
  digit.title = title;
  digit.ariaLabel = `${title}: show on the pad`;
  digit.style.setProperty("--column", position[0]);
  digit.style.setProperty("--row", position[1]);
  figure.querySelector("figcaption").textContent = caption;
  return figure;
}

// Shows the digits of a cell on a click, and at first those of the most frequent mistake.
function listenToConfusion(table, cells) {
  const shown = element("cell");
  const show = (button) => {
    const { title, count, examples } = cells[button.dataset.cell];
    table.querySelectorAll("[aria-pressed=true]").forEach((other) => {
      other.setAttribute("aria-pressed", "false");
    });
    button.setAttribute("aria-pressed", "true");
    const subset = examples.length < count ? `, the ${examples.length} worst` : "";
    shown.querySelector("h4").textContent = title + subset;
    shown.querySelector(".digits").replaceChildren(...examples.map(digitOf));
    shown.hidden = false;
  };
  table.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) show(button);
  });
  const countOf = (button) => cells[button.dataset.cell].count;
  const mistakes = [...table.querySelectorAll(".wrong button")];
  if (mistakes.length) show(mistakes.reduce((a, b) => (countOf(b) > countOf(a) ? b : a)));
}

// Paints numbers as pixels in a canvas of the given width; color maps a number to RGBA.
function paint(canvas, numbers, columns, color) {
  canvas.width = columns;
  canvas.height = Math.ceil(numbers.length / columns);
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(canvas.width, canvas.height);
  numbers.forEach((number, i) => pixels.data.set(color(number), 4 * i));
  context.putImageData(pixels, 0, 0);
}

const gray = (ink) => [255 * ink, 255 * ink, 255 * ink, 255];

// The images on the page's sprite sheet.
class Sheet {
  constructor(side) {
    this.side = side;
    this.canvas = document.createElement("canvas");
    this.canvas.width = this.canvas.height = side;
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
  }

  async load() {
    this.image = new Image();
    this.image.src = getComputedStyle(document.querySelector(".digit")).backgroundImage.slice(5, -2);
    await this.image.decode();
    return this;
  }

  // Returns the image at a column and row as numbers from 0 to 1; it stays in the canvas.
  pixels(column, row) {
    const { side } = this;
    this.context.drawImage(this.image, -side * column, -side * row);
    const { data } = this.context.getImageData(0, 0, side, side);
    return Float64Array.from({ length: side ** 2 }, (_, pixel) => data[4 * pixel] / 255);
  }
}

// The pad, the image as the network sees it, and the answer of the network.
class Board {
  constructor(board, network, sheet, explorer, steps) {
    this.network = network;
    this.sheet = sheet;
    this.explorer = explorer;
    this.steps = steps;
    this.side = Math.sqrt(network.inputs);
    this.strokes = [];
    this.canvas = board.querySelector("#draw");
    this.context = this.canvas.getContext("2d");
    this.seen = board.querySelector("#seen");
    this.evidence = board.querySelector("#evidence");
    this.answer = board.querySelector("#answer");
    this.certainty = board.querySelector("#certainty");
    this.source = board.querySelector("#source");
    this.bars = [...board.querySelectorAll(".bar")];
    this.listen(board);
    this.clear();
  }

  listen(board) {
    this.canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      event.preventDefault();
      this.canvas.setPointerCapture(event.pointerId);
      this.strokes.push([]);
      this.drawing = event.pointerId;
      this.extend([event]);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (event.pointerId !== this.drawing) return;
      const coalesced = event.getCoalescedEvents?.() ?? [];
      this.extend(coalesced.length ? coalesced : [event]);
    });
    for (const end of ["pointerup", "pointercancel"]) {
      this.canvas.addEventListener(end, () => (this.drawing = null));
    }
    board.querySelector("#clear").addEventListener("click", () => this.clear());
    document.addEventListener("click", (event) => {
      const digit = event.target.closest("figure.example .digit");
      if (digit) this.show(digit).then(() => this.canvas.scrollIntoView({ block: "nearest" }));
    });
  }

  // Adds points to the current stroke and classifies the drawing.
  extend(events) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    for (const { clientX, clientY } of events) {
      this.strokes.at(-1).push({ x: (clientX - left) / width, y: (clientY - top) / height });
    }
    this.redraw();
    this.source.textContent = "Your drawing.";
    this.classify(imageOf(this.strokes, this.side));
  }

  redraw() {
    const { context } = this;
    const { width, height } = this.canvas;
    context.clearRect(0, 0, width, height);
    context.lineWidth = PEN * width;
    context.lineCap = context.lineJoin = "round";
    context.strokeStyle = "white";
    for (const stroke of this.strokes) trace(context, stroke, width, { x: 0, y: 0 });
  }

  clear() {
    this.strokes = [];
    this.redraw();
    this.context.fillStyle = "#808080";
    this.context.font = "20px system-ui, sans-serif";
    this.context.textAlign = "center";
    this.context.fillText("draw here", this.canvas.width / 2, this.canvas.height / 2);
    const blank = new Float64Array(this.side ** 2);
    paint(this.seen, blank, this.side, gray);
    paintSigned(this.evidence, blank, this.side);
    this.say("", "");
    this.source.textContent = "Draw here.";
    for (const bar of this.bars) this.fill(bar, null);
    this.steps.clear();
  }

  // Shows and classifies a digit of the page instead of a drawing.
  async show(digit) {
    const sheet = await this.sheet;
    const [column, row] = ["--column", "--row"].map((name) => digit.style.getPropertyValue(name));
    const pixels = sheet.pixels(column, row);
    this.clear();
    this.context.imageSmoothingEnabled = false;
    this.context.drawImage(sheet.canvas, 0, 0, this.canvas.width, this.canvas.height);
    this.source.textContent = `${digit.title[0].toUpperCase()}${digit.title.slice(1)}. Draw over it.`;
    this.classify(pixels);
  }

  classify(image) {
    const passed = this.network.forward(image);
    const outputs = [...passed.at(-1).a];
    const [yes] = outputs; // the output of a binary classifier
    const shown = outputs.length === 1 ? [1 - yes, yes] : outputs;
    const ranked = shown.map((_, i) => i).sort((a, b) => shown[b] - shown[a]);
    const best = outputs.length === 1 ? Number(yes >= 0.5) : ranked[0];
    const second = ranked.find((i) => i !== best);
    const [name, other] = [best, second].map((i) => this.bars[i].dataset.name);
    paint(this.seen, image, this.side, gray);
    this.bars.forEach((bar, i) => this.fill(bar, shown[i], i === best));
    this.say(name, `${shown[best].toFixed(3)}; next: ${other}, ${shown[second].toFixed(3)}`);
    this.showEvidence(image, outputs.length, best, second, name, other);
    this.explorer.show(passed);
    this.steps.show(image, passed, best, second);
  }

  // Colors the pixels that speak for the answer and for the class with the second largest output.
  showEvidence(image, units, best, second, name, other) {
    const coefficients = coefficientsOf(units, best, second);
    const contributions = this.network.contributions(image, coefficients);
    paintSigned(this.evidence, contributions, this.side);
    const caption = contributions.some(Boolean)
      ? `blue pixels speak for ${name}, orange ones for ${other}`
      : "no pixel changes the answer";
    this.evidence.ariaLabel = caption;
    this.evidence.closest("figure").querySelector("figcaption").textContent = caption;
  }

  say(answer, certainty) {
    this.answer.textContent = answer;
    this.certainty.textContent = certainty;
  }

  // Shows an output as a bar; an output that is not a probability is clipped to 0..1.
  fill(bar, output, best = false) {
    const share = Math.min(Math.max(output ?? 0, 0), 1);
    bar.style.setProperty("--share", `${100 * share}%`);
    bar.classList.toggle("best", best);
    bar.querySelector("output").textContent = output === null ? "" : output.toFixed(3);
  }
}

// Returns the test images that are first on the sheet, each with its pixels.
async function samplesOf(loading) {
  const sheet = await loading;
  return (read("samples-data") ?? []).map((example) => ({
    example,
    pixels: sheet.pixels(...example.position),
  }));
}

const description = read("network");
const network = description && new Network(description);
if (network && element("board")) {
  const first = document.querySelector("#samples .digit");
  const sheet = first && new Sheet(Math.sqrt(network.inputs)).load();
  const classes = [...document.querySelectorAll(".bar")].map((bar) => bar.dataset.name);
  const explorer = new Explorer(element("explorer"), network, samplesOf(sheet), classes);
  const steps = new Steps(element("steps"), network, classes);
  const board = new Board(element("board"), network, sheet, explorer, steps);
  if (first) board.show(first);
}
const cells = read("confusion-digits");
if (cells) listenToConfusion(element("confusion"), cells);
