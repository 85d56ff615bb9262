// The panel in the browser: draws what the kernel describes, and tells it what was clicked.
//
// All text from outside is set as text. The only HTML that is taken as such is that of replies, which the kernel has
// made safe. See overview.py for what the state holds.

const FEW = 8; // sessions that are listed without a search field
const MOST = 100; // sessions that are listed at once
const LONGEST_FILE = 1_000_000; // bytes

/** Make an element; `on…` are listeners, `key` finds it again after it was drawn anew. */
function h(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "key") node.dataset.key = value;
    else if (name === "value" || name === "disabled") node[name] = value;
    else if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  // JupyterLab looks at the element that has the focus: "x" on a button would cut the cell.
  if (["button", "input", "textarea"].includes(tag) || "tabindex" in attributes) node.dataset.lmSuppressShortcuts = "true";
  node.append(...children.filter(child => child !== null && child !== undefined && child !== false));
  return node;
}

/** Show what the kernel knows, as far as it is known here, and keep what was clicked until it is answered. */
class Store {
  constructor(model) {
    this.model = model;
    this.state = structuredClone(model.get("state"));
    this.views = new Set();
    this.pending = new Map();
    this.gone = false;
    this.busy = false;
    this.next = 1;
    this.by = Math.random().toString(36).slice(2);
    this.say = "";
    this.old = "";
    this.put = { at: -1, count: 0 };
    this.refused = new Map();
    const manager = model.widget_manager;
    this.context = manager?.context;
    this.rendermime = manager?.rendermime;
    this.kernel = manager?.kernel;
    this.heard = message => this.hear(message);
    this.left = () => { this.gone = true; this.pending.clear(); this.draw(); };
    this.worked = () => this.watch();
    this.saved = (_, what) => { if (what === "started") this.keep(); };
    model.on("msg:custom", this.heard);
    model.on("comm_live_update", this.left);
    this.kernel?.statusChanged?.connect(this.worked);
    this.context?.saveState?.connect(this.saved);
  }

  close() {
    this.model.off("msg:custom", this.heard);
    this.model.off("comm_live_update", this.left);
    this.kernel?.statusChanged?.disconnect(this.worked);
    this.context?.saveState?.disconnect(this.saved);
    clearTimeout(this.timer);
    clearInterval(this.waiting);
  }

  hear(message) {
    for (const [name, value] of Object.entries(message.set ?? {})) this.state[name] = value;
    for (const [name, entries] of Object.entries(message.merge ?? {})) {
      const map = this.state[name] ??= {};
      for (const [key, value] of Object.entries(entries)) {
        if (value === null) delete map[key];
        else map[key] = value;
      }
    }
    if (message.set?.note !== undefined) this.old = "";
    // Other front ends hear of it, too.
    if (this.pending.delete(message.done) && message.cell) this.say = this.insert(message.cell);
    if (message.refused) this.refused.get(message.done)?.();
    if (!message.later) this.refused.delete(message.done);
    try {
      this.draw();
    } catch (error) {
      console.error("chatmagic's panel cannot draw itself:", error);
    }
  }

  /** Say something that the kernel does not know. */
  hint(text) {
    this.say = text;
    this.old = this.state.note;
    this.draw();
  }

  /** Tell the kernel what to do; what it does not answer at once waits for a running cell. */
  send(act, label, refused) {
    const id = `${this.by}-${this.next++}`;
    this.say = "";
    if (refused) this.refused.set(id, refused);
    this.model.send({ ...act, id });
    if (!label) return;
    this.pending.set(id, { label, since: Date.now() });
    this.waiting ??= setInterval(() => {
      if (this.pending.size === 0) {
        clearInterval(this.waiting);
        this.waiting = undefined;
      }
      this.draw();
    }, 300);
  }

  /** What is waited for, in words. */
  get waits() {
    const late = [...this.pending.values()].filter(each => Date.now() - each.since > 250);
    if (!late.length) return "";
    const idle = this.kernel && this.kernel.status === "idle" && late.some(each => Date.now() - each.since > 3000);
    const what = late.map(each => each.label).join(", ");
    return idle ? `${what}: the kernel does not answer. Run this cell again.` : `${what} waits until the running cell ends.`;
  }

