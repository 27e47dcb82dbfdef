// The tab "Try": pictures in, bars of probabilities out.

import { get, part, upload } from "./api.js";
import { bars, byId, complain, dropPlace, el, legend, onPaste, percent, say } from "./ui.js";
import { said, t } from "./words.js";

const MOST = 50; // classes asked for, so that the zero-shot bar of each shown class is among them
const SURE = 0.7; // of an adapter taught here: below this probability it is right about as often as a coin
let adapters = [];
let compares = false; // whether the server can answer by zero-shot CLIP
let reject = 0.05; // share of known pictures that may be "not sure", unless the server has its own

export async function refreshAdapters(choose) {
  adapters = await get("/v1/adapters");
  const list = byId("adapter");
  const before = choose ?? list.value;
  list.replaceChildren(...adapters.map((each) => each.status === "broken"
    ? el("option", { value: each.name, title: said(each.error) }, t("{name} (broken)", { name: each.name }))
    : el("option", { value: each.name }, each.name)));
  const first = adapters.find((each) => each.status !== "broken");
  if (adapters.some((each) => each.name === before)) list.value = before;
  else if (first) list.value = first.name;
  byId("try-drop").classList.toggle("idle", !adapters.length);
  about();
}

function about() {
  const chosen = adapters.find((each) => each.name === byId("adapter").value);
  const names = chosen?.classes.slice(0, 6).join(", ") + (chosen?.classes.length > 6 ? ", …" : "");
  byId("zero-shot-label").hidden = !compares || Boolean(chosen?.multi_label); // zero-shot CLIP says one class
  byId("adapter-about").textContent = chosen?.status === "broken"
    ? t("This adapter is broken: {why}", { why: said(chosen.error) })
    : chosen
    ? t("{method}, {count} classes: {names}", { method: chosen.method, count: chosen.classes.length, names })
    : t("No adapter yet. Train one in the tab Teach, or with daptune fit.");
}

// Classifies files in portions and calls draw(row, file) for each.
export async function classify(name, files, zeroShot, draw) {
  const adapter = adapters.find((each) => each.name === name);
  const share = adapter?.known_images ? `&reject=${reject}` : "";
  const plain = zeroShot && !adapter?.multi_label;
  const path = `/v1/adapters/${part(name)}/predict?top_k=${MOST}&zero_shot=${plain}${share}`;
  await upload(path, files, ({ predictions }, portion) => predictions.forEach((row, place) => {
    row.close = Boolean(adapter?.taught && row.top && !row.labels && row.top[0].probability < SURE);
    draw(row, portion[place]);
  }));
}

export const isUnsure = (row) => Boolean(row.unknown || row.close);

export function resultCard(row, file, ...more) {
  const address = URL.createObjectURL(file);
  const view = el("img", { src: address, alt: row.file, draggable: false });
  view.onerror = () => view.replaceWith(el("div.no-view", { ariaHidden: "true" }, t("no preview")));
  const body = row.error
    ? el("p.wrong", {}, said(row.error))
    : row.labels ? several(row) : isUnsure(row) ? unsure(row) : el("div", {}, bars(row.top, row.zero_shot), row.zero_shot ? legend() : null);
  const found = row.error ? t("not read") : row.labels ? shownIn(row) : isUnsure(row) ? t("Not sure") : String(row.top[0].label);
  const card = el("li.card.result", {}, view, el("div.result-body", {}, el("h3.visually-hidden", {}, found), el("p.file", { title: row.file }, row.file), body, ...more));
  card.forget = () => { URL.revokeObjectURL(address); card.remove(); };
  return card;
}

const shownIn = ({ labels }) => labels.map(({ label }) => label).join(", ") || t("None of the classes");

// All classes from their threshold on, each with its own probability, and the likeliest others.
function several(row) {
  const found = row.labels.length, shown = new Set(row.labels.map(({ label }) => label));
  const others = row.top.filter(({ label }) => !shown.has(label));
  return el("div", {}, found ? null : el("p", {}, shownIn(row)), bars([...row.labels, ...others], null, Math.max(5, found), found));
}

// In place of a class that the picture likely does not show, or of one among others that are nearly as likely.
function unsure({ unknown, top: [first, second] }) {
  const share = ({ label, probability }) => `${label}, ${percent(probability)}`;
  const why = unknown
    ? t("Unlike the training pictures. Likeliest: {first}", { first: share(first) })
    : t("Likeliest: {first}; then {second}. More pictures of each class help.", { first: share(first), second: share(second) });
  return el("div.unsure", {}, el("p.unsure-title", {}, t("Not sure")), el("p.hint", {}, why));
}

// Puts the cards of one drop in front of a list, in their order, and removes the oldest cards; more(card) adds the next.
export function inFront(list, most = 40) {
  let last = null;
  return (card) => {
    if (last?.isConnected) last.after(card);
    else list.prepend(card);
    last = card;
    while (list.children.length > most) list.lastElementChild.forget();
  };
}

export async function startTry(server) {
  reject = server.reject || reject;
  compares = server.zero_shot;
  byId("adapter").onchange = about;
  const place = byId("try-drop");

  async function take(files) {
    const name = byId("adapter").value;
    if (!name) return complain(t("There is no adapter yet: train one first."));
    place.classList.add("busy");
    const show = inFront(byId("results"));
    let read = 0;
    try {
      await classify(name, files, server.zero_shot && byId("zero-shot").checked, (row, file) => {
        read += !row.error;
        show(resultCard(row, file));
      });
      say(t("{read} of {count} pictures classified with {name}", { read, count: files.length, name }));
    } catch (error) {
      complain(error);
    } finally {
      place.classList.remove("busy");
    }
  }

  dropPlace(place, take);
  onPaste((files) => { if (!byId("try").hidden) take(files); });
  await refreshAdapters();
}
