// Opens reports in Chromium, at three widths, in light and in dark, and on paper, and tells everything that is
// wrong with them: messages on the console, requests, what axe-core finds, pages wider than their window.
//
//     node reports.mjs [--pictures FOLDER] REPORT.html ...
//
// CHROMIUM names the browser; by default it is looked for where Debian puts it.

import axe from "axe-core";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const WIDTHS = [360, 768, 1280];
const SCHEMES = ["light", "dark"];
const OPTIONS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

const words = process.argv.slice(2);
const pictures = words[0] === "--pictures" ? words.splice(0, 2)[1] : undefined;
const reports = words.map((file) => resolve(file));
if (reports.length === 0) {
  console.error("usage: node reports.mjs [--pictures FOLDER] REPORT.html ...");
  process.exit(2);
}

const faults = [];
const profile = mkdtempSync(join(tmpdir(), "minic-browser-"));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: OPTIONS,
  headless: true,
});
try {
  for (const report of reports) {
    for (const scheme of SCHEMES) {
      for (const width of WIDTHS) await look(report, scheme, width);
    }
    await print(report);
  }
} finally {
  await browser.close();
  rmSync(profile, { recursive: true, force: true });
}
for (const fault of faults) console.error(fault);
console.log(`${reports.length} reports at ${WIDTHS.length} widths in ${SCHEMES.length} schemes: ${faults.length} faults`);
process.exit(faults.length === 0 ? 0 : 1);

// A page of a report, with everything that it does wrong noted.
async function open(report, where) {
  const page = await browser.newPage();
  page.setDefaultTimeout(30_000);
  const fault = (what) => faults.push(`${basename(report)}, ${where}: ${what}`);
  const url = pathToFileURL(report).href;
  page.on("console", (message) => fault(`console: ${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => fault(`error: ${error.message}`));
  page.on("request", (request) => {
    if (request.url().split("#")[0] !== url && !request.url().startsWith("data:")) fault(`asks for ${request.url()}`);
  });
  return { page, fault, url };
}

async function look(report, scheme, width) {
  const { page, fault, url } = await open(report, `${width} px, ${scheme}`);
  await page.setViewportSize({ width, height: 900 });
  await page.emulateMedia({ colorScheme: scheme });
  await page.goto(url);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  if (wide > 0) fault(`the page is ${wide} px wider than its window`);
  if (pictures) await page.screenshot({ path: picture(report, `${width}-${scheme}.png`), fullPage: true });
  // What is closed is looked at, too.
  await page.evaluate(() => document.querySelectorAll("details").forEach((more) => (more.open = true)));
  await use(page, fault);
  // The page's policy lets no other script in; the tools of a debugger are not under it.
  await page.evaluate(axe.source + "; undefined");
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  for (const { id, help, nodes } of violations) {
    fault(`axe: ${id}: ${help}: ${nodes.length} times, first ${nodes[0].html.slice(0, 200)} ${nodes[0].failureSummary}`);
  }
  await page.close();
}

// The page's own script: columns are sorted, colors change, and shapes tell what they are.
async function use(page, fault) {
  const head = page.locator("table.sortable th button").first();
  if ((await head.count()) > 0) {
    await head.click();
    if ((await page.locator("th[aria-sort=ascending]").count()) !== 1) fault("a column is not sorted");
  }
  const scheme = () => page.evaluate(() => getComputedStyle(document.body.parentElement).backgroundColor);
  const before = await scheme();
  const toggle = page.locator("nav button");
  await toggle.click();
  if ((await scheme()) === before) fault("the switch of colors does nothing");
  await toggle.click();
  if ((await scheme()) !== before) fault("the switch of colors does not go back");
  const shape = page.locator("svg.heat rect").first();
  if ((await shape.count()) > 0) {
    await shape.evaluate((it) => it.scrollIntoView({ block: "center" }));
    // Scrolling, which is told a frame later, hides tooltips.
    await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
    await shape.hover({ force: true });
    if (!(await page.locator("#tooltip").isVisible())) fault("a shape shows no tooltip");
  }
}

async function print(report) {
  const { page, fault, url } = await open(report, "on paper");
  await page.goto(url);
  const pdf = await page.pdf({ preferCSSPageSize: true, printBackground: true });
  if (pdf.subarray(0, 5).toString() !== "%PDF-") fault("is not printed");
  if (pictures) writeFileSync(picture(report, "paper.pdf"), pdf);
  await page.close();
}

function picture(report, end) {
  return join(pictures, `${basename(dirname(report))}-${basename(report, ".html")}-${end}`);
}