  /** A kernel that is busy for longer than a click takes runs a cell. */
  watch() {
    clearTimeout(this.timer);
    const busy = this.kernel.status === "busy";
    if (busy) this.timer = setTimeout(() => { this.busy = true; this.draw(); }, 400);
    else if (this.busy) { this.busy = false; this.draw(); }
  }

  draw() {
    for (const view of this.views) view.draw();
  }

  /** Put a cell below the active one; where that cannot be, into the clipboard. */
  insert(source) {
    const cells = this.context?.model?.sharedModel;
    if (!cells?.insertCell) {
      navigator.clipboard?.writeText(source);
      return "The cell is in the clipboard: paste it where you want it.";
    }
    const active = document.querySelectorAll(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook .jp-Cell.jp-mod-active");
    const at = active.length === 1 ? Number(active[0].dataset.windowedListIndex) : NaN;
    // The next one goes below the last one, as long as the same cell is active.
    this.put = this.put.at === at ? { at, count: this.put.count + 1 } : { at, count: 1 };
    const place = Number.isInteger(at) ? at + this.put.count : cells.cells.length;
    cells.insertCell(Math.min(place, cells.cells.length), { cell_type: "code", source });
    return Number.isInteger(at) ? "It is in a new cell below the active one." : "It is in a new cell at the end of the notebook.";
  }

  /** Let the saved notebook hold what the panel shows, for whoever opens it without this kernel. */
  keep() {
    const notebook = this.context?.model, cells = notebook?.sharedModel?.cells;
    if (!cells || !notebook.setMetadata) return;
    const mime = "application/vnd.jupyter.widget-state+json", view = "application/vnd.jupyter.widget-view+json";
    const outputs = cells.flatMap(cell => cell.getOutputs?.() ?? []);
    const shown = new Set(outputs.map(output => output.data?.[view]?.model_id));
    const widgets = structuredClone(notebook.getMetadata("widgets") ?? {});
    const before = JSON.stringify(widgets);
    const saved = (widgets[mime] ??= { version_major: 2, version_minor: 0, state: {} }).state;
    for (const [id, each] of Object.entries(saved)) {
      if (String(each.state?.value).startsWith(STILL) && !shown.has(id)) delete saved[id];
    }
    if (shown.has(this.state.id)) {
      saved[this.state.id] = {
        model_name: "HTMLModel",
        model_module: "@jupyter-widgets/controls",
        model_module_version: "2.0.0",
        state: { value: still(this.state, this.model.get("_css")) },
      };
    }
    if (JSON.stringify(widgets) === before) return;
    if (Object.keys(saved).length) notebook.setMetadata("widgets", widgets);
    else notebook.deleteMetadata("widgets");
  }
}

const STILL = '<div class="chatmagic-panel chatmagic-still">';

/** Return the panel as a still picture. All that is in it was set as text. */
function still(state, css) {
  const body = h("div", { class: "cm-body" }, about(state, date), system(state), context(state), bars(state), totals(state), turns(state));
  const note = h("div", { class: "cm-quiet" }, "As it was when the notebook was saved. Run this cell to see it as it is.");
  return `${STILL}<style>${css}</style>${note.outerHTML}${body.outerHTML}</div>`;
}

/** Return what a map has under a name that may be any word, such as "constructor". */
function own(map, name) {
  return Object.hasOwn(map, name) ? map[name] : undefined;
}

function count(number, thing) {
  return `${number.toLocaleString("en")} ${thing}${number === 1 ? "" : "s"}`;
}

function age(seconds) {
  if (!seconds) return "";
  const minutes = Math.max(0, (Date.now() / 1000 - seconds) / 60);
  if (minutes < 1) return "just now";
  if (minutes < 60) return `${Math.floor(minutes)} min`;
  return minutes < 60 * 24 ? `${Math.floor(minutes / 60)} h` : `${Math.floor(minutes / 60 / 24)} d`;
}

function date(seconds) {
  return seconds ? new Date(seconds * 1000).toLocaleString() : "";
}

/** Say what is to be known of the current session in a line. */
function about(state, time = age) {
  const [number, model, when, cost] = own(state.sessions, state.current) ?? [0, state.chat.model, 0, ""];
  const more = [model, state.chat.known ? count(number, "turn") : "not started", time(when), cost];
  return h("span", { class: "cm-about" }, h("b", {}, state.current), " ", h("small", {}, more.filter(Boolean).join(" · ")));
}

function system(state) {
  return state.system ? h("div", { class: "cm-system" }, h("small", {}, "System prompt "), state.system) : null;
}

function context(state) {
  const filled = state.context;
  if (!filled) return null;
  const share = filled.most ? Math.min(1, filled.tokens / filled.most) : 0;
  const bar = h("div", {
    class: "cm-meter", role: "meter", "aria-label": "How full the context is", "aria-valuemin": 0,
    "aria-valuemax": filled.most, "aria-valuenow": filled.tokens, "aria-valuetext": filled.about,
  }, h("span", { class: share > 0.8 ? "cm-full" : "" }));
  bar.firstChild.style.width = `${Math.max(share * 100, 0.5)}%`;
  const next = filled.next ? h("div", { class: "cm-quiet" }, filled.next) : null;
  return h("div", { class: "cm-context" }, filled.most ? bar : null, h("div", {}, h("small", {}, "Context "), filled.about), next);
}

const KINDS = ["cached", "fresh", "reply", "thoughts"];

/** Draw a bar for each turn; `open` shows a turn, `point` says what a bar means. */
function bars(state, open, point) {
  const shown = state.line.map(number => [number, state.bars[number]]).filter(([, bar]) => bar);
  const most = Math.max(1, ...shown.map(([, bar]) => bar[0] + bar[1] + bar[2] + bar[3]));
  if (!shown.length) return null;
  const drawn = shown.map(([number, bar], place) => {
    const label = bar[4];
    const column = open
      ? h("button", { class: "cm-bar", key: `bar-${number}`, title: label, "aria-label": `${label}. Show this turn`,
          tabindex: place === shown.length - 1 ? 0 : -1,
          onclick: () => open(number), onmouseenter: () => point(label), onfocus: () => point(label) })
      : h("span", { class: "cm-bar", title: label });
    KINDS.forEach((kind, index) => {
      if (!bar[index]) return;
      const piece = h("span", { class: `cm-${kind}` });
      piece.style.height = `${(bar[index] / most) * 100}%`;
      column.append(piece);
    });
    return column;
  });
  const group = h("div", { class: "cm-bars", role: open ? "toolbar" : "img", "aria-label": "Tokens of each turn",
    onkeydown: event => walk(event, ["ArrowLeft", "ArrowRight"]) }, ...drawn);
  const legend = KINDS.filter((_, index) => shown.some(([, bar]) => bar[index]))
    .map(kind => h("span", {}, h("i", { class: `cm-${kind}` }), kind === "cached" ? "from the cache" : kind === "fresh" ? "fresh input" : kind));
  const before = state.chat.before ? h("span", {}, `${count(state.chat.before, "turn")} before`) : null;
  return h("div", { class: "cm-usage" }, group, h("div", { class: "cm-legend" }, ...legend, before));
}

/** Move the focus among siblings with two keys, Home and End. */
function walk(event, [back, forth]) {
  const all = [...event.currentTarget.children];
  const at = all.indexOf(document.activeElement);
  const to = { [back]: at - 1, [forth]: at + 1, Home: 0, End: all.length - 1 }[event.key];
  if (at < 0 || to === undefined || !all[to]) return;
  event.preventDefault();
  all[at].tabIndex = -1;
  all[to].tabIndex = 0;
  all[to].focus();
}

function totals(state) {
  if (!state.totals.length) return null;
  const head = ["", "tokens in", "cached", "out", "cost"].map(each => h("th", { scope: "col" }, each));
  const rows = state.totals.map(([name, ...cells]) =>
    h("tr", {}, h("th", { scope: "row" }, name), ...cells.map(cell => h("td", {}, cell))));
  return h("table", { class: "cm-totals" }, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows));
}

