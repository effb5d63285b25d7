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


def build_page(desk: AppSession, title: str, shots: int, seed: int) -> gradio.Blocks:
    """Nothing on it is loaded from the network."""
    page = gradio.Blocks(title=title, analytics_enabled=False)
    with page:
        gradio.Markdown(f"## {title}")
        status = gradio.Textbox(label="what went wrong", visible=False, interactive=False, elem_id="status")
        query = gradio.State(None)
        with gradio.Row():
            with gradio.Column():
                images = _images(page, desk, query, status)
                demonstrations = _demonstrations(desk, status, shots, seed)
            with gradio.Column():
                asked = gradio.Button("Ask", variant="primary", elem_id="ask")
                answer = gradio.Textbox(label="answer", elem_id="answer", interactive=False)
                references = gradio.Textbox(label="references", elem_id="references", interactive=False, lines=2)
                prompt = gradio.Textbox(label="exact prompt", elem_id="prompt", interactive=False, lines=6)
                raw = gradio.Textbox(label="the model's own words, before they are cut", interactive=False)
                shown = gradio.Gallery(
                    label="demonstrations, in the order of the prompt",
                    columns=4,
                    height="auto",
                    buttons=[],
                    elem_id="demonstrations",
                )
        inputs = [query, *images, *demonstrations]
        outputs = [status, answer, references, prompt, raw, shown]
        asked.click(lambda *given: _ask(desk, *given), inputs, outputs, concurrency_limit=1, api_visibility="private")
    return page


def _images(
    page: gradio.Blocks, desk: AppSession, query: gradio.State, status: gradio.Textbox
) -> tuple[gradio.Textbox, gradio.Dropdown]:
    """The query: an example of the data set or an image of one's own. (question, style)."""
    image = gradio.Image(label="image", interactive=False, height=280, elem_id="image", buttons=[])
    question = gradio.Textbox(
        label=desk.task.called("question"), visible="question" in desk.task.fields, elem_id="question", interactive=True
    )
    style = gradio.Dropdown(
        list(desk.styles),
        value=None,
        label="style",
        visible="style" in desk.task.fields,
        allow_custom_value=True,
        interactive=True,
        elem_id="style",
    )
    own = gradio.File(label="an image of your own", elem_id="own", height=120)
    outputs = [status, query, image, question, style]

    def upload(file: str | None, text: str, named: str | None) -> list[object]:
        if file is None:
            return [gradio.skip()] * 5
        return _shown(outputs, lambda: desk.own(str(file), text or "", named or ""))

    own.change(upload, [own, question, style], outputs, api_visibility="private")
    if desk.examples:
        rows, turn = gradio.State([]), gradio.State(0)
        gallery = gradio.Gallery(
            label="evaluation examples", columns=4, height="auto", allow_preview=False, buttons=[], elem_id="examples"
        )
        other = gradio.Button("other examples", size="sm", elem_id="others")

        def turned(count: int) -> list[object]:
            found = desk.some_rows(SHOWN, count)
            return [found, count + 1, _gallery([desk.example(row) for row in found])]

        def picked(found: list[int], event: gradio.SelectData) -> list[object]:
            return _shown(outputs, lambda: desk.example(found[event.index]))

        other.click(turned, turn, [rows, turn, gallery], api_visibility="private")
        gallery.select(picked, rows, outputs, api_visibility="private")
        page.load(turned, turn, [rows, turn, gallery], api_visibility="private")
    return question, style


