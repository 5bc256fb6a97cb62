// Elements. Data gets into the page as text and as attributes here, never as markup.

export const by = (id) => document.getElementById(id);

/** An element with attributes (true: present, false: absent), listeners ("onclick") and children. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false) element.setAttribute(name, String(value));
  }
  element.append(...children);
  return element;
}

/** One tab stop for the buttons of a group: arrows, Home and End move between them. */
export function roving(group) {
  const buttons = () => [...group.querySelectorAll("button")];
  const stop = (chosen) => {
    for (const button of buttons()) button.tabIndex = button === chosen ? 0 : -1;
  };
  group.addEventListener("focusin", (event) => stop(event.target));
  group.addEventListener("keydown", (event) => {
    const all = buttons();
    const at = all.indexOf(document.activeElement);
    const to = {
      ArrowRight: at + 1,
      ArrowDown: at + 1,
      ArrowLeft: at - 1,
      ArrowUp: at - 1,
      Home: 0,
      End: all.length - 1,
    };
    if (at < 0 || !(event.key in to)) return;
    event.preventDefault();
    all[(to[event.key] + all.length) % all.length].focus();
  });
  return () => stop(buttons().find((button) => button.tabIndex === 0) ?? buttons()[0]);
}

/** "1 sample", "3 samples". */
export const counted = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;

/** Saves a blob under a name. */
export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
