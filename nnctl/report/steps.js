"use strict";
// The way of the image on the pad to its answer, as nnctl explain shows it: the pixels for and
// against the answer, the strongest units of each layer, and what decides against the runner-up.

const STRONGEST = 5;

const short = (number) => String(Number(number.toPrecision(4)));

// Returns the positions of the numbers with the largest absolute values, the largest first.
function strongest(numbers) {
  const order = [...numbers.keys()].sort((i, j) => Math.abs(numbers[j]) - Math.abs(numbers[i]));
  return order.slice(0, STRONGEST);
}

// Returns a row of a table; each cell is text or a number.
function rowOf(cells, name = "td") {
  const row = document.createElement("tr");
  for (const content of cells) {
    const cell = document.createElement(name);
    cell.textContent = typeof content === "number" ? short(content) : content;
    row.append(cell);
  }
  return row;
}

// Returns the coefficients of the last layer's z in the answer's z, less that of another class.
// The z of a single unit speaks for class 1.
function coefficientsOf(units, answer, other) {
  const coefficients = new Float64Array(units);
  if (units === 1) coefficients[0] = answer ? 1 : -1;
  else {
    coefficients[answer] = 1;
    if (other !== undefined) coefficients[other] = -1;
  }
  return coefficients;
}

class Steps {
  // classes: the names of the classes; a single unit has two.
  constructor(root, network, classes) {
    [this.root, this.network, this.classes] = [root, network, classes];
    this.pixels = root.querySelector("canvas");
    this.tables = [...root.querySelectorAll("table")]; // one per layer, then that of the decision
    this.decision = root.querySelector(".decision");
  }

  clear() {
    this.root.hidden = true;
  }

  // passed: {z, a} of each layer; answer, other: the classes with the largest outputs.
  show(image, passed, answer, other) {
    this.root.hidden = false;
    const units = passed.at(-1).a.length;
    const evidence = this.network.contributions(image, coefficientsOf(units, answer));
    paintSigned(this.pixels, evidence, Math.sqrt(image.length));
    const caption = evidence.some(Boolean)
      ? `blue pixels speak for ${this.classes[answer]}, orange ones against it`
      : "no pixel changes the answer";
    this.pixels.ariaLabel = caption;
    this.pixels.closest("figure").querySelector("figcaption").textContent = caption;
    passed.forEach((layer, i) => this.showLayer(i, [...layer.z], [...layer.a], answer));
    this.showDecision(image, passed, answer, other);
  }

  // A maxout unit has several z, the largest of which is its output.
  showLayer(layer, z, a, answer) {
    const isLast = layer === this.tables.length - 2;
    const isClasses = isLast && a.length > 1;
    const order = isClasses ? strongest(a.map((output) => output - Math.min(...a))) : strongest(a);
    const rows = order.map((unit) => {
      const name = isClasses ? this.classes[unit] : String(unit + 1);
      const row = rowOf([name, z.length > a.length ? a[unit] : z[unit], a[unit]]);
      row.classList.toggle("answer", isClasses && unit === answer);
      return row;
    });
    this.tables[layer].tBodies[0].replaceChildren(...rows);
  }

  // Shows the terms of the difference of two z of the last layer: the outputs of the layer below,
  // times the difference of their weights. Of a network of one layer, these are the pixels.
  showDecision(image, passed, answer, other) {
    const { z } = passed.at(-1);
    const [name, rival] = [this.classes[answer], this.classes[other]];
    const coefficients = coefficientsOf(z.length, answer, other);
    const below = passed.length > 1 ? passed.at(-2).a : image;
    const weights = this.network.gradientBelow(passed.length - 1, coefficients);
    const products = [...weights].map((weight, i) => weight * below[i]);
    const total = coefficients.reduce((sum, coefficient, i) => sum + coefficient * z[i], 0);
    const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
    const order = passed.length > 1 ? strongest(products) : [];
    const rows = order.map((i) => rowOf([`unit ${i + 1}`, below[i], weights[i], products[i]]));
    const others = products.filter((_, i) => !order.includes(i));
    if (passed.length > 1) {
      if (others.length) rows.push(rowOf([`${others.length} others`, "", "", sum(others)]));
    } else {
      rows.push(rowOf([`pixels for ${name}`, "", "", sum(others.filter((term) => term > 0))]));
      rows.push(rowOf([`pixels for ${rival}`, "", "", sum(others.filter((term) => term < 0))]));
    }
    rows.push(rowOf(["biases", "", "", total - sum(products)]), rowOf(["sum", "", "", total]));
    rows.at(-1).classList.add("answer");
    const table = this.tables.at(-1);
    table.tBodies[0].replaceChildren(...rows);
    table.tHead.rows[0].cells[2].textContent =
      z.length > 1 ? `w(${name}) - w(${rival})` : answer ? "w" : "-w";
    const difference = z.length > 1 ? `z(${name}) - z(${rival})` : answer ? "z" : "-z";
    this.decision.textContent =
      `Why ${name} and not ${rival}, the second best: ${difference} = ${short(total)}` +
      (this.decision.dataset.activation === "softmax"
        ? `, so ${name} is exp(${short(total)}) = ${short(Math.exp(total))} times as likely.`
        : ".");
  }
}
