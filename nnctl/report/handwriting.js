"use strict";
// Turns pen strokes into an image like those of MNIST, as nnctl/data/preprocess.py does with photographs.

// All lengths are fractions of an image's side.
const BOX = 20 / 28; // the square that a digit fills
const CENTER = 14.5 / 28; // the average center of mass in MNIST
const PEN = 2.4 / 28; // the width of a stroke
const SMALLEST = 0.12; // smaller drawings are not enlarged to the full box, so that a dot stays a dot

const FINE = 8; // supersampling: each pixel is the mean of FINE x FINE samples

// Returns the image of strokes, side x side numbers from 0 to 1, row by row; null without strokes.
//
// A stroke is a list of points {x, y} from 0 to 1. Strokes are scaled before they are drawn as
// pixels, so that their lines have the same width as MNIST's at any size of the drawing.
function imageOf(strokes, side) {
  const points = strokes.flat();
  if (!points.length) return null;
  const xs = points.map(({ x }) => x);
  const ys = points.map(({ y }) => y);
  const [left, top] = [Math.min(...xs), Math.min(...ys)];
  const size = Math.max(Math.max(...xs) - left, Math.max(...ys) - top, SMALLEST);
  const scale = (BOX - PEN) / size;

  const corner = { x: PEN / 2 - left * scale, y: PEN / 2 - top * scale };
  const mass = centerOfMass(draw(strokes, scale, corner, side), side);
  const centered = { x: corner.x + CENTER - mass.x, y: corner.y + CENTER - mass.y };
  return draw(strokes, scale, centered, side);
}

// Returns an image of strokes in which a point p is drawn at scale * p + offset.
function draw(strokes, scale, offset, side) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side * FINE;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.scale(canvas.width, canvas.height);
  context.lineWidth = PEN;
  context.lineCap = context.lineJoin = "round";
  for (const stroke of strokes) trace(context, stroke, scale, offset);
  return means(context.getImageData(0, 0, canvas.width, canvas.height), side);
}

// Draws one stroke; a single point is a dot.
function trace(context, stroke, scale, offset) {
  context.beginPath();
  const [first, ...others] = stroke.map(({ x, y }) => [scale * x + offset.x, scale * y + offset.y]);
  context.moveTo(...first);
  for (const point of others.length ? others : [first]) context.lineTo(...point);
  context.stroke();
}

// Returns the mean opacity of each square of FINE x FINE.
function means({ data, width }, side) {
  const image = new Float64Array(side * side);
  for (let y = 0; y < width; y++) {
    for (let x = 0; x < width; x++) {
      const pixel = Math.floor(y / FINE) * side + Math.floor(x / FINE);
      image[pixel] += data[(y * width + x) * 4 + 3] / 255 / FINE ** 2;
    }
  }
  return image;
}

function centerOfMass(image, side) {
  let [mass, x, y] = [0, 0, 0];
  image.forEach((ink, pixel) => {
    mass += ink;
    x += (ink * ((pixel % side) + 0.5)) / side;
    y += (ink * (Math.floor(pixel / side) + 0.5)) / side;
  });
  return { x: x / mass, y: y / mass };
}