function turns(state, view) {
  const named = state.line.filter(number => state.turns[number]);
  if (!named.length) {
    const how = state.chat.known ? "continues it" : "starts it";
    return h("div", { class: "cm-quiet" }, `No turn yet: ask below, or with %%chat ${state.current} on the first line of a cell, which ${how}.`);
  }
  const open = state.page?.turn;
  return h("ol", { class: "cm-turns", "aria-label": "The last turns" }, ...named.map(number => {
    const [prompt, reply, pinned] = state.turns[number];
    const text = [h("b", {}, `#${number}`), " ", h("span", { class: "cm-prompt" }, prompt), " ", h("span", { class: "cm-reply" }, reply)];
    if (!view) return h("li", {}, ...text);
    const shown = open === number;
    const last = number === state.line[state.line.length - 1];
    return h("li", { class: shown ? "cm-open" : "" },
      view.button(text, shown ? "Show it no more" : "Show this turn", `turn-${number}`, { do: shown ? "close" : "open", n: number }, { class: "cm-text", "aria-expanded": String(shown) }),
      h("span", { class: "cm-acts" },
        last && view.button("Retry", "Ask the newest prompt once more", `retry-${number}`, { do: "retry" }, {}, true),
        view.button(pinned ? "Unpin" : "Pin", pinned ? "Let it go with the next cut" : "Send it even when not everything can be", `pin-${number}`,
          { do: "pin", n: number, value: !pinned }, { "aria-pressed": String(pinned) }, true),
        view.button("To a cell", "Put its prompt into a new cell", `cell-${number}`, { do: "cell", n: number }, {}, false)));
  }));
}

