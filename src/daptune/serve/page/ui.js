// Shared by both tabs: elements, messages, drop areas, bars of probabilities.

import { said, t } from "./words.js";

export const byId = (id) => document.getElementById(id);

// el("li.result", { onclick, ariaLabel, ... }, child, "text", ...)
export function el(kind, properties = {}, ...children) {
  const [tag, ...classes] = kind.split(".");
  const element = document.createElement(tag);
  element.classList.add(...classes);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

export function say(text) {
  byId("status").textContent = text;
}

export function complain(error) {
  const close = el("button.close", { type: "button", ariaLabel: t("Close") }, "×");
  const toast = el("div.toast", {}, el("p", {}, said(error.message || String(error))), close);
  close.onclick = () => toast.remove();
  byId("toasts").append(toast);
  setTimeout(() => toast.remove(), 12000);
}

// Runs an action that may fail, with the button disabled meanwhile.
export const guarded = (action, button) => async (...given) => {
  if (button) button.disabled = true;
  try {
    return await action(...given);
  } catch (error) {
    complain(error);
  } finally {
    if (button) button.disabled = false;
  }
};

const pictures = (list) => [...list].filter((file) => file.type.startsWith("image/"));
export const DRAGGED = "application/x-daptune";

// Passes dropped picture files to take(files), and a dropped card of this page to takeCard(id).
export function accepts(element, take, takeCard) {
  let depth = 0;
  const welcome = (event) => event.dataTransfer.types.includes("Files") || (takeCard && event.dataTransfer.types.includes(DRAGGED));
  const over = (value) => element.classList.toggle("over", (depth = value) > 0);
  element.addEventListener("dragenter", (event) => { if (welcome(event)) { event.preventDefault(); over(depth + 1); } });
  element.addEventListener("dragover", (event) => { if (welcome(event)) event.preventDefault(); });
  element.addEventListener("dragleave", (event) => { if (welcome(event)) over(Math.max(0, depth - 1)); });
  element.addEventListener("drop", (event) => {
    if (!welcome(event)) return;
    event.preventDefault();
    event.stopPropagation();
    over(0);
    const card = event.dataTransfer.getData(DRAGGED);
    if (card && takeCard) return takeCard(card);
    const files = pictures(event.dataTransfer.files);
    if (files.length) take(files);
    else complain(t("That is not a picture."));
  });
}

export function chooser(label, take) {
  const input = el("input", { type: "file", accept: "image/*", multiple: true, hidden: true, tabIndex: -1 });
  input.setAttribute("aria-hidden", "true");
  input.onchange = () => { if (input.files.length) take([...input.files]); input.value = ""; };
  const button = el("button.quiet", { type: "button", onclick: () => input.click() }, label);
  return [button, input];
}

export function dropPlace(element, take) {
  const [button, input] = chooser(t("Choose pictures"), take);
  button.className = "primary";
  element.append(el("p.drop-title", {}, t("Drop pictures here")), el("p.hint", {}, t("or paste them with Ctrl+V")), button, input);
  accepts(element, take);
}

export function onPaste(take) {
  document.addEventListener("paste", (event) => {
    const files = pictures(event.clipboardData?.files ?? []);
    if (files.length) take(files);
  });
}

export const percent = (value) => `${(100 * value).toFixed(value > 0.9995 || value < 0.0005 ? 0 : 1)} %`;

// The most likely classes as bars, the first `found` of them as the answer; with zero-shot, a second thin bar under each.
export function bars(top, zeroShot, most = 5, found = 1) {
  const plain = new Map((zeroShot ?? []).map((guess) => [guess.label, guess.probability]));
  const shown = top.slice(0, most);
  const first = zeroShot?.[0];
  if (first && !shown.some((guess) => guess.label === first.label)) {
    const place = top.findIndex((guess) => guess.label === first.label);
    if (place >= 0) shown.push(top[place]);
  }
  return el("ul.bars", {}, ...shown.map(({ label, probability }, rank) => {
    const bar = el("span.bar"), beside = el("span.bar.beside");
    bar.style.setProperty("--share", probability);
    const row = el("li", { className: rank < found ? "first" : "" },
      el("span.label", { title: String(label) }, String(label)),
      el("span.value", {}, percent(probability)),
      el("span.track", { ariaHidden: "true" }, bar));
    if (zeroShot) {
      const share = plain.get(label) ?? 0;
      beside.style.setProperty("--share", share);
      row.append(el("span.track.thin", { ariaHidden: "true" }, beside), el("span.value.muted", {}, el("span.visually-hidden", {}, t("zero-shot"), " "), percent(share)));
    }
    return row;
  }));
}

export function legend() {
  return el("p.legend", { ariaHidden: "true" }, el("span.key"), t("adapter"), el("span.key.beside"), t("zero-shot CLIP"));
}
