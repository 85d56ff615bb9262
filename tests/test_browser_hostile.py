"""Hundreds of hostile replies in JupyterLab, in Notebook 7 and in an exported page: none of them does anything."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import pytest
from nbconvert import HTMLExporter
from playwright.sync_api import Dialog, Page, Request, expect

from tests.browser import Lab, chat_notebook, jupyterlab, needs_chromium, open_notebook, write_notebook
from tests.hostile import replies
from tests.server import Answer, ChatServer, chunk, sse, text_answer

pytestmark = needs_chromium

MOST = 25  # replies a cell: front ends show only the first 50 outputs
SAMPLE = [
    *("script", "script-widget-view", "img-onerror", "iframe-srcdoc", "object", "meta-refresh", "style", "style-fixed"),
    *("markdown-image", "markdown-image-alt", "form", "command", "javascript", "autolink-breakout", "title-breakout"),
    *("fence-info", "mermaid", "math-code-newline", "math-html", "math-href", "math-fcolorbox", "ansi-link", "bidi"),
    *("breakout", "plaintext"),
]

# The name of each reply in a line of a cell is both the session and the prompt; the server knows the text for it.
SETUP = """
import contextvars, json, os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import chatmagic
os.environ["OPENAI_BASE_URL"] = {url!r}
%config ChatMagic.endpoints = {{"hub": {{"url": {hub!r}}}}}
%config ChatMagic.tries = 2
texts = json.loads(Path({texts!r}).read_text())

def show(how, *names):
    with ThreadPoolExecutor(len(names)) as pool:
        jobs = [pool.submit(contextvars.copy_context().run, ask, how, name) for name in names]
    for job in jobs:
        job.result()

def ask(how, name):
    session = name if how == "say" else f"{{how}}-{{name}}"
    try:
        chatmagic.session(session).ask(f"{{how}} {{name}}", display=True)
    except chatmagic.ChatMagicError:
        get_ipython().showtraceback()
