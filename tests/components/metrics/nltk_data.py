"""A small data folder in NLTK's layout: WordNet's files with a few verbs, and a tagger trained on a few answers.

What reads them is NLTK's own code, as it reads the data that its downloader puts there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

#: Verb -> its irregular forms, as verb.exc lists them.
VERBS: dict[str, tuple[str, ...]] = {"ski": (), "skate": (), "run": ("ran", "running"), "surf": (), "be": ("are",)}
#: Answers whose words the tagger learns, with their Penn Treebank tags.
TAGGED: tuple[tuple[tuple[str, str], ...], ...] = (
    (("dogs", "NNS"),),
    (("two", "CD"), ("dogs", "NNS")),
    (("dog", "NN"),),
    (("Alps", "NNPS"),),
    (("bus", "NN"), (".", ".")),
    (("glasses", "NNS"), ("and", "CC"), ("berries", "NNS")),
    (("swimming", "VBG"),),
    (("skiing", "VBG"),),
    (("jeans", "NNS"),),
)
_LICENSE = "  1 This software and database is being provided to you, the LICENSEE\n  2 WordNet 3.0 Copyright 2006\n"
_KINDS = ("adj", "adv", "noun", "verb")


def write_nltk_data(folder: Path) -> Path:
    """`folder` becomes one that NLTK_DATA may name."""
    write_wordnet(folder)
    with nltk_path(folder):
        write_tagger(folder)
    return folder


def write_wordnet(folder: Path, verbs: Mapping[str, Sequence[str]] = VERBS) -> None:
    """corpora/wordnet, its verbs those given; the other parts of speech are empty."""
    base = folder / "corpora" / "wordnet"
    _make(base, folder)
    files = {f"{start}.{kind}": _LICENSE for start in ("index", "data") for kind in _KINDS}
    files |= {f"{kind}.exc": "" for kind in _KINDS}
    files |= {"lexnames": "00\tadj.all\t3\n01\tadj.pert\t3\n", "cntlist.rev": "", "index.sense": ""}
    for verb, forms in sorted(verbs.items()):
        offset = len(files["data.verb"])
        files["data.verb"] += f"{offset:08d} 38 v 01 {verb} 0 000 01 + 02 00 | what {verb} means  \n"
        files["index.verb"] += f"{verb} v 1 0 1 0 {offset:08d}  \n"
        files["index.sense"] += f"{verb}%2:38:00:: {offset:08d} 1 0\n"
        files["verb.exc"] += "".join(f"{form} {verb}\n" for form in sorted(forms))
    for name, content in files.items():
        (base / name).write_text(content, encoding="utf-8")


def write_tagger(folder: Path) -> None:
    """taggers/averaged_perceptron_tagger_eng, trained by NLTK. `folder` must be on nltk.data.path."""
    from nltk.tag.perceptron import PerceptronTagger

    base = folder / "taggers" / "averaged_perceptron_tagger_eng"
    _make(base, folder)
    tagger = PerceptronTagger(load=False)
    # A word that has been seen twenty times with one tag is looked up, so that what is learned here is certain.
    tagger.train([list(answer) for answer in TAGGED for _ in range(25)], save_loc=str(base))


@contextlib.contextmanager
def nltk_path(folder: Path) -> Iterator[None]:
    """NLTK looks for its data in this folder alone, and forgets what it has loaded."""
    import nltk.data
    from nltk.corpus import wordnet

    before = list(nltk.data.path)
    wordnet._unload()
    nltk.data.path[:] = [str(folder)]
    try:
        yield
    finally:
        nltk.data.path[:] = before
        wordnet._unload()


def _make(path: Path, root: Path) -> None:
    """Makes the folder and those above it, and lets only their owner write to them: NLTK reads no others."""
    path.mkdir(parents=True, exist_ok=True)
    for folder in (path, *path.parents):
        folder.chmod(0o755)
        if folder == root:
            break
