"""The page of `icltool app`: what stands where, and what is shown after a click. It imports gradio, and so is imported late."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import TypeVar

import gradio
from PIL import Image

from icltool.commands.app.session import Answer, AppSession
from icltool.components.models.shared.images import read_image
from icltool.contracts import Example
from icltool.errors import DataError, IclError

#: Images that are shown to choose from, and demonstrations at most.
SHOWN, MOST_SHOTS = 12, 16
#: Widest side of an image on the page, in pixels.
_WIDEST = 480
_NONE, _RANDOM, _CHOSEN = "none", "random", "chosen"
CSS = """
#status textarea { font-weight: 600; color: #b91c1c; }
#demonstrations .thumbnail-item, #taken .thumbnail-item { max-width: 10rem; max-height: 10rem; }
footer { display: none !important; }
"""


T = TypeVar("T")


def build_page(session: AppSession, title: str, shots: int, seed: int) -> gradio.Blocks:
    """Nothing on it is loaded from the network."""
    page = gradio.Blocks(title=title, analytics_enabled=False)
    with page:
        gradio.Markdown(f"## {title}")
        status = gradio.Textbox(label="error", visible=False, interactive=False, elem_id="status")
        query = gradio.State(None)
        with gradio.Row():
            with gradio.Column():
                images = _images(page, session, query, status)
                demonstrations = _demonstrations(session, status, shots, seed)
            with gradio.Column():
                button = gradio.Button("Ask", variant="primary", elem_id="ask")
                answer = gradio.Textbox(label="answer", elem_id="answer", interactive=False)
                references = gradio.Textbox(label="references", elem_id="references", interactive=False, lines=2)
                prompt = gradio.Textbox(label="exact prompt", elem_id="prompt", interactive=False, lines=6)
                raw = gradio.Textbox(label="raw output of the model", interactive=False)
                gallery = gradio.Gallery(
                    label="demonstrations, in the order of the prompt",
                    columns=4,
                    height="auto",
                    buttons=[],
                    elem_id="demonstrations",
                )
        inputs = [query, *images, *demonstrations]
        outputs = [status, answer, references, prompt, raw, gallery]
        button.click(
            lambda *values: _ask(session, *values), inputs, outputs, concurrency_limit=1, api_visibility="private"
        )
    return page


def _images(
    page: gradio.Blocks, session: AppSession, query: gradio.State, status: gradio.Textbox
) -> tuple[gradio.Textbox, gradio.Dropdown]:
    """The query: an example of the data set or an image of one's own. (question, style)."""
    image = gradio.Image(label="image", interactive=False, height=280, elem_id="image", buttons=[])
    question = gradio.Textbox(
        label=session.task.called("question"),
        visible="question" in session.task.fields,
        elem_id="question",
        interactive=True,
    )
    style = gradio.Dropdown(
        list(session.styles),
        value=None,
        label="style",
        visible="style" in session.task.fields,
        allow_custom_value=True,
        interactive=True,
        elem_id="style",
    )
    own = gradio.File(label="an image of your own", elem_id="own", height=120)
    outputs = [status, query, image, question, style]

    def upload(file: str | None, text: str, named: str | None) -> list[object]:
        if file is None:
            return [gradio.skip()] * 5
        return _query_outputs(outputs, lambda: session.own(str(file), text or "", named or ""))

    own.change(upload, [own, question, style], outputs, api_visibility="private")
    if session.examples:
        rows, turn = gradio.State([]), gradio.State(0)
        gallery = gradio.Gallery(
            label="validation examples", columns=4, height="auto", allow_preview=False, buttons=[], elem_id="examples"
        )
        other = gradio.Button("other examples", size="sm", elem_id="others")

        def turned(count: int) -> list[object]:
            rows = session.some_rows(SHOWN, count)
            return [rows, count + 1, _gallery([session.example(row) for row in rows])]

        def picked(rows: list[int], event: gradio.SelectData) -> list[object]:
            return _query_outputs(outputs, lambda: session.example(rows[event.index]))

        other.click(turned, turn, [rows, turn, gallery], api_visibility="private")
        gallery.select(picked, rows, outputs, api_visibility="private")
        page.load(turned, turn, [rows, turn, gallery], api_visibility="private")
    return question, style


