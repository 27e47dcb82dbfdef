// An SVG line chart of one number over the training steps, with the last value in its caption.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 320, HEIGHT = 120, PAD = 6;

export class Chart {
  constructor(title, format, { top } = {}) {
    this.title = title;
    this.format = format;
    this.top = top;
    this.points = [];
    this.element = document.createElement("figure");
    this.caption = document.createElement("figcaption");
    this.drawing = document.createElementNS(SVG, "svg");
    this.drawing.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.drawing.setAttribute("role", "img");
    this.drawing.setAttribute("preserveAspectRatio", "none");
    this.area = document.createElementNS(SVG, "path");
    this.line = document.createElementNS(SVG, "path");
    this.area.classList.add("area");
    this.line.classList.add("line");
    this.drawing.append(this.area, this.line);
    this.element.append(this.caption, this.drawing);
    this.clear();
  }

  clear() {
    this.points = [];
    this.draw(1);
  }

  add(step, steps, value) {
    if (value == null) return;
    this.points.push([step, value]);
    this.draw(steps);
  }

  draw(steps) {
    const last = this.points.at(-1);
    const words = last ? this.format(last[1]) : "–";
    this.caption.innerHTML = "";
    const strong = document.createElement("strong");
    strong.textContent = words;
    this.caption.append(this.title, strong);
    this.drawing.setAttribute("aria-label", `${this.title} ${words}`);
    const most = this.top ?? Math.max(1e-9, ...this.points.map((point) => point[1]));
    const at = ([step, value]) => [
      PAD + ((WIDTH - 2 * PAD) * (step - 1)) / Math.max(1, steps - 1),
      HEIGHT - PAD - ((HEIGHT - 2 * PAD) * value) / most,
    ];
    const places = this.points.map(at);
    const path = places.map(([x, y], n) => `${n ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
    this.line.setAttribute("d", path);
    this.area.setAttribute("d", path && `${path}L${places.at(-1)[0].toFixed(1)} ${HEIGHT - PAD}L${places[0][0].toFixed(1)} ${HEIGHT - PAD}Z`);
  }
}
