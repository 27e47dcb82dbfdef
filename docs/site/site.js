// What Material leaves out for keyboards and screen readers: a name of the search, and focus for what scrolls.
document.querySelector(".md-search")?.setAttribute("aria-label", "Search")
const scrolling = () => {
  for (const it of document.querySelectorAll(".md-typeset__scrollwrap, .md-typeset p:has(> img[src$='.svg'])")) {
    if (it.scrollWidth > it.clientWidth) it.tabIndex = 0
    else it.removeAttribute("tabindex")
  }
}
addEventListener("load", () => {
  scrolling()
  for (const it of document.querySelectorAll(".md-code__nav")) it.setAttribute("role", "none") // no landmarks
})
addEventListener("resize", scrolling)
document.addEventListener("toggle", scrolling, true) // a folded table opens
