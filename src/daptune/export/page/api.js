// What the page asks a server for elsewhere, answered by the model in this folder.

import { share } from "./known.js";
import { t } from "./words.js";

const SHOWN = 50; // classes of an answer
const about = await (await fetch(new URL("model.json", import.meta.url))).json();
const labels = about.labels ?? about.class_names;
const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const asked = new Map();
let number = 0;

worker.onmessage = ({ data }) => {
  const { resolve, reject } = asked.get(data.number);
  asked.delete(data.number);
  if (data.failed) reject(new Error(t("The model cannot be run: {why}", { why: data.failed })));
  else resolve(data);
};
worker.onerror = () => {
  for (const { reject } of asked.values()) reject(new Error(t("The model cannot be loaded: is the folder complete?")));
  asked.clear();
};

// { probabilities, similarity } of a picture file, or { error }.
export function ask(file) {
  return new Promise((resolve, reject) => {
    asked.set(++number, { resolve, reject });
    worker.postMessage({ number, file, preprocess: about.preprocess });
  });
}

export const part = encodeURIComponent;

export async function information() {
  return { backbone: about.backbone, zero_shot: false, reject: null };
}

export async function get() {
  const known = about.similarity.length;
  const several = Boolean(about.thresholds);
  return [{ name: about.name, status: "ready", method: about.method, classes: about.class_names, known_images: known, multi_label: several }];
}

// As the server's: calls done({ predictions }, files) with the classes of each file, the likeliest first.
export async function upload(path, files, done) {
  const reject = Number(new URLSearchParams(path.split("?")[1]).get("reject") ?? 0);
  for (const file of files) {
    const { error, probabilities, similarity } = await ask(file);
    const row = { file: file.name || "pasted.png", error };
    if (!error) {
      const all = probabilities.map((probability, n) => ({ label: labels[n], probability, level: about.thresholds?.[n] }))
        .sort((a, b) => b.probability - a.probability);
      row.top = all.slice(0, SHOWN);
      if (about.thresholds) row.labels = all.filter(({ probability, level }) => probability >= level);
      row.unknown = similarity !== undefined && share(about.similarity, similarity) <= reject;
    }
    await done({ predictions: [row] }, [file]);
  }
}