/** Fields to fill in: Enter acts, Escape closes. A real form would do the first only where the page lets it. */
function fields({ act, close }, ...content) {
  return h("div", {
    class: "cm-fields",
    onkeydown: event => {
      if (event.key === "Escape") close();
      else if (event.key === "Enter" && event.target.tagName === "INPUT" && !event.isComposing) act();
      else return;
      event.preventDefault();
    },
  }, ...content, h("button", { type: "button", onclick: close }, "Cancel"));
}

/** The panel in one place. */
class View {
  constructor(store, el) {
    this.store = store;
    this.memo = {};
    this.since = {};
    this.picking = false;
    this.search = "";
    this.marked = 0;
    this.fromFile = false;
    const part = (name, attributes) => (this[name] = h("div", { class: `cm-${name}`, ...attributes }));
    this.root = h("div", { class: "chatmagic-panel mathjax_ignore tex2jax_ignore" },
      part("head"), part("picker", { onkeydown: event => this.keys(event) }), part("form"), part("settings"), part("status", { role: "status", "aria-live": "polite" }),
      part("asked"), part("figures"), part("last"), part("page"), part("box"));
    part("options");
    this.box.append(...this.prompts());
    // JupyterLab lets Enter make no line break in a cell.
    this.root.addEventListener("beforeinput", event => {
      if (event.inputType === "insertLineBreak") event.stopPropagation();
    }, true);
    this.root.addEventListener("dragover", event => {
      if (![...(event.dataTransfer?.types ?? [])].includes("Files")) return;
      event.preventDefault();
      this.root.classList.add("cm-drop");
    });
    this.root.addEventListener("dragleave", event => {
      if (!this.root.contains(event.relatedTarget)) this.root.classList.remove("cm-drop");
    });
    this.root.addEventListener("drop", event => {
      this.root.classList.remove("cm-drop");
      if (!event.dataTransfer?.files.length) return;
      event.preventDefault();
      event.stopPropagation();
      this.take(event.dataTransfer.files);
    });
    el.append(this.root);
    store.views.add(this);
    if (store.views.size === 1) store.send({ do: "shown", by: store.by, value: true });
    this.clock = setInterval(() => this.tick(), 1000);
    this.draw();
  }

  close() {
    clearInterval(this.clock);
    this.store.views.delete(this);
    if (!this.store.views.size && !this.store.gone) this.store.send({ do: "shown", by: this.store.by, value: false });
  }

  get state() {
    return this.store.state;
  }

  get dead() {
    return this.store.gone || !this.state.loaded;
  }

  get isAsked() {
    return own(this.state.asked, this.state.current) !== undefined;
  }

