"use strict";
// The explorer: the outputs of all units for the image on the pad, and a closer look at one unit.

const ORANGE = [217, 95, 2]; // negative, as in page.css and sprites.py
const BLUE = [31, 119, 180]; // positive
const MOST_EXCITING = 6;

// Returns the color of a number: the largest one is opaque, 0 is transparent.
function signed(largest) {
  return (number) => {
    const opacity = largest ? Math.round((255 * Math.abs(number)) / largest) : 0;
    return [...(number < 0 ? ORANGE : BLUE), opacity];
  };
}

const largestOf = (numbers) => numbers.reduce((most, number) => Math.max(most, Math.abs(number)), 0);

function paintSigned(canvas, numbers, columns) {
  paint(canvas, numbers, columns, signed(largestOf(numbers)));
}

// There are about four times as many columns of units as rows.
const columnsOf = (units) => Math.ceil(Math.sqrt(4 * units));

// Input pixels are square; the inputs of later layers are shown as the layer below is.
const columnsOfInputs = (layer, inputs) => (layer ? columnsOf(inputs) : Math.sqrt(inputs));

class Explorer {
  // samples: a promise of [{example, pixels}], test images among which to find the exciting ones.
  // classes: the names of the units of the last layer, unless it has a single unit.
  constructor(root, network, samples, classes) {
    this.network = network;
    this.classes = classes;
    this.strips = [...root.querySelectorAll(".units")];
    this.panel = root.querySelector(".unit");
    this.passed = null; // {z, a} of each layer for the image on the pad
    this.samples = [];
    [this.layer, this.unit] = [0, null];
    this.strips.forEach((strip, layer) => this.listen(strip, layer));
    samples.then((list) => {
      this.samples = list.map(({ example, pixels }) => ({
        example,
        outputs: network.activations(pixels),
      }));
      this.refresh();
    });
  }

  listen(strip, layer) {
    const point = ({ clientX, clientY }) => {
      const { left, top, width, height } = strip.getBoundingClientRect();
      const { columns, rows, units } = this.sizeOf(layer);
      const column = Math.floor((columns * (clientX - left)) / width);
      const unit = Math.floor((rows * (clientY - top)) / height) * columns + column;
      if (column >= 0 && column < columns && unit >= 0 && unit < units) this.select(layer, unit);
    };
    strip.addEventListener("pointermove", point);
    strip.addEventListener("pointerdown", point);
    strip.addEventListener("focus", () => this.layer === layer || this.select(layer, 0));
    strip.addEventListener("keydown", (event) => {
      const { columns, units } = this.sizeOf(layer);
      const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
      if (!(event.key in steps)) return;
      event.preventDefault();
      const unit = this.unit + steps[event.key];
      if (unit >= 0 && unit < units) this.select(layer, unit);
    });
  }

  sizeOf(layer) {
    const units = Number(this.strips[layer].ariaValueMax);
    const columns = columnsOf(units);
    return { units, columns, rows: Math.ceil(units / columns) };
  }

  // Shows the outputs of all units for an image, and the strongest unit of the first layer.
  show(passed) {
    this.passed = passed;
    this.strips.forEach((strip, layer) => {
      const outputs = [...passed[layer].a];
      const columns = columnsOf(outputs.length);
      strip.style.width = `min(100%, ${columns}rem)`;
      paintSigned(strip.querySelector("canvas"), outputs, columns);
    });
    if (this.unit === null) {
      const outputs = [...passed[0].a];
      this.unit = outputs.indexOf(Math.max(...outputs));
    }
    this.refresh();
  }

  select(layer, unit) {
    [this.layer, this.unit] = [layer, unit];
    this.refresh();
  }

  refresh() {
    if (!this.passed) return;
    const { layer, unit } = this;
    this.strips.forEach((strip, i) => {
      const marker = strip.querySelector("i");
      marker.hidden = i !== layer;
      if (i !== layer) return;
      const { columns, rows } = this.sizeOf(layer);
      strip.ariaValueNow = unit + 1;
      marker.style.left = `${(100 * (unit % columns)) / columns}%`;
      marker.style.top = `${(100 * Math.floor(unit / columns)) / rows}%`;
      marker.style.width = `${100 / columns}%`;
      marker.style.height = `${100 / rows}%`;
    });
    this.panel.querySelector("h4").textContent = this.nameOf(layer, unit);
    const output = this.passed[layer].a[unit].toFixed(3);
    this.panel.querySelector(".output").textContent = `Its output for the image on the pad is ${output}.`;
    this.strips[layer].ariaValueText = `unit ${unit + 1}, output ${output}`;
    this.showWeights(layer, unit);
    this.showExciting(layer, unit);
  }

  nameOf(layer, unit) {
    const isClass = layer === this.strips.length - 1 && this.sizeOf(layer).units > 1;
    return `Layer ${layer + 1}, unit ${unit + 1}${isClass ? `: class ${this.classes[unit]}` : ""}`;
  }

  showWeights(layer, unit) {
    const weights = this.network.incoming(layer, unit, this.passed[layer]);
    paintSigned(this.panel.querySelector("canvas"), weights, columnsOfInputs(layer, weights.length));
  }

  showExciting(layer, unit) {
    const figure = this.panel.querySelector(".exciting").closest("figure");
    figure.hidden = !this.samples.length;
    const ranked = [...this.samples].sort((a, b) => b.outputs[layer][unit] - a.outputs[layer][unit]);
    const isConstant = ranked[0]?.outputs[layer][unit] === ranked.at(-1)?.outputs[layer][unit];
    const strongest = isConstant ? [] : ranked.slice(0, MOST_EXCITING);
    figure.querySelector(".exciting").replaceChildren(
      ...strongest.map(({ example, outputs }) =>
        digitOf({ ...example, caption: outputs[layer][unit].toFixed(2) }),
      ),
    );
    figure.querySelector(":scope > figcaption").textContent = isConstant
      ? `its output is the same for all ${ranked.length} test images`
      : `the ${strongest.length} of ${this.samples.length} test images that excite it most, with its output`;
  }
}
