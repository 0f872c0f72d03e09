"use strict";
// The interactive parts of the page: the drawing canvas and the confusion matrix.

const element = (id) => document.getElementById(id);
const read = (id) => (element(id) ? JSON.parse(element(id).textContent) : null);

// Returns a clickable figure with a digit from the page's sprite sheet.
function digitOf({ position, caption }) {
  const figure = element("digit-template").content.firstElementChild.cloneNode(true);
  const digit = figure.querySelector(".digit");
  digit.style.setProperty("--column", position[0]);
  digit.style.setProperty("--row", position[1]);
  figure.querySelector("figcaption").textContent = caption;
  return figure;
}

function listenToConfusion(table) {
  const cells = read("confusion-digits");
  const shown = element("cell");
  table.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const { title, count, examples } = cells[button.dataset.cell];
    table.querySelectorAll("[aria-pressed=true]").forEach((other) => {
      other.setAttribute("aria-pressed", "false");
    });
    button.setAttribute("aria-pressed", "true");
    const subset = examples.length < count ? `, the ${examples.length} worst of ${count}` : "";
    shown.querySelector("h4").textContent = title + subset;
    shown.querySelector(".digits").replaceChildren(...examples.map(digitOf));
    shown.hidden = false;
  });
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

function diverging(largest) {
  return (number) => {
    const opacity = largest ? Math.round((255 * Math.abs(number)) / largest) : 0;
    return number < 0 ? [59, 130, 246, opacity] : [234, 88, 12, opacity];
  };
}

// The drawing canvas, the preprocessed image, and the outputs of the network.
class Board {
  constructor(board, network) {
    this.network = network;
    this.side = Math.sqrt(network.inputs);
    this.strokes = [];
    this.canvas = board.querySelector("#draw");
    this.context = this.canvas.getContext("2d");
    this.seen = board.querySelector("#seen");
    this.answer = board.querySelector("#answer");
    this.bars = [...board.querySelectorAll(".bar")];
    this.layers = [...board.querySelectorAll("canvas.layer")];
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
      if (digit) this.show(digit);
    });
  }

  // Adds points to the current stroke and classifies the drawing.
  extend(events) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    for (const { clientX, clientY } of events) {
      this.strokes.at(-1).push({ x: (clientX - left) / width, y: (clientY - top) / height });
    }
    this.redraw();
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
    paint(this.seen, new Float64Array(this.side ** 2), this.side, gray);
    this.answer.textContent = "";
    for (const bar of this.bars) this.fill(bar, null);
    for (const layer of this.layers) paint(layer, [0], 1, diverging(0));
  }

  // Shows and classifies a digit of the page instead of a drawing.
  async show(digit) {
    const image = new Image();
    image.src = getComputedStyle(digit).backgroundImage.slice(5, -2);
    await image.decode();
    const [column, row] = ["--column", "--row"].map((name) => digit.style.getPropertyValue(name));
    const { side } = this;
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = side;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, -side * column, -side * row);
    const { data } = context.getImageData(0, 0, side, side);
    this.clear();
    this.context.imageSmoothingEnabled = false;
    this.context.drawImage(canvas, 0, 0, this.canvas.width, this.canvas.height);
    this.classify(Float64Array.from({ length: side ** 2 }, (_, pixel) => data[4 * pixel] / 255));
    this.canvas.scrollIntoView({ block: "nearest" });
  }

  classify(image) {
    const activations = this.network.activations(image);
    const outputs = [...activations.at(-1)];
    const [yes] = outputs; // the output of a binary classifier
    const shown = outputs.length === 1 ? [1 - yes, yes] : outputs;
    const best = outputs.length === 1 ? Number(yes >= 0.5) : shown.indexOf(Math.max(...shown));
    paint(this.seen, image, this.side, gray);
    this.bars.forEach((bar, i) => this.fill(bar, shown[i], i === best));
    this.answer.textContent = this.bars[best].dataset.name;
    this.layers.forEach((layer, i) => {
      const outputsOfLayer = [...activations[i]];
      const columns = Math.ceil(Math.sqrt(4 * outputsOfLayer.length));
      paint(layer, outputsOfLayer, columns, diverging(Math.max(...outputsOfLayer.map(Math.abs))));
    });
  }

  // Shows an output as a bar; an output that is not a probability is clipped to 0..1.
  fill(bar, output, best = false) {
    const share = Math.min(Math.max(output ?? 0, 0), 1);
    bar.style.setProperty("--share", `${100 * share}%`);
    bar.classList.toggle("best", best);
    bar.querySelector("output").textContent = output === null ? "" : output.toFixed(3);
  }
}

const description = read("network");
const network = description && new Network(description);
const board = network && element("board") ? new Board(element("board"), network) : null;
if (element("confusion")) listenToConfusion(element("confusion"));
