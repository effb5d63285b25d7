"""PersonalityCaptions (arXiv:1810.10665): captions that people wrote in a given personality. One example per caption, in the
order of the official files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from icltool.components.datasets.images import MissingImages, check_decoding, is_empty, listing
from icltool.components.datasets.json_stream import read_json
from icltool.components.datasets.near_duplicates import groups_file, read_groups
from icltool.components.datasets.official import counted, few, one_line
from icltool.components.datasets.places import archives_of, chosen_root, find_folder, first_holding, on_disk
from icltool.components.datasets.reader import FileReader, captioned
from icltool.contracts import Example, Options, PreparedSplit, Progress, ReadReport, group_code, open_file
from icltool.errors import DataError

PERSONALITIES = "personalities.txt"
IMAGES = "yfcc_images"
_QUERIES = {"test": "test.json", "validation": "val.json", "val": "val.json"}
_GET = f"put train.json, val.json, test.json and {PERSONALITIES} of PersonalityCaptions there"
_GET_IMAGES = (
    f"put the images into {IMAGES}, as HASH.jpg (--option suffix=.png: as HASH.png), or {IMAGES}.zip there; some images of the "
    "release are no longer available: --option missing=skip leaves their entries out"
)


class Comment(NamedTuple):
    """An entry: an image, a personality, and the comment written in it; `further` are comments by others (test)."""

    image: str
    personality: str
    text: str
    further: tuple[str, ...]

    @property
    def id(self) -> int:
        """A code of image, personality and caption: an example keeps it in another file or order."""
        return group_code("\x00".join((self.image, self.personality, self.text)))


@dataclass(frozen=True)
class Places:
    """The files by our split name, the list of personalities if it exists, and the folder of the images."""

    files: Mapping[str, Path]
    personalities: Path | None
    images: Path


@dataclass(frozen=True)
class Styles:
    """`known` are the personalities of the official list, () without one; `chosen` those of the user's own list, if any."""

    known: tuple[str, ...]
    chosen: tuple[str, ...] | None


class PersonalityCaptionsOptions(Options):
    """Which entries are the queries, and which are left out."""

    split: Literal["test", "validation", "val"] = Field("test", description="split that queries are read from")
    styles: str = Field("", description="file of styles, one per line; examples of other styles are left out")
    missing: MissingImages = Field(
        "refuse", description="what to do with entries whose image is missing: stop with an error, or skip them"
    )
    suffix: str = Field(".jpg", description="file extension of the images")


