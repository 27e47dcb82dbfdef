// The language of the page, its tabs, and the name of the backbone.

import { information } from "./api.js";
import { startTeach } from "./teach.js";
import { startTry } from "./try.js";
import { byId, complain } from "./ui.js";
import { t, translate } from "./words.js";

translate();

const tabs = [...document.querySelectorAll("[role=tab]")];

function show(tab, focus = false) {
  for (const each of tabs) {
    const chosen = each === tab;
    each.setAttribute("aria-selected", chosen);
    each.tabIndex = chosen ? 0 : -1;
    byId(each.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (focus) tab.focus();
  history.replaceState(null, "", `#${tab.getAttribute("aria-controls")}`);
}

for (const [place, tab] of tabs.entries()) {
  tab.onclick = () => show(tab);
  tab.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) show(tabs[(place + step + tabs.length) % tabs.length], true);
  };
}

// a picture dropped outside a drop area must not replace the page
for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());

try {
  const server = await information();
  byId("backbone").textContent = server.backbone ? t("on {backbone}", { backbone: server.backbone.name }) : t("exported model");
  await startTry(server);
  await startTeach(server);
  if (location.hash === "#teach") show(byId("tab-teach"));
} catch (error) {
  complain(error);
}
