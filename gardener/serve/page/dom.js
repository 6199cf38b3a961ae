// Elements are made here and nowhere else. Text goes in as text: nothing that a model, a peer or a
// server says is ever read as markup.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

/** An element. `given`: attributes; `text` is its text, `on` its listeners, false leaves one out. */
export function make(tag, given = {}, ...children) {
  return filled(document.createElement(tag), given, children);
}

/** The same for pictures. */
export function shape(tag, given = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), given, children);
}

function filled(element, { text, on, ...attributes }, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value !== undefined) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  for (const [name, listener] of Object.entries(on ?? {})) element.addEventListener(name, listener);
  if (text !== undefined) element.textContent = text;
  element.append(...children);
  return element;
}

/** Set a text only if it differs, so that what is selected or read aloud stays as it is. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** The terms and values of a description list, changed in place. */
export function describe(list, pairs) {
  while (list.children.length > pairs.length) list.lastElementChild.remove();
  pairs.forEach(([term, value, help], at) => {
    const item =
      list.children[at] ?? list.appendChild(make("div", {}, make("dt"), make("dd")));
    say(item.firstElementChild, term);
    say(item.lastElementChild, value);
    if (help) item.title = help;
    else item.removeAttribute("title");
  });
}