"""
EVIL_NAME = r"<img src=x onerror=evil(/model/)><style>*{color:red}</style>$\href{javascript:x}{y}$ **b** \(x\)"

# What `INSPECT` lets pass. Formulas are looked at on their own, because MathJax has made them.
RULES = {
    "tags": [
        *("a", "bdi", "blockquote", "br", "code", "details", "div", "em", "figure", "h1", "h2", "h3", "h4", "h5", "h6"),
        *("hr", "li", "ol", "p", "pre", "s", "section", "small", "span", "strong", "summary", "sup", "table", "tbody"),
        *("td", "th", "thead", "tr", "ul"),
    ],
    "attributes": {
        "*": {"style": r"(?!.*(?:url|image-set|expression|position|fixed|transform)).*"},
        "a": {"href": r"(?:https?://|mailto:)\S*", "target": "_blank", "rel": ".*"},
        "details": {"open": ""},
        "div": {"class": "chatmagic|highlight|mathjax_ignore tex2jax_ignore", "align": "left|center|right"},
        "ol": {"start": r"\d+"},
        "span": {"class": "mathjax_ignore tex2jax_ignore|[a-z]{1,3}[0-9]?|numbering-entry"},  # the last is JupyterLab's
        "table": {"class": "mathjax_ignore tex2jax_ignore"},
    },
    "never": (
        "script,img,image,iframe,frame,object,embed,applet,form,input,button,textarea,select,svg,math,style,link,meta,"
        "base,video,audio,source,template,dialog,portal,noscript,plaintext,xmp"
    ),
    "panel": ":is(button, input, textarea, datalist, style):not([data-commandlinker-command], .cm-parts *)",
    "formula": r"mjx-[\w-]+|math|semantics|annotation|m[a-z]+",
}

INSPECT = r"""rules => {
    const found = [];
    const all = (root, selector) => Array.from(root.querySelectorAll(selector));
    const name = box => box.lastElementChild?.textContent.slice(0, 80) ?? "nothing";
    const whole = (pattern, text) => new RegExp(`^(?:${pattern})$`, "su").test(text);

    const inspect = (box, element, say) => {
        const tag = element.localName;
        const allowed = {...rules.attributes["*"], ...rules.attributes[tag]};
        if (!rules.tags.includes(tag)) say(`<${tag}>`);
        for (const {name, value} of element.attributes)
            if (!(name in allowed) || !whole(allowed[name], value)) say(`<${tag} ${name}="${value}">`);
        if (tag === "a" && element.href && !(element.target === "_blank" && element.relList.contains("noopener")))
            say(`a link without target or rel: ${element.outerHTML}`);
        const position = getComputedStyle(element).position;
        if (position !== "static" && position !== "relative") say(`<${tag}> is ${position}`);
    };
    const inspectFormula = (element, say) => {
        const tag = element.localName;
        if (!whole(rules.formula, tag)) say(`<${tag}> in a formula`);
        for (const {name, value} of element.attributes)
            if (/^on|^(?:href|src|xlink:href|id|action|data-command.*)$/.test(name)
                || (name === "style" && /url|position: (?:fixed|absolute)/.test(value))
                || (name === "class" && /jp-|lm-/.test(value)))
                say(`<${tag} ${name}="${value}"> in a formula`);
    };
    // What is seen of an element, as far as those around it do not cut it off.
    const seen = (element, output) => {
        let {left, top, right, bottom} = element.getBoundingClientRect();
        const position = getComputedStyle(element).position;
        if (position === "fixed") return {left, top, right, bottom};
        for (let outer = position === "absolute" ? element.offsetParent : element.parentElement; ; ) {
            if (!output.contains(outer)) return {left, top, right, bottom};
            if (getComputedStyle(outer).overflowX !== "visible") {
                const edge = outer.getBoundingClientRect();
                left = Math.max(left, edge.left); right = Math.min(right, edge.right);
                top = Math.max(top, edge.top); bottom = Math.min(bottom, edge.bottom);
            }
            outer = outer.parentElement;
        }
    };

    const boxes = all(document, ".chatmagic");
    for (const box of boxes) {
        const say = what => found.push(`${name(box)}: ${what}`);
        const output = box.closest(".jp-OutputArea-child") ?? box.parentElement;
        const edge = output.getBoundingClientRect();
        for (const element of [box, ...all(box, "*")]) {
            if (element.closest("mjx-container")) inspectFormula(element, say);
            else inspect(box, element, say);
            const {left, top, right, bottom} = seen(element, output);
            if (right - left < 1 || bottom - top < 1 || element.closest("mjx-assistive-mml")) continue;
            if (left < edge.left - 2 || right > edge.right + 2 || top < edge.top - 2 || bottom > edge.bottom + 2)
                say(`<${element.localName}> leaves its output`);
        }
        if (/[\u202a-\u202e\u2066-\u2069\u0000-\u0008\u001b\u007f-\u0084\u0086-\u009f]/.test(box.textContent))
            say("control characters");
    }
    for (const output of all(document, ".jp-OutputArea-output")) {
        for (const element of all(output, `${rules.never}, [data-commandlinker-command]`)) {
            const panel = element.closest(".chatmagic-panel");
            if (element.closest("mjx-container")) continue;
            // An export draws the panel with two scripts of nbconvert's own.
            const ours = "script:has(~ script[type$='widget-view+json']), script[type$='widget-view+json']";
            if (element.matches(ours) && !output.querySelector(".chatmagic")) continue;
            if (panel && element.matches(rules.panel)) continue;
            found.push(`an output has ${element.outerHTML.slice(0, 100)}`);
        }
        for (const element of all(output, "*"))
            for (const {name} of element.attributes)
                if (name.startsWith("on")) found.push(`an output has ${element.outerHTML.slice(0, 100)}`);
        for (const element of all(output, ".chatmagic-panel mjx-container")) found.push("a formula in the panel");
    }
    for (const box of boxes.filter(box => name(box).startsWith("math-later ·")))
        for (const formula of all(box, "mjx-container"))
            if (formula.textContent.includes("LEAKED")) found.push("a macro is defined for later formulas");
    if (document.activeElement?.closest(".chatmagic")) found.push("the focus is in a reply");
    if (document.head.innerHTML.includes(rules.listener)) found.push("the head names the listener");
    if (all(document, "base").length) found.push("a base");
    const above = document.elementFromPoint(innerWidth / 2, 5);
    if (above?.closest(".chatmagic")) found.push("a reply covers the page");
    return {
        found,
        names: boxes.map(name),
        formulas: all(document, ".chatmagic mjx-container").length,
        background: getComputedStyle(document.body).background,
        base: document.baseURI,
        title: document.title,
    };
}"""

# A formula that MathJax has not reached yet still begins with its delimiter.
TYPESET = r"""() => !Array.from(document.querySelectorAll(".chatmagic span:not([class])")).some(
    span => /^\\[(\[]/.test(span.textContent) && !span.querySelector("mjx-container"))"""

TRUSTED = """path => {
    const widgets = Array.from(window.jupyterapp.shell.widgets("main"));
    const cells = widgets.find(widget => widget.context?.path === path).context.model.cells;
    return Array.from(cells).filter(cell => cell.outputs?.length).map(cell => cell.trusted);
}"""


class Site:
    """A web server on loopback that answers everything with *body* and keeps what it was asked."""

    def __init__(self, body: bytes = b"") -> None:
        self.hits: list[str] = []
        hits = self.hits

        class Handler(BaseHTTPRequestHandler):
            def setup(self) -> None:
                hits.append("a connection")
                super().setup()

            def do_GET(self) -> None:
                hits.append(self.path)
                self.send_response(200)
                self.send_header("Content-Type", "application/json" if body else "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Site:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()


class Watch:
    """Sees everything that a *page* does and should not, from before it is opened.

    *own* is the only host that it may ask; an exported page has none, and only the *listener* must not be asked.
    """

    def __init__(self, page: Page, listener: Site, own: str | None) -> None:
        self._page = page
        self._listener = listener
        self._own = own
        self._found: list[str] = []
        self._url = ""
        self._before: dict[str, Any] = {}
        page.add_init_script("window.ran = []; window.evil = name => ran.push(name.source)")
        page.on("dialog", self._dismiss)
        page.on("popup", lambda popup: self._found.append(f"a window with {popup.url}"))
        page.on("download", lambda download: self._found.append(f"a download of {download.url}"))
        page.on("request", self._asked)

    def begin(self) -> None:
        """Remember how the page looks: at first without replies, later when it was loaded with them."""
        self._url = self._page.url
        self._page.evaluate("window.stillHere = true")
        background = {"background": self._before["background"]} if self._before else {}
        self._before = self._look() | background

    def offences(self, *names: str) -> list[str]:
        """Return what was wrong up to now; *names* are replies that must be there to be looked at."""
        if not self._page.url.startswith("file:"):
            self._page.wait_for_function(TYPESET, timeout=60_000)
        self._page.wait_for_timeout(400)  # what was to be loaded is on its way then
        now = self._look()
        found: list[str] = self._found + self._listener.hits + now["found"]
        found += [f"{frame.url} ran {name}" for frame in self._page.frames for name in frame.evaluate("window.ran")]
        found += [f"{frame.url} is a frame" for frame in self._page.frames[1:]]
        found += [f"{key} is {now[key]}" for key in ("background", "base", "title") if now[key] != self._before[key]]
        if self._page.url != self._url or not self._page.evaluate("window.stillHere === true"):
            found.append(f"the page went to {self._page.url}")
        shown = {name.partition(" · ")[0] for name in now["names"]}
        found += [f"{name} is not shown" for name in names if name not in shown]
        if names and not now["formulas"] and not self._page.url.startswith("file:"):
            found.append("no formula is typeset")
        return found

    def forget(self) -> None:
        """Begin anew with what may not happen."""
        self._found.clear()
        self._listener.hits.clear()

    def _look(self) -> dict[str, Any]:
        seen: dict[str, Any] = self._page.evaluate(INSPECT, {**RULES, "listener": self._listener.url})
        return seen

    def _dismiss(self, dialog: Dialog) -> None:
        self._found.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    def _asked(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if self._own and parts.netloc != self._own and parts.scheme in ("http", "https", "ws", "wss", "ftp"):
            self._found.append(f"a request to {request.url}")


@pytest.fixture
def listener() -> Iterator[Site]:
    """Who must never hear anything."""
    with Site() as site:
        yield site


@pytest.fixture(scope="module")
def notebook7(root: Path) -> Iterator[Lab]:
    with jupyterlab(root, {"OPENAI_API_KEY": "sk-browser"}, app="notebook") as running:
        yield running


@pytest.fixture(params=["jupyterlab", "notebook"])
def app(request: pytest.FixtureRequest) -> Lab:
    """Each of the two applications."""
    lab: Lab = request.getfixturevalue("lab" if request.param == "jupyterlab" else "notebook7")
    return lab


def answer(prompt: str, texts: dict[str, str]) -> Answer:
    """What the server says to a *prompt*: how it is to answer, and the name of the reply. Any other one is repeated."""
    how, _, name = prompt.partition(" ")
    if name not in texts:
        return text_answer([prompt])
    text = texts[name]
    match how:
        case "fail":  # the reason is shown while the client waits, and as an error when it has tried again
            headers = {"Content-Type": "application/json", "retry-after-ms": "300"}
            return Answer([json.dumps({"error": {"message": text}}).encode()], 500, headers)
        case "break":
            return Answer([sse(chunk(text)), 0.15, sse({"error": {"message": text, "code": text}}), sse("[DONE]")])
        case "think":
            return Answer([sse(chunk(reasoning_content=text)), 0.15, sse(chunk("x"), chunk(finish=text), "[DONE]")])
        case "refuse":
            return Answer([sse(chunk(refusal=text), chunk(finish="stop"), "[DONE]")])
        case _:
            return streamed(name, text)


def streamed(name: str, text: str) -> Answer:
    """*text* as a stream: in one piece, in a few with time to paint between, or letter by letter with pauses."""
    dice = random.Random(name)  # the same in every run: the text holds a port
    way = dice.randrange(3)
    if way == 0 or len(text) < 4:
        return text_answer([text])
    cuts = {0, len(text), *dice.sample(range(1, len(text)), 2)}
    pieces = [text[a:b] for a, b in zip(sorted(cuts), sorted(cuts)[1:], strict=False)]
    parts: list[bytes | float | str] = []
    for piece in pieces:
        parts += [sse(chunk(each)) for each in ([piece] if way == 1 else piece)]
        parts.append(0.12)
    return Answer([*parts, sse(chunk(finish="stop"), "[DONE]")])


def cells(server: ChatServer, hub: Site, file: Path, texts: dict[str, str]) -> list[str]:
    """The cells that show every text as a reply, and some of them wherever else a stranger's text is shown."""
    file.write_text(json.dumps(texts))
    names = list(texts)
    batches = [names[at : at + MOST] for at in range(0, len(names), MOST)]
    return [
        SETUP.format(url=server.url, hub=f"{hub.url}/v1", texts=str(file)),
        *(f"show('say', *{batch})" for batch in batches),
        *(f"show({how!r}, *{half})" for how in ("fail", "break") for half in (SAMPLE[::2], SAMPLE[1::2])),
        *(f"show({how!r}, *{SAMPLE})" for how in ("think", "refuse")),
        f'%%chat typed -m "{EVIL_NAME}" -s "{EVIL_NAME}"\n{texts["script"]}',
        f"%%chat typed\n{texts['math-code-newline']}",
        *(f"%%chat typed-{name} --no-stream\nsay {name}" for name in ("mermaid", "style-fixed", "math-fcolorbox")),
        f"for name in {SAMPLE}: chatmagic.session('typed').ask(texts[name])",
        "%chat use typed",
        "%chat show",
        "%chat history",
        "%chat models hub",
        "%chat sessions",
        "%chat panel",
        "chatmagic.session('typed').last",
        "%chat undo 3",
        "%chat show typed 3",
        "%%chat math-later\nsay math-later",
    ]


def click_links(page: Page, most: int = 5) -> list[str]:
    """Click links of replies as a person does, and return what is wrong with the windows that open."""
    links = page.locator(".chatmagic a[href^='http://127']:visible")
    count = links.count()
    wrong = [] if count >= most else [f"only {count} links"]
    for index in range(0, count, max(1, count // most)):
        with page.expect_popup() as opened:
            links.nth(index).click()
        popup = opened.value
        if popup.evaluate("window.opener !== null") or not popup.url.startswith("http"):
            wrong.append(f"{popup.url} knows who opened it")
        popup.close()
    return wrong


def export(path: Path) -> Path:
    """Write the notebook *path* as a page, as ``jupyter nbconvert --to html`` does."""
    exporter: Any = HTMLExporter()  # type: ignore[no-untyped-call]
    html, _ = exporter.from_filename(str(path))
    page = path.with_suffix(".html")
    page.write_text(html, encoding="utf-8")
    return page


def open_export(page: Page, path: Path, listener: Site) -> Watch:
    """Open an exported page, without what its template loads from other servers."""
    page.route(lambda url: url.startswith("http") and not url.startswith(listener.url), lambda route: route.abort())
    watch = Watch(page, listener, None)
    page.goto(path.as_uri(), wait_until="load")
    watch.begin()
    return watch


def test_replies_do_nothing(
    page: Page, app: Lab, root: Path, server: ChatServer, listener: Site, tmp_path: Path
) -> None:
    """Fresh, loaded again, untrusted, trusted or exported, no reply runs, loads, opens, names or covers anything."""
    texts = replies(listener.url)
    server.otherwise = lambda body: answer(body["messages"][-1]["content"], texts)
    models = json.dumps({"data": [{"id": texts[name]} for name in SAMPLE] + [{"id": EVIL_NAME}]}).encode()
    with Site(models) as hub:
        watch = Watch(page, listener, urlsplit(app.url).netloc)
        chat = chat_notebook(page, app, root, *cells(server, hub, tmp_path / "texts.json", texts))
        watch.begin()
        chat.run_all()
    chat.command("toc:show-panel")  # which paints the headings of outputs once more
    chat.wait_idle()
    expect(page.locator(".jp-tocItem", has_text="img src=").first).to_be_visible()
    expect(chat.output(-1)).to_contain_text("math-later · ")  # so no cell has failed
    assert watch.offences(*texts) == []
    assert click_links(page) == []
    watch.forget()

    chat.save()
    page.reload()
    chat.wait_ready()
    watch.begin()
    assert watch.offences(*texts) == []

    unsigned = json.loads((root / chat.path).read_text())
    unsigned["metadata"]["edited"] = True
    copy = root / f"copy-of-{chat.path}"
    copy.write_text(json.dumps(unsigned))
    chat = open_notebook(page, app, copy.name)
    watch.begin()
    assert not any(page.evaluate(TRUSTED, chat.path))
    assert watch.offences(*texts) == []

    chat.command("notebook:trust")
    page.locator(".jp-Dialog .jp-mod-accept").click()
    chat.wait_idle()
    assert all(page.evaluate(TRUSTED, chat.path))
    assert watch.offences(*texts) == []

    watch = open_export(page, export(copy), listener)
    assert watch.offences(*texts) == []


def test_an_attack_is_seen(page: Page, app: Lab, root: Path, listener: Site) -> None:
    """The same eyes see what unsafe outputs do: they are not closed."""
    name = f"unsafe-{app.app}.ipynb"
    texts = replies(listener.url)
    evil = "".join(
        texts[each] for each in ("img-onerror", "iframe-remote", "style-fixed", "command", "javascript-html")
    )
    unsafe = f'<div class="chatmagic">{evil}<p>evil · x</p></div>'
    shown = [f"HTML({unsafe!r})", f"Markdown({texts['math-code-newline']!r})"]
    write_notebook(root / name, [f"from IPython.display import HTML, Markdown\n{each}" for each in shown])
    seen = [
        *("\na connection\n", "\n/iframe-remote\n", "/iframe-remote is a frame\n", " ran img-onerror\n"),
        *("evil · x: <img>\n", 'evil · x: <img onerror="', "evil · x: <div> is fixed\n", "<div> leaves its output\n"),
        *("an output has <button data-commandlinker-", 'evil · x: <a href="javascript:', "\nlost is not shown"),
    ]
    watch = Watch(page, listener, urlsplit(app.url).netloc)
    chat = open_notebook(page, app, name)
    watch.begin()
    assert watch.offences() == []

    chat.run(0)
    offences = "\n".join(watch.offences("evil", "lost"))
    assert [what for what in [*seen, f"a request to {listener.url}/iframe-remote\n"] if what not in offences] == []
    assert "evil is not shown" not in offences
    chat.run(1)
    page.wait_for_function("window.ran.includes('math-code-newline')")

    chat.save()
    watch.forget()
    watch = open_export(page, export(root / name), listener)
    offences = "\n".join(watch.offences("evil", "lost"))
    assert [what for what in seen if what not in offences] == []
