"""`icltool app`."""

from __future__ import annotations

from icltool.cli.stage import stage_command
from icltool.config.app import AppConfig

HELP = """Ask a model about pictures in the browser.

The page shows evaluation examples of a prepared data set and takes pictures of your own; choose a style, or demonstrations
(at random, or from the index set), and see the answer, the exact prompt and what people wrote. It is served to this
machine alone, and loads nothing from the network. Ctrl-C ends it. Needs gradio: pip install 'icltool[app]'.

    icltool app --model tiny-idefics --dataset shapes --shots 4

    icltool app --model checkpoints/captioner-... --port 8000 --no-browser
"""

command = stage_command("app", AppConfig, HELP)
