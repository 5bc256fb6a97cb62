// What can be asked of a page's looks, and of what a screen reader is told.
({
  behind(element) {
    const colours = [];
    for (let at = element; at; at = at.parentElement) colours.push(getComputedStyle(at).backgroundColor);
    return colours;
  },

  // Of each text that is seen: its colour, and the colours behind it, the nearest first.
  texts() {
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node; (node = walker.nextNode());) {
      const element = node.parentElement;
      const seen = element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
      if (!node.data.trim() || !seen || element.closest("option, noscript")) continue;
      const { color, fontSize, fontWeight } = getComputedStyle(element);
      found.push({
        text: node.data.trim(),
        colour: color,
        behind: this.behind(element),
        size: parseFloat(fontSize),
        weight: Number(fontWeight),
      });
    }
    return found;
  },

  // Of what is filled in: the colour of its border, and those behind it.
  edges() {
    return [...document.querySelectorAll("input:not([type=file]), select")]
      .filter((e) => e.checkVisibility())
      .map((e) => ({
        text: e.id,
        colour: getComputedStyle(e).borderTopColor,
        behind: this.behind(e.parentElement),
      }));
  },

  // What is missing or wrong in the tree.
  faults() {
    const faults = [];
    const all = (selector) => [...document.querySelectorAll(selector)];
    const short = (e) => e.outerHTML.slice(0, 80);
    const ids = all("[id]").map((e) => e.id);
    for (const id of new Set(ids))
      if (ids.filter((one) => one === id).length > 1) faults.push(`two are #${id}`);
    for (const name of ["aria-labelledby", "aria-describedby", "aria-controls", "for"])
      for (const e of all(`[${name}]`))
        for (const id of e.getAttribute(name).split(" "))
          if (!document.getElementById(id)) faults.push(`${name} names no #${id}`);
    for (const e of all("img:not([alt])")) faults.push(`no alt: ${short(e)}`);
    for (const e of all("[tabindex]")) if (e.tabIndex > 0) faults.push(`tabindex: ${short(e)}`);
    const named = (e) =>
      e.getAttribute("aria-label") ||
      e.labels?.[0]?.textContent.trim() ||
      (e.matches("input, select") ? "" : e.textContent.trim()) ||
      e.querySelector("img")?.alt ||
      document.getElementById(e.getAttribute("aria-labelledby"))?.textContent;
    const wanted = "button, input, select, a, progress, meter, dialog, section, form, [role]";
    for (const e of all(wanted))
      if (e.checkVisibility() && !named(e) && !["status", "alert"].includes(e.role))
        faults.push(`no name: ${short(e)}`);
    const levels = all("h1, h2, h3")
      .filter((e) => e.checkVisibility())
      .map((e) => Number(e.tagName[1]));
    if (levels[0] !== 1 || levels.some((level, i) => level > (levels[i - 1] ?? 0) + 1))
      faults.push(`headings ${levels}`);
    if (!document.documentElement.lang || !document.title) faults.push("no language or title");
    if (all("main").length !== 1) faults.push("no main");
    for (const e of all("button, .button, select, input:not([type=file], [type=checkbox])")) {
      const { width, height } = e.getBoundingClientRect();
      if (width && Math.min(width, height) < 24) faults.push(`${width} x ${height} pixels: ${short(e)}`);
    }
    return faults;
  },

  // What is not within the window from left to right, and how far it can be scrolled sideways.
  outside() {
    const { scrollWidth, clientWidth } = document.documentElement;
    const wanted = "button, select, input:not([type=file]), dd, h1, h2, figcaption";
    const found = [...document.querySelectorAll(wanted)].filter((e) => {
      const { left, right } = e.getBoundingClientRect();
      return e.checkVisibility() && (left < 0 || right > innerWidth);
    });
    return [
      ...found.map((e) => e.outerHTML),
      ...(scrollWidth > clientWidth ? [`${scrollWidth - clientWidth} pixels`] : []),
    ];
  },
});
