// Camera dialog.

import { byId, complain } from "./ui.js";
import { t } from "./words.js";

export const hasCamera = Boolean(navigator.mediaDevices?.getUserMedia);

export async function openCamera(label, take) {
  const dialog = byId("camera"), view = byId("camera-view"), count = byId("camera-count");
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    return complain(t("The camera cannot be used: {why}", { why: error.message }));
  }
  let taken = 0;
  byId("camera-title").textContent = t("Pictures of {label}", { label });
  count.textContent = "";
  view.srcObject = stream;
  await view.play();
  byId("camera-take").onclick = () => {
    const canvas = document.createElement("canvas");
    canvas.width = view.videoWidth;
    canvas.height = view.videoHeight;
    canvas.getContext("2d").drawImage(view, 0, 0);
    canvas.toBlob((blob) => {
      take([new File([blob], `camera-${++taken}.jpg`, { type: "image/jpeg" })]);
      count.textContent = t("{count} taken", { count: taken });
    }, "image/jpeg", 0.92);
  };
  byId("camera-close").onclick = () => dialog.close();
  dialog.addEventListener("close", () => stream.getTracks().forEach((track) => track.stop()), { once: true });
  dialog.showModal();
}
