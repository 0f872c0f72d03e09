"use strict";
// The forward pass of a network for one image, as in nnctl/nn/network.py.

// The largest float32 before exp overflows, less 1, as in nnctl: log(3.4028235e38) - 1.
const LARGEST_EXPONENT = 87.72283905206835;

const sigmoid = (z) => 1 / (1 + Math.exp(-z));

// The distribution function of N(0, 1), by the rational approximation of erfc of Numerical
// Recipes, section 6.2, which has a relative error below 1.2e-7.
function normalCdf(z) {
  const x = Math.abs(z) / Math.SQRT2;
  const t = 1 / (1 + x / 2);
  const coefficients = [
    -1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398,
    1.48851587, -0.82215223, 0.17087277,
  ];
  const polynomial = coefficients.reduceRight((sum, coefficient) => sum * t + coefficient, 0);
  const tail = (t * Math.exp(-x * x + polynomial)) / 2;
  return z > 0 ? 1 - tail : tail;
}

function tanhCdf(z) {
  return (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (z + 0.044715 * z ** 3))) / 2;
}

// Each function takes the weighted inputs z of a layer and returns its outputs. Names and parameters
// are the same as in nnctl/nn/activations.py; a test compares the two.
const ACTIVATIONS = {
  step: (z, { at_zero }) => z.map((x) => (x > 0 || (x === 0 && at_zero) ? 1 : 0)),
  sigmoid: (z, { gain }) => z.map((x) => sigmoid(gain * x)),
  hard_sigmoid: (z) => z.map((x) => Math.min(Math.max(x / 6 + 0.5, 0), 1)),
  tanh: (z) => z.map(Math.tanh),
  softsign: (z) => z.map((x) => x / (1 + Math.abs(x))),
  relu: (z) => z.map((x) => Math.max(x, 0)),
  leaky_relu: (z, { negative_slope }) => z.map((x) => Math.max(x, negative_slope * x)),
  prelu: (z, { slopes }) => z.map((x, unit) => (x > 0 ? x : slopes[unit] * x)),
  elu: (z, { alpha }) => z.map((x) => (x > 0 ? x : alpha * Math.expm1(x))),
  selu: (z, { scale, alpha }) => z.map((x) => scale * (x > 0 ? x : alpha * Math.expm1(x))),
  gelu: (z, { approximate }) => z.map((x) => x * (approximate ? tanhCdf(x) : normalCdf(x))),
  swish: (z, { beta }) => z.map((x) => x * sigmoid(beta * x)),
  softplus: (z) => z.map((x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)))),
  exponential: (z) => z.map((x) => Math.exp(Math.min(x, LARGEST_EXPONENT))),
  linear: (z) => z,
  softmax: (z) => {
    const largest = z.reduce((a, b) => Math.max(a, b));
    const powers = z.map((x) => Math.exp(x - largest));
    const sum = powers.reduce((a, b) => a + b);
    return powers.map((power) => power / sum);
  },
  maxout: (z, { pieces }) => {
    const units = z.length / pieces;
    return z.slice(0, units).map((_, unit) => {
      let largest = z[unit];
      for (let piece = 1; piece < pieces; piece++) {
        largest = Math.max(largest, z[piece * units + unit]);
      }
      return largest;
    });
  },
};

// Returns dL/dz of a layer, given dL/da of its outputs, by central differences, which are exact
// except where an activation bends. A maxout unit has several z, at a distance of `units`.
function backward(activate, z, gradient) {
  const step = 1e-5;
  const units = gradient.length;
  const delta = new Float64Array(z.length);
  for (let first = 0; first < z.length; first += units) {
    const moved = (by) => z.map((x, i) => (i >= first && i < first + units ? x + by : x));
    const [below, above] = [activate(moved(-step)), activate(moved(step))];
    gradient.forEach((slope, unit) => {
      delta[first + unit] = (slope * (above[unit] - below[unit])) / (2 * step);
    });
  }
  return delta;
}

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

// IEEE 754 half precision: a sign, 5 bits of exponent, 10 of fraction.
function floatOfHalf(half) {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 0x1f;
  const fraction = half & 0x3ff;
  return exponent
    ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024)
    : sign * 2 ** -14 * (fraction / 1024);
}

class Network {
  // description: {inputs, layers: [{activation, parameters, weights, biases}]}; weights are in half
  // precision, row by row (a row per input), and biases in single precision.
  constructor({ inputs, layers }) {
    this.inputs = inputs;
    this.layers = layers.map((layer) => ({
      weights: Float32Array.from(new Uint16Array(bytesOf(layer.weights).buffer), floatOfHalf),
      biases: new Float32Array(bytesOf(layer.biases).buffer),
      activate: (z) => ACTIVATIONS[layer.activation](z, layer.parameters),
    }));
  }

  // Returns {z, a} of every layer, its weighted inputs and its outputs, for an image of numbers from
  // 0 to 1.
  forward(image) {
    const passed = [];
    let a = image;
    for (const { weights, biases, activate } of this.layers) {
      const columns = biases.length;
      const z = Float64Array.from(biases);
      for (let i = 0; i < a.length; i++) {
        if (a[i] === 0) continue; // true of most pixels and many units
        const row = i * columns;
        for (let j = 0; j < columns; j++) z[j] += a[i] * weights[row + j];
      }
      a = activate(z);
      passed.push({ z, a });
    }
    return passed;
  }

  // Returns the outputs of every layer for an image.
  activations(image) {
    return this.forward(image).map(({ a }) => a);
  }

  // Returns for every pixel its ink times the derivative of a weighted sum of the last layer's z.
  //
  // In a network of one layer these are the terms of that sum, w·x, without the bias.
  contributions(image, coefficients) {
    const passed = this.forward(image);
    let delta = coefficients;
    for (let layer = this.layers.length - 1; layer > 0; layer--) {
      const gradient = this.gradientBelow(layer, delta);
      delta = backward(this.layers[layer - 1].activate, passed[layer - 1].z, gradient);
    }
    return this.gradientBelow(0, delta).map((slope, pixel) => slope * image[pixel]);
  }

  // Returns the weights of a unit; of a maxout unit, those of its piece with the largest z.
  incoming(layer, unit, { z, a }) {
    const { weights, biases } = this.layers[layer];
    const columns = biases.length;
    let column = unit;
    for (let piece = unit; piece < columns; piece += a.length) if (z[piece] > z[column]) column = piece;
    return weights.filter((_, i) => i % columns === column);
  }

  // Returns the gradient by the inputs of a layer, given that by its z.
  gradientBelow(layer, delta) {
    const { weights } = this.layers[layer];
    const columns = delta.length;
    const gradient = new Float64Array(weights.length / columns);
    weights.forEach((weight, i) => (gradient[Math.floor(i / columns)] += weight * delta[i % columns]));
    return gradient;
  }

  // Returns the outputs of the last layer.
  outputs(image) {
    return this.activations(image).at(-1);
  }
}