def _demonstrations(
    session: AppSession, status: gradio.Textbox, shots: int, seed: int
) -> tuple[gradio.Radio, gradio.Slider, gradio.Number, gradio.State]:
    """The controls of the demonstrations: (how, how many, seed, ids of the chosen ones)."""
    available = session.dataset is not None
    ids = gradio.State([])
    how = gradio.Radio(
        [_NONE, _RANDOM, _CHOSEN],
        value=_RANDOM if shots else _NONE,
        label="demonstrations",
        visible=available,
        elem_id="how",
    )
    count = gradio.Slider(
        1, MOST_SHOTS, value=max(1, shots), step=1, label="how many", visible=bool(shots), elem_id="shots"
    )
    drawn = gradio.Number(seed, label="seed", precision=0, visible=bool(shots), elem_id="seed")
    with gradio.Group(visible=False) as choosing:
        words = gradio.Textbox(label="search the index set for words (Enter)", elem_id="words")
        matches = gradio.Gallery(
            label="matches (click to add)", columns=4, height="auto", allow_preview=False, buttons=[], elem_id="found"
        )
        picks = gradio.Gallery(
            label="chosen demonstrations", columns=4, height="auto", allow_preview=False, buttons=[], elem_id="taken"
        )
        cleared = gradio.Button("clear", size="sm")
    offered = gradio.State([])

    def switched(chosen: str) -> list[object]:
        random = chosen == _RANDOM
        return [gradio.update(visible=v) for v in (random, random, chosen == _CHOSEN)]

    def searched(text: str) -> list[object]:
        examples = session.search(text, SHOWN)
        message = "" if examples else f"no example of the index set has {text!r}"
        return [gradio.update(value=message, visible=bool(message)), [e.id for e in examples], _gallery(examples)]

    def added(before: list[int], offers: list[int], event: gradio.SelectData) -> list[object]:
        after = [*before, offers[event.index]][:MOST_SHOTS]
        return [after, _gallery(session.chosen(after))]

    how.change(switched, how, [count, drawn, choosing], api_visibility="private")
    words.submit(searched, words, [status, offered, matches], api_visibility="private")
    matches.select(added, [ids, offered], [ids, picks], api_visibility="private")
    cleared.click(lambda: [[], []], None, [ids, picks], api_visibility="private")
    return how, count, drawn, ids


def _ask(
    session: AppSession,
    query: Example | None,
    question: str | None,
    style: str | None,
    how: str,
    shots: float,
    seed: float,
    ids: Sequence[int],
) -> list[object]:
    """The parts of the answer, or an error."""

    def answer() -> Answer:
        if query is None:
            raise DataError("choose an image first", "click an example, or upload a file")
        request = session.about(query, (question or "").strip(), (style or "").strip())
        icds = session.drawn(request, int(shots), int(seed or 0)) if how == _RANDOM else ()
        return session.ask(request, session.chosen(ids) if how == _CHOSEN else icds)

    message, result = _tried(answer)
    if result is None:
        return [gradio.update(value=message, visible=True), "", "", "", "", []]
    texts = [result.answer, "\n".join(result.references), result.prompt, result.raw]
    return [gradio.update(value="", visible=False), *texts, _gallery(result.demonstrations)]


def _query_outputs(outputs: Sequence[object], choose: Callable[[], Example]) -> list[object]:
    """Status, query, image, question and style of a chosen query; if it cannot be read, the error, and no other change."""
    message, chosen = _tried(lambda: (example := choose(), _image(example)))
    if chosen is None:
        return [gradio.update(value=message, visible=True), *[gradio.skip()] * (len(outputs) - 1)]
    example, image = chosen
    style = example.style or gradio.skip()
    return [gradio.update(value="", visible=False), example, image, example.question or gradio.skip(), style]


def _tried(act: Callable[[], T]) -> tuple[str, T | None]:
    """("", result), or (error, None). The traceback of a bug is printed in the terminal."""
    try:
        return "", act()
    except IclError as error:
        return error.message + (f" ({error.hint})" if error.hint else ""), None
    except Exception as error:
        traceback.print_exception(error)
        return f"internal error: {type(error).__name__}: {error}", None


def _gallery(examples: Sequence[Example]) -> list[tuple[Image.Image, str]]:
    """Images with their labels, and a grey one in place of an image that cannot be read."""
    images = []
    for example in examples:
        message, image = _tried(lambda example=example: _image(example))  # type: ignore[misc]
        words = " / ".join(filter(None, [example.style, example.question, example.label]))
        images.append((image or Image.new("RGB", (64, 64), "gray"), f"{words} ({message})" if message else words))
    return images


def _image(example: Example) -> Image.Image | None:
    """The example's image; several side by side; None without one."""
    images = [read_image(image) for image in example.images]
    for image in images:
        image.thumbnail((_WIDEST // len(images), _WIDEST))
    if len(images) < 2:
        return images[0] if images else None
    whole = Image.new("RGB", (sum(image.width for image in images), max(image.height for image in images)), "white")
    left = 0
    for image in images:
        whole.paste(image, (left, 0))
        left += image.width
    return whole
