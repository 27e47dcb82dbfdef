// The tab "Teach": classes with pictures, training, trying and correcting, download.

import { blobUrl, get, listen, part, request, send, upload } from "./api.js";
import { hasCamera, openCamera } from "./camera.js";
import { Chart } from "./chart.js";
import { classify, inFront, isUnsure, refreshAdapters, resultCard } from "./try.js";
import { accepts, byId, chooser, complain, DRAGGED, dropPlace, el, guarded, onPaste, percent, say } from "./ui.js";
import { said, t } from "./words.js";

const NEW = "";
const LAST = "daptune-lesson"; // the lesson that is open, for a reload
const loss = new Chart(t("Loss"), (value) => value.toFixed(3));
const accuracy = new Chart(t("Accuracy on training pictures"), percent, { top: 1 });
let lesson = null; // as on the server
let training = false;
let wants = false; // whether the line beside the button says what is missing
let doubts = []; // { class, like, images } of the last training: pictures that look like another class
let heard = null; // the class that pasted pictures go to
const dragged = new Map(); // id of a card -> called with the class it is dropped on

const at = (...parts) => `/v1/lessons/${parts.map(part).join("/")}`;

export async function startTeach(server) {
  byId("no-teach").hidden = server.teach;
  byId("teach-body").hidden = !server.teach;
  if (!server.teach) return;
  byId("charts").append(loss.element, accuracy.element);
  starter();
  byId("lesson").onchange = guarded(() => open(byId("lesson").value));
  byId("delete-lesson").onclick = guarded(remove);
  byId("add-class").onsubmit = guarded(addClass);
  byId("train").onclick = guarded(train);
  byId("stop").onclick = guarded(() => request(at(lesson.name, "training"), { method: "DELETE" }));
  byId("download").onclick = guarded(download, byId("download"));
  dropPlace(byId("lesson-drop"), guarded(tryOut));
  onPaste((files) => {
    if (byId("teach").hidden || !lesson) return;
    if (heard) addImages(heard, files);
    else if (!byId("step-try").hidden) guarded(tryOut)(files);
  });
  const names = await list();
  const last = sessionStorage.getItem(LAST);
  await open(names.includes(last) ? last : names.at(0) ?? NEW);
}

async function list(chosen) {
  const names = (await get("/v1/lessons")).map((each) => each.name);
  byId("lesson").replaceChildren(
    ...names.map((name) => el("option", { value: name }, name)), el("option", { value: NEW }, t("New lesson …")));
  if (chosen !== undefined) byId("lesson").value = chosen;
  return names;
}

// ---- creating and choosing ----

function starter() {
  const rows = byId("starter-classes");
  const row = (example) => {
    const number = rows.children.length + 1;
    rows.append(el("input", { ariaLabel: t("Class {number}", { number }), maxLength: 64, placeholder: example, autocomplete: "off", required: number <= 2 }));
  };
  [t("cup"), t("bottle")].forEach(row);
  byId("starter-more").onclick = () => { row(t("another")); rows.lastElementChild.focus(); };
  byId("starter").onsubmit = guarded(async (event) => {
    event.preventDefault();
    const classes = [...rows.children].map((input) => input.value.trim()).filter(Boolean);
    const name = byId("starter-name").value.trim();
    await send("POST", "/v1/lessons", { name, classes });
    byId("starter").reset();
    await list(name);
    await open(name);
    say(t("Lesson {name} with {count} classes", { name, count: classes.length }));
    byId("classes").querySelector("button")?.focus();
  });
}

async function open(name) {
  byId("lesson").value = name;
  byId("starter").hidden = name !== NEW;
  byId("workshop").hidden = byId("delete-lesson").hidden = name === NEW;
  [...byId("lesson-results").children].forEach((card) => card.forget());
  byId("train-state").textContent = "";
  byId("charts").hidden = byId("train-progress").hidden = true;
  lesson = heard = null;
  wants = false;
  doubts = [];
  sessionStorage.setItem(LAST, name);
  if (name === NEW) return byId("starter-name").focus({ preventScroll: true });
  const { told } = await reload(name);
  if (told) guarded(follow)();
}

async function reload(name = lesson.name) {
  const state = await get(at(name));
  lesson = state.lesson;
  training = state.training;
  drawClasses();
  drawState();
  return state;
}

async function remove() {
  if (!confirm(t("Delete the lesson {name} with all its pictures? Its adapter is kept.", { name: lesson.name }))) return;
  await send("DELETE", at(lesson.name));
  await open((await list()).at(0) ?? NEW);
}

async function addClass(event) {
  event.preventDefault();
  const field = byId("add-class-name");
  await send("POST", at(lesson.name, "classes"), { name: field.value.trim() });
  field.value = "";
  await reload();
  field.focus();
}

// ---- classes and their pictures ----

