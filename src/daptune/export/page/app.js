// The page: the tab "Try" of daptune's server, with the model in the browser.

import { byId } from "./ui.js";
import { t, translate } from "./words.js";

translate();
byId("not-served").remove();
// a picture dropped outside the drop area must not replace the page
for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());

if (typeof WebAssembly === "undefined") {
  byId("no-wasm").hidden = false;
} else {
  const { information } = await import("./api.js");
  const { startTry } = await import("./try.js");
  const found = await information();
  byId("backbone").textContent = t("on {backbone}", { backbone: found.backbone.name });
  byId("try").hidden = false;
  await startTry(found);
}
