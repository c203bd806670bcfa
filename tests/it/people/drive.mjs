// A real browser for tests: Debian's Chromium, driven by the keyboard alone, and axe-core's rules of WCAG 2 A and AA.
// Usage: node drive.mjs FOLDER-WITH-NODE_MODULES [FOLDER-FOR-SCREENSHOTS]. Reads a command a line, answers with a line.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [folder, shots] = process.argv.slice(2);
const { chromium } = (await import(pathToFileURL(`${folder}/node_modules/playwright-core/index.js`))).default;
const axe = readFileSync(`${folder}/node_modules/axe-core/axe.min.js`, "utf8");
const rules = { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"] };

const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox", "--disable-dev-shm-usage"] });
const context = await browser.newContext({ viewport: { width: 1200, height: 900 } });
let page = await context.newPage();
const tabs = [page];

// What is wrong with the page that is open, in both colours, wide and narrow.
async function look(name, policy) {
  const problems = [];
  if (!/default-src 'none'/.test(policy) || /script-src|unsafe/.test(policy)) problems.push(`policy: ${policy}`);
  const active = await page.evaluate(() =>
    [...document.querySelectorAll("*")]
      .filter((one) => one.tagName === "SCRIPT" || [...one.attributes].some(({ name }) => /^on|^style$/.test(name)))
      .map((one) => one.outerHTML),
  );
  problems.push(...active.map((one) => `runs something: ${one}`));
  for (const width of [1200, 360]) {
    await page.setViewportSize({ width, height: 900 });
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      // Evaluated by the debugger: the page's policy stays in force.
      await page.evaluate(axe);
      const { violations } = await page.evaluate((rules) => axe.run(document, rules), rules);
      const told = ({ id, nodes }) => `${name} ${colorScheme} ${width}: ${id} ${nodes.map((node) => node.html).join(" ")}`;
      problems.push(...violations.map(told));
      const over = await page.evaluate(() => document.documentElement.scrollWidth);
      if (over > width) problems.push(`${name} ${width}: it is ${over} wide`);
      if (shots) await page.screenshot({ path: `${shots}/${name}-${colorScheme}-${width}.png`, fullPage: true });
    }
  }
  await page.setViewportSize({ width: 1200, height: 900 });
  return problems;
}

const acts = {
  async open({ url, name }) {
    const response = await page.goto(url);
    const policy = response.headers()["content-security-policy"] ?? "";
    return { url: page.url(), status: response.status(), problems: name ? await look(name, policy) : [] };
  },
  // What the frames of a page show.
  async frames({ url }) {
    await page.goto(url);
    const frames = page.frames().filter((frame) => frame !== page.mainFrame());
    const text = (frame) => frame.evaluate(() => document.body.innerText).catch(() => "");
    return { frames: await Promise.all(frames.map(text)) };
  },
  // A page that leads away by itself: where to, and what stands there.
  async led({ url, to }) {
    await page.goto(url).catch(() => {});
    await page.waitForURL((at) => at.href.startsWith(to));
    return { url: page.url(), text: await page.innerText("body") };
  },
  async look({ name }) {
    return { problems: await look(name, "default-src 'none'") };
  },
  async tab({ url }) {
    const tab = await context.newPage();
    await tab.goto(url);
    return { tab: tabs.push(tab) - 1 };
  },
  async switch({ tab }) {
    page = tabs[tab];
    await page.bringToFront();
    return {};
  },
  // Tabs to an element, types into it where there is something to type, and presses Enter.
  async press({ selector, text }) {
    for (let step = 0; step < 60; step++) {
      await page.keyboard.press("Tab");
      if (await page.evaluate((selector) => document.activeElement.matches(selector), selector)) {
        if (text) await page.keyboard.type(text);
        await Promise.all([page.waitForNavigation(), page.keyboard.press("Enter")]);
        return { url: page.url(), text: await page.innerText("body") };
      }
    }
    return { problems: [`the keyboard does not reach ${selector}`] };
  },
};

console.log(JSON.stringify({ ready: true }));
for await (const line of createInterface({ input: process.stdin })) {
  const { act, ...said } = JSON.parse(line);
  const answer = await acts[act](said).catch((error) => ({ problems: [String(error)] }));
  console.log(JSON.stringify({ problems: [], ...answer }));
}
await browser.close();
