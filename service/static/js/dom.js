// Builds elements. Text goes in as text nodes only: nothing that comes from the service is ever parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** h("button", {class: "x", onclick: f, "aria-label": "y"}, "text", child, ...) */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (value === true) element.setAttribute(name, "");
    else element.setAttribute(name, String(value));
  }
  element.append(...present(children));
  return element;
}

/** Replaces what an element holds, and leaves it alone if the text is all there is and has not changed. */
export function fill(element, ...children) {
  const parts = present(children);
  if (parts.length === 1 && typeof parts[0] === "string" && element.childElementCount === 0) {
    if (element.textContent !== parts[0]) element.textContent = parts[0];
    return element;
  }
  element.replaceChildren(...parts);
  return element;
}

function present(children) {
  return children
    .flat(Infinity)
    .filter((c) => c !== null && c !== undefined && c !== false)
    .map((c) => (c instanceof Node ? c : String(c)));
}

export function svg(tag, props = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(props)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/** Calls `work` at most once per `wait` milliseconds, the last call included. */
export function throttled(work, wait) {
  let timer = null;
  let last = -Infinity;
  const run = () => {
    timer = null;
    last = performance.now();
    work();
  };
  const call = () => {
    if (timer === null) timer = setTimeout(run, Math.max(0, last + wait - performance.now()));
  };
  call.stop = () => clearTimeout(timer);
  return call;
}
