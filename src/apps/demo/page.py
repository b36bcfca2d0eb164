"""The demo's page in gradio: what is on it, and what each click does. The answers are the engine's."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import gradio as gr

from src.apps.demo import cards
from src.apps.demo.engine import Engine
from src.apps.demo.fields import key_of, number_of, set_fields
from src.apps.demo.serving import Page, own_file, serve
from src.apps.demo.uploads import Uploads
from src.apps.demo.walk import LONGEST_CAPTION, MOST_ANSWERS, Query, Walk, query_of
from src.base.bars import open_bars
from src.base.errors import InputError, one_line

AT_ONCE = 24
"""Pictures of the gallery that a click on "More" adds."""
CLICK = own_file("click.js")
HINT = "Choose a picture, write a caption, or both."
SEARCHING = "Searching ..."


class DemoPage:
    """A page that searches with an engine."""

    def __init__(self, engine: Engine, uploads: Path):
        """Serve `engine`; `uploads` is the folder for what browsers upload."""
        self.engine, self.uploads = engine, Uploads(uploads)

    def launch(self, host: str, port: int, loopback: Sequence[str]) -> tuple[gr.Blocks, str]:
        """Start to serve the page in another thread; return it and its address."""
        page = self.build()
        return page, serve(page, self.uploads, host, port, loopback)

    # ---- what is on it ----

    def build(self) -> Page:
        """Return the page, to be launched."""
        with Page(title="Composed image retrieval", analytics_enabled=False) as blocks:
            gr.Markdown("## Composed image retrieval\nA picture plus a sentence finds the picture meant.")
            self.progress = gr.HTML(cards.progress(None))
            with gr.Column(visible=False) as self.ready:
                self.walk, self.seen = gr.State(Walk((self.engine.first,))), gr.State(AT_ONCE)
                self.message = gr.HTML(elem_id="message")
                with gr.Row():
                    with gr.Column(scale=2, min_width=320):
                        self._build_question()
                    with gr.Column(scale=3, min_width=320):
                        self.trail = gr.HTML(js_on_load=CLICK, elem_id="trail")
                        self.answers = gr.HTML(js_on_load=CLICK, elem_id="answers")
                        self.link = gr.HTML(js_on_load=own_file("keep_link.js"), elem_id="link")
                self._build_pictures()
                self.large = gr.HTML(js_on_load=own_file("large.js"), elem_id="large")
            self._connect(blocks)
        return blocks

    def _build_question(self) -> None:
        first = self.engine.first
        self.reference = gr.HTML(cards.reference(first, None), elem_id="reference")
        with gr.Row():
            small = {"size": "sm", "min_width": 120}
            self.upload = gr.UploadButton("Upload a picture", file_types=["image"], **small, elem_id="upload")
            self.clear = gr.Button("Without a picture", **small, elem_id="clear")
        words = "what is different in the picture meant, such as: in blue"
        self.caption = gr.Textbox(
            label="Caption", placeholder=words, max_length=LONGEST_CAPTION, submit_btn="Search", elem_id="caption"
        )
        # Closed, or answers would begin a screen further down on a phone.
        with gr.Accordion("Combining function, weight, number of answers", open=False, elem_id="how"):
            choices, label = list(self.engine.functions), "Combining function"
            self.function = gr.Radio(choices, value=first.function, label=label, elem_id="function")
            self.beside = gr.Dropdown(
                self._others(first), value=first.beside, label="Beside it", elem_id="beside", filterable=False
            )
            label, info = "Caption weight", "0: the picture alone; 1: the caption alone; 0.5: as the function combines"
            self.weight = gr.Slider(0, 1, first.caption_weight, step=0.05, label=label, info=info, elem_id="weight")
            self.k = gr.Slider(1, MOST_ANSWERS, first.k, step=1, label="Answers", elem_id="k")

    def _others(self, query: Query) -> list[tuple[str, str]]:
        """Return the functions that can stand beside a query's, as (label, value)."""
        return [("none", ""), *((name, name) for name in self.engine.functions if name != query.function)]

    def _build_pictures(self) -> None:
        with gr.Column(visible=bool(self.engine.examples)) as self.with_examples:
            gr.Markdown("### Examples")
            self.examples = gr.HTML(js_on_load=CLICK, elem_id="examples")
        self.heading = gr.Markdown("### Pictures")
        self.gallery = gr.HTML(js_on_load=CLICK, elem_id="gallery")
        self.more = gr.Button("More pictures", size="sm", elem_id="more")

    def _connect(self, blocks: gr.Blocks) -> None:
        settings = [self.caption, self.function, self.beside, self.weight, self.k]
        shown = [self.walk, self.reference, *settings, self.trail, self.answers, self.link, self.message]
        pictures = [self.gallery, self.more, self.seen]
        frame = [self.progress, self.ready, self.examples, self.with_examples, self.heading, *pictures]
        # No limit: a page that is opened while pictures are encoded waits in here.
        whole = blocks.load(self.opened, None, [*frame, *shown], concurrency_limit=None, show_progress="hidden")
        # One after the other, as they came: each takes the walk as the one before has left it.
        in_turn = {"concurrency_id": "walk", "concurrency_limit": 1, "api_visibility": "private"}
        # Not in `opened`, or a page would wait for the queries of others.
        whole.then(self.first_asked, [self.walk], [self.answers, self.message], show_progress="hidden", **in_turn)
        state = [self.walk, *settings]
        for event, handler, inputs in (
            (self.gallery.click, self.chosen, state),
            (self.large.click, self.went_on, state),
            (self.trail.click, self.went_back, [self.walk]),
            (self.examples.click, self.example, state),
            (self.upload.upload, self.uploaded, [*state, self.upload]),
            (self.clear.click, self.cleared, state),
            (self.caption.submit, self.searched, state),
            (self.function.input, self.other_function, state),
            (self.beside.input, self.searched, state),
            (self.weight.input, self.searched, state),
            (self.k.input, self.searched, state),
        ):
            # While one is answered, of a slider's positions only the last one is kept.
            how = {"show_progress": "minimal", "show_progress_on": self.answers, "trigger_mode": "always_last"}
            # As it was sent, since the library would make an empty file for each upload; `set_fields` checks all of it.
            done = event(handler, inputs, shown, preprocess=False, **how, **in_turn)
            if event in (self.caption.submit, self.examples.click, self.trail.click):
                # On a phone they lie further down.
                done.then(None, js=own_file("to_answers.js"))
        self.answers.click(self.looked, None, [self.large, self.message], show_progress="hidden", **in_turn)
        self.more.click(self.more_pictures, [self.seen], pictures, api_visibility="private")

    # ---- what happens ----

    def opened(self, request: gr.Request) -> Iterator[dict]:
        """Yield how far encoding is until all pictures are encoded, then the page, without its link's answers."""
        while not self.engine.names:
            yield {self.progress: cards.progress(next(iter(open_bars()), None))}
            time.sleep(0.5)
        engine = self.engine
        query, lines = query_of(dict(request.query_params), engine.first, engine.functions, engine.path)
        pictures = f"### {len(engine.names):,} pictures\nA click on one starts from it."
        yield {
            self.progress: gr.HTML(visible=False),
            self.ready: gr.Column(visible=True),
            self.examples: cards.examples(engine.examples, engine.path),
            self.with_examples: gr.Column(visible=bool(engine.examples)),
            self.heading: pictures,
            **self._pictures(AT_ONCE),
            **self._place(Walk((query,)), [*engine.remarks, *lines]),
            self.answers: f'<p class="faint">{HINT if query.is_empty else SEARCHING}</p>',
            **self._fields(query),
        }

    def first_asked(self, walk: Walk) -> dict:
        """Ask what the page's link says."""
        found, fault = self._ask(walk.query)
        return {self.answers: found, **({self.message: cards.message([fault])} if fault else {})}

    def more_pictures(self, seen: int) -> dict:
        """Show more of the gallery."""
        return self._pictures(seen + AT_ONCE)

    def chosen(self, event: gr.EventData, walk: Walk, *settings) -> dict:
        """Start a walk from a picture of the gallery."""
        return self._from(walk, settings, event, lambda query: Walk((query,)))

    def looked(self, event: gr.EventData) -> dict:
        """Show an answer large."""
        name = key_of(event)
        path = self.engine.path(name)
        if path is None:
            return {self.message: cards.message(["There is no such picture."])}
        return {self.large: cards.large(path, name)}

    def went_on(self, event: gr.EventData, walk: Walk, *settings) -> dict:
        """Go on from an answer, whose caption is still to be written."""
        return self._from(walk, settings, event, lambda query: walk.going_on(query._replace(caption="")))

    def _from(self, walk, settings, event, follow) -> dict:
        name = key_of(event)
        # A browser sends no other; what the gallery lacks would be taken for a path.
        if self.engine.path(name) is None:
            return self._shown(walk, ["There is no such picture."])
        return self._asked(walk, settings, lambda query: follow(query._replace(reference=name, upload=None)))

    def went_back(self, event: gr.EventData, walk: Walk) -> dict:
        """Go to a step of the trail."""
        number = number_of(event, walk.steps)
        if number is None:
            return self._shown(walk, ["There is no such step."])
        walk = walk.back_at(number)
        return {**self._shown(walk), **self._fields(walk.query)}

    def example(self, event: gr.EventData, walk: Walk, *settings) -> dict:
        """Ask a query of the data set."""
        number = number_of(event, self.engine.examples)
        if number is None:
            return self._shown(walk, ["There is no such example."])
        reference, caption = self.engine.examples[number]
        values = {"reference": reference, "caption": caption, "upload": None}
        shown = self._asked(walk, settings, lambda query: Walk((query._replace(**values),)))
        return {**shown, self.caption: caption}

    def uploaded(self, walk: Walk, *settings) -> dict:
        """Start a walk from an uploaded picture."""
        *settings, file = settings
        try:
            picture = self.uploads.picture("" if file is None else file["path"])
        except InputError as error:
            return self._asked(walk, settings, walk.asking, [one_line(error)])
        return self._asked(walk, settings, lambda query: Walk((query._replace(reference="", upload=picture),)))

    def cleared(self, walk: Walk, *settings) -> dict:
        """Start a walk from the caption alone."""
        return self._asked(walk, settings, lambda query: Walk((query._replace(reference="", upload=None),)))

    def other_function(self, walk: Walk, *settings) -> dict:
        """Ask by another function, which is no longer offered beside itself."""
        shown = self._asked(walk, settings, walk.asking)
        return {**shown, self.beside: self._beside(shown[self.walk].query)}

    def searched(self, walk: Walk, *settings) -> dict:
        """Ask what the page says."""
        return self._asked(walk, settings, walk.asking)

    def _asked(self, walk: Walk, settings: Sequence, follow: Callable[[Query], Walk], lines=()) -> dict:
        """Show the walk that `follow` makes of the query which the page's fields say."""
        try:
            query = set_fields(walk.query, settings, self.engine.functions)
        except InputError as error:
            return self._shown(walk, [*lines, one_line(error)])
        return self._shown(follow(query), lines)

    # ---- what it shows ----

    def _pictures(self, seen: int) -> dict:
        names = self.engine.names
        return {
            self.gallery: cards.gallery(names[:seen], self.engine.path, self.engine.short_names),
            self.more: gr.Button(visible=seen < len(names)),
            self.seen: seen,
        }

    def _fields(self, query: Query) -> dict:
        """Return what the page's fields say of a query."""
        return {
            self.caption: query.caption,
            self.function: query.function,
            self.beside: self._beside(query),
            self.weight: query.caption_weight,
            self.k: query.k,
        }

    def _beside(self, query: Query) -> gr.Dropdown:
        return gr.Dropdown(self._others(query), value=query.beside)

    def _shown(self, walk: Walk, lines: Sequence[str] = ()) -> dict:
        """Return what the page shows at a step of a walk beside its fields; `lines` are complaints."""
        found, fault = self._ask(walk.query)
        return {**self._place(walk, [*lines, *([fault] if fault else [])]), self.answers: found}

    def _place(self, walk: Walk, lines: Sequence[str]) -> dict:
        """Return where the page is in a walk, without the answers."""
        query = walk.query
        return {
            self.walk: walk,
            self.reference: cards.reference(query, self._path(query)),
            self.trail: cards.trail(walk, self._path),
            self.link: cards.link(query),
            self.message: cards.message(lines),
        }

    def _ask(self, query: Query) -> tuple[str, str]:
        """Return the answers of a query as the page shows them, and why there are none, which is empty otherwise."""
        fault = ""
        if not query.is_empty:
            try:
                if query.upload is not None:
                    self.uploads.picture(str(query.upload))
                return cards.answers(self.engine.ask(query), self.engine.short_names), fault
            except InputError as error:
                fault = one_line(error)
            except OSError as error:  # of a picture that is gone, or lies where nobody may look any more
                fault = f"{query.reference}: {error.strerror}"
        # What an upload was called, and not where it lies here.
        fault = fault.replace(str(query.upload), "your picture") if query.upload is not None else fault
        return f'<p class="faint">{HINT}</p>', fault

    def _path(self, query: Query) -> Path | None:
        return query.upload or self.engine.path(query.reference)