  /** A button that has the kernel do something; `still` ones cannot while the session is being asked. */
  button(text, label, key, act, attributes = {}, still = false) {
    const name = typeof text === "string" ? text : label;
    return h("button", {
      type: "button", key, title: still && this.isAsked ? `${this.state.current} is being asked` : label,
      disabled: this.dead || (still && this.isAsked),
      onclick: () => this.store.send({ of: this.state.current, ...act }, name),
      ...attributes,
    }, ...(typeof text === "string" ? [text] : text));
  }

  /** Draw a part anew if what it shows has changed; the focus stays where it was. */
  part(name, slice, make) {
    const now = JSON.stringify([slice, this.dead]);
    if (this.memo[name] === now) return;
    this.memo[name] = now;
    const node = this[name];
    const focused = node.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
    node.replaceChildren(...make().filter(Boolean));
    if (!focused) return;
    const again = [...node.querySelectorAll("[data-key]")].find(each => each.dataset.key === focused);
    (again && !again.disabled ? again : node.querySelector("button:not(:disabled)") ?? this.prompt).focus();
  }

  draw() {
    const state = this.state, chat = state.chat;
    this.root.classList.toggle("cm-dead", this.dead);
    const row = own(state.sessions, state.current);
    this.part("head", [state.current, row, row && age(row[2]), chat, this.isAsked, this.picking, this.isSetting], () => this.heading());
    this.part("options", this.picking && [state.sessions, state.current, Object.keys(state.asked), this.search, this.marked], () => this.list());
    this.part("status", this.said(), () => [this.said()]);
    this.part("asked", [state.asked, state.page?.streams, state.current], () => this.running());
    this.part("figures", [state.context, state.system, state.line, state.bars, state.totals, chat.before], () => this.pictures());
    this.part("last", [state.line, state.turns, state.page?.turn, chat.known, state.current, this.isAsked], () => [turns(state, this)]);
    this.part("page", [state.page, state.current], () => this.opened());
    this.fill();
    this.send.disabled = this.dead || this.isAsked;
    this.send.title = this.isAsked ? `${state.current} is being asked just now` : "Ask in the current session (Shift+Enter)";
    this.prompt.setAttribute("aria-label", `Ask in ${state.current}`);
    this.prompt.placeholder = `Ask in ${state.current} … (Shift+Enter asks; drop a text file here)`;
    this.tick();
  }

  said() {
    if (this.store.gone) return "The kernel of this panel has ended, and this is how it was. Run this cell again to see how it is.";
    if (!this.state.loaded) return "chatmagic was unloaded: %load_ext chatmagic brings the panel back to life.";
    const busy = this.store.busy ? "A cell is running: what you click waits until it ends." : "";
    const note = this.state.note === this.store.old ? "" : this.state.note;
    return [this.store.waits || busy, note, this.store.say].filter(Boolean).join(" ");
  }

  heading() {
    const { current, chat } = this.state;
    const toggle = h("button", {
      type: "button", class: "cm-session", key: "session", "aria-haspopup": "listbox", "aria-expanded": String(this.picking),
      title: "Choose another session", onclick: () => this.pick(!this.picking),
    }, about(this.state), h("span", { "aria-hidden": "true" }, this.picking ? "▴" : "▾"));
    const acts = [
      this.opener("New", "Start a session", { do: "new", label: "Name of the new session", value: "" }),
      this.opener("Fork", "Go on with the same turns under another name", { do: "fork", label: "Name of the fork", value: this.free(current) }, !chat.known),
      this.opener("Rename", "Give the session another name", { do: "rename", label: "New name", value: current }, !chat.known || this.isAsked),
      this.button("Clear", "Set its turns aside", "clear", { do: "clear" }, chat.clear ? {} : { disabled: true }, true),
      this.button("Delete", "Delete the session", "delete", { do: "delete" }, chat.known ? {} : { disabled: true }, true),
      this.button("Undo", chat.undo === null ? "There is nothing to undo" : `Undo: ${chat.undo}`, "undo", { do: "undo", what: chat.undo }, chat.undo === null ? { disabled: true } : {}, true),
      this.button("Redo", chat.redo === null ? "There is nothing to redo" : `Redo: ${chat.redo}`, "redo", { do: "redo", what: chat.redo }, chat.redo === null ? { disabled: true } : {}, true),
      h("button", { type: "button", key: "settings", "aria-expanded": String(!!this.isSetting), title: "Model and system prompt", disabled: this.dead,
        onclick: () => this.set(!this.isSetting) }, "Settings"),
    ];
    return [toggle, h("div", { class: "cm-tools", role: "group", "aria-label": "Acts on sessions" }, ...acts)];
  }

