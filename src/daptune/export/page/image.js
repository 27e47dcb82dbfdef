// The image transform of daptune (clip/preprocess.py) in the page: the same pixels as Pillow makes, bit for bit.

const BITS = 22; // fraction bits of a weight: 32, less 8 of a pixel, less 2 for sums beyond 255
const LONGEST = 32; // beyond this ratio of the sides, the ends are cut off
const FILTERS = {
  bilinear: { reach: 1, at: (x) => (x < 1 ? 1 - x : 0) },
  bicubic: { // Keys 1981, a = -1/2
    reach: 2,
    at: (x) => (x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0),
  },
};

// For each of `target` pixels along an axis of `source` pixels: the first pixel it is made of, and their weights.
function weights(source, target, { reach, at }) {
  const scale = source / target, stretch = Math.max(scale, 1);
  return Array.from({ length: target }, (_, place) => {
    const centre = (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach * stretch + 0.5));
    const end = Math.min(source, Math.trunc(centre + reach * stretch + 0.5));
    const own = [];
    for (let x = first; x < end; x++) own.push(at(Math.abs((x - centre + 0.5) / stretch)));
    const sum = own.reduce((a, b) => a + b, 0);
    return { first, own: own.map((w) => { const v = (w / sum) * 2 ** BITS; return Math.trunc(v + (v < 0 ? -0.5 : 0.5)); }) };
  });
}

// Resizes RGB along one axis: element (line, place, c) is at line * across + place * along + c.
function resample(pixels, lines, across, along, found, plan, foundAcross, foundAlong) {
  for (let line = 0; line < lines; line++)
    for (const [place, { first, own }] of plan.entries())
      for (let c = 0; c < 3; c++) {
        let sum = 2 ** (BITS - 1);
        for (let n = 0; n < own.length; n++) sum += pixels[line * across + (first + n) * along + c] * own[n];
        found[line * foundAcross + place * foundAlong + c] = Math.floor(sum / 2 ** BITS); // a clamped array
      }
  return found;
}

// The two axes one after the other, rounded between them; which one is first is Pillow 13's choice.
function resize(image, width, height, filter) {
  const axes = image.height > height && image.height - height > 2 * (image.width - width) ? "yx" : "xy";
  for (const axis of axes) image = axis === "x" ? across(image, width, filter) : down(image, height, filter);
  return image;
}

function across({ data, width: w, height: h }, width, filter) {
  const found = new Uint8ClampedArray(width * h * 3);
  if (w !== width) data = resample(data, h, w * 3, 3, found, weights(w, width, filter), width * 3, 3);
  return { data, width, height: h };
}

function down({ data, width: w, height: h }, height, filter) {
  const found = new Uint8ClampedArray(w * height * 3);
  if (h !== height) data = resample(data, w, 3, w * 3, found, weights(h, height, filter), 3, w * 3);
  return { data, width: w, height };
}

function cut({ data, width }, left, top, w, h) {
  const found = new Uint8ClampedArray(w * h * 3);
  for (let y = 0; y < h; y++) found.set(data.subarray(((top + y) * width + left) * 3, ((top + y) * width + left + w) * 3), y * w * 3);
  return { data: found, width: w, height: h };
}

const even = (value) => (value % 1 === 0.5 ? 2 * Math.round(value / 2) : Math.round(value)); // halves as Python rounds

// An RGB image { data, width, height } -> size x size.
export function crop(image, { size, resize: kind, interpolation }) {
  const filter = FILTERS[interpolation], { width, height } = image;
  if (kind === "squash") return resize(image, size, size, filter);
  const shorter = Math.min(width, height), longer = Math.max(width, height), wide = width > height;
  if (longer > LONGEST * shorter) {
    const end = Math.floor((longer - 4 * shorter) / 2), rest = longer - 2 * end;
    return crop(wide ? cut(image, end, 0, rest, height) : cut(image, 0, end, width, rest), { size, resize: kind, interpolation });
  }
  const length = Math.trunc((size * longer) / shorter);
  const [w, h] = width >= height ? [length, size] : [size, length];
  return cut(resize(image, w, h, filter), even((w - size) / 2), even((h - size) / 2), size, size);
}

// size x size RGB -> (3, size, size) in float32, each step rounded as numpy does.
export function normalize({ data, width, height }, { mean, std }) {
  const plane = width * height, found = new Float32Array(3 * plane);
  for (let c = 0; c < 3; c++) {
    const centre = Math.fround(mean[c]), spread = Math.fround(std[c]);
    for (let n = 0; n < plane; n++) found[c * plane + n] = Math.fround(Math.fround(data[n * 3 + c] / 255) - centre) / spread;
  }
  return found;
}

// A picture file -> RGB on white, upright, with the file's own numbers whatever its colour profile.
export async function decode(file, most) {
  const picture = await createImageBitmap(file, { colorSpaceConversion: "none", imageOrientation: "from-image" });
  const { width, height } = picture;
  if (width * height > most) throw new RangeError(`${width} x ${height} pixels`);
  const canvas = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  canvas.fillStyle = "white";
  canvas.fillRect(0, 0, width, height);
  canvas.drawImage(picture, 0, 0);
  picture.close();
  const { data: rgba } = canvas.getImageData(0, 0, width, height), data = new Uint8ClampedArray(width * height * 3);
  for (let n = 0, m = 0; n < rgba.length; n += 4) {
    data[m++] = rgba[n];
    data[m++] = rgba[n + 1];
    data[m++] = rgba[n + 2];
  }
  return { data, width, height };
}