def _demonstrations(
    desk: AppSession, status: gradio.Textbox, shots: int, seed: int
) -> tuple[gradio.Radio, gradio.Slider, gradio.Number, gradio.State]:
    """Which demonstrations are given: (how, how many, the seed, ids that were chosen)."""
    there = desk.dataset is not None
    ids = gradio.State([])
    how = gradio.Radio(
        [_NONE, _RANDOM, _CHOSEN],
        value=_RANDOM if shots else _NONE,
        label="demonstrations",
        visible=there,
        elem_id="how",
    )
    count = gradio.Slider(
        1, MOST_SHOTS, value=max(1, shots), step=1, label="how many", visible=bool(shots), elem_id="shots"
    )
    drawn = gradio.Number(seed, label="seed", precision=0, visible=bool(shots), elem_id="seed")
    with gradio.Group(visible=False) as choosing:
        words = gradio.Textbox(label="words in demonstrations of the index set (Enter searches)", elem_id="words")
        found = gradio.Gallery(
            label="click adds", columns=4, height="auto", allow_preview=False, buttons=[], elem_id="found"
        )
        taken = gradio.Gallery(
            label="chosen", columns=4, height="auto", allow_preview=False, buttons=[], elem_id="taken"
        )
        cleared = gradio.Button("none of these", size="sm")
    offered = gradio.State([])

    def switched(chosen: str) -> list[object]:
        random = chosen == _RANDOM
        return [gradio.update(visible=v) for v in (random, random, chosen == _CHOSEN)]

    def searched(text: str) -> list[object]:
        examples = desk.found(text, SHOWN)
        told = "" if examples else f"no demonstration holds {text!r}"
        return [gradio.update(value=told, visible=bool(told)), [e.id for e in examples], _gallery(examples)]

    def added(before: list[int], offers: list[int], event: gradio.SelectData) -> list[object]:
        after = [*before, offers[event.index]][:MOST_SHOTS]
        return [after, _gallery(desk.chosen(after))]

    how.change(switched, how, [count, drawn, choosing], api_visibility="private")
    words.submit(searched, words, [status, offered, found], api_visibility="private")
    found.select(added, [ids, offered], [ids, taken], api_visibility="private")
    cleared.click(lambda: [[], []], None, [ids, taken], api_visibility="private")
    return how, count, drawn, ids


def _ask(
    desk: AppSession,
    query: Example | None,
    question: str | None,
    style: str | None,
    how: str,
    shots: float,
    seed: float,
    ids: Sequence[int],
) -> list[object]:
    """The answer's parts, or what went wrong."""

    def answer() -> Answer:
        if query is None:
            raise DataError("there is no image yet", "click one, or choose a file of your own")
        asked = desk.about(query, (question or "").strip(), (style or "").strip())
        icds = desk.drawn(asked, int(shots), int(seed or 0)) if how == _RANDOM else ()
        return desk.ask(asked, desk.chosen(ids) if how == _CHOSEN else icds)

    told, found = _tried(answer)
    if found is None:
        return [gradio.update(value=told, visible=True), "", "", "", "", []]
    texts = [found.answer, "\n".join(found.references), found.prompt, found.raw]
    return [gradio.update(value="", visible=False), *texts, _gallery(found.demonstrations)]


def _shown(outputs: Sequence[object], choose: Callable[[], Example]) -> list[object]:
    """status, query, image, question, style for a query that was chosen; what was there stays where it cannot be shown."""
    told, found = _tried(lambda: (example := choose(), _image(example)))
    if found is None:
        return [gradio.update(value=told, visible=True), *[gradio.skip()] * (len(outputs) - 1)]
    example, image = found
    style = example.style or gradio.skip()
    return [gradio.update(value="", visible=False), example, image, example.question or gradio.skip(), style]


def _tried(act: Callable[[], T]) -> tuple[str, T | None]:
    """("", what it gave), or (what went wrong, None). A bug is printed where the command runs, too."""
    try:
        return "", act()
    except IclError as error:
        return error.message + (f" ({error.hint})" if error.hint else ""), None
    except Exception as error:
        traceback.print_exception(error)
        return f"this is a bug: {type(error).__name__}: {error}", None


def _gallery(examples: Sequence[Example]) -> list[tuple[Image.Image, str]]:
    """Images with what people wrote; those that cannot be read are left out of sight, not of place."""
    found = []
    for example in examples:
        told, image = _tried(lambda example=example: _image(example))  # type: ignore[misc]
        words = " / ".join(filter(None, [example.style, example.question, example.label]))
        found.append((image or Image.new("RGB", (64, 64), "gray"), f"{words} ({told})" if told else words))
    return found


def _image(example: Example) -> Image.Image:
    image = read_image(example.image)
    image.thumbnail((_WIDEST, _WIDEST))
    return image