class PersonalityCaptionsReader(FileReader):
    """Reads `train.json`, `val.json`, `test.json` and `personalities.txt` in `personality_captions` below `root`, or in `root`
    itself, and the images `yfcc_images/HASH.jpg` there; without `root`, below PERSONALITY_CAPTIONS_PATH.

    An example is one entry: the personality is its style, the comment its label and text, and the references are
    the comment with the additional ones (the test split has four). `split` says which file holds the queries: "test" (the
    default), or "validation"; if it is "test", val.json is our split "development", on which captioners choose their best
    weights, unless it is missing. `missing=skip` leaves out entries whose image is missing, and `suffix` is the suffix of
    the image names. `styles` is a file with one style a line: examples of other styles are left out. Entries
    without a comment and repeated ones are left out as well. Ids are codes, image ids codes of the hash. An
    image's group comes from `near_duplicates.json` beside the files ("train", "val" and "development" are our splits).
    """

    name = "personality-captions"
    tasks = ("style",)

    options_model = PersonalityCaptionsOptions

    def __init__(self, options: PersonalityCaptionsOptions) -> None:
        self._skips = options.missing == "skip"
        self._suffix = options.suffix if options.suffix.startswith(".") else f".{options.suffix}"
        self._styles = options.styles
        self._files = {"train": "train.json", "validation": _QUERIES[options.split]}
        if _QUERIES[options.split] == "test.json":
            self._files["development"] = "val.json"

    def read(self, root: Path | None, task: str, workspace: Path, progress: Progress) -> Iterator[PreparedSplit]:
        """See DatasetReader."""
        places = self.find(root)
        styles = self._read_styles(places)
        for name, path in places.files.items():
            with progress.task(f"reading {path.name}", 1, "files") as ticker:
                comments, _ = _comments(path, name, styles)
                ticker.advance()
            groups = read_groups(path, name)
            if self._skips:
                gone = set(self._missing(places, self._images(comments)))
                comments = [comment for comment in comments if f"{comment.image}{self._suffix}" not in gone]
            yield PreparedSplit(name, len(comments), _examples(comments, places.images, self._suffix, groups))

    def _images(self, comments: Sequence[Comment]) -> list[str]:
        """The names of their images, each once."""
        return list(dict.fromkeys(f"{comment.image}{self._suffix}" for comment in comments))

    def _missing(self, places: Places, names: Sequence[str]) -> list[str]:
        """Those that are not there, and where such are left out, empty files too."""
        present = listing(places.images)
        return [i for i in names if i not in present or (self._skips and is_empty(places.images / i))]

    def find(self, root: Path | None) -> Places:
        """The paths of files and images. Raises DataError if a required one is missing."""
        start = chosen_root(root, ("PERSONALITY_CAPTIONS_PATH",), self.name)
        names = list(self._files.values())
        base = first_holding([start / "personality_captions", start / "personality-captions", start], names)
        if base is None:
            raise DataError(
                f"no PersonalityCaptions in {start}: neither personality_captions nor the folder itself has train.json",
                _GET,
            )
        files = {name: base / file for name, file in self._files.items()}
        missing = [path.name for name, path in files.items() if name != "development" and not path.exists()]
        if missing:
            raise DataError(f"{base} lacks {', '.join(missing)}", _GET)
        for folder in (base, start):
            images = find_folder(folder, IMAGES, [f"{IMAGES}.zip"])
            if images is not None:
                break
        else:
            raise DataError(f"no images of PersonalityCaptions: {start} has no {IMAGES}", _GET_IMAGES)
        listed = base / PERSONALITIES
        return Places({n: p for n, p in files.items() if p.exists()}, listed if listed.exists() else None, images)

    def look(self, root: Path | None, task: str, verify: bool, progress: Progress | None) -> ReadReport:
        places = self.find(root)
        styles = self._read_styles(places)
        remarks: list[str] = []
        if places.personalities is None:
            remarks.append(
                f"no {PERSONALITIES} beside {places.files['train'].name}: the styles are those of the examples"
            )
        styles_present: set[str] = set()
        for name, path in places.files.items():
            comments, notes = _comments(path, name, styles)
            read_groups(path, name)
            names = self._images(comments)
            missing = self._missing(places, names)
            if missing and self._skips and len(missing) < len(names):
                gone = set(missing)
                names = [image for image in names if image not in gone]
                dropped = sum(f"{comment.image}{self._suffix}" in gone for comment in comments)
                remarks.append(
                    f"{name}: {dropped:,} entries of {counted(len(gone), 'missing image')} left out: {few(missing)}"
                )
            elif missing:
                raise DataError(
                    f"{path} names {counted(len(missing), 'image')} missing from {places.images}: {few(missing)}",
                    _GET_IMAGES,
                )
            check_decoding(places.images, names, path.name, _GET_IMAGES, verify, progress)
            styles_present |= {comment.personality for comment in comments}
            remarks += notes
        if "development" in self._files and "development" not in places.files:
            remarks.append(
                f"no split 'development': {places.files['train'].parent} has no {self._files['development']}"
            )
        if styles.chosen is not None and (without := [style for style in styles.chosen if style not in styles_present]):
            remarks.append(f"{self._styles}: no example is in the style {few(without)}")
        listed = [path for path in (places.personalities, self._styles_file()) if path is not None]
        files = on_disk([*places.files.values(), *listed, *groups_file(*places.files.values())])
        return ReadReport((*files, *archives_of([places.images])), tuple(remarks))

    def _styles_file(self) -> Path | None:
        return Path(self._styles).expanduser().absolute() if self._styles else None

    def _read_styles(self, places: Places) -> Styles:
        """The lists of styles. DataError for a list of the user's that is not one known style a line."""
        known = () if places.personalities is None else tuple(_lines(places.personalities, _GET))
        path = self._styles_file()
        if path is None:
            return Styles(tuple(line for line in known if line), None)
        chosen = _lines(path, "option styles names a file with one style a line")
        faults = [f"line {place} is empty" for place, line in enumerate(chosen, start=1) if not line]
        counts = Counter(line for line in chosen if line)
        faults += [f"{style!r} is listed {count} times" for style, count in counts.items() if count > 1]
        faults += [f"{style!r} is not in {PERSONALITIES}" for style in counts if known and style not in known]
        if faults or not chosen:
            raise DataError(
                f"{path} is not a list of styles: {few(faults) or 'it is empty'}", "write one style a line, each once"
            )
        return Styles(tuple(line for line in known if line), tuple(chosen))