function drawState() {
  const ready = lesson.classes.length > 1 && lesson.classes.every((each) => each.images.length);
  const wanting = lesson.classes.find((each) => !each.images.length);
  byId("train").disabled = training || !ready;
  byId("train").textContent = lesson.trained ? t("Train again") : t("Train");
  byId("stop").hidden = !training;
  byId("step-try").hidden = byId("step-keep").hidden = !lesson.trained;
  byId("keep-command").textContent = `daptune predict ${lesson.name} PICTURES`;
  if (!training && (wants || !ready)) {
    wants = !ready;
    byId("train-state").textContent = ready ? "" : wanting ? t("{label} has no picture yet.", { label: wanting.name }) : t("At least two classes are needed.");
  }
  drawDoubts();
}

// Those of the doubted pictures that are still in their class.
function drawDoubts() {
  const left = doubts
    .map((each) => ({ ...each, images: each.images.filter((id) => lesson.classes.find(({ name }) => name === each.class)?.images.includes(id)) }))
    .filter((each) => each.images.length && lesson.classes.some(({ name }) => name === each.like));
  byId("doubts").hidden = !left.length;
  byId("doubts").replaceChildren(...left.map((each) => {
    const count = each.images.length;
    const values = { count, label: each.class, like: each.like };
    const words = count === 1 ? t("1 picture of {label} looks like {like}.", values) : t("{count} pictures of {label} look like {like}.", values);
    const name = t("Move to {label} ({count})", { count, label: each.like });
    const button = el("button.quiet", { type: "button", disabled: training, ariaLabel: name }, t("Move to {label}", { label: each.like }));
    button.onclick = guarded(async () => {
      for (const id of each.images) await send("PUT", at(lesson.name, "classes", each.class, "images", id), { to: each.like });
      await reload();
      say(t("{count} moved to {label}", { count, label: each.like }));
    }, button);
    return el("li", {}, el("span", {}, words), button);
  }));
  const doubted = new Set(left.flatMap((each) => each.images));
  for (const view of document.querySelectorAll("#classes .thumb")) view.classList.toggle("doubted", doubted.has(view.dataset.id));
}

function drawClasses() {
  byId("classes").replaceChildren(...lesson.classes.map(classCard));
  drawTargets();
}

function classCard({ name, images }) {
  const take = (files) => addImages(name, files);
  const [button, input] = chooser(t("Choose"), take);
  button.setAttribute("aria-label", t("Choose pictures of {label}", { label: name }));
  const buttons = el("div.class-row", {}, button, input);
  if (hasCamera) buttons.append(el("button.quiet", { type: "button", ariaLabel: t("Camera for {label}", { label: name }), onclick: () => openCamera(name, take) }, t("Camera")));
  const close = el("button.close", { type: "button", ariaLabel: t("Remove the class {label}", { label: name }) }, "×");
  close.onclick = guarded(async () => {
    const values = { label: name, count: images.length };
    const question = images.length === 1 ? t("Remove {label} and its 1 picture?", values) : t("Remove {label} and its {count} pictures?", values);
    if (images.length && !confirm(question)) return;
    await send("DELETE", at(lesson.name, "classes", name));
    await reload();
  });
  const grid = el("div.thumbs", {}, ...images.map((id) => thumb(name, id)));
  const head = el("div.class-head", {}, el("h3", { title: name }, name), count(images.length), close);
  const card = el("section.card.class", { ariaLabel: t("Class {label}", { label: name }) }, head, images.length ? grid : el("p.empty", {}, t("Drop pictures here")), buttons);
  card.addEventListener("focusin", () => { heard = name; });
  card.addEventListener("pointerenter", () => { heard = name; });
  card.addEventListener("pointerleave", () => { heard = null; });
  accepts(card, take, (id) => dragged.get(id)?.(name));
  return card;
}

function count(number) {
  const all = number === 1 ? t("1 picture") : t("{count} pictures", { count: number });
  return el("span.count", {}, el("span", { ariaHidden: "true" }, String(number)), el("span.visually-hidden", {}, all));
}

function thumb(label, id) {
  const view = el("img", { alt: t("Picture of {label}", { label }), loading: "lazy", draggable: false });
  blobUrl(at(lesson.name, "classes", label, "images", id)).then((address) => { view.src = address; }, complain);
  const button = el("button.thumb", { type: "button", draggable: true, ariaLabel: t("Picture of {label}: move or remove", { label }), onclick: () => inspect(label, id, view.src) }, view);
  button.dataset.id = id;
  drags(button, (to) => { if (to !== label) move(label, id, to); });
  return button;
}

function drags(element, dropped) {
  const id = crypto.randomUUID?.() ?? String(Math.random());
  dragged.set(id, dropped);
  element.draggable = true;
  element.addEventListener("dragstart", (event) => {
    event.dataTransfer.setData(DRAGGED, id);
    setTimeout(() => { byId("targets").hidden = false; }); // a change in the same turn would end the drag
  });
  element.addEventListener("dragend", () => { byId("targets").hidden = true; });
}

