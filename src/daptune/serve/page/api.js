// HTTP client: requests with the token, errors with their reason, uploads in portions, server-sent events.

import { t } from "./words.js";

let token = sessionStorage.getItem("daptune-token");
export let limits = { max_files: 32, max_bytes: 32e6 };

export async function request(path, { method = "GET", json, form } = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  if (json) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, body: json ? JSON.stringify(json) : form });
  } catch {
    throw new Error(t("The server does not answer. Is it still running?"));
  }
  if (response.status === 401) {
    await askForToken();
    return request(path, { method, json, form });
  }
  if (!response.ok) {
    const body = await response.json().catch(() => ({}));
    throw new Error(body.error || t("The server answered {status}.", { status: response.status }));
  }
  return response;
}

export const get = async (path) => (await request(path)).json();
export const send = async (method, path, json) => {
  const response = await request(path, { method, json });
  return response.status === 204 || response.headers.get("content-length") === "0" ? null : response.json();
};
export const part = encodeURIComponent;

export async function information() {
  const found = await get("/v1/info");
  limits = found.limits;
  return found;
}

// Uploads files in portions within the server's limits; calls done(answer, portion) after each.
export async function upload(path, files, done) {
  for (let rest = [...files]; rest.length; ) {
    let count = 1;
    let bytes = rest[0].size;
    while (count < rest.length && count < limits.max_files && bytes + rest[count].size < limits.max_bytes * 0.9) bytes += rest[count++].size;
    const portion = rest.slice(0, count);
    rest = rest.slice(count);
    const form = new FormData();
    for (const file of portion) form.append("files", file, file.name || "pasted.png");
    const response = await request(path, { method: "POST", form });
    await done(await response.json(), portion);
  }
}

// Server-sent events by fetch, which can send a token; calls heard(event) for each.
export async function listen(path, heard) {
  const response = await request(path);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffer += value;
    const blocks = buffer.split("\n\n");
    buffer = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").find((line) => line.startsWith("data: "));
      if (data) heard(JSON.parse(data.slice(6)));
    }
  }
}

export async function blobUrl(path) {
  return URL.createObjectURL(await (await request(path)).blob());
}

let asking = null;
function askForToken() {
  asking ??= new Promise((answered) => {
    const dialog = document.getElementById("token");
    dialog.showModal();
    dialog.addEventListener("close", () => {
      token = document.getElementById("token-value").value.trim();
      sessionStorage.setItem("daptune-token", token);
      asking = null;
      answered();
    }, { once: true });
  });
  return asking;
}