def _lines(path: Path, hint: str) -> list[str]:
    """The lines of a text file without blanks around them; those that end the file and are empty do not count."""
    try:
        with open_file(path) as file:
            text = file.read().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise DataError(f"{path} cannot be read: {reason}", hint) from error
    return [line.strip() for line in text.rstrip().splitlines()]


def _comments(path: Path, name: str, styles: Styles) -> tuple[list[Comment], list[str]]:
    """The entries of a file that are used, and remarks. DataError that names the file and the entry at fault."""
    listed = read_json(path, _GET, lambda key, entry: _comment(entry))
    if not isinstance(listed, list):
        raise DataError(f"{path} holds no list of captions", _GET)
    comments: dict[int, Comment] = {}
    skipped: Counter[str] = Counter()
    for position, entry in enumerate(listed):
        if entry is None:
            raise DataError(
                f"{path}: entry {position} is not a caption in a personality",
                "it needs image_hash, personality and comment, and may have additional_comments",
            )
        if not entry.text:
            skipped["without a comment"] += 1
        elif styles.chosen is not None and entry.personality not in styles.chosen:
            skipped["in a style that is not chosen"] += 1
        elif entry.id in comments:
            skipped["that is there already"] += 1
        else:
            comments[entry.id] = entry
    remarks = [f"{name}: {n:,} {'entry' if n == 1 else 'entries'} {why} left out" for why, n in skipped.items()]
    if not comments:
        raise DataError(f"{path} has no captions to use", "; ".join(remarks) or _GET)
    unknown = sorted({c.personality for c in comments.values()} - set(styles.known)) if styles.known else []
    if unknown:
        remarks.append(f"{name}: {counted(len(unknown), 'style')} not in {PERSONALITIES}: {few(unknown)}")
    return list(comments.values()), remarks


def _comment(entry: object) -> Comment | None:
    """The entry as a Comment; None if it is not a caption in a personality."""
    if not isinstance(entry, dict):
        return None
    image, personality, text = entry.get("image_hash"), entry.get("personality"), entry.get("comment")
    further = entry.get("additional_comments") or []
    if not (isinstance(image, str) and isinstance(personality, str) and isinstance(text, str)):
        return None
    if not isinstance(further, list):
        return None
    if not image or "/" in image or not personality.strip() or not all(isinstance(other, str) for other in further):
        return None
    others = tuple(line for line in map(one_line, further) if line)
    return Comment(image, one_line(personality), one_line(text), others)


def _examples(comments: list[Comment], images: Path, suffix: str, groups: Mapping[int, str]) -> Iterator[Example]:
    for comment in comments:
        image_id = group_code(comment.image)
        image, texts = str(images / f"{comment.image}{suffix}"), (comment.text, *comment.further)
        yield captioned(comment.id, image, image_id, texts, groups.get(image_id, ""), comment.personality)