// Shows the classes at the top of the window while a card is dragged, because their cards may be out of sight.
function drawTargets() {
  byId("targets").replaceChildren(...lesson.classes.map(({ name }) => {
    const target = el("li", {}, name);
    accepts(target, (files) => addImages(name, files), (id) => dragged.get(id)?.(name));
    return target;
  }));
}

function inspect(label, id, address) {
  const dialog = byId("picture");
  byId("picture-view").src = address;
  byId("picture-view").alt = byId("picture-title").textContent = t("Picture of {label}", { label });
  byId("picture-class").replaceChildren(...lesson.classes.map(({ name }) => el("option", { value: name }, name)));
  byId("picture-class").value = label;
  byId("picture-move").onclick = () => { dialog.close(); const to = byId("picture-class").value; if (to !== label) move(label, id, to); };
  byId("picture-remove").onclick = guarded(async () => {
    dialog.close();
    await send("DELETE", at(lesson.name, "classes", label, "images", id));
    await reload();
  });
  byId("picture-close").onclick = () => dialog.close();
  dialog.showModal();
}

const move = guarded(async (label, id, to) => {
  await send("PUT", at(lesson.name, "classes", label, "images", id), { to });
  await reload();
  say(t("Moved to {label}", { label: to }));
});

const addImages = guarded(async (label, files) => {
  let kept = 0;
  await upload(at(lesson.name, "classes", label, "images"), files, ({ images, errors }) => {
    kept += images.filter(Boolean).length;
    errors.forEach(complain);
  });
  await reload();
  say(kept === 1 ? t("1 picture for {label}", { label }) : t("{count} pictures for {label}", { count: kept, label }));
});

// ---- training ----

async function train() {
  await send("POST", at(lesson.name, "training"));
  training = true;
  drawState();
  await follow();
}

// Shows a training from its start: one that runs, or the last one, which the server can tell of after a reload.
async function follow() {
  const name = lesson.name, runs = training;
  const words = byId("train-state"), bar = byId("train-progress");
  let end = null;
  loss.clear();
  accuracy.clear();
  doubts = [];
  byId("charts").hidden = false;
  bar.hidden = !runs;
  bar.removeAttribute("value");
  words.textContent = runs ? t("Preparing …") : "";
  await listen(at(name, "events"), (event) => {
    if (lesson?.name !== name) return;
    if (event.type === "progress") {
      loss.add(event.step, event.steps, event.loss);
      accuracy.add(event.step, event.steps, event.accuracy);
      bar.value = event.step / event.steps;
      if (runs) words.textContent = event.seconds_left >= 1 ? t("About {seconds} s left", { seconds: Math.ceil(event.seconds_left) }) : t("Almost done");
    } else if (event.type === "check") {
      doubts = event.contradictions;
      drawDoubts();
    } else if (event.type !== "waiting") end = event;
  });
  if (lesson?.name !== name) return;
  if (runs) await reload();
  if (runs && end?.type === "done") await refreshAdapters(name); // which says whether it can be not sure
  bar.hidden = true;
  const outcomes = { done: t("Done. Try it below."), stopped: t("Stopped."), failed: said(end?.error ?? "") };
  words.textContent = outcomes[end?.type] ?? t("The server stopped; train again when it is back.");
  if (!runs) drawState(); // which may want more pictures
}

// ---- trying and correcting ----

async function tryOut(files) {
  const place = byId("lesson-drop");
  const show = inFront(byId("lesson-results"));
  place.classList.add("busy");
  try {
    await classify(lesson.name, files, true, (row, file) => show(correctable(row, file)));
    say(files.length === 1 ? t("1 picture tried") : t("{count} pictures tried", { count: files.length }));
  } finally {
    place.classList.remove("busy");
  }
}

function correctable(row, file) {
  if (row.error) return resultCard(row, file);
  const choice = el("select", { ariaLabel: t("Correct class") }, ...lesson.classes.map(({ name }) => el("option", { value: name }, name)));
  choice.value = (isUnsure(row) ? row.top[0] : row.top[1] ?? row.top[0]).label;
  const button = el("button.quiet", { type: "button" }, t("Add and train"));
  const card = resultCard(row, file, el("div.correct", {}, el("span", {}, t("Correct class")), choice, button));
  const correct = guarded(async (label) => {
    if (training) throw new Error(t("Training is running; correct the picture when it is done."));
    byId("train-state").textContent = t("Training with the picture as {label} …", { label });
    await upload(at(lesson.name, "classes", label, "images"), [file], () => {});
    card.forget();
    await reload();
    say(t("Training with the picture as {label} …", { label }));
    await train();
  });
  button.onclick = () => correct(choice.value);
  drags(card, correct);
  return card;
}

async function download() {
  const address = await blobUrl(`/v1/adapters/${part(lesson.name)}/download`);
  const link = el("a", { href: address, download: `${lesson.name}.zip` });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}