  opener(text, label, form, disabled = false) {
    return h("button", { type: "button", key: form.do, title: label, disabled: this.dead || disabled, onclick: () => this.ask({ ...form, text }) }, text);
  }

  /** Return a name for a fork that is not taken. */
  free(name) {
    const stem = name.replace(/-\d+$/, "").slice(0, 58);
    for (let number = 2; ; number++) if (!own(this.state.sessions, `${stem}-${number}`)) return `${stem}-${number}`;
  }

  focus(key) {
    [...this.root.querySelectorAll("[data-key]")].find(each => each.dataset.key === key)?.focus();
  }

  /** Ask for a name, and act with it. */
  ask(form) {
    const close = () => { this.form.replaceChildren(); this.focus(form.do); };
    const field = h("input", { type: "text", value: form.value, "aria-label": form.label, placeholder: form.label, maxlength: 64, key: "name" });
    const of = this.state.current;
    const act = () => {
      const again = () => this.ask({ ...form, value: field.value });
      this.store.send({ do: form.do, name: field.value, ...(form.do === "new" ? {} : { of }) }, form.text, again);
      close();
    };
    this.form.replaceChildren(fields({ act, close }, h("label", {}, form.label, " ", field), h("button", { type: "button", onclick: act }, form.text)));
    field.focus();
    field.select();
  }

  pick(open) {
    this.picking = open;
    this.search = "";
    this.marked = Math.max(0, this.found.findIndex(([name]) => name === this.state.current));
    this.picker.replaceChildren(...(open ? [this.field(), this.options] : []));
    this.draw();
    if (open) this.picker.querySelector("input, [role=listbox]")?.focus();
    else this.focus("session");
  }

  /** A field to search in, where there is much to search. */
  field() {
    const number = Object.keys(this.state.sessions).length;
    if (number <= FEW) return "";
    return h("input", {
      type: "search", key: "search", placeholder: `search ${count(number, "session")}`, "aria-label": "Search sessions",
      role: "combobox", "aria-expanded": "true", "aria-controls": `${this.state.id}-list`,
      oninput: event => { this.search = event.target.value; this.marked = 0; this.draw(); },
    });
  }

  /** The sessions that are searched for, the one that was asked last first. */
  get found() {
    const words = this.search.toLowerCase().split(/\s+/).filter(Boolean);
    return Object.entries(this.state.sessions)
      .filter(([name, [, model]]) => words.every(word => `${name} ${model}`.toLowerCase().includes(word)))
      .sort(([, a], [, b]) => b[2] - a[2]);
  }

  list() {
    if (!this.picking) return [];
    const found = this.found;
    const shown = found.slice(0, MOST);
    this.marked = Math.max(0, Math.min(this.marked, shown.length - 1));
    const options = shown.map(([name, [number, model, when, cost]], place) => h("div", {
      role: "option", id: `${this.state.id}-${place}`, "aria-selected": String(name === this.state.current), class: place === this.marked ? "cm-marked" : "",
      onclick: () => this.choose(name), onmousemove: () => { if (this.marked !== place) { this.marked = place; this.draw(); } },
    }, h("b", {}, name), h("span", {}, own(this.state.asked, name) !== undefined ? "● being asked" : ""), h("span", {}, model), h("span", {}, count(number, "turn")), h("span", {}, age(when)), h("span", {}, cost)));
    const active = shown.length ? `${this.state.id}-${this.marked}` : "";
    this.picker.querySelector("input")?.setAttribute("aria-activedescendant", active);
    this.shown = shown;
    const rest = found.length - shown.length;
    const note = rest > 0 ? `… ${rest.toLocaleString("en")} more: search for them` : found.length ? "" : this.search ? "none is called so" : "There is no session yet.";
    const box = h("div", { role: "listbox", id: `${this.state.id}-list`, "aria-label": "Sessions", key: "list", tabindex: 0, "aria-activedescendant": active }, ...options);
    queueMicrotask(() => box.children[this.marked]?.scrollIntoView?.({ block: "nearest" }));
    return [box, note && h("div", { class: "cm-quiet" }, note)];
  }

