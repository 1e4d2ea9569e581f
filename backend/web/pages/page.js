// What all pages do. A page's own script stands in its template.

// A form, or the button that sends it, that says a question in `data-confirm` is sent only after a yes.
document.addEventListener("submit", event => {
  const question = event.submitter?.dataset.confirm ?? event.target.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});
// Pictures without their masks, and with them again: by the button, or by its key.
function showPlain(isPlain) {
  document.querySelectorAll("[data-unmask]").forEach(button => button.setAttribute("aria-pressed", isPlain));
  for (const image of document.querySelectorAll("img[data-plain], [data-plain] img")) {
    image.dataset.masked ??= image.src;
    image.onerror = () => { image.onerror = null; image.src = image.dataset.masked; };  // it has no prediction
    image.src = isPlain ? image.closest("[data-plain]").dataset.plain : image.dataset.masked;
  }
}
const togglePlain = () => showPlain(document.querySelector("[data-unmask]")?.getAttribute("aria-pressed") === "false");
document.addEventListener("click", event => { if (event.target.closest("[data-unmask]")) togglePlain(); });
document.addEventListener("keydown", event => {
  if (event.key.toLowerCase() !== "p" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (!event.target.closest("input, textarea, select")) togglePlain();
});

// Parts of a page that change while somebody looks at it are asked for again: they have an id and `data-renewed`.
const tags = {};  // nothing is cached, as pictures are: an answer that is known is not sent again
const offered = list => Math.max(0, [...list.options].findIndex(each => each.defaultSelected));
function isUsed(field) {
  if (field === document.activeElement) return true;
  if (field.options) return field.selectedIndex !== offered(field);
  return field.checked !== field.defaultChecked || field.value !== field.defaultValue;
}
const fields = "input:not([type=hidden]), select, textarea";
function again(element) {
  const isSame = each => each.textContent === element.textContent && each.getAttribute("href") === element.getAttribute("href");
  return element.id ? document.getElementById(element.id) : [...document.querySelectorAll("a, button, summary")].find(isSame);
}
async function renew(part) {
  const known = tags[part.id] ? {"If-None-Match": tags[part.id]} : {};
  const answer = await fetch(part.dataset.renewed, {headers: {Accept: "text/html", ...known}, cache: "no-store"});
  if (!answer.ok || part.querySelector("[aria-pressed=true]") || [...part.querySelectorAll(fields)].some(isUsed)) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.getElementById(part.id) ?? page.querySelector("main");
  tags[part.id] = answer.headers.get("ETag");
  if (!fresh || !part.isConnected || fresh.outerHTML === part.outerHTML) return;
  for (const each of part.querySelectorAll("details[open][id]")) fresh.querySelector(`#${each.id}`)?.setAttribute("open", "");
  const focused = document.activeElement;
  part.replaceWith(fresh);
  if (part.localName === "main") {
    document.title = page.title;
    history.replaceState(null, "", part.dataset.renewed);
  }
  if (!focused.isConnected) again(focused)?.focus({preventScroll: true});
}
setInterval(() => {
  if (!document.hidden) document.querySelectorAll("[data-renewed]").forEach(part => renew(part).catch(() => {}));
}, 4000);
