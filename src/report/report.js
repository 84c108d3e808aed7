"use strict";
// The page is whole without this: it adds sorting, tooltips at once, a switch of colors, and opens what is closed on paper.
(() => {
  const make = (name, text) => Object.assign(document.createElement(name), { textContent: text });
  const dark = matchMedia("(prefers-color-scheme: dark)");
  {
    const toggle = Object.assign(make("button", "Light / dark"), { type: "button" });
    toggle.onclick = () => {
      const style = document.documentElement.style;
      const now = style.colorScheme || (dark.matches ? "dark" : "light");
      style.colorScheme = now === "dark" ? "light" : "dark";
    };
    document.querySelector("nav").append(toggle);
  }

  const units = { kB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12, ms: 1e-3, min: 60, h: 3600, K: 1e3, M: 1e6, G: 1e9, T: 1e12 };
  const value = (row, column) => {
    const cell = row.cells[column];
    const text = cell?.textContent ?? "";
    const number = parseFloat(text.replaceAll(",", ""));
    if (Number.isNaN(number) || !cell.classList.contains("number")) return text;
    return number * (units[text.trim().split(" ")[1]] ?? 1);
  };
  const order = (a, b) => (typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1);
  for (const table of document.querySelectorAll("table.sortable")) {
    for (const head of table.tHead.querySelectorAll("th")) {
      const button = Object.assign(make("button", ""), { type: "button" });
      button.append(...head.childNodes);
      button.onclick = () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        table.tHead.querySelectorAll("[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const at = head.cellIndex;
        const rows = [...table.tBodies[0].rows];
        rows.sort((a, b) => (up ? 1 : -1) * order(value(a, at), value(b, at)));
        table.tBodies[0].append(...rows);
      };
      head.append(button);
    }
  }

  const tip = Object.assign(make("div", ""), { id: "tooltip", hidden: true });
  tip.setAttribute("aria-hidden", "true");
  document.body.append(tip);
  const told = new WeakMap();
  const words = (target) => {
    const shape = target.closest?.("svg *");
    for (let at = shape; at && at.localName !== "svg"; at = at.parentNode) {
      const title = [...at.children].find((child) => child.localName === "title");
      if (title) {
        told.set(at, title.textContent);
        title.remove();
      }
      if (told.has(at)) return told.get(at);
    }
    return "";
  };
  document.addEventListener("pointermove", (event) => {
    const text = words(event.target);
    tip.hidden = text === "";
    if (tip.hidden) return;
    tip.textContent = text;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 4))}px`;
    tip.style.top = `${event.clientY + 18 + height > innerHeight ? event.clientY - height - 10 : event.clientY + 18}px`;
  });
  document.addEventListener("pointerleave", () => (tip.hidden = true));
  addEventListener("scroll", () => (tip.hidden = true), { passive: true });

  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((more) => (more.open = true)));
})();