  keys(event) {
    const shown = this.shown ?? [];
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8 }[event.key];
    if (by) {
      event.preventDefault();
      this.marked = Math.max(0, Math.min(shown.length - 1, this.marked + by));
      this.draw();
    } else if (event.key === "Enter" && shown[this.marked]) {
      event.preventDefault();
      this.choose(shown[this.marked][0]);
    } else if (event.key === "Escape") this.pick(false);
  }

  choose(name) {
    this.pick(false);
    if (name !== this.state.current && !this.dead) this.store.send({ do: "use", of: name }, `Switching to ${name}`);
  }

  /** Open or close what shows and changes model and system prompt. */
  set(open) {
    this.isSetting = open;
    const { current, chat } = this.state;
    if (!open) this.settings.replaceChildren();
    else {
      const known = [...new Set([chat.default, ...Object.values(this.state.sessions).map(([, model]) => model)])].filter(Boolean);
      const model = h("input", { type: "text", value: chat.own, placeholder: `${chat.default} (by default)`, list: `${this.state.id}-models`, "aria-label": "Model", key: "model" });
      const before = this.state.system;
      const system = h("textarea", { rows: 3, value: before, placeholder: "none", "aria-label": "System prompt" });
      const close = () => this.set(false);
      const act = () => {
        const changes = { do: "set", of: current };
        if (model.value.trim() !== chat.own) changes.model = model.value.trim();
        if (system.value !== before) changes.system = system.value;
        if ("model" in changes || "system" in changes) this.store.send(changes, "Settings");
        close();
      };
      this.settings.replaceChildren(fields({ act, close },
        h("label", {}, "Model ", model), h("datalist", { id: `${this.state.id}-models` }, ...known.map(each => h("option", { value: each }))),
        h("label", {}, "System prompt ", system), h("button", { type: "button", onclick: act }, `Set for ${current}`)));
      model.focus();
    }
    this.draw();
    if (!open) this.focus("settings");
  }

  running() {
    const { asked, current, page } = this.state;
    if (this.dead) return [];
    return Object.entries(asked).map(([name, what]) => h("div", { "data-asked": name },
      h("span", { class: "cm-dot", "aria-hidden": "true" }, "●"), ` ${name} ${what || "is being asked"} `, h("small", {}),
      name === current && page?.streams ? this.button("Stop", "Stop the reply and keep what has come", "stop", { do: "stop" }) : ""));
  }

  pictures() {
    const readout = h("div", { class: "cm-readout" });
    const last = this.state.line[this.state.line.length - 1];
    const point = label => { readout.textContent = label; };
    point(this.state.bars[last]?.[4] ?? "");
    const open = number => this.store.send({ do: "open", of: this.state.current, n: number }, `Showing #${number}`);
    const drawn = bars(this.state, this.dead ? undefined : open, point);
    return [system(this.state), context(this.state), h("div", { class: "cm-pair" }, drawn && h("div", {}, drawn, readout), totals(this.state))];
  }

  opened() {
    const page = this.state.page;
    this.drawn = {};
    if (!page) return [];
    this.parts = h("div", { class: "cm-parts jp-RenderedHTMLCommon jp-RenderedHTML" });
    const acts = page.streams ? [] : [
      page.turn && this.button("To a cell", "Put the prompt into a new cell", "page-cell", { do: "cell", n: page.turn }),
      this.button("Close", "Show it no more", "close", { do: "close" }),
    ];
    return [h("div", { class: "cm-title" }, h("b", {}, page.turn ? `#${page.turn}` : "…"), h("span", { class: "cm-asked-text" }, page.prompt), h("span", { class: "cm-acts" }, ...acts.filter(Boolean))), this.parts];
  }

  /** Bring the parts of a reply up to date; what has not changed is not touched. */
  fill() {
    if (!this.state.page) return;
    const box = this.parts, parts = this.state.parts;
    const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    for (const key of Object.keys(this.drawn)) if (!(key in parts)) { this.drawn[key].remove(); delete this.drawn[key]; }
    for (const [key, html] of Object.entries(parts)) {
      const node = this.drawn[key] ??= box.appendChild(h("div"));
      if (node.source === html) continue;
      node.source = html;
      node.innerHTML = html; // ours: see the top
      this.store.rendermime?.latexTypesetter?.typeset(node);
    }
    if (atEnd && this.state.page.streams) box.scrollTop = box.scrollHeight;
  }

  prompts() {
    this.prompt = h("textarea", {
      rows: 3,
      onkeydown: event => {
        if (event.key === "Enter" && (event.shiftKey || event.ctrlKey || event.metaKey) && !event.isComposing) {
          event.preventDefault();
          event.stopPropagation();
          this.go();
        }
      },
      oninput: () => { if (!this.prompt.value) this.fromFile = false; },
    });
    const file = h("input", { type: "file", multiple: true, hidden: true, onchange: () => { this.take(file.files); file.value = ""; } });
    this.send = h("button", { type: "button", class: "cm-send", title: "Ask in the current session (Shift+Enter)", onclick: () => this.go() }, "Ask");
    this.put = h("button", { type: "button", title: "Make it a %%chat cell of the notebook", onclick: () => this.move() }, "Put into a cell");
    const add = h("button", { type: "button", title: "Put the text of a file into the prompt", onclick: () => file.click() }, "Add a file");
    return [this.prompt, h("div", {}, this.send, this.put, add, file)];
  }

  empty() {
    this.prompt.value = "";
    this.fromFile = false;
  }

  go() {
    if (this.dead) return;
    if (this.isAsked) return this.store.hint(`${this.state.current} is being asked just now. Ask when it has answered, or stop it.`);
    const text = this.prompt.value, fromFile = this.fromFile;
    if (!text.trim()) return this.store.hint("Type a prompt first.");
    const again = () => {
      if (!this.prompt.value) [this.prompt.value, this.fromFile] = [text, fromFile];
    };
    this.store.send({ do: "ask", of: this.state.current, text }, "Asking", again);
    this.empty();
  }

  move() {
    if (!this.prompt.value.trim()) return this.store.hint("Type a prompt first.");
    // What stands in a file is not meant to be evaluated.
    const raw = this.fromFile && this.prompt.value.includes("{{") ? " --raw" : "";
    const said = this.store.insert(`%%chat ${this.state.current}${raw}\n${this.prompt.value}`);
    this.empty();
    this.store.hint(said);
  }

  /** Put the texts of files into the prompt, and say what became of each. */
  async take(files) {
    const said = [];
    for (const file of files) said.push(await this.added(file));
    this.store.hint(said.join(" "));
    this.prompt.focus();
  }

  async added(file) {
    const name = file.name.replace(/[\s`]+/g, " ").slice(0, 100);
    if (file.size > LONGEST_FILE) {
      return `${name} is too long: ${count(file.size, "byte")}, at most ${count(LONGEST_FILE, "byte")} go into a prompt.`;
    }
    let text;
    try {
      text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
      if (text.includes("\0")) throw new Error();
    } catch {
      return `${name} is no text (UTF-8), and only text goes into a prompt.`;
    }
    const fence = "`".repeat(Math.max(3, ...(text.match(/`+/g) ?? []).map(each => each.length + 1)));
    const before = this.prompt.value.trimEnd();
    const block = `File ${name}:\n\n${fence}\n${text.replace(/\n?$/, "\n")}${fence}\n`;
    this.prompt.value = `${before}${before ? "\n\n" : ""}${block}`;
    this.fromFile = true;
    return `${name} is in the prompt (${count(text.length, "character")}).`;
  }

  /** Let the clocks go on. */
  tick() {
    const asked = this.state.asked;
    for (const name of Object.keys(this.since)) if (own(asked, name) === undefined) delete this.since[name];
    for (const line of this.asked.children) {
      const since = this.since[line.dataset.asked] ??= Date.now();
      const seconds = Math.floor((Date.now() - since) / 1000);
      line.querySelector("small").textContent = seconds ? `${seconds} s ` : "";
    }
  }
}

export default () => {
  let store;
  return {
    initialize({ model }) {
      store = new Store(model);
      return () => store.close();
    },
    render({ el }) {
      const view = new View(store, el);
      return () => view.close();
    },
  };
};
